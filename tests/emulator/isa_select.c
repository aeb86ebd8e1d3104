/*
 * isa_select.c: moves, selections, permutations and searches among bits, for every type and mode
 * (PTX ISA 9.7.1, 9.7.6, 9.7.8, 9.7.9).
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "device.h"
#include "isa.h"
#include "softfloat.h"

typedef struct moved_type {
    const char *name;
    isa_type reg;
} moved_type;

static const moved_type types[] = {
    {"b16", ISA_I16}, {"u16", ISA_I16}, {"s16", ISA_I16}, {"b32", ISA_I32},
    {"u32", ISA_I32}, {"s32", ISA_I32}, {"b64", ISA_I64}, {"u64", ISA_I64},
    {"s64", ISA_I64}, {"f32", ISA_F32}, {"f64", ISA_F64},
};
enum { TYPES = sizeof types / sizeof types[0] };

static void run(const char *ptx, isa_type d, isa_type a, isa_type b, isa_type c, isa_oracle *oracle)
{
    isa_case test = {.ptx = ptx, .d = d, .a = a, .b = b, .c = c, .oracle = oracle};
    isa_run(&test, 1);
}

/* ---- mov, selp, slct ---- */

static uint64_t first(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return a;
}

static uint64_t by_bit(uint64_t a, uint64_t b, uint64_t c)
{
    return c ? a : b;
}

static uint64_t by_sign(uint64_t a, uint64_t b, uint64_t c)
{
    return (int32_t)c >= 0 ? a : b;
}

/* -0 is not negative, NaN selects b. */
static uint64_t by_float(uint64_t a, uint64_t b, uint64_t c)
{
    return float_of(c) >= 0 ? a : b;
}

/* .ftz makes a negative subnormal number -0. */
static uint64_t by_flushed_float(uint64_t a, uint64_t b, uint64_t c)
{
    return float_of(c) >= 0 || fabsf(float_of(c)) < 0x1p-126f ? a : b;
}

Test(isa_select, every_type_is_moved_and_selected)
{
    device_open(); /* once for all cases */
    for (const moved_type *t = types; t < types + TYPES; ++t) {
        static const struct {
            const char *before, *opcode, *suffix, *operands;
            isa_type c;
            isa_oracle *oracle;
        } rows[] = {
            {"", "mov", "", "%d, %a", ISA_NONE, first},
            {"setp.ne.u32 %p, %c, 0;", "selp", "", "%d, %a, %b, %p", ISA_BIT, by_bit},
            {"setp.eq.u32 %p, %c, 0;", "selp", "", "%d, %a, %b, !%p", ISA_BIT, by_bit},
            {"", "slct", ".s32", "%d, %a, %b, %c", ISA_I32, by_sign},
            {"", "slct", ".f32", "%d, %a, %b, %c", ISA_F32, by_float},
            {"", "slct.ftz", ".f32", "%d, %a, %b, %c", ISA_F32, by_flushed_float},
        };
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; ++i) {
            char ptx[128];
            snprintf(ptx, sizeof ptx, "%s %s.%s%s %s;", rows[i].before, rows[i].opcode, t->name,
                     rows[i].suffix, rows[i].operands);
            run(ptx, t->reg, t->reg, t->reg, rows[i].c, rows[i].oracle);
        }
    }
    run("{ .reg .b128 %w; mov.b128 %w, {%a, %b}; mov.b128 %w, %w; mov.b128 {%d, %o}, %w; }",
        ISA_I64, ISA_I64, ISA_I64, ISA_NONE, first);
    device_close();
}

/* ---- predicates ---- */

static uint64_t predicates(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return (a & b) | (a | b) << 1 | (a ^ b) << 2 | (uint64_t)!a << 3 | b << 4;
}

#define COLLECT(n) " selp.b32 %t, " #n ", 0, %s; or.b32 %d, %d, %t; "

Test(isa_select, predicates_are_combined_and_moved)
{
    run("setp.ne.u32 %p, %a, 0; setp.ne.u32 %q, %b, 0; mov.b32 %d, 0; and.pred %s, %p, %q;" COLLECT(
            1) "or.pred %s, %p, %q;" COLLECT(2) "xor.pred %s, %p, %q;" COLLECT(4) "not.pred %s, "
                                                                                  "%p;" COLLECT(
                                                                                      8) "mov.pred "
                                                                                         "%s, "
                                                                                         "%q"
                                                                                         ";" COLLECT(
                                                                                             16),
        ISA_I32, ISA_BIT, ISA_BIT, ISA_NONE, predicates);
}

/* ---- bits ---- */

static int bits, is_signed, is_clamped; /* of the case that runs */

/* The most significant bit that is not the sign: its number, or .shiftamt: how far to shift it up.
 */
static uint64_t find(uint64_t a, int is_shift)
{
    uint64_t sign = is_signed ? a >> (bits - 1) & 1 : 0;
    for (int i = bits - 1; i >= 0; --i) {
        if ((a >> i & 1) != sign)
            return (uint64_t)(is_shift ? bits - 1 - i : i);
    }
    return UINT32_MAX;
}

static uint64_t bfind(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return find(a, 0);
}

static uint64_t bfind_shift(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return find(a, 1);
}

Test(isa_select, bfind_finds_the_highest_bit_unlike_the_sign)
{
    static const char *const names[] = {"u32", "s32", "u64", "s64"};
    for (int i = 0; i < 4; ++i) {
        char ptx[64];
        bits = i < 2 ? 32 : 64, is_signed = i % 2;
        snprintf(ptx, sizeof ptx, "bfind.%s %%d, %%a;", names[i]);
        run(ptx, ISA_I32, bits == 32 ? ISA_I32 : ISA_I64, ISA_NONE, ISA_NONE, bfind);
        snprintf(ptx, sizeof ptx, "bfind.shiftamt.%s %%d, %%a;", names[i]);
        run(ptx, ISA_I32, bits == 32 ? ISA_I32 : ISA_I64, ISA_NONE, ISA_NONE, bfind_shift);
    }
}

/* The low bits of a, b of them (at most 32, or b mod 32), extended. */
static uint64_t szext(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    uint64_t n = is_clamped ? (b > 32 ? 32 : b) : b & 31, result = 0;
    for (uint64_t i = 0; i < 32 && n > 0; ++i)
        result |= (i < n ? a >> i & 1 : is_signed ? a >> (n - 1) & 1 : 0) << i;
    return result;
}

/* The low c bits of a over those of b from bit 7 on. */
static uint64_t bfi_64(uint64_t a, uint64_t b, uint64_t c)
{
    for (uint64_t i = 0; i < (c & 255) && 7 + i < 64; ++i)
        b = (b & ~(UINT64_C(1) << (7 + i))) | (a >> i & 1) << (7 + i);
    return b;
}

/* A base outside 0 to 255 in its low byte: nothing is inserted beyond the end. */
static uint64_t bfi_base(uint64_t a, uint64_t b, uint64_t c)
{
    for (uint64_t i = 0, at = c & 255; i < 9 && at + i < 64; ++i)
        b = (b & ~(UINT64_C(1) << (at + i))) | (a >> i & 1) << (at + i);
    return b;
}

/* Shifts of untyped bits bring zeros in. */
static uint64_t shr_bits(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return (uint32_t)b >= (unsigned)bits ? 0 : a >> (uint32_t)b;
}

Test(isa_select, bits_are_extended_inserted_and_shifted)
{
    for (int i = 0; i < 4; ++i) {
        char ptx[64];
        is_clamped = i & 1, is_signed = i >> 1;
        snprintf(ptx, sizeof ptx, "szext.%s.%s32 %%d, %%a, %%b;", is_clamped ? "clamp" : "wrap",
                 is_signed ? "s" : "u");
        run(ptx, ISA_I32, ISA_I32, ISA_I32, ISA_NONE, szext);
    }
    run("bfi.b64 %d, %a, %b, 7, %c;", ISA_I64, ISA_I64, ISA_I64, ISA_I32, bfi_64);
    run("bfi.b64 %d, %a, %b, %c, 9;", ISA_I64, ISA_I64, ISA_I64, ISA_I32, bfi_base);
    bits = 16;
    run("shr.b16 %d, %a, %b;", ISA_I16, ISA_I16, ISA_I32, ISA_NONE, shr_bits);
    run("shr.u16 %d, %a, %b;", ISA_I16, ISA_I16, ISA_I32, ISA_NONE, shr_bits);
    bits = 32;
    run("shr.b32 %d, %a, %b;", ISA_I32, ISA_I32, ISA_I32, ISA_NONE, shr_bits);
    bits = 64;
    run("shr.b64 %d, %a, %b;", ISA_I64, ISA_I64, ISA_I32, ISA_NONE, shr_bits);
}

/* fns d, mask, base, offset: the offset-th set bit from base on, upwards, or downwards for a
 * negative offset; an offset of zero asks for base itself. */
static uint64_t fns(uint64_t a, uint64_t b, uint64_t c)
{
    int base = (int)(b & 31), offset = (int)(c % 71) - 35;
    if (offset == 0)
        return a >> base & 1 ? (uint64_t)base : UINT32_MAX;
    int step = offset > 0 ? 1 : -1, left = offset * step;
    for (int at = base; at >= 0 && at < 32; at += step) {
        if (a >> at & 1 && --left == 0)
            return (uint64_t)at;
    }
    return UINT32_MAX;
}

Test(isa_select, fns_finds_the_nth_set_bit_up_and_down)
{
    run("and.b32 %b, %b, 31; rem.u32 %c, %c, 71; sub.s32 %c, %c, 35; fns.b32 %d, %a, %b, %c;",
        ISA_I32, ISA_I32, ISA_I32, ISA_I32, fns);
}

/* ---- prmt: which of the bytes b:a (7 to 0) a mode puts where, for the low two bits of c; from the
 * high byte down ---- */

static const char *prmt_bytes[4];

static uint64_t prmt(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t bytes = a | b << 32, result = 0;
    for (int i = 0; i < 4; ++i)
        result = result << 8 | (bytes >> (8 * (prmt_bytes[c & 3][i] - '0')) & 255);
    return result;
}

Test(isa_select, prmt_modes_pick_the_bytes_of_their_tables)
{
    static const struct {
        const char *mode, *bytes[4];
    } rows[] = {
        {"f4e", {"3210", "4321", "5432", "6543"}}, {"b4e", {"5670", "6701", "7012", "0123"}},
        {"rc8", {"0000", "1111", "2222", "3333"}}, {"ecl", {"3210", "3211", "3222", "3333"}},
        {"ecr", {"0000", "1110", "2210", "3210"}}, {"rc16", {"1010", "3232", "1010", "3232"}}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; ++i) {
        char ptx[64];
        memcpy(prmt_bytes, rows[i].bytes, sizeof prmt_bytes);
        snprintf(ptx, sizeof ptx, "prmt.b32.%s %%d, %%a, %%b, %%c;", rows[i].mode);
        run(ptx, ISA_I32, ISA_I32, ISA_I32, ISA_I32, prmt);
    }
}

/* ---- dot products of bytes ---- */

static int a_signed, b_signed, is_high;

static int64_t element(uint64_t word, int at, int width, int sign)
{
    int64_t value = (int64_t)(word >> at & (((uint64_t)1 << width) - 1));
    return sign && value >> (width - 1) ? value - ((int64_t)1 << width) : value;
}

static uint64_t dp4a(uint64_t a, uint64_t b, uint64_t c)
{
    for (int i = 0; i < 4; ++i)
        c += (uint64_t)(element(a, 8 * i, 8, a_signed) * element(b, 8 * i, 8, b_signed));
    return c;
}

static uint64_t dp2a(uint64_t a, uint64_t b, uint64_t c)
{
    for (int i = 0; i < 2; ++i)
        c += (uint64_t)(element(a, 16 * i, 16, a_signed) *
                        element(b, 16 * is_high + 8 * i, 8, b_signed));
    return c;
}

Test(isa_select, dot_products_take_the_signs_of_their_types)
{
    static const char *const names[] = {"u32", "s32"};
    for (int i = 0; i < 4; ++i) {
        char ptx[64];
        a_signed = i & 1, b_signed = i >> 1;
        snprintf(ptx, sizeof ptx, "dp4a.%s.%s %%d, %%a, %%b, %%c;", names[a_signed],
                 names[b_signed]);
        run(ptx, ISA_I32, ISA_I32, ISA_I32, ISA_I32, dp4a);
        for (is_high = 0; is_high < 2; ++is_high) {
            snprintf(ptx, sizeof ptx, "dp2a.%s.%s.%s %%d, %%a, %%b, %%c;", is_high ? "hi" : "lo",
                     names[a_signed], names[b_signed]);
            run(ptx, ISA_I32, ISA_I32, ISA_I32, ISA_I32, dp2a);
        }
    }
}
