/*
 * isa_cluster_async.c: arrivals at other blocks' mbarriers, and copies to other blocks and to
 * several at once (PTX ISA 9.7.9.25 and 9.7.13.15).
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "cluster_kernel.h"
#include "device.h"
#include "tensor_oracle.h"

enum { TURNS = 40 };

TestSuite(isa_cluster_async, .init = device_open, .fini = device_close);

static const char *pick(const char *const *of, int count)
{
    return of[below(count)];
}
#define PICK(...)                                                                                  \
    pick((const char *const[]){__VA_ARGS__},                                                       \
         (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *)))

/* An address in the block `distance` on: of %r1 or %rd0, which is given back. */
static const char *emit_remote(ptx_text *t, const cluster_grid *g, const char *variable,
                               int distance, bool is_generic)
{
    emit(t, "add.u32 %%r0, %%rank, %d; rem.u32 %%r0, %%r0, %d; ", distance, cluster_size(g));
    if (is_generic)
        emit(t, "cvta.shared.u64 %%rd0, %s; mapa.u64 %%rd0, %%rd0, %%r0; ", variable);
    else if (below(2))
        emit(t, "mapa.shared::cluster.u64 %%rd0, %s, %%r0; ", variable);
    else {
        emit(t, "mapa.shared::cluster.u32 %%r1, %s, %%r0; ", variable);
        return "%r1";
    }
    return "%rd0";
}

static void emit_initial(ptx_text *t, const int counts[4])
{
    for (int i = 0; i < 4; i++)
        emit(t, "@%%first mbarrier.init.shared.b64 [barriers+%d], %d; ", 8 * i, counts[i]);
    emit(t, "fence.mbarrier_init.release.cluster; fence.proxy.async;\n" CLUSTER_BARRIER);
}

static void emit_wait(ptx_text *t, int which)
{
    emit(t,
         "WAIT%zu: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %%p7, [barriers+%d], "
         "0; @!%%p7 bra WAIT%zu;\n",
         t->length, 8 * which, t->length);
}

/* ---- arrivals -------------------------------------------------------------------------------- */

enum { STEPS = 12, SPARE = 3, RESULTS = 4 };

/* What one block's mbarrier has had from another: blocks do the same, at the same distance. */
typedef struct received {
    int arrivals, drops, bytes; /* bytes: that are expected and have not come */
} received;

static void emit_step(ptx_text *t, const cluster_grid *g, received *sum)
{
    int lanes = between(1, 4), count = between(1, 5), bytes = between(1, 1000);
    int kind = below(8);
    bool is_generic = below(2);
    const char *space = is_generic ? "" : ".shared::cluster";
    emit(t, "setp.lt.u32 %%p0, %%thread, %d; ", lanes);
    const char *at = emit_remote(t, g, "barriers", below(cluster_size(g)), is_generic);
    if (kind < 6) {
        const char *order =
            PICK("", ".release.cta", ".release.cluster", ".relaxed.cta", ".relaxed.cluster");
        bool expects = kind / 2 == 2, counts = kind / 2 == 1;
        emit(t, "@%%p0 mbarrier.arrive%s%s%s%s.b64 _, [%s]", kind % 2 ? "_drop" : "",
             expects ? ".expect_tx" : "", order, space, at);
        emit(t, expects || counts ? ", %d;\n" : ";\n", expects ? bytes : count);
        count = counts ? count : 1;
        sum->arrivals += lanes * count;
        sum->drops += kind % 2 ? lanes * count : 0;
        sum->bytes += expects ? lanes * bytes : 0;
    } else {
        emit(t, "@%%p0 mbarrier.%s_tx%s%s.b64 [%s], %d;\n", kind == 6 ? "expect" : "complete",
             PICK("", ".relaxed.cta", ".relaxed.cluster"), space, at, bytes);
        sum->bytes += kind == 6 ? lanes * bytes : -lanes * bytes;
    }
}

/* Gives %r2: one bit. */
static void emit_test(ptx_text *t, int to)
{
    emit(t,
         "@%%first mbarrier.test_wait.parity.shared.b64 %%p1, [barriers], 0; selp.u32 %%r2, 1, 0, "
         "%%p1; @%%first st.global.u32 [%%out+%d], %%r2;\n",
         to);
}

static void emit_pending(ptx_text *t, int to)
{
    emit(t,
         "@%%first mbarrier.arrive.noComplete.shared.b64 %%rd1, [barriers], 1; "
         "@%%first mbarrier.pending_count.b64 %%r2, %%rd1; @%%first st.global.u32 [%%out+%d], "
         "%%r2;\n",
         to);
}

/* Bytes that other blocks' barriers still wait for come, or those that came early are expected. */
static void emit_bytes(ptx_text *t, const cluster_grid *g, int bytes)
{
    const char *at = emit_remote(t, g, "barriers", below(cluster_size(g)), false);
    emit(t, "@%%first mbarrier.%s_tx.relaxed.cluster.shared::cluster.b64 [%s], %d;\n",
         bytes > 0 ? "complete" : "expect", at, bytes > 0 ? bytes : -bytes);
}

/* All but SPARE arrivals come from other blocks; the last ones are the block's own. */
static void check_arrivals(const cluster_grid *g)
{
    static uint32_t out[MOST_BLOCKS][RESULTS];
    received sum = {0};
    ptx_text t = {0}, steps = {0};
    for (int i = 0; i < STEPS; i++)
        emit_step(&steps, g, &sum);
    bool bytes_last = sum.bytes > 0;
    emit_initial(&t, (const int[]){sum.arrivals + SPARE, 1, 1, 1});
    emit(&t, "setp.ne.u32 %%p1, %%thread, %%thread; %s" CLUSTER_BARRIER, steps.at);
    if (!bytes_last)
        emit_bytes(&t, g, sum.bytes);
    emit(&t, CLUSTER_BARRIER);
    emit_pending(&t, 0);
    emit_test(&t, 4);
    emit(&t, "@%%first mbarrier.arrive.shared.b64 _, [barriers], %d;\n", SPARE - 1);
    emit_test(&t, 8);
    emit(&t, CLUSTER_BARRIER);
    if (bytes_last)
        emit_bytes(&t, g, sum.bytes);
    emit_wait(&t, 0);
    emit_pending(&t, 12);
    emit(&t, CLUSTER_BARRIER);
    cluster_run(g, &t, &(cluster_memory){"", 0, out, sizeof out[0]}, NULL);
    uint32_t wanted[RESULTS] = {SPARE, 0, !bytes_last,
                                (uint32_t)(sum.arrivals + SPARE - sum.drops)};
    for (int b = 0; b < cluster_size(g) * cluster_count(g); b++)
        for (int i = 0; i < RESULTS; i++)
            cr_assert_eq(out[b][i], wanted[i], "%s: word %d of block %d is %u, not %u\n%s",
                         cluster_name(g), i, b, out[b][i], wanted[i], t.at);
}

Test(isa_cluster_async, arrivals_and_bytes_at_other_blocks_end_the_phase_when_all_have_come)
{
    random_start(1);
    for (int i = 0; i < 2 * TURNS; i++) {
        cluster_grid g = cluster_random(32, true);
        check_arrivals(&g);
    }
}

/* ---- what is released and acquired ----------------------------------------------------------- */

enum { MESSAGES = 4, THREADS = 64 };

/* Words of a thread, each for the thread of the same number in another block, each with an mbarrier
 * of its own. */
static void check_messages(const cluster_grid *g)
{
    static uint32_t in[MOST_BLOCKS][THREADS][MESSAGES], out[MOST_BLOCKS][THREADS][MESSAGES];
    int size = cluster_size(g), distances[MESSAGES];
    ptx_text t = {0};
    random_bytes(in, sizeof in);
    emit_initial(&t, (const int[]){THREADS, THREADS, THREADS, THREADS});
    emit(&t,
         "mad.wide.u32 %%rd1, %%thread, %d, %%in; mad.wide.u32 %%rd2, %%thread, %d, %%out; "
         "mov.u32 %%r3, shared; mad.lo.u32 %%r3, %%thread, 4, %%r3;\n",
         4 * MESSAGES, 4 * MESSAGES);
    for (int k = 0; k < MESSAGES; k++) {
        int slots = 4 * THREADS * k;
        distances[k] = below(size);
        emit(&t,
             "add.u32 %%r0, %%rank, %d; rem.u32 %%r0, %%r0, %d; mapa.shared::cluster.u32 %%r4, "
             "%%r3, %%r0; mapa.shared::cluster.u32 %%r5, barriers+%d, %%r0;\n"
             "ld.global.u32 %%r2, [%%rd1+%d]; st.shared::cluster.u32 [%%r4+%d], %%r2; "
             "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%%r5];\n",
             distances[k], size, 8 * k, 4 * k, slots);
        emit_wait(&t, k);
        emit(&t, "ld.shared.u32 %%r2, [%%r3+%d]; st.global.u32 [%%rd2+%d], %%r2;\n", slots, 4 * k);
    }
    emit(&t, CLUSTER_BARRIER);
    cluster_run(g, &t, &(cluster_memory){in, sizeof in[0], out, sizeof out[0]}, NULL);
    for (int b = 0; b < size * cluster_count(g); b++)
        for (int k = 0; k < MESSAGES; k++) {
            int from = b - b % size + (b + size - distances[k]) % size;
            for (int i = 0; i < THREADS; i++)
                cr_assert_eq(out[b][i][k], in[from][i][k], "%s: message %d, thread %d of block %d",
                             cluster_name(g), k, i, b);
        }
}

Test(isa_cluster_async, what_was_written_before_an_arrival_is_there_after_the_wait)
{
    random_start(2);
    for (int i = 0; i < TURNS; i++) {
        cluster_grid g = cluster_random(THREADS, true);
        check_messages(&g);
    }
}

/* ---- bulk copies ----------------------------------------------------------------------------- */

enum { COPIES = 4, PART = 2048, ROOM_BYTES = 2 * COPIES * PART /* what copies write and read */ };

typedef enum direction { MULTICAST, REMOTE, BETWEEN, DIRECTIONS } direction;

/* From global memory (to blocks of a mask, to one), or from one block to another. */
typedef struct copy {
    direction way;
    int issuer, bytes, from, to; /* from: in the cluster's global memory, or in shared memory */
    unsigned mask;               /* of the blocks that get it */
} copy;

static copy random_copy(int part, int size)
{
    copy c = {.way = (direction)below(DIRECTIONS), .issuer = below(size)};
    c.bytes = 16 * between(1, PART / 16);
    c.to = part * PART + 16 * below((PART - c.bytes) / 16 + 1);
    if (c.way == MULTICAST) {
        c.mask = (unsigned)between(1, (1 << size) - 1);
    } else {
        int distance = c.way == BETWEEN ? between(1, size - 1) : below(size);
        c.mask = 1u << (c.issuer + distance) % size;
    }
    if (c.way == BETWEEN)
        c.from = COPIES * PART + 16 * below((COPIES * PART - c.bytes) / 16 + 1);
    else
        c.from = 16 * below((size * ROOM_BYTES - c.bytes) / 16 + 1);
    return c;
}

/* By the blocks that get them; the others' phase ends without bytes. */
static void emit_expected(ptx_text *t, int which, unsigned mask, size_t bytes)
{
    emit(t,
         "shl.b32 %%r0, 1, %%rank; and.b32 %%r0, %%r0, %u; setp.ne.and.u32 %%p0, %%r0, 0, "
         "%%first; setp.eq.and.u32 %%p1, %%r0, 0, %%first;\n"
         "@%%p0 mbarrier.arrive.expect_tx.shared.b64 _, [barriers+%d], %zu; "
         "@%%p1 mbarrier.arrive.shared.b64 _, [barriers+%d];\n",
         mask, 8 * which, bytes, 8 * which);
}

/* %p6 is the thread that copies; gives the mask's operand, which a multicast has. */
static const char *emit_issuer(ptx_text *t, int issuer, unsigned mask)
{
    static char operand[16];
    emit(t, "setp.eq.and.u32 %%p6, %%rank, %d, %%first; ", issuer);
    if (below(2)) {
        emit(t, "mov.b16 %%h0, %u; ", mask);
        return "%h0";
    }
    snprintf(operand, sizeof operand, "%u", mask);
    return operand;
}

/* The same place in another block. */
static void emit_there(ptx_text *t, const char *name, const char *variable, int offset,
                       unsigned mask)
{
    emit(t, "mapa.shared::cluster.u32 %s, %s+%d, %d; ", name, variable, offset,
         __builtin_ctz(mask));
}

static void emit_copy(ptx_text *t, const copy *c, int which)
{
    const char *mask = emit_issuer(t, c->issuer, c->mask);
    const char *hint = below(2) ? ".L2::cache_hint" : "", *policy = *hint ? ", %rd5" : "";
    emit(t, "mov.u32 %%r5, %d; add.u64 %%rd4, %%all_in, %d;\n", c->bytes, c->from);
    if (c->way == MULTICAST) {
        emit(t,
             "@%%p6 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
             ".multicast::cluster%s [shared+%d], [%%rd4], %%r5, [barriers+%d], %s%s;\n",
             hint, c->to, 8 * which, mask, policy);
        return;
    }
    emit_there(t, "%r2", "shared", c->to, c->mask);
    emit_there(t, "%r3", "barriers", 8 * which, c->mask);
    if (c->way == REMOTE)
        emit(t,
             "@%%p6 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes%s [%%r2], "
             "[%%rd4], %%r5, [%%r3]%s;\n",
             hint, policy);
    else
        emit(t,
             "@%%p6 cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%%r2], "
             "[shared+%d], %d, [%%r3];\n",
             c->from, c->bytes);
}

/* Moves words between %rd2, in the block's global memory, and %rd3, in its shared memory. */
static void emit_words(ptx_text *t, const char *global, const char *move, int bytes)
{
    emit(t,
         "mul.wide.u32 %%rd1, %%thread, 4; add.u64 %%rd2, %%rd1, %s; mov.u64 %%rd3, shared; "
         "add.u64 %%rd3, %%rd3, %%rd1; mov.u32 %%r4, %%thread;\n"
         "MOVE%zu: %s add.u64 %%rd2, %%rd2, %d; add.u64 %%rd3, %%rd3, %d; add.u32 %%r4, %%r4, %d; "
         "setp.lt.u32 %%p7, %%r4, %d; @%%p7 bra MOVE%zu;\n",
         global, t->length, move, 4 * THREADS, 4 * THREADS, THREADS, bytes / 4, t->length);
}

static void emit_fill(ptx_text *t, int bytes)
{
    emit_words(t, "%in", "ld.global.b32 %r2, [%rd2]; st.shared.b32 [%rd3], %r2;", bytes);
}

static void emit_show(ptx_text *t, int bytes)
{
    emit_words(t, "%out", "ld.shared.b32 %r2, [%rd3]; st.global.b32 [%rd2], %r2;", bytes);
}

static void compare_rooms(const cluster_grid *g, const uint8_t *found, const uint8_t *wanted,
                          size_t bytes, const char *ptx)
{
    size_t all = bytes * (size_t)(cluster_size(g) * cluster_count(g));
    for (size_t i = 0; i < all; i++)
        cr_assert_eq(found[i], wanted[i], "%s: byte %zu of block %zu is %#x, not %#x\n%s",
                     cluster_name(g), i % bytes, i / bytes, found[i], wanted[i], ptx);
}

static void check_copies(const cluster_grid *g)
{
    static uint8_t in[MOST_BLOCKS][ROOM_BYTES], out[MOST_BLOCKS][ROOM_BYTES],
        wanted[MOST_BLOCKS][ROOM_BYTES];
    int size = cluster_size(g);
    copy copies[COPIES];
    ptx_text t = {0};
    random_bytes(in, sizeof in);
    memcpy(wanted, in, sizeof in);
    emit_fill(&t, ROOM_BYTES);
    emit_initial(&t, (const int[]){1, 1, 1, 1});
    emit(&t, "createpolicy.fractional.L2::evict_first.b64 %%rd5;\n");
    for (int k = 0; k < COPIES; k++) {
        copies[k] = random_copy(k, size);
        emit_expected(&t, k, copies[k].mask, (size_t)copies[k].bytes);
    }
    for (int k = 0; k < COPIES; k++)
        emit_copy(&t, &copies[k], k);
    for (int k = 0; k < COPIES; k++)
        emit_wait(&t, k);
    emit(&t, CLUSTER_BARRIER);
    emit_show(&t, ROOM_BYTES);
    cluster_run(g, &t, &(cluster_memory){in, sizeof in[0], out, sizeof out[0]}, NULL);
    for (int b = 0; b < size * cluster_count(g); b++)
        for (int k = 0; k < COPIES; k++) {
            const copy *c = &copies[k];
            int base = b - b % size;
            const uint8_t *from = c->way == BETWEEN ? in[base + c->issuer] : in[base];
            if (c->mask >> b % size & 1)
                memcpy(wanted[b] + c->to, from + c->from, (size_t)c->bytes);
        }
    compare_rooms(g, out[0], wanted[0], sizeof out[0], t.at);
}

Test(isa_cluster_async, copies_go_to_the_blocks_of_a_mask_or_to_one_and_nowhere_else)
{
    random_start(3);
    for (int i = 0; i < 2 * TURNS; i++) {
        cluster_grid g = cluster_random(THREADS, false);
        check_copies(&g);
    }
}

/* ---- stores of registers --------------------------------------------------------------------- */

/* st.async (9.7.9.12): each thread of a block stores `count` values of a type to another block,
 * which is told the bytes at its mbarrier. */
static void check_stores(const char *type, const char *registers, int count)
{
    enum { UNIT = 16 };
    static uint8_t in[MOST_BLOCKS][UNIT * THREADS], out[MOST_BLOCKS][UNIT * THREADS],
        wanted[MOST_BLOCKS][UNIT * THREADS];
    cluster_grid g = cluster_random(THREADS, false);
    int size = cluster_size(&g), distance = below(size), wide = strstr(type, "64") != NULL;
    int bytes = count * (wide ? 8 : 4);
    char list[64] = "", vector[16] = "";
    ptx_text t = {0};
    for (int i = 0; i < count; i++)
        sprintf(list + strlen(list), "%s%%%s%d", i ? ", " : "", registers, i + 4);
    if (count > 1)
        sprintf(vector, ".v%d", count);
    random_bytes(in, sizeof in);
    memset(wanted, 0, sizeof wanted);
    emit(&t,
         "mul.wide.u32 %%rd1, %%thread, %d; add.u64 %%rd2, %%rd1, %%in; cvt.u32.u64 %%r9, %%rd1; "
         "mov.u32 %%r2, shared; add.u32 %%r2, %%r2, %%r9; mov.u32 %%r3, 0;\n"
         "st.shared.v4.u32 [%%r2], {%%r3, %%r3, %%r3, %%r3};\n",
         UNIT);
    emit_initial(&t, (const int[]){1, 1, 1, 1});
    emit(&t, "@%%first mbarrier.arrive.expect_tx.shared.b64 _, [barriers], %d;\n", THREADS * bytes);
    emit(&t, "ld.global%s.%s %s%s%s, [%%rd2];\n", vector, type, count > 1 ? "{" : "", list,
         count > 1 ? "}" : "");
    emit(&t,
         "add.u32 %%r0, %%rank, %d; rem.u32 %%r0, %%r0, %d; mapa.shared::cluster.u32 %%r10, %%r2, "
         "%%r0; mapa.shared::cluster.u32 %%r11, barriers, %%r0;\n",
         distance, size);
    emit(&t,
         "st.async%s.shared::cluster.mbarrier::complete_tx::bytes%s.%s [%%r10], %s%s%s, [%%r11];\n",
         PICK("", ".weak"), vector, type, count > 1 ? "{" : "", list, count > 1 ? "}" : "");
    emit_wait(&t, 0);
    emit(&t, "ld.shared.v4.u32 {%%r4, %%r5, %%r6, %%r7}, [%%r2]; add.u64 %%rd2, %%rd1, %%out; "
             "st.global.v4.u32 [%%rd2], {%%r4, %%r5, %%r6, %%r7};\n" CLUSTER_BARRIER);
    cluster_run(&g, &t, &(cluster_memory){in, sizeof in[0], out, sizeof out[0]}, NULL);
    for (int b = 0; b < size * cluster_count(&g); b++) {
        int base = b - b % size, to = base + (b % size + distance) % size;
        for (int i = 0; i < THREADS; i++)
            memcpy(wanted[to] + UNIT * i, in[b] + UNIT * i, (size_t)bytes);
    }
    compare_rooms(&g, out[0], wanted[0], sizeof out[0], t.at);
}

Test(isa_cluster_async, stores_of_every_type_go_to_another_block_and_are_counted_there)
{
    static const struct {
        const char *type;
        const char *registers;
        int most;
    } cases[] = {{"b32", "r", 4},  {"u32", "r", 4},  {"s32", "r", 4},  {"f32", "f", 4},
                 {"b64", "rd", 2}, {"u64", "rd", 2}, {"s64", "rd", 2}, {"f64", "g", 2}};
    random_start(6);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int count = 1; count <= cases[i].most; count *= 2)
            for (int turn = 0; turn < 3; turn++)
                check_stores(cases[i].type, cases[i].registers, count);
}

/* ---- boxes of tensors ------------------------------------------------------------------------ */

static void emit_box(ptx_text *t, const shape *s, int issuer, unsigned mask)
{
    bool is_multicast = below(3) || (mask & (mask - 1)) != 0;
    const char *operand = emit_issuer(t, issuer, mask), *tile = below(2) ? ".tile" : "";
    const char *hint = below(2) ? ".L2::cache_hint" : "", *policy = *hint ? ", %rd5" : "";
    char to[32] = "shared", barrier[16] = "barriers";
    if (is_multicast) {
        snprintf(to, sizeof to, "shared+%d", s->target);
    } else {
        emit_there(t, "%r2", "shared", s->target, mask);
        emit_there(t, "%r3", "barriers", 0, mask);
        strcpy(to, "%r2");
        strcpy(barrier, "%r3");
    }
    emit(t,
         "createpolicy.fractional.L2::evict_first.b64 %%rd5; @%%p6 cp.async.bulk.tensor.%dd"
         ".shared::cluster.global%s.mbarrier::complete_tx::bytes%s%s [%s], [%%map, {",
         s->rank, tile, is_multicast ? ".multicast::cluster" : "", hint, to);
    for (int i = 0; i < s->rank; i++)
        emit(t, "%s%d", i ? ", " : "", s->at[i]);
    emit(t, "}], [%s]%s%s%s;\n", barrier, is_multicast ? ", " : "", is_multicast ? operand : "",
         policy);
}

static void check_box(int rank, const element_type *type)
{
    enum { GUARD = 256 };
    static uint8_t in[MOST_BLOCKS][CLUSTER_SHARED], out[MOST_BLOCKS][CLUSTER_SHARED],
        tensor[TENSOR + GUARD];
    cluster_grid g = cluster_random(THREADS, false);
    shape s = random_shape(rank, type, 0);
    int size = cluster_size(&g), issuer = below(size);
    unsigned mask = (unsigned)between(1, (1 << size) - 1);
    ptx_text t = {0};
    random_bytes(in, sizeof in);
    random_elements(tensor, sizeof tensor, type);
    CUdeviceptr global = device_upload(tensor, sizeof tensor);
    CUtensorMap map;
    cr_assert_eq(encode_shape(&map, &s, global), CUDA_SUCCESS);
    emit_fill(&t, CLUSTER_SHARED);
    emit_initial(&t, (const int[]){1, 1, 1, 1});
    emit_expected(&t, 0, mask, box_bytes(&s));
    emit_box(&t, &s, issuer, mask);
    emit_wait(&t, 0);
    emit(&t, CLUSTER_BARRIER);
    emit_show(&t, CLUSTER_SHARED);
    cluster_run(&g, &t, &(cluster_memory){in, sizeof in[0], out, sizeof out[0]}, &map);
    cuMemFree(global);
    for (int b = 0; b < size * cluster_count(&g); b++)
        if (mask >> b % size & 1)
            load_box(&s, in[b], tensor);
    compare_rooms(&g, out[0], in[0], sizeof out[0], t.at);
}

Test(isa_cluster_async, boxes_go_to_the_blocks_of_a_mask_or_to_one_and_nowhere_else)
{
    random_start(4);
    for (int rank = 1; rank <= RANK; rank++)
        for (int i = 0; i < TENSOR_TYPES; i++)
            check_box(rank, &tensor_types[i]);
}
