/*
 * isa_cluster.c: what a block of a cluster is told about it, addresses of other blocks' shared
 * memory, what is done there, and the cluster's barrier (PTX ISA 9.7.9.23, 9.7.9.24, 9.7.13.3 and
 * 10.11 to 10.17).
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "cluster_kernel.h"
#include "device.h"
#include "tensor_oracle.h"

enum { TURNS = 24 };

TestSuite(isa_cluster, .init = device_open, .fini = device_close);

/* ---- special registers ----------------------------------------------------------------------- */

enum { VECTORS = 4, WORDS = 4 * VECTORS + 4 };

static const char *const vectors[VECTORS] = {"%clusterid", "%nclusterid", "%cluster_ctaid",
                                             "%cluster_nctaid"};

/* Four vectors, the rank, the number of ranks, whether it is explicit, nothing. */
static void expect_registers(uint32_t wanted[WORDS], const cluster_grid *g, int cluster, int rank)
{
    memset(wanted, 0, WORDS * sizeof *wanted);
    for (int i = 0; i < 3; i++) {
        wanted[i] = (uint32_t)(cluster % g->clusters[i]);
        wanted[4 + i] = (uint32_t)g->clusters[i];
        wanted[8 + i] = (uint32_t)(rank % g->cluster[i]);
        wanted[12 + i] = (uint32_t)g->cluster[i];
        cluster /= g->clusters[i];
        rank /= g->cluster[i];
    }
}

static void check_registers(const cluster_grid *g)
{
    static uint32_t out[MOST_BLOCKS][32][WORDS];
    ptx_text t = {0};
    emit(&t, "mad.wide.u32 %%rd0, %%thread, %d, %%out;\n", 4 * WORDS);
    for (int i = 0; i < 4 * VECTORS; i++)
        emit(&t, "mov.u32 %%r0, %s.%c; st.global.u32 [%%rd0+%d], %%r0;\n", vectors[i / 4],
             "xyzw"[i % 4], 4 * i);
    emit(&t, "mov.u32 %%r0, %%cluster_ctarank; mov.u32 %%r1, %%cluster_nctarank; "
             "mov.pred %%p0, %%is_explicit_cluster; selp.u32 %%r2, 1, 0, %%p0;\n"
             "st.global.v2.u32 [%%rd0+64], {%%r0, %%r1}; st.global.u32 [%%rd0+72], %%r2;\n");
    cluster_run(g, &t, &(cluster_memory){"", 0, out, sizeof out[0]}, NULL);
    int size = cluster_size(g);
    for (int b = 0; b < size * cluster_count(g); b++)
        for (int thread = 0; thread < g->threads; thread++) {
            uint32_t wanted[WORDS];
            expect_registers(wanted, g, b / size, b % size);
            wanted[16] = (uint32_t)(b % size);
            wanted[17] = (uint32_t)size;
            wanted[18] = g->origin != BY_NOBODY;
            for (int i = 0; i < WORDS; i++)
                cr_assert_eq(out[b][thread][i], wanted[i], "%s: word %d of block %d is %u, not %u",
                             cluster_name(g), i, b, out[b][thread][i], wanted[i]);
        }
}

static void check_origins(cluster_grid g)
{
    for (int origin = BY_KERNEL; origin <= BY_NOBODY; origin++) {
        g.origin = (cluster_origin)origin;
        for (int i = 0; i < 3; i++)
            g.clusters[i] = between(1, 2);
        if (origin != BY_NOBODY || cluster_size(&g) == 1)
            check_registers(&g);
    }
}

Test(isa_cluster, registers_say_which_cluster_and_which_of_its_blocks)
{
    random_start(1);
    for (int x = 1; x <= CLUSTER_BLOCKS; x++)
        for (int y = 1; x * y <= CLUSTER_BLOCKS; y++)
            for (int z = 1; x * y * z <= CLUSTER_BLOCKS; z++)
                check_origins((cluster_grid){.cluster = {x, y, z}, .threads = 32});
}

/* ---- addresses ------------------------------------------------------------------------------- */

/* How %r0's part of `shared` is found, and how a word is read and the rank is asked there. */
typedef struct address_form {
    const char *map, *load, *rank;
} address_form;

static const address_form address_forms[] = {
    {"mapa.shared::cluster.u32 %r1, shared, %r0;", "ld.shared::cluster.b32 %r2, [%r1+128];",
     "getctarank.shared::cluster.u32 %r3, %r1;"},
    {"mapa.shared::cluster.u32 %r1, shared+128, %r0;", "ld.shared::cluster.b32 %r2, [%r1];",
     "getctarank.shared::cluster.u32 %r3, %r1;"},
    {"mov.u32 %r4, shared; mapa.shared::cluster.u32 %r1, %r4, %r0;",
     "ld.shared::cluster.b32 %r2, [%r1+128];", "getctarank.shared::cluster.u32 %r3, %r1;"},
    {"mapa.shared::cluster.u64 %rd1, shared, %r0;", "ld.shared::cluster.b32 %r2, [%rd1+128];",
     "getctarank.shared::cluster.u64 %r3, %rd1;"},
    {"mapa.shared::cluster.u64 %rd1, shared+128, %r0;", "ld.shared::cluster.b32 %r2, [%rd1];",
     "getctarank.shared::cluster.u64 %r3, %rd1;"},
    {"mov.u64 %rd2, shared; mapa.shared::cluster.u64 %rd1, %rd2, %r0;",
     "ld.shared::cluster.b32 %r2, [%rd1+128];", "getctarank.shared::cluster.u64 %r3, %rd1;"},
    {"cvta.shared.u64 %rd2, shared; mapa.u64 %rd1, %rd2, %r0;", "ld.b32 %r2, [%rd1+128];",
     "getctarank.u64 %r3, %rd1;"},
    /* between the spaces, and from a block that is not this one */
    {"mapa.shared::cluster.u64 %rd2, shared, %r0; cvta.shared::cluster.u64 %rd1, %rd2;",
     "ld.b32 %r2, [%rd1+128];", "getctarank.u64 %r3, %rd1;"},
    {"cvta.shared.u64 %rd2, shared; mapa.u64 %rd2, %rd2, %r0; "
     "cvta.to.shared::cluster.u64 %rd1, %rd2;",
     "ld.shared::cluster.b32 %r2, [%rd1+128];", "getctarank.shared::cluster.u64 %r3, %rd1;"},
    {"mapa.shared::cluster.u32 %r4, shared, %r5; mapa.shared::cluster.u32 %r1, %r4, %r0;",
     "ld.shared::cluster.b32 %r2, [%r1+128];", "getctarank.shared::cluster.u32 %r3, %r1;"},
    {"cvta.shared.u64 %rd2, shared; mapa.u64 %rd2, %rd2, %r5; mapa.u64 %rd1, %rd2, %r0;",
     "ld.b32 %r2, [%rd1+128];", "getctarank.u64 %r3, %rd1;"},
};
enum { FORMS = sizeof address_forms / sizeof address_forms[0], ADDRESS_WORDS = 2 * FORMS + 6 };

/* Per thread: the rank that it looks at, and another; what it finds there. */
static void emit_addresses(ptx_text *t)
{
    emit(t,
         "mad.wide.u32 %%rd8, %%thread, 12, %%in; mad.wide.u32 %%rd9, %%thread, %d, %%out;\n"
         "ld.global.u32 %%r0, [%%rd8]; ld.global.u32 %%r5, [%%rd8+4]; ld.global.u32 %%r6, "
         "[%%rd8+8];\n"
         "mov.u32 %%r7, shared; mad.lo.u32 %%r7, %%thread, 4, %%r7; st.shared.b32 [%%r7+128], "
         "%%r6;\n" CLUSTER_BARRIER "mul.lo.u32 %%r8, %%thread, 4; cvt.u64.u32 %%rd10, %%r8;\n",
         4 * ADDRESS_WORDS);
    for (int i = 0; i < FORMS; i++) {
        bool narrow = strstr(address_forms[i].load, "[%r1") != NULL;
        emit(t, "%s %s %s %s st.global.u32 [%%rd9+%d], %%r2; st.global.u32 [%%rd9+%d], %%r3;\n",
             address_forms[i].map, address_forms[i].rank,
             narrow ? "add.u32 %r1, %r1, %r8;" : "add.u64 %rd1, %rd1, %rd10;",
             address_forms[i].load, 8 * i, 8 * i + 4);
    }
    /* variables of the block itself; the last address, which is generic */
    emit(t,
         "getctarank.shared::cluster.u32 %%r1, shared; getctarank.shared::cluster.u64 %%r2, "
         "shared+4; getctarank.u64 %%r3, %%rd1;\n"
         "isspacep.shared::cluster %%p0, %%rd1; selp.u32 %%r4, 1, 0, %%p0; "
         "isspacep.shared::cta %%p0, %%rd1; selp.u32 %%r5, 1, 0, %%p0; "
         "isspacep.shared %%p0, %%rd1; selp.u32 %%r6, 1, 0, %%p0;\n"
         "st.global.v2.u32 [%%rd9+%d], {%%r1, %%r2}; st.global.v2.u32 [%%rd9+%d], {%%r3, %%r4}; "
         "st.global.v2.u32 [%%rd9+%d], {%%r5, %%r6};\n" CLUSTER_BARRIER,
         8 * FORMS, 8 * FORMS + 8, 8 * FORMS + 16);
}

typedef struct looked {
    uint32_t rank, other, word;
} looked;

static void check_addresses(const cluster_grid *g)
{
    static looked in[MOST_BLOCKS][32];
    static uint32_t out[MOST_BLOCKS][32][ADDRESS_WORDS];
    int size = cluster_size(g);
    random_bytes(in, sizeof in);
    for (int b = 0; b < MOST_BLOCKS; b++)
        for (int i = 0; i < 32; i++)
            in[b][i].rank = (uint32_t)below(size), in[b][i].other = (uint32_t)below(size);
    ptx_text t = {0};
    emit_addresses(&t);
    cluster_run(g, &t, &(cluster_memory){in, sizeof in[0], out, sizeof out[0]}, NULL);
    for (int b = 0; b < size * cluster_count(g); b++)
        for (int i = 0; i < 32; i++) {
            uint32_t rank = in[b][i].rank, self = (uint32_t)(b % size), *found = out[b][i];
            uint32_t word = in[b - (int)self + (int)rank][i].word;
            for (int f = 0; f < FORMS; f++)
                cr_assert(found[2 * f] == word && found[2 * f + 1] == rank,
                          "%s: block %d looks at rank %u by '%s': %#x of rank %u, not %#x",
                          cluster_name(g), b, rank, address_forms[f].map, found[2 * f],
                          found[2 * f + 1], word);
            uint32_t wanted[6] = {self, self, rank, 1, rank == self, rank == self};
            for (int k = 0; k < 6; k++)
                cr_assert_eq(found[2 * FORMS + k], wanted[k], "%s: word %d of block %d, rank %u",
                             cluster_name(g), k, b, rank);
        }
}

Test(isa_cluster, addresses_are_mapped_to_every_block_and_tell_whose_they_are)
{
    random_start(2);
    for (int i = 0; i < TURNS; i++) {
        cluster_grid g = cluster_random(32, true);
        check_addresses(&g);
    }
}

/* ---- the cluster's barrier ------------------------------------------------------------------- */

enum { PHASES = 6, RUNNERS = 64 };

static const char *const arrivals[] = {"barrier.cluster.arrive", "barrier.cluster.arrive.release",
                                       "fence.acq_rel.cluster; barrier.cluster.arrive.relaxed",
                                       "fence.sc.cluster; barrier.cluster.arrive.relaxed"};
static const char *const waits[] = {"barrier.cluster.wait", "barrier.cluster.wait.acquire"};

/* Odd and even threads may arrive and wait apart from one another, unless it is aligned. */
static void emit_half(ptx_text *t, const char *what, bool is_aligned, const char *end)
{
    if (is_aligned)
        emit(t, "%s.aligned; %s", what, end);
    else if (below(2))
        emit(t, "%s; %s", what, end);
    else
        emit(t, "@%%p0 bra ODD%zu; %s; bra JOIN%zu; ODD%zu: %s; JOIN%zu: %s", t->length, what,
             t->length, t->length, what, t->length, end);
}

/* A thread's words, one to hand on in each phase, and the phase before which it leaves. */
typedef struct runner {
    uint32_t words[PHASES], leaves;
} runner;

static void emit_phase(ptx_text *t, const cluster_grid *g, int phase, int distance)
{
    int buffer = phase % 2 * RUNNERS * 4;
    bool is_aligned = below(2);
    emit(t,
         "setp.le.u32 %%p1, %%r8, %d; @%%p1 exit; ld.global.u32 %%r1, [%%rd1+%d];\n"
         "add.u32 %%r0, %%rank, %d; rem.u32 %%r0, %%r0, %d; mapa.shared::cluster.u32 %%r2, shared, "
         "%%r0; mad.lo.u32 %%r2, %%thread, 4, %%r2; st.shared::cluster.u32 [%%r2+%d], %%r1;\n",
         phase, 4 * phase, distance, cluster_size(g), buffer);
    emit_half(t, arrivals[below(4)], is_aligned, "\n");
    emit_half(t, waits[below(2)], is_aligned, "\n");
    emit(t,
         "mov.u32 %%r2, shared; mad.lo.u32 %%r2, %%thread, 4, %%r2; ld.shared.u32 %%r1, "
         "[%%r2+%d]; st.global.u32 [%%rd2+%d], %%r1;\n",
         buffer, 4 * phase);
}

/* What threads find in their slots, phase by phase. */
static void hand_on(uint32_t found[][RUNNERS][PHASES], runner in[][RUNNERS], int size,
                    const int *distances)
{
    uint32_t slots[CLUSTER_BLOCKS][2][RUNNERS] = {0};
    for (uint32_t k = 0; k < PHASES; k++) {
        for (int b = 0; b < size; b++)
            for (int i = 0; i < RUNNERS; i++)
                if (k < in[b][i].leaves)
                    slots[(b + distances[k]) % size][k % 2][i] = in[b][i].words[k];
        for (int b = 0; b < size; b++)
            for (int i = 0; i < RUNNERS; i++)
                found[b][i][k] = k < in[b][i].leaves ? slots[b][k % 2][i] : 0;
    }
}

static void check_phases(const cluster_grid *g)
{
    static runner in[MOST_BLOCKS][RUNNERS];
    static uint32_t out[MOST_BLOCKS][RUNNERS][PHASES], wanted[CLUSTER_BLOCKS][RUNNERS][PHASES];
    int size = cluster_size(g), distances[PHASES];
    random_bytes(in, sizeof in);
    for (int b = 0; b < MOST_BLOCKS; b++)
        for (int i = 0; i < RUNNERS; i++)
            in[b][i].leaves = i > 0 && below(3) == 0 ? (uint32_t)below(PHASES) : PHASES;
    ptx_text t = {0};
    emit(&t,
         "mad.wide.u32 %%rd1, %%thread, %zu, %%in; mad.wide.u32 %%rd2, %%thread, %d, %%out;\n"
         "ld.global.u32 %%r8, [%%rd1+%d]; and.b32 %%r0, %%thread, 1; setp.eq.u32 %%p0, %%r0, 1;\n"
         "mov.u32 %%r2, shared; mad.lo.u32 %%r2, %%thread, 4, %%r2; mov.u32 %%r0, 0; "
         "st.shared.u32 [%%r2], %%r0; st.shared.u32 [%%r2+%d], %%r0;\n" CLUSTER_BARRIER,
         sizeof(runner), 4 * PHASES, 4 * PHASES, 4 * RUNNERS);
    for (int k = 0; k < PHASES; k++) {
        distances[k] = below(size);
        emit_phase(&t, g, k, distances[k]);
    }
    emit(&t, CLUSTER_BARRIER);
    cluster_run(g, &t, &(cluster_memory){in, sizeof in[0], out, sizeof out[0]}, NULL);
    for (int c = 0; c < cluster_count(g); c++) {
        hand_on(wanted, in + c * size, size, distances);
        for (int b = 0; b < size; b++)
            for (int i = 0; i < RUNNERS; i++)
                cr_assert_arr_eq(out[c * size + b][i], wanted[b][i], sizeof wanted[b][i],
                                 "%s: thread %d of block %d\n%s", cluster_name(g), i, b, t.at);
    }
}

Test(isa_cluster, the_barrier_orders_what_all_blocks_did_and_does_not_wait_for_threads_that_left)
{
    random_start(6);
    for (int i = 0; i < 2 * TURNS; i++) {
        cluster_grid g = cluster_random(RUNNERS, true);
        check_phases(&g);
    }
}
