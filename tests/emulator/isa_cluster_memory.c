/*
 * isa_cluster_memory.c: loads, stores and atomic operations in other blocks' shared memory (PTX ISA
 * 9.7.9.8, 9.7.9.11 and 9.7.13.4 to 9.7.13.6, with .shared::cluster and generic addresses).
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "access_kernel.h"
#include "cluster_kernel.h"
#include "device.h"
#include "tensor_oracle.h"

enum { TURNS = 24 };

TestSuite(isa_cluster_memory, .init = device_open, .fini = device_close);

/* ---- loads and stores ------------------------------------------------------------------------ */

enum { SLOT = 16, THREADS = 64 };

/* %rd0: where the thread's slot lies in another block. Gives how instructions call its space. */
static const char *emit_slot(ptx_text *t, const cluster_grid *g, int distance, bool is_generic)
{
    emit(t, "add.u32 %%r0, %%rank, %d; rem.u32 %%r0, %%r0, %d; ", distance, cluster_size(g));
    if (is_generic)
        emit(t, "cvta.shared.u64 %%rd3, shared; mapa.u64 %%rd0, %%rd3, %%r0; ");
    else
        emit(t, "mapa.shared::cluster.u64 %%rd0, shared, %%r0; ");
    emit(t, "mad.wide.u32 %%rd0, %%thread, %d, %%rd0;\n", SLOT);
    return is_generic ? "" : ".shared::cluster";
}

static void emit_zero_slot(ptx_text *t)
{
    emit(t,
         "mov.u32 %%r1, shared; mad.lo.u32 %%r1, %%thread, %d, %%r1; mov.b32 %%r2, 0;\n"
         "st.shared.v4.b32 [%%r1], {%%r2, %%r2, %%r2, %%r2}; mad.wide.u32 %%rd1, %%thread, 16, "
         "%%in; mad.wide.u32 %%rd2, %%thread, 32, %%out;\n" CLUSTER_BARRIER,
         SLOT);
}

/* The thread's slot as it is at the end: to the first 16 bytes of what it gives. */
static void emit_show_slot(ptx_text *t)
{
    emit(t, CLUSTER_BARRIER "ld.shared.v4.b32 {%%r4, %%r5, %%r6, %%r7}, [%%r1]; "
                            "st.global.v4.b32 [%%rd2], {%%r4, %%r5, %%r6, %%r7};\n");
}

/* One instruction from global memory to a slot, or from a slot to global memory. */
static void emit_move(ptx_text *t, const access_type *type, int count, const char *load,
                      const char *from, const char *store, const char *to)
{
    static const char *const vector[] = {[1] = "", [2] = ".v2", [4] = ".v4", [8] = ".v8"};
    emit(t, "ld%s%s.%s ", load, vector[count], type->name);
    access_registers(t, type, count);
    emit(t, ", [%s]; st%s%s.%s [%s], ", from, store, vector[count], type->name, to);
    access_registers(t, type, count);
    emit(t, ";\n");
}

static void check_access(const access_type *type, int count, bool is_generic)
{
    static uint8_t in[MOST_BLOCKS][THREADS][SLOT], out[MOST_BLOCKS][THREADS][2 * SLOT];
    cluster_grid g = cluster_random(THREADS, false);
    int size = cluster_size(&g), bytes = type->bytes * count;
    int stores_to = below(size), loads_from = below(size); /* counted on from the block */
    ptx_text t = {0};
    random_bytes(in, sizeof in);
    emit_zero_slot(&t);
    const char *space = emit_slot(&t, &g, stores_to, is_generic);
    emit_move(&t, type, count, ".global", "%rd1", space, "%rd0");
    emit_show_slot(&t);
    space = emit_slot(&t, &g, loads_from, is_generic);
    emit_move(&t, type, count, space, "%rd0", ".global", "%rd2+16");
    emit(&t, CLUSTER_BARRIER);
    cluster_run(&g, &t, &(cluster_memory){in, sizeof in[0], out, sizeof out[0]}, NULL);
    for (int b = 0; b < size * cluster_count(&g); b++) {
        int base = b - b % size, from = base + (b + size - stores_to) % size;
        int loaded = base + (b + loads_from + size - stores_to) % size;
        for (int i = 0; i < THREADS; i++) {
            uint8_t wanted[2 * SLOT] = {0};
            memcpy(wanted, in[from][i], (size_t)bytes);
            memcpy(wanted + SLOT, in[loaded][i], (size_t)bytes);
            cr_assert_arr_eq(out[b][i], wanted, sizeof wanted,
                             "%s: %d of %s to %d and from %d on: thread %d of block %d",
                             cluster_name(&g), count, type->name, stores_to, loads_from, i, b);
        }
    }
}

Test(isa_cluster_memory, loads_and_stores_reach_every_block_with_every_type)
{
    random_start(3);
    for (int turn = 0; turn < 4; turn++)
        for (int k = 0; k < access_type_count; k++)
            for (int count = 1; count <= 8; count *= 2)
                if (count * access_types[k].bytes <= SLOT)
                    check_access(&access_types[k], count, turn % 2);
}

/* ---- atomic operations ----------------------------------------------------------------------- */

/* Of registers with a prefix. What it computes is another test's: isa_atomic.c. */
typedef struct operation {
    const char *name, *type;
    int bytes;
    char prefix;
    bool reduces, compares;
} operation;

static const operation operations[] = {
    {"add", "u32", 4, 'r', true, false},          {"add", "s32", 4, 'r', true, false},
    {"add", "u64", 8, 'd', true, false},          {"add", "f32", 4, 'f', true, false},
    {"add", "f64", 8, 'g', true, false},          {"add.noftz", "f16", 2, 'h', true, false},
    {"add.noftz", "bf16", 2, 'h', true, false},   {"add.noftz", "f16x2", 4, 'r', true, false},
    {"add.noftz", "bf16x2", 4, 'r', true, false}, {"min", "u32", 4, 'r', true, false},
    {"min", "s32", 4, 'r', true, false},          {"min", "u64", 8, 'd', true, false},
    {"min", "s64", 8, 'd', true, false},          {"max", "u32", 4, 'r', true, false},
    {"max", "s32", 4, 'r', true, false},          {"max", "u64", 8, 'd', true, false},
    {"max", "s64", 8, 'd', true, false},          {"and", "b32", 4, 'r', true, false},
    {"and", "b64", 8, 'd', true, false},          {"or", "b32", 4, 'r', true, false},
    {"or", "b64", 8, 'd', true, false},           {"xor", "b32", 4, 'r', true, false},
    {"xor", "b64", 8, 'd', true, false},          {"inc", "u32", 4, 'r', true, false},
    {"dec", "u32", 4, 'r', true, false},          {"exch", "b32", 4, 'r', false, false},
    {"exch", "b64", 8, 'd', false, false},        {"exch", "b128", 16, 'q', false, false},
    {"cas", "b16", 2, 'h', false, true},          {"cas", "b32", 4, 'r', false, true},
    {"cas", "b64", 8, 'd', false, true},          {"cas", "b128", 16, 'q', false, true},
};
enum { OPERATIONS = sizeof operations / sizeof operations[0] };

/* A thread's memory as it was, the operands. */
typedef struct operands {
    uint8_t old[SLOT], with[SLOT], other[SLOT];
} operands;

/* A thread's slot in the end; what it got; its copy of the slot that it changed; what it got there.
 */
typedef struct outcome {
    uint8_t slot[SLOT], got[SLOT], copy[SLOT], got_copy[SLOT];
} outcome;

/* With its operands at %rd1, on the slot at %rd0; what it gives goes to %rd2 and on. */
static void emit_operation(ptx_text *t, const operation *o, const char *space, bool returns, int to)
{
    static const char *const moved[] = {[2] = "b16", [4] = "b32", [8] = "b64", [16] = "b128"};
    const char *p = o->prefix == 'd' ? "rd" : (const char[]){o->prefix, 0}, *type = moved[o->bytes];
    emit(t, "ld.global.v2.b64 {%%rd10, %%rd11}, [%%rd1]; st%s.v2.b64 [%%rd0], {%%rd10, %%rd11};\n",
         space);
    emit(t, "ld.global.%s %%%s5, [%%rd1+16]; ld.global.%s %%%s6, [%%rd1+32];\n", type, p, type, p);
    emit(t, "%s%s.%s.%s ", returns ? "atom" : "red", space, o->name, o->type);
    if (returns)
        emit(t, "%%%s7, ", p);
    emit(t, "[%%rd0], %%%s5", p);
    if (o->compares)
        emit(t, ", %%%s6", p);
    emit(t, ";\n");
    if (returns)
        emit(t, "st.global.%s [%%rd2+%d], %%%s7;\n", type, to, p);
}

static void emit_operations(ptx_text *t, const cluster_grid *g, const operation *o, bool returns,
                            int distance, bool is_generic)
{
    emit(t,
         "mad.wide.u32 %%rd1, %%thread, %zu, %%in; mad.wide.u32 %%rd2, %%thread, %zu, "
         "%%out;\n" CLUSTER_BARRIER,
         sizeof(operands), sizeof(outcome));
    const char *space = emit_slot(t, g, distance, is_generic);
    emit_operation(t, o, space, returns, 16);
    emit(t, "mov.u64 %%rd0, shared; mad.wide.u32 %%rd0, %%thread, %d, %%rd0;\n", SLOT);
    emit(t, CLUSTER_BARRIER "ld.shared.v2.b64 {%%rd10, %%rd11}, [%%rd0]; "
                            "st.global.v2.b64 [%%rd2], {%%rd10, %%rd11};\n");
    emit_operation(t, o, ".shared", returns, 48);
    emit(t, "ld.shared.v2.b64 {%%rd10, %%rd11}, [%%rd0]; "
            "st.global.v2.b64 [%%rd2+32], {%%rd10, %%rd11};\n");
}

/* Of which some are equal. */
static void draw_operands(operands *all, size_t count)
{
    random_bytes(all, count * sizeof *all);
    for (size_t i = 0; i < count; i++)
        if (below(2))
            memcpy(all[i].with, all[i].old, SLOT);
}

static void check_operation(const operation *o, bool returns, bool is_generic)
{
    static operands in[MOST_BLOCKS][THREADS];
    static outcome out[MOST_BLOCKS][THREADS];
    cluster_grid g = cluster_random(THREADS, false);
    int size = cluster_size(&g), distance = below(size);
    ptx_text t = {0};
    draw_operands(in[0], (size_t)MOST_BLOCKS * THREADS);
    emit_operations(&t, &g, o, returns, distance, is_generic);
    cluster_run(&g, &t, &(cluster_memory){in, sizeof in[0], out, sizeof out[0]}, NULL);
    for (int b = 0; b < size * cluster_count(&g); b++) {
        const outcome *target = out[b - b % size + (b + distance) % size];
        for (int i = 0; i < THREADS; i++) {
            size_t bytes = returns ? (size_t)o->bytes : 0;
            cr_assert(memcmp(out[b][i].got, in[b][i].old, bytes) == 0 &&
                          memcmp(out[b][i].got_copy, in[b][i].old, bytes) == 0,
                      "%s: %s.%s %d on: thread %d of block %d got something else", cluster_name(&g),
                      o->name, o->type, distance, i, b);
            cr_assert_arr_eq(target[i].slot, out[b][i].copy, SLOT,
                             "%s: %s.%s %d on: what thread %d of block %d made of it",
                             cluster_name(&g), o->name, o->type, distance, i, b);
        }
    }
}

Test(isa_cluster_memory, atomic_operations_on_other_blocks_do_what_they_do_on_their_own)
{
    random_start(4);
    for (int turn = 0; turn < 4; turn++)
        for (int i = 0; i < OPERATIONS; i++) {
            check_operation(&operations[i], true, turn % 2);
            if (operations[i].reduces)
                check_operation(&operations[i], false, turn % 2);
        }
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* All threads of a cluster count in one block: atom sees every number once, red is not lost. */
static void check_counters(const cluster_grid *g)
{
    static uint32_t out[MOST_BLOCKS][THREADS + 2];
    int size = cluster_size(g), at = below(size), all = size * THREADS;
    ptx_text t = {0};
    emit(&t,
         "mov.b64 %%rd1, 0; @%%first st.shared.b64 [shared], %%rd1;\n" CLUSTER_BARRIER
         "mapa.shared::cluster.u32 %%r1, shared, %d; mad.wide.u32 %%rd0, %%thread, 4, %%out;\n"
         "atom.relaxed.cluster.shared::cluster.add.u32 %%r2, [%%r1], 1; st.global.u32 [%%rd0], "
         "%%r2;\nred.relaxed.cluster.shared::cluster.add.u32 [%%r1+4], 1;\n" CLUSTER_BARRIER
         "@%%first ld.shared.b64 %%rd1, [shared]; @%%first st.global.b64 [%%out+%d], %%rd1;\n",
         at, 4 * THREADS);
    cluster_run(g, &t, &(cluster_memory){"", 0, out, sizeof out[0]}, NULL);
    for (int c = 0; c < cluster_count(g); c++) {
        uint32_t seen[CLUSTER_BLOCKS * THREADS];
        for (int rank = 0; rank < size; rank++) {
            const uint32_t *found = out[c * size + rank];
            uint32_t wanted = rank == at ? (uint32_t)all : 0;
            memcpy(seen + rank * THREADS, found, THREADS * sizeof *seen);
            cr_assert(found[THREADS] == wanted && found[THREADS + 1] == wanted,
                      "%s: block %d counted %u and %u", cluster_name(g), rank, found[THREADS],
                      found[THREADS + 1]);
        }
        qsort(seen, (size_t)all, sizeof *seen, by_value);
        for (int i = 0; i < all; i++)
            cr_assert_eq(seen[i], (uint32_t)i, "%s: %u, not %d", cluster_name(g), seen[i], i);
    }
}

Test(isa_cluster_memory, threads_of_all_blocks_count_in_one)
{
    random_start(5);
    for (int i = 0; i < TURNS; i++) {
        cluster_grid g = cluster_random(THREADS, false);
        check_counters(&g);
    }
}

/* ---- orders ---------------------------------------------------------------------------------- */

/* To the flag at %rd2, once the word beside it is written; and from the block's own flag, %r2. */
static const char *const releases[] = {
    "st.release.cluster.shared::cluster.u32 [%rd2], 1;",
    "fence.acq_rel.cluster; st.relaxed.cluster.shared::cluster.u32 [%rd2], 1;",
    "fence.sc.cluster; st.volatile.shared::cluster.u32 [%rd2], 1;",
    "fence.release.cluster; st.relaxed.cluster.shared::cluster.u32 [%rd2], 1;",
    "atom.release.cluster.shared::cluster.exch.b32 %r4, [%rd2], 1;",
    "red.release.cluster.shared::cluster.add.u32 [%rd2], 1;",
};
static const char *const acquires[] = {
    "ld.acquire.cluster.shared::cluster.u32 %r4, [%r2];",
    "ld.acquire.cluster.shared::cta.u32 %r4, [%r2];",
    "ld.relaxed.cluster.shared.u32 %r4, [%r2]; fence.acq_rel.cluster;",
    "ld.relaxed.cluster.shared::cluster.u32 %r4, [%r2]; fence.acquire.cluster;",
    "atom.acquire.cluster.shared::cluster.or.b32 %r4, [%r2], 0;",
    "atom.acq_rel.cluster.shared.exch.b32 %r4, [%r2], 0;",
};

static int common_divisor(int a, int b)
{
    return b ? common_divisor(b, a % b) : a;
}

/* A sum goes round all blocks of a cluster, each adding its word, from one to the one `step` on. */
static void check_ring(const cluster_grid *g, const char *release, const char *acquire)
{
    static uint32_t in[MOST_BLOCKS], out[MOST_BLOCKS];
    int size = cluster_size(g), first = below(size), step;
    do
        step = between(1, size);
    while (common_divisor(size, step) != 1);
    ptx_text t = {0};
    random_bytes(in, sizeof in);
    emit(&t,
         "mov.b64 %%rd0, 0; @%%first st.shared.b64 [shared], %%rd0; add.u32 %%r0, %%rank, %d; "
         "rem.u32 %%r0, %%r0, %d; mapa.shared::cluster.u64 %%rd1, shared+4, %%r0; "
         "mapa.shared::cluster.u64 %%rd2, shared, %%r0; mov.u32 %%r2, shared; setp.ne.u32 %%p0, "
         "%%rank, %d; mov.u32 %%r3, 0;\n" CLUSTER_BARRIER "@!%%first bra END; @!%%p0 bra SEND;\n"
         "WAIT: %s setp.eq.u32 %%p1, %%r4, 0; @%%p1 bra WAIT; ld.shared.u32 %%r3, [shared+4];\n"
         "SEND: ld.global.u32 %%r5, [%%in]; add.u32 %%r3, %%r3, %%r5; st.global.u32 [%%out], "
         "%%r3; st.shared::cluster.u32 [%%rd1], %%r3;\n%s\nEND:\n" CLUSTER_BARRIER,
         step, size, first, acquire, release);
    cluster_run(g, &t, &(cluster_memory){in, sizeof in[0], out, sizeof out[0]}, NULL);
    for (int base = 0; base < size * cluster_count(g); base += size) {
        uint32_t sum = 0;
        for (int i = 0; i < size; i++) {
            int rank = (first + i * step) % size;
            sum += in[base + rank];
            cr_assert_eq(out[base + rank], sum, "%s: block %d, %s %s", cluster_name(g), rank,
                         release, acquire);
        }
    }
}

Test(isa_cluster_memory, blocks_wait_for_one_another_with_the_scope_of_the_cluster)
{
    random_start(6);
    for (size_t i = 0; i < sizeof releases / sizeof *releases; i++)
        for (size_t k = 0; k < sizeof acquires / sizeof *acquires; k++) {
            cluster_grid g = cluster_random(32, false);
            check_ring(&g, releases[i], acquires[k]);
        }
}
