/* mma_kernel.c: see mma_kernel.h; the layouts are those of PTX ISA 9.7.14.5. */
#include "mma_kernel.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

enum { LANES = 32, IN_WORDS = 16, C_WORD = 8, OUT_WORDS = 4 };

static void append_list(char *text, const char *prefix, int first, int count)
{
    for (int i = 0; i < count; i++)
        sprintf(text + strlen(text), "%s%s%d", i ? "," : "{", prefix, first + i);
    strcat(text, "}");
}

/* Each lane reads 16 words of fragments and writes 4. */
static void write_body(char *body, const mma_instruction *m, int a_words)
{
    int c_words = m->half_accumulators ? 2 : 4;
    const char *c_prefix = m->half_accumulators ? "%r" : "%f";
    strcpy(body, "mov.u32 %r20, %ctaid.x; mad.lo.u32 %r20, %r20, 32, %thread;\n"
                 "mul.wide.u32 %rd0, %r20, 64; add.s64 %rd0, %in, %rd0;\n"
                 "mul.wide.u32 %rd1, %r20, 16; add.s64 %rd1, %out, %rd1;\n"
                 "ld.global.v4.b32 {%r0,%r1,%r2,%r3}, [%rd0];\n"
                 "ld.global.v4.b32 {%r4,%r5,%r6,%r7}, [%rd0+16];\n"
                 "ld.global.v4.b32 {%r8,%r9,%r10,%r11}, [%rd0+32];\n"
                 "mov.b32 %f0, %r8; mov.b32 %f1, %r9; mov.b32 %f2, %r10; mov.b32 %f3, %r11;\n");
    sprintf(body + strlen(body), "%s ", m->name);
    append_list(body, c_prefix, m->half_accumulators ? 12 : 4, c_words);
    strcat(body, ", ");
    append_list(body, "%r", 0, a_words);
    strcat(body, ", ");
    append_list(body, "%r", 4, a_words / 2);
    strcat(body, ", ");
    append_list(body, c_prefix, m->half_accumulators ? 8 : 0, c_words);
    strcat(body, m->half_accumulators ? ";\nst.global.v2.b32 [%rd1], {%r12,%r13};"
                                      : ";\nst.global.v4.f32 [%rd1], {%f4,%f5,%f6,%f7};");
}

/* Word `i` of a lane's A (rows g, then g + 8) or B: the elements that lie side by side in it. */
static uint32_t pack(const uint32_t *row, int bits, int first)
{
    uint32_t word = 0;
    if (bits == 32)
        return row[first] << 13 | (row[first] * 2654435761u) >> 19;
    for (int e = 0; e < 32 / bits; e++)
        word |= row[first + e] << (bits * e);
    return word;
}

static void pack_lane(uint32_t *in, const mma_tile *tile, const mma_instruction *m, int a_words,
                      int lane)
{
    int g = lane / 4, t = lane % 4, side_by_side = 32 / m->element_bits;
    for (int i = 0; i < a_words; i++) {
        int first = side_by_side * (t + 4 * (i / 2));
        in[i] = pack(tile->a[g + 8 * (i % 2)], m->element_bits, first);
    }
    for (int i = 0; i < a_words / 2; i++)
        in[4 + i] = pack(tile->b[g], m->element_bits, side_by_side * (t + 4 * i));
    for (int i = 0; i < 4; i++) {
        uint32_t c = tile->c[g + 8 * (i / 2)][2 * t + i % 2];
        if (m->half_accumulators)
            in[C_WORD + i / 2] |= c << (16 * (i % 2));
        else
            in[C_WORD + i] = c;
    }
}

static void unpack_lane(mma_tile *tile, const uint32_t *out, const mma_instruction *m, int lane)
{
    for (int i = 0; i < 4; i++)
        tile->d[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2] =
            m->half_accumulators ? out[i / 2] >> (16 * (i % 2)) & 0xffff : out[i];
}

void mma_run(const mma_instruction *m, mma_tile *tiles, unsigned count)
{
    char body[2048];
    int a_words = m->k * MMA_ROWS * m->element_bits / 32 / LANES;
    write_body(body, m, a_words);
    size_t in_bytes = (size_t)count * LANES * IN_WORDS * 4, out_bytes = in_bytes / 4;
    uint32_t *in = calloc(1, in_bytes), *out = calloc(1, out_bytes);
    cr_assert(in && out);
    for (unsigned i = 0; i < count; i++)
        for (int lane = 0; lane < LANES; lane++)
            pack_lane(in + IN_WORDS * (LANES * i + (unsigned)lane), &tiles[i], m, a_words, lane);
    kernel_run(m->name, body, count, LANES, in, in_bytes, out, out_bytes);
    for (unsigned i = 0; i < count; i++)
        for (int lane = 0; lane < LANES; lane++)
            unpack_lane(&tiles[i], out + OUT_WORDS * (LANES * i + (unsigned)lane), m, lane);
    free(in);
    free(out);
}
