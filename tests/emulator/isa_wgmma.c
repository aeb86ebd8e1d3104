/*
 * isa_wgmma.c: products by wgmma.mma_async against oracles written from PTX ISA 9.7.15: every
 * combination of types, every N, both places of A, random layouts in shared memory; products that
 * follow each other, in groups, and of two warpgroups.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "device.h"
#include "tensor_oracle.h"
#include "wgmma_product.h"

static wgmma_memory memory;
static wgmma_product tested, others[3];

/* Bytes that no matrix has are those of a NaN. */
static void clear_memory(void)
{
    memset(&memory, 0xff, sizeof memory);
}

static void run(const ptx_text *t, int registers, bool floats, unsigned threads)
{
    wgmma_run(&(wgmma_kernel){.name = "product",
                              .body = t->at,
                              .registers = registers,
                              .floats = floats,
                              .threads = threads},
              &memory);
}

static void run_product(const wgmma_product *p, double error)
{
    ptx_text t = {0};
    clear_memory();
    product_write_shared(p, &memory);
    product_write_registers(p, &memory, 0);
    emit(&t, PRODUCT_PREDICATES);
    product_emit_descriptors(&t, p);
    emit(&t, PRODUCT_FENCE);
    product_emit(&t, p, 0);
    emit(&t, PRODUCT_COMMIT PRODUCT_WAIT);
    run(&t, product_registers(p), p->types.d == D_F32, WGMMA_THREADS);
    product_compare(p, &memory, 0, error, t.at);
}

static void start(wgmma_product *p, wgmma_operands types, int n)
{
    product_start(p, types, n, 0, WGMMA_SHARED);
    product_fill(p);
}

/* ---- one product ----------------------------------------------------------------------------- */

Test(isa_wgmma, every_combination_of_types_multiplies_in_every_layout)
{
    random_start(1);
    for (int c = 0; c < WGMMA_COMBINATIONS; c++)
        for (int turn = 0; turn < 48; turn++) {
            start(&tested, wgmma_combinations[c], product_random_n(wgmma_combinations[c]));
            product_multiply(&tested);
            run_product(&tested, 0);
        }
}

Test(isa_wgmma, every_n_multiplies)
{
    random_start(2);
    for (int c = 0; c < WGMMA_COMBINATIONS; c++)
        for (int n = 8; n <= WGMMA_MOST_N; n += 8) {
            if (!product_allows_n(wgmma_combinations[c], n))
                continue;
            start(&tested, wgmma_combinations[c], n);
            product_multiply(&tested);
            run_product(&tested, 0);
        }
}

/* All terms have the sign of D, which is near the end of its range. */
static void start_overflow(wgmma_product *p, wgmma_operands types)
{
    bool is_negative = (types.a == A_S8 || types.b == A_S8) && below(2);
    bool a_is_negative = is_negative && (types.b != A_S8 || (types.a == A_S8 && below(2)));
    start(p, types, 8 * between(1, 4));
    p->adds = true;
    for (int k = 0; k < p->k; k++) {
        for (int i = 0; i < WGMMA_M; i++)
            p->a[i][k] = a_is_negative ? -between(1, 128) : between(0, 127);
        for (int j = 0; j < p->n; j++)
            p->b[k][j] = is_negative && !a_is_negative ? -between(1, 128) : between(0, 127);
    }
    for (int i = 0; i < WGMMA_M; i++)
        for (int j = 0; j < p->n; j++)
            p->d[i][j] =
                is_negative ? (double)INT32_MIN + below(300000) : (double)INT32_MAX - below(300000);
}

Test(isa_wgmma, integers_saturate_or_wrap)
{
    random_start(3);
    for (int c = 0; c < WGMMA_COMBINATIONS; c++)
        for (int turn = 0; turn < 6 && wgmma_combinations[c].d == D_S32; turn++) {
            start_overflow(&tested, wgmma_combinations[c]);
            product_multiply(&tested);
            run_product(&tested, 0);
        }
}

/* ---- numbers that are rounded ---------------------------------------------------------------- */

static double random_number(void)
{
    return ldexp(between(-(1 << 20), 1 << 20), -20 - below(6));
}

static double stored(wgmma_element type)
{
    return wgmma_decode(type, wgmma_encode(type, random_number(), 0));
}

/*
 * Sums have "at least" the precision of D's type, and of 8-bit floats in f32 that of halves; terms
 * may be cut off, each at the last bit of the largest.
 */
static double rounding_error(wgmma_operands types)
{
    bool is_half = types.d == D_F16 || wgmma_types[types.a].bits == 8;
    return ldexp(1, is_half ? -9 : -20);
}

Test(isa_wgmma, random_numbers_multiply_within_the_precision_of_sums)
{
    random_start(4);
    for (int c = 0; c < WGMMA_COMBINATIONS; c++)
        for (int turn = 0; turn < 8 && wgmma_combinations[c].d != D_S32; turn++) {
            wgmma_product *p = &tested;
            start(p, wgmma_combinations[c], product_random_n(wgmma_combinations[c]));
            for (int k = 0; k < p->k; k++) {
                for (int i = 0; i < WGMMA_M; i++)
                    p->a[i][k] = stored(p->types.a);
                for (int j = 0; j < p->n; j++)
                    p->b[k][j] = stored(p->types.b);
            }
            for (int i = 0; i < WGMMA_M; i++)
                for (int j = 0; j < p->n; j++)
                    p->d[i][j] = stored(A_F16);
            product_multiply(p);
            run_product(p, rounding_error(p->types));
        }
}

/* ---- more than one product ------------------------------------------------------------------- */

/* The next 32 bytes of K of the same matrices; D is that of the last. */
static void next_step(wgmma_product *p)
{
    p->a_tile.k = p->b_tile.k = p->a_tile.k + p->k;
    p->adds = true;
    memcpy(p->d, p->wanted, sizeof p->d);
    wgmma_product *fresh = &others[0];
    start(fresh, p->types, p->n);
    memcpy(p->a, fresh->a, sizeof p->a);
    memcpy(p->b, fresh->b, sizeof p->b);
    product_multiply(p);
}

Test(isa_wgmma, descriptors_walk_through_a_swizzle_span_and_one_d_needs_no_fence)
{
    random_start(5);
    for (int c = 0; c < WGMMA_COMBINATIONS; c++) {
        ptx_text t = {0};
        wgmma_product *p = &tested;
        start(p, wgmma_combinations[c], 8 * between(1, 4));
        int bytes = wgmma_types[p->types.a].bits / 8;
        p->a_in_registers = false;
        p->a_tile = (wgmma_tile){.element_bytes = bytes, .swizzle = 128, .stride = 1024};
        p->b_tile = p->a_tile;
        p->b_tile.pattern = WGMMA_B;
        product_multiply(p);
        clear_memory();
        product_write_registers(p, &memory, 0);
        emit(&t, PRODUCT_PREDICATES PRODUCT_FENCE);
        for (int step = 0; step < 4; step++) {
            if (step)
                next_step(p);
            product_write_shared(p, &memory);
            product_emit_descriptors(&t, p);
            product_emit(&t, p, 0);
        }
        emit(&t, PRODUCT_COMMIT PRODUCT_WAIT);
        run(&t, product_registers(p), p->types.d == D_F32, WGMMA_THREADS);
        product_compare(p, &memory, 0, 0, t.at);
    }
}

enum { GROUPS = 3, GROUP_N = 32, GROUP_ROOM = 10240 /* bytes of a B */ };

/* Once a product is waited for, its D may be changed while later ones are still at work. */
static void negate(ptx_text *t, wgmma_product *p, int first)
{
    for (int i = 0; i < product_registers(p); i++)
        emit(t, "neg.f32 %%d%d, %%d%d; ", first + i, first + i);
    for (int i = 0; i < WGMMA_M; i++)
        for (int j = 0; j < p->n; j++)
            p->wanted[i][j] = -p->wanted[i][j];
}

/* The same product once or more, into the same D, then a group, and perhaps groups of nothing. */
static int emit_group(ptx_text *t, wgmma_product *p, int first)
{
    int times = between(1, 3), groups = between(1, 3);
    product_emit_descriptors(t, p);
    for (int i = 0; i < times; i++) {
        product_emit(t, p, first);
        product_multiply(p);
        memcpy(p->d, p->wanted, sizeof p->d);
    }
    for (int i = 0; i < groups; i++)
        emit(t, PRODUCT_COMMIT);
    return groups;
}

static void check_groups(wgmma_operands types)
{
    ptx_text t = {0};
    int groups[GROUPS], newer = 0;
    clear_memory();
    emit(&t, PRODUCT_PREDICATES PRODUCT_FENCE);
    for (int g = 0; g < GROUPS; g++) {
        wgmma_product *p = &others[g];
        product_start(p, types, GROUP_N, g * GROUP_ROOM, WGMMA_B + (g + 1) * GROUP_ROOM);
        product_fill(p);
        p->a_in_registers = false;
        p->a_tile = others[0].a_tile;
        memcpy(p->a, others[0].a, sizeof p->a);
        product_write_shared(p, &memory);
        product_write_registers(p, &memory, g * GROUP_N / 2);
        groups[g] = emit_group(&t, p, g * GROUP_N / 2);
        newer += groups[g];
    }
    for (int g = 0; g < GROUPS; g++) {
        newer -= groups[g];
        /* The group of the product is the first of its groups. */
        emit(&t, "wgmma.wait_group.sync.aligned %d;\n", newer + below(groups[g]));
        negate(&t, &others[g], g * GROUP_N / 2);
    }
    run(&t, GROUPS * GROUP_N / 2, true, WGMMA_THREADS);
    for (int g = 0; g < GROUPS; g++)
        product_compare(&others[g], &memory, g * GROUP_N / 2, 0, t.at);
}

Test(isa_wgmma, the_results_of_a_group_are_there_when_few_enough_newer_ones_are_pending)
{
    random_start(6);
    for (int c = 0; c < WGMMA_COMBINATIONS; c++)
        for (int turn = 0; turn < 4 && wgmma_combinations[c].d == D_F32; turn++)
            check_groups(wgmma_combinations[c]);
}

/* The second warpgroup leaves its D in shared memory, from where the first takes it. */
static void check_warpgroups(const wgmma_operands types[2])
{
    ptx_text t = {0};
    clear_memory();
    emit(&t, PRODUCT_PREDICATES "setp.ge.u32 %%p3, %%warp, 4; @%%p3 bra SECOND;\n");
    for (int g = 0; g < 2; g++) {
        wgmma_product *p = &others[g];
        int room = WGMMA_SHARED / 2;
        product_start(p, types[g], 8, g * room, (g + 1) * room);
        product_fill(p);
        p->a_in_registers &= g == 0;
        memcpy(p->d, others[0].d, sizeof p->d); /* both start with the same registers */
        product_multiply(p);
        product_write_shared(p, &memory);
        product_emit_descriptors(&t, p);
        emit(&t, PRODUCT_FENCE);
        product_emit(&t, p, 0);
        emit(&t, PRODUCT_COMMIT PRODUCT_WAIT "%s", g ? "JOIN:\n" : "bra JOIN;\nSECOND:\n");
    }
    product_write_registers(&others[0], &memory, 0);
    emit(&t, "and.b32 %%r0, %%thread, 127; mov.u32 %%r1, shared; "
             "mad.lo.u32 %%r0, %%r0, 16, %%r1; bar.sync 0;\n"
             "@%%p3 st.shared.v4.f32 [%%r0], {%%d0,%%d1,%%d2,%%d3}; bar.sync 0;\n"
             "@!%%p3 ld.shared.v4.f32 {%%d4,%%d5,%%d6,%%d7}, [%%r0];\n");
    run(&t, 8, true, 2 * WGMMA_THREADS);
    for (int g = 0; g < 2; g++)
        product_compare(&others[g], &memory, 4 * g, 0, t.at);
}

Test(isa_wgmma, two_warpgroups_multiply_each_their_own)
{
    random_start(7);
    for (int c = 0; c < WGMMA_COMBINATIONS; c++)
        for (int other = 0; other < WGMMA_COMBINATIONS; other++) {
            wgmma_operands types[] = {wgmma_combinations[c], wgmma_combinations[other]};
            if (types[0].d == D_F32 && types[1].d == D_F32)
                check_warpgroups(types);
        }
}

/* ---- operands that tensor copies have brought ------------------------------------------------ */

enum { COPIED_N = 64, COPIED_K = 16, MOST_COPIED = 64 * 64 };

/* A matrix as a tensor of rows, which is copied by boxes of one span of every row. */
typedef struct copied {
    int inner, outer;
    wgmma_tile tile; /* of boxes that lie behind each other */
    uint16_t elements[MOST_COPIED];
    CUdeviceptr tensor;
    CUtensorMap map;
} copied;

static int span_of(const wgmma_tile *t)
{
    return t->swizzle ? t->swizzle : 16;
}

static void start_copied(copied *c, int swizzle, bool is_mn_major, int mn, int pattern)
{
    wgmma_tile *t = &c->tile;
    *t = (wgmma_tile){.is_mn_major = is_mn_major, .swizzle = swizzle, .pattern = pattern};
    t->element_bytes = 2;
    int span = span_of(t);
    c->inner = is_mn_major ? mn : (span > 2 * COPIED_K ? span / 2 : COPIED_K);
    c->outer = is_mn_major ? COPIED_K : mn;
    int box = c->outer * span;
    bool is_interleaved = is_mn_major && !swizzle;
    t->leading = is_interleaved ? 8 * span : box;
    t->stride = is_interleaved ? box : 8 * span;
    if (!is_mn_major)
        t->k = COPIED_K * below(c->inner / COPIED_K);
    memset(c->elements, 0xff, sizeof c->elements);
}

static void set_copied(copied *c, int mn, int k, double value)
{
    int at = c->tile.is_mn_major ? k * c->inner + mn : mn * c->inner + c->tile.k + k;
    c->elements[at] = (uint16_t)wgmma_encode(A_F16, value, 0);
}

static void encode_copied(copied *c)
{
    cuuint64_t sizes[] = {(cuuint64_t)c->inner, (cuuint64_t)c->outer};
    cuuint64_t strides[] = {2 * sizes[0]};
    cuuint32_t box[] = {(cuuint32_t)span_of(&c->tile) / 2, (cuuint32_t)c->outer}, steps[] = {1, 1};
    int swizzle = c->tile.swizzle;
    CUtensorMapSwizzle mode = swizzle == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
                              : swizzle == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                              : swizzle == 32 ? CU_TENSOR_MAP_SWIZZLE_32B
                                              : CU_TENSOR_MAP_SWIZZLE_NONE;
    c->tensor = device_upload(c->elements, sizeof c->elements);
    CUresult result =
        cuTensorMapEncodeTiled(&c->map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, (void *)c->tensor,
                               sizes, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, mode,
                               CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    cr_assert_eq(result, CUDA_SUCCESS);
}

static void emit_copies(ptx_text *t, const copied *c, const char *map)
{
    int span = span_of(&c->tile);
    for (int i = 0; i < 2 * c->inner / span; i++)
        emit(t,
             "@%%p0 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
             "[shared+%d], [%s, {%d, 0}], [barrier];\n",
             c->tile.pattern + i * c->outer * span, map, i * span / 2);
}

static void emit_copied_product(ptx_text *t, const wgmma_product *p, const copied *a,
                                const copied *b)
{
    emit(t,
         ".version 8.0\n.target sm_90a\n.address_size 64\n"
         ".visible .entry kernel(.param .align 64 .b8 ma[128], .param .align 64 .b8 mb[128], "
         ".param .u64 pout)\n{\n"
         ".shared .align 1024 .b8 shared[%d]; .shared .align 8 .b64 barrier;\n"
         ".reg .b64 %%ma, %%mb, %%out, %%tile, %%da, %%db, %%rd0; .reg .b32 %%thread; "
         ".reg .pred %%p<4>; .reg .f32 %%d<%d>;\n"
         "mov.b64 %%ma, ma; cvta.param.u64 %%ma, %%ma; mov.b64 %%mb, mb; "
         "cvta.param.u64 %%mb, %%mb;\n"
         "ld.param.u64 %%out, [pout]; mov.u32 %%thread, %%tid.x; setp.eq.u32 %%p0, %%thread, 0;\n"
         "mov.u64 %%tile, shared; shr.u64 %%tile, %%tile, 4;\n"
         "@%%p0 mbarrier.init.shared.b64 [barrier], 1; fence.proxy.async; bar.sync 0;\nBODY:\n"
         "@%%p0 mbarrier.arrive.expect_tx.shared.b64 _, [barrier], %d;\n",
         WGMMA_SHARED, product_registers(p), 2 * (a->inner * a->outer + b->inner * b->outer));
    emit_copies(t, a, "%ma");
    emit_copies(t, b, "%mb");
    emit(t, "again: mbarrier.try_wait.parity.shared.b64 %%p3, [barrier], 0; "
            "@!%%p3 bra again;\n" PRODUCT_PREDICATES);
    product_emit_descriptors(t, p);
    emit(t, PRODUCT_FENCE);
    product_emit(t, p, 0);
    emit(t,
         PRODUCT_COMMIT PRODUCT_WAIT "BODY_END:\n"
                                     "mad.wide.u32 %%rd0, %%thread, %d, %%out;\n",
         4 * WGMMA_FRAGMENT);
    for (int i = 0; i < product_registers(p); i++)
        emit(t, "st.global.f32 [%%rd0+%d], %%d%d;\n", 4 * i, i);
    emit(t, "ret;\n}\n");
}

static void check_copied(int swizzle, bool a_is_mn_major, bool b_is_mn_major)
{
    static copied a, b;
    wgmma_product *p = &tested;
    start(p, (wgmma_operands){D_F32, A_F16, A_F16, false}, COPIED_N);
    p->adds = p->a_in_registers = false;
    start_copied(&a, swizzle, a_is_mn_major, WGMMA_M, 0);
    start_copied(&b, swizzle, b_is_mn_major, COPIED_N, WGMMA_B);
    for (int k = 0; k < p->k; k++)
        for (int i = 0; i < WGMMA_M; i++) {
            set_copied(&a, i, k, p->a[i][k]);
            set_copied(&b, i, k, p->b[k][i]);
        }
    p->a_tile = a.tile;
    p->b_tile = b.tile;
    product_multiply(p);
    encode_copied(&a);
    encode_copied(&b);

    ptx_text t = {0};
    emit_copied_product(&t, p, &a, &b);
    CUmodule module = device_load(t.at, "copied");
    CUdeviceptr out = device_alloc(sizeof memory.d);
    device_run(module, "kernel", 1, WGMMA_THREADS, 0, (void *[]){&a.map, &b.map, &out}, t.at);
    device_download(memory.d, out, sizeof memory.d);
    product_compare(p, &memory, 0, 0, t.at);
    cuModuleUnload(module);
}

Test(isa_wgmma, tensor_copies_with_the_same_swizzle_bring_what_is_multiplied)
{
    static const int swizzles[] = {0, 32, 64, 128};
    random_start(8);
    device_open();
    for (int i = 0; i < 4; i++)
        for (int major = 0; major < 4; major++)
            check_copied(swizzles[i], major & 1, major >> 1);
    device_close();
}
