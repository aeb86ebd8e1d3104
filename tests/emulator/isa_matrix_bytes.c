/*
 * isa_matrix_bytes.c: mma.sync of 8-bit integers and floats (PTX ISA 9.7.14.5): which element goes
 * where, signs, and .satfinite. Floats are small whole numbers, so that every sum is exact.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "device.h"
#include "kernel.h"
#include "softfloat.h"

typedef struct byte_type {
    const char *name;
    int is_signed;
    const float_format *format; /* of floats */
} byte_type;

static const byte_type integers[] = {{"u8", 0, NULL}, {"s8", 1, NULL}};
static const byte_type floats[] = {{"e4m3", 1, &format_e4m3}, {"e5m2", 1, &format_e5m2}};

enum {
    ROWS = 16,
    COLUMNS = 8,
    MOST_DEPTH = 32,
    LANES = 32,
    WORDS = 12 /* 4 of A, 2 of B, 2 unused, 4 of C */
};

typedef struct product {
    const byte_type *a_type, *b_type;
    int depth, saturates;
    uint8_t a[ROWS][MOST_DEPTH], b[MOST_DEPTH][COLUMNS];
    int32_t c[ROWS][COLUMNS];
} product;

static uint32_t draw(void)
{
    static uint32_t state = 2463534242u;
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    return state >> 3;
}

static uint8_t draw_byte(const byte_type *type)
{
    if (!type->format)
        return (uint8_t)(draw() % 3 ? draw() : 0x80 | (draw() & 1) * 0x7f);
    return (uint8_t)format_from_double(*type->format, (double)(int)(draw() % 7) - 3, ROUND_NEAREST);
}

static int64_t value_of(const byte_type *type, uint8_t byte)
{
    if (type->format)
        return (int64_t)format_to_double(*type->format, byte);
    return type->is_signed ? (int8_t)byte : byte;
}

/* Rows of A and columns of B that a lane has: element i of its fragment, four in a register. */
static int a_row(int lane, int i)
{
    return lane / 4 + (i / 4 % 2 ? 8 : 0);
}

static int depth_of(int lane, int i, int per_half)
{
    return lane % 4 * 4 + i % 4 + (i >= per_half ? 16 : 0);
}

static void fill(product *p)
{
    for (int k = 0; k < p->depth; ++k) {
        for (int row = 0; row < ROWS; ++row)
            p->a[row][k] = draw_byte(p->a_type);
        for (int column = 0; column < COLUMNS; ++column)
            p->b[k][column] = draw_byte(p->b_type);
    }
    for (int i = 0; i < ROWS * COLUMNS; ++i) {
        int32_t near = (int32_t)(draw() % 200000), any = (int32_t)draw();
        int32_t c = i % 3 == 0 ? INT32_MAX - near : i % 3 == 1 ? INT32_MIN + near : any;
        p->c[i / COLUMNS][i % COLUMNS] = p->a_type->format ? (int32_t)(draw() % 100) : c;
    }
}

static void pack(uint32_t words[WORDS], const product *p, int lane)
{
    memset(words, 0, WORDS * sizeof *words);
    for (int i = 0; i < p->depth / 2; ++i)
        words[i / 4] |= (uint32_t)p->a[a_row(lane, i)][depth_of(lane, i, 8)] << (8 * (i % 4));
    for (int i = 0; i < p->depth / 4; ++i)
        words[4 + i / 4] |= (uint32_t)p->b[depth_of(lane, i, 4)][lane / 4] << (8 * (i % 4));
    for (int i = 0; i < 4; ++i) {
        int32_t c = p->c[lane / 4 + 8 * (i / 2)][lane % 4 * 2 + i % 2];
        words[8 + i] = p->a_type->format ? (uint32_t)bits_of_float((float)c) : (uint32_t)c;
    }
}

static uint32_t expected(const product *p, int row, int column)
{
    int64_t sum = p->c[row][column];
    for (int k = 0; k < p->depth; ++k)
        sum += value_of(p->a_type, p->a[row][k]) * value_of(p->b_type, p->b[k][column]);
    if (p->a_type->format)
        return (uint32_t)bits_of_float((float)sum);
    if (p->saturates)
        sum = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum;
    return (uint32_t)sum;
}

static void check(product *p)
{
    const char *result = p->a_type->format ? "f32" : "s32", *reg = p->a_type->format ? "f" : "r";
    char body[1024], name[128];
    uint32_t in[LANES][WORDS], out[LANES][4];
    fill(p);
    for (int lane = 0; lane < LANES; ++lane)
        pack(in[lane], p, lane);
    snprintf(name, sizeof name, "mma.sync.aligned.m16n8k%d.row.col%s.%s.%s.%s.%s", p->depth,
             p->saturates ? ".satfinite" : "", result, p->a_type->name, p->b_type->name, result);
    snprintf(body, sizeof body,
             "mad.wide.u32 %%rd0, %%thread, 48, %%in; mad.wide.u32 %%rd1, %%thread, 16, %%out;\n"
             "ld.global.v4.b32 {%%r0,%%r1,%%r2,%%r3}, [%%rd0]; ld.global.v2.b32 {%%r4,%%r5}, "
             "[%%rd0+16];\n"
             "ld.global.v4.%s {%%%s8,%%%s9,%%%s10,%%%s11}, [%%rd0+32];\n"
             "%s {%%%s12,%%%s13,%%%s14,%%%s15}, %s, %s, {%%%s8,%%%s9,%%%s10,%%%s11};\n"
             "st.global.v4.%s [%%rd1], {%%%s12,%%%s13,%%%s14,%%%s15};",
             result, reg, reg, reg, reg, name, reg, reg, reg, reg,
             p->depth == 32 ? "{%r0,%r1,%r2,%r3}" : "{%r0,%r1}",
             p->depth == 32 ? "{%r4,%r5}" : "{%r4}", reg, reg, reg, reg, result, reg, reg, reg,
             reg);
    kernel_run(name, body, 1, LANES, in, sizeof in, out, sizeof out);
    for (int lane = 0; lane < LANES; ++lane) {
        for (int i = 0; i < 4; ++i) {
            uint32_t wanted = expected(p, lane / 4 + 8 * (i / 2), lane % 4 * 2 + i % 2);
            cr_assert(out[lane][i] == wanted, "%s: lane %d, d%d: got 0x%x, expected 0x%x", name,
                      lane, i, out[lane][i], wanted);
        }
    }
}

Test(isa_matrix_bytes, products_of_integers_wrap_or_saturate)
{
    device_open(); /* once for all kernels */
    for (int i = 0; i < 16; ++i) {
        product p = {.a_type = &integers[i & 1],
                     .b_type = &integers[i >> 1 & 1],
                     .depth = i >> 2 & 1 ? 32 : 16,
                     .saturates = i >> 3};
        check(&p);
    }
    device_close();
}

Test(isa_matrix_bytes, products_of_floats_of_either_type)
{
    device_open();
    for (int i = 0; i < 8; ++i) {
        product p = {
            .a_type = &floats[i & 1], .b_type = &floats[i >> 1 & 1], .depth = i >> 2 ? 32 : 16};
        check(&p);
    }
    device_close();
}
