/*
 * ptxrun_device.c: a device through the CUDA Driver API alone, a GPU's or the emulator's. Every run
 * has a context of its own.
 */
#include <base/nvrtc.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "ptxrun.h"
#include "ptxrun_capture.h"
#include "tool.h"

/* X(name, symbol): the driver functions used here: the name in cuda.h, and the symbol of the form
 * whose declaration cuda.h has. */
#define DRIVER_FUNCTIONS(X)                                                                        \
    X(cuGetErrorName, "cuGetErrorName")                                                            \
    X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain")                                        \
    X(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2")                                   \
    X(cuCtxSetCurrent, "cuCtxSetCurrent")                                                          \
    X(cuCtxSynchronize, "cuCtxSynchronize")                                                        \
    X(cuModuleLoadDataEx, "cuModuleLoadDataEx")                                                    \
    X(cuModuleUnload, "cuModuleUnload")                                                            \
    X(cuModuleGetFunction, "cuModuleGetFunction")                                                  \
    X(cuFuncGetParamInfo, "cuFuncGetParamInfo")                                                    \
    X(cuFuncSetAttribute, "cuFuncSetAttribute")                                                    \
    X(cuMemAlloc, "cuMemAlloc_v2")                                                                 \
    X(cuMemFree, "cuMemFree_v2")                                                                   \
    X(cuMemcpyHtoD, "cuMemcpyHtoD_v2")                                                             \
    X(cuMemcpyDtoH, "cuMemcpyDtoH_v2")                                                             \
    X(cuLaunchKernelEx, "cuLaunchKernelEx")

struct device {
    void *library;
    char *path; /* of the library */
    char *ptx;  /* of the manifest, or compiled */
#define DRIVER_MEMBER(name, symbol) __typeof__(name) *name;
    DRIVER_FUNCTIONS(DRIVER_MEMBER)
#undef DRIVER_MEMBER
    __typeof__(cuTensorMapEncodeTiled) *encode_tiled; /* NULL: the driver has none */
    const char *(*last_report)(void);                 /* the emulator's; NULL: a GPU */
    bool is_lost;
};

/* ---- opening -------------------------------------------------------------------------------- */

static int look_up(device *d)
{
    void *address;
    d->library = dlopen(d->path, RTLD_NOW | RTLD_LOCAL);
    if (!d->library)
        return tool_fail(EXIT_DEVICE, "driver %s: %s", d->path, dlerror());
#define DRIVER_FIND(name, symbol)                                                                  \
    address = dlsym(d->library, symbol);                                                           \
    if (!address)                                                                                  \
        return tool_fail(EXIT_DEVICE, "driver %s has no function %s", d->path, symbol);            \
    memcpy(&d->name, &address, sizeof d->name);
    DRIVER_FUNCTIONS(DRIVER_FIND)
#undef DRIVER_FIND
    address = dlsym(d->library, "cuTensorMapEncodeTiled");
    memcpy(&d->encode_tiled, &address, sizeof d->encode_tiled);
    address = dlsym(d->library, "cuEmulatorLastReport");
    memcpy(&d->last_report, &address, sizeof d->last_report);
    return 0;
}

/* `arch`: "sm_80"; without a target of its own a program is compiled for "compute_80". */
static int compile(device *d, const manifest *m, const char *arch)
{
    char target[32] = "";
    nvrtc *compiler = NULL;
    nvrtc_image image = {0};
    snprintf(target, sizeof target, "compute_%s", strchr(arch, '_') + 1);
    nvrtc_source source = {.name = m->source,
                           .text = m->cuda,
                           .target = m->target ? m->target : target,
                           .options = m->options};
    mmlp_status status = nvrtc_open(&compiler, NULL);
    if (status == MMLP_OK)
        status = nvrtc_compile(&image, compiler, &source);
    d->ptx = image.ptx;
    image.ptx = NULL;
    nvrtc_image_free(&image);
    nvrtc_close(compiler);
    return status == MMLP_OK ? 0 : tool_fail_status(status);
}

/* Opens what --device names, and keeps what is needed of it beyond the context that opened it. */
static int choose(device *d, char arch[16], const char *which, const manifest *m)
{
    mmlp_context *context;
    mmlp_device_properties properties = MMLP_DEVICE_PROPERTIES_INIT;
    if (m->device)
        setenv("MMLP_EMULATOR_DEVICE", m->device, 0);
    int code = tool_open_device(&context, which, 0, NULL);
    if (code != 0)
        return code;
    mmlp_status status = mmlp_context_properties(context, &properties);
    if (status == MMLP_OK) {
        memcpy(arch, properties.arch, sizeof properties.arch);
        d->path = strdup(properties.driver_path);
        code = d->path ? look_up(d) : tool_fail(EXIT_DEVICE, "out of memory: a path");
    } else {
        code = tool_fail_status(status);
    }
    mmlp_context_destroy(context);
    return code;
}

int device_open(device **out, const char *which, const manifest *m)
{
    char arch[16] = "";
    device *d = *out = calloc(1, sizeof *d);
    if (!d)
        return tool_fail(EXIT_DEVICE, "out of memory: a device");
    int code = choose(d, arch, which, m);
    if (code == 0 && m->cuda)
        code = compile(d, m, arch);
    if (code == 0 && m->ptx) {
        d->ptx = strdup(m->ptx);
        code = d->ptx ? 0 : tool_fail(EXIT_DEVICE, "out of memory: a text of PTX");
    }
    return code;
}

void device_close(device *d)
{
    if (!d)
        return;
    if (d->library)
        dlclose(d->library);
    free(d->path);
    free(d->ptx);
    free(d);
}

bool device_has_reports(const device *d)
{
    return d->last_report != NULL;
}

bool device_is_lost(const device *d)
{
    return d->is_lost;
}

const char *device_result_name(const device *d, CUresult result)
{
    const char *name = NULL;
    d->cuGetErrorName(result, &name);
    return name ? name : "an unknown CUresult";
}

/* ---- one run -------------------------------------------------------------------------------- */

typedef struct launch {
    device *d;
    const manifest *m;
    const run *r;
    const json_path *path; /* of the run's parameters */
    CUmodule module;
    CUfunction function;
    CUdeviceptr buffers[PTXRUN_MOST_BUFFERS];
    outcome *outcome;
} launch;

/* A call that may fail because of the kernel: its result is the run's. */
static bool call(launch *l, const char *name, CUresult result)
{
    l->outcome->call = name;
    l->outcome->result = result;
    return result == CUDA_SUCCESS;
}
#define CALL(l, function, ...) call(l, #function, (l)->d->function(__VA_ARGS__))

/* A call that must not fail, whatever the kernel is. */
static int must(const launch *l, const char *what, CUresult result)
{
    if (result == CUDA_SUCCESS)
        return 0;
    return tool_fail(EXIT_DEVICE, "%s: %s gave %s", l->r->entry, what,
                     device_result_name(l->d, result));
}

static bool load(launch *l)
{
    enum { LOG_BYTES = 16384 };
    char *log = calloc(1, LOG_BYTES);
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(size_t)LOG_BYTES};
    bool loaded = CALL(l, cuModuleLoadDataEx, &l->module, l->d->ptx, log ? 2 : 0, options, values);
    if (loaded)
        free(log);
    else
        l->outcome->diagnostic = log;
    return loaded && CALL(l, cuModuleGetFunction, &l->function, l->module, l->r->entry);
}

/* The parameters must be what the PTX declares, byte for byte. */
static int check_parameters(const launch *l)
{
    const run *r = l->r;
    size_t offset, bytes, count = 0;
    while (l->d->cuFuncGetParamInfo(l->function, count, &offset, &bytes) == CUDA_SUCCESS) {
        if (count < r->parameter_count && r->parameters[count].count != bytes)
            return json_path_say(JSON_INDEX(l->path, count),
                                 "found %zu bytes, wanted %zu: parameter %zu of %s",
                                 r->parameters[count].count, bytes, count, r->entry);
        if (count < r->parameter_count && offset % r->parameters[count].align != 0)
            return json_path_say(JSON_INDEX(l->path, count),
                                 "found an alignment of %zu bytes, but parameter %zu of %s stands "
                                 "at offset %zu",
                                 r->parameters[count].align, count, r->entry, offset);
        ++count;
    }
    if (count != r->parameter_count)
        return json_path_say(l->path, "found %zu, wanted %zu: the parameters of %s",
                             r->parameter_count, count, r->entry);
    return 0;
}

static int make_buffers(launch *l, unsigned char *const *bytes)
{
    int code = 0;
    for (size_t i = 0; code == 0 && i < l->m->buffer_count; ++i) {
        const buffer *b = &l->m->buffers[i];
        code = must(l, b->name, l->d->cuMemAlloc(&l->buffers[i], b->bytes));
        if (code == 0 && bytes[i])
            code = must(l, b->name, l->d->cuMemcpyHtoD(l->buffers[i], bytes[i], b->bytes));
    }
    return code;
}

/* Puts an address, or a tensor map made for it, into its parameter. */
static int fill_slot(const launch *l, const json_path *at, parameter *p, const parameter_slot *slot)
{
    CUdeviceptr address = l->buffers[slot->buffer] + slot->offset;
    const tensor_map *map = slot->map;
    if (!map) {
        memcpy(p->bytes + slot->at, &address, sizeof address);
        return 0;
    }
    if (!l->d->encode_tiled) {
        json_path_say(at,
                      "the driver %s has no cuTensorMapEncodeTiled: tensor maps need one that "
                      "has, and a GPU of compute capability 9.0 or later",
                      l->d->path);
        return EXIT_DEVICE;
    }
    CUtensorMap encoded;
    CUresult result =
        l->d->encode_tiled(&encoded, map->type, map->rank, (void *)(uintptr_t)address,
                           map->dimensions, map->strides, map->box, map->element_strides,
                           map->interleave, map->swizzle, map->l2_promotion, map->oob_fill);
    if (result == CUDA_ERROR_NOT_SUPPORTED) {
        json_path_say(at, "the device has no such tensor maps (CUDA_ERROR_NOT_SUPPORTED): they "
                          "need a GPU of compute capability 9.0 or later");
        return EXIT_DEVICE;
    }
    if (result != CUDA_SUCCESS)
        return json_path_say(at, "cuTensorMapEncodeTiled refuses these values: %s",
                             device_result_name(l->d, result));
    memcpy(p->bytes + slot->at, &encoded, sizeof encoded);
    return 0;
}

static int fill_parameters(const launch *l)
{
    int code = 0;
    for (size_t i = 0; i < l->r->parameter_count; ++i) {
        parameter *p = &l->r->parameters[i];
        for (size_t k = 0; code == 0 && k < p->slot_count; ++k)
            code = fill_slot(l, JSON_INDEX(l->path, i), p, &p->slots[k]);
    }
    return code;
}

static bool start(launch *l)
{
    const run *r = l->r;
    void *pointers[PTXRUN_MOST_PARAMETERS + 1] = {NULL};
    for (size_t i = 0; i < r->parameter_count; ++i)
        pointers[i] = r->parameters[i].bytes;
    CUlaunchAttribute cluster = {.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
                                 .value.clusterDim = {r->cluster[0], r->cluster[1], r->cluster[2]}};
    CUlaunchConfig config = {.gridDimX = r->grid[0],
                             .gridDimY = r->grid[1],
                             .gridDimZ = r->grid[2],
                             .blockDimX = r->block[0],
                             .blockDimY = r->block[1],
                             .blockDimZ = r->block[2],
                             .sharedMemBytes = r->shared_bytes,
                             .attrs = &cluster,
                             .numAttrs = r->cluster[0] > 0};
    if (r->shared_bytes > 0 &&
        !CALL(l, cuFuncSetAttribute, l->function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
              (int)r->shared_bytes))
        return false;
    return CALL(l, cuLaunchKernelEx, &config, l->function, pointers, NULL) &&
           CALL(l, cuCtxSynchronize, );
}

static bool start_captured(launch *l)
{
    capture printed, complaints;
    capture_begin(&printed, stdout);
    capture_begin(&complaints, stderr);
    bool success = start(l);
    l->outcome->complaints = capture_end(&complaints);
    l->outcome->printed = capture_end(&printed);
    if (!success && l->d->last_report)
        l->outcome->diagnostic = strdup(l->d->last_report());
    l->d->is_lost = !success && !l->d->last_report;
    return success;
}

static int download(const launch *l, unsigned char **got)
{
    int code = 0;
    for (size_t i = 0; code == 0 && i < l->r->expected_count; ++i) {
        int which = l->r->expected[i].buffers[0];
        const buffer *b = &l->m->buffers[which];
        if (got[which])
            continue;
        got[which] = malloc(b->bytes);
        code = got[which]
                   ? must(l, b->name, l->d->cuMemcpyDtoH(got[which], l->buffers[which], b->bytes))
                   : tool_fail(EXIT_DEVICE, "out of memory: %s has %zu bytes", b->name, b->bytes);
    }
    return code;
}

static int run_in_context(launch *l, unsigned char **got, unsigned char *const *bytes)
{
    if (!load(l))
        return 0;
    int code = check_parameters(l);
    if (code == 0)
        code = make_buffers(l, bytes);
    if (code == 0)
        code = fill_parameters(l);
    if (code == 0 && start_captured(l))
        code = download(l, got);
    return code;
}

int device_run(outcome *out, unsigned char **got, device *d, const manifest *m, size_t run_index,
               unsigned char *const *bytes)
{
    CUcontext context;
    *out = (outcome){0};
    launch l = {.d = d, .m = m, .r = &m->runs[run_index], .outcome = out};
    l.path = JSON_KEY(JSON_INDEX(JSON_KEY(&m->root, "runs"), run_index), "parameters");
    int code = must(&l, "cuDevicePrimaryCtxRetain", d->cuDevicePrimaryCtxRetain(&context, 0));
    if (code != 0)
        return code;
    code = must(&l, "cuCtxSetCurrent", d->cuCtxSetCurrent(context));
    if (code == 0)
        code = run_in_context(&l, got, bytes);
    for (size_t i = 0; i < m->buffer_count; ++i)
        d->cuMemFree(l.buffers[i]);
    if (l.module)
        d->cuModuleUnload(l.module);
    d->cuCtxSetCurrent(NULL);
    d->cuDevicePrimaryCtxRelease(0);
    return code;
}

void outcome_free(outcome *o)
{
    free(o->diagnostic);
    free(o->printed);
    free(o->complaints);
    *o = (outcome){0};
}
