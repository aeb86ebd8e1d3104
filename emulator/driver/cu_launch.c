/*
 * cu_launch.c: launches of kernels and host functions. A kernel has run to its end when the call
 * returns; what went wrong inside it is told, as on a GPU, by the next call that waits for the
 * device.
 */
#include <stdlib.h>
#include <string.h>

#include "driver/graph.h"

#define REPORT_BYTES 16384

/* The API's limits, the same on every architecture so far. */
static bool shape_is_valid(const emu_launch *launch)
{
    const unsigned *g = launch->grid, *b = launch->block;
    return g[0] >= 1 && g[0] <= INT32_MAX && g[1] >= 1 && g[1] <= 65535 && g[2] >= 1 &&
           g[2] <= 65535 && b[0] >= 1 && b[0] <= 1024 && b[1] >= 1 && b[1] <= 1024 && b[2] >= 1 &&
           b[2] <= 64 && b[0] * b[1] * b[2] <= 1024;
}

static CUresult check_shape(CUfunction function, const emu_launch *launch)
{
    const emu_function_attributes *a = &function->attributes;
    if (!shape_is_valid(launch))
        return CUDA_ERROR_INVALID_VALUE;
    for (int i = 0; i < 3; i++) {
        if (a->reqntid[0] && launch->block[i] != (unsigned)a->reqntid[i])
            return CUDA_ERROR_INVALID_VALUE;
    }
    if (launch->block[0] * launch->block[1] * launch->block[2] > (unsigned)a->max_threads)
        return CUDA_ERROR_INVALID_VALUE;
    if (launch->dynamic_shared_bytes > (size_t)function->max_dynamic_shared)
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

/* Packs the parameter block from an array of pointers to values. */
static CUresult pack_pointers(unsigned char *block, CUfunction function, void **params)
{
    int count = function->attributes.param_count;
    if (count > 0 && !params)
        return CUDA_ERROR_INVALID_VALUE;
    for (int i = 0; i < count; i++) {
        size_t offset, bytes;
        FRONT_TRY(emu_function_param(function->function, i, &offset, &bytes));
        if (!params[i])
            return CUDA_ERROR_INVALID_VALUE;
        memcpy(block + offset, params[i], bytes);
    }
    return CUDA_SUCCESS;
}

/* Packs it from the CU_LAUNCH_PARAM_* list, whose buffer already has the block's layout. */
static CUresult pack_buffer(unsigned char *block, CUfunction function, void **extra)
{
    const void *buffer = NULL;
    size_t size = 0;
    for (size_t i = 0; extra[i] != CU_LAUNCH_PARAM_END; i += 2) {
        if (extra[i] == CU_LAUNCH_PARAM_BUFFER_POINTER)
            buffer = extra[i + 1];
        else if (extra[i] == CU_LAUNCH_PARAM_BUFFER_SIZE)
            size = extra[i + 1] ? *(const size_t *)extra[i + 1] : 0;
        else
            return CUDA_ERROR_INVALID_VALUE;
    }
    size_t needed = function->attributes.param_bytes;
    if (size < needed || (needed && !buffer))
        return CUDA_ERROR_INVALID_VALUE;
    if (needed)
        memcpy(block, buffer, needed);
    return CUDA_SUCCESS;
}

static bool is_device_fault(CUresult result)
{
    return result == CUDA_ERROR_ILLEGAL_ADDRESS || result == CUDA_ERROR_MISALIGNED_ADDRESS ||
           result == CUDA_ERROR_ILLEGAL_INSTRUCTION || result == CUDA_ERROR_LAUNCH_FAILED ||
           result == CUDA_ERROR_ASSERT || result == CUDA_ERROR_INVALID_ADDRESS_SPACE ||
           result == CUDA_ERROR_INVALID_PC || result == CUDA_ERROR_HARDWARE_STACK_ERROR ||
           result == CUDA_ERROR_LAUNCH_TIMEOUT;
}

/* A launch and its packed parameter block. */
typedef struct kernel_work {
    CUfunction function;
    emu_launch launch;
    size_t param_bytes;
    unsigned char params[];
} kernel_work;

static CUresult run_kernel(CUcontext context, const void *arguments)
{
    const kernel_work *work = arguments;
    /* a graph may outlive the module */
    if (!front_is(work->function, FRONT_FUNCTION) ||
        work->function->attributes.param_bytes != work->param_bytes)
        return CUDA_ERROR_INVALID_HANDLE;
    char *report = malloc(REPORT_BYTES);
    if (!report)
        return CUDA_ERROR_OUT_OF_MEMORY;
    report[0] = '\0';
    CUresult result = emu_run(context->machine, work->function->function, &work->launch,
                              work->params, report, REPORT_BYTES);
    if (is_device_fault(result)) {
        front_record_fault(context, result, report);
        result = CUDA_SUCCESS;
    }
    free(report);
    return result;
}

static const char *describe_kernel(FILE *args, const void *arguments)
{
    const kernel_work *work = arguments;
    const unsigned *grid = work->launch.grid, *block = work->launch.block;
    fprintf(args, ",\"grid\":[%u,%u,%u],\"block\":[%u,%u,%u]", grid[0], grid[1], grid[2], block[0],
            block[1], block[2]);
    return front_is(work->function, FRONT_FUNCTION) ? work->function->attributes.name
                                                    : "unloaded kernel";
}

static const graph_kind kernel_kind = {CU_GRAPH_NODE_TYPE_KERNEL, false, run_kernel, "kernel",
                                       describe_kernel};

static CUresult launch_kernel(CUfunction function, const emu_launch *launch, CUstream stream,
                              void **params, void **extra)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, stream));
    if (!front_is(function, FRONT_FUNCTION) || function->object.context != context)
        return CUDA_ERROR_INVALID_HANDLE;
    if (params && extra)
        return CUDA_ERROR_INVALID_VALUE;
    FRONT_TRY(check_shape(function, launch));
    FRONT_TRY(front_check_cluster(function, launch));

    size_t param_bytes = function->attributes.param_bytes;
    kernel_work *kernel = calloc(1, sizeof *kernel + param_bytes);
    if (!kernel)
        return CUDA_ERROR_OUT_OF_MEMORY;
    kernel->function = function;
    kernel->launch = *launch;
    kernel->param_bytes = param_bytes;
    CUresult result = extra ? pack_buffer(kernel->params, function, extra)
                            : pack_pointers(kernel->params, function, params);
    graph_work work = {&kernel_kind, kernel, sizeof *kernel + param_bytes};
    if (result == CUDA_SUCCESS)
        result = graph_enqueue(stream, &work);
    free(kernel);
    return result;
}

CUresult CUDAAPI cuLaunchKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY,
                                unsigned int gridDimZ, unsigned int blockDimX,
                                unsigned int blockDimY, unsigned int blockDimZ,
                                unsigned int sharedMemBytes, CUstream hStream, void **kernelParams,
                                void **extra)
{
    emu_launch launch = {{gridDimX, gridDimY, gridDimZ},
                         {blockDimX, blockDimY, blockDimZ},
                         {0, 0, 0},
                         sharedMemBytes,
                         false};
    return launch_kernel(f, &launch, hStream, kernelParams, extra);
}

CUresult front_read_config(emu_launch *out, const CUlaunchConfig *config)
{
    if (!config || (config->numAttrs && !config->attrs))
        return CUDA_ERROR_INVALID_VALUE;
    emu_launch launch = {{config->gridDimX, config->gridDimY, config->gridDimZ},
                         {config->blockDimX, config->blockDimY, config->blockDimZ},
                         {0, 0, 0},
                         config->sharedMemBytes,
                         false};
    for (unsigned i = 0; i < config->numAttrs; i++) {
        const CUlaunchAttributeValue *value = &config->attrs[i].value;
        switch ((int)config->attrs[i].id) {
        case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
            launch.cluster[0] = value->clusterDim.x;
            launch.cluster[1] = value->clusterDim.y;
            launch.cluster[2] = value->clusterDim.z;
            break;
        case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
            if (value->cooperative)
                return CUDA_ERROR_NOT_SUPPORTED;
            break;
        case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
            launch.is_dependent = value->programmaticStreamSerializationAllowed != 0;
            break;
        case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT:
        case CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT:
        case CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE:
            return CUDA_ERROR_NOT_SUPPORTED;
        default: /* hints */
            break;
        }
    }
    *out = launch;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **kernelParams,
                                  void **extra)
{
    emu_launch launch;
    FRONT_TRY(front_read_config(&launch, config));
    return launch_kernel(f, &launch, config->hStream, kernelParams, extra);
}

/* Blocks that wait for one another need all of them running, which the machine does not promise. */
CUresult CUDAAPI cuLaunchCooperativeKernel(CUfunction f, unsigned int gridDimX,
                                           unsigned int gridDimY, unsigned int gridDimZ,
                                           unsigned int blockDimX, unsigned int blockDimY,
                                           unsigned int blockDimZ, unsigned int sharedMemBytes,
                                           CUstream hStream, void **kernelParams)
{
    (void)gridDimX, (void)gridDimY, (void)gridDimZ, (void)blockDimX, (void)blockDimY;
    (void)blockDimZ, (void)sharedMemBytes, (void)kernelParams;
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!front_is(f, FRONT_FUNCTION))
        return CUDA_ERROR_INVALID_HANDLE;
    return CUDA_ERROR_NOT_SUPPORTED;
}

typedef struct host_work {
    CUhostFn call;
    void *argument;
} host_work;

static CUresult run_host(CUcontext context, const void *arguments)
{
    (void)context;
    const host_work *host = arguments;
    host->call(host->argument);
    return CUDA_SUCCESS;
}

static const char *describe_host(FILE *args, const void *arguments)
{
    (void)args, (void)arguments;
    return "host function";
}

static const graph_kind host_kind = {CU_GRAPH_NODE_TYPE_HOST, false, run_host, "host",
                                     describe_host};

CUresult CUDAAPI cuLaunchHostFunc(CUstream hStream, CUhostFn fn, void *userData)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!fn)
        return CUDA_ERROR_INVALID_VALUE;
    host_work host = {fn, userData};
    return graph_enqueue(hStream, &(graph_work){&host_kind, &host, sizeof host});
}
