/*
 * cu_tensor.c: cuTensorMapEncodeTiled. The rules are those of cuda.h; what it allows and the
 * emulator has not (packed types, interleaving, other swizzles, NaN as filling) is
 * CUDA_ERROR_NOT_SUPPORTED.
 */
#include <string.h>

#include "core/tensor_map.h"
#include "driver/front.h"

enum { MOST_BOX = 256, MOST_STEP = 8 };

static const uint8_t element_bytes[] = {
    [CU_TENSOR_MAP_DATA_TYPE_UINT8] = 1,       [CU_TENSOR_MAP_DATA_TYPE_UINT16] = 2,
    [CU_TENSOR_MAP_DATA_TYPE_UINT32] = 4,      [CU_TENSOR_MAP_DATA_TYPE_INT32] = 4,
    [CU_TENSOR_MAP_DATA_TYPE_UINT64] = 8,      [CU_TENSOR_MAP_DATA_TYPE_INT64] = 8,
    [CU_TENSOR_MAP_DATA_TYPE_FLOAT16] = 2,     [CU_TENSOR_MAP_DATA_TYPE_FLOAT32] = 4,
    [CU_TENSOR_MAP_DATA_TYPE_FLOAT64] = 8,     [CU_TENSOR_MAP_DATA_TYPE_BFLOAT16] = 2,
    [CU_TENSOR_MAP_DATA_TYPE_FLOAT32_FTZ] = 4, [CU_TENSOR_MAP_DATA_TYPE_TFLOAT32] = 4,
    [CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ] = 4};
enum { TYPES = sizeof element_bytes };

static bool is_float(CUtensorMapDataType type)
{
    return type >= CU_TENSOR_MAP_DATA_TYPE_FLOAT16 && type <= CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ;
}

static bool are_enums_legal(CUtensorMapDataType type, CUtensorMapInterleave interleave,
                            CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                            CUtensorMapFloatOOBfill fill)
{
    return (unsigned)type <= CU_TENSOR_MAP_DATA_TYPE_16U6_ALIGN16B &&
           (unsigned)interleave <= CU_TENSOR_MAP_INTERLEAVE_32B &&
           (unsigned)swizzle <= CU_TENSOR_MAP_SWIZZLE_128B_ATOM_64B &&
           (unsigned)promotion <= CU_TENSOR_MAP_L2_PROMOTION_L2_256B &&
           (unsigned)fill <= CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA &&
           (fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE || is_float(type));
}

/* Size, stride, box and step of dimension i. */
static bool set_dimension(emu_tensor_map *map, int i, const cuuint64_t *sizes,
                          const cuuint64_t *strides, const cuuint32_t *box, const cuuint32_t *steps)
{
    cuuint32_t step = i ? steps[i] : 1; /* the first is ignored */
    if (sizes[i] == 0 || sizes[i] > UINT64_C(1) << 32 || box[i] == 0 || box[i] > MOST_BOX ||
        step == 0 || step > MOST_STEP)
        return false;
    if (i > 0 && (strides[i - 1] % 16 || strides[i - 1] >= UINT64_C(1) << 40))
        return false;
    map->sizes[i] = sizes[i];
    map->strides[i] = i ? strides[i - 1] : map->element_bytes;
    map->box[i] = (uint16_t)((box[i] + step - 1) / step);
    map->steps[i] = (uint8_t)step;
    return true;
}

CUresult CUDAAPI cuTensorMapEncodeTiled(
    CUtensorMap *tensorMap, CUtensorMapDataType tensorDataType, cuuint32_t tensorRank,
    void *globalAddress, const cuuint64_t *globalDim, const cuuint64_t *globalStrides,
    const cuuint32_t *boxDim, const cuuint32_t *elementStrides, CUtensorMapInterleave interleave,
    CUtensorMapSwizzle swizzle, CUtensorMapL2promotion l2Promotion, CUtensorMapFloatOOBfill oobFill)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    if (front_settings.arch->cc_major < 9)
        return CUDA_ERROR_NOT_SUPPORTED;
    if (!tensorMap || (uintptr_t)tensorMap % 64 || tensorRank == 0 || tensorRank > TENSOR_RANK ||
        !globalAddress || (uintptr_t)globalAddress % 16 || !globalDim || !boxDim ||
        !elementStrides || (tensorRank > 1 && !globalStrides) ||
        !are_enums_legal(tensorDataType, interleave, swizzle, l2Promotion, oobFill))
        return CUDA_ERROR_INVALID_VALUE;
    if ((unsigned)tensorDataType >= TYPES || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
        swizzle > CU_TENSOR_MAP_SWIZZLE_128B || oobFill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
        return CUDA_ERROR_NOT_SUPPORTED;
    emu_tensor_map map;
    memset(&map, 0, sizeof map); /* padding, too: the check covers it */
    map.address = (uint64_t)(uintptr_t)globalAddress;
    map.type = (uint8_t)tensorDataType;
    map.rank = (uint8_t)tensorRank;
    map.element_bytes = element_bytes[tensorDataType];
    map.swizzled_bits = (uint8_t)swizzle;
    for (int i = 0; i < (int)tensorRank; i++)
        if (!set_dimension(&map, i, globalDim, globalStrides, boxDim, elementStrides))
            return CUDA_ERROR_INVALID_VALUE;
    unsigned inner = boxDim[0] * map.element_bytes, span = 16u << swizzle;
    if (inner % 16 || (swizzle != CU_TENSOR_MAP_SWIZZLE_NONE && inner > span))
        return CUDA_ERROR_INVALID_VALUE;
    map.check = tensor_map_check(&map);
    memset(tensorMap, 0, sizeof *tensorMap);
    memcpy(tensorMap, &map, sizeof map);
    return CUDA_SUCCESS;
}
