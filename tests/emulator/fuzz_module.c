/*
 * fuzz_module.c: a libFuzzer target: the bytes are the image of a module. Where the driver loads
 * it, each of its kernels is launched, some with shapes that no device takes, on buffers that are
 * too small. Whatever the bytes are, every call must end with a result of the Driver API; libFuzzer
 * and the sanitizers watch for crashes, hangs and leaks.
 */
#include <cuda.h>
#include <driver/cu_emulator.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_INSTRUCTIONS = 20000, MOST_KERNELS = 4, BUFFER_BYTES = 4096, PARAMETERS = 64 };

static CUcontext context; /* NULL: the last one had a fault, which stays with it */

static void require(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "fuzz_module: %s\n", what);
        abort();
    }
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count, (void)arguments;
    setenv("MMLP_EMULATOR_THREADS", "1", 1);
    setenv("MMLP_EMULATOR_DEVICE", "b200", 0);
    require(cuInit(0) == CUDA_SUCCESS, "cuInit");
    return 0;
}

static void open_context(void)
{
    CUdeviceptr half;
    if (context)
        return;
    require(cuDevicePrimaryCtxRetain(&context, 0) == CUDA_SUCCESS, "no context");
    require(cuCtxSetCurrent(context) == CUDA_SUCCESS, "the context");
    cuEmulatorLimitInstructions(MOST_INSTRUCTIONS);
    require(cuMemAlloc(&half, SIZE_MAX / 2) == CUDA_ERROR_OUT_OF_MEMORY, "half of all memory");
}

static void close_context(void)
{
    cuCtxSetCurrent(NULL);
    cuDevicePrimaryCtxReset(0);
    cuDevicePrimaryCtxRelease(0);
    context = NULL;
}

static CUmodule load(const char *image)
{
    char log[1024] = "";
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(size_t)sizeof log};
    CUmodule module = NULL;
    open_context();
    CUresult result = cuModuleLoadDataEx(&module, image, 2, options, values);
    require(result == CUDA_SUCCESS || result == CUDA_ERROR_INVALID_PTX ||
                result == CUDA_ERROR_NO_BINARY_FOR_GPU || result == CUDA_ERROR_OUT_OF_MEMORY,
            "a module was refused with a strange result");
    require(result == CUDA_SUCCESS || log[0] || result == CUDA_ERROR_OUT_OF_MEMORY,
            "a module was refused silently");
    return result == CUDA_SUCCESS ? module : NULL;
}

typedef struct shape {
    unsigned grid[3], block[3], shared;
} shape;

static const shape shapes[] = {
    {{1, 1, 1}, {32, 1, 1}, 0},
    {{3, 2, 1}, {33, 2, 1}, 1024},
    {{INT32_MAX, 65535, 65535}, {1, 1, 1}, 64},
    /* what no device runs */
    {{1, 1, 1}, {1024, 1024, 64}, 0},
    {{0, 1, 1}, {32, 1, 1}, 0},
    {{1, 65536, 1}, {32, 1, 1}, 0},
    {{1, 1, 1}, {32, 1, 1}, 0xffffffff},
};
enum { SHAPES = sizeof shapes / sizeof shapes[0], LEGAL_SHAPES = 3 };

/* Every parameter is the address of the buffer, again and again. Returns their number, or -1. */
static int fill_arguments(void *arguments[PARAMETERS], CUfunction kernel, CUdeviceptr buffer)
{
    static CUdeviceptr words[4096 / sizeof(CUdeviceptr)];
    size_t offset, bytes, count = 0;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        words[i] = buffer;
    while (cuFuncGetParamInfo(kernel, count, &offset, &bytes) == CUDA_SUCCESS) {
        if (count == PARAMETERS || bytes > sizeof words)
            return -1;
        arguments[count++] = words;
    }
    return (int)count;
}

/* False: the kernel had a fault, and the context with all it had is gone. */
static int launch(CUfunction kernel, const shape *s)
{
    void *arguments[PARAMETERS],
        *too_small[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, arguments, CU_LAUNCH_PARAM_END};
    CUdeviceptr buffer;
    require(cuMemAlloc(&buffer, BUFFER_BYTES) == CUDA_SUCCESS, "a buffer");
    cuMemsetD8(buffer, 0x11, BUFFER_BYTES / 2);
    int count = fill_arguments(arguments, kernel, buffer);
    if (count > 0)
        require(cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, too_small) ==
                    CUDA_ERROR_INVALID_VALUE,
                "parameters of no size were taken");
    if (count >= 0) {
        CUresult result =
            cuLaunchKernel(kernel, s->grid[0], s->grid[1], s->grid[2], s->block[0], s->block[1],
                           s->block[2], s->shared, NULL, arguments, NULL);
        require(result == CUDA_SUCCESS || result == CUDA_ERROR_INVALID_VALUE,
                "a launch was refused with a strange result");
        require(s < shapes + LEGAL_SHAPES || result == CUDA_ERROR_INVALID_VALUE,
                "a launch that no device makes was made");
    }
    if (cuCtxSynchronize() != CUDA_SUCCESS) {
        require(cuEmulatorLastReport()[0], "a fault has no report");
        close_context();
        return 0;
    }
    require(cuMemFree(buffer) == CUDA_SUCCESS, "the buffer");
    return 1;
}

static CUfunction kernel_at(CUmodule module, unsigned index)
{
    CUfunction kernels[MOST_KERNELS];
    unsigned count;
    require(cuModuleGetFunctionCount(&count, module) == CUDA_SUCCESS, "the count");
    count = count < MOST_KERNELS ? count : MOST_KERNELS;
    require(count == 0 || cuModuleEnumerateFunctions(kernels, count, module) == CUDA_SUCCESS,
            "the kernels");
    return index < count ? kernels[index] : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    char *image = malloc(count + 1);
    require(image != NULL, "memory");
    memcpy(image, bytes, count);
    image[count] = '\0';
    CUmodule module = load(image);
    for (unsigned i = 0; module && i < MOST_KERNELS * SHAPES; i++) {
        CUfunction kernel = kernel_at(module, i / SHAPES);
        if (!kernel)
            break;
        if (!launch(kernel, &shapes[i % SHAPES]))
            require((module = load(image)) != NULL, "a module loads only once");
    }
    if (module)
        require(cuModuleUnload(module) == CUDA_SUCCESS, "unloading");
    free(image);
    return 0;
}
