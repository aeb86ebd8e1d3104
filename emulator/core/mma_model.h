/*
 * mma_model.h: what tensor cores compute, bit for bit: d = c + sum of a[k] b[k] in blocks of
 * products. The products of a block and c are aligned to the largest exponent among them, cut off
 * behind so many fraction bits, summed as integers, normalised and cut off again; the next block
 * takes the result as its c. Called by the exact mma handlers and, for what has no kernel, by
 * tests.
 */
#ifndef EMU_MMA_MODEL_H
#define EMU_MMA_MODEL_H

#include <stdbool.h>

#include "lane_types.h"

typedef enum mma_device {
    MMA_NO_DEVICE, /* not exact: a chain of fused multiply-adds */
    MMA_DEVICE_V100,
    MMA_DEVICE_A100,
    MMA_DEVICE_ADA,
    MMA_DEVICE_H100,
    MMA_DEVICE_B200,
    MMA_DEVICES
} mma_device;

typedef enum mma_unit {
    MMA_UNIT_16, /* f16 and bf16 */
    MMA_UNIT_TF32,
    MMA_UNIT_FP8,       /* e4m3 and e5m2 of mma.sync */
    MMA_UNIT_FP8_WGMMA, /* of wgmma */
    MMA_UNITS
} mma_unit;

typedef struct mma_model {
    int block;        /* products that are summed at once */
    int fraction;     /* bits behind the point of the aligned numbers */
    int kept;         /* bits behind the point of an fp32 result: 23 or fewer */
    bool adds_c_last; /* the chain starts at 0; c comes last, in one rounded fp32 addition */
} mma_model;

/* NULL: the device has no such unit. */
const mma_model *mma_model_of(mma_device device, mma_unit unit);

typedef enum mma_format {
    MMA_FORMAT_F16,
    MMA_FORMAT_BF16,
    MMA_FORMAT_TF32, /* the 19 upper bits of an fp32 */
    MMA_FORMAT_E4M3,
    MMA_FORMAT_E5M2,
    MMA_FORMATS
} mma_format;

/* significand 2^(exponent - 10), not normalised: subnormal numbers have the least normal exponent.
 */
typedef struct mma_number {
    s32 significand;
    s32 exponent; /* or one of these, the significand's sign being that of the number */
} mma_number;
enum { MMA_FRACTION = 10, MMA_INFINITE = 1000, MMA_NOT_A_NUMBER = 1001, MMA_LEAST_EXPONENT = -133 };

mma_number mma_decode(u32 bits, mma_format format);

/* c, and the result: the bits of an fp32, or, `half`, of an f16. A NaN is 0x7fffffff or 0x7fff. */
u32 mma_dot(const mma_model *model, const mma_number *a, const mma_number *b, int depth, u32 c,
            bool half);

#endif
