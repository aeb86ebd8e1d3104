/* isa_convert.c: cvt between every pair of types, in every rounding mode (PTX ISA 9.7.9.21). */
#include <criterion/criterion.h>
#include <fenv.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "isa.h"
#include "softfloat.h"

/* ---- integers ---------------------------------------------------------------------------------
 */

typedef struct integer_type {
    const char *name;
    int bits, is_signed;
} integer_type;

static const integer_type integers[] = {{"u8", 8, 0},   {"s8", 8, 1},   {"u16", 16, 0},
                                        {"s16", 16, 1}, {"u32", 32, 0}, {"s32", 32, 1},
                                        {"u64", 64, 0}, {"s64", 64, 1}};
enum { INTEGERS = sizeof integers / sizeof integers[0] };

/* What the oracles below convert between: set before each case. */
static integer_type from_integer, to_integer;
static int saturating, mode;

static isa_type register_of(int bits)
{
    return bits <= 16 ? ISA_I16 : bits == 32 ? ISA_I32 : ISA_I64;
}

static __int128 value_of(integer_type type, uint64_t bits)
{
    int unused = 64 - type.bits;
    return type.is_signed ? (__int128)((int64_t)(bits << unused) >> unused)
                          : (__int128)(bits << unused >> unused);
}

static __int128 least(integer_type type)
{
    return type.is_signed ? -((__int128)1 << (type.bits - 1)) : 0;
}

static __int128 most(integer_type type)
{
    return ((__int128)1 << (type.bits - type.is_signed)) - 1;
}

/* An 8-bit result lies in a 16-bit register, extended by its own sign. */
static uint64_t into_register(integer_type type, __int128 value)
{
    return (uint64_t)value_of(type, (uint64_t)value);
}

static uint64_t integer_to_integer(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    __int128 value = value_of(from_integer, a);
    if (saturating && value < least(to_integer))
        value = least(to_integer);
    if (saturating && value > most(to_integer))
        value = most(to_integer);
    return into_register(to_integer, value);
}

Test(isa_convert, integers_extend_truncate_and_saturate)
{
    for (int from = 0; from < INTEGERS; ++from) {
        for (int to = 0; to < INTEGERS; ++to) {
            for (saturating = 0; saturating < 2; ++saturating) {
                from_integer = integers[from];
                to_integer = integers[to];
                /* ptxas takes .sat only where something can be out of range */
                if (saturating && least(from_integer) >= least(to_integer) &&
                    most(from_integer) <= most(to_integer))
                    continue;
                char ptx[64];
                snprintf(ptx, sizeof ptx, "cvt%s.%s.%s %%d, %%a;", saturating ? ".sat" : "",
                         to_integer.name, from_integer.name);
                isa_case test = {.ptx = ptx,
                                 .d = register_of(to_integer.bits),
                                 .a = register_of(from_integer.bits),
                                 .oracle = integer_to_integer};
                isa_run(&test, 1);
            }
        }
    }
}

/* ---- floating point and integers ---------------------------------------------------------------
 */

typedef struct float_type {
    const char *name;
    isa_type type;
} float_type;

static const float_type floats[] = {{"f16", ISA_F16}, {"f32", ISA_F32}, {"f64", ISA_F64}};
enum { FLOATS = sizeof floats / sizeof floats[0] };
static float_type from_float, to_float;
static const char *const integer_modes[] = {"rni", "rzi", "rmi", "rpi"};
static const char *const float_modes[] = {"rn", "rz", "rm", "rp"};
static const int fenv_modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};

static double read_float(float_type type, uint64_t bits)
{
    if (type.type == ISA_F16)
        return format_to_double(format_f16, bits);
    return type.type == ISA_F32 ? (double)float_of(bits) : double_of(bits);
}

static double whole_of(double value, int how)
{
    switch (how) {
    case 0:
        return nearbyint(value);
    case 1:
        return trunc(value);
    case 2:
        return floor(value);
    default:
        return ceil(value);
    }
}

/* Out of range clamps. NaN is 0, but where an operand is 64 bits wide it is the top bit alone. */
static uint64_t float_to_integer(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    double value = read_float(from_float, a);
    if (isnan(value)) {
        if (from_float.type != ISA_F64 && to_integer.bits != 64)
            return 0;
        return (uint64_t)1 << (to_integer.bits - 1);
    }
    value = whole_of(value, mode);
    if (value <= (double)least(to_integer))
        return into_register(to_integer, least(to_integer));
    if (value >= ldexp(1, to_integer.bits - to_integer.is_signed))
        return into_register(to_integer, most(to_integer));
    return into_register(to_integer, (__int128)value);
}

Test(isa_convert, floats_round_to_integers_and_clamp)
{
    for (int from = 0; from < FLOATS; ++from) {
        for (int to = 2; to < INTEGERS; ++to) { /* 16 bits and wider */
            for (mode = 0; mode < 4; ++mode) {
                from_float = floats[from];
                to_integer = integers[to];
                char ptx[64];
                snprintf(ptx, sizeof ptx, "cvt.%s.%s.%s %%d, %%a;", integer_modes[mode],
                         to_integer.name, from_float.name);
                isa_case test = {.ptx = ptx,
                                 .d = register_of(to_integer.bits),
                                 .a = from_float.type,
                                 .oracle = float_to_integer};
                isa_run(&test, 1);
            }
        }
    }
}

static uint64_t integer_to_float(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    __int128 value = value_of(from_integer, a);
    if (to_float.type == ISA_F16) {
        /* Beyond 2^40 all is infinity or the largest number. */
        __int128 limit = (__int128)1 << 40;
        value = value > limit ? limit : value < -limit ? -limit : value;
        return format_from_double(format_f16, (double)value, (rounding)mode);
    }
    fesetround(fenv_modes[mode]);
    volatile uint64_t magnitude = (uint64_t)(value < 0 ? -value : value);
    volatile int64_t number = (int64_t)value;
    uint64_t bits;
    if (to_float.type == ISA_F32) {
        volatile float result = from_integer.is_signed ? (float)number : (float)magnitude;
        bits = bits_of_float(result);
    } else {
        volatile double result = from_integer.is_signed ? (double)number : (double)magnitude;
        bits = bits_of_double(result);
    }
    fesetround(FE_TONEAREST);
    return bits;
}

Test(isa_convert, integers_round_to_floats_in_every_mode)
{
    for (int from = 2; from < INTEGERS; ++from) {
        for (int to = 0; to < FLOATS; ++to) {
            for (mode = 0; mode < 4; ++mode) {
                from_integer = integers[from];
                to_float = floats[to];
                char ptx[64];
                snprintf(ptx, sizeof ptx, "cvt.%s.%s.%s %%d, %%a;", float_modes[mode],
                         to_float.name, from_integer.name);
                isa_case test = {.ptx = ptx,
                                 .d = to_float.type,
                                 .a = register_of(from_integer.bits),
                                 .oracle = integer_to_float};
                isa_run(&test, 1);
            }
        }
    }
}

/* ---- floating point ----------------------------------------------------------------------------
 */

static uint64_t float_to_float(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    double value = read_float(from_float, a);
    if (to_float.type == ISA_F16)
        return format_from_double(format_f16, value, (rounding)mode);
    if (to_float.type == ISA_F64)
        return bits_of_double(value);
    fesetround(fenv_modes[mode]);
    volatile double operand = value;
    volatile float result = (float)operand;
    fesetround(FE_TONEAREST);
    return bits_of_float(result);
}

Test(isa_convert, floats_widen_exactly_and_narrow_in_every_mode)
{
    static const struct {
        int from, to, narrows;
    } pairs[] = {{0, 1, 0}, {0, 2, 0}, {1, 2, 0}, {1, 0, 1}, {2, 0, 1}, {2, 1, 1}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; ++i) {
        int modes = pairs[i].narrows ? 4 : 1;
        if (pairs[i].to == 0 && pairs[i].narrows)
            modes = 2; /* to f16: rn and rz are certain on every target */
        for (mode = 0; mode < modes; ++mode) {
            from_float = floats[pairs[i].from];
            to_float = floats[pairs[i].to];
            char ptx[64];
            snprintf(ptx, sizeof ptx, "cvt%s%s.%s.%s %%d, %%a;", pairs[i].narrows ? "." : "",
                     pairs[i].narrows ? float_modes[mode] : "", to_float.name, from_float.name);
            isa_case test = {
                .ptx = ptx, .d = to_float.type, .a = from_float.type, .oracle = float_to_float};
            isa_run(&test, 1);
        }
    }
}

static uint64_t round_to_whole_32(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return bits_of_float((float)whole_of((double)float_of(a), mode));
}

Test(isa_convert, floats_round_to_whole_floats)
{
    for (mode = 0; mode < 4; ++mode) {
        char ptx[64];
        snprintf(ptx, sizeof ptx, "cvt.%s.f32.f32 %%d, %%a;", integer_modes[mode]);
        isa_case test = {.ptx = ptx, .d = ISA_F32, .a = ISA_F32, .oracle = round_to_whole_32};
        isa_run(&test, 1);
    }
}

static uint64_t to_bf16(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return format_from_double(format_bf16, (double)float_of(a), (rounding)mode);
}

static uint64_t from_bf16(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return a << 16;
}

static uint64_t to_bf16_relu(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t bits = to_bf16(a, b, c);
    return (bits & 0x7fff) <= 0x7f80 && bits & 0x8000 ? 0 : bits;
}

/* Nearest, ties away from zero, to 10 bits of mantissa; the low 13 bits are zeros. */
static uint64_t to_tf32(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    if ((a & 0x7fffffff) >= 0x7f800000)
        return a;
    return (a + 0x1000) & 0xffffe000;
}

Test(isa_convert, fp32_narrows_to_bf16_and_tf32)
{
    mode = ROUND_NEAREST;
    static const isa_case nearest[] = {
        {.ptx = "cvt.rn.bf16.f32 %d, %a;", .d = ISA_BF16, .a = ISA_F32, .oracle = to_bf16},
        {.ptx = "cvt.rn.relu.bf16.f32 %d, %a;",
         .d = ISA_BF16,
         .a = ISA_F32,
         .oracle = to_bf16_relu},
        {.ptx = "cvt.f32.bf16 %d, %a;", .d = ISA_F32, .a = ISA_BF16, .oracle = from_bf16},
        {.ptx = "cvt.rna.tf32.f32 %t, %a; mov.b32 %d, %t;",
         .d = ISA_F32,
         .a = ISA_F32,
         .oracle = to_tf32},
    };
    ISA_RUN(nearest);
    mode = ROUND_ZERO;
    static const isa_case truncated[] = {
        {.ptx = "cvt.rz.bf16.f32 %d, %a;", .d = ISA_BF16, .a = ISA_F32, .oracle = to_bf16},
    };
    ISA_RUN(truncated);
}

/* ---- pairs --------------------------------------------------------------------------------------
 */

/* NaN has one bit pattern here: the ISA gives the canonical NaN for these conversions. */
static uint64_t pair_of(float_format format, int bits, uint64_t a, uint64_t b)
{
    return format_from_double(format, (double)float_of(a), ROUND_NEAREST) << bits |
           format_from_double(format, (double)float_of(b), ROUND_NEAREST);
}

static uint64_t without_nan(uint64_t a)
{
    return (a & 0x7fffffff) > 0x7f800000 ? 0 : a;
}

static uint64_t pair_bf16(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return pair_of(format_bf16, 16, without_nan(a), without_nan(b));
}

static uint64_t pair_f16(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return pair_of(format_f16, 16, without_nan(a), without_nan(b));
}

/* satfinite: the largest finite number in place of infinity; NaN is 0x7f. */
static uint64_t fp8(float_format format, uint64_t bits)
{
    double value = (double)float_of(bits);
    if (isnan(value))
        return 0x7f;
    double largest = format.has_infinity ? 57344 : 448;
    if (fabs(value) > largest)
        value = copysign(largest, value);
    return format_from_double(format, value, ROUND_NEAREST);
}

static uint64_t pair_e4m3(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return fp8(format_e4m3, a) << 8 | fp8(format_e4m3, b);
}

static uint64_t pair_e5m2(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return fp8(format_e5m2, a) << 8 | fp8(format_e5m2, b);
}

static uint64_t f16_of_fp8(float_format format, uint64_t byte)
{
    return format_from_double(format_f16, format_to_double(format, byte), ROUND_NEAREST);
}

/* NaN bytes are replaced by zero before the conversion. */
static uint64_t widen_e4m3(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return f16_of_fp8(format_e4m3, a >> 8 & 0x77) << 16 | f16_of_fp8(format_e4m3, a & 0x77);
}

static uint64_t widen_e5m2(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return f16_of_fp8(format_e5m2, a >> 8 & 0x77) << 16 | f16_of_fp8(format_e5m2, a & 0x77);
}

#define NO_NAN                                                                                     \
    "testp.notanumber.f32 %p, %a; @%p mov.f32 %a, 0f00000000; testp.notanumber.f32 %p, %b; @%p "   \
    "mov.f32 %b, 0f00000000; "

Test(isa_convert, pairs_hold_the_first_operand_in_the_upper_half)
{
    static const isa_case cases[] = {
        {.ptx = NO_NAN "cvt.rn.bf16x2.f32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_F32,
         .b = ISA_F32,
         .oracle = pair_bf16},
        {.ptx = NO_NAN "cvt.rn.f16x2.f32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_F32,
         .b = ISA_F32,
         .oracle = pair_f16},
        {.ptx = "cvt.rn.satfinite.e4m3x2.f32 %d, %a, %b;",
         .d = ISA_I16,
         .a = ISA_F32,
         .b = ISA_F32,
         .oracle = pair_e4m3},
        {.ptx = "cvt.rn.satfinite.e5m2x2.f32 %d, %a, %b;",
         .d = ISA_I16,
         .a = ISA_F32,
         .b = ISA_F32,
         .oracle = pair_e5m2},
        {.ptx = "and.b16 %a, %a, 0x7777; cvt.rn.f16x2.e4m3x2 %d, %a;",
         .d = ISA_I32,
         .a = ISA_I16,
         .oracle = widen_e4m3},
        {.ptx = "and.b16 %a, %a, 0x7777; cvt.rn.f16x2.e5m2x2 %d, %a;",
         .d = ISA_I32,
         .a = ISA_I16,
         .oracle = widen_e5m2},
    };
    ISA_RUN(cases);
}
