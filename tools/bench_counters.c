/*
 * bench_counters.c: megamlp-bench counters: runs a training step on the emulator while that counts,
 * and asks ptxas what it makes of the same kernels.
 */
#include "bench_counters.h"

#include <dlfcn.h>
#include <driver/cu_emulator.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "progress.h"
#include "run_step.h"
#include "tool.h"

/* X(member, symbol, parameters): the functions of the emulator that are called here. */
#define EMULATOR_FUNCTIONS(X)                                                                      \
    X(retain, "cuDevicePrimaryCtxRetain", (CUcontext *, CUdevice))                                 \
    X(release, "cuDevicePrimaryCtxRelease_v2", (CUdevice))                                         \
    X(set_current, "cuCtxSetCurrent", (CUcontext))                                                 \
    X(count, "cuEmulatorCount", (emu_counted *, void *))                                           \
    X(set_registers, "cuEmulatorSetRegisters", (const char *, int))

typedef struct emulator {
    void *library;
    int retained;
#define EMULATOR_MEMBER(member, symbol, parameters) CUresult(*member) parameters;
    EMULATOR_FUNCTIONS(EMULATOR_MEMBER)
#undef EMULATOR_MEMBER
} emulator;

/* Makes the context that the library works in current too. */
static int enter_emulator(emulator *e)
{
    CUcontext context;
    e->library = bench_open_emulator();
    if (!e->library)
        return tool_fail(EXIT_DEVICE, "the emulator is not beside this program: %s", dlerror());
#define EMULATOR_FIND(member, symbol, parameters)                                                  \
    *(void **)(void *)&e->member = dlsym(e->library, symbol);                                      \
    if (!e->member)                                                                                \
        return tool_fail(EXIT_DEVICE, "the emulator has no %s", symbol);
    EMULATOR_FUNCTIONS(EMULATOR_FIND)
#undef EMULATOR_FIND
    if (e->retain(&context, 0) != CUDA_SUCCESS)
        return tool_fail(EXIT_DEVICE, "the emulator gave no device");
    e->retained = 1;
    if (e->set_current(context) != CUDA_SUCCESS)
        return tool_fail(EXIT_DEVICE, "the emulator gave no device");
    return 0;
}

static void leave_emulator(emulator *e)
{
    if (e->retained) {
        e->set_current(NULL);
        e->release(0);
    }
    if (e->library)
        dlclose(e->library);
}

/* ---- what ptxas says ------------------------------------------------------------------------ */

typedef struct kernel_resources {
    char name[256];
    int registers;
    long spill_store_bytes, spill_load_bytes;
} kernel_resources;

/* A line of megamlp-gen check; false: it is about something else. */
static int read_resources(kernel_resources *out, const char *line)
{
    *out = (kernel_resources){.registers = 0};
    if (sscanf(line, "%*s %255s %d registers,", out->name, &out->registers) != 2)
        return 0;
    const char *failed = strstr(line, "FAILED: ");
    if (failed)
        sscanf(failed, "FAILED: %*d B stack, %ld B spill stores, %ld B spill loads",
               &out->spill_store_bytes, &out->spill_load_bytes);
    return 1;
}

/* Calls `use` for each kernel of the report. */
static void for_resources(const char *report, void use(void *user, const kernel_resources *r),
                          void *user)
{
    for (const char *line = report; *line;) {
        size_t length = strcspn(line, "\n");
        char *copy = strndup(line, length);
        kernel_resources resources;
        if (copy && read_resources(&resources, copy))
            use(user, &resources);
        free(copy);
        line += length + (line[length] == '\n');
    }
}

static void tell_registers(void *user, const kernel_resources *r)
{
    const emulator *e = user;
    e->set_registers(r->name, r->registers);
}

static counted_kernel *find_kernel(counted_step *step, const char *name)
{
    for (int i = 0; i < step->count; ++i) {
        if (strcmp(step->kernels[i].plan.name, name) == 0)
            return &step->kernels[i];
    }
    return NULL;
}

static void keep_spills(void *user, const kernel_resources *r)
{
    counted_kernel *kernel = find_kernel(user, r->name);
    if (kernel) {
        kernel->spill_store_bytes = r->spill_store_bytes;
        kernel->spill_load_bytes = r->spill_load_bytes;
    }
}

/* ---- the step ------------------------------------------------------------------------------- */

static void keep_counters(void *user, const char *name, const emu_counters *counters)
{
    counted_kernel *kernel = find_kernel(user, name);
    if (kernel) {
        kernel->counters = *counters;
        ++kernel->launches;
    }
}

static int list_kernels(counted_step *step, const mmlp_mlp *mlp)
{
    step->count = mmlp_mlp_kernel_count(mlp);
    step->kernels = calloc((size_t)step->count + 1, sizeof *step->kernels);
    if (!step->kernels)
        return tool_fail(EXIT_DEVICE, "out of memory: %d kernels", step->count);
    for (int i = 0; i < step->count; ++i) {
        step->kernels[i].plan = (mmlp_kernel_properties)MMLP_KERNEL_PROPERTIES_INIT;
        mmlp_status status = mmlp_mlp_kernel(mlp, i, &step->kernels[i].plan);
        if (status != MMLP_OK)
            return tool_fail_status(status);
    }
    return 0;
}

static int count_step(counted_step *step, run_step *run, const emulator *e)
{
    if (e->count(keep_counters, step) != CUDA_SUCCESS)
        return tool_fail(EXIT_DEVICE, "the emulator has no room to count");
    int code = run_step_execute(run);
    e->count(NULL, NULL);
    return code;
}

static int open_step(counted_step *step, run_step *run, mmlp_bundle **bundle,
                     const bench_counters_options *o)
{
    int code = tool_open_bundle(bundle, o->spec, o->tile);
    if (code == 0)
        code = tool_open_device(&run->context, "emulator", 0, o->arch);
    if (code == 0)
        code = run_step_start(run, 1);
    if (code != 0)
        return code;
    run->train = !o->forward;
    run->infer = o->forward;
    run->microbatches[0].tokens = o->tokens;
    run->properties = (mmlp_bundle_properties)MMLP_BUNDLE_PROPERTIES_INIT;
    mmlp_status status = mmlp_bundle_get(*bundle, &run->properties);
    if (status == MMLP_OK)
        status = mmlp_context_properties(run->context, &step->device);
    return status == MMLP_OK ? 0 : tool_fail_status(status);
}

static int run_counted(counted_step *step, run_step *run, const mmlp_bundle *bundle,
                       const emulator *e, const char *report)
{
    int code = run_step_load(run, bundle);
    if (code == 0)
        code = run_step_random_inputs(run, 1);
    if (code == 0)
        code = run_step_allocate(run);
    if (code == 0)
        code = list_kernels(step, run->mlp);
    if (code != 0)
        return code;
    for_resources(report, keep_spills, step);
    return count_step(step, run, e);
}

double counted_plan_flops(const counted_step *step, const counted_kernel *kernel)
{
    return kernel->plan.flops_per_token * (double)step->tokens;
}

double counted_plan_bytes(const counted_step *step, const counted_kernel *kernel)
{
    return kernel->plan.bytes + kernel->plan.bytes_per_token * (double)step->tokens;
}

int bench_counters(const bench_counters_options *o)
{
    counted_step step = {
        .device = MMLP_DEVICE_PROPERTIES_INIT, .tokens = o->tokens, .forward = o->forward};
    run_step run = {0};
    emulator e = {0};
    mmlp_bundle *bundle = NULL;
    char *report = NULL;
    int code = open_step(&step, &run, &bundle, o);
    if (code == 0)
        code = enter_emulator(&e);
    if (code == 0) {
        progress_begin("asking ptxas for the registers of all kernels");
        code = tool_check_kernels(&report, o->spec, step.device.arch, o->tile);
        progress_end();
    }
    if (code == 0) {
        for_resources(report, tell_registers, &e);
        code = run_counted(&step, &run, bundle, &e, report);
    }
    if (code == 0 && o->json)
        code = counted_print_json(&step);
    else if (code == 0)
        counted_print_tables(&step);
    free(report);
    free(step.kernels);
    run_step_free(&run);
    leave_emulator(&e);
    mmlp_bundle_close(bundle);
    return code;
}
