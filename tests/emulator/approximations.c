/*
 * approximations.c: approximate instructions under approx=adverse: no error is above the bound that
 * the PTX ISA documents, and errors come close to it.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "under_schedule.h"

typedef enum format { F32, F16, BF16 } format;

typedef struct approximate {
    const char *instruction; /* %f1 of %f0, %h1 of %h0 */
    format format;
    double (*value)(double a);
    double least, most; /* operands */
    double absolute, relative, ulps;
} approximate;

static double reciprocal(double a)
{
    return 1 / a;
}

static double third(double a)
{
    return a / 3;
}

static double reciprocal_root(double a)
{
    return 1 / sqrt(a);
}

static const approximate instructions[] = {
    {"rcp.approx.f32 %f1, %f0;", F32, reciprocal, -1e20, 1e20, 0, 0, 1},
    {"rcp.approx.ftz.f32 %f1, %f0;", F32, reciprocal, 0.1, 10, 0, 0, 1},
    {"div.full.f32 %f1, %f0, 0f40400000;", F32, third, -50, 50, 0, 0, 2},
    {"div.approx.ftz.f32 %f1, %f0, 0f40400000;", F32, third, -50, 50, 0, 0, 2},
    {"sqrt.approx.f32 %f1, %f0;", F32, sqrt, 0, 1e6, 0, 0x1p-23, 0},
    {"rsqrt.approx.f32 %f1, %f0;", F32, reciprocal_root, 1e-3, 1e6, 0, 1.27767e-7, 0},
    {"ex2.approx.f32 %f1, %f0;", F32, exp2, -20, 20, 0, 0, 2},
    {"ex2.approx.ftz.f32 %f1, %f0;", F32, exp2, -20, 20, 0, 0, 2},
    {"lg2.approx.f32 %f1, %f0;", F32, log2, 0.51, 1.99, 0x1p-22, 0, 0},
    {"lg2.approx.ftz.f32 %f1, %f0;", F32, log2, 2, 1e9, 0, 0x1p-22, 0},
    {"sin.approx.f32 %f1, %f0;", F32, sin, -3.14, 3.14, 6.74351e-7, 0, 0},
    {"cos.approx.ftz.f32 %f1, %f0;", F32, cos, -3.14, 3.14, 6.74351e-7, 0, 0},
    {"tanh.approx.f32 %f1, %f0;", F32, tanh, -6, 6, 0, 0x1p-11, 0},
    {"ex2.approx.f16 %h1, %h0;", F16, exp2, -8, 8, 0, 1.046654e-3, 0},
    {"ex2.approx.ftz.bf16 %h1, %h0;", BF16, exp2, -8, 8, 0, 0x1p-7, 0},
    {"tanh.approx.f16 %h1, %h0;", F16, tanh, -4, 4, 4.927014e-4, 0, 0},
    {"tanh.approx.bf16 %h1, %h0;", BF16, tanh, -4, 4, 0x1p-8, 0, 0},
};

static float as_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static double half_value(uint32_t bits, format f)
{
    int exponent_bits = f == F16 ? 5 : 8, mantissa_bits = 15 - exponent_bits;
    int exponent = (int)(bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
    double mantissa = bits & ((1u << mantissa_bits) - 1), sign = bits >> 15 ? -1 : 1;
    mantissa += exponent ? 1 << mantissa_bits : 0;
    exponent = exponent ? exponent : 1;
    return sign * ldexp(mantissa, exponent - (1 << (exponent_bits - 1)) + 1 - mantissa_bits);
}

static double decoded(uint32_t bits, format f)
{
    return f == F32 ? as_float(bits) : half_value(bits & 0xffff, f);
}

/* Operands spread over the range: floats, or the halves nearest to zero of them. */
static void fill(uint32_t in[WORDS], const approximate *a)
{
    for (int i = 0; i < WORDS; i++) {
        float value = (float)(a->least + (a->most - a->least) * (i + 0.37) / WORDS);
        uint32_t bits;
        memcpy(&bits, &value, sizeof bits);
        if (a->format == BF16) {
            bits >>= 16;
        } else if (a->format == F16) {
            int exponent = (int)(bits >> 23 & 255) - 112;
            bits = exponent <= 0
                       ? 0x2000
                       : (bits >> 16 & 0x8000) | (uint32_t)exponent << 10 | (bits >> 13 & 0x3ff);
        }
        in[i] = bits;
    }
}

static double bound_of(const approximate *a, double value)
{
    int exponent;
    frexp(value, &exponent);
    return a->absolute + fabs(value) * a->relative + ldexp(a->ulps, exponent - 24);
}

/* The largest error as a part of its bound. */
static double worst(const approximate *a, const char *schedule, uint32_t out[WORDS])
{
    char body[512];
    const char *reg = a->format == F32 ? "f" : "h", *type = a->format == F32 ? "f32" : "b16";
    snprintf(body, sizeof body, "%s ld.global.%s %%%s0, [%%rd1]; %s st.global.%s [%%rd0], %%%s1;",
             WORDS_OF_THREAD, type, reg, a->instruction, type, reg);
    program p = {a->instruction, body, 1, WORDS};
    uint32_t in[WORDS];
    double most = 0;
    fill(in, a);
    outcome o = run_under(&p, in, schedule, "1");
    cr_assert_eq(o.result, CUDA_SUCCESS, "%s under %s: %s", a->instruction, schedule, o.report);
    for (int i = 0; i < WORDS; i++) {
        double value = a->value(decoded(in[i], a->format));
        double part = fabs(decoded(o.out[i], a->format) - value) / bound_of(a, value);
        most = part > most ? part : most;
    }
    memcpy(out, o.out, sizeof o.out);
    return most;
}

Test(approximations, adverse_results_use_their_bounds_and_keep_them)
{
    static const char *const schedules[] = {"0,approx=adverse", "1,approx=adverse",
                                            "2,approx=adverse", "3,approx=adverse"};
    static uint32_t exact[WORDS], wrong[WORDS];
    for (size_t i = 0; i < sizeof instructions / sizeof *instructions; i++) {
        const approximate *a = &instructions[i];
        double honest = worst(a, "0", exact);
        cr_expect_leq(honest, 1, "%s: exact results err by %g of the bound", a->instruction,
                      honest);
        for (int k = 0; k < 4; k++) {
            double part = worst(a, schedules[k], wrong);
            cr_expect(part > 0.6 && part <= 1, "%s under %s: %g of the bound", a->instruction,
                      schedules[k], part);
            cr_expect_neq(memcmp(wrong, exact, sizeof exact), 0);
        }
    }
}

Test(approximations, errors_are_a_function_of_seed_and_operand)
{
    static uint32_t first[WORDS], again[WORDS], other[WORDS];
    const approximate *a = &instructions[6];
    worst(a, "4,approx=adverse", first);
    worst(a, "4,quantum=1,approx=adverse", again);
    worst(a, "8,approx=adverse", other);
    cr_expect_eq(memcmp(first, again, sizeof first), 0);
    cr_expect_neq(memcmp(first, other, sizeof first), 0);
}

Test(approximations, what_has_no_error_gets_none)
{
    /* zeros, infinities, NaN, and the fixed points 2^0 and cos 0 */
    static const struct {
        const char *instruction;
        uint32_t operand, result;
    } cases[] = {
        {"rcp.approx.f32 %f1, %f0;", 0, 0x7f800000},
        {"rcp.approx.f32 %f1, %f0;", 0xff800000, 0x80000000},
        {"ex2.approx.ftz.f32 %f1, %f0;", 0, 0x3f800000},
        {"ex2.approx.ftz.f32 %f1, %f0;", 0x80000001, 0x3f800000},
        {"ex2.approx.f32 %f1, %f0;", 0xff800000, 0},
        {"lg2.approx.f32 %f1, %f0;", 0, 0xff800000},
        {"cos.approx.f32 %f1, %f0;", 0, 0x3f800000},
        {"tanh.approx.f32 %f1, %f0;", 0x80000000, 0x80000000},
        {"sqrt.approx.f32 %f1, %f0;", 0, 0},
        {"sqrt.approx.f32 %f1, %f0;", 0xbf800000, 0x7fffffff},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[512];
        snprintf(body, sizeof body,
                 "%s ld.global.f32 %%f0, [%%rd1]; %s st.global.f32 [%%rd0], %%f1;", WORDS_OF_THREAD,
                 cases[i].instruction);
        program p = {cases[i].instruction, body, 1, 1};
        uint32_t in[WORDS] = {cases[i].operand};
        outcome o = run_under(&p, in, "1,approx=adverse", "1");
        cr_assert_eq(o.result, CUDA_SUCCESS);
        bool is_nan = (cases[i].result & 0x7fffffff) > 0x7f800000;
        cr_expect(is_nan ? (o.out[0] & 0x7fffffff) > 0x7f800000 : o.out[0] == cases[i].result,
                  "%s of 0x%08x: 0x%08x", cases[i].instruction, cases[i].operand, o.out[0]);
    }
}
