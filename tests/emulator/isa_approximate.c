/*
 * isa_approximate.c: approximations with .ftz, of doubles and of 16 bits (PTX ISA 9.7.3, 9.7.4);
 * those of isa_float.c are without. Each may err by what the ISA grants, and no more.
 */
#include <criterion/criterion.h>
#include <math.h>

#include "isa.h"
#include "softfloat.h"

static double flush(double x)
{
    return fabs(x) < 0x1p-126 ? copysign(0.0, x) : x;
}

/* ---- f32 with .ftz ---- */

/* Of angles and quotients: the mantissa of the operand, in [1, 2), or subnormal. */
#define MANTISSA                                                                                   \
    "and.b32 %t, %t, 0x807fffff; setp.lt.u32 %p, %t, 4096; @!%p or.b32 %t, %t, 0x3f800000; "
#define OF_A "mov.b32 %t, %a; " MANTISSA "mov.b32 %a, %t; "
#define OF_B                                                                                       \
    "mov.b32 %t, %b; and.b32 %t, %t, 0x807fffff; or.b32 %t, %t, 0x3f800000; mov.b32 %b, %t; "

static double mantissa(uint64_t bits)
{
    bits &= 0x807fffff;
    return (double)float_of(bits < 4096 ? bits : bits | 0x3f800000);
}

#define ORACLE_FTZ(name, expression)                                                               \
    static uint64_t name(uint64_t a, uint64_t b, uint64_t c)                                       \
    {                                                                                              \
        (void)b, (void)c;                                                                          \
        double x = flush((double)float_of(a)), angle = flush(mantissa(a)),                         \
               divisor = (double)float_of((b & 0x807fffff) | 0x3f800000);                          \
        (void)x, (void)angle, (void)divisor;                                                       \
        return bits_of_float((float)flush(expression));                                            \
    }
ORACLE_FTZ(divide, angle / divisor)
ORACLE_FTZ(sine, sin(angle))
ORACLE_FTZ(cosine, cos(angle))
ORACLE_FTZ(square_root, sqrt(x))
ORACLE_FTZ(inverse_root, 1 / sqrt(x))
ORACLE_FTZ(logarithm, log2(x))

#define FLOATS(text, how, oracle_name)                                                             \
    {                                                                                              \
        .ptx = text, .d = ISA_F32, .a = ISA_F32, .b = ISA_F32, .oracle = oracle_name,              \
        .compare = how                                                                             \
    }

Test(isa_approximate, subnormal_operands_and_results_are_flushed)
{
    static const isa_case cases[] = {
        FLOATS(OF_A OF_B "div.approx.ftz.f32 %d, %a, %b;", ISA_ULP2, divide),
        FLOATS(OF_A OF_B "div.full.ftz.f32 %d, %a, %b;", ISA_ULP2, divide),
        FLOATS(OF_A "sin.approx.ftz.f32 %d, %a;", ISA_ABS20, sine),
        FLOATS(OF_A "cos.approx.ftz.f32 %d, %a;", ISA_ABS20, cosine),
        FLOATS("sqrt.approx.ftz.f32 %d, %a;", ISA_REL20, square_root),
        FLOATS("rsqrt.approx.ftz.f32 %d, %a;", ISA_REL20, inverse_root),
        FLOATS("lg2.approx.ftz.f32 %d, %a;", ISA_LG2, logarithm),
    };
    ISA_RUN(cases);
}

/* ---- f64: .ftz stands for a coarse result, whose lower word is zero ---- */

static double flush_double(double x)
{
    return fabs(x) < 0x1p-1022 ? copysign(0.0, x) : x;
}

#define ORACLE64(name, expression)                                                                 \
    static uint64_t name(uint64_t a, uint64_t b, uint64_t c)                                       \
    {                                                                                              \
        (void)b, (void)c;                                                                          \
        double x = double_of(a);                                                                   \
        return bits_of_double(expression);                                                         \
    }
ORACLE64(double_inverse_root, 1 / sqrt(x))
ORACLE64(coarse_inverse_root, 1 / sqrt(flush_double(x)))
ORACLE64(coarse_reciprocal, flush_double(1 / flush_double(x)))

static uint64_t zero(uint64_t a, uint64_t b, uint64_t c)
{
    (void)a, (void)b, (void)c;
    return 0;
}

#define DOUBLES(text, how, oracle_name)                                                            \
    {                                                                                              \
        .ptx = text, .d = ISA_F64, .a = ISA_F64, .oracle = oracle_name, .compare = how             \
    }

Test(isa_approximate, doubles_are_approximated_with_and_without_their_lower_word)
{
    static const isa_case cases[] = {
        DOUBLES("rsqrt.approx.f64 %d, %a;", ISA_REL20, double_inverse_root),
        DOUBLES("rsqrt.approx.ftz.f64 %d, %a;", ISA_REL18, coarse_inverse_root),
        DOUBLES("rcp.approx.ftz.f64 %d, %a;", ISA_REL18, coarse_reciprocal),
    };
    ISA_RUN(cases);
    static const isa_case lower_words[] = {
        {.ptx = "{ .reg .f64 %z; rsqrt.approx.ftz.f64 %z, %a; mov.b64 {%d, %t}, %z; }",
         .d = ISA_I32,
         .a = ISA_F64,
         .oracle = zero},
        {.ptx = "{ .reg .f64 %z; rcp.approx.ftz.f64 %z, %a; mov.b64 {%d, %t}, %z; }",
         .d = ISA_I32,
         .a = ISA_F64,
         .oracle = zero},
    };
    ISA_RUN(lower_words);
}

/* ---- 16 bits ---- */

#define ORACLE16(name, format, expression)                                                         \
    static uint64_t name(uint64_t a, uint64_t b, uint64_t c)                                       \
    {                                                                                              \
        (void)b, (void)c;                                                                          \
        double x = format_to_double(format, a & 0xffff);                                           \
        return format_from_double(format, expression, ROUND_NEAREST);                              \
    }                                                                                              \
    static uint64_t name##_pair(uint64_t a, uint64_t b, uint64_t c)                                \
    {                                                                                              \
        return name(a, b, c) | name(a >> 16, b, c) << 16;                                          \
    }
ORACLE16(exponential_f16, format_f16, exp2(x))
ORACLE16(exponential_bf16, format_bf16, flush(exp2(flush(x))))
ORACLE16(tangent_f16, format_f16, tanh(x))
ORACLE16(tangent_bf16, format_bf16, tanh(x))

#define SHORTS(text, type, how, oracle_name)                                                       \
    {                                                                                              \
        .ptx = text " %d, %a;", .d = type, .a = type, .oracle = oracle_name, .compare = how        \
    }

Test(isa_approximate, exponentials_and_tangents_of_16_bits)
{
    static const isa_case cases[] = {
        SHORTS("ex2.approx.f16", ISA_F16, ISA_EX2, exponential_f16),
        SHORTS("ex2.approx.f16x2", ISA_F16X2, ISA_EX2, exponential_f16_pair),
        SHORTS("ex2.approx.ftz.bf16", ISA_BF16, ISA_REL7, exponential_bf16),
        SHORTS("ex2.approx.ftz.bf16x2", ISA_BF16X2, ISA_REL7, exponential_bf16_pair),
        SHORTS("tanh.approx.f16", ISA_F16, ISA_ABS10, tangent_f16),
        SHORTS("tanh.approx.f16x2", ISA_F16X2, ISA_ABS10, tangent_f16_pair),
        SHORTS("tanh.approx.bf16", ISA_BF16, ISA_ABS8, tangent_bf16),
        SHORTS("tanh.approx.bf16x2", ISA_BF16X2, ISA_ABS8, tangent_bf16_pair),
    };
    ISA_RUN(cases);
}
