/* device.c: the few driver calls that emulator tests need. */
#include "device.h"

#include <criterion/criterion.h>
#include <driver/cu_emulator.h>

static CUcontext context;

static void check(CUresult result, const char *call, const char *what)
{
    const char *name = "?";
    if (result != CUDA_SUCCESS)
        cuGetErrorName(result, &name);
    cr_assert(result == CUDA_SUCCESS, "%s: %s gave %s (%d)", what, call, name, (int)result);
}

void device_open(void)
{
    CUdevice device;
    check(cuInit(0), "cuInit", "device_open");
    check(cuDeviceGet(&device, 0), "cuDeviceGet", "device_open");
    check(cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain", "device_open");
    check(cuCtxSetCurrent(context), "cuCtxSetCurrent", "device_open");
}

void device_close(void)
{
    cuCtxSetCurrent(NULL);
    cuDevicePrimaryCtxRelease(0);
}

CUdeviceptr device_alloc(size_t bytes)
{
    CUdeviceptr pointer;
    check(cuMemAlloc(&pointer, bytes), "cuMemAlloc", "device_alloc");
    return pointer;
}

CUdeviceptr device_upload(const void *bytes, size_t count)
{
    CUdeviceptr pointer = device_alloc(count);
    check(cuMemcpyHtoD(pointer, bytes, count), "cuMemcpyHtoD", "device_upload");
    return pointer;
}

void device_download(void *to, CUdeviceptr from, size_t bytes)
{
    check(cuMemcpyDtoH(to, from, bytes), "cuMemcpyDtoH", "device_download");
}

CUmodule device_load(const char *ptx, const char *what)
{
    static char log[4096];
    log[0] = '\0';
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(size_t)sizeof log};
    CUmodule module = NULL;
    CUresult result = cuModuleLoadDataEx(&module, ptx, 2, options, values);
    cr_assert(result == CUDA_SUCCESS, "%s: does not load (%d): %s", what, (int)result, log);
    return module;
}

static CUresult launch(CUmodule module, const char *entry, unsigned blocks, unsigned threads,
                       unsigned shared_bytes, void **arguments)
{
    CUfunction function;
    CUresult result = cuModuleGetFunction(&function, module, entry);
    if (result == CUDA_SUCCESS && shared_bytes > 0)
        result = cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                    (int)shared_bytes);
    if (result == CUDA_SUCCESS)
        result = cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared_bytes, NULL,
                                arguments, NULL);
    return result;
}

void device_run(CUmodule module, const char *entry, unsigned blocks, unsigned threads,
                unsigned shared_bytes, void **arguments, const char *what)
{
    check(launch(module, entry, blocks, threads, shared_bytes, arguments), "launch", what);
    check(cuCtxSynchronize(), "cuCtxSynchronize", what);
}

CUresult device_try(CUmodule module, const char *entry, unsigned blocks, unsigned threads,
                    unsigned shared_bytes, void **arguments)
{
    CUresult result = launch(module, entry, blocks, threads, shared_bytes, arguments);
    return result == CUDA_SUCCESS ? cuCtxSynchronize() : result;
}

const char *device_last_report(void)
{
    return cuEmulatorLastReport();
}
