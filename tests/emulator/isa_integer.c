/* isa_integer.c: integer arithmetic, bits, carries and comparisons (PTX
 * ISA 9.7.1, 9.7.2, 9.7.6, 9.7.8). */
#include <criterion/criterion.h>

#include "isa_oracle.h"

/* Wrapping arithmetic is done on the bits; only what depends on the sign uses signed types. */
BINARY(add, uint64_t, x + y)
BINARY(sub, uint64_t, x - y)
BINARY(mul_lo, uint64_t, x *y)
TERNARY(mad_lo, uint64_t, x *y + z)

BINARY(mul_hi_u16, uint32_t, (x & 0xffff) * (y & 0xffff) >> 16)
BINARY(mul_hi_s16, int16_t, (int32_t)x *(int32_t)y >> 16)
BINARY(mul_hi_u32, uint32_t, (uint64_t)x *y >> 32)
BINARY(mul_hi_s32, int32_t, (int64_t)x *y >> 32)
BINARY(mul_hi_u64, uint64_t, (unsigned __int128)x *y >> 64)
BINARY(mul_hi_s64, int64_t, (__int128)x *y >> 64)
BINARY(mul_wide_u16, uint16_t, (uint32_t)x *(uint32_t)y)
BINARY(mul_wide_s16, int16_t, (int32_t)x *(int32_t)y)
BINARY(mul_wide_u32, uint32_t, (uint64_t)x *y)
BINARY(mul_wide_s32, int32_t, (int64_t)x *y)
TERNARY(mad_hi_u32, uint32_t, (uint32_t)((uint64_t)x *y >> 32) + z)
TERNARY(mad_hi_s32, int32_t, (uint32_t)((int64_t)x *y >> 32) + (uint32_t)z)
TERNARY(mad_hi_u64, uint64_t, (uint64_t)((unsigned __int128)x *y >> 64) + z)

static uint64_t mad_wide_u32(uint64_t a, uint64_t b, uint64_t c)
{
    return (uint64_t)(uint32_t)a * (uint32_t)b + c;
}

static uint64_t mad_wide_s32(uint64_t a, uint64_t b, uint64_t c)
{
    return (uint64_t)((int64_t)(int32_t)a * (int32_t)b) + c;
}

static uint64_t mad_wide_u16(uint64_t a, uint64_t b, uint64_t c)
{
    return (a & 0xffff) * (b & 0xffff) + c;
}

static uint64_t mad_hi_sat_s32(uint64_t a, uint64_t b, uint64_t c)
{
    int64_t sum = ((int64_t)(int32_t)a * (int32_t)b >> 32) + (int32_t)c;
    return (uint64_t)(sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum);
}

static int32_t low24(int32_t x)
{
    return (int32_t)((uint32_t)x << 8) >> 8;
}

BINARY(mul24_lo_u32, uint32_t, (x & 0xffffff) * (uint64_t)(y & 0xffffff))
BINARY(mul24_hi_u32, uint32_t, (x & 0xffffff) * (uint64_t)(y & 0xffffff) >> 16)
BINARY(mul24_lo_s32, int32_t, (int64_t)low24(x) * low24(y))
BINARY(mul24_hi_s32, int32_t, (int64_t)low24(x) * low24(y) >> 16)
TERNARY(mad24_lo_u32, uint32_t, (x & 0xffffff) * (uint64_t)(y & 0xffffff) + z)
TERNARY(mad24_lo_s32, int32_t, (uint64_t)((int64_t)low24(x) * low24(y)) + (uint32_t)z)

TERNARY(sad_u32, uint32_t, (x > y ? x - y : y - x) + z)
TERNARY(sad_s32, int32_t,
        (uint32_t)z + (x > y ? (uint32_t)x - (uint32_t)y : (uint32_t)y - (uint32_t)x))

/* Division by zero gives an unspecified value in PTX: those rows use a divisor of one. Division by
 * -1 wraps. */
#define DIVIDE_UNSIGNED(suffix, type)                                                              \
    BINARY(div_##suffix, type, x / (y ? y : 1))                                                    \
    BINARY(rem_##suffix, type, x % (y ? y : 1))
#define DIVIDE_SIGNED(suffix, type)                                                                \
    BINARY(div_##suffix, type, y == -1 ? 0 - (uint64_t)x : (uint64_t)(x / (y ? y : 1)))            \
    BINARY(rem_##suffix, type, y == -1 ? 0 : x % (y ? y : 1))
DIVIDE_UNSIGNED(u16, uint16_t)
DIVIDE_SIGNED(s16, int16_t)
DIVIDE_UNSIGNED(u32, uint32_t)
DIVIDE_SIGNED(s32, int32_t)
DIVIDE_UNSIGNED(u64, uint64_t)
DIVIDE_SIGNED(s64, int64_t)

UNARY(neg, uint64_t, 0 - x)
UNARY(abs_s16, int16_t, x < 0 ? 0 - (uint64_t)x : (uint64_t)x)
UNARY(abs_s32, int32_t, x < 0 ? 0 - (uint64_t)x : (uint64_t)x)
UNARY(abs_s64, int64_t, x < 0 ? 0 - (uint64_t)x : (uint64_t)x)
BINARY(min_u16, uint16_t, x < y ? x : y)
BINARY(min_s16, int16_t, x < y ? x : y)
BINARY(max_s16, int16_t, x > y ? x : y)
BINARY(min_u32, uint32_t, x < y ? x : y)
BINARY(max_u32, uint32_t, x > y ? x : y)
BINARY(min_s32, int32_t, x < y ? x : y)
BINARY(max_s32, int32_t, x > y ? x : y)
BINARY(min_u64, uint64_t, x < y ? x : y)
BINARY(max_s64, int64_t, x > y ? x : y)
BINARY(min_s64, int64_t, x < y ? x : y)
BINARY(max_relu_s32, int32_t, x > y ? (x > 0 ? x : 0) : (y > 0 ? y : 0))

static uint64_t saturate32(int64_t value)
{
    return (uint64_t)(value > INT32_MAX ? INT32_MAX : value < INT32_MIN ? INT32_MIN : value);
}
BINARY(add_sat_s32, int32_t, saturate32((int64_t)x + y))
BINARY(sub_sat_s32, int32_t, saturate32((int64_t)x - y))

Test(isa_integer, arithmetic_wraps_and_takes_the_half_that_the_mode_names)
{
    static const isa_case cases[] = {
        {.ptx = "add.s32 %d, %a, %b;", .d = ISA_I32, .a = ISA_I32, .b = ISA_I32, .oracle = add},
        {.ptx = "add.u16 %d, %a, %b;", .d = ISA_I16, .a = ISA_I16, .b = ISA_I16, .oracle = add},
        {.ptx = "add.u64 %d, %a, %b;", .d = ISA_I64, .a = ISA_I64, .b = ISA_I64, .oracle = add},
        {.ptx = "add.sat.s32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = add_sat_s32},
        {.ptx = "sub.s32 %d, %a, %b;", .d = ISA_I32, .a = ISA_I32, .b = ISA_I32, .oracle = sub},
        {.ptx = "sub.s64 %d, %a, %b;", .d = ISA_I64, .a = ISA_I64, .b = ISA_I64, .oracle = sub},
        {.ptx = "sub.sat.s32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = sub_sat_s32},
        {.ptx = "mul.lo.u16 %d, %a, %b;",
         .d = ISA_I16,
         .a = ISA_I16,
         .b = ISA_I16,
         .oracle = mul_lo},
        {.ptx = "mul.lo.s32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = mul_lo},
        {.ptx = "mul.lo.u64 %d, %a, %b;",
         .d = ISA_I64,
         .a = ISA_I64,
         .b = ISA_I64,
         .oracle = mul_lo},
        {.ptx = "mul.hi.u16 %d, %a, %b;",
         .d = ISA_I16,
         .a = ISA_I16,
         .b = ISA_I16,
         .oracle = mul_hi_u16},
        {.ptx = "mul.hi.s16 %d, %a, %b;",
         .d = ISA_I16,
         .a = ISA_I16,
         .b = ISA_I16,
         .oracle = mul_hi_s16},
        {.ptx = "mul.hi.u32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = mul_hi_u32},
        {.ptx = "mul.hi.s32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = mul_hi_s32},
        {.ptx = "mul.hi.u64 %d, %a, %b;",
         .d = ISA_I64,
         .a = ISA_I64,
         .b = ISA_I64,
         .oracle = mul_hi_u64},
        {.ptx = "mul.hi.s64 %d, %a, %b;",
         .d = ISA_I64,
         .a = ISA_I64,
         .b = ISA_I64,
         .oracle = mul_hi_s64},
        {.ptx = "mul.wide.u16 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I16,
         .b = ISA_I16,
         .oracle = mul_wide_u16},
        {.ptx = "mul.wide.s16 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I16,
         .b = ISA_I16,
         .oracle = mul_wide_s16},
        {.ptx = "mul.wide.u32 %d, %a, %b;",
         .d = ISA_I64,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = mul_wide_u32},
        {.ptx = "mul.wide.s32 %d, %a, %b;",
         .d = ISA_I64,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = mul_wide_s32},
        {.ptx = "mad.lo.s32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = mad_lo},
        {.ptx = "mad.lo.u16 %d, %a, %b, %c;",
         .d = ISA_I16,
         .a = ISA_I16,
         .b = ISA_I16,
         .c = ISA_I16,
         .oracle = mad_lo},
        {.ptx = "mad.lo.s64 %d, %a, %b, %c;",
         .d = ISA_I64,
         .a = ISA_I64,
         .b = ISA_I64,
         .c = ISA_I64,
         .oracle = mad_lo},
        {.ptx = "mad.hi.u32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = mad_hi_u32},
        {.ptx = "mad.hi.s32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = mad_hi_s32},
        {.ptx = "mad.hi.sat.s32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = mad_hi_sat_s32},
        {.ptx = "mad.hi.u64 %d, %a, %b, %c;",
         .d = ISA_I64,
         .a = ISA_I64,
         .b = ISA_I64,
         .c = ISA_I64,
         .oracle = mad_hi_u64},
        {.ptx = "mad.wide.u32 %d, %a, %b, %c;",
         .d = ISA_I64,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I64,
         .oracle = mad_wide_u32},
        {.ptx = "mad.wide.s32 %d, %a, %b, %c;",
         .d = ISA_I64,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I64,
         .oracle = mad_wide_s32},
        {.ptx = "mad.wide.u16 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I16,
         .b = ISA_I16,
         .c = ISA_I32,
         .oracle = mad_wide_u16},
        {.ptx = "mul24.lo.u32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = mul24_lo_u32},
        {.ptx = "mul24.hi.u32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = mul24_hi_u32},
        {.ptx = "mul24.lo.s32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = mul24_lo_s32},
        {.ptx = "mul24.hi.s32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = mul24_hi_s32},
        {.ptx = "mad24.lo.u32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = mad24_lo_u32},
        {.ptx = "mad24.lo.s32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = mad24_lo_s32},
        {.ptx = "sad.u32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = sad_u32},
        {.ptx = "sad.s32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = sad_s32},
        {.ptx = "neg.s32 %d, %a;", .d = ISA_I32, .a = ISA_I32, .oracle = neg},
        {.ptx = "neg.s64 %d, %a;", .d = ISA_I64, .a = ISA_I64, .oracle = neg},
        {.ptx = "abs.s16 %d, %a;", .d = ISA_I16, .a = ISA_I16, .oracle = abs_s16},
        {.ptx = "abs.s32 %d, %a;", .d = ISA_I32, .a = ISA_I32, .oracle = abs_s32},
        {.ptx = "abs.s64 %d, %a;", .d = ISA_I64, .a = ISA_I64, .oracle = abs_s64},
        {.ptx = "min.u16 %d, %a, %b;", .d = ISA_I16, .a = ISA_I16, .b = ISA_I16, .oracle = min_u16},
        {.ptx = "min.s16 %d, %a, %b;", .d = ISA_I16, .a = ISA_I16, .b = ISA_I16, .oracle = min_s16},
        {.ptx = "max.s16 %d, %a, %b;", .d = ISA_I16, .a = ISA_I16, .b = ISA_I16, .oracle = max_s16},
        {.ptx = "min.u32 %d, %a, %b;", .d = ISA_I32, .a = ISA_I32, .b = ISA_I32, .oracle = min_u32},
        {.ptx = "max.u32 %d, %a, %b;", .d = ISA_I32, .a = ISA_I32, .b = ISA_I32, .oracle = max_u32},
        {.ptx = "min.s32 %d, %a, %b;", .d = ISA_I32, .a = ISA_I32, .b = ISA_I32, .oracle = min_s32},
        {.ptx = "max.s32 %d, %a, %b;", .d = ISA_I32, .a = ISA_I32, .b = ISA_I32, .oracle = max_s32},
        {.ptx = "max.relu.s32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = max_relu_s32},
        {.ptx = "min.u64 %d, %a, %b;", .d = ISA_I64, .a = ISA_I64, .b = ISA_I64, .oracle = min_u64},
        {.ptx = "min.s64 %d, %a, %b;", .d = ISA_I64, .a = ISA_I64, .b = ISA_I64, .oracle = min_s64},
        {.ptx = "max.s64 %d, %a, %b;", .d = ISA_I64, .a = ISA_I64, .b = ISA_I64, .oracle = max_s64},
    };
    ISA_RUN(cases);
}

/* A divisor of zero becomes one before the division. */
#define DIVISOR(bits) "setp.eq.b" bits " %p, %b, 0; @%p mov.b" bits " %b, 1; "

Test(isa_integer, division_truncates_towards_zero)
{
    static const isa_case cases[] = {
        {.ptx = DIVISOR("16") "div.u16 %d, %a, %b;",
         .d = ISA_I16,
         .a = ISA_I16,
         .b = ISA_I16,
         .oracle = div_u16},
        {.ptx = DIVISOR("16") "div.s16 %d, %a, %b;",
         .d = ISA_I16,
         .a = ISA_I16,
         .b = ISA_I16,
         .oracle = div_s16},
        {.ptx = DIVISOR("16") "rem.u16 %d, %a, %b;",
         .d = ISA_I16,
         .a = ISA_I16,
         .b = ISA_I16,
         .oracle = rem_u16},
        {.ptx = DIVISOR("16") "rem.s16 %d, %a, %b;",
         .d = ISA_I16,
         .a = ISA_I16,
         .b = ISA_I16,
         .oracle = rem_s16},
        {.ptx = DIVISOR("32") "div.u32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = div_u32},
        {.ptx = DIVISOR("32") "div.s32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = div_s32},
        {.ptx = DIVISOR("64") "div.u64 %d, %a, %b;",
         .d = ISA_I64,
         .a = ISA_I64,
         .b = ISA_I64,
         .oracle = div_u64},
        {.ptx = DIVISOR("64") "div.s64 %d, %a, %b;",
         .d = ISA_I64,
         .a = ISA_I64,
         .b = ISA_I64,
         .oracle = div_s64},
        {.ptx = DIVISOR("32") "rem.u32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = rem_u32},
        {.ptx = DIVISOR("32") "rem.s32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = rem_s32},
        {.ptx = DIVISOR("64") "rem.u64 %d, %a, %b;",
         .d = ISA_I64,
         .a = ISA_I64,
         .b = ISA_I64,
         .oracle = rem_u64},
        {.ptx = DIVISOR("64") "rem.s64 %d, %a, %b;",
         .d = ISA_I64,
         .a = ISA_I64,
         .b = ISA_I64,
         .oracle = rem_s64},
    };
    ISA_RUN(cases);
}
