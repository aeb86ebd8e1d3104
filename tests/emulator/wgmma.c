/*
 * wgmma.c: products of a warpgroup in every type and layout, against the formulas of PTX ISA 9.7.15
 * written out here, element by element. Numbers are small and whole, so that every order of sums
 * gives the same. Run with MMLP_EMULATOR_CHECK=race.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "softfloat.h"
#include "wgmma_kernel.h"

enum { ROWS = 64, MOST_COLUMNS = 256, MOST_K = 128 };

/* ---- types ----------------------------------------------------------------------------------- */

typedef struct element {
    const char *name;
    int bytes;
} element;

static const element f16 = {"f16", 2}, bf16 = {"bf16", 2}, tf32 = {"tf32", 4}, e4m3 = {"e4m3", 1},
                     e5m2 = {"e5m2", 1}, s8 = {"s8", 1}, u8 = {"u8", 1};

static uint32_t element_bits(const element *type, int value)
{
    if (type->name[0] == 's' || type->name[0] == 'u')
        return (uint32_t)value & 0xff;
    if (type->bytes == 4)
        return (uint32_t)bits_of_float((float)value) | 0x1abc; /* low bits that do not count */
    const float_format *format = type == &f16    ? &format_f16
                                 : type == &bf16 ? &format_bf16
                                 : type == &e4m3 ? &format_e4m3
                                                 : &format_e5m2;
    return (uint32_t)format_from_double(*format, value, ROUND_NONE);
}

/* -2 to 2; 0 to 4 where there is no sign. */
static int number(const element *type, int mn, int k, int salt)
{
    return (mn * 7 + k * 5 + mn * k + salt) % 5 - (type == &u8 ? 0 : 2);
}

/* ---- products -------------------------------------------------------------------------------- */

typedef struct product {
    const char *name;
    const element *a, *b;
    const char *d;
    int n, steps; /* instructions, each 32 bytes of k further */
    bool a_in_registers, a_transposed, b_transposed;
    int swizzle; /* bytes: 16 none */
    bool a_negated, b_negated, saturates;
    int scale_d; /* 0, 1; 2: a predicate that is true, 3: false */
} product;

/* Strides in a tile that a kernel would choose, with a gap where the layout allows one. */
typedef struct strides {
    int leading, stride;
} strides;

static strides strides_of(int swizzle, bool transposed, int k_blocks)
{
    if (swizzle == 16) /* 8x16-byte blocks: k side by side, then m or n; transposed the other way */
        return transposed ? (strides){4096, 128} : (strides){128, 128 * k_blocks + 128};
    /* patterns of 8 rows; transposed: columns of patterns along k, then along m or n */
    return transposed ? (strides){8 * swizzle * k_blocks, 8 * swizzle} : (strides){16, 8 * swizzle};
}

/* Byte of element (mn, k), by the canonical layouts. */
static int element_offset(int mn, int k, int bytes, int swizzle, bool transposed, strides s)
{
    int at;
    if (!transposed)
        at = mn / 8 * s.stride + mn % 8 * swizzle +
             (swizzle == 16 ? k * bytes / 16 * s.leading + k * bytes % 16 : k * bytes);
    else if (swizzle == 16)
        at = mn % 8 * 2 + mn / 8 * s.stride + k % 8 * 16 + k / 8 * s.leading;
    else
        at = mn % (swizzle / 2) * 2 + mn / (swizzle / 2) * s.leading + k % 8 * swizzle +
             k / 8 * s.stride;
    int bits = swizzle / 16 - 1;
    return at ^ (at >> 7 & bits) << 4;
}

/* How far the start of a tile moves for the next 32 bytes of k. */
static int k_step(int bytes, int swizzle, bool transposed, strides s)
{
    int k = 32 / bytes;
    if (transposed)
        return k / 8 * (swizzle == 16 ? s.leading : s.stride);
    return swizzle == 16 ? 2 * s.leading : 32;
}

static void fill_tile(uint8_t *tile, const element *type, int rows, int k, int swizzle,
                      bool transposed, strides s, int salt)
{
    for (int mn = 0; mn < rows; mn++) {
        for (int i = 0; i < k; i++) {
            uint32_t bits = element_bits(type, number(type, mn, i, salt));
            memcpy(tile + element_offset(mn, i, type->bytes, swizzle, transposed, s), &bits,
                   (size_t)type->bytes);
        }
    }
}

static unsigned long long descriptor(int offset, int swizzle, strides s)
{
    static const unsigned long long modes[] = {[1] = 0, [2] = 3, [4] = 2, [8] = 1};
    return modes[swizzle / 16] << 62 | (unsigned long long)(s.stride >> 4) << 32 |
           (unsigned long long)(s.leading >> 4) << 16 | (unsigned long long)(offset >> 4);
}

static int k_of(const product *p)
{
    return 32 / p->a->bytes;
}

static void write_step(char *text, const product *p, int step, strides a, strides b)
{
    int a_step = k_step(p->a->bytes, p->swizzle, p->a_transposed, a);
    int b_step = k_step(p->b->bytes, p->swizzle, p->b_transposed, b);
    sprintf(text + strlen(text), "add.u64 %%da, %%tile, 0x%llx; add.u64 %%db, %%tile, 0x%llx;\n",
            descriptor(step * a_step, p->swizzle, a),
            descriptor(WGMMA_B + step * b_step, p->swizzle, b));
    sprintf(text + strlen(text), "wgmma.mma_async.sync.aligned.m64n%dk%d.%s.%s.%s%s ", p->n,
            k_of(p), p->d, p->a->name, p->b->name, p->saturates ? ".satfinite" : "");
    wgmma_append_list(text, "%d", p->n / (strcmp(p->d, "f16") ? 2 : 4));
    static const char *const scale[] = {"0", "1", "%p1", "!%p1"};
    sprintf(text + strlen(text), ", %s, %%db, %s",
            p->a_in_registers ? "{%a0, %a1, %a2, %a3}" : "%da", step ? "1" : scale[p->scale_d]);
    if (strcmp(p->d, "s32"))
        sprintf(text + strlen(text), ", %d, %d", p->a_negated ? -1 : 1, p->b_negated ? -1 : 1);
    if (p->a->bytes == 2 && !p->a_in_registers)
        sprintf(text + strlen(text), ", %d", p->a_transposed);
    if (p->a->bytes == 2)
        sprintf(text + strlen(text), ", %d", p->b_transposed);
    strcat(text, ";\n");
}

/* Row and column of D that register i of a thread has; of A, the first of the elements side by
 * side. */
static int d_row(int thread, int i)
{
    return thread / 32 * 16 + thread % 32 / 4 + 8 * (i / 2 % 2);
}

static int d_column(int thread, int i)
{
    return 8 * (i / 4) + 2 * (thread % 4) + i % 2;
}

static void fill_a_registers(wgmma_memory *m, const product *p)
{
    int side_by_side = 4 / p->a->bytes;
    for (int thread = 0; thread < WGMMA_THREADS; thread++) {
        for (int j = 0; j < 4; j++) {
            int row = thread / 32 * 16 + thread % 32 / 4 + 8 * (j % 2);
            int k = side_by_side * (thread % 4 + 4 * (j / 2));
            m->a[thread][j] = 0;
            for (int e = 0; e < side_by_side; e++)
                m->a[thread][j] |= element_bits(p->a, number(p->a, row, k + e, 1))
                                   << (32 / side_by_side * e);
        }
    }
}

static int start_of_d(int row, int column)
{
    return (row * 3 + column) % 9 - 4;
}

static void fill_d(wgmma_memory *m, const product *p)
{
    for (int thread = 0; thread < WGMMA_THREADS; thread++) {
        for (int i = 0; i < p->n / 2; i++) {
            int value = start_of_d(d_row(thread, i), d_column(thread, i));
            uint32_t *d = m->d[thread];
            if (strcmp(p->d, "f16") == 0)
                d[i / 2] |= element_bits(&f16, value) << 16 * (i % 2);
            else
                d[i] =
                    strcmp(p->d, "s32") ? (uint32_t)bits_of_float((float)value) : (uint32_t)value;
        }
    }
}

static double d_value(const wgmma_memory *m, const product *p, int thread, int i)
{
    const uint32_t *d = m->d[thread];
    if (strcmp(p->d, "f16") == 0)
        return format_to_double(format_f16, d[i / 2] >> 16 * (i % 2) & 0xffff);
    return strcmp(p->d, "s32") ? (double)float_of(d[i]) : (double)(int32_t)d[i];
}

static void check_product(const product *p)
{
    static wgmma_memory m;
    static char body[8192];
    memset(&m, 0, sizeof m);
    int k = p->steps * k_of(p), k_blocks = k * p->a->bytes / 16;
    strides a = strides_of(p->swizzle, p->a_transposed, p->a_transposed ? k / 8 : k_blocks);
    strides b = strides_of(p->swizzle, p->b_transposed, p->b_transposed ? k / 8 : k_blocks);
    fill_tile(m.shared, p->a, ROWS, k, p->swizzle, p->a_transposed, a, 1);
    fill_tile(m.shared + WGMMA_B, p->b, p->n, k, p->swizzle, p->b_transposed, b, 3);
    fill_a_registers(&m, p);
    fill_d(&m, p);
    strcpy(body, "setp.ne.u64 %p1, %tile, -1;\nwgmma.fence.sync.aligned;\n");
    for (int step = 0; step < p->steps; step++)
        write_step(body, p, step, a, b);
    strcat(body, "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n");
    bool halves = strcmp(p->d, "f16") == 0;
    wgmma_run(&(wgmma_kernel){.name = p->name,
                              .body = body,
                              .registers = p->n / (halves ? 4 : 2),
                              .floats = strcmp(p->d, "f32") == 0},
              &m);
    for (int thread = 0; thread < WGMMA_THREADS; thread++) {
        for (int i = 0; i < p->n / 2; i++) {
            int row = d_row(thread, i), column = d_column(thread, i);
            double wanted = p->scale_d % 3 ? start_of_d(row, column) : 0;
            for (int j = 0; j < k; j++)
                wanted += (p->a_negated != p->b_negated ? -1 : 1) *
                          number(p->a, row, p->a_in_registers ? j % k_of(p) : j, 1) *
                          number(p->b, column, j, 3);
            double found = d_value(&m, p, thread, i);
            cr_assert_eq(found, wanted, "%s: D[%d][%d] is %g, not %g", p->name, row, column, found,
                         wanted);
        }
    }
}

static void check_products(const product *products, size_t count)
{
    for (size_t i = 0; i < count; i++)
        check_product(&products[i]);
}
#define CHECK_PRODUCTS(...)                                                                        \
    do {                                                                                           \
        const product products_[] = {__VA_ARGS__};                                                 \
        check_products(products_, sizeof products_ / sizeof *products_);                           \
    } while (0)

Test(wgmma, a_and_b_lie_in_shared_memory_with_k_along_the_rows)
{
    CHECK_PRODUCTS({"no swizzle", &bf16, &bf16, "f32", 64, 2, .swizzle = 16, .scale_d = 1},
                   {"32 bytes", &bf16, &bf16, "f32", 8, 1, .swizzle = 32, .scale_d = 1},
                   {"64 bytes", &bf16, &bf16, "f32", 24, 2, .swizzle = 64, .scale_d = 1},
                   {"128 bytes", &bf16, &bf16, "f32", 256, 4, .swizzle = 128, .scale_d = 1});
}

Test(wgmma, a_and_b_lie_in_shared_memory_with_m_and_n_along_the_rows)
{
    CHECK_PRODUCTS(
        {"no swizzle", &bf16, &bf16, "f32", 64, 2, .swizzle = 16, .scale_d = 1,
         .a_transposed = true, .b_transposed = true},
        {"32 bytes", &f16, &f16, "f32", 32, 2, .swizzle = 32, .scale_d = 1, .a_transposed = true,
         .b_transposed = true},
        {"64 bytes", &bf16, &bf16, "f32", 64, 1, .swizzle = 64, .scale_d = 1, .b_transposed = true},
        {"128 bytes", &bf16, &bf16, "f32", 128, 3, .swizzle = 128, .scale_d = 1,
         .a_transposed = true, .b_transposed = true},
        {"A alone", &f16, &f16, "f16", 16, 2, .swizzle = 128, .scale_d = 1, .a_transposed = true});
}

Test(wgmma, a_lies_in_registers)
{
    CHECK_PRODUCTS({"bf16", &bf16, &bf16, "f32", 40, 1, true, .swizzle = 32, .scale_d = 1},
                   {"f16, n along the rows", &f16, &f16, "f32", 128, 1, true, .swizzle = 128,
                    .scale_d = 1, .b_transposed = true},
                   {"tf32", &tf32, &tf32, "f32", 16, 1, true, .swizzle = 32, .scale_d = 1},
                   {"e4m3", &e4m3, &e4m3, "f32", 16, 1, true, .swizzle = 32, .scale_d = 1},
                   {"s8", &s8, &s8, "s32", 16, 1, true, .swizzle = 32, .scale_d = 1});
}

Test(wgmma, every_type_is_multiplied)
{
    CHECK_PRODUCTS(
        {"f16", &f16, &f16, "f32", 48, 4, .swizzle = 128, .scale_d = 1},
        {"f16 to f16", &f16, &f16, "f16", 48, 2, .swizzle = 128, .scale_d = 1},
        {"tf32", &tf32, &tf32, "f32", 88, 4, .swizzle = 128, .scale_d = 1},
        {"tf32, no swizzle", &tf32, &tf32, "f32", 88, 2, .swizzle = 16, .scale_d = 1},
        {"e4m3", &e4m3, &e4m3, "f32", 72, 4, .swizzle = 128, .scale_d = 1},
        {"e4m3 and e5m2", &e4m3, &e5m2, "f32", 8, 2, .swizzle = 64, .scale_d = 1},
        {"e5m2 and e4m3", &e5m2, &e4m3, "f16", 8, 1, .swizzle = 16, .scale_d = 1},
        {"e5m2 to f16", &e5m2, &e5m2, "f16", 24, 1, .swizzle = 32, .scale_d = 1},
        {"s8", &s8, &s8, "s32", 48, 2, .swizzle = 64, .scale_d = 1},
        {"u8 and s8", &u8, &s8, "s32", 24, 1, .swizzle = 32, .scale_d = 1, .saturates = true});
}

Test(wgmma, scales_say_what_is_added_and_negated)
{
    CHECK_PRODUCTS(
        {"D = A B", &bf16, &bf16, "f32", 16, 1, .swizzle = 32, .scale_d = 0},
        {"a true predicate", &bf16, &bf16, "f32", 16, 1, .swizzle = 32, .scale_d = 2},
        {"a false predicate", &bf16, &bf16, "f32", 16, 2, .swizzle = 64, .scale_d = 3},
        {"whole numbers", &s8, &s8, "s32", 16, 1, .swizzle = 32, .scale_d = 3},
        {"-A B", &bf16, &bf16, "f32", 16, 1, .swizzle = 32, .scale_d = 1, .a_negated = true},
        {"A -B", &e4m3, &e5m2, "f16", 16, 1, .swizzle = 32, .scale_d = 1, .b_negated = true},
        {"-A -B", &tf32, &tf32, "f32", 16, 1, true, .swizzle = 32, .scale_d = 1, .a_negated = true,
         .b_negated = true});
}

Test(wgmma, a_warp_counts_its_sixteen_rows)
{
    static wgmma_memory m;
    emu_counters counters = {.tensor_flops = 0};
    wgmma_run(&(wgmma_kernel){.name = "counted",
                              .body = "add.u64 %da, %tile, 0x4000004000010000;\n"
                                      "wgmma.fence.sync.aligned;\n"
                                      "wgmma.mma_async.sync.aligned.m64n8k32.f16.e4m3.e5m2 "
                                      "{%d0,%d1}, %da, %da, 1, 1, 1;\n"
                                      "wgmma.commit_group.sync.aligned;\n"
                                      "wgmma.wait_group.sync.aligned 0;\n",
                              .registers = 2,
                              .counters = &counters},
              &m);
    cr_expect_eq(counters.tensor_flops, 2 * 64 * 8 * 32, "%llu",
                 (unsigned long long)counters.tensor_flops);
    cr_expect_eq(counters.warp_instructions[EMU_CLASS_TENSOR], 4);
    cr_expect_eq(counters.lane_instructions[EMU_CLASS_TENSOR], 128);
    cr_expect_eq(counters.warp_instructions[EMU_CLASS_ASYNC], 12);
}

/* Lanes that are counted as an epilogue's, with more instructions at three places. */
static uint64_t epilogue_lanes(const char *before, const char *within, const char *after)
{
    static wgmma_memory m;
    char body[1024];
    emu_counters counters = {.tensor_flops = 0};
    snprintf(body, sizeof body,
             "add.u64 %%da, %%tile, 0x4000004000010000; %s\n"
             "wgmma.fence.sync.aligned; %s\n"
             "wgmma.mma_async.sync.aligned.m64n8k32.f16.e4m3.e5m2 {%%d0,%%d1}, %%da, %%da, 1, 1, "
             "1;\n"
             "wgmma.commit_group.sync.aligned; %s wgmma.wait_group.sync.aligned 0; %s\n"
             "wgmma.fence.sync.aligned;\n"
             "wgmma.mma_async.sync.aligned.m64n8k32.f16.e4m3.e5m2 {%%d0,%%d1}, %%da, %%da, 1, 1, "
             "1;\n"
             "wgmma.commit_group.sync.aligned; %s wgmma.wait_group.sync.aligned 0; %s\n",
             before, within, within, after, within, after);
    wgmma_run(
        &(wgmma_kernel){
            .name = "epilogue lanes", .body = body, .registers = 2, .counters = &counters},
        &m);
    return counters.epilogue_lanes;
}

Test(wgmma, an_epilogue_is_what_follows_the_last_wait)
{
    const char *three = "add.u32 %r0, %r0, 1; add.u32 %r1, %r0, 1; bar.sync 0;";
    const char *few = "setp.lt.u32 %p1, %thread, 5; @%p1 add.u32 %r0, %r0, 1;";
    uint64_t least = epilogue_lanes("", "", "");
    cr_expect_gt(least, 0);
    cr_expect_eq(epilogue_lanes(three, "", ""), least);
    cr_expect_eq(epilogue_lanes("", three, ""), least);
    cr_expect_eq(epilogue_lanes("", "", three), least + 2 * 3 * 128);
    cr_expect_eq(epilogue_lanes("", "", few), least + 2 * (128 + 5));
}

/* ---- what does not load ---------------------------------------------------------------------- */

static void check_refused(const char *target, const char *statement, const char *said)
{
    char ptx[1024], log[1024] = "";
    snprintf(ptx, sizeof ptx,
             ".version 8.0\n.target %s\n.address_size 64\n.visible .entry kernel()\n{\n.reg .f32 "
             "%%f<8>; .reg .b32 %%r<8>; .reg .b64 %%rd<4>; .reg .pred %%p;\n%s\nret;\n}\n",
             target, statement);
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(size_t)sizeof log};
    CUmodule module = NULL;
    device_open();
    cr_expect_neq(cuModuleLoadDataEx(&module, ptx, 2, options, values), CUDA_SUCCESS, "%s",
                  statement);
    cr_expect(strstr(log, said), "%s: '%s' is not in\n%s", statement, said, log);
    device_close();
}

#define N8 "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 "
#define D4 "{%f0,%f1,%f2,%f3}"

Test(wgmma, what_the_isa_does_not_have_does_not_load)
{
    static const struct {
        const char *target, *statement, *said;
    } cases[] = {
        {"sm_90", "wgmma.fence.sync.aligned;", "'wgmma' needs .target sm_90a"},
        {"sm_90a", "wgmma.fence.aligned;", "is not supported"},
        {"sm_90a", "wgmma.wait_group.sync.aligned -1;", "of -1 groups: 0 or more are wanted"},
        {"sm_90a", N8 "{%f0,%f1}, %rd0, %rd1, 1, 1, 1, 0, 0;", "D of 'wgmma' has 2 registers, 4"},
        {"sm_90a", N8 "{%f0,%f1,%f2,%f1}, %rd0, %rd1, 1, 1, 1, 0, 0;",
         "D of 'wgmma' has a register"},
        {"sm_90a", N8 "{%r0,%r1,%r2,%r3}, {%r4,%r5,%r3,%r7}, %rd1, 1, 1, 1, 0;",
         "A and D of 'wgmma'"},
        {"sm_90a", N8 "{%rd0,%rd1,%rd2,%rd3}, %rd0, %rd1, 1, 1, 1, 0, 0;", "has 64 bits, 32 are"},
        {"sm_90a", N8 D4 ", %rd0, %rd1, 2, 1, 1, 0, 0;",
         "scale-d of 'wgmma' is 2, 0 or 1 is wanted"},
        {"sm_90a", N8 D4 ", %rd0, %rd1, 1, 2, 1, 0, 0;", "imm-scale-a of 'wgmma' is 2, 1 or -1 is"},
        {"sm_90a", N8 D4 ", %rd0, %rd1, 1, 1, 1, 0;", "'wgmma' has 7 operands, 8 are wanted"},
        {"sm_90a",
         "wgmma.mma_async.sync.aligned.m64n8k8.f32.bf16.bf16 " D4 ", %rd0, %rd1, 1, 1, 1, 0, 0;",
         "is not supported"},
        {"sm_90a", "wgmma.mma_async.sync.aligned.m64n40k32.s32.s8.s8 " D4 ", %rd0, %rd1, 1;",
         "is not supported"},
        {"sm_90a",
         "wgmma.mma_async.sync.aligned.m64n8k16.f16.bf16.bf16 {%r0,%r1}, %rd0, %rd1, 1, 1, 1, 0, "
         "0;",
         "is not supported"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_refused(cases[i].target, cases[i].statement, cases[i].said);
}
