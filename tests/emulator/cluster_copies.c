/*
 * cluster_copies.c: mbarriers and bulk copies that reach other blocks of a cluster. Run with
 * MMLP_EMULATOR_CHECK=race, with copies that land at once and at the last moment.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "kernel.h"
#include "under_schedule.h"

enum { SCHEDULES = 50 };

static uint32_t in[WORDS];

static void fill_input(void)
{
    for (uint32_t i = 0; i < WORDS; i++)
        in[i] = i * 2654435761u;
    kernel_clusters(2);
}
TestSuite(cluster_copies, .init = fill_input);

#define MEET "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;\n"
/* %r10 and %r11: the rank, and that of the other block; %p1: the first thread. An mbarrier at 8192
 * for so many arrivals, which both blocks know. */
#define INIT(count)                                                                                \
    "mov.u32 %r10, %cluster_ctarank; xor.b32 %r11, %r10, 1; mov.u32 %r0, shared;\n"                \
    "setp.eq.u32 %p1, %thread, 0; setp.eq.u32 %p2, %r10, 0; and.pred %p2, %p2, %p1;\n"             \
    "@%p1 mbarrier.init.shared.b64 [shared+8192], " count ";\n"                                    \
    "fence.mbarrier_init.release.cluster;\n"                                                       \
    "barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned;\n"                      \
    "mapa.shared::cluster.u32 %r12, %r0, %r11;\n"
#define EXPECT(bytes)                                                                              \
    "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [shared+8192], " bytes ";\n"
#define WAIT(words, parity)                                                                        \
    "{ again: mbarrier.try_wait.parity." words "shared::cta.b64 %p0, [shared+8192], " parity       \
    "; @!%p0 bra again; }\n"
/* Every thread's word of shared memory goes to word (number of the thread in the grid) of `out`. */
#define KEEP                                                                                       \
    "mad.lo.u32 %r1, %thread, 4, %r0; ld.shared.u32 %r2, [%r1];\n"                                 \
    "mov.u32 %r20, %ctaid.x; mov.u32 %r21, %ntid.x; mad.lo.u32 %r20, %r20, %r21, %thread;\n"       \
    "mul.wide.u32 %rd0, %r20, 4; add.s64 %rd0, %rd0, %out; st.global.u32 [%rd0], %r2;\n"
#define LOAD "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
#define PEER "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes"
/* Every thread writes its word: 1000 times the rank, plus the thread. */
#define WRITE                                                                                      \
    "mad.lo.u32 %r1, %thread, 4, %r0; mad.lo.u32 %r2, %r10, 1000, %thread;\n"                      \
    "st.shared.u32 [%r1+1024], %r2;\n"

static void expect(const char *name, const char *body, uint32_t (*wanted)(unsigned, unsigned))
{
    enum { THREADS = 64 };
    uint32_t out[2 * THREADS];
    kernel_run(name, body, 2, THREADS, in, sizeof in, out, sizeof out);
    for (unsigned i = 0; i < 2 * THREADS; i++) {
        uint32_t want = wanted(i / THREADS, i % THREADS);
        cr_assert_eq(out[i], want, "%s: thread %u of block %u has %u, not %u", name, i % THREADS,
                     i / THREADS, out[i], want);
    }
}

static uint32_t as_given(unsigned block, unsigned thread)
{
    (void)block;
    return in[thread];
}

static uint32_t halves(unsigned block, unsigned thread)
{
    (void)block;
    return in[thread < 32 ? thread : 64 + thread];
}

static uint32_t from_the_other(unsigned block, unsigned thread)
{
    return (block ^ 1) * 1000 + thread;
}

Test(cluster_copies, a_multicast_lands_in_every_block)
{
    expect("by one block",
           INIT("1")
               EXPECT("256") "mov.u16 %h0, 3;\n"
                             "@%p2 " LOAD
                             ".multicast::cluster [shared], [%in], 256, [shared+8192], %h0;\n" WAIT(
                                 "", "0") KEEP MEET,
           as_given);
    expect("half by each",
           INIT("1") EXPECT(
               "256") "mov.u16 %h0, 3; mad.lo.u32 %r3, %r10, 128, %r0;\n"
                      "mul.wide.u32 %rd1, %r10, 384; add.s64 %rd1, %rd1, %in;\n"
                      "@%p1 " LOAD
                      ".multicast::cluster [%r3], [%rd1], 128, [shared+8192], %h0;\n" WAIT("", "0")
                          KEEP MEET,
           halves);
    expect("to the other alone",
           INIT("1")
               EXPECT("256") "mov.u32 %r3, 1; shl.b32 %r3, %r3, %r11; cvt.u16.u32 %h0, %r3;\n"
                             "@%p1 " LOAD
                             ".multicast::cluster [shared], [%in], 256, [shared+8192], %h0;\n" WAIT(
                                 "", "0") KEEP MEET,
           as_given);
}

Test(cluster_copies, a_copy_goes_to_another_block)
{
    expect("from global memory",
           INIT("1") EXPECT("256") "@%p1 " LOAD " [%r12], [%in], 256, [%r12+8192];\n" WAIT("", "0")
               KEEP MEET,
           as_given);
    expect("from shared memory",
           INIT("1") EXPECT("256") WRITE
           "fence.proxy.async; bar.sync 0;\n"
           "@%p1 " PEER " [%r12], [shared+1024], 256, [%r12+8192];\n" WAIT("", "0") KEEP MEET,
           from_the_other);
}

#define ST_ASYNC "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes"

Test(cluster_copies, a_store_tells_an_mbarrier_of_another_block)
{
    expect("words",
           INIT("1") EXPECT("256") "mad.lo.u32 %r1, %thread, 4, %r12;\n"
                                   "mad.lo.u32 %r2, %r10, 1000, %thread;\n" ST_ASYNC
                                   ".u32 [%r1], %r2, [%r12+8192];\n" WAIT("", "0") KEEP MEET,
           from_the_other);
    expect("four at a time",
           INIT("1")
               EXPECT("256") "mad.lo.u32 %r1, %thread, 16, %r12; shl.b32 %r2, %thread, 2;\n"
                             "mad.lo.u32 %r2, %r10, 1000, %r2; add.u32 %r3, %r2, 1;\n"
                             "add.u32 %r4, %r2, 2; add.u32 %r5, %r2, 3;\n"
                             "setp.lt.u32 %p3, %thread, 16;\n@%p3 " ST_ASYNC
                             ".v4.b32 [%r1], {%r2, %r3, %r4, %r5}, [%r12+8192];\n" WAIT("", "0")
                                 KEEP MEET,
           from_the_other);
    expect("two of eight bytes",
           INIT("1") EXPECT("256") "mad.lo.u32 %r1, %thread, 16, %r12; shl.b32 %r2, %thread, 2;\n"
                                   "mad.lo.u32 %r2, %r10, 1000, %r2; add.u32 %r3, %r2, 1;\n"
                                   "add.u32 %r4, %r2, 2; add.u32 %r5, %r2, 3;\n"
                                   "mov.b64 %rd1, {%r2, %r3}; mov.b64 %rd2, {%r4, %r5};\n"
                                   "setp.lt.u32 %p3, %thread, 16;\n@%p3 " ST_ASYNC
                                   ".v2.u64 [%r1], {%rd1, %rd2}, [%r12+8192];\n" WAIT("", "0")
                                       KEEP MEET,
           from_the_other);
}

Test(cluster_copies, arrivals_reach_another_block)
{
    expect("all threads at the other's",
           INIT("64") "mad.lo.u32 %r1, %thread, 4, %r12; mad.lo.u32 %r2, %r10, 1000, %thread;\n"
                      "st.shared::cluster.u32 [%r1], %r2;\n"
                      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r12+8192];\n" WAIT(
                          "acquire.cluster.", "0") KEEP MEET,
           from_the_other);
    expect("bytes that another block expects",
           INIT("1") "@%p1 mbarrier.arrive.expect_tx.release.cluster.shared::cluster.b64 _, "
                     "[%r12+8192], 256;\n@%p1 " LOAD
                     " [shared], [%in], 256, [shared+8192];\n" WAIT("", "0") KEEP MEET,
           as_given);
    expect(
        "expect_tx and complete_tx",
        INIT("2") "@%p1 mbarrier.expect_tx.relaxed.cluster.shared::cluster.b64 [%r12+8192], 272;\n"
                  "@%p1 mbarrier.arrive.shared::cluster.b64 _, [%r12+8192];\n"
                  "@%p1 mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [%r12+8192], 16;\n"
                  "@%p1 " LOAD " [shared], [%in], 256, [shared+8192];\n"
                  "@%p1 mbarrier.arrive.shared::cta.b64 _, [shared+8192];\n" WAIT("", "0")
                      KEEP MEET,
        as_given);
}

Test(cluster_copies, what_may_not_be_done)
{
    static const kernel_mistake mistakes[] = {
        {"no such block",
         INIT("1") "mov.u16 %h0, 5;\n"
                   "@%p1 " LOAD ".multicast::cluster [shared], [%in], 256, [shared+8192], %h0;\n",
         32,
         {"multicast to blocks 0x5 of a cluster of 2"}},
        {"no block at all",
         INIT("1") "mov.u16 %h0, 0;\n"
                   "@%p1 " LOAD ".multicast::cluster [shared], [%in], 256, [shared+8192], %h0;\n",
         32,
         {"multicast to blocks 0x0 of a cluster of 2"}},
        {"the mbarrier of another block",
         INIT("1") "@%p2 " LOAD " [%r12], [%in], 256, [shared+8192];\n" MEET,
         32,
         {"cp.async.bulk to block 1 of the cluster tells an mbarrier of block 0"}},
        {"no mbarrier there",
         INIT("1") "@%p1 mbarrier.arrive.shared::cluster.b64 _, [%r12+8200];\n",
         32,
         {"misuse of the mbarrier at 0x2008 (shared) of block", "has not been called there"}},
        {"too many arrivals",
         INIT("2") "@%p2 mbarrier.arrive.shared::cluster.b64 _, [%r12+8192], 3;\n" MEET,
         32,
         {"(shared) of block 1 of the cluster: 3 arrivals, but the phase lacks 2"}},
        {"nobody knows of the init",
         "mov.u32 %r10, %cluster_ctarank; xor.b32 %r11, %r10, 1; mov.u32 %r0, shared;\n"
         "setp.eq.u32 %p1, %thread, 0; @%p1 mbarrier.init.shared.b64 [shared+8192], 1;\n"
         "barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned;\n"
         "mapa.shared::cluster.u32 %r12, %r0, %r11;\n"
         "@%p1 mbarrier.arrive.shared::cluster.b64 _, [%r12+8192];\n" MEET,
         32,
         {"no barrier between this and its mbarrier.init by warp 0"}},
        {"beyond the end of another block",
         INIT("1") "@%p1 " LOAD " [%r12+16256], [%in], 256, [%r12+8192];\n",
         32,
         {"out of bounds: 256 bytes at a shared", "at offset 0x3f80"}},
        {".shared::cta of another block",
         INIT("1") "@%p1 cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [%r12], "
                   "[%in], "
                   "256, [%r12+8192];\n",
         32,
         {"an address of another block, where .shared::cta is wanted"}},
        {"a source that nobody wrote",
         INIT("1") "@%p1 " PEER " [%r12], [shared+1024], 256, [%r12+8192];\n",
         32,
         {"never written: 256 bytes at a shared"}},
        {"a source without a fence",
         INIT("1") EXPECT("128") WRITE
         "bar.sync 0;\n"
         "@%p1 " PEER " [%r12], [shared+1024], 128, [%r12+8192];\n" WAIT("", "0") MEET,
         32,
         {"race: a bulk copy's read after write", "fence.proxy.async"}},
        {"a read before the wait",
         INIT("1") EXPECT(
             "128") "mov.u16 %h0, 3;\n"
                    "@%p2 " LOAD
                    ".multicast::cluster [shared], [%in], 128, [shared+8192], %h0;\n" MEET KEEP,
         32,
         {"(shared)"}},
        {"a store's mbarrier in another block",
         INIT("1") "@%p2 " ST_ASYNC ".u32 [%r12], %r0, [shared+8192];\n" MEET,
         32,
         {"st.async to block 1 of the cluster tells an mbarrier of block 0"}},
        {"a store that is not aligned",
         INIT("1") "@%p1 " ST_ASYNC ".v2.u32 [%r12+4], {%r0, %r0}, [%r12+8192];\n" MEET,
         32,
         {"misaligned: 8 bytes at a shared"}},
        {"a store that is not waited for",
         INIT("1") EXPECT("4") "@%p1 " ST_ASYNC ".u32 [%r12], %r0, [%r12+8192];\n" MEET
                               "@%p1 ld.shared.u32 %r2, [shared];\n" MEET,
         32,
         {"(shared)"}},
        {"arrivals of scope .cta order no blocks",
         INIT("32") "mad.lo.u32 %r1, %thread, 4, %r12; st.shared::cluster.u32 [%r1], %r10;\n"
                    "mbarrier.arrive.release.cta.shared::cluster.b64 _, [%r12+8192];\n" WAIT(
                        "acquire.cluster.", "0") KEEP MEET,
         32,
         {"race: read after write, by another block"}},
        {"waits of scope .cta learn of no other block",
         INIT("32") "mad.lo.u32 %r1, %thread, 4, %r12; st.shared::cluster.u32 [%r1], %r10;\n"
                    "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r12+8192];\n" WAIT(
                        "", "0") KEEP MEET,
         32,
         {"race: read after write, by another block"}},
    };
    kernel_mistakes(mistakes, sizeof mistakes / sizeof *mistakes, in, sizeof in);
}

Test(cluster_copies, a_block_may_not_leave_before_its_visitors)
{
    static const kernel_mistake mistakes[] = {
        {"an arrival",
         INIT("1") "@%p2 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r12+8192];\n",
         32,
         {"exited", "number "}},
        {"a copy",
         INIT("1") "@%p2 " LOAD " [%r12], [%in], 256, [%r12+8192];\n",
         32,
         {"exited", "number "}},
        {"a copy from it",
         INIT("1") WRITE "fence.proxy.async; bar.sync 0;\n"
                         "@%p2 " PEER " [%r12], [shared+1024], 128, [%r12+8192];\n",
         32,
         {"exited", "number "}},
    };
    kernel_mistakes(mistakes, sizeof mistakes / sizeof *mistakes, in, sizeof in);
    expect("whoever waits for the arrival may leave",
           INIT("64") "mad.lo.u32 %r1, %thread, 4, %r12; mad.lo.u32 %r2, %r10, 1000, %thread;\n"
                      "st.shared::cluster.u32 [%r1], %r2;\n"
                      "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r12+8192];\n" WAIT(
                          "acquire.cluster.", "0") KEEP,
           from_the_other);
}

/*
 * A ring of two stages of 256 bytes in both blocks. Warp 0 of each block loads one half of a stage
 * for both; warp 1 of each adds up the stage and tells the producers of both that it is free. Full
 * mbarriers are at 8192, empty ones at 8208. ARRIVALS: at an empty one in a turn; FREE: what a
 * consumer does at the end of a turn.
 */
#define STAGE_OF_TURN                                                                              \
    "and.b32 %r5, %r4, 1; mad.lo.u32 %r6, %r5, 256, %r0; mad.lo.u32 %r7, %r5, 8, %r0;\n"           \
    "add.u32 %r7, %r7, 8192; shr.u32 %r8, %r4, 1; and.b32 %r8, %r8, 1; xor.b32 %r9, %r8, 1;\n"
#define PIPELINE(arrivals, free, at_end)                                                           \
    "mov.u32 %r10, %cluster_ctarank; mov.u32 %r0, shared; mov.u16 %h0, 3; mov.u32 %r4, 0;\n"       \
    "mov.u32 %r30, 0; setp.eq.u32 %p1, %thread, 0; setp.eq.u32 %p3, %thread, 32;\n"                \
    "@!%p1 bra ready;\n"                                                                           \
    "mbarrier.init.shared.b64 [shared+8192], 1; mbarrier.init.shared.b64 [shared+8200], 1;\n"      \
    "mbarrier.init.shared.b64 [shared+8208], " arrivals                                            \
    "; mbarrier.init.shared.b64 [shared+8216], " arrivals ";\n"                                    \
    "fence.mbarrier_init.release.cluster;\n"                                                       \
    "ready: barrier.cluster.arrive.relaxed; barrier.cluster.wait.acquire;\n"                       \
    "setp.ge.u32 %p2, %thread, 32; @%p2 bra consume;\n"                                            \
    "@!%p1 bra done;\n"                                                                            \
    "produce:\n" STAGE_OF_TURN                                                                     \
    "empty: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p0, [%r7+16], %r9;\n"        \
    "@!%p0 bra empty;\n"                                                                           \
    "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r7], 256;\n"                                   \
    "mad.lo.u32 %r12, %r10, 128, %r6; mad.lo.u32 %r13, %r4, 2, %r10;\n"                            \
    "mul.wide.u32 %rd1, %r13, 128; add.s64 %rd1, %rd1, %in;\n" LOAD                                \
    ".multicast::cluster [%r12], [%rd1], 128, [%r7], %h0;\n"                                       \
    "add.u32 %r4, %r4, 1; setp.lt.u32 %p0, %r4, 8; @%p0 bra produce; bra done;\n"                  \
    "consume:\n" STAGE_OF_TURN                                                                     \
    "full: mbarrier.try_wait.parity.shared::cta.b64 %p0, [%r7], %r8; @!%p0 bra full;\n"            \
    "and.b32 %r14, %thread, 31; mad.lo.u32 %r14, %r14, 8, %r6;\n"                                  \
    "ld.shared.v2.u32 {%r15, %r16}, [%r14]; mad.lo.u32 %r30, %r30, 5, %r15;\n"                     \
    "mad.lo.u32 %r30, %r16, 3, %r30; bar.warp.sync 0xffffffff;\n"                                  \
    "mapa.shared::cluster.u32 %r17, %r7, 0; mapa.shared::cluster.u32 %r18, %r7, 1;\n" free         \
    "add.u32 %r4, %r4, 1; setp.lt.u32 %p0, %r4, 8; @%p0 bra consume;\n"                            \
    "mov.u32 %r20, %ctaid.x; mad.lo.u32 %r20, %r20, 32, %thread; sub.u32 %r20, %r20, 32;\n"        \
    "mul.wide.u32 %rd0, %r20, 4; add.s64 %rd0, %rd0, %out; st.global.u32 [%rd0], %r30;\n"          \
    "done:\n" at_end
#define ARRIVE_AT(order, address)                                                                  \
    "@%p3 mbarrier.arrive." order ".shared::cluster.b64 _, [" address "+16];\n"
#define LEAVE "barrier.cluster.arrive; barrier.cluster.wait;\n"

static uint32_t sum_of(unsigned thread)
{
    uint32_t sum = 0;
    for (unsigned turn = 0; turn < 8; turn++)
        sum = sum * 5 + in[turn * 64 + 2 * thread] + 3 * in[turn * 64 + 2 * thread + 1];
    return sum;
}

static const char *schedule_word(int i)
{
    static char word[64];
    snprintf(word, sizeof word, "%d,quantum=%d,copies=%s", i, 1 + i * i % 97,
             i % 2 ? "late" : "issue");
    return word;
}

Test(cluster_copies, a_ring_of_stages_gives_the_same_under_every_schedule, .timeout = 120)
{
    static const program ring = {
        "ring",
        PIPELINE("2", ARRIVE_AT("release.cluster", "%r17") ARRIVE_AT("release.cluster", "%r18"),
                 LEAVE),
        2, 64};
    uint32_t wanted[64];
    for (unsigned i = 0; i < 64; i++)
        wanted[i] = sum_of(i % 32);
    for (int i = 0; i < SCHEDULES; i++) {
        outcome o = run_under(&ring, in, schedule_word(i), "1");
        cr_assert(has_words(&o, wanted, 64), "%s: %s", schedule_word(i), o.report);
    }
}

/* In how many of the schedules the report has the words. */
static int count_reports(const program *p, const char *words)
{
    int count = 0;
    for (int i = 0; i < SCHEDULES; i++) {
        outcome o = run_under(p, in, schedule_word(i), "1");
        count += strstr(o.report, words) != NULL;
    }
    return count;
}

Test(cluster_copies, a_stage_that_is_freed_for_its_own_block_alone_is_a_race, .timeout = 120)
{
    static const program own = {
        "own", PIPELINE("1", "@%p3 mbarrier.arrive.shared::cta.b64 _, [%r7+16];\n", LEAVE), 2, 64};
    static const program narrow = {
        "narrow",
        PIPELINE("2", ARRIVE_AT("release.cta", "%r17") ARRIVE_AT("release.cta", "%r18"), LEAVE), 2,
        64};
    static const program relaxed = {
        "relaxed",
        PIPELINE("2", ARRIVE_AT("relaxed.cluster", "%r17") ARRIVE_AT("relaxed.cluster", "%r18"),
                 LEAVE),
        2, 64};
    cr_expect_gt(count_reports(&own, "race: a bulk copy's write after read, by another block"),
                 SCHEDULES / 8);
    cr_expect_eq(count_reports(&narrow, "race: a bulk copy's write after read, by another block"),
                 SCHEDULES);
    /* Of ordinary reads a relaxed message does not say that they are over. */
    cr_expect_eq(count_reports(&relaxed, "race: a bulk copy's write after read"), SCHEDULES);
}

Test(cluster_copies, leaving_the_ring_too_early_is_found_under_every_schedule, .timeout = 120)
{
    static const program early = {
        "early",
        PIPELINE("2", ARRIVE_AT("release.cluster", "%r17") ARRIVE_AT("release.cluster", "%r18"),
                 ""),
        2, 64};
    cr_expect_eq(count_reports(&early, "exited"), SCHEDULES);
}
