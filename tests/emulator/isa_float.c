/* isa_float.c: fp32 and fp64 arithmetic and comparisons (PTX ISA 9.7.3, 9.7.6). */
#include <criterion/criterion.h>
#include <fenv.h>
#include <math.h>

#include "isa.h"
#include "softfloat.h"

#define F(bits) float_of(bits)
#define D(bits) double_of(bits)

/* Oracles name their operands x, y, z. `volatile` keeps the rounding mode in force. */
#define ORACLE32(name, mode, expression)                                                           \
    static uint64_t name(uint64_t a, uint64_t b, uint64_t c)                                       \
    {                                                                                              \
        volatile float x = F(a), y = F(b), z = F(c);                                               \
        (void)x, (void)y, (void)z;                                                                 \
        fesetround(mode);                                                                          \
        volatile float result = (expression);                                                      \
        fesetround(FE_TONEAREST);                                                                  \
        return bits_of_float(result);                                                              \
    }
#define ORACLE64(name, mode, expression)                                                           \
    static uint64_t name(uint64_t a, uint64_t b, uint64_t c)                                       \
    {                                                                                              \
        volatile double x = D(a), y = D(b), z = D(c);                                              \
        (void)x, (void)y, (void)z;                                                                 \
        fesetround(mode);                                                                          \
        volatile double result = (expression);                                                     \
        fesetround(FE_TONEAREST);                                                                  \
        return bits_of_double(result);                                                             \
    }
#define ALL_MODES(X, name, expression)                                                             \
    X(name##_rn, FE_TONEAREST, expression)                                                         \
    X(name##_rz, FE_TOWARDZERO, expression)                                                        \
    X(name##_rm, FE_DOWNWARD, expression)                                                          \
    X(name##_rp, FE_UPWARD, expression)

ALL_MODES(ORACLE32, add32, x + y)
ALL_MODES(ORACLE32, sub32, x - y)
ALL_MODES(ORACLE32, mul32, x *y)
ALL_MODES(ORACLE32, div32, x / y)
ALL_MODES(ORACLE32, rcp32, 1.0f / x)
ALL_MODES(ORACLE32, sqrt32, sqrtf(x))
ALL_MODES(ORACLE32, fma32, fmaf(x, y, z))
ALL_MODES(ORACLE64, add64, x + y)
ALL_MODES(ORACLE64, sub64, x - y)
ALL_MODES(ORACLE64, mul64, x *y)
ALL_MODES(ORACLE64, div64, x / y)
ALL_MODES(ORACLE64, rcp64, 1.0 / x)
ALL_MODES(ORACLE64, sqrt64, sqrt(x))
ALL_MODES(ORACLE64, fma64, fma(x, y, z))

#define CASE1(name, type, oracle_name)                                                             \
    {                                                                                              \
        .ptx = name " %d, %a;", .d = type, .a = type, .oracle = oracle_name                        \
    }
#define CASE2(name, type, oracle_name)                                                             \
    {                                                                                              \
        .ptx = name " %d, %a, %b;", .d = type, .a = type, .b = type, .oracle = oracle_name         \
    }
#define CASE3(name, type, oracle_name)                                                             \
    {                                                                                              \
        .ptx = name " %d, %a, %b, %c;", .d = type, .a = type, .b = type, .c = type,                \
        .oracle = oracle_name                                                                      \
    }
#define MODES(CASE, op, suffix, type, oracle_name)                                                 \
    CASE(op ".rn." suffix, type, oracle_name##_rn),                                                \
        CASE(op ".rz." suffix, type, oracle_name##_rz),                                            \
        CASE(op ".rm." suffix, type, oracle_name##_rm),                                            \
        CASE(op ".rp." suffix, type, oracle_name##_rp)

Test(isa_float, arithmetic_rounds_in_every_mode_and_keeps_subnormals)
{
    static const isa_case cases[] = {
        CASE2("add.f32", ISA_F32, add32_rn),        CASE2("mul.f32", ISA_F32, mul32_rn),
        MODES(CASE2, "add", "f32", ISA_F32, add32), MODES(CASE2, "sub", "f32", ISA_F32, sub32),
        MODES(CASE2, "mul", "f32", ISA_F32, mul32), MODES(CASE3, "fma", "f32", ISA_F32, fma32),
        MODES(CASE3, "mad", "f32", ISA_F32, fma32), MODES(CASE2, "div", "f32", ISA_F32, div32),
        MODES(CASE1, "rcp", "f32", ISA_F32, rcp32), MODES(CASE1, "sqrt", "f32", ISA_F32, sqrt32),
        CASE2("add.f64", ISA_F64, add64_rn),        MODES(CASE2, "add", "f64", ISA_F64, add64),
        MODES(CASE2, "sub", "f64", ISA_F64, sub64), MODES(CASE2, "mul", "f64", ISA_F64, mul64),
        MODES(CASE3, "fma", "f64", ISA_F64, fma64), MODES(CASE2, "div", "f64", ISA_F64, div64),
        MODES(CASE1, "rcp", "f64", ISA_F64, rcp64), MODES(CASE1, "sqrt", "f64", ISA_F64, sqrt64),
    };
    ISA_RUN(cases);
}

static float flush(float x)
{
    return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x;
}

static float saturate(float x)
{
    return x > 1 ? 1.0f : x > 0 ? x : 0.0f; /* NaN gives +0 */
}

/* An H200 flushes a product that is below the smallest normal number before it is rounded; but fma
 * after. */
static float product(float x, float y)
{
    float rounded = x * y;
    return fabs((double)x * (double)y) < 0x1p-126 ? copysignf(0.0f, rounded) : rounded;
}

ORACLE32(add32_ftz, FE_TONEAREST, flush(flush(x) + flush(y)))
ORACLE32(mul32_ftz, FE_TONEAREST, product(flush(x), flush(y)))
ORACLE32(fma32_ftz, FE_TONEAREST, flush(fmaf(flush(x), flush(y), flush(z))))
ORACLE32(div32_ftz, FE_TONEAREST, flush(flush(x) / flush(y)))
ORACLE32(add32_sat, FE_TONEAREST, saturate(x + y))
ORACLE32(fma32_sat, FE_TONEAREST, saturate(fmaf(x, y, z)))

Test(isa_float, ftz_flushes_inputs_and_results_and_sat_clamps_to_one)
{
    static const isa_case cases[] = {
        CASE2("add.ftz.f32", ISA_F32, add32_ftz),    CASE2("mul.rn.ftz.f32", ISA_F32, mul32_ftz),
        CASE3("fma.rn.ftz.f32", ISA_F32, fma32_ftz), CASE2("div.rn.ftz.f32", ISA_F32, div32_ftz),
        CASE2("add.sat.f32", ISA_F32, add32_sat),    CASE3("fma.rn.sat.f32", ISA_F32, fma32_sat),
    };
    ISA_RUN(cases);
}

/* One NaN: the other operand; +0 is greater than -0. */
static double lesser(double x, double y)
{
    if (isnan(x) || isnan(y))
        return isnan(x) ? y : x;
    if (x == 0 && y == 0)
        return signbit(x) ? x : y;
    return x < y ? x : y;
}

static double greater(double x, double y)
{
    return -lesser(-x, -y);
}

ORACLE32(min32, FE_TONEAREST, (float)lesser((double)x, (double)y))
ORACLE32(max32, FE_TONEAREST, (float)greater((double)x, (double)y))
ORACLE32(min32_nan, FE_TONEAREST, isnan(x) || isnan(y) ? NAN : (float)lesser((double)x, (double)y))
ORACLE32(max32_nan, FE_TONEAREST, isnan(x) || isnan(y) ? NAN : (float)greater((double)x, (double)y))
ORACLE32(max32_ftz, FE_TONEAREST, flush((float)greater((double)flush(x), (double)flush(y))))
ORACLE64(min64, FE_TONEAREST, lesser(x, y))
ORACLE64(max64, FE_TONEAREST, greater(x, y))

static uint64_t xorsign_abs(uint64_t a, uint64_t b, float chosen)
{
    return (bits_of_float(chosen) & 0x7fffffff) | ((a ^ b) & 0x80000000);
}

static uint64_t min32_xorsign(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return xorsign_abs(a, b, (float)lesser((double)fabsf(F(a)), (double)fabsf(F(b))));
}

static uint64_t max32_xorsign(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return xorsign_abs(a, b, (float)greater((double)fabsf(F(a)), (double)fabsf(F(b))));
}

static uint64_t abs32(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return a & 0x7fffffff;
}

static uint64_t neg32(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return a ^ 0x80000000;
}

static uint64_t abs64(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return a & INT64_MAX;
}

static uint64_t neg64(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return a ^ (UINT64_C(1) << 63);
}

/* copysign d, a, b: the sign of a on the value of b. */
static uint64_t copysign32(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return (a & 0x80000000) | (b & 0x7fffffff);
}

static uint64_t copysign64(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return (a & UINT64_C(1) << 63) | (b & INT64_MAX);
}

Test(isa_float, minimum_maximum_and_signs_treat_nan_and_zero_as_the_isa_says)
{
    static const isa_case cases[] = {
        CASE2("min.f32", ISA_F32, min32),
        CASE2("max.f32", ISA_F32, max32),
        CASE2("min.NaN.f32", ISA_F32, min32_nan),
        CASE2("max.NaN.f32", ISA_F32, max32_nan),
        CASE2("max.ftz.f32", ISA_F32, max32_ftz),
        CASE2("min.xorsign.abs.f32", ISA_F32, min32_xorsign),
        CASE2("max.xorsign.abs.f32", ISA_F32, max32_xorsign),
        CASE2("min.f64", ISA_F64, min64),
        CASE2("max.f64", ISA_F64, max64),
        CASE1("abs.f32", ISA_F32, abs32),
        CASE1("neg.f32", ISA_F32, neg32),
        CASE1("abs.f64", ISA_F64, abs64),
        CASE1("neg.f64", ISA_F64, neg64),
        CASE2("copysign.f32", ISA_F32, copysign32),
        CASE2("copysign.f64", ISA_F64, copysign64),
    };
    ISA_RUN(cases);
}

/* ---- comparisons ------------------------------------------------------------------------------
 */

#define PREDICATE32(name, expression)                                                              \
    static uint64_t name(uint64_t a, uint64_t b, uint64_t c)                                       \
    {                                                                                              \
        float x = F(a), y = F(b);                                                                  \
        (void)y, (void)c;                                                                          \
        return (uint64_t)((expression) ? 1 : 0);                                                   \
    }
#define EITHER_NAN (isnan(x) || isnan(y))
PREDICATE32(eq32, x == y)
PREDICATE32(ne32, !EITHER_NAN && x != y)
PREDICATE32(lt32, x < y)
PREDICATE32(le32, x <= y)
PREDICATE32(gt32, x > y)
PREDICATE32(ge32, x >= y)
PREDICATE32(equ32, EITHER_NAN || x == y)
PREDICATE32(neu32, EITHER_NAN || x != y)
PREDICATE32(ltu32, EITHER_NAN || x < y)
PREDICATE32(leu32, EITHER_NAN || x <= y)
PREDICATE32(gtu32, EITHER_NAN || x > y)
PREDICATE32(geu32, EITHER_NAN || x >= y)
PREDICATE32(num32, !EITHER_NAN)
PREDICATE32(nan32, EITHER_NAN)
PREDICATE32(lt32_ftz, flush(x) < flush(y))
PREDICATE32(finite32, isfinite(x))
PREDICATE32(infinite32, isinf(x))
PREDICATE32(number32, !isnan(x))
PREDICATE32(notanumber32, isnan(x))
PREDICATE32(normal32, isnormal(x) || x == 0)
PREDICATE32(subnormal32, fpclassify(x) == FP_SUBNORMAL)

static uint64_t lt64(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return D(a) < D(b);
}

static uint64_t geu64(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return !(D(a) < D(b));
}

static uint64_t slct_s32(uint64_t a, uint64_t b, uint64_t c)
{
    return (int32_t)c >= 0 ? a : b;
}

static uint64_t slct_f32(uint64_t a, uint64_t b, uint64_t c)
{
    return F(c) >= 0 ? a : b; /* -0 is not negative, NaN selects b */
}

#define SETP32(op, oracle_name)                                                                    \
    {                                                                                              \
        .ptx = "setp." #op ".f32 %p, %a, %b; selp.b32 %d, 1, 0, %p;", .d = ISA_I32, .a = ISA_F32,  \
        .b = ISA_F32, .oracle = oracle_name                                                        \
    }
#define TESTP(op, oracle_name)                                                                     \
    {                                                                                              \
        .ptx = "testp." #op ".f32 %p, %a; selp.b32 %d, 1, 0, %p;", .d = ISA_I32, .a = ISA_F32,     \
        .oracle = oracle_name                                                                      \
    }

Test(isa_float, comparisons_are_false_for_nan_unless_unordered)
{
    static const isa_case cases[] = {
        SETP32(eq, eq32),
        SETP32(ne, ne32),
        SETP32(lt, lt32),
        SETP32(le, le32),
        SETP32(gt, gt32),
        SETP32(ge, ge32),
        SETP32(equ, equ32),
        SETP32(neu, neu32),
        SETP32(ltu, ltu32),
        SETP32(leu, leu32),
        SETP32(gtu, gtu32),
        SETP32(geu, geu32),
        SETP32(num, num32),
        SETP32(nan, nan32),
        {.ptx = "setp.lt.ftz.f32 %p, %a, %b; selp.b32 %d, 1, 0, %p;",
         .d = ISA_I32,
         .a = ISA_F32,
         .b = ISA_F32,
         .oracle = lt32_ftz},
        {.ptx = "setp.lt.f64 %p, %a, %b; selp.b32 %d, 1, 0, %p;",
         .d = ISA_I32,
         .a = ISA_F64,
         .b = ISA_F64,
         .oracle = lt64},
        {.ptx = "setp.geu.f64 %p, %a, %b; selp.b32 %d, 1, 0, %p;",
         .d = ISA_I32,
         .a = ISA_F64,
         .b = ISA_F64,
         .oracle = geu64},
        TESTP(finite, finite32),
        TESTP(infinite, infinite32),
        TESTP(number, number32),
        TESTP(notanumber, notanumber32),
        TESTP(normal, normal32),
        TESTP(subnormal, subnormal32),
        {.ptx = "slct.b32.s32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = slct_s32},
        {.ptx = "slct.f32.f32 %d, %a, %b, %c;",
         .d = ISA_F32,
         .a = ISA_F32,
         .b = ISA_F32,
         .c = ISA_F32,
         .oracle = slct_f32},
    };
    ISA_RUN(cases);
}

/* ---- approximations ---------------------------------------------------------------------------
 */

#define APPROX(name, expression)                                                                   \
    static uint64_t name(uint64_t a, uint64_t b, uint64_t c)                                       \
    {                                                                                              \
        double x = (double)F(a), y = (double)F(b);                                                 \
        (void)y, (void)c;                                                                          \
        return bits_of_float((float)(expression));                                                 \
    }
#define APPROX_FTZ(name, expression)                                                               \
    static uint64_t name(uint64_t a, uint64_t b, uint64_t c)                                       \
    {                                                                                              \
        double x = (double)flush(F(a));                                                            \
        (void)b, (void)c;                                                                          \
        return bits_of_float(flush((float)(expression)));                                          \
    }
/* Brings any operand to [1, 2) or, for the angles, to about [-4, 4]. */
#define MANTISSA "and.b32 %t, %t, 0x807fffff; or.b32 %t, %t, 0x3f800000; "

static double one_to_two(uint64_t bits)
{
    return (double)F((bits & 0x807fffff) | 0x3f800000);
}

static uint64_t div_approx(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return bits_of_float((float)(one_to_two(a) / one_to_two(b)));
}

static uint64_t sin_approx(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return bits_of_float((float)sin(one_to_two(a)));
}

static uint64_t cos_approx(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return bits_of_float((float)cos(one_to_two(a)));
}

APPROX(ex2, exp2(x))
APPROX_FTZ(ex2_ftz, exp2(x))
APPROX(lg2, log2(x))
APPROX(rcp_approx, 1 / x)
APPROX_FTZ(rcp_approx_ftz, 1 / x)
APPROX(rsqrt, 1 / sqrt(x))
APPROX(sqrt_approx, sqrt(x))
APPROX(tanh_, tanh(x))

#define APPROX1(name, oracle_name, how)                                                            \
    {                                                                                              \
        .ptx = name " %d, %a;", .d = ISA_F32, .a = ISA_F32, .oracle = oracle_name, .compare = how  \
    }

Test(isa_float, approximations_stay_within_their_documented_error)
{
    static const isa_case cases[] = {
        APPROX1("ex2.approx.f32", ex2, ISA_ULP2),
        APPROX1("ex2.approx.ftz.f32", ex2_ftz, ISA_ULP2),
        APPROX1("lg2.approx.f32", lg2, ISA_LG2),
        APPROX1("rcp.approx.f32", rcp_approx, ISA_ULP2),
        APPROX1("rcp.approx.ftz.f32", rcp_approx_ftz, ISA_ULP2),
        APPROX1("rsqrt.approx.f32", rsqrt, ISA_REL20),
        APPROX1("sqrt.approx.f32", sqrt_approx, ISA_REL20),
        APPROX1("tanh.approx.f32", tanh_, ISA_REL10),
        {.ptx = "mov.b32 %t, %b; " MANTISSA "mov.b32 %b, %t; mov.b32 %t, %a; " MANTISSA
                "mov.b32 %a, %t; div.approx.f32 %d, %a, %b;",
         .d = ISA_F32,
         .a = ISA_F32,
         .b = ISA_F32,
         .oracle = div_approx,
         .compare = ISA_ULP2},
        {.ptx = "mov.b32 %t, %b; " MANTISSA "mov.b32 %b, %t; mov.b32 %t, %a; " MANTISSA
                "mov.b32 %a, %t; div.full.f32 %d, %a, %b;",
         .d = ISA_F32,
         .a = ISA_F32,
         .b = ISA_F32,
         .oracle = div_approx,
         .compare = ISA_ULP2},
        {.ptx = "mov.b32 %t, %a; " MANTISSA "mov.b32 %a, %t; sin.approx.f32 %d, %a;",
         .d = ISA_F32,
         .a = ISA_F32,
         .oracle = sin_approx,
         .compare = ISA_ABS20},
        {.ptx = "mov.b32 %t, %a; " MANTISSA "mov.b32 %a, %t; cos.approx.f32 %d, %a;",
         .d = ISA_F32,
         .a = ISA_F32,
         .oracle = cos_approx,
         .compare = ISA_ABS20},
    };
    ISA_RUN(cases);
}
