/*
 * gpu_like_driver.c: the emulator behind a library that behaves as the driver of a GPU where the
 * emulator does not: it has no reports of faults, a process can not go on after one, and it has
 * tensor maps. Those are the words of the call that made them.
 */
#include <cuda.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORTED __attribute__((visibility("default")))

/* A symbol at address 0: dlsym gives NULL for it, and looks no further. */
__asm__(".globl cuEmulatorLastReport\n.set cuEmulatorLastReport, 0\n");

static CUresult lost;

EXPORTED CUresult cuCtxSynchronize(void)
{
    CUresult (*emulated)(void) = NULL;
    *(void **)&emulated = dlsym(RTLD_NEXT, "cuCtxSynchronize");
    CUresult result = emulated();
    if (result != CUDA_SUCCESS)
        lost = result;
    return result;
}

EXPORTED CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    CUresult (*emulated)(CUcontext *, CUdevice) = NULL;
    *(void **)&emulated = dlsym(RTLD_NEXT, "cuDevicePrimaryCtxRetain");
    return lost ? lost : emulated(context, device);
}

/* Refuses a box of 13, and crashes with one of 14. */
EXPORTED CUresult cuTensorMapEncodeTiled(
    CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address,
    const cuuint64_t *dimensions, const cuuint64_t *strides, const cuuint32_t *box,
    const cuuint32_t *element_strides, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
    CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill)
{
    uint32_t words[32] = {(uint32_t)type,
                          rank,
                          (uint32_t)((uintptr_t)address % 256),
                          (uint32_t)interleave,
                          (uint32_t)swizzle,
                          (uint32_t)promotion,
                          (uint32_t)fill};
    for (cuuint32_t i = 0; i < rank; i++) {
        words[7 + i] = (uint32_t)dimensions[i];
        words[9 + i] = i + 1 < rank ? (uint32_t)strides[i] : 0;
        words[11 + i] = box[i];
        words[13 + i] = element_strides[i];
    }
    memcpy(map, words, sizeof words);
    if (box[0] == 14)
        abort();
    return box[0] == 13 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
