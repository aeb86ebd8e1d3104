/*
 * smallfloat.h: f16, bf16, tf32, e4m3 and e5m2: exact widening, and rounding from f32 (fast, to
 * nearest even) or from f64 (any mode). NaN results are the canonical ones of PTX.
 */
#ifndef EMU_SMALLFLOAT_H
#define EMU_SMALLFLOAT_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "lane_types.h"

static inline f32 f32_of_bits(u32 bits)
{
    f32 value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline u32 bits_of_f32(f32 value)
{
    u32 bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline f64 f64_of_bits(u64 bits)
{
    f64 value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline u64 bits_of_f64(f64 value)
{
    u64 bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline f32 bf16_to_f32(u16 h)
{
    return f32_of_bits((u32)h << 16);
}

/* Scaling by 2^112 moves the exponent and makes subnormals exact. */
static inline f32 f16_to_f32(u16 h)
{
    u32 magnitude = (u32)(h & 0x7fff) << 13, sign = (u32)(h & 0x8000) << 16;
    u32 finite = bits_of_f32(f32_of_bits(magnitude) * 0x1p112f);
    u32 special = magnitude | 0x7f800000u;
    return f32_of_bits((magnitude >= 0x0f800000u ? special : finite) | sign);
}

static inline u16 f32_to_bf16(f32 value)
{
    u32 bits = bits_of_f32(value);
    u32 rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (u16)((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fff : rounded);
}

static inline u16 f32_to_f16(f32 value)
{
    u32 bits = bits_of_f32(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffffu;
    /* adding 0.5 lines a subnormal result up with the low bits, rounded by the addition */
    u32 subnormal = bits_of_f32(f32_of_bits(magnitude) + 0.5f) - 0x3f000000u;
    u32 normal = (magnitude - 0x38000000u + 0xfff + (magnitude >> 13 & 1)) >> 13;
    u32 result = magnitude < 0x38800000u ? subnormal : normal;
    result = magnitude >= 0x477ff000u ? 0x7c00 : result;
    result = magnitude > 0x7f800000u ? 0x7fff : result | sign;
    return (u16)result;
}

/* To nearest, ties away from zero; the 13 low bits become zero. */
static inline u32 f32_to_tf32(u32 bits)
{
    u32 magnitude = bits & 0x7fffffffu;
    return magnitude > 0x7f800000u ? 0x7fffffffu : (bits + 0x1000) & 0xffffe000u;
}

typedef struct small_format {
    int mantissa, bias;
    u32 largest, infinity, nan;
} small_format;

static const small_format format_f16 = {10, 15, 0x7bff, 0x7c00, 0x7fff};
static const small_format format_bf16 = {7, 127, 0x7f7f, 0x7f80, 0x7fff};
static const small_format format_tf32 = {10, 127, 0x3fbff, 0x3fc00, 0x3ffff};
static const small_format format_e4m3 = {3, 7, 0x7e, 0x7f, 0x7f};
static const small_format format_e5m2 = {2, 15, 0x7b, 0x7c, 0x7f};

enum { ROUND_NEAREST, ROUND_ZERO, ROUND_DOWN, ROUND_UP, ROUND_AWAY };

/* Rounds once. The sign goes to the bit above exponent and mantissa. */
static inline u32 small_encode(f64 value, const small_format *f, int mode, bool saturate)
{
    u64 bits = bits_of_f64(value);
    int width = 64 - __builtin_clzll((u64)f->nan);
    u32 sign = (u32)(bits >> 63) << width;
    if (isnan(value)) {
        return f->nan;
    }
    if (isinf(value)) {
        return sign | (saturate ? f->largest : f->infinity);
    }
    if (value == 0) {
        return sign;
    }
    int exponent;
    /* |value| = fraction * 2^(exponent - 64), the top bit of fraction set */
    u64 fraction = (u64)ldexp(frexp(fabs(value), &exponent), 53) << 11;
    int biased = exponent - 1 + f->bias;
    int drop = 63 - f->mantissa + (biased < 1 ? 1 - biased : 0);
    u64 half = (u64)1 << 63;
    u64 kept = drop < 64 ? fraction >> drop : 0;
    u64 rest = drop < 64 ? fraction << (64 - drop) : drop == 64 ? fraction : 1;
    bool up = mode == ROUND_NEAREST ? rest > half || (rest == half && (kept & 1))
              : mode == ROUND_AWAY  ? rest >= half
              : mode == ROUND_DOWN  ? sign && rest
              : mode == ROUND_UP    ? !sign && rest
                                    : false;
    kept += up;
    /* a carry out of the mantissa moves into the exponent by itself */
    u64 result = biased < 1 ? kept : ((u64)(biased - 1) << f->mantissa) + kept;
    if (result > f->largest) {
        bool toward_zero =
            mode == ROUND_ZERO || (mode == ROUND_DOWN && !sign) || (mode == ROUND_UP && sign);
        result = saturate || toward_zero ? f->largest : f->infinity;
    }
    return sign | (u32)result;
}

static inline f32 e5m2_to_f32(u8 value)
{
    return f16_to_f32((u16)(value << 8));
}

static inline f32 e4m3_to_f32(u8 value)
{
    if ((value & 0x7f) == 0x7f) {
        return f32_of_bits(0x7fffffffu);
    }
    /* as f16 with a bias of 7: scaled by 2^8 */
    return f16_to_f32((u16)((value & 0x80) << 8 | (value & 0x7f) << 7)) * 256.0f;
}

#endif
