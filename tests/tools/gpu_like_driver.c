/*
 * gpu_like_driver.c: a driver that has no reports of faults, as that of a GPU, and tensor maps: the
 * emulator behind a library of its own. Its tensor maps are the words of the call that made them.
 */
#include <cuda.h>
#include <stdint.h>
#include <string.h>

/* A symbol at address 0: dlsym gives NULL for it, and looks no further. */
__asm__(".globl cuEmulatorLastReport\n.set cuEmulatorLastReport, 0\n");

__attribute__((visibility("default"))) CUresult
cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address,
                       const cuuint64_t *dimensions, const cuuint64_t *strides,
                       const cuuint32_t *box, const cuuint32_t *element_strides,
                       CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
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
    return box[0] == 13 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}
