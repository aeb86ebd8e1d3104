/*
 * exec_float.c: f32 and f64 arithmetic (ops_float.def). Multiply-add is fused only where fma is
 * written; no flag of the host's floating point unit is ever changed for more than one instruction.
 */
#include "exec_alu.h"

static const u32 nan_f32 = 0x7fffffffu;

static inline f32 flush_f32(f32 a, u32 aux)
{
    return aux & AUX_FTZ ? ftz(a) : a;
}

static inline f64 flush_f64(f64 a, u32 aux)
{
    (void)aux;
    return a;
}

static inline f32 saturate_f32(f32 a)
{
    return a > 0 ? (a < 1 ? a : 1) : 0; /* NaN becomes +0 */
}

static inline f32 finish_f32(f32 a, u32 aux)
{
    a = flush_f32(a, aux);
    return aux & AUX_SAT ? saturate_f32(a) : a;
}

/* A product's tininess is detected before it is rounded: what is below the smallest normal number
 * is flushed even if rounding would bring it there. (fma rounds first.) */
static inline f32 multiply_f32(f32 a, f32 b, u32 aux)
{
    f32 product = a * b;
    bool is_tiny = aux & AUX_FTZ && __builtin_fabs((f64)a * (f64)b) < 0x1p-126;
    return is_tiny ? __builtin_copysignf(0, product) : product;
}

static inline f64 finish_f64(f64 a, u32 aux)
{
    (void)aux;
    return a;
}

/* rcp.approx.ftz.f64 looks only at the upper 32 bits and gives only them. */
static inline f64 coarse_f64(f64 a)
{
    u64 bits = bits_of_f64(a);
    bool is_subnormal = !(bits & 0x7ff0000000000000u);
    return f64_of_bits(is_subnormal ? bits & (u64)1 << 63 : bits & 0xffffffff00000000u);
}

static inline f32 min_f32_of(f32 a, f32 b)
{
    u32 ua = bits_of_f32(a), ub = bits_of_f32(b);
    u32 result = a < b ? ua : ub;
    result = a == b ? ua | ub : result;
    result = b != b ? ua : result;
    return f32_of_bits(a != a && b != b ? nan_f32 : result);
}

static inline f32 max_f32_of(f32 a, f32 b)
{
    u32 ua = bits_of_f32(a), ub = bits_of_f32(b);
    u32 result = a > b ? ua : ub;
    result = a == b ? ua & ub : result;
    result = b != b ? ua : result;
    return f32_of_bits(a != a && b != b ? nan_f32 : result);
}

static inline f32 min_nan_f32_of(f32 a, f32 b)
{
    return a != a || b != b ? f32_of_bits(nan_f32) : min_f32_of(a, b);
}

static inline f32 max_nan_f32_of(f32 a, f32 b)
{
    return a != a || b != b ? f32_of_bits(nan_f32) : max_f32_of(a, b);
}

static inline f32 min_max_any(f32 a, f32 b, u32 aux, int is_max)
{
    a = flush_f32(a, aux);
    b = flush_f32(b, aux);
    u32 sign = (bits_of_f32(a) ^ bits_of_f32(b)) & 0x80000000u;
    if (aux & AUX_XORSIGN) {
        a = __builtin_fabsf(a);
        b = __builtin_fabsf(b);
    }
    f32 result = is_max ? max_f32_of(a, b) : min_f32_of(a, b);
    if ((aux & AUX_NAN) && (a != a || b != b)) {
        return f32_of_bits(nan_f32);
    }
    return aux & AUX_XORSIGN && result == result ? f32_of_bits(bits_of_f32(result) | sign) : result;
}

static inline f64 min_f64_of(f64 a, f64 b)
{
    if (a != a || b != b) {
        return a != a ? b : a;
    }
    return a == b ? f64_of_bits(bits_of_f64(a) | bits_of_f64(b)) : a < b ? a : b;
}

static inline f64 max_f64_of(f64 a, f64 b)
{
    if (a != a || b != b) {
        return a != a ? b : a;
    }
    return a == b ? f64_of_bits(bits_of_f64(a) & bits_of_f64(b)) : a > b ? a : b;
}

#include "ops_float.def"
