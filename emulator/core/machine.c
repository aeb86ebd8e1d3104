/*
 * machine.c: machines and modules: the handles of emu.h, the choice of host instruction set, and
 * loading PTX into device memory and kernels.
 */
#include <assert.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adverse.h"
#include "machine.h"
#include "numerics.h"

/* ---- machines ---- */

static emu_handler *const *find_handlers(const char *isa)
{
#ifdef EMU_HAVE_X86
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                __builtin_cpu_supports("bmi2");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (avx512 && (!isa || strcmp(isa, "avx512") == 0)) {
        return exec_table_avx512;
    }
    if (avx2 && (!isa || strcmp(isa, "avx2") == 0)) {
        return exec_table_avx2;
    }
#endif
    return !isa || strcmp(isa, "plain") == 0 ? exec_table_plain : NULL;
}

/* handlers.def has the exact handlers right behind the others. */
enum { MMA_FIRST = IR_mma_m16n8k16_bf16, MMA_EXACT_FIRST = IR_mma_exact_m16n8k16_bf16 };
static_assert(IR_mma_exact_byte - IR_mma_byte == MMA_EXACT_FIRST - MMA_FIRST &&
                  IR_mma_byte + 1 == MMA_EXACT_FIRST,
              "every mma handler needs an exact one");

CUresult emu_machine_create(emu_machine **out, const emu_config *config)
{
    *out = NULL;
    emu_handler *const *handlers = find_handlers(config->isa);
    mma_device tensor_cores;
    if (!handlers || !config->arch || config->threads < 0 ||
        !numerics_find(&tensor_cores, config->numerics, config->arch)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    emu_machine *machine = pool_require(calloc(1, sizeof *machine));
    machine->arch = config->arch;
    machine->schedule = config->schedule;
    machine->threads = config->threads;
    machine->host_handlers = handlers;
    memcpy(machine->handlers, handlers, sizeof machine->handlers);
    machine->tensor_cores = tensor_cores;
    if (tensor_cores != MMA_NO_DEVICE) {
        memcpy(&machine->handlers[MMA_FIRST], &handlers[MMA_EXACT_FIRST],
               (MMA_EXACT_FIRST - MMA_FIRST) * sizeof *handlers);
    }
    if (config->schedule.adverse) {
        adverse_replace(machine->handlers);
    }
    if (!memory_open(&machine->memory, config->arch->memory_bytes)) {
        free(machine);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (config->check_races && !(machine->race = race_open(&machine->memory))) {
        memory_close(&machine->memory);
        free(machine);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_mutex_init(&machine->launching, NULL);
    *out = machine;
    return CUDA_SUCCESS;
}

static void free_module(emu_module *module)
{
    for (ptx_variable *v = module->ptx.variables; v; v = v->next) {
        if ((v->space == SPACE_GLOBAL || v->space == SPACE_CONST) && v->address) {
            memory_free(&module->machine->memory, v->address);
        }
    }
    for (int i = 0; i < module->function_count; i++) {
        ir_kernel_free(module->functions[i].kernel);
    }
    free(module->functions);
    ptx_free(&module->ptx);
    free(module);
}

void emu_machine_destroy(emu_machine *machine)
{
    if (!machine) {
        return;
    }
    launch_crew_end(machine->crew);
    while (machine->modules) {
        emu_module *next = machine->modules->next;
        free_module(machine->modules);
        machine->modules = next;
    }
    tally_close(&machine->tally);
    race_close(machine->race);
    occupancy_forget(machine);
    memory_close(&machine->memory);
    pthread_mutex_destroy(&machine->launching);
    free(machine);
}

/* ---- loading ---- */

static const struct {
    unsigned char bytes[4];
    const char *name;
} binary_images[] = {
    {{0x7f, 'E', 'L', 'F'}, "a cubin"},
    {{0x50, 0xed, 0x55, 0xba}, "a fatbin"},
    {{0xb1, 0x43, 0x62, 0x46}, "a fatbin wrapper"},
};

static bool is_binary(const void *image, size_t bytes, emu_module *module)
{
    for (size_t i = 0; i < sizeof binary_images / sizeof binary_images[0]; i++) {
        if (bytes >= 4 && memcmp(image, binary_images[i].bytes, 4) == 0) {
            snprintf(module->ptx.error, sizeof module->ptx.error,
                     "the image is %s, the emulator runs PTX text", binary_images[i].name);
            return true;
        }
    }
    return false;
}

/* sm_90a runs on 9.0 alone, sm_100f on 10.x, sm_80 on everything from 8.0 on. */
static bool is_target_supported(emu_module *module)
{
    const emu_arch *arch = module->machine->arch;
    ptx_module *ptx = &module->ptx;
    int have = 10 * arch->cc_major + arch->cc_minor;
    bool ok = ptx->target <= have;
    if (ptx->target_suffix == 'a') {
        ok = ptx->target == have;
    } else if (ptx->target_suffix == 'f') {
        ok = ok && ptx->target / 10 == have / 10;
    }
    if (!ok) {
        char suffix[2] = {ptx->target_suffix, 0};
        snprintf(ptx->error, sizeof ptx->error,
                 "the PTX is for sm_%d%s, the device has compute capability %d.%d", ptx->target,
                 suffix, arch->cc_major, arch->cc_minor);
    }
    return ok;
}

static CUresult allocate_variables(emu_module *module)
{
    for (ptx_variable *v = module->ptx.variables; v; v = v->next) {
        if (v->space == SPACE_SHARED || v->is_extern || v->bytes == 0) {
            continue;
        }
        char label[128];
        CUdeviceptr address;
        snprintf(label, sizeof label, "%s", v->name->chars);
        CUresult result = memory_alloc(&module->machine->memory, &address, v->bytes, label);
        if (result) {
            return result;
        }
        v->address = address;
    }
    return CUDA_SUCCESS;
}

/* Variables without an initialiser are zero. */
static bool initialise_variables(emu_module *module)
{
    ptx_module *ptx = &module->ptx;
    for (ptx_variable *v = ptx->variables; v; v = v->next) {
        if (!v->address) {
            continue;
        }
        uint8_t *at = (uint8_t *)(uintptr_t)v->address;
        if (v->initial) {
            memcpy(at, v->initial, v->bytes);
        } else {
            memset(at, 0, v->bytes);
        }
        for (const ptx_fixup *fixup = v->fixups; fixup; fixup = fixup->next) {
            const ptx_variable *target = ptx_find_variable(ptx, fixup->symbol);
            if (!target || !target->address) {
                snprintf(ptx->error, sizeof ptx->error,
                         "the initialiser of '%.200s' needs the address of '%.200s', which is no "
                         "variable in global memory",
                         v->name->chars, fixup->symbol->chars);
                return false;
            }
            uint64_t value = target->address + (uint64_t)fixup->addend;
            memcpy(at + fixup->offset, &value, (size_t)fixup->bytes);
        }
        memory_mark(&module->machine->memory, v->address, v->bytes);
    }
    return true;
}

static bool decode_entries(emu_module *module)
{
    int count = 0;
    for (ptx_function *f = module->ptx.functions; f; f = f->next) {
        count += f->is_entry && f->has_body;
    }
    module->functions = pool_require(calloc((size_t)count + 1, sizeof *module->functions));
    for (ptx_function *f = module->ptx.functions; f; f = f->next) {
        if (f->is_entry && f->has_body) {
            ir_kernel *kernel = decode_kernel(&module->ptx, f, module->machine->handlers);
            if (!kernel) {
                return false;
            }
            kernel->registers = occupancy_registers(module->machine, kernel);
            module->functions[module->function_count++] = (emu_function){module, kernel};
        }
    }
    return true;
}

static CUresult load(emu_module *module, const void *image, size_t bytes)
{
    if (is_binary(image, bytes, module)) {
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    }
    while (bytes && ((const char *)image)[bytes - 1] == 0) {
        bytes--;
    }
    module->ptx.source = pool_string(&module->ptx.memory, image, bytes);
    module->ptx.source_bytes = bytes;
    if (!ptx_parse(&module->ptx)) {
        return CUDA_ERROR_INVALID_PTX;
    }
    if (!is_target_supported(module)) {
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    }
    CUresult result = allocate_variables(module);
    if (result) {
        return result;
    }
    return initialise_variables(module) && decode_entries(module) ? CUDA_SUCCESS
                                                                  : CUDA_ERROR_INVALID_PTX;
}

CUresult emu_module_load(emu_machine *machine, emu_module **out, const void *image, size_t bytes,
                         char *log, size_t log_bytes)
{
    *out = NULL;
    emu_module *module = pool_require(calloc(1, sizeof *module));
    module->machine = machine;
    /* PTX has decimal points, whatever the caller's locale. */
    locale_t plain = pool_require(newlocale(LC_ALL_MASK, "C", (locale_t)0));
    locale_t callers = uselocale(plain);
    pthread_mutex_lock(&machine->launching);
    CUresult result = load(module, image, bytes);
    uselocale(callers);
    freelocale(plain);
    if (log && log_bytes) {
        snprintf(log, log_bytes, "%s", result ? module->ptx.error : "");
    }
    if (result) {
        free_module(module);
    } else {
        module->next = machine->modules;
        machine->modules = module;
        *out = module;
    }
    pthread_mutex_unlock(&machine->launching);
    return result;
}

void emu_module_unload(emu_machine *machine, emu_module *module)
{
    if (!module) {
        return;
    }
    pthread_mutex_lock(&machine->launching);
    for (emu_module **at = &machine->modules; *at; at = &(*at)->next) {
        if (*at == module) {
            *at = module->next;
            free_module(module);
            break;
        }
    }
    pthread_mutex_unlock(&machine->launching);
}

/* ---- looking into modules ---- */

CUresult emu_module_function(emu_module *module, const char *name, emu_function **out)
{
    *out = NULL;
    for (int i = 0; i < module->function_count; i++) {
        if (strcmp(module->functions[i].kernel->name, name) == 0) {
            *out = &module->functions[i];
            return CUDA_SUCCESS;
        }
    }
    return CUDA_ERROR_NOT_FOUND;
}

int emu_module_function_count(const emu_module *module)
{
    return module->function_count;
}

emu_function *emu_module_function_at(emu_module *module, int index)
{
    return index >= 0 && index < module->function_count ? &module->functions[index] : NULL;
}

CUresult emu_module_global(emu_module *module, const char *name, CUdeviceptr *ptr, size_t *bytes)
{
    for (const ptx_variable *v = module->ptx.variables; v; v = v->next) {
        if (v->address && (v->space == SPACE_GLOBAL || v->space == SPACE_CONST) &&
            strcmp(v->name->chars, name) == 0) {
            if (ptr) {
                *ptr = v->address;
            }
            if (bytes) {
                *bytes = v->bytes;
            }
            return CUDA_SUCCESS;
        }
    }
    return CUDA_ERROR_NOT_FOUND;
}

static size_t const_bytes(const ptx_module *ptx)
{
    size_t sum = 0;
    for (const ptx_variable *v = ptx->variables; v; v = v->next) {
        sum += v->space == SPACE_CONST ? v->bytes : 0;
    }
    return sum;
}

void emu_function_get(const emu_function *function, emu_function_attributes *out)
{
    const ir_kernel *kernel = function->kernel;
    const ptx_function *f = kernel->function;
    const int *most = f->maxntid[0] ? f->maxntid : f->reqntid;
    *out = (emu_function_attributes){.name = kernel->name,
                                     .static_shared_bytes = kernel->shared_static,
                                     .const_bytes = const_bytes(kernel->module),
                                     .local_bytes = kernel->local_bytes,
                                     .max_threads = most[0] ? most[0] * most[1] * most[2] : 1024,
                                     .registers = kernel->registers,
                                     .ptx_version = kernel->module->version,
                                     .target = kernel->module->target,
                                     .param_count = f->param_count,
                                     .param_bytes = kernel->param_bytes};
    memcpy(out->reqntid, f->reqntid, sizeof out->reqntid);
    memcpy(out->cluster, f->reqnctapercluster, sizeof out->cluster);
    out->max_cluster = f->maxclusterrank;
    out->is_explicit_cluster = f->is_explicit_cluster;
}

CUresult emu_function_param(const emu_function *function, int index, size_t *offset, size_t *bytes)
{
    const ptx_variable *v = function->kernel->function->params;
    for (int i = 0; v && i < index; i++) {
        v = v->next;
    }
    if (!v || index < 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *offset = v->address;
    *bytes = v->bytes;
    return CUDA_SUCCESS;
}
