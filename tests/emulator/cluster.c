/*
 * cluster.c: clusters of blocks: how they are numbered, the shared memory that they have of each
 * other, and their barrier. Run with MMLP_EMULATOR_CHECK=race, under several schedules.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "device.h"
#include "kernel.h"

enum { WORDS = 256 };

static uint32_t in[WORDS];

static void fill_input(void)
{
    for (uint32_t i = 0; i < WORDS; i++)
        in[i] = i * 2654435761u;
    kernel_clusters(2);
}
TestSuite(cluster, .init = fill_input);

#define MEET  "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;\n"
#define RANK  "mov.u32 %r10, %cluster_ctarank; xor.b32 %r11, %r10, 1; mov.u32 %r0, shared;\n"
#define FIRST "setp.eq.u32 %p1, %thread, 0;\n"
/* %r2 goes to word (number of the thread in the grid) of `out`. */
#define KEEP                                                                                       \
    "mov.u32 %r20, %ctaid.x; mov.u32 %r21, %ntid.x; mad.lo.u32 %r20, %r20, %r21, %thread;\n"       \
    "mul.wide.u32 %rd0, %r20, 4; add.s64 %rd0, %rd0, %out; st.global.u32 [%rd0], %r2;\n"
/* Every thread writes its own word of shared memory: 1000 times the rank, plus the thread. */
#define WRITE                                                                                      \
    RANK "mad.lo.u32 %r1, %thread, 4, %r0; mad.lo.u32 %r2, %r10, 1000, %thread;\n"                 \
         "st.shared.u32 [%r1], %r2;\n"

static void expect(const char *name, const char *body, unsigned blocks, unsigned threads,
                   uint32_t (*wanted)(unsigned block, unsigned thread))
{
    uint32_t out[WORDS];
    kernel_run(name, body, blocks, threads, in, sizeof in, out, sizeof out);
    for (unsigned i = 0; i < blocks * threads; i++) {
        uint32_t want = wanted(i / threads, i % threads);
        cr_assert_eq(out[i], want, "%s: thread %u of block %u has %u, not %u", name, i % threads,
                     i / threads, out[i], want);
    }
}

static uint32_t of_the_other(unsigned block, unsigned thread)
{
    return (block % 2 ^ 1) * 1000 + thread;
}

static uint32_t its_own(unsigned block, unsigned thread)
{
    return block % 2 * 1000 + thread;
}

static uint32_t packed_numbers(unsigned block, unsigned thread)
{
    (void)thread;
    return block / 4 << 24 | 2 << 16 | (block % 4) << 8 | 4;
}

static uint32_t ones(unsigned block, unsigned thread)
{
    (void)block, (void)thread;
    return 1;
}

Test(cluster, blocks_have_numbers_in_it)
{
    kernel_clusters(4);
    expect("of x",
           "mov.u32 %r0, %clusterid.x; mov.u32 %r1, %nclusterid.x; mov.u32 %r3, %cluster_ctaid.x;\n"
           "mov.u32 %r4, %cluster_nctaid.x; shl.b32 %r2, %r0, 24; shl.b32 %r1, %r1, 16;\n"
           "shl.b32 %r3, %r3, 8; or.b32 %r2, %r2, %r1; or.b32 %r2, %r2, %r3; or.b32 %r2, %r2, "
           "%r4;\n" KEEP,
           8, 16, packed_numbers);
    expect("ranks",
           "mov.u32 %r0, %clusterid.x; mov.u32 %r1, %nclusterid.x; mov.u32 %r3, %cluster_ctarank;\n"
           "mov.u32 %r4, %cluster_nctarank; shl.b32 %r2, %r0, 24; shl.b32 %r1, %r1, 16;\n"
           "shl.b32 %r3, %r3, 8; or.b32 %r2, %r2, %r1; or.b32 %r2, %r2, %r3; or.b32 %r2, %r2, "
           "%r4;\n" KEEP,
           8, 16, packed_numbers);
    expect("explicit", "mov.pred %p0, %is_explicit_cluster; selp.u32 %r2, 1, 0, %p0;\n" KEEP, 4, 32,
           ones);
}

Test(cluster, blocks_read_and_write_each_others_shared_memory)
{
    expect("a load, 32 bits",
           WRITE MEET "mapa.shared::cluster.u32 %r3, %r1, %r11;\n"
                      "ld.shared::cluster.u32 %r2, [%r3];\n" MEET KEEP,
           2, 64, of_the_other);
    expect("a generic load",
           WRITE MEET "cvt.u64.u32 %rd1, %r1; cvta.shared.u64 %rd1, %rd1;\n"
                      "mapa.u64 %rd2, %rd1, %r11; ld.u32 %r2, [%rd2];\n" MEET KEEP,
           4, 64, of_the_other);
    expect("its own, as the cluster's",
           WRITE MEET "mapa.shared::cluster.u32 %r3, %r1, %r10;\n"
                      "ld.shared::cluster.u32 %r2, [%r3]; ld.shared.u32 %r2, [%r3];\n"
                      "ld.shared::cluster.u32 %r2, [%r1];\n" MEET KEEP,
           2, 64, its_own);
    expect("a store",
           RANK MEET
           "mad.lo.u32 %r1, %thread, 4, %r0; mapa.shared::cluster.u32 %r3, %r1, %r11;\n"
           "mad.lo.u32 %r2, %r10, 1000, %thread; st.shared::cluster.u32 [%r3], %r2;\n" MEET
           "ld.shared.u32 %r2, [%r1];\n" KEEP,
           2, 64, of_the_other);
    expect("lanes of both blocks",
           WRITE MEET "and.b32 %r4, %thread, 1; mapa.shared::cluster.u32 %r3, %r1, %r4;\n"
                      "ld.shared::cluster.u32 %r2, [%r3]; mad.lo.u32 %r4, %r4, 1000, %thread;\n"
                      "sub.u32 %r2, %r2, %r4; add.u32 %r2, %r2, 1;\n" MEET KEEP,
           2, 64, ones);
}

static uint32_t all_threads(unsigned block, unsigned thread)
{
    (void)block, (void)thread;
    return 128;
}

Test(cluster, atomics_reach_other_blocks)
{
    expect("all count in block 0",
           RANK FIRST "mov.u32 %r1, 0; @%p1 st.shared.u32 [%r0], %r1;\n" MEET
                      "mapa.shared::cluster.u32 %r3, %r0, %r1;\n"
                      "atom.shared::cluster.add.u32 %r4, [%r3], 1;\n" MEET
                      "ld.shared::cluster.u32 %r2, [%r3];\n" MEET KEEP,
           2, 64, all_threads);
    expect("a reduction, generic",
           RANK FIRST "mov.u32 %r1, 0; @%p1 st.shared.u32 [%r0], %r1;\n" MEET
                      "cvt.u64.u32 %rd1, %r0; cvta.shared.u64 %rd1, %rd1; mapa.u64 %rd2, %rd1, 1;\n"
                      "red.add.u32 [%rd2], 1;\n" MEET "ld.u32 %r2, [%rd2];\n" MEET KEEP,
           2, 64, all_threads);
}

Test(cluster, addresses_tell_whose_they_are)
{
    expect("getctarank",
           RANK
           "mapa.shared::cluster.u32 %r3, %r0, %r11; getctarank.shared::cluster.u32 %r2, %r3;\n"
           "getctarank.shared::cluster.u32 %r4, %r0; sub.u32 %r2, %r2, %r11; sub.u32 %r4, %r4, "
           "%r10;\n"
           "or.b32 %r2, %r2, %r4; add.u32 %r2, %r2, 1;\n" KEEP,
           2, 32, ones);
    expect("isspacep",
           RANK "cvt.u64.u32 %rd1, %r0; cvta.shared.u64 %rd1, %rd1; mapa.u64 %rd2, %rd1, %r11;\n"
                "isspacep.shared::cluster %p2, %rd2; isspacep.shared::cta %p3, %rd2;\n"
                "isspacep.shared %p4, %rd1; not.pred %p3, %p3; and.pred %p2, %p2, %p3;\n"
                "and.pred %p2, %p2, %p4; selp.u32 %r2, 1, 0, %p2;\n" KEEP,
           2, 32, ones);
}

Test(cluster, a_cluster_of_one_block_is_a_block)
{
    kernel_clusters(1);
    expect("mapa to itself",
           WRITE "mapa.shared::cluster.u32 %r3, %r1, 0; ld.shared::cluster.u32 %r2, [%r3];\n" MEET
                 "mad.lo.u32 %r4, %r10, 1000, %thread; sub.u32 %r2, %r2, %r4; add.u32 %r2, %r2, "
                 "1;\n" KEEP,
           4, 32, ones);
}

/* Threads that have exited are not waited for; arrivals and waits may lie apart and in a part of a
 * warp. */
Test(cluster, its_barrier_is_met_by_all_that_run)
{
    expect("half of the threads leave",
           WRITE
           "setp.ge.u32 %p0, %thread, 32; mov.u32 %r2, 7; @%p0 bra leave;\n" MEET
           "mapa.shared::cluster.u32 %r3, %r1, %r11;\n"
           "ld.shared::cluster.u32 %r2, [%r3];\n" MEET
           "mad.lo.u32 %r4, %r11, 1000, %thread; sub.u32 %r2, %r2, %r4; add.u32 %r2, %r2, 1;\n"
           "bra keep;\nleave: mov.u32 %r2, 1;\nkeep:\n" KEEP,
           2, 64, ones);
    expect(
        "lanes one by one",
        WRITE
        "and.b32 %r4, %thread, 1; setp.eq.u32 %p0, %r4, 0; @%p0 bra even;\n"
        "barrier.cluster.arrive; bra all;\n"
        "even: barrier.cluster.arrive.release;\nall: barrier.cluster.wait.acquire;\n"
        "mapa.shared::cluster.u32 %r3, %r1, %r11; ld.shared::cluster.u32 %r2, [%r3];\n" MEET KEEP,
        2, 64, of_the_other);
    expect("many phases",
           WRITE "mov.u32 %r5, 0;\nnext:\n" MEET "mapa.shared::cluster.u32 %r3, %r1, %r11;\n"
                 "ld.shared::cluster.u32 %r2, [%r3];\n" MEET "st.shared.u32 [%r1], %r2;\n"
                 "add.u32 %r5, %r5, 1; setp.lt.u32 %p0, %r5, 9; @%p0 bra next;\n" KEEP,
           2, 64, of_the_other);
}

Test(cluster, what_may_not_be_done)
{
    static const kernel_mistake mistakes[] = {
        {"no block of that rank",
         RANK "mov.u32 %r4, 2; mapa.shared::cluster.u32 %r3, %r0, %r4;\n",
         32,
         {"mapa to block 2 of a cluster of 2", "lanes 0x00000001"}},
        {"another block's bounds",
         RANK MEET "mapa.shared::cluster.u32 %r3, %r0, %r11; st.shared::cluster.u32 [%r3+16384], "
                   "%r0;\n" MEET,
         32,
         {"out of bounds", "at offset 0x4000"}},
        {"another block's alignment",
         RANK MEET
         "mapa.shared::cluster.u32 %r3, %r0, %r11; st.shared::cluster.u32 [%r3+2], %r0;\n" MEET,
         32,
         {"misaligned", "number "}},
        {"never written there",
         RANK
         "st.shared.u32 [%r0], %r0;\n" MEET
         "mapa.shared::cluster.u32 %r3, %r0, %r11; ld.shared::cluster.u32 %r4, [%r3+4];\n" MEET,
         32,
         {"never written", "at offset 0x4"}},
        {".shared::cta",
         RANK MEET "mapa.shared::cluster.u32 %r3, %r0, %r11; st.shared.u32 [%r3], %r0;\n" MEET,
         32,
         {"an address of another block, where .shared::cta is wanted", "number "}},
        {"a block that has exited",
         RANK
         "setp.eq.u32 %p0, %r10, 0; @%p0 exit;\n"
         "mov.u32 %r5, 0;\nspin: add.u32 %r5, %r5, 1; setp.lt.u32 %p0, %r5, 50000; @%p0 bra spin;\n"
         "mapa.shared::cluster.u32 %r3, %r0, %r11; st.shared::cluster.u32 [%r3], %r0;\n",
         32,
         {"shared memory of a block that has exited", "number 0 of the cluster"}},
        {"twice", "barrier.cluster.arrive; barrier.cluster.arrive;\n", 32, {"arrive again"}},
        {"no arrival",
         "barrier.cluster.wait;\n",
         32,
         {"barrier.cluster.wait without barrier.cluster.arrive"}},
        {"half of a warp",
         "setp.lt.u32 %p0, %thread, 16; @%p0 barrier.cluster.arrive.aligned; "
         "barrier.cluster.wait;\n",
         32,
         {"an aligned barrier.cluster in a diverged warp"}},
        {"one block does not come",
         RANK "setp.eq.u32 %p0, %r10, 0; @%p0 bra other;\n" MEET "exit;\n"
              "other: setp.lt.u32 %p2, %thread, 32; @%p2 bar.sync 1, 64;\n",
         64,
         {"deadlock: no warp of the cluster can go on", "number 1 of the cluster"}},
    };
    kernel_mistakes(mistakes, sizeof mistakes / sizeof *mistakes, in, sizeof in);
}

Test(cluster, what_races)
{
    static const kernel_mistake mistakes[] = {
        {"no barrier",
         WRITE "mapa.shared::cluster.u32 %r3, %r1, %r11; st.shared::cluster.u32 [%r3], %r2;\n" MEET,
         32,
         {"race: write after write, by another block", "wanted is barrier.cluster"}},
        {"a relaxed arrival",
         WRITE "barrier.cluster.arrive.relaxed; barrier.cluster.wait;\n"
               "mapa.shared::cluster.u32 %r3, %r1, %r11; ld.shared::cluster.u32 %r2, [%r3];\n" MEET,
         32,
         {"race: read after write, by another block"}},
        {"a block's barrier",
         WRITE "bar.sync 0; mapa.shared::cluster.u32 %r3, %r1, %r11;\n"
               "st.shared::cluster.u32 [%r3], %r2;\n" MEET,
         32,
         {"race:", "by another block"}},
        {"atomics of scope .cta",
         RANK FIRST "mov.u32 %r1, 0; @%p1 st.shared.u32 [%r0], %r1;\n" MEET
                    "mapa.shared::cluster.u32 %r3, %r0, 0;\n"
                    "red.relaxed.cta.shared::cluster.add.u32 [%r3], 1;\n" MEET,
         32,
         {"race: atomic after atomic, by another block", "needs .cluster or .gpu"}},
    };
    kernel_mistakes(mistakes, sizeof mistakes / sizeof *mistakes, in, sizeof in);
    expect("atomics of scope .cluster",
           RANK FIRST "mov.u32 %r1, 0; @%p1 st.shared.u32 [%r0], %r1;\n" MEET
                      "mapa.shared::cluster.u32 %r3, %r0, %r1;\n"
                      "red.relaxed.cluster.shared::cluster.add.u32 [%r3], 1;\n" MEET
                      "ld.shared::cluster.u32 %r2, [%r3];\n" MEET KEEP,
           2, 64, all_threads);
    expect("a fence before a relaxed arrival",
           WRITE "fence.acq_rel.cluster; barrier.cluster.arrive.relaxed; barrier.cluster.wait;\n"
                 "mapa.shared::cluster.u32 %r3, %r1, %r11; ld.shared::cluster.u32 %r2, "
                 "[%r3];\n" MEET KEEP,
           2, 64, of_the_other);
}

/* A flag in shared memory: block 0 writes a word of block 1 and raises it. */
#define FLAG(scope)                                                                                \
    RANK FIRST "mov.u32 %r1, 0; @%p1 st.shared.u32 [%r0+4], %r1;\n" MEET                           \
               "mov.u32 %r2, 77; setp.eq.u32 %p2, %r10, 0; @%p2 bra give;\n"                       \
               "spin: ld.acquire." scope ".shared::cluster.u32 %r3, [%r0+4]; setp.eq.u32 %p0, "    \
               "%r3, 0;\n"                                                                         \
               "@%p0 bra spin; ld.shared.u32 %r2, [%r0]; bra done;\n"                              \
               "give: mapa.shared::cluster.u32 %r4, %r0, 1;\n"                                     \
               "@%p1 st.shared::cluster.u32 [%r4], %r2; mov.u32 %r5, 1;\n"                         \
               "@%p1 st.release." scope ".shared::cluster.u32 [%r4+4], %r5;\ndone:\n" MEET

static uint32_t the_given(unsigned block, unsigned thread)
{
    (void)block, (void)thread;
    return 77;
}

Test(cluster, flags_order_blocks)
{
    static const kernel_mistake narrow[] = {
        {"of scope .cta", FLAG("cta"), 32, {"race:", "by another block"}}};
    expect("of scope .cluster", FLAG("cluster") KEEP, 2, 32, the_given);
    kernel_mistakes(narrow, 1, in, sizeof in);
}

Test(cluster, grids_wait_for_nothing)
{
    expect("griddepcontrol",
           "griddepcontrol.wait;\n" WRITE "griddepcontrol.launch_dependents;\n" KEEP, 2, 32,
           its_own);
}

Test(cluster, a_block_may_not_leave_before_its_visitors)
{
    static const kernel_mistake mistakes[] = {
        {"a store",
         RANK MEET "setp.eq.u32 %p0, %r10, 0; @!%p0 exit;\n"
                   "mapa.shared::cluster.u32 %r3, %r0, %r11; st.shared::cluster.u32 [%r3], %r0;\n",
         32,
         {"exited", "number "}},
        {"a load, and a block's barrier",
         RANK FIRST "@%p1 st.shared.u32 [%r0], %r0;\n" MEET
                    "setp.eq.u32 %p0, %r10, 0; @!%p0 bra late;\n"
                    "mapa.shared::cluster.u32 %r3, %r0, %r11; ld.shared::cluster.u32 %r2, [%r3];\n"
                    "late: bar.sync 0;\n",
         32,
         {"exited", "number "}},
    };
    kernel_mistakes(mistakes, sizeof mistakes / sizeof *mistakes, in, sizeof in);
}
