/*
 * sweep.c: the printed C of activations, in fp32 on templates/device/math.cuh, against their
 * programs in fp64, over a dense sweep of [-100, 100] that includes zeros, subnormals and the ends.
 */
#include <criterion/criterion.h>

#include "base/program.h"
#include "device_shim.h"
#include "math.cuh"

#include "activations_printed.h"

enum { STRIDE = 4001 }; /* every how many fp32 numbers */

/* max(4 bf16 ulp of the reference, 2^-22) */
static double tolerance(double reference)
{
    int exponent;
    frexp(reference, &exponent); /* in [0.5, 1) * 2^exponent: a bf16 ulp is 2^(exponent - 8) */
    double ulps = reference == 0 ? 0 : ldexp(4, exponent - 8);
    return fmax(ulps, 0x1p-22);
}

static float number(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void compare(const char *name, float (*printed)(float), const program *p, int result,
                    float x)
{
    double values[64], argument = (double)x;
    cr_assert_lt(p->count, 64);
    program_evaluate(p, &argument, values);
    double reference = values[result], computed = (double)printed(x);
    cr_assert(fabs(computed - reference) <= tolerance(reference), "%s(%a) = %g, wanted %g", name,
              (double)x, computed, reference);
}

static void sweep(const char *name, float (*printed)(float), const char *json, int result)
{
    program p;
    json_t *object = json_loads(json, 0, NULL);
    cr_assert_eq(program_from_json(&p, object), MMLP_OK, "%s", mmlp_last_error());
    json_decref(object);
    const uint32_t end = 0x42c80000; /* 100 */
    for (uint32_t bits = 0; bits <= end; bits += bits < 4096 ? 1 : STRIDE) {
        compare(name, printed, &p, result, number(bits));
        compare(name, printed, &p, result, number(bits | 0x80000000));
    }
    compare(name, printed, &p, result, 100.0f);
    compare(name, printed, &p, result, -100.0f);
    program_free(&p);
}

Test(sweep, every_activation_is_sound_in_fp32)
{
#define SWEEP(name)                                                                                \
    sweep(#name, activation_##name, activation_program_##name, activation_result_##name);
    ACTIVATIONS(SWEEP)
#undef SWEEP
}

Test(sweep, every_slope_is_sound_in_fp32)
{
#define SWEEP(name)                                                                                \
    sweep("slope of " #name, slope_##name, slope_program_##name, slope_result_##name);
    ACTIVATIONS(SWEEP)
#undef SWEEP
}

/* Relative, also where the slope is tiny: of functions that saturate. */
static void tails(const char *name, float (*slope)(float), double (*wanted)(double))
{
    for (float x = -80; x <= 80; x += 0.37f) {
        double exact = wanted((double)x), computed = (double)slope(x);
        if (fabs(exact) > 1e-36)
            cr_assert(fabs(computed - exact) <= 2e-5 * fabs(exact),
                      "slope of %s at %g: %g, wanted %g", name, (double)x, computed, exact);
    }
}

static double sigmoid_slope(double x)
{
    double e = exp(-fabs(x));
    return e / ((1 + e) * (1 + e));
}

static double tanh_slope(double x)
{
    return 4 * sigmoid_slope(2 * x);
}

static double softplus_slope(double x)
{
    return x > 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

Test(sweep, slopes_of_what_saturates_are_accurate_in_both_tails)
{
    tails("sigmoid", slope_own_sigmoid, sigmoid_slope);
    tails("tanh", slope_own_tanh, tanh_slope);
    tails("log(1 + exp(x))", slope_own_naive_softplus, softplus_slope);
}

Test(sweep, nan_goes_through_every_slope_that_depends_on_its_place)
{
#define NAN_THROUGH(name) cr_expect(isnan(slope_##name(NAN)), #name);
    NAN_THROUGH(gelu)
    NAN_THROUGH(fused_gelu)
    NAN_THROUGH(silu)
    NAN_THROUGH(relu)
    NAN_THROUGH(quick_gelu)
    NAN_THROUGH(squared_relu)
    NAN_THROUGH(fast_gelu)
    NAN_THROUGH(gelu_tanh)
    NAN_THROUGH(own_mish)
#undef NAN_THROUGH
    cr_expect_eq(slope_relu(-INFINITY), 0.0f);
    cr_expect_eq(slope_relu(INFINITY), 1.0f);
}

Test(sweep, nan_goes_through_every_activation)
{
#define NAN_THROUGH(name) cr_expect(isnan(activation_##name(NAN)), #name);
    NAN_THROUGH(gelu)
    NAN_THROUGH(fused_gelu)
    NAN_THROUGH(silu)
    NAN_THROUGH(relu)
    NAN_THROUGH(quick_gelu)
    NAN_THROUGH(squared_relu)
    NAN_THROUGH(fast_gelu)
    NAN_THROUGH(gelu_tanh)
#undef NAN_THROUGH
}

Test(sweep, nan_goes_through_min_max_and_clamp)
{
    cr_expect(isnan(mlp_min(NAN, 1.0f)) && isnan(mlp_min(1.0f, NAN)));
    cr_expect(isnan(mlp_max(NAN, 1.0f)) && isnan(mlp_max(1.0f, NAN)));
    cr_expect(isnan(mlp_clamp(NAN, -1.0f, 1.0f)) && isnan(mlp_clamp(0.0f, NAN, 1.0f)));
    cr_expect(isnan(mlp_clamp(0.0f, -1.0f, NAN)));
    cr_expect_eq(mlp_min(1.0f, 2.0f), 1.0f);
    cr_expect_eq(mlp_max(1.0f, 2.0f), 2.0f);
    cr_expect_eq(mlp_clamp(5.0f, -1.0f, 1.0f), 1.0f);
    cr_expect_eq(mlp_clamp(-INFINITY, -1.0f, 1.0f), -1.0f);
}

/* Relative, except where a function crosses zero. */
static void functions_at(float x)
{
    double d = (double)x;
    const struct {
        const char *name;
        double computed, wanted, limit;
    } rows[] = {
        {"tanh", (double)mlp_tanh(x), tanh(d), 2e-6 * fabs(tanh(d))},
        {"erf", (double)mlp_erf(x), erf(d), 2e-6 * fabs(erf(d))},
        {"erfc", (double)mlp_erfc(x), erfc(d), 1e-5 * erfc(d)},
        {"sigmoid", (double)mlp_sigmoid(x), 1 / (1 + exp(-d)), 1e-5 / (1 + exp(-d))},
        {"sigmoid_shared", (double)mlp_sigmoid_shared(x), 1 / (1 + exp(-d)), 1e-5 / (1 + exp(-d))},
        {"softplus", (double)mlp_softplus(x), d > 0 ? d + log1p(exp(-d)) : log1p(exp(d)),
         1e-5 * (d > 0 ? d + log1p(exp(-d)) : log1p(exp(d)))},
        {"exp", (double)mlp_exp(x), exp(d), 1e-5 * exp(d)},
        {"log", (double)mlp_log(fabsf(x)), log(fabs(d)), 1e-6 + 1e-6 * fabs(log(fabs(d)))},
        {"sqrt", (double)mlp_sqrt(fabsf(x)), sqrt(fabs(d)), 1e-6 * sqrt(fabs(d)) + 1.1e-19},
        {"rsqrt", (double)mlp_rsqrt(fabsf(x)), 1 / sqrt(fabs(d)), 1e-6 / sqrt(fabs(d))},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (isinf(rows[i].wanted) && rows[i].computed == rows[i].wanted)
            continue;
        double limit = rows[i].limit > 1.2e-38 ? rows[i].limit : 1.2e-38;
        cr_assert(fabs(rows[i].computed - rows[i].wanted) <= limit, "%s(%a) = %.9g, wanted %.9g",
                  rows[i].name, d, rows[i].computed, rows[i].wanted);
    }
}

Test(sweep, functions_are_accurate)
{
    for (uint32_t bits = 0; bits <= 0x42a00000 /* 80 */; bits += STRIDE) {
        functions_at(number(bits));
        functions_at(number(bits | 0x80000000));
    }
}

Test(sweep, functions_at_infinity)
{
    cr_expect_eq(mlp_tanh(INFINITY), 1.0f);
    cr_expect_eq(mlp_tanh(-INFINITY), -1.0f);
    cr_expect_eq(mlp_sigmoid(-INFINITY), 0.0f);
    cr_expect(fabsf(mlp_sigmoid(INFINITY) - 1.0f) < 1e-6f);
    cr_expect_eq(mlp_softplus(INFINITY), INFINITY);
    cr_expect_eq(mlp_softplus(-INFINITY), 0.0f);
    cr_expect_eq(mlp_erfc(-INFINITY), 2.0f);
    cr_expect_eq(mlp_erf(INFINITY), 1.0f);
    cr_expect_eq(mlp_exp(-INFINITY), 0.0f);
    cr_expect_eq(mlp_exp(INFINITY), INFINITY);
    cr_expect_eq(mlp_log(0.0f), -INFINITY);
}
