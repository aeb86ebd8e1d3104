/*
 * isa_arithmetic.c: floating-point arithmetic of every type with every modifier (PTX
 * ISA 9.7.3, 9.7.4). An element is computed by the host in its own precision and rounding mode, or
 * exactly for 16 bits, and rounded once.
 */
#include <criterion/criterion.h>
#include <fenv.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "device.h"
#include "isa.h"
#include "softfloat.h"

typedef struct float_type {
    const char *name;
    isa_type reg;
    int bits, elements;
    float_format format;
} float_type;

static const float_type types[] = {
    {"f32", ISA_F32, 32, 1, {8, 23, 1}},     {"f64", ISA_F64, 64, 1, {11, 52, 1}},
    {"f16", ISA_F16, 16, 1, {5, 10, 1}},     {"bf16", ISA_BF16, 16, 1, {8, 7, 1}},
    {"f16x2", ISA_F16X2, 16, 2, {5, 10, 1}}, {"bf16x2", ISA_BF16X2, 16, 2, {8, 7, 1}},
    {"f32x2", ISA_F32X2, 32, 2, {8, 23, 1}},
};
enum { TYPES = sizeof types / sizeof types[0] };

typedef enum operation { ADD, SUB, MUL, FMA, DIV, RCP, SQRT, MIN, MAX, ABS, NEG } operation;

/* The case that runs. */
static const float_type *type;
static operation what;
static rounding mode;
static int flushes, saturates, clamps_below, keeps_nan, xors_sign;

static int is_half(void)
{
    return type->bits == 16;
}

static int is_f16(void)
{
    return type->bits == 16 && type->format.mantissa_bits == 10;
}

static double value_of(uint64_t bits)
{
    return type->bits == 64   ? double_of(bits)
           : type->bits == 32 ? (double)float_of(bits)
                              : format_to_double(type->format, bits);
}

static uint64_t bits_of(double value)
{
    return type->bits == 64   ? bits_of_double(value)
           : type->bits == 32 ? bits_of_float((float)value)
                              : format_from_double(type->format, value, ROUND_NEAREST);
}

static uint64_t sign_bit(void)
{
    return UINT64_C(1) << (type->bits - 1);
}

/* An H200 flushes a product that is below the smallest normal number before it is rounded, even if
 * rounding would bring it there; but the sum of fma after. */
static int is_flushed_product(uint64_t a, uint64_t b)
{
    return what == MUL && flushes && type->bits == 32 && fabs(value_of(a) * value_of(b)) < 0x1p-126;
}

/* Subnormal numbers become zeros of their sign. */
static uint64_t flush(uint64_t bits)
{
    uint64_t magnitude = bits & (sign_bit() - 1);
    return flushes && magnitude >> type->format.mantissa_bits == 0 ? bits & sign_bit() : bits;
}

/* ---- what elements become ---- */

static double on_doubles(double a, double b, double c)
{
    volatile double x = a, y = b, z = c;
    switch (what) {
    case ADD:
        return x + y;
    case SUB:
        return x - y;
    case MUL:
        return x * y;
    case DIV:
        return x / y;
    case RCP:
        return 1 / x;
    case SQRT:
        return sqrt(x);
    default:
        return fma(x, y, z);
    }
}

static float on_floats(float a, float b, float c)
{
    volatile float x = a, y = b, z = c;
    switch (what) {
    case ADD:
        return x + y;
    case SUB:
        return x - y;
    case MUL:
        return x * y;
    case DIV:
        return x / y;
    case RCP:
        return 1 / x;
    case SQRT:
        return sqrtf(x);
    default:
        return fmaf(x, y, z);
    }
}

static uint64_t on_halves(double x, double y, double z)
{
    double result = what == ADD   ? fma_to_odd(1, x, y)
                    : what == SUB ? fma_to_odd(1, x, -y)
                    : what == MUL ? x * y /* exact */
                                  : fma_to_odd(x, y, z);
    return format_from_double(type->format, result, ROUND_NEAREST);
}

static uint64_t rounded(uint64_t a, uint64_t b, uint64_t c)
{
    static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
    if (is_half())
        return on_halves(value_of(a), value_of(b), value_of(c));
    fesetround(modes[mode]);
    uint64_t result = type->bits == 64
                          ? bits_of_double(on_doubles(double_of(a), double_of(b), double_of(c)))
                          : bits_of_float(on_floats(float_of(a), float_of(b), float_of(c)));
    fesetround(FE_TONEAREST);
    return result;
}

/* One NaN: the other operand, but for .NaN; +0 is greater than -0. With .xorsign.abs magnitudes are
 * compared, and the sign is that of the product. */
static uint64_t extreme(uint64_t a, uint64_t b)
{
    uint64_t sign = xors_sign ? (a ^ b) & sign_bit() : 0,
             mask = xors_sign ? sign_bit() - 1 : UINT64_MAX;
    double x = value_of(a & mask), y = value_of(b & mask);
    if (isnan(x) || isnan(y)) {
        int gives_nan = keeps_nan || (isnan(x) && isnan(y));
        return gives_nan ? bits_of((double)NAN) : ((isnan(x) ? b : a) & mask) | sign;
    }
    int b_is_less = y < x || (x == y && signbit(y) && !signbit(x));
    return ((b_is_less == (what == MIN) ? b : a) & mask) | sign;
}

static uint64_t finish(uint64_t bits)
{
    bits = flush(bits);
    double value = value_of(bits);
    if (saturates)
        return bits_of(value > 1 ? 1 : value > 0 ? value : 0); /* NaN is +0 */
    return clamps_below && !isnan(value) && signbit(value) ? 0 : bits;
}

static uint64_t element(uint64_t a, uint64_t b, uint64_t c)
{
    a = flush(a), b = flush(b), c = flush(c);
    switch (what) {
    case MIN:
    case MAX:
        return extreme(a, b);
    case ABS:
        return a & ~sign_bit();
    case NEG:
        return a ^ sign_bit();
    default:
        return finish(rounded(a, b, c) & (is_flushed_product(a, b) ? sign_bit() : UINT64_MAX));
    }
}

static uint64_t oracle(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t mask = sign_bit() | (sign_bit() - 1), result = 0;
    for (int at = 0; at < type->bits * type->elements; at += type->bits)
        result |= (element(a >> at & mask, b >> at & mask, c >> at & mask) & mask) << at;
    return result;
}

/* ---- which instructions there are ---- */

static void run(const char *name, const char *rounding_word, int operands)
{
    static const char *const lists[] = {"%d, %a", "%d, %a, %b", "%d, %a, %b, %c"};
    char ptx[128];
    snprintf(ptx, sizeof ptx, "%s%s%s%s%s%s%s.%s %s;", name, rounding_word, flushes ? ".ftz" : "",
             saturates ? ".sat" : "", clamps_below ? ".relu" : "", keeps_nan ? ".NaN" : "",
             xors_sign ? ".xorsign.abs" : "", type->name, lists[operands - 1]);
    isa_case test = {.ptx = ptx,
                     .d = type->reg,
                     .a = type->reg,
                     .b = operands > 1 ? type->reg : ISA_NONE,
                     .c = operands > 2 ? type->reg : ISA_NONE,
                     .oracle = oracle};
    isa_run(&test, 1);
}

static int has_ftz(void)
{
    return (type->bits == 32 && type->elements == 1) || is_f16();
}

/* .ftz, .sat and .relu of one rounding. */
static void run_with_flags(const char *name, const char *rounding_word, int operands)
{
    int can_saturate = what <= FMA && has_ftz(), can_clamp = what == FMA && is_half();
    for (flushes = 0; flushes <= has_ftz(); ++flushes) {
        for (saturates = 0; saturates <= can_saturate; ++saturates)
            run(name, rounding_word, operands);
        saturates = 0;
        for (clamps_below = 1; clamps_below <= can_clamp; ++clamps_below)
            run(name, rounding_word, operands);
        clamps_below = 0;
    }
    flushes = 0;
}

static void run_in_modes(const char *name, int operands, int may_be_silent)
{
    static const char *const words[] = {".rn", ".rz", ".rm", ".rp"};
    int modes = type->bits >= 32 && type->elements == 1 ? 4 : 1;
    for (int i = 0; i < modes; ++i) {
        mode = (rounding)i;
        run_with_flags(name, words[i], operands);
    }
    mode = ROUND_NEAREST;
    if (may_be_silent)
        run_with_flags(name, "", operands);
}

Test(isa_arithmetic, sums_products_and_quotients_round_once_in_every_mode)
{
    static const struct {
        const char *name;
        operation what;
        int operands, may_be_silent, types;
    } rows[] = {{"add", ADD, 2, 1, 7}, {"sub", SUB, 2, 1, 7},  {"mul", MUL, 2, 1, 7},
                {"fma", FMA, 3, 0, 7}, {"mad", FMA, 3, 0, 2},  {"div", DIV, 2, 0, 2},
                {"rcp", RCP, 1, 0, 2}, {"sqrt", SQRT, 1, 0, 2}};
    device_open(); /* once for all cases */
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; ++i) {
        what = rows[i].what;
        for (type = types; type < types + rows[i].types; ++type)
            run_in_modes(rows[i].name, rows[i].operands, rows[i].may_be_silent);
    }
    device_close();
}

Test(isa_arithmetic, extremes_and_signs_treat_nan_zero_and_subnormals_as_the_isa_says)
{
    static const struct {
        const char *name;
        operation what;
        int operands;
    } rows[] = {{"min", MIN, 2}, {"max", MAX, 2}, {"abs", ABS, 1}, {"neg", NEG, 1}};
    device_open();
    for (int i = 0; i < 4; ++i) {
        what = rows[i].what;
        for (type = types; type < types + TYPES - 1; ++type) {
            int variants = what <= MAX && type->bits < 64 ? 4 : 1;
            for (int k = 0; k < variants; ++k) {
                keeps_nan = k & 1, xors_sign = k >> 1;
                run_with_flags(rows[i].name, "", rows[i].operands);
            }
            keeps_nan = xors_sign = 0;
        }
    }
    device_close();
}

/* ---- testp of f64 ---- */

static int tested;

static uint64_t testp(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    double x = double_of(a);
    const int answers[] = {isfinite(x),
                           isinf(x),
                           !isnan(x),
                           isnan(x),
                           isnormal(x) || x == 0,
                           fpclassify(x) == FP_SUBNORMAL};
    return answers[tested] != 0;
}

Test(isa_arithmetic, testp_classifies_doubles)
{
    static const char *const names[] = {"finite",     "infinite", "number",
                                        "notanumber", "normal",   "subnormal"};
    for (tested = 0; tested < 6; ++tested) {
        char ptx[96];
        snprintf(ptx, sizeof ptx, "testp.%s.f64 %%p, %%a; selp.b32 %%d, 1, 0, %%p;", names[tested]);
        isa_case test = {.ptx = ptx, .d = ISA_I32, .a = ISA_F64, .oracle = testp};
        isa_run(&test, 1);
    }
}
