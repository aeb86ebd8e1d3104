/* tensor_encode.c: what cuTensorMapEncodeTiled takes, by the comments of cuda.h. */
#include <criterion/criterion.h>

#include "device.h"

enum { RANK = 2 };

typedef struct encoding {
    const char *name;
    size_t address_offset;
    cuuint64_t sizes[RANK], stride; /* stride: bytes from row to row */
    cuuint32_t extents[RANK], steps[RANK];
    CUtensorMapSwizzle swizzle;
    CUtensorMapDataType type;
    CUtensorMapInterleave interleave;
    CUtensorMapFloatOOBfill fill;
    CUresult wanted;
} encoding;

#define PLAIN CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE
#define BF16  CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
#define BOX(sizes, stride, extents, steps, swizzle)                                                \
    sizes, stride, extents, steps, CU_TENSOR_MAP_SWIZZLE_##swizzle
#define PAIR(a, b)                                                                                 \
    {                                                                                              \
        a, b                                                                                       \
    }

Test(tensor_encode, cuTensorMapEncodeTiled_keeps_the_rules_of_cuda_h)
{
    const encoding cases[] = {
        {"right", 0, BOX(PAIR(64, 9), 128, PAIR(64, 8), PAIR(1, 1), 128B), BF16, PLAIN,
         CUDA_SUCCESS},
        {"an address on 8", 8, BOX(PAIR(64, 9), 128, PAIR(64, 8), PAIR(1, 1), 128B), BF16, PLAIN,
         CUDA_ERROR_INVALID_VALUE},
        {"no rows", 0, BOX(PAIR(64, 0), 128, PAIR(64, 8), PAIR(1, 1), 128B), BF16, PLAIN,
         CUDA_ERROR_INVALID_VALUE},
        {"more than 2^32 rows", 0, BOX(PAIR(64, 4294967297), 128, PAIR(64, 8), PAIR(1, 1), 128B),
         BF16, PLAIN, CUDA_ERROR_INVALID_VALUE},
        {"a stride of 8", 0, BOX(PAIR(64, 9), 136, PAIR(64, 8), PAIR(1, 1), 128B), BF16, PLAIN,
         CUDA_ERROR_INVALID_VALUE},
        {"a stride of 2^40", 0, BOX(PAIR(64, 9), 1099511627776, PAIR(64, 8), PAIR(1, 1), 128B),
         BF16, PLAIN, CUDA_ERROR_INVALID_VALUE},
        {"a box of 257", 0, BOX(PAIR(64, 900), 128, PAIR(64, 257), PAIR(1, 1), 128B), BF16, PLAIN,
         CUDA_ERROR_INVALID_VALUE},
        {"a box of none", 0, BOX(PAIR(64, 9), 128, PAIR(64, 0), PAIR(1, 1), 128B), BF16, PLAIN,
         CUDA_ERROR_INVALID_VALUE},
        {"an inner box of 8 bytes", 0, BOX(PAIR(64, 9), 128, PAIR(4, 8), PAIR(1, 1), NONE), BF16,
         PLAIN, CUDA_ERROR_INVALID_VALUE},
        {"wider than the swizzle", 0, BOX(PAIR(64, 9), 128, PAIR(64, 8), PAIR(1, 1), 64B), BF16,
         PLAIN, CUDA_ERROR_INVALID_VALUE},
        {"a step of 9", 0, BOX(PAIR(64, 9), 128, PAIR(64, 8), PAIR(1, 9), 128B), BF16, PLAIN,
         CUDA_ERROR_INVALID_VALUE},
        {"NaN in whole numbers", 0, BOX(PAIR(64, 9), 128, PAIR(64, 8), PAIR(1, 1), 128B),
         CU_TENSOR_MAP_DATA_TYPE_UINT16, CU_TENSOR_MAP_INTERLEAVE_NONE,
         CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA, CUDA_ERROR_INVALID_VALUE},
        {"interleaved", 0, BOX(PAIR(64, 9), 128, PAIR(64, 8), PAIR(1, 1), 128B), BF16,
         CU_TENSOR_MAP_INTERLEAVE_16B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE, CUDA_ERROR_NOT_SUPPORTED},
        {"another swizzle", 0, BOX(PAIR(64, 9), 128, PAIR(64, 8), PAIR(1, 1), 128B_ATOM_32B), BF16,
         PLAIN, CUDA_ERROR_NOT_SUPPORTED},
    };
    device_open();
    CUdeviceptr memory = device_alloc(4096);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const encoding *c = &cases[i];
        CUtensorMap map;
        CUresult result =
            cuTensorMapEncodeTiled(&map, c->type, RANK, (void *)(memory + c->address_offset),
                                   c->sizes, &c->stride, c->extents, c->steps, c->interleave,
                                   c->swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, c->fill);
        cr_expect_eq(result, c->wanted, "%s: %d, not %d", c->name, (int)result, (int)c->wanted);
    }
    device_close();
}
