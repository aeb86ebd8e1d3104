/* device.c: the few driver calls that emulator tests need. */
#include "device.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static CUcontext context;
static char *loaded; /* the PTX of the module that was loaded last */

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

static int attribute(CUdevice_attribute which)
{
    int value = 0;
    check(cuDeviceGetAttribute(&value, which, 0), "cuDeviceGetAttribute", "device_load");
    return value;
}

static const char newest[] = ".target sm_100";

/* Makes PTX of the newest target PTX of an older device; returns whether it did. */
static bool take_target(char *ptx)
{
    int major = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
    int minor = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
    char *target = strstr(ptx, newest), own[40];
    if (!target || major >= 10)
        return false;
    snprintf(own, sizeof own, ".target sm_%d%d%c", major, minor, major == 9 ? 'a' : ' ');
    memcpy(target, own, sizeof newest - 1);
    return true;
}

CUmodule device_load_known(const char *ptx, const char *what)
{
    static char log[4096];
    log[0] = '\0';
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(size_t)sizeof log};
    CUmodule module = NULL;
    char *text = strdup(ptx);
    cr_assert(text);
    bool is_older = take_target(text);
    CUresult result = cuModuleLoadDataEx(&module, text, 2, options, values);
    if (result != CUDA_SUCCESS && is_older)
        fprintf(stderr, "left out: %s: %s\n", what, log);
    cr_assert(result == CUDA_SUCCESS || is_older, "%s: does not load (%d): %s", what, (int)result,
              log);
    free(loaded);
    loaded = text;
    return result == CUDA_SUCCESS ? module : NULL;
}

CUmodule device_load(const char *ptx, const char *what)
{
    CUmodule module = device_load_known(ptx, what);
    if (!module)
        cr_skip_test("%s: the device is too old", what);
    return module;
}

static CUresult launch(CUmodule module, const char *entry, unsigned blocks, unsigned threads,
                       unsigned shared_bytes, void **arguments, unsigned attributes)
{
    CUlaunchAttribute attribute = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                   .value.programmaticStreamSerializationAllowed = 1};
    CUlaunchConfig config = {.gridDimX = blocks,
                             .gridDimY = 1,
                             .gridDimZ = 1,
                             .blockDimX = threads,
                             .blockDimY = 1,
                             .blockDimZ = 1,
                             .sharedMemBytes = shared_bytes,
                             .attrs = &attribute,
                             .numAttrs = attributes};
    CUfunction function;
    CUresult result = cuModuleGetFunction(&function, module, entry);
    if (result == CUDA_SUCCESS && shared_bytes > 0)
        result = cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                    (int)shared_bytes);
    if (result == CUDA_SUCCESS)
        result = cuLaunchKernelEx(&config, function, arguments, NULL);
    return result;
}

void device_run(CUmodule module, const char *entry, unsigned blocks, unsigned threads,
                unsigned shared_bytes, void **arguments, const char *what)
{
    check(launch(module, entry, blocks, threads, shared_bytes, arguments, 0), "launch", what);
    check(cuCtxSynchronize(), "cuCtxSynchronize", what);
    device_has_run();
}

static CUresult wait_for(CUresult result)
{
    if (result == CUDA_SUCCESS)
        result = cuCtxSynchronize();
    if (result == CUDA_SUCCESS)
        device_has_run();
    return result;
}

CUresult device_try(CUmodule module, const char *entry, unsigned blocks, unsigned threads,
                    unsigned shared_bytes, void **arguments)
{
    return wait_for(launch(module, entry, blocks, threads, shared_bytes, arguments, 0));
}

CUresult device_try_dependent(CUmodule module, const char *entry, unsigned blocks, unsigned threads,
                              unsigned shared_bytes, void **arguments)
{
    return wait_for(launch(module, entry, blocks, threads, shared_bytes, arguments, 1));
}

void device_has_run(void)
{
    const char *folder = getenv("MMLP_TEST_COVERAGE"), *set = getenv("MMLP_EMULATOR_ISA");
    const char *numerics = getenv("MMLP_EMULATOR_NUMERICS");
    if (!folder || !set || !loaded)
        return;
    char path[4096];
    bool is_exact = numerics && strncmp(numerics, "exact", 5) == 0;
    snprintf(path, sizeof path, "%s/%s%s", folder, set, is_exact ? "-exact" : "");
    mkdir(folder, 0777);
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    size_t bytes = strlen(loaded) + 1;
    /* in one call, for tests that run side by side */
    cr_assert(file >= 0 && write(file, loaded, bytes) == (ssize_t)bytes, "%s: not written", path);
    close(file);
}

int device_is_emulated(void)
{
    return dlsym(RTLD_DEFAULT, "cuEmulatorLastReport") != NULL;
}

const char *device_last_report(void)
{
    const char *(*report)(void) = NULL;
    *(void **)&report = dlsym(RTLD_DEFAULT, "cuEmulatorLastReport");
    return report ? report() : "a GPU has no report";
}
