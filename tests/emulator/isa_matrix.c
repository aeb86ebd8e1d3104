/*
 * isa_matrix.c: the warp-wide matrix instructions (PTX ISA 9.7.14.5). The matrices hold small whole
 * numbers, so that every sum is exact whatever its order; what is tested is which element goes
 * where.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "kernel.h"
#include "softfloat.h"

static int small_number(void)
{
    static uint32_t state = 12345;
    state = state * 1664525u + 1013904223u;
    return (int)(state >> 28) - 8;
}

typedef enum element { BF16, F16, TF32 } element;

static uint32_t encode(element type, int value)
{
    switch (type) {
    case BF16:
        return (uint32_t)format_from_double(format_bf16, value, ROUND_NEAREST);
    case F16:
        return (uint32_t)format_from_double(format_f16, value, ROUND_NEAREST);
    default:
        return (uint32_t)bits_of_float((float)value);
    }
}

/* Where element i of a lane's fragment lies; g = lane / 4 (groupID), t = lane % 4
 * (threadID_in_group). */
typedef struct place {
    int row, column;
} place;

static place a_k16(int g, int t, int i)
{
    return (place){i < 2 || (i >= 4 && i < 6) ? g : g + 8, 2 * t + (i & 1) + (i >= 4 ? 8 : 0)};
}

static place b_k16(int g, int t, int i)
{
    return (place){2 * t + (i & 1) + (i >= 2 ? 8 : 0), g};
}

static place a_k8(int g, int t, int i)
{
    return (place){i < 2 ? g : g + 8, 2 * t + (i & 1)};
}

static place b_k8(int g, int t, int i)
{
    return (place){2 * t + (i & 1), g};
}

static place a_tf32_k8(int g, int t, int i)
{
    return (place){i == 0 || i == 2 ? g : g + 8, i < 2 ? t : t + 4};
}

static place b_tf32_k8(int g, int t, int i)
{
    return (place){i == 0 ? t : t + 4, g};
}

static place a_tf32_k4(int g, int t, int i)
{
    return (place){i == 0 ? g : g + 8, t};
}

static place b_tf32_k4(int g, int t, int i)
{
    (void)i;
    return (place){t, g};
}

static place c_f32(int g, int t, int i)
{
    return (place){i < 2 ? g : g + 8, 2 * t + (i & 1)};
}

typedef struct shape {
    const char *instruction;
    element type;
    int k, a_elements, b_elements; /* per lane */
    place (*a)(int, int, int);
    place (*b)(int, int, int);
    int half_accumulators;
} shape;

static void append_list(char *text, const char *prefix, int first, int count)
{
    strcat(text, "{");
    for (int i = 0; i < count; ++i)
        sprintf(text + strlen(text), "%s%s%d", i ? "," : "", prefix, first + i);
    strcat(text, "}");
}

enum { WORDS = 16 }; /* of input per lane: 4 of A, 4 of B, 4 of C */

static void test_shape(const shape *s)
{
    int per_word = s->type == TF32 ? 1 : 2;
    int a_words = s->a_elements / per_word, b_words = s->b_elements / per_word;
    int c_words = s->half_accumulators ? 2 : 4;
    char body[4096] = "mul.wide.u32 %rd0, %thread, 64; add.s64 %rd0, %in, %rd0;\n"
                      "mul.wide.u32 %rd1, %thread, 16; add.s64 %rd1, %out, %rd1;\n"
                      "ld.global.v4.b32 {%r0,%r1,%r2,%r3}, [%rd0];\n"
                      "ld.global.v4.b32 {%r4,%r5,%r6,%r7}, [%rd0+16];\n"
                      "ld.global.v4.b32 {%r8,%r9,%r10,%r11}, [%rd0+32];\n";
    if (!s->half_accumulators)
        strcat(body, "mov.b32 %f0, %r8; mov.b32 %f1, %r9; mov.b32 %f2, %r10; mov.b32 %f3, %r11;\n");
    const char *acc = s->half_accumulators ? "%r" : "%f";
    strcat(body, s->instruction);
    strcat(body, " ");
    append_list(body, acc, s->half_accumulators ? 12 : 4, c_words);
    strcat(body, ", ");
    append_list(body, "%r", 0, a_words);
    strcat(body, ", ");
    append_list(body, "%r", 4, b_words);
    strcat(body, ", ");
    append_list(body, acc, s->half_accumulators ? 8 : 0, c_words);
    strcat(body, s->half_accumulators ? ";\nst.global.v2.b32 [%rd1], {%r12,%r13};"
                                      : ";\nst.global.v4.f32 [%rd1], {%f4,%f5,%f6,%f7};");

    int a[16][16], b[16][8], c[16][8];
    for (int i = 0; i < 16; ++i)
        for (int j = 0; j < 16; ++j)
            a[i][j] = small_number();
    for (int i = 0; i < 16; ++i)
        for (int j = 0; j < 8; ++j)
            b[i][j] = small_number(), c[i][j] = small_number();

    uint32_t in[32][WORDS] = {0}, out[32][4];
    for (int lane = 0; lane < 32; ++lane) {
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < s->a_elements; ++i) {
            place p = s->a(g, t, i);
            in[lane][i / per_word] |= encode(s->type, a[p.row][p.column]) << (16 * (i % per_word));
        }
        for (int i = 0; i < s->b_elements; ++i) {
            place p = s->b(g, t, i);
            in[lane][4 + i / per_word] |= encode(s->type, b[p.row][p.column])
                                          << (16 * (i % per_word));
        }
        for (int i = 0; i < 4; ++i) {
            place p = c_f32(g, t, i);
            if (s->half_accumulators)
                in[lane][8 + i / 2] |= encode(F16, c[p.row][p.column]) << (16 * (i % 2));
            else
                in[lane][8 + i] = (uint32_t)bits_of_float((float)c[p.row][p.column]);
        }
    }
    kernel_run(s->instruction, body, 1, 32, in, sizeof in, out, sizeof out);

    for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < 4; ++i) {
            place p = c_f32(lane / 4, lane % 4, i);
            int sum = c[p.row][p.column];
            for (int k = 0; k < s->k; ++k)
                sum += a[p.row][k] * b[k][p.column];
            double got =
                s->half_accumulators
                    ? format_to_double(format_f16, out[lane][i / 2] >> (16 * (i % 2)) & 0xffff)
                    : (double)float_of(out[lane][i]);
            cr_assert(got == sum, "%s: lane %d, d%d: got %g, expected %d", s->instruction, lane, i,
                      got, sum);
        }
    }
}

Test(isa_matrix, mma_multiplies_the_elements_that_its_layout_names)
{
    static const shape shapes[] = {
        {"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", BF16, 16, 8, 4, a_k16, b_k16, 0},
        {"mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32", F16, 16, 8, 4, a_k16, b_k16, 0},
        {"mma.sync.aligned.m16n8k16.row.col.f16.f16.f16.f16", F16, 16, 8, 4, a_k16, b_k16, 1},
        {"mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32", BF16, 8, 4, 2, a_k8, b_k8, 0},
        {"mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32", F16, 8, 4, 2, a_k8, b_k8, 0},
        {"mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16", F16, 8, 4, 2, a_k8, b_k8, 1},
        {"mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", TF32, 8, 4, 2, a_tf32_k8, b_tf32_k8,
         0},
        {"mma.sync.aligned.m16n8k4.row.col.f32.tf32.tf32.f32", TF32, 4, 2, 1, a_tf32_k4, b_tf32_k4,
         0},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; ++i)
        test_shape(&shapes[i]);
}

/* ---- ldmatrix, stmatrix, movmatrix --------------------------------------------------------------
 */

/* Four 8x8 matrices of 16-bit elements lie in shared memory, matrix m's row r at byte 1024 m + 48
 * r, so that rows are not neighbours. Element (r, c) of matrix m is 1000 m + 10 r + c. */
#define FILL_SHARED                                                                                \
    "mov.u32 %r20, shared; mov.u32 %r21, 0;\n"                                                     \
    "FILL: shr.u32 %r22, %r21, 6; shr.u32 %r23, %r21, 3; and.b32 %r23, %r23, 7; and.b32 %r24, "    \
    "%r21, 7;\n"                                                                                   \
    "mul.lo.u32 %r25, %r22, 1024; mad.lo.u32 %r25, %r23, 48, %r25; mad.lo.u32 %r25, %r24, 2, "     \
    "%r25;\n"                                                                                      \
    "add.u32 %r25, %r25, %r20; mul.lo.u32 %r26, %r22, 1000; mad.lo.u32 %r26, %r23, 10, %r26;\n"    \
    "add.u32 %r26, %r26, %r24; cvt.u16.u32 %h0, %r26; setp.eq.u32 %p0, %thread, 0; @%p0 "          \
    "st.shared.b16 [%r25], %h0;\n"                                                                 \
    "add.u32 %r21, %r21, 1; setp.lt.u32 %p1, %r21, 256; @%p1 bra FILL;\n"                          \
    "bar.sync 0;\n"
/* %r27: where row lane % 8 of matrix lane / 8 starts. */
#define ROW_ADDRESS                                                                                \
    "shr.u32 %r22, %thread, 3; and.b32 %r23, %thread, 7; mul.lo.u32 %r27, %r22, 1024;\n"           \
    "mad.lo.u32 %r27, %r23, 48, %r27; add.u32 %r27, %r27, %r20;\n"
#define STORE_FOUR                                                                                 \
    "mul.wide.u32 %rd0, %thread, 16; add.s64 %rd0, %out, %rd0;\n"                                  \
    "st.global.v4.b32 [%rd0], {%r0,%r1,%r2,%r3};\n"
#define ZERO_FOUR "mov.b32 %r0, 0; mov.b32 %r1, 0; mov.b32 %r2, 0; mov.b32 %r3, 0;\n"

static void check_ldmatrix(const char *instruction, int matrices, int transposed)
{
    char body[4096];
    uint32_t out[32][4];
    snprintf(body, sizeof body, "%s%s%s%s\n%s", FILL_SHARED, ROW_ADDRESS, ZERO_FOUR, instruction,
             STORE_FOUR);
    kernel_run(instruction, body, 1, 32, NULL, 0, out, sizeof out);
    for (int lane = 0; lane < 32; ++lane) {
        for (int m = 0; m < matrices; ++m) {
            for (int e = 0; e < 2; ++e) {
                int row = transposed ? 2 * (lane % 4) + e : lane / 4;
                int column = transposed ? lane / 4 : 2 * (lane % 4) + e;
                int got = (int)(out[lane][m] >> (16 * e) & 0xffff);
                int expected = 1000 * m + 10 * row + column;
                cr_assert(got == expected,
                          "%s: lane %d, matrix %d, element %d: got %d, expected %d", instruction,
                          lane, m, e, got, expected);
            }
        }
    }
}

/* Shared memory by its own address or by a generic one. */
static const struct {
    const char *space, *address, *setup;
} shared_spaces[] = {{".shared", "%r27", ""},
                     {".shared::cta", "%r27", ""},
                     {"", "%rd5", "cvt.u64.u32 %rd5, %r27; cvta.shared.u64 %rd5, %rd5;\n"}};
enum { SHARED_SPACES = sizeof shared_spaces / sizeof shared_spaces[0] };
static const char *const lists[] = {[1] = "{%r0}", [2] = "{%r0,%r1}", [4] = "{%r0,%r1,%r2,%r3}"};

/* Every count of matrices, as rows and .trans, in each space. */
static void for_each_form(void (*check)(const char *instruction, int matrices, int transposed),
                          int is_store)
{
    for (int s = 0; s < SHARED_SPACES; ++s) {
        for (int matrices = 1; matrices <= 4; matrices *= 2) {
            for (int transposed = 0; transposed < 2; ++transposed) {
                char text[256];
                int used = snprintf(text, sizeof text, "%s%s.sync.aligned.m8n8.x%d%s%s.b16 ",
                                    shared_spaces[s].setup, is_store ? "stmatrix" : "ldmatrix",
                                    matrices, transposed ? ".trans" : "", shared_spaces[s].space);
                if (is_store)
                    snprintf(text + used, sizeof text - (size_t)used, "[%s], %s;",
                             shared_spaces[s].address, lists[matrices]);
                else
                    snprintf(text + used, sizeof text - (size_t)used, "%s, [%s];", lists[matrices],
                             shared_spaces[s].address);
                check(text, matrices, transposed);
            }
        }
    }
}

Test(isa_matrix, ldmatrix_gives_each_lane_a_pair_of_its_row_or_column)
{
    for_each_form(check_ldmatrix, 0);
}

#define LOAD_AND_CLEAR                                                                             \
    FILL_SHARED ROW_ADDRESS                                                                        \
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r0,%r1,%r2,%r3}, [%r27]; bar.sync 0;\n"        \
        "mov.b32 %r30, 0; st.shared.v4.b32 [%r27], {%r30,%r30,%r30,%r30}; bar.sync 0;\n"
#define COPY_OUT "ld.shared.v4.b32 {%r0,%r1,%r2,%r3}, [%r27];\n" STORE_FOUR

static void check_stmatrix(const char *instruction, int matrices, int transposed)
{
    char body[4096];
    uint16_t out[4][8][8];
    /* Load the fragments, clear the tile, store them, copy the tile out. */
    snprintf(body, sizeof body, "%s%s bar.sync 0;\n%s", LOAD_AND_CLEAR, instruction, COPY_OUT);
    kernel_run(instruction, body, 1, 32, NULL, 0, out, sizeof out);
    for (int m = 0; m < 4; ++m)
        for (int r = 0; r < 8; ++r)
            for (int c = 0; c < 8; ++c) {
                int expected = m >= matrices ? 0
                               : transposed  ? 1000 * m + 10 * c + r
                                             : 1000 * m + 10 * r + c;
                cr_assert(out[m][r][c] == expected, "%s: matrix %d (%d, %d): got %d, expected %d",
                          instruction, m, r, c, out[m][r][c], expected);
            }
}

Test(isa_matrix, stmatrix_is_the_inverse_of_ldmatrix)
{
    for_each_form(check_stmatrix, 1);
}

Test(isa_matrix, movmatrix_transposes_across_the_warp)
{
    uint32_t out[32];
    kernel_run(
        "movmatrix",
        FILL_SHARED ROW_ADDRESS
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r0}, [%r27];\n"
        "movmatrix.sync.aligned.m8n8.trans.b16 %r1, %r0;\n"
        "mul.wide.u32 %rd0, %thread, 4; add.s64 %rd0, %out, %rd0; st.global.b32 [%rd0], %r1;",
        1, 32, NULL, 0, out, sizeof out);
    for (int lane = 0; lane < 32; ++lane)
        for (int e = 0; e < 2; ++e) {
            int row = lane / 4, column = 2 * (lane % 4) + e;
            int got = (int)(out[lane] >> (16 * e) & 0xffff);
            cr_assert_eq(got, 10 * column + row, "lane %d element %d: got %d", lane, e, got);
        }
}

/* ---- cp.async -----------------------------------------------------------------------------------
 */

/* Every thread copies 16 bytes of `in` with the given instruction, then stores what arrived. */
static void run_cp_async(const char *name, const char *instruction, uint32_t out[32][4])
{
    uint32_t in[32][4];
    for (uint32_t i = 0; i < 128; ++i)
        in[i / 4][i % 4] = 0x01010101u * (i + 1);
    char body[2048];
    snprintf(body, sizeof body,
             "mov.u32 %%r20, shared; mad.lo.u32 %%r20, %%thread, 16, %%r20;\n"
             "mov.b32 %%r30, -1; st.shared.v4.b32 [%%r20], {%%r30,%%r30,%%r30,%%r30};\n"
             "mul.wide.u32 %%rd0, %%thread, 16; add.s64 %%rd1, %%in, %%rd0; add.s64 %%rd2, %%out, "
             "%%rd0;\n"
             "mov.u32 %%r1, 5; setp.eq.u32 %%p0, %%thread, 3;\n"
             "%s\n cp.async.commit_group; cp.async.wait_group 0;\n"
             "ld.shared.v4.b32 {%%r0,%%r1,%%r2,%%r3}, [%%r20]; st.global.v4.b32 [%%rd2], "
             "{%%r0,%%r1,%%r2,%%r3};",
             instruction);
    kernel_run(name, body, 1, 32, in, sizeof in, out, 512);
}

Test(isa_matrix, cp_async_copies_and_fills_with_zeros_behind_src_size)
{
    uint32_t out[32][4];
    run_cp_async("16", "cp.async.cg.shared.global [%r20], [%rd1], 16;", out);
    for (uint32_t i = 0; i < 128; ++i)
        cr_assert_eq(out[i / 4][i % 4], 0x01010101u * (i + 1));

    run_cp_async("src-size 5", "cp.async.cg.shared.global.L2::128B [%r20], [%rd1], 16, %r1;", out);
    for (uint32_t lane = 0; lane < 32; ++lane) {
        cr_assert_eq(out[lane][0], 0x01010101u * (4 * lane + 1));
        cr_assert_eq(out[lane][1], 4 * lane + 2, "one byte, then zeros: got 0x%x", out[lane][1]);
        cr_assert_eq(out[lane][2], 0);
        cr_assert_eq(out[lane][3], 0);
    }

    run_cp_async("src-size 0", "mov.u32 %r1, 0; cp.async.ca.shared.global [%r20], [%rd1], 16, %r1;",
                 out);
    for (uint32_t i = 0; i < 128; ++i)
        cr_assert_eq(out[i / 4][i % 4], 0);

    static const char *const hints[] = {"shared.global.L2::64B [%r20], [%rd1], 16",
                                        "shared.global.L2::256B [%r20], [%rd1], 16",
                                        "shared::cta.global [%r20], [%rd1], 16",
                                        "shared.global.L2::cache_hint [%r20], [%rd1], 16, %rd9"};
    for (int k = 0; k < 4; ++k) {
        char text[128];
        snprintf(text, sizeof text, "mov.b64 %%rd9, 0; cp.async.ca.%s;", hints[k]);
        run_cp_async(hints[k], text, out);
        for (uint32_t i = 0; i < 128; ++i)
            cr_assert_eq(out[i / 4][i % 4], 0x01010101u * (i + 1));
    }

    run_cp_async("4 bytes", "cp.async.ca.shared.global [%r20+4], [%rd1], 4;", out);
    for (uint32_t lane = 0; lane < 32; ++lane) {
        cr_assert_eq(out[lane][0], 0xffffffffu);
        cr_assert_eq(out[lane][1], 0x01010101u * (4 * lane + 1));
        cr_assert_eq(out[lane][2], 0xffffffffu);
    }

    run_cp_async("ignore-src", "cp.async.cg.shared.global [%r20], [%rd1], 16, %p0;", out);
    for (uint32_t lane = 0; lane < 32; ++lane)
        cr_assert_eq(out[lane][0], lane == 3 ? 0 : 0x01010101u * (4 * lane + 1));
}

/* One warp, lane i copies from `in` + 16 * i; `in` has 32 * 16 bytes less what is missing. */
Test(isa_matrix, cp_async_is_checked_for_what_each_lane_reads)
{
    static const struct {
        const char *name, *instruction;
        size_t bytes; /* of `in` */
        CUresult result;
        const char *said[2];
    } cases[] = {
        {"12 bytes that are there",
         "mov.u32 %r1, 12; cp.async.cg.shared.global [%r20], [%rd1], 16, %r1;",
         508,
         CUDA_SUCCESS,
         {NULL, NULL}},
        {"12 bytes of 8",
         "mov.u32 %r1, 12; cp.async.cg.shared.global [%r20], [%rd1], 16, %r1;",
         504,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"out of bounds: 12 bytes at a global address", "lanes 0x80000000"}},
        {"all 16 beside lanes that read nothing",
         "setp.lt.u32 %p0, %thread, 16; selp.u32 %r1, 0, 16, %p0; cp.async.cg.shared.global "
         "[%r20], [%rd1], 16, %r1;",
         511,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"out of bounds: 16 bytes at a global address", "lanes 0x80000000"}},
        {"nothing in the lanes that are outside",
         "setp.ge.u32 %p0, %thread, 16; selp.u32 %r1, 0, 16, %p0; cp.async.cg.shared.global "
         "[%r20], [%rd1], 16, %r1;",
         256,
         CUDA_SUCCESS,
         {NULL, NULL}},
        {"the longest of many sizes",
         "and.b32 %r1, %thread, 15; cp.async.cg.shared.global [%r20], [%rd1], 16, %r1;",
         510,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"out of bounds: 15 bytes at a global address", "lanes 0x80000000"}},
        {"many sizes that fit",
         "and.b32 %r1, %thread, 15; cp.async.cg.shared.global [%r20], [%rd1], 16, %r1;",
         511,
         CUDA_SUCCESS,
         {NULL, NULL}},
        {"a lane whose source is ignored",
         "setp.ge.u32 %p0, %thread, 31; cp.async.cg.shared.global [%r20], [%rd1], 16, %p0;",
         496,
         CUDA_SUCCESS,
         {NULL, NULL}},
        {"a shorter source is aligned as the copy",
         "mov.u32 %r1, 4; add.s64 %rd1, %rd1, 4; cp.async.cg.shared.global [%r20], [%rd1], 16, "
         "%r1;",
         512,
         CUDA_ERROR_MISALIGNED_ADDRESS,
         {"misaligned: 16 bytes", NULL}},
    };
    static const unsigned char in[512];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char body[1024];
        snprintf(body, sizeof body,
                 "mov.u32 %%r20, shared; mad.lo.u32 %%r20, %%thread, 16, %%r20;\n"
                 "mul.wide.u32 %%rd0, %%thread, 16; add.s64 %%rd1, %%in, %%rd0;\n"
                 "%s\n cp.async.wait_all;",
                 cases[i].instruction);
        CUresult result = kernel_try(cases[i].name, body, 1, 32, in, cases[i].bytes, 4);
        const char *report = device_last_report();
        cr_expect_eq(result, cases[i].result, "%s: %d\n%s", cases[i].name, (int)result, report);
        for (int k = 0; k < 2 && cases[i].said[k]; k++)
            cr_expect(strstr(report, cases[i].said[k]), "%s: '%s' is not in\n%s", cases[i].name,
                      cases[i].said[k], report);
    }
}
