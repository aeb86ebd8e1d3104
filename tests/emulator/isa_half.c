/* isa_half.c: f16, bf16 and their packed pairs (PTX ISA 9.7.4, 9.7.6). */
#include <criterion/criterion.h>
#include <math.h>

#include "isa.h"
#include "softfloat.h"

/* One element: operands as exact doubles, the result rounded once. */
typedef double element(double x, double y, double z);

static double add(double x, double y, double z)
{
    (void)z;
    return fma_to_odd(1.0, x, y);
}

static double sub(double x, double y, double z)
{
    (void)z;
    return fma_to_odd(1.0, x, -y);
}

static double mul(double x, double y, double z)
{
    (void)z;
    return x * y; /* exact: at most 22 bits */
}

static double multiply_add(double x, double y, double z)
{
    return fma_to_odd(x, y, z);
}

static uint64_t apply(float_format format, element *operation, uint64_t a, uint64_t b, uint64_t c)
{
    double result = operation(format_to_double(format, a), format_to_double(format, b),
                              format_to_double(format, c));
    return format_from_double(format, result, ROUND_NEAREST);
}

static uint64_t apply_pair(float_format format, element *operation, uint64_t a, uint64_t b,
                           uint64_t c)
{
    return apply(format, operation, a & 0xffff, b & 0xffff, c & 0xffff) |
           apply(format, operation, a >> 16 & 0xffff, b >> 16 & 0xffff, c >> 16 & 0xffff) << 16;
}

#define ORACLE(name, format, operation)                                                            \
    static uint64_t name(uint64_t a, uint64_t b, uint64_t c)                                       \
    {                                                                                              \
        return apply(format, operation, a, b, c);                                                  \
    }                                                                                              \
    static uint64_t name##_pair(uint64_t a, uint64_t b, uint64_t c)                                \
    {                                                                                              \
        return apply_pair(format, operation, a, b, c);                                             \
    }
ORACLE(add_f16, format_f16, add)
ORACLE(sub_f16, format_f16, sub)
ORACLE(mul_f16, format_f16, mul)
ORACLE(fma_f16, format_f16, multiply_add)
ORACLE(add_bf16, format_bf16, add)
ORACLE(sub_bf16, format_bf16, sub)
ORACLE(mul_bf16, format_bf16, mul)
ORACLE(fma_bf16, format_bf16, multiply_add)

/* The packed results hold two floats, so any NaN equals any NaN only element by element: operands
 * of the pair cases are brought into the moderate range, where no NaN arises. */
#define PAIR_F16(reg)  "and.b32 " reg ", " reg ", 0x83ff83ff; or.b32 " reg ", " reg ", 0x3c003c00; "
#define PAIR_BF16(reg) "and.b32 " reg ", " reg ", 0x807f807f; or.b32 " reg ", " reg ", 0x3f803f80; "

static uint64_t moderate_f16(uint64_t pair)
{
    return (pair & 0x83ff83ff) | 0x3c003c00;
}

static uint64_t moderate_bf16(uint64_t pair)
{
    return (pair & 0x807f807f) | 0x3f803f80;
}

#define PAIR_ORACLE(name, moderate)                                                                \
    static uint64_t name##_moderate(uint64_t a, uint64_t b, uint64_t c)                            \
    {                                                                                              \
        return name##_pair(moderate(a), moderate(b), moderate(c));                                 \
    }
PAIR_ORACLE(add_f16, moderate_f16)
PAIR_ORACLE(sub_f16, moderate_f16)
PAIR_ORACLE(mul_f16, moderate_f16)
PAIR_ORACLE(fma_f16, moderate_f16)
PAIR_ORACLE(add_bf16, moderate_bf16)
PAIR_ORACLE(sub_bf16, moderate_bf16)
PAIR_ORACLE(mul_bf16, moderate_bf16)
PAIR_ORACLE(fma_bf16, moderate_bf16)

static uint64_t fma_relu_f16(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t result = fma_f16(a, b, c);
    int is_nan = (result & 0x7fff) > 0x7c00;
    return !is_nan && result & 0x8000 ? 0 : result;
}

static uint64_t add_sat_f16(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    double sum = format_to_double(format_f16, add_f16(a, b, 0));
    return format_from_double(format_f16, sum > 1 ? 1 : sum > 0 ? sum : 0, ROUND_NEAREST);
}

static uint64_t minimum(float_format format, uint64_t a, uint64_t b, int largest, int nan_wins)
{
    double x = format_to_double(format, a), y = format_to_double(format, b);
    if (isnan(x) || isnan(y))
        return nan_wins || (isnan(x) && isnan(y))
                   ? format_from_double(format, (double)NAN, ROUND_NEAREST)
               : isnan(x) ? b
                          : a;
    int b_is_less = y < x || (x == y && signbit(y) && !signbit(x));
    return b_is_less != largest ? b : a;
}

#define MINIMUM(name, format, largest, nan_wins)                                                   \
    static uint64_t name(uint64_t a, uint64_t b, uint64_t c)                                       \
    {                                                                                              \
        (void)c;                                                                                   \
        return minimum(format, a, b, largest, nan_wins);                                           \
    }
MINIMUM(min_f16, format_f16, 0, 0)
MINIMUM(max_f16, format_f16, 1, 0)
MINIMUM(max_nan_f16, format_f16, 1, 1)
MINIMUM(min_bf16, format_bf16, 0, 0)
MINIMUM(max_bf16, format_bf16, 1, 0)
MINIMUM(min_nan_bf16, format_bf16, 0, 1)

static uint64_t neg16(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return a ^ 0x8000;
}

static uint64_t abs16(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return a & 0x7fff;
}

static uint64_t neg_pair(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return a ^ 0x80008000;
}

static uint64_t lt_f16(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return format_to_double(format_f16, a) < format_to_double(format_f16, b);
}

static uint64_t gtu_bf16(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return !(format_to_double(format_bf16, a) <= format_to_double(format_bf16, b));
}

/* setp on a pair gives the low element's result in p and the high one's in q. */
static uint64_t lt_f16_pair(uint64_t a, uint64_t b, uint64_t c)
{
    return lt_f16(a & 0xffff, b & 0xffff, c) + 2 * lt_f16(a >> 16, b >> 16, c);
}

#define OP1(name, type, oracle_name)                                                               \
    {                                                                                              \
        .ptx = name " %d, %a;", .d = type, .a = type, .oracle = oracle_name                        \
    }
#define OP2(name, type, oracle_name)                                                               \
    {                                                                                              \
        .ptx = name " %d, %a, %b;", .d = type, .a = type, .b = type, .oracle = oracle_name         \
    }
#define OP3(name, type, oracle_name)                                                               \
    {                                                                                              \
        .ptx = name " %d, %a, %b, %c;", .d = type, .a = type, .b = type, .c = type,                \
        .oracle = oracle_name                                                                      \
    }
#define PAIR2(moderate, name, oracle_name)                                                         \
    {                                                                                              \
        .ptx = moderate("%a") moderate("%b") name " %d, %a, %b;", .d = ISA_I32, .a = ISA_I32,      \
        .b = ISA_I32, .oracle = oracle_name##_moderate                                             \
    }
#define PAIR3(moderate, name, oracle_name)                                                         \
    {                                                                                              \
        .ptx = moderate("%a") moderate("%b") moderate("%c") name " %d, %a, %b, %c;", .d = ISA_I32, \
        .a = ISA_I32, .b = ISA_I32, .c = ISA_I32, .oracle = oracle_name##_moderate                 \
    }

Test(isa_half, arithmetic_rounds_once_to_the_16_bit_type)
{
    static const isa_case cases[] = {
        OP2("add.f16", ISA_F16, add_f16),
        OP2("add.rn.f16", ISA_F16, add_f16),
        OP2("sub.f16", ISA_F16, sub_f16),
        OP2("mul.f16", ISA_F16, mul_f16),
        OP3("fma.rn.f16", ISA_F16, fma_f16),
        OP3("fma.rn.relu.f16", ISA_F16, fma_relu_f16),
        OP2("add.sat.f16", ISA_F16, add_sat_f16),
        OP2("add.bf16", ISA_BF16, add_bf16),
        OP2("sub.bf16", ISA_BF16, sub_bf16),
        OP2("mul.bf16", ISA_BF16, mul_bf16),
        OP3("fma.rn.bf16", ISA_BF16, fma_bf16),
        PAIR2(PAIR_F16, "add.f16x2", add_f16),
        PAIR2(PAIR_F16, "sub.f16x2", sub_f16),
        PAIR2(PAIR_F16, "mul.f16x2", mul_f16),
        PAIR3(PAIR_F16, "fma.rn.f16x2", fma_f16),
        PAIR2(PAIR_BF16, "add.bf16x2", add_bf16),
        PAIR2(PAIR_BF16, "sub.bf16x2", sub_bf16),
        PAIR2(PAIR_BF16, "mul.bf16x2", mul_bf16),
        PAIR3(PAIR_BF16, "fma.rn.bf16x2", fma_bf16),
    };
    ISA_RUN(cases);
}

Test(isa_half, minimum_maximum_signs_and_comparisons)
{
    static const isa_case cases[] = {
        OP2("min.f16", ISA_F16, min_f16),
        OP2("max.f16", ISA_F16, max_f16),
        OP2("max.NaN.f16", ISA_F16, max_nan_f16),
        OP2("min.bf16", ISA_BF16, min_bf16),
        OP2("max.bf16", ISA_BF16, max_bf16),
        OP2("min.NaN.bf16", ISA_BF16, min_nan_bf16),
        OP1("neg.f16", ISA_F16, neg16),
        OP1("abs.f16", ISA_F16, abs16),
        OP1("neg.bf16", ISA_BF16, neg16),
        OP1("abs.bf16", ISA_BF16, abs16),
        OP1("neg.f16x2", ISA_F16X2, neg_pair),
        OP1("neg.bf16x2", ISA_BF16X2, neg_pair),
        {.ptx = "setp.lt.f16 %p, %a, %b; selp.b32 %d, 1, 0, %p;",
         .d = ISA_I32,
         .a = ISA_F16,
         .b = ISA_F16,
         .oracle = lt_f16},
        {.ptx = "setp.gtu.bf16 %p, %a, %b; selp.b32 %d, 1, 0, %p;",
         .d = ISA_I32,
         .a = ISA_BF16,
         .b = ISA_BF16,
         .oracle = gtu_bf16},
        {.ptx = "setp.lt.f16x2 %p|%q, %a, %b; selp.b32 %d, 1, 0, %p; selp.b32 %t, 2, 0, %q; "
                "add.u32 %d, %d, %t;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = lt_f16_pair},
    };
    ISA_RUN(cases);
}
