/*
 * exec_half.c: f16 and bf16 arithmetic (ops_half.def): computed in f64, rounded once.
 */
#include "exec_alu.h"

static inline bool is_bf16(const small_format *f)
{
    return f->mantissa == 7;
}

static inline u16 flush_half(u16 a, u32 aux, const small_format *f)
{
    u32 exponent = f->infinity;
    return aux & AUX_FTZ && !(a & exponent) ? a & 0x8000 : a;
}

static inline f64 half_value(u16 a, u32 aux, const small_format *f)
{
    a = flush_half(a, aux, f);
    return is_bf16(f) ? bf16_to_f32(a) : f16_to_f32(a);
}

static inline u16 half_finish(f64 value, u32 aux, const small_format *f)
{
    if (aux & AUX_SAT) {
        value = value > 0 ? (value < 1 ? value : 1) : 0;
    }
    if ((aux & AUX_RELU) && (value < 0 || value == 0)) {
        value = 0;
    }
    return flush_half((u16)small_encode(value, f, ROUND_NEAREST, false), aux, f);
}

static inline u16 half_add(u16 a, u16 b, u32 aux, const small_format *f)
{
    return half_finish(half_value(a, aux, f) + half_value(b, aux, f), aux, f);
}

static inline u16 half_sub(u16 a, u16 b, u32 aux, const small_format *f)
{
    return half_finish(half_value(a, aux, f) - half_value(b, aux, f), aux, f);
}

static inline u16 half_mul(u16 a, u16 b, u32 aux, const small_format *f)
{
    return half_finish(half_value(a, aux, f) * half_value(b, aux, f), aux, f);
}

/* p + c to odd: the last bit tells that something was lost, so that rounding again is exact. */
static inline f64 add_to_odd(f64 p, f64 c)
{
    f64 sum = p + c, part = sum - p;
    f64 lost = (p - (sum - part)) + (c - part);
    u64 bits = bits_of_f64(sum);
    if (lost != 0 && isfinite(sum) && !(bits & 1)) {
        bool away = (lost > 0) == (sum > 0);
        sum = f64_of_bits(away ? bits + 1 : bits - 1);
    }
    return sum;
}

static inline u16 half_fma(u16 a, u16 b, u16 c, u32 aux, const small_format *f)
{
    f64 product = half_value(a, aux, f) * half_value(b, aux, f);
    return half_finish(add_to_odd(product, half_value(c, aux, f)), aux, f);
}

static inline u16 half_choose(u16 a, u16 b, u32 aux, const small_format *f, bool is_max)
{
    a = flush_half(a, aux, f);
    b = flush_half(b, aux, f);
    u16 sign = (u16)((a ^ b) & 0x8000);
    if (aux & AUX_XORSIGN) {
        a &= 0x7fff;
        b &= 0x7fff;
    }
    f64 x = half_value(a, 0, f), y = half_value(b, 0, f);
    u16 result;
    if (isnan(x) || isnan(y)) {
        if ((aux & AUX_NAN) || (isnan(x) && isnan(y))) {
            return 0x7fff;
        }
        result = isnan(x) ? b : a;
    } else if (x == y) {
        result = is_max ? a & b : a | b;
    } else {
        result = (x > y) == is_max ? a : b;
    }
    return aux & AUX_XORSIGN ? (u16)(result | sign) : result;
}

static inline u16 half_min(u16 a, u16 b, u32 aux, const small_format *f)
{
    return half_choose(a, b, aux, f, false);
}

static inline u16 half_max(u16 a, u16 b, u32 aux, const small_format *f)
{
    return half_choose(a, b, aux, f, true);
}

static inline u16 half_neg(u16 a, u32 aux, const small_format *f)
{
    return flush_half(a, aux, f) ^ 0x8000;
}

static inline u16 half_abs(u16 a, u32 aux, const small_format *f)
{
    return flush_half(a, aux, f) & 0x7fff;
}

static inline u16 half_ex2(u16 a, u32 aux, const small_format *f)
{
    return half_finish(exp2(half_value(a, aux, f)), aux, f);
}

static inline u16 half_tanh(u16 a, u32 aux, const small_format *f)
{
    return half_finish(tanh(half_value(a, aux, f)), aux, f);
}

#include "ops_half.def"
