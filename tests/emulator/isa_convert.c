/* isa_convert.c: cvt between numbers of every two types, with every modifier (PTX ISA 9.7.9.21). */
#include <criterion/criterion.h>
#include <fenv.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "device.h"
#include "isa.h"
#include "softfloat.h"

/* ---- types and modifiers ---- */

typedef struct number_type {
    const char *name;
    isa_type reg;
    int bits;
    char class; /* unsigned, signed, float */
    float_format format;
} number_type;

static const number_type types[] = {
    {"u8", ISA_I16, 8, 'u', {0}},          {"s8", ISA_I16, 8, 's', {0}},
    {"u16", ISA_I16, 16, 'u', {0}},        {"s16", ISA_I16, 16, 's', {0}},
    {"u32", ISA_I32, 32, 'u', {0}},        {"s32", ISA_I32, 32, 's', {0}},
    {"u64", ISA_I64, 64, 'u', {0}},        {"s64", ISA_I64, 64, 's', {0}},
    {"f16", ISA_F16, 16, 'f', {5, 10, 1}}, {"bf16", ISA_BF16, 16, 'f', {8, 7, 1}},
    {"f32", ISA_F32, 32, 'f', {8, 23, 1}}, {"f64", ISA_F64, 64, 'f', {11, 52, 1}},
};
enum { TYPES = sizeof types / sizeof types[0] };

/* The case that runs. */
static const number_type *from, *to;
static rounding mode;
static int flushes, saturates, clamps_below, is_finite;

static const char *const whole_modes[] = {".rni", ".rzi", ".rmi", ".rpi"};
static const char *const float_modes[] = {".rn", ".rz", ".rm", ".rp"};

static int is_float(const number_type *type)
{
    return type->class == 'f';
}

static int is_named(const number_type *type, const char *name)
{
    return strcmp(type->name, name) == 0;
}

static int involves(const char *name)
{
    return is_named(from, name) || is_named(to, name);
}

/* ---- what cvt gives ---- */

static __int128 integer_value(const number_type *type, uint64_t bits)
{
    int unused = 64 - type->bits;
    return type->class == 's' ? (__int128)((int64_t)(bits << unused) >> unused)
                              : (__int128)(bits << unused >> unused);
}

static __int128 least(const number_type *type)
{
    return type->class == 's' ? -((__int128)1 << (type->bits - 1)) : 0;
}

static __int128 most(const number_type *type)
{
    return ((__int128)1 << (type->bits - (type->class == 's'))) - 1;
}

/* An 8-bit result lies in a 16-bit register, extended by its own sign. */
static uint64_t into_register(__int128 value)
{
    return (uint64_t)integer_value(to, (uint64_t)value);
}

/* An H200 keeps what becomes f16; it shows only in a directed rounding. */
static double flush(const number_type *type, double value)
{
    int is_subnormal = is_named(type, "f32") && !is_named(to, "f16") && fabs(value) < 0x1p-126;
    return flushes && is_subnormal ? copysign(0.0, value) : value;
}

static double float_value(const number_type *type, uint64_t bits)
{
    return flush(type, type->bits == 64 ? double_of(bits) : format_to_double(type->format, bits));
}

/* A whole number as a double, rounded to odd: rounding that to fewer bits is exact. */
static double to_odd(__int128 value)
{
    unsigned __int128 magnitude = (unsigned __int128)(value < 0 ? -value : value);
    int shift = 0, lost = 0;
    for (; magnitude >> 53; magnitude >>= 1, ++shift)
        lost |= (int)(magnitude & 1);
    double result = ldexp((double)(uint64_t)(magnitude | (unsigned)lost), shift);
    return value < 0 ? -result : result;
}

static double to_f64(__int128 value)
{
    static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
    fesetround(modes[mode]);
    volatile uint64_t magnitude = (uint64_t)value;
    volatile int64_t number = (int64_t)value;
    volatile double result = from->class == 's' ? (double)number : (double)magnitude;
    fesetround(FE_TONEAREST);
    return result;
}

static double whole_of(double value)
{
    switch (mode) {
    case ROUND_NEAREST:
        return nearbyint(value);
    case ROUND_ZERO:
        return trunc(value);
    case ROUND_DOWN:
        return floor(value);
    default:
        return ceil(value);
    }
}

/* .relu keeps NaN; .sat makes it +0. */
static uint64_t finish_float(double value)
{
    if (saturates)
        value = value > 1 ? 1.0 : value > 0 ? value : 0.0;
    double largest =
        ldexp(2 - ldexp(1, -to->format.mantissa_bits), (1 << (to->format.exponent_bits - 1)) - 1);
    if (is_finite && fabs(value) > largest)
        value = copysign(largest, value);
    if (clamps_below && !isnan(value) && signbit(value))
        value = 0;
    if (to->bits == 64)
        return bits_of_double(value);
    uint64_t bits = format_from_double(to->format, value, mode);
    return format_from_double(to->format, float_value(to, bits), ROUND_NEAREST);
}

/* Out of range clamps. NaN is 0, but where an operand is 64 bits wide it is the top bit alone. */
static uint64_t float_to_integer(double value)
{
    if (isnan(value)) {
        int is_wide = is_named(from, "f64") || to->bits == 64;
        return is_wide ? into_register((__int128)1 << (to->bits - 1)) : 0;
    }
    value = whole_of(value);
    if (value <= (double)least(to))
        return into_register(least(to));
    if (value >= ldexp(1, to->bits - (to->class == 's')))
        return into_register(most(to));
    return into_register((__int128)value);
}

static uint64_t convert(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    if (is_float(from)) {
        double value = float_value(from, a);
        if (!is_float(to))
            return float_to_integer(value);
        int to_whole = from == to && mode != ROUND_NONE;
        return finish_float(to_whole ? whole_of(value) : value);
    }
    __int128 value = integer_value(from, a);
    if (is_float(to))
        return finish_float(to->bits == 64 ? to_f64(value) : to_odd(value));
    if (saturates && value < least(to))
        value = least(to);
    if (saturates && value > most(to))
        value = most(to);
    return into_register(value);
}

/* ---- which modifiers there are ---- */

/* Integers: where a value may be out of range. Floats: to [0, 1]. */
static int can_saturate(void)
{
    if (is_float(from) || is_float(to))
        return !involves("bf16");
    return least(from) < least(to) || most(from) > most(to);
}

static int widens(void)
{
    return is_float(from) && is_float(to) && to->bits > from->bits;
}

static void run(const char *rounding_word)
{
    char ptx[96];
    snprintf(ptx, sizeof ptx, "cvt%s%s%s%s%s.%s.%s %%d, %%a;", rounding_word, flushes ? ".ftz" : "",
             saturates ? ".sat" : "", is_finite ? ".satfinite" : "", clamps_below ? ".relu" : "",
             to->name, from->name);
    isa_case test = {.ptx = ptx, .d = to->reg, .a = from->reg, .oracle = convert};
    isa_run(&test, 1);
}

static void run_with_flags(const char *rounding_word)
{
    for (flushes = 0; flushes <= involves("f32") * (is_float(from) || is_named(to, "f32"));
         ++flushes) {
        for (saturates = 0; saturates <= can_saturate(); ++saturates)
            run(rounding_word);
    }
    flushes = saturates = 0;
}

static void run_in_modes(const char *const words[4])
{
    for (int i = 0; i < 4; ++i) {
        mode = (rounding)i;
        run_with_flags(words[i]);
    }
}

static void run_pair(void)
{
    mode = ROUND_NONE;
    if (is_float(from) == is_float(to) && (from == to || widens() || !is_float(to)))
        run_with_flags("");
    if (is_float(from) && (!is_float(to) || from == to))
        run_in_modes(whole_modes);
    else if (is_float(to) && (!widens() || is_named(from, "bf16")))
        run_in_modes(float_modes);
}

Test(isa_convert, every_type_to_every_other_with_every_rounding_ftz_and_sat)
{
    device_open(); /* once for all cases */
    for (from = types; from < types + TYPES; ++from) {
        for (to = types; to < types + TYPES; ++to) {
            if (!(involves("bf16") && (from->bits == 8 || to->bits == 8)))
                run_pair();
        }
    }
    device_close();
}

Test(isa_convert, relu_and_satfinite_keep_the_short_floats_positive_and_finite)
{
    device_open();
    from = &types[10];
    for (to = types + 8; to < types + 10; ++to) {
        for (int words = 1; words < 4; ++words) {
            clamps_below = words & 1, is_finite = words >> 1;
            for (int i = 0; i < 2; ++i) {
                mode = (rounding)i;
                run(float_modes[i]);
            }
        }
    }
    device_close();
}

/* ---- tf32: an f32 whose last 13 bits are zeros ---- */

/* .rna: to nearest, ties away from zero. NaN has no bits that must be kept. */
static uint64_t to_tf32(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    double value = (double)float_of(a);
    const float_format tf32 = {8, 10, 1};
    uint64_t bits = mode == ROUND_NONE && isfinite(value)
                        ? ((a + 0x1000) & 0xffffe000)
                        : format_from_double(tf32, value, mode == ROUND_NONE ? ROUND_NEAREST : mode)
                              << 13;
    if (is_finite && (bits & 0x7fffffff) == 0x7f800000)
        bits = (bits & 0x80000000) | 0x7f7fe000;
    return clamps_below && !isnan(value) && bits >> 31 ? 0 : bits;
}

Test(isa_convert, fp32_narrows_to_tf32)
{
    static const struct {
        const char *word;
        rounding mode;
    } modes[] = {{".rna", ROUND_NONE}, {".rn", ROUND_NEAREST}, {".rz", ROUND_ZERO}};
    device_open();
    for (int m = 0; m < 3; ++m) {
        mode = modes[m].mode;
        for (int words = 0; words < (m == 0 ? 2 : 4); ++words) {
            is_finite = words & 1, clamps_below = words >> 1;
            char ptx[96];
            snprintf(ptx, sizeof ptx, "cvt%s%s%s.tf32.f32 %%t, %%a; mov.b32 %%d, %%t;",
                     modes[m].word, is_finite ? ".satfinite" : "", clamps_below ? ".relu" : "");
            isa_case test = {.ptx = ptx, .d = ISA_F32, .a = ISA_F32, .oracle = to_tf32};
            isa_run(&test, 1);
        }
    }
    device_close();
}
