/* driver_launch.c: modules, kernels, launches, streams, events, and what happens after a fault. */
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"

/* ---- modules -------------------------------------------------------------------------------- */

static CUresult load_logged(const char *image, char *log, size_t capacity, size_t *written)
{
    CUmodule module = (CUmodule)1;
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(uintptr_t)capacity};
    CUresult result = cuModuleLoadDataEx(&module, image, 2, options, values);
    *written = (size_t)(uintptr_t)values[1];
    if (result != CUDA_SUCCESS)
        cr_expect_null(module);
    return result;
}

Test(modules, text_that_is_no_ptx_fills_the_error_log)
{
    CUcontext context = open_device();
    char log[256] = "";
    size_t written = 0;
    EXPECT_RESULT(CUDA_ERROR_INVALID_PTX, load_logged("nonsense", log, sizeof log, &written));
    cr_expect_gt(written, 0);
    cr_expect_eq(strlen(log), written);
    char tiny[8] = "";
    EXPECT_RESULT(CUDA_ERROR_INVALID_PTX, load_logged("nonsense", tiny, sizeof tiny, &written));
    cr_expect_eq(written, 7);
    cr_expect_eq(strncmp(log, tiny, 7), 0);
    EXPECT_OK(cuCtxDestroy(context));
}

Test(modules, binary_images_are_for_another_gpu)
{
    CUcontext context = open_device();
    CUmodule module;
    EXPECT_RESULT(CUDA_ERROR_NO_BINARY_FOR_GPU, cuModuleLoadData(&module, "\177ELF\2\1\1"));
    EXPECT_RESULT(CUDA_ERROR_NO_BINARY_FOR_GPU, cuModuleLoadData(&module, "\x50\xed\x55\xba..."));
    EXPECT_RESULT(CUDA_ERROR_NO_BINARY_FOR_GPU, cuModuleLoadFatBinary(&module, "\xb1\x43\x62\x46"));
    EXPECT_RESULT(CUDA_ERROR_FILE_NOT_FOUND, cuModuleLoad(&module, "/nowhere/x.ptx"));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuModuleLoadData(&module, NULL));
    EXPECT_OK(cuCtxDestroy(context));
}

Test(modules, functions_are_counted_listed_and_found)
{
    CUcontext context = open_device();
    CUmodule module = load_fixture(), owner = NULL;
    unsigned count = 0;
    CUfunction listed[8] = {NULL}, function = NULL;
    const char *name = NULL;
    EXPECT_OK(cuModuleGetFunctionCount(&count, module));
    cr_expect_eq(count, 4);
    EXPECT_OK(cuModuleEnumerateFunctions(listed, 8, module));
    EXPECT_OK(cuModuleGetFunction(&function, module, "store_at"));
    cr_expect_eq(function, get_kernel(module, "store_at"));
    EXPECT_OK(cuFuncGetName(&name, function));
    cr_expect_str_eq(name, "store_at");
    EXPECT_OK(cuFuncGetModule(&owner, function));
    cr_expect_eq(owner, module);
    EXPECT_RESULT(CUDA_ERROR_NOT_FOUND, cuModuleGetFunction(&function, module, "missing"));
    EXPECT_OK(cuModuleUnload(module));
    EXPECT_RESULT(CUDA_ERROR_INVALID_HANDLE, cuModuleUnload(module));
    EXPECT_RESULT(CUDA_ERROR_INVALID_HANDLE, cuFuncGetName(&name, listed[0]));
    EXPECT_OK(cuCtxDestroy(context));
}

Test(modules, parameters_are_described)
{
    CUcontext context = open_device();
    CUfunction add = get_kernel(load_fixture(), "add");
    static const size_t wanted[4][2] = {{0, 8}, {8, 8}, {16, 4}, {20, 4}};
    size_t offset, bytes;
    for (size_t i = 0; i < 4; i++) {
        EXPECT_OK(cuFuncGetParamInfo(add, i, &offset, &bytes));
        cr_expect_eq(offset, wanted[i][0]);
        cr_expect_eq(bytes, wanted[i][1]);
    }
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuFuncGetParamInfo(add, 4, &offset, &bytes));
    EXPECT_OK(cuCtxDestroy(context));
}

Test(modules, variables_have_an_address_and_their_initial_value)
{
    CUcontext context = open_device();
    CUmodule module = load_fixture();
    CUdeviceptr table = 0;
    size_t bytes = 0;
    unsigned values[4] = {0};
    EXPECT_OK(cuModuleGetGlobal(&table, &bytes, module, "table"));
    cr_expect_eq(bytes, 16);
    EXPECT_OK(cuMemcpyDtoH(values, table, 16));
    cr_expect_eq(values[2], 3);
    EXPECT_RESULT(CUDA_ERROR_NOT_FOUND, cuModuleGetGlobal(&table, &bytes, module, "chair"));
    EXPECT_OK(cuCtxDestroy(context));
}

/* ---- launches ------------------------------------------------------------------------------- */

Test(launch, a_kernel_computes_with_both_forms_of_parameters)
{
    CUcontext context = open_device();
    CUfunction add = get_kernel(load_fixture(), "add");
    enum { COUNT = 1000 };
    unsigned in[COUNT], out[COUNT];
    for (unsigned i = 0; i < COUNT; i++)
        in[i] = 3 * i;
    CUdeviceptr source, result;
    EXPECT_OK(cuMemAlloc(&source, sizeof in));
    EXPECT_OK(cuMemAlloc(&result, sizeof in));
    EXPECT_OK(cuMemcpyHtoD(source, in, sizeof in));
    unsigned value = 5, count = COUNT;
    void *params[] = {&result, &source, &value, &count};
    EXPECT_OK(cuLaunchKernel(add, 8, 1, 1, 128, 1, 1, 0, NULL, params, NULL));
    EXPECT_OK(cuMemcpyDtoH(out, result, sizeof out));
    for (unsigned i = 0; i < COUNT; i++)
        cr_assert_eq(out[i], 3 * i + 5);

    struct {
        CUdeviceptr result, source;
        unsigned value, count;
    } block = {result, source, 9, COUNT};
    size_t bytes = sizeof block;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &block, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes,
                     CU_LAUNCH_PARAM_END};
    CUlaunchConfig config = {.gridDimX = 8,
                             .gridDimY = 1,
                             .gridDimZ = 1,
                             .blockDimX = 128,
                             .blockDimY = 1,
                             .blockDimZ = 1};
    EXPECT_OK(cuLaunchKernelEx(&config, add, NULL, extra));
    EXPECT_OK(cuMemcpyDtoH(out, result, sizeof out));
    cr_expect_eq(out[COUNT - 1], 3 * (COUNT - 1) + 9);
    bytes = 8;
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernelEx(&config, add, NULL, extra));
    EXPECT_OK(cuCtxDestroy(context));
}

Test(launch, a_shape_that_the_device_cannot_run_is_refused)
{
    static const unsigned shapes[][6] = {
        {0, 1, 1, 1, 1, 1},     {1, 0, 1, 1, 1, 1},     {1, 1, 1, 0, 1, 1},
        {1, 65536, 1, 1, 1, 1}, {1, 1, 65536, 1, 1, 1}, {1u << 31, 1, 1, 1, 1, 1},
        {1, 1, 1, 1025, 1, 1},  {1, 1, 1, 1, 1, 65},    {1, 1, 1, 64, 32, 1},
    };
    CUcontext context = open_device();
    CUfunction store_at = get_kernel(load_fixture(), "store_at");
    CUdeviceptr memory;
    EXPECT_OK(cuMemAlloc(&memory, 4));
    void *params[] = {&memory}, *missing[] = {NULL};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        const unsigned *s = shapes[i];
        EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(store_at, s[0], s[1], s[2], s[3],
                                                               s[4], s[5], 0, NULL, params, NULL));
    }
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE,
                  cuLaunchKernel(store_at, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE,
                  cuLaunchKernel(store_at, 1, 1, 1, 1, 1, 1, 0, NULL, missing, NULL));
    EXPECT_RESULT(CUDA_ERROR_INVALID_HANDLE,
                  cuLaunchKernel(NULL, 1, 1, 1, 1, 1, 1, 0, NULL, params, NULL));
    EXPECT_OK(launch_store(store_at, memory, NULL));
    EXPECT_OK(cuCtxDestroy(context));
}

Test(launch, shared_memory_beyond_48_kb_needs_to_be_asked_for)
{
    CUcontext context = open_device();
    CUfunction spend = get_kernel(load_fixture(), "spend");
    CUdeviceptr memory;
    int value = 0;
    EXPECT_OK(cuMemAlloc(&memory, 4));
    void *params[] = {&memory};
    EXPECT_OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, spend));
    cr_expect_eq(value, 40000);
    EXPECT_OK(cuLaunchKernel(spend, 1, 1, 1, 1, 1, 1, 9152, NULL, params, NULL));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE,
                  cuLaunchKernel(spend, 1, 1, 1, 1, 1, 1, 9153, NULL, params, NULL));
    EXPECT_OK(cuFuncSetAttribute(spend, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 100000));
    EXPECT_OK(cuLaunchKernel(spend, 1, 1, 1, 1, 1, 1, 100000, NULL, params, NULL));
    EXPECT_RESULT(
        CUDA_ERROR_INVALID_VALUE,
        cuFuncSetAttribute(spend, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 166912));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE,
                  cuFuncSetAttribute(spend, CU_FUNC_ATTRIBUTE_NUM_REGS, 8));
    EXPECT_OK(cuCtxDestroy(context));
}

Test(launch, a_kernel_with_launch_bounds_has_its_own_largest_block)
{
    CUcontext context = open_device();
    CUfunction limited = get_kernel(load_fixture(), "limited");
    int value = 0, blocks = 0, grid = 0;
    EXPECT_OK(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, limited));
    cr_expect_eq(value, 64);
    EXPECT_OK(cuLaunchKernel(limited, 1, 1, 1, 64, 1, 1, 0, NULL, NULL, NULL));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE,
                  cuLaunchKernel(limited, 1, 1, 1, 65, 1, 1, 0, NULL, NULL, NULL));
    EXPECT_OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, limited, 64, 0));
    cr_expect_eq(blocks, 32);
    EXPECT_OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, limited, 64, 40000));
    cr_expect_eq(blocks, 4);
    EXPECT_OK(cuOccupancyMaxPotentialBlockSize(&grid, &value, limited, NULL, 0, 0));
    cr_expect_eq(value, 64);
    cr_expect_eq(grid, 32 * 108);
    EXPECT_OK(cuCtxDestroy(context));
}

Test(launch, clusters_and_cooperative_launches_are_refused_where_there_are_none)
{
    CUcontext context = open_device();
    CUfunction limited = get_kernel(load_fixture(), "limited");
    CUlaunchAttribute attribute = {.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION};
    attribute.value.clusterDim.x = 2;
    attribute.value.clusterDim.y = attribute.value.clusterDim.z = 1;
    CUlaunchConfig config = {.gridDimX = 2,
                             .gridDimY = 1,
                             .gridDimZ = 1,
                             .blockDimX = 32,
                             .blockDimY = 1,
                             .blockDimZ = 1,
                             .attrs = &attribute,
                             .numAttrs = 1};
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernelEx(&config, limited, NULL, NULL));
    attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    attribute.value.programmaticStreamSerializationAllowed = 1;
    EXPECT_OK(cuLaunchKernelEx(&config, limited, NULL, NULL));
    EXPECT_RESULT(CUDA_ERROR_NOT_SUPPORTED,
                  cuLaunchCooperativeKernel(limited, 1, 1, 1, 32, 1, 1, 0, NULL, NULL));
    EXPECT_OK(cuCtxDestroy(context));
}

/* ---- faults --------------------------------------------------------------------------------- */

Test(fault, the_launch_succeeds_and_every_later_call_tells_it)
{
    CUcontext context = open_device();
    CUfunction store_at = get_kernel(load_fixture(), "store_at");
    CUdeviceptr memory;
    CUstream stream;
    EXPECT_OK(cuMemAlloc(&memory, 64));
    EXPECT_OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    EXPECT_OK(launch_store(store_at, memory + 64, stream));
    EXPECT_OK(launch_store(store_at, memory, stream)); /* nobody has waited yet */
    EXPECT_RESULT(CUDA_ERROR_ILLEGAL_ADDRESS, cuStreamSynchronize(stream));
    EXPECT_RESULT(CUDA_ERROR_ILLEGAL_ADDRESS, cuCtxSynchronize());
    EXPECT_RESULT(CUDA_ERROR_ILLEGAL_ADDRESS, launch_store(store_at, memory, stream));
    EXPECT_RESULT(CUDA_ERROR_ILLEGAL_ADDRESS, cuMemFree(memory));
    EXPECT_RESULT(CUDA_ERROR_ILLEGAL_ADDRESS, cuMemAlloc(&memory, 16));

    const char *(*last_report)(void) = NULL;
    void *address = dlsym(RTLD_DEFAULT, "cuEmulatorLastReport");
    memcpy(&last_report, &address, sizeof last_report);
    cr_expect(strstr(last_report(), "store_at"), "%s", last_report());
    EXPECT_OK(cuCtxDestroy(context));

    context = open_device(); /* another context is not touched by it */
    EXPECT_OK(cuMemAlloc(&memory, 64));
    EXPECT_OK(cuCtxDestroy(context));
}

Test(fault, a_misaligned_store_is_716)
{
    CUcontext context = open_device();
    CUfunction store_at = get_kernel(load_fixture(), "store_at");
    CUdeviceptr memory;
    EXPECT_OK(cuMemAlloc(&memory, 64));
    EXPECT_OK(launch_store(store_at, memory + 2, NULL));
    EXPECT_RESULT(CUDA_ERROR_MISALIGNED_ADDRESS, cuCtxSynchronize());
    EXPECT_OK(cuCtxDestroy(context));
}

Test(fault, freed_memory_is_out_of_bounds)
{
    CUcontext context = open_device();
    CUfunction store_at = get_kernel(load_fixture(), "store_at");
    CUdeviceptr memory;
    EXPECT_OK(cuMemAlloc(&memory, 64));
    EXPECT_OK(cuMemFree(memory));
    EXPECT_OK(launch_store(store_at, memory, NULL));
    EXPECT_RESULT(CUDA_ERROR_ILLEGAL_ADDRESS, cuCtxSynchronize());
    EXPECT_OK(cuCtxDestroy(context));
}

/* ---- streams and events --------------------------------------------------------------------- */

static void count_call(void *counter)
{
    ++*(int *)counter;
}

static void CUDA_CB count_callback(CUstream stream, CUresult status, void *counter)
{
    (void)stream;
    *(int *)counter += status == CUDA_SUCCESS ? 1 : 100;
}

Test(streams, run_host_functions_in_order_and_know_their_properties)
{
    CUcontext context = open_device(), owner = NULL;
    CUstream stream;
    unsigned flags = 9;
    int priority = 9, calls = 0;
    EXPECT_OK(cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, -2));
    EXPECT_OK(cuStreamGetFlags(stream, &flags));
    cr_expect_eq(flags, CU_STREAM_NON_BLOCKING);
    EXPECT_OK(cuStreamGetPriority(stream, &priority));
    cr_expect_eq(priority, -2);
    EXPECT_OK(cuStreamGetCtx(stream, &owner));
    cr_expect_eq(owner, context);
    EXPECT_OK(cuLaunchHostFunc(stream, count_call, &calls));
    EXPECT_OK(cuStreamAddCallback(stream, count_callback, &calls, 0));
    EXPECT_OK(cuStreamSynchronize(stream));
    EXPECT_OK(cuStreamQuery(NULL));
    cr_expect_eq(calls, 2);
    EXPECT_OK(cuStreamDestroy(stream));
    EXPECT_RESULT(CUDA_ERROR_INVALID_HANDLE, cuStreamSynchronize(stream));
    EXPECT_RESULT(CUDA_ERROR_INVALID_HANDLE, cuStreamDestroy(stream));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuStreamCreate(&stream, 2));
    EXPECT_OK(cuCtxDestroy(context));
}

Test(events, measure_the_time_between_two_records)
{
    CUcontext context = open_device();
    CUevent first, second, untimed;
    float ms = -1;
    EXPECT_OK(cuEventCreate(&first, CU_EVENT_DEFAULT));
    EXPECT_OK(cuEventCreate(&second, CU_EVENT_DEFAULT));
    EXPECT_OK(cuEventCreate(&untimed, CU_EVENT_DISABLE_TIMING));
    EXPECT_RESULT(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&ms, first, second));
    EXPECT_OK(cuEventQuery(first));
    EXPECT_OK(cuEventRecord(first, NULL));
    EXPECT_OK(cuEventRecord(second, NULL));
    EXPECT_OK(cuEventRecord(untimed, NULL));
    EXPECT_OK(cuStreamWaitEvent(NULL, second, 0));
    EXPECT_OK(cuEventSynchronize(second));
    EXPECT_OK(cuEventElapsedTime(&ms, first, second));
    cr_expect_geq(ms, 0);
    EXPECT_RESULT(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&ms, first, untimed));
    EXPECT_OK(cuEventDestroy(first));
    EXPECT_RESULT(CUDA_ERROR_INVALID_HANDLE, cuEventRecord(first, NULL));
    EXPECT_RESULT(CUDA_ERROR_INVALID_HANDLE, cuEventDestroy(first));
    EXPECT_OK(cuCtxDestroy(context));
}
