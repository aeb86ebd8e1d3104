/* counting_driver.c: the functions of driver.def, counted and handed on. */
#include "counting_driver.h"

#include <cuda.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* X(name, parameters, arguments); the compiler compares them with cuda.h. */
#define COUNTED(X)                                                                                 \
    X(cuInit, (unsigned flags), (flags))                                                           \
    X(cuDriverGetVersion, (int *version), (version))                                               \
    X(cuGetErrorName, (CUresult error, const char **name), (error, name))                          \
    X(cuGetErrorString, (CUresult error, const char **name), (error, name))                        \
    X(cuDeviceGet, (CUdevice * device, int ordinal), (device, ordinal))                            \
    X(cuDeviceGetCount, (int *count), (count))                                                     \
    X(cuDeviceGetName, (char *name, int length, CUdevice device), (name, length, device))          \
    X(cuDeviceTotalMem, (size_t * bytes, CUdevice device), (bytes, device))                        \
    X(cuDeviceGetAttribute, (int *out, CUdevice_attribute attribute, CUdevice device),             \
      (out, attribute, device))                                                                    \
    X(cuDevicePrimaryCtxRetain, (CUcontext * context, CUdevice device), (context, device))         \
    X(cuDevicePrimaryCtxRelease, (CUdevice device), (device))                                      \
    X(cuCtxPushCurrent, (CUcontext context), (context))                                            \
    X(cuCtxPopCurrent, (CUcontext * context), (context))                                           \
    X(cuMemAlloc, (CUdeviceptr * address, size_t bytes), (address, bytes))                         \
    X(cuMemFree, (CUdeviceptr address), (address))                                                 \
    X(cuMemHostAlloc, (void **host, size_t bytes, unsigned flags), (host, bytes, flags))           \
    X(cuMemFreeHost, (void *host), (host))                                                         \
    X(cuPointerGetAttribute, (void *out, CUpointer_attribute attribute, CUdeviceptr address),      \
      (out, attribute, address))                                                                   \
    X(cuMemcpyHtoDAsync, (CUdeviceptr to, const void *from, size_t bytes, CUstream stream),        \
      (to, from, bytes, stream))                                                                   \
    X(cuMemcpyDtoHAsync, (void *to, CUdeviceptr from, size_t bytes, CUstream stream),              \
      (to, from, bytes, stream))                                                                   \
    X(cuStreamCreate, (CUstream * stream, unsigned flags), (stream, flags))                        \
    X(cuStreamDestroy, (CUstream stream), (stream))                                                \
    X(cuStreamSynchronize, (CUstream stream), (stream))                                            \
    X(cuStreamQuery, (CUstream stream), (stream))                                                  \
    X(cuStreamWaitEvent, (CUstream stream, CUevent event, unsigned flags), (stream, event, flags)) \
    X(cuEventCreate, (CUevent * event, unsigned flags), (event, flags))                            \
    X(cuEventDestroy, (CUevent event), (event))                                                    \
    X(cuEventRecord, (CUevent event, CUstream stream), (event, stream))                            \
    X(cuEventSynchronize, (CUevent event), (event))                                                \
    X(cuEventElapsedTime, (float *ms, CUevent from, CUevent to), (ms, from, to))                   \
    X(cuModuleLoadDataEx,                                                                          \
      (CUmodule * module, const void *image, unsigned count, CUjit_option *options,                \
       void **values),                                                                             \
      (module, image, count, options, values))                                                     \
    X(cuModuleUnload, (CUmodule module), (module))                                                 \
    X(cuModuleGetFunction, (CUfunction * function, CUmodule module, const char *name),             \
      (function, module, name))                                                                    \
    X(cuFuncGetAttribute, (int *out, CUfunction_attribute attribute, CUfunction function),         \
      (out, attribute, function))                                                                  \
    X(cuFuncSetAttribute, (CUfunction function, CUfunction_attribute attribute, int value),        \
      (function, attribute, value))                                                                \
    X(cuFuncGetParamInfo, (CUfunction function, size_t index, size_t * offset, size_t * bytes),    \
      (function, index, offset, bytes))                                                            \
    X(cuTensorMapEncodeTiled,                                                                      \
      (CUtensorMap * map, CUtensorMapDataType type, cuuint32_t rank, void *address,                \
       const cuuint64_t *sizes, const cuuint64_t *strides, const cuuint32_t *box,                  \
       const cuuint32_t *steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,      \
       CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill),                            \
      (map, type, rank, address, sizes, strides, box, steps, interleave, swizzle, promotion,       \
       fill))                                                                                      \
    X(cuLaunchKernel,                                                                              \
      (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,   \
       unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void **parameters,    \
       void **extra),                                                                              \
      (function, grid_x, grid_y, grid_z, block_x, block_y, block_z, shared, stream, parameters,    \
       extra))                                                                                     \
    X(cuLaunchKernelEx,                                                                            \
      (const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra),        \
      (config, function, parameters, extra))

/* cuda.h renames functions to their newest form: the names as they are written here are kept. */
#define INDEX_OF(name, parameters, arguments) INDEX_##name,
enum { COUNTED(INDEX_OF) FUNCTIONS };
#define TEXT_OF(x) #x
#define SYMBOL(x)  TEXT_OF(x)

static atomic_int counts[FUNCTIONS];
static void *real[FUNCTIONS];
static pthread_once_t opened = PTHREAD_ONCE_INIT;
static void (*launch_hook)(void *);
static void *launch_user;
static atomic_int launches_left = -1;

static void open_real(void)
{
    const char *path = getenv("MMLP_TEST_LIBCUDA");
    void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!library) {
        fprintf(stderr, "MMLP_TEST_LIBCUDA: %s\n", path ? dlerror() : "not set");
        abort();
    }
#define LOOK_UP(name, parameters, arguments) real[INDEX_##name] = dlsym(library, SYMBOL(name));
    COUNTED(LOOK_UP)
}

static CUresult before(int index)
{
    pthread_once(&opened, open_real);
    atomic_fetch_add(&counts[index], 1);
    if (index != INDEX_cuLaunchKernel)
        return CUDA_SUCCESS;
    if (launch_hook)
        launch_hook(launch_user);
    if (atomic_load(&launches_left) >= 0 && atomic_fetch_sub(&launches_left, 1) == 0)
        return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    return CUDA_SUCCESS;
}

#pragma GCC visibility push(default)
#define HAND_ON(name, parameters, arguments)                                                       \
    CUresult CUDAAPI name parameters                                                               \
    {                                                                                              \
        CUresult result = before(INDEX_##name);                                                    \
        __typeof__(name) *next;                                                                    \
        memcpy(&next, &real[INDEX_##name], sizeof next);                                           \
        return result == CUDA_SUCCESS ? next arguments : result;                                   \
    }
COUNTED(HAND_ON)

/* It counts the calls of an emulator, and is one to whoever asks. */
const char *cuEmulatorLastReport(void);
const char *cuEmulatorLastReport(void)
{
    return "";
}

static void reset(void)
{
    for (int i = 0; i < FUNCTIONS; i++)
        atomic_store(&counts[i], 0);
}

static int count(const char *name)
{
    static const char *const names[] = {
#define NAME_OF(name, parameters, arguments) #name,
        COUNTED(NAME_OF)};
    for (int i = 0; i < FUNCTIONS; i++) {
        if (strcmp(names[i], name) == 0)
            return atomic_load(&counts[i]);
    }
    return -1;
}

static int total(void)
{
    int sum = 0;
    for (int i = 0; i < FUNCTIONS; i++)
        sum += atomic_load(&counts[i]);
    return sum;
}

static void set_hook(void (*hook)(void *), void *user)
{
    launch_user = user;
    launch_hook = hook;
}

static void fail_launch(int launches)
{
    atomic_store(&launches_left, launches);
}

const counting_driver *counting_driver_get(void)
{
    static const counting_driver driver = {reset, count, total, set_hook, fail_launch};
    return &driver;
}
#pragma GCC visibility pop
