/*
 * mma_model.c: see mma_model.h. The numbers of the table reproduce published results of real GPUs;
 * docs/emulator.md says which, and what is assumed where there are none.
 */
#include "mma_model.h"

#include "smallfloat.h"

static const mma_model models[MMA_DEVICES][MMA_UNITS] = {
    [MMA_DEVICE_V100] = {[MMA_UNIT_16] = {4, 23, 23, false}},
    [MMA_DEVICE_A100] = {[MMA_UNIT_16] = {8, 24, 23, false}, [MMA_UNIT_TF32] = {4, 24, 23, false}},
    [MMA_DEVICE_ADA] = {[MMA_UNIT_16] = {8, 24, 23, false},
                        [MMA_UNIT_TF32] = {4, 24, 23, false},
                        [MMA_UNIT_FP8] = {16, 13, 13, false}},
    [MMA_DEVICE_H100] = {[MMA_UNIT_16] = {16, 25, 23, false},
                         [MMA_UNIT_TF32] = {8, 25, 23, false},
                         [MMA_UNIT_FP8] = {16, 25, 23, true},
                         [MMA_UNIT_FP8_WGMMA] = {32, 13, 13, false}},
    [MMA_DEVICE_B200] = {[MMA_UNIT_16] = {16, 25, 23, false},
                         [MMA_UNIT_TF32] = {8, 25, 23, false},
                         [MMA_UNIT_FP8] = {16, 25, 23, true}},
};

const mma_model *mma_model_of(mma_device device, mma_unit unit)
{
    const mma_model *model = &models[device][unit];
    return model->block ? model : NULL;
}

/* ---- operands ---- */

/* How a format is laid out; the mantissa moves up to MMA_FRACTION bits. */
typedef struct mma_layout {
    int width, mantissa, bias;
    bool has_infinity;
} mma_layout;

static const mma_layout layouts[MMA_FORMATS] = {
    [MMA_FORMAT_F16] = {16, 10, 15, true},   [MMA_FORMAT_BF16] = {16, 7, 127, true},
    [MMA_FORMAT_TF32] = {19, 10, 127, true}, [MMA_FORMAT_E4M3] = {8, 3, 7, false},
    [MMA_FORMAT_E5M2] = {8, 2, 15, true},
};

mma_number mma_decode(u32 bits, mma_format format)
{
    const mma_layout *l = &layouts[format];
    u32 top = (1u << (l->width - 1 - l->mantissa)) - 1, mantissa = bits & ((1u << l->mantissa) - 1);
    u32 field = bits >> l->mantissa & top;
    s32 sign = bits >> (l->width - 1) & 1 ? -1 : 1;
    if (field == top && l->has_infinity) {
        return (mma_number){sign, mantissa ? MMA_NOT_A_NUMBER : MMA_INFINITE};
    }
    if (field == top && mantissa == (1u << l->mantissa) - 1) {
        return (mma_number){sign, MMA_NOT_A_NUMBER};
    }
    u32 significand = (mantissa | (field ? 1u << l->mantissa : 0)) << (MMA_FRACTION - l->mantissa);
    return (mma_number){sign * (s32)significand, (s32)(field ? field : 1) - l->bias};
}

/* ---- results: sum 2^unit ---- */

static u32 truncate_to_float(s64 sum, int unit, int kept)
{
    if (sum == 0) {
        return 0;
    }
    u32 sign = sum < 0 ? 0x80000000u : 0;
    u64 magnitude = sum < 0 ? (u64)-sum : (u64)sum;
    int exponent = 63 - __builtin_clzll(magnitude) + unit;
    if (exponent > 127) {
        return sign | 0x7f800000u;
    }
    exponent = exponent < -126 ? -126 : exponent;
    int drop = exponent - kept - unit;
    magnitude = drop >= 64 ? 0 : drop > 0 ? magnitude >> drop : magnitude << -drop;
    return sign | (((u32)(exponent + 126) << 23) + (u32)(magnitude << (23 - kept)));
}

static u32 round_to_half(s64 sum, int unit)
{
    if (sum == 0) {
        return 0;
    }
    u32 sign = sum < 0 ? 0x8000 : 0;
    u64 magnitude = sum < 0 ? (u64)-sum : (u64)sum;
    int exponent = 63 - __builtin_clzll(magnitude) + unit;
    if (exponent > 15) {
        return sign | 0x7c00;
    }
    exponent = exponent < -14 ? -14 : exponent;
    int drop = exponent - 10 - unit;
    if (drop > 0) {
        u64 odd = magnitude >> drop & 1;
        magnitude = (magnitude + ((u64)1 << (drop - 1)) - 1 + odd) >> drop;
    } else {
        magnitude <<= -drop;
    }
    /* a carry out of the mantissa moves into the exponent, and from the largest to infinity */
    return sign | (((u32)(exponent + 14) << 10) + (u32)magnitude);
}

/* ---- a block ---- */

/* c with 23 fraction bits. */
static mma_number decode_c(u32 c, bool half)
{
    if (half) {
        mma_number number = mma_decode(c, MMA_FORMAT_F16);
        if (number.exponent < MMA_INFINITE) {
            number.significand *= 1 << (23 - MMA_FRACTION);
        }
        return number;
    }
    u32 field = c >> 23 & 0xff, mantissa = c & 0x7fffff;
    s32 sign = c >> 31 ? -1 : 1;
    if (field == 0xff) {
        return (mma_number){sign, mantissa ? MMA_NOT_A_NUMBER : MMA_INFINITE};
    }
    return (mma_number){sign * (s32)(mantissa | (field ? 0x800000u : 0)),
                        (s32)(field ? field : 1) - 127};
}

/* The sign of a NaN or an infinity among the terms, where there is one. */
typedef struct mma_specials {
    bool nan, positive, negative;
} mma_specials;

static void note_infinity(mma_specials *s, s32 sign)
{
    s->positive |= sign > 0;
    s->negative |= sign < 0;
}

static mma_specials find_specials(const mma_number *a, const mma_number *b, int count, mma_number c)
{
    mma_specials s = {.nan = c.exponent == MMA_NOT_A_NUMBER};
    if (c.exponent == MMA_INFINITE) {
        note_infinity(&s, c.significand);
    }
    for (int k = 0; k < count; k++) {
        if (a[k].exponent < MMA_INFINITE && b[k].exponent < MMA_INFINITE) {
            continue;
        }
        if (a[k].exponent == MMA_NOT_A_NUMBER || b[k].exponent == MMA_NOT_A_NUMBER ||
            a[k].significand == 0 || b[k].significand == 0) {
            s.nan = true;
        } else {
            note_infinity(&s, (a[k].significand < 0) == (b[k].significand < 0) ? 1 : -1);
        }
    }
    return s;
}

/* value 2^-from, as a multiple of 2^(shift - to), towards zero. */
static s64 align(s64 value, int from, int to, int shift)
{
    u64 magnitude = (u64)(value < 0 ? -value : value) << 16;
    int drop = 16 + from - to + shift;
    magnitude = drop >= 64 ? 0 : magnitude >> drop;
    return value < 0 ? -(s64)magnitude : (s64)magnitude;
}

static u32 add_block(const mma_model *model, const mma_number *a, const mma_number *b, int count,
                     u32 c_bits, bool half)
{
    mma_number c = decode_c(c_bits, half);
    mma_specials s = find_specials(a, b, count, c);
    if (s.nan || (s.positive && s.negative)) {
        return half ? 0x7fff : 0x7fffffff;
    }
    if (s.positive || s.negative) {
        return half ? (s.negative ? 0xfc00 : 0x7c00) : s.negative ? 0xff800000u : 0x7f800000u;
    }
    s32 largest = MMA_LEAST_EXPONENT;
    if (c.significand && c.exponent > largest) {
        largest = c.exponent;
    }
    for (int k = 0; k < count; k++) {
        s32 exponent = a[k].exponent + b[k].exponent;
        if (a[k].significand && b[k].significand && exponent > largest) {
            largest = exponent;
        }
    }
    s64 sum = c.significand ? align(c.significand, 23, model->fraction, largest - c.exponent) : 0;
    for (int k = 0; k < count; k++) {
        s64 product = (s64)a[k].significand * b[k].significand;
        if (product) {
            sum += align(product, 2 * MMA_FRACTION, model->fraction,
                         largest - a[k].exponent - b[k].exponent);
        }
    }
    int unit = largest - model->fraction;
    return half ? round_to_half(sum, unit) : truncate_to_float(sum, unit, model->kept);
}

u32 mma_dot(const mma_model *model, const mma_number *a, const mma_number *b, int depth, u32 c,
            bool half)
{
    u32 sum = model->adds_c_last ? 0 : c;
    for (int k = 0; k < depth; k += model->block) {
        int count = depth - k < model->block ? depth - k : model->block;
        sum = add_block(model, a + k, b + k, count, sum, half);
    }
    if (!model->adds_c_last) {
        return sum;
    }
    f32 last = f32_of_bits(sum) + f32_of_bits(c);
    return last != last ? 0x7fffffffu : bits_of_f32(last);
}
