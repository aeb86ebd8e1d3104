/* isa_bits.c: bits, carries, and comparisons of integers (PTX ISA 9.7.1, 9.7.2, 9.7.6, 9.7.8). */
#include <criterion/criterion.h>

#include "isa_oracle.h"

BINARY(and_, uint64_t, x &y)
BINARY(or_, uint64_t, x | y)
BINARY(xor_, uint64_t, x ^ y)
UNARY(not_, uint64_t, ~x)
UNARY(cnot32, uint32_t, x == 0)
/* Shift amounts are unsigned 32-bit and clamp at the width. */
BINARY(shl32, uint32_t, y > 31 ? 0 : x << y)
BINARY(shr_u32, uint32_t, y > 31 ? 0 : x >> y)

static uint64_t shl64(uint64_t a, uint64_t b, uint64_t c)
{
    UNUSED_C;
    return (uint32_t)b > 63 ? 0 : a << (uint32_t)b;
}

static uint64_t shr_u64(uint64_t a, uint64_t b, uint64_t c)
{
    UNUSED_C;
    return (uint32_t)b > 63 ? 0 : a >> (uint32_t)b;
}

static uint64_t shr_s64(uint64_t a, uint64_t b, uint64_t c)
{
    UNUSED_C;
    return (uint64_t)((int64_t)a >> ((uint32_t)b > 63 ? 63 : (uint32_t)b));
}

static uint64_t shr_s32(uint64_t a, uint64_t b, uint64_t c)
{
    UNUSED_C;
    return (uint64_t)((int32_t)a >> ((uint32_t)b > 31 ? 31 : (uint32_t)b));
}

static uint64_t shl16(uint64_t a, uint64_t b, uint64_t c)
{
    UNUSED_C;
    return (uint32_t)b > 15 ? 0 : a << (uint32_t)b;
}

static uint64_t shr_s16(uint64_t a, uint64_t b, uint64_t c)
{
    UNUSED_C;
    return (uint64_t)((int16_t)a >> ((uint32_t)b > 15 ? 15 : (uint32_t)b));
}

/* Funnel shifts of the 64 bits b:a. */
static uint64_t shf_l_wrap(uint64_t a, uint64_t b, uint64_t c)
{
    unsigned n = (unsigned)c & 31;
    return n ? (b << n | a >> (32 - n)) : b;
}

static uint64_t shf_r_wrap(uint64_t a, uint64_t b, uint64_t c)
{
    unsigned n = (unsigned)c & 31;
    return n ? (b << (32 - n) | a >> n) : a;
}

static uint64_t shf_l_clamp(uint64_t a, uint64_t b, uint64_t c)
{
    return c >= 32 ? a : shf_l_wrap(a, b, c);
}

static uint64_t shf_r_clamp(uint64_t a, uint64_t b, uint64_t c)
{
    return c >= 32 ? b : shf_r_wrap(a, b, c);
}

static uint64_t lop3_by_table(uint64_t a, uint64_t b, uint64_t c, unsigned table)
{
    uint64_t result = 0;
    for (int i = 0; i < 32; ++i) {
        unsigned index = (unsigned)((a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1));
        result |= (uint64_t)(table >> index & 1) << i;
    }
    return result;
}

static uint64_t lop3_e8(uint64_t a, uint64_t b, uint64_t c)
{
    return lop3_by_table(a, b, c, 0xe8);
}

static uint64_t lop3_1d(uint64_t a, uint64_t b, uint64_t c)
{
    return lop3_by_table(a, b, c, 0x1d);
}

static uint64_t count_ones(uint64_t a, int bits)
{
    uint64_t count = 0;
    for (int i = 0; i < bits; ++i)
        count += a >> i & 1;
    return count;
}

/* Leading zeros of the low `bits` bits. */
static uint64_t leading_zeros(uint64_t a, int bits)
{
    uint64_t count = 0;
    for (int i = bits - 1; i >= 0 && !(a >> i & 1); --i)
        ++count;
    return count;
}

UNARY(popc32, uint64_t, count_ones(x, 32))
UNARY(popc64, uint64_t, count_ones(x, 64))
UNARY(clz32, uint64_t, leading_zeros(x, 32))
UNARY(clz64, uint64_t, leading_zeros(x, 64))
/* The most significant bit that differs from the sign; none: 0xffffffff. */
UNARY(bfind_u32, uint32_t, x == 0 ? UINT64_MAX : 31 - leading_zeros(x, 32))
UNARY(bfind_s32, uint32_t,
      (x == 0 || x == UINT32_MAX) ? UINT64_MAX : 31 - leading_zeros(x >> 31 ? ~x : x, 32))
UNARY(bfind_u64, uint64_t, x == 0 ? UINT64_MAX : 63 - leading_zeros(x, 64))
UNARY(bfind_s64, uint64_t,
      (x == 0 || x == UINT64_MAX) ? UINT64_MAX : 63 - leading_zeros(x >> 63 ? ~x : x, 64))
UNARY(bfind_shift_u32, uint32_t, x == 0 ? UINT64_MAX : leading_zeros(x, 32))

static uint64_t reverse(uint64_t a, int bits)
{
    uint64_t result = 0;
    for (int i = 0; i < bits; ++i)
        result |= (a >> i & 1) << (bits - 1 - i);
    return result;
}
UNARY(brev32, uint64_t, reverse(x, 32))
UNARY(brev64, uint64_t, reverse(x, 64))

/* bfe: pos and len are the low 8 bits; missing bits are the sign (the bit at min(pos+len-1, msb)),
 * or zero. */
static uint64_t extract(uint64_t a, uint64_t b, uint64_t c, int bits, int is_signed)
{
    int pos = (int)(b & 255), len = (int)(c & 255);
    int sign_at = pos + len - 1 < bits - 1 ? pos + len - 1 : bits - 1;
    uint64_t sign = is_signed && len > 0 ? a >> sign_at & 1 : 0;
    uint64_t result = 0;
    for (int i = 0; i < bits; ++i) {
        uint64_t bit = i < len && pos + i < bits ? a >> (pos + i) & 1 : sign;
        result |= bit << i;
    }
    return result;
}

static uint64_t bfe_u32(uint64_t a, uint64_t b, uint64_t c)
{
    return extract(a, b, c, 32, 0);
}

static uint64_t bfe_s32(uint64_t a, uint64_t b, uint64_t c)
{
    return extract(a, b, c, 32, 1);
}

static uint64_t bfe_u64(uint64_t a, uint64_t b, uint64_t c)
{
    return extract(a, b, c, 64, 0);
}

static uint64_t bfe_s64(uint64_t a, uint64_t b, uint64_t c)
{
    return extract(a, b, c, 64, 1);
}

/* bfi.b32 d, a, b, 5, c: the low c bits of a go into b at 5. */
static uint64_t bfi_at_5(uint64_t a, uint64_t b, uint64_t c)
{
    int len = (int)(c & 255);
    for (int i = 0; i < len && 5 + i < 32; ++i)
        b = (b & ~(UINT64_C(1) << (5 + i))) | (a >> i & 1) << (5 + i);
    return b;
}

/* prmt: each nibble of c picks one of the 8 bytes b:a; bit 3 replicates its sign. */
static uint64_t prmt(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t bytes = (a & 0xffffffff) | b << 32, result = 0;
    for (int i = 0; i < 4; ++i) {
        unsigned select = c >> (4 * i) & 15;
        unsigned byte = bytes >> (8 * (select & 7)) & 255;
        if (select & 8)
            byte = byte & 128 ? 255 : 0;
        result |= (uint64_t)byte << (8 * i);
    }
    return result;
}

/* Forward four extract: bytes c, c+1, c+2, c+3 of b:a. */
static uint64_t prmt_f4e(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t bytes = (a & 0xffffffff) | b << 32, result = 0;
    for (int i = 0; i < 4; ++i)
        result |= (bytes >> (8 * (((c & 3) + (unsigned)i) & 7)) & 255) << (8 * i);
    return result;
}

/* Replicate 8 bits. */
static uint64_t prmt_rc8(uint64_t a, uint64_t b, uint64_t c)
{
    UNUSED_B;
    return (a >> (8 * (c & 3)) & 255) * 0x01010101;
}

static uint64_t bmsk_clamp(uint64_t a, uint64_t b, uint64_t c)
{
    UNUSED_C;
    uint64_t result = 0;
    a = (uint32_t)a, b = (uint32_t)b;
    for (uint64_t i = a; i < 32 && i - a < b; ++i)
        result |= UINT64_C(1) << i;
    return result;
}

static uint64_t bmsk_wrap(uint64_t a, uint64_t b, uint64_t c)
{
    return bmsk_clamp(a & 31, b & 31, c);
}

static uint64_t szext_clamp_s32(uint64_t a, uint64_t b, uint64_t c)
{
    UNUSED_C;
    unsigned n = (uint32_t)b > 32 ? 32 : (uint32_t)b;
    return n == 0 ? 0 : n == 32 ? a : (uint64_t)((int64_t)(a << (64 - n)) >> (64 - n));
}

static uint64_t szext_wrap_u32(uint64_t a, uint64_t b, uint64_t c)
{
    UNUSED_C;
    return a & ((UINT64_C(1) << (b & 31)) - 1);
}

static uint64_t dp4a_u32(uint64_t a, uint64_t b, uint64_t c)
{
    for (int i = 0; i < 4; ++i)
        c += (a >> (8 * i) & 255) * (b >> (8 * i) & 255);
    return c;
}

static uint64_t dp4a_s32(uint64_t a, uint64_t b, uint64_t c)
{
    for (int i = 0; i < 4; ++i)
        c += (uint64_t)((int8_t)(a >> (8 * i)) * (int8_t)(b >> (8 * i)));
    return c;
}

static uint64_t dp2a_lo_u32(uint64_t a, uint64_t b, uint64_t c)
{
    return c + (a & 0xffff) * (b & 255) + (a >> 16 & 0xffff) * (b >> 8 & 255);
}

static uint64_t dp2a_hi_s32(uint64_t a, uint64_t b, uint64_t c)
{
    return c + (uint64_t)((int16_t)a * (int8_t)(b >> 16)) +
           (uint64_t)((int16_t)(a >> 16) * (int8_t)(b >> 24));
}

Test(isa_bits, bit_instructions_follow_their_definition_at_every_edge)
{
    static const isa_case cases[] = {
        {.ptx = "and.b32 %d, %a, %b;", .d = ISA_I32, .a = ISA_I32, .b = ISA_I32, .oracle = and_},
        {.ptx = "and.b16 %d, %a, %b;", .d = ISA_I16, .a = ISA_I16, .b = ISA_I16, .oracle = and_},
        {.ptx = "or.b64 %d, %a, %b;", .d = ISA_I64, .a = ISA_I64, .b = ISA_I64, .oracle = or_},
        {.ptx = "xor.b32 %d, %a, %b;", .d = ISA_I32, .a = ISA_I32, .b = ISA_I32, .oracle = xor_},
        {.ptx = "not.b64 %d, %a;", .d = ISA_I64, .a = ISA_I64, .oracle = not_},
        {.ptx = "cnot.b32 %d, %a;", .d = ISA_I32, .a = ISA_I32, .oracle = cnot32},
        {.ptx = "shl.b16 %d, %a, %b;", .d = ISA_I16, .a = ISA_I16, .b = ISA_I32, .oracle = shl16},
        {.ptx = "shl.b32 %d, %a, %b;", .d = ISA_I32, .a = ISA_I32, .b = ISA_I32, .oracle = shl32},
        {.ptx = "shl.b64 %d, %a, %b;", .d = ISA_I64, .a = ISA_I64, .b = ISA_I32, .oracle = shl64},
        {.ptx = "shr.u32 %d, %a, %b;", .d = ISA_I32, .a = ISA_I32, .b = ISA_I32, .oracle = shr_u32},
        {.ptx = "shr.s32 %d, %a, %b;", .d = ISA_I32, .a = ISA_I32, .b = ISA_I32, .oracle = shr_s32},
        {.ptx = "shr.s16 %d, %a, %b;", .d = ISA_I16, .a = ISA_I16, .b = ISA_I32, .oracle = shr_s16},
        {.ptx = "shr.u64 %d, %a, %b;", .d = ISA_I64, .a = ISA_I64, .b = ISA_I32, .oracle = shr_u64},
        {.ptx = "shr.s64 %d, %a, %b;", .d = ISA_I64, .a = ISA_I64, .b = ISA_I32, .oracle = shr_s64},
        {.ptx = "shf.l.wrap.b32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = shf_l_wrap},
        {.ptx = "shf.r.wrap.b32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = shf_r_wrap},
        {.ptx = "shf.l.clamp.b32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = shf_l_clamp},
        {.ptx = "shf.r.clamp.b32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = shf_r_clamp},
        {.ptx = "lop3.b32 %d, %a, %b, %c, 0xe8;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = lop3_e8},
        {.ptx = "lop3.b32 %d, %a, %b, %c, 0x1d;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = lop3_1d},
        {.ptx = "popc.b32 %d, %a;", .d = ISA_I32, .a = ISA_I32, .oracle = popc32},
        {.ptx = "popc.b64 %d, %a;", .d = ISA_I32, .a = ISA_I64, .oracle = popc64},
        {.ptx = "clz.b32 %d, %a;", .d = ISA_I32, .a = ISA_I32, .oracle = clz32},
        {.ptx = "clz.b64 %d, %a;", .d = ISA_I32, .a = ISA_I64, .oracle = clz64},
        {.ptx = "bfind.u32 %d, %a;", .d = ISA_I32, .a = ISA_I32, .oracle = bfind_u32},
        {.ptx = "bfind.s32 %d, %a;", .d = ISA_I32, .a = ISA_I32, .oracle = bfind_s32},
        {.ptx = "bfind.u64 %d, %a;", .d = ISA_I32, .a = ISA_I64, .oracle = bfind_u64},
        {.ptx = "bfind.s64 %d, %a;", .d = ISA_I32, .a = ISA_I64, .oracle = bfind_s64},
        {.ptx = "bfind.shiftamt.u32 %d, %a;",
         .d = ISA_I32,
         .a = ISA_I32,
         .oracle = bfind_shift_u32},
        {.ptx = "brev.b32 %d, %a;", .d = ISA_I32, .a = ISA_I32, .oracle = brev32},
        {.ptx = "brev.b64 %d, %a;", .d = ISA_I64, .a = ISA_I64, .oracle = brev64},
        {.ptx = "bfe.u32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = bfe_u32},
        {.ptx = "bfe.s32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = bfe_s32},
        {.ptx = "bfe.u64 %d, %a, %b, %c;",
         .d = ISA_I64,
         .a = ISA_I64,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = bfe_u64},
        {.ptx = "bfe.s64 %d, %a, %b, %c;",
         .d = ISA_I64,
         .a = ISA_I64,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = bfe_s64},
        {.ptx = "bfi.b32 %d, %a, %b, 5, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = bfi_at_5},
        {.ptx = "prmt.b32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = prmt},
        {.ptx = "prmt.b32.f4e %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = prmt_f4e},
        {.ptx = "prmt.b32.rc8 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = prmt_rc8},
        {.ptx = "bmsk.clamp.b32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = bmsk_clamp},
        {.ptx = "bmsk.wrap.b32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = bmsk_wrap},
        {.ptx = "szext.clamp.s32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = szext_clamp_s32},
        {.ptx = "szext.wrap.u32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = szext_wrap_u32},
        {.ptx = "dp4a.u32.u32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = dp4a_u32},
        {.ptx = "dp4a.s32.s32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = dp4a_s32},
        {.ptx = "dp2a.lo.u32.u32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = dp2a_lo_u32},
        {.ptx = "dp2a.hi.s32.s32 %d, %a, %b, %c;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = dp2a_hi_s32},
    };
    ISA_RUN(cases);
}

/* ---- carries --------------------------------------------------------------------------------- */

/* The carry out of a + b, added to c. */
static uint64_t carry_of_add(uint64_t a, uint64_t b, uint64_t c)
{
    return c + ((a + b) >> 32);
}

/* c - 0 - borrow of a - b. */
static uint64_t borrow_of_sub(uint64_t a, uint64_t b, uint64_t c)
{
    return c - (a < b);
}

/* The high word of a * b + c, by mad.lo.cc and madc.hi. */
static uint64_t high_of_mad(uint64_t a, uint64_t b, uint64_t c)
{
    return (a * b + c) >> 32;
}

static uint64_t carry_of_add_64(uint64_t a, uint64_t b, uint64_t c)
{
    return c + (a + b < a);
}

Test(isa_bits, carries_travel_between_extended_precision_instructions)
{
    static const isa_case cases[] = {
        {.ptx = "add.cc.u32 %t, %a, %b; addc.u32 %d, %c, 0;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = carry_of_add},
        {.ptx = "add.cc.u64 %o, %a, %b; addc.u64 %d, %c, 0;",
         .d = ISA_I64,
         .a = ISA_I64,
         .b = ISA_I64,
         .c = ISA_I64,
         .oracle = carry_of_add_64},
        {.ptx = "sub.cc.u32 %t, %a, %b; subc.u32 %d, %c, 0;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = borrow_of_sub},
        {.ptx = "mad.lo.cc.u32 %t, %a, %b, %c; madc.hi.u32 %d, %a, %b, 0;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = high_of_mad},
    };
    ISA_RUN(cases);
}

/* ---- comparison and selection ---------------------------------------------------------------- */

#define RELATIONS(X, type)                                                                         \
    X(eq_##type, type, x == y)                                                                     \
    X(ne_##type, type, x != y)                                                                     \
    X(lt_##type, type, x < y)                                                                      \
    X(le_##type, type, x <= y)                                                                     \
    X(gt_##type, type, x > y)                                                                      \
    X(ge_##type, type, x >= y)
RELATIONS(BINARY, uint16_t)
RELATIONS(BINARY, int16_t)
RELATIONS(BINARY, uint32_t)
RELATIONS(BINARY, int32_t)
RELATIONS(BINARY, uint64_t)
RELATIONS(BINARY, int64_t)
BINARY(set_lt_s32, int32_t, x < y ? UINT32_MAX : 0)
BINARY(set_lt_f32_of_s32, int32_t, x < y ? 0x3f800000 : 0)
BINARY(setp_both, int32_t, (x < y) + 2 * !(x < y))

static uint64_t lt_and_c(uint64_t a, uint64_t b, uint64_t c)
{
    return (int32_t)a < (int32_t)b && (c & 1);
}

static uint64_t lt_or_not_c(uint64_t a, uint64_t b, uint64_t c)
{
    return (int32_t)a < (int32_t)b || !(c & 1);
}

static uint64_t lt_xor_c(uint64_t a, uint64_t b, uint64_t c)
{
    return ((int32_t)a < (int32_t)b) ^ (c & 1);
}

static uint64_t selp_by_sign(uint64_t a, uint64_t b, uint64_t c)
{
    return (int32_t)c < 0 ? a : b;
}

#define SETP(op, type, width, oracle_type)                                                         \
    {                                                                                              \
        .ptx = "setp." #op "." #type " %p, %a, %b; selp.b32 %d, 1, 0, %p;", .d = ISA_I32,          \
        .a = ISA_I##width, .b = ISA_I##width, .oracle = oracle_type                                \
    }

Test(isa_bits, comparisons_respect_sign_and_width)
{
    static const isa_case cases[] = {
        SETP(eq, u16, 16, eq_uint16_t),
        SETP(ne, s16, 16, ne_int16_t),
        SETP(lt, u16, 16, lt_uint16_t),
        SETP(lt, s16, 16, lt_int16_t),
        SETP(eq, b32, 32, eq_uint32_t),
        SETP(ne, u32, 32, ne_uint32_t),
        SETP(lt, u32, 32, lt_uint32_t),
        SETP(lo, u32, 32, lt_uint32_t),
        SETP(le, u32, 32, le_uint32_t),
        SETP(ls, u32, 32, le_uint32_t),
        SETP(gt, u32, 32, gt_uint32_t),
        SETP(hi, u32, 32, gt_uint32_t),
        SETP(ge, u32, 32, ge_uint32_t),
        SETP(hs, u32, 32, ge_uint32_t),
        SETP(eq, s32, 32, eq_int32_t),
        SETP(ne, s32, 32, ne_int32_t),
        SETP(lt, s32, 32, lt_int32_t),
        SETP(le, s32, 32, le_int32_t),
        SETP(gt, s32, 32, gt_int32_t),
        SETP(ge, s32, 32, ge_int32_t),
        SETP(eq, b64, 64, eq_uint64_t),
        SETP(ne, u64, 64, ne_uint64_t),
        SETP(lt, u64, 64, lt_uint64_t),
        SETP(le, u64, 64, le_uint64_t),
        SETP(gt, u64, 64, gt_uint64_t),
        SETP(ge, u64, 64, ge_uint64_t),
        SETP(eq, s64, 64, eq_int64_t),
        SETP(ne, s64, 64, ne_int64_t),
        SETP(lt, s64, 64, lt_int64_t),
        SETP(le, s64, 64, le_int64_t),
        SETP(gt, s64, 64, gt_int64_t),
        SETP(ge, s64, 64, ge_int64_t),
        SETP(eq, s16, 16, eq_int16_t),
        SETP(le, s16, 16, le_int16_t),
        SETP(gt, s16, 16, gt_int16_t),
        SETP(ge, s16, 16, ge_int16_t),
        SETP(ne, u16, 16, ne_uint16_t),
        SETP(le, u16, 16, le_uint16_t),
        SETP(gt, u16, 16, gt_uint16_t),
        SETP(ge, u16, 16, ge_uint16_t),
        SETP(eq, u32, 32, eq_uint32_t),
        SETP(eq, u64, 64, eq_uint64_t),
        {.ptx = "set.lt.u32.s32 %d, %a, %b;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = set_lt_s32},
        {.ptx = "set.lt.f32.s32 %d, %a, %b;",
         .d = ISA_F32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = set_lt_f32_of_s32},
        {.ptx = "setp.lt.s32 %p|%q, %a, %b; selp.b32 %d, 1, 0, %p; selp.b32 %t, 2, 0, %q; add.s32 "
                "%d, %d, %t;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .oracle = setp_both},
        {.ptx = "and.b32 %t, %c, 1; setp.ne.u32 %q, %t, 0; setp.lt.and.s32 %p, %a, %b, %q; "
                "selp.b32 %d, 1, 0, %p;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = lt_and_c},
        {.ptx = "and.b32 %t, %c, 1; setp.ne.u32 %q, %t, 0; setp.lt.or.s32 %p, %a, %b, !%q; "
                "selp.b32 %d, 1, 0, %p;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = lt_or_not_c},
        {.ptx = "and.b32 %t, %c, 1; setp.ne.u32 %q, %t, 0; setp.lt.xor.s32 %p, %a, %b, %q; "
                "selp.b32 %d, 1, 0, %p;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = lt_xor_c},
        {.ptx = "setp.lt.s32 %p, %c, 0; selp.b32 %d, %a, %b, %p;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = selp_by_sign},
        {.ptx = "setp.lt.s32 %p, %c, 0; selp.b64 %d, %a, %b, %p;",
         .d = ISA_I64,
         .a = ISA_I64,
         .b = ISA_I64,
         .c = ISA_I32,
         .oracle = selp_by_sign},
        {.ptx = "setp.lt.s32 %p, %c, 0; not.pred %q, %p; and.pred %p, %p, %p; @%q mov.b32 %a, %b; "
                "mov.b32 %d, %a;",
         .d = ISA_I32,
         .a = ISA_I32,
         .b = ISA_I32,
         .c = ISA_I32,
         .oracle = selp_by_sign},
    };
    ISA_RUN(cases);
}
