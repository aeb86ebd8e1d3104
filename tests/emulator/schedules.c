/*
 * schedules.c: what a schedule decides: textbook mistakes that some orders hide and others expose,
 * and that a run is repeated by its word.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "under_schedule.h"

/* ---- mistakes ------------------------------------------------------------------------------ */

/* How many of the schedules give the words; the others fault or give others. */
static int count_right(const program *p, const uint32_t in[WORDS], const uint32_t *wanted,
                       size_t words, const char *const schedules[], size_t count)
{
    int right = 0;
    for (size_t i = 0; i < count; i++) {
        outcome o = run_under(p, in, schedules[i], "1");
        right += has_words(&o, wanted, words);
        if (o.result != CUDA_SUCCESS) {
            char line[128];
            snprintf(line, sizeof line, "repeat      MMLP_EMULATOR_SCHEDULE=%s\n", schedules[i]);
            cr_expect(strstr(o.report, line), "%s: '%s' is not in\n%s", p->name, line, o.report);
        }
    }
    return right;
}

/* The first warp writes 7 i, the second reads it and stores it. */
#define SECOND_WARP_READS(between)                                                                 \
    WORDS_OF_THREAD                                                                                \
    "mov.u32 %r6, 0; st.shared.u32 [%r2], %r6; bar.sync 0; setp.ge.u32 %p0, %thread, 32; @%p0 "    \
    "bra R;\n st.shared.u32 [%r2], %r5;\nR: " between                                              \
    " @!%p0 bra E; ld.shared.u32 %r4, [%r2-128]; st.global.u32 [%rd0-128], %r4;\nE:"

static const char *const orders[] = {
    "0", "1", "2", "3", "4,quantum=1", "5,quantum=7", "6,quantum=block", "7,quantum=block"};
enum { ORDERS = sizeof orders / sizeof orders[0] };

Test(schedules, a_missing_barrier_is_hidden_by_some_orders_and_exposed_by_others)
{
    static const program missing = {"no barrier", SECOND_WARP_READS(""), 1, 64};
    static const program there = {"a barrier", SECOND_WARP_READS("bar.sync 0;"), 1, 64};
    static const uint32_t in[WORDS];
    uint32_t wanted[32];
    for (unsigned i = 0; i < 32; i++)
        wanted[i] = 7 * i;
    int right = count_right(&missing, in, wanted, 32, orders, ORDERS);
    cr_expect(0 < right && right < ORDERS, "%d of %d orders hide it", right, ORDERS);
    cr_expect_eq(count_right(&there, in, wanted, 32, orders, ORDERS), ORDERS);
}

Test(schedules, a_barrier_between_copy_and_wait_is_exposed_by_some_orders)
{
    /* the first warp waits for its copies only after the barrier that should publish them */
#define COPIES(first, then)                                                                        \
    WORDS_OF_THREAD                                                                                \
    "setp.ge.u32 %p0, %thread, 32; @%p0 bra R;\n"                                                  \
    "cp.async.ca.shared.global [%r2], [%rd1], 4; cp.async.commit_group;\nR: " first " " then       \
    " @!%p0 bra E; ld.shared.u32 %r4, [%r2-128]; st.global.u32 [%rd0-128], %r4;\nE:"
    static const program late = {"wait after barrier",
                                 COPIES("bar.sync 0;", "cp.async.wait_group 0;"), 1, 64};
    static const program right_order = {"wait before barrier",
                                        COPIES("cp.async.wait_group 0;", "bar.sync 0;"), 1, 64};
    uint32_t in[WORDS];
    for (unsigned i = 0; i < WORDS; i++)
        in[i] = 3 * i + 1;
    int right = count_right(&late, in, in, 32, orders, ORDERS);
    cr_expect(0 < right && right < ORDERS, "%d of %d orders hide it", right, ORDERS);
    cr_expect_eq(count_right(&right_order, in, in, 32, orders, ORDERS), ORDERS);
}

static const char *const at_issue[] = {"0", "1,quantum=1", "2,quantum=block,copies=issue"},
                         *const late_ones[] = {"0,copies=late", "1,quantum=1,copies=late",
                                               "2,quantum=block,copies=late"};

/* Right when copies move at issue, wrong when they move late, under each of three orders. */
static void check_copies(const program *p, int right_at_issue, int right_late)
{
    uint32_t in[WORDS];
    for (unsigned i = 0; i < WORDS; i++)
        in[i] = 3 * i + 1;
    cr_expect_eq(count_right(p, in, in, 32, at_issue, 3), right_at_issue, "%s", p->name);
    cr_expect_eq(count_right(p, in, in, 32, late_ones, 3), right_late, "%s, late", p->name);
}

#define THEN_STORE " ld.shared.u32 %r4, [%r2]; st.global.u32 [%rd0], %r4;"
#define COPY_OWN                                                                                   \
    WORDS_OF_THREAD "cp.async.ca.shared.global [%r2], [%rd1], 4; cp.async.commit_group;\n"

Test(schedules, late_copies_expose_a_source_that_is_written_before_the_wait)
{
    static const program broken = {
        "source overwritten",
        COPY_OWN "st.global.u32 [%rd1], %r5; cp.async.wait_group 0;" THEN_STORE, 1, 32};
    static const program right = {
        "source overwritten later",
        COPY_OWN "cp.async.wait_group 0; st.global.u32 [%rd1], %r5;" THEN_STORE, 1, 32};
    check_copies(&broken, 3, 0);
    check_copies(&right, 3, 3);
}

Test(schedules, late_copies_expose_a_store_under_a_copy)
{
    /* the copy lands on what was stored meanwhile; at issue it was the store that won */
    static const program broken = {
        "target overwritten",
        WORDS_OF_THREAD "ld.global.u32 %r6, [%rd1]; cp.async.ca.shared.global [%r2], [%out], 4;\n"
                        "cp.async.commit_group; st.shared.u32 [%r2], %r6; "
                        "cp.async.wait_group 0;" THEN_STORE,
        1, 32};
    check_copies(&broken, 3, 0);
}

Test(schedules, late_copies_fill_the_rest_with_zeros)
{
    static const program part = {
        "half a copy",
        WORDS_OF_THREAD "mov.u32 %r6, 2; shl.b32 %r7, %thread, 3; add.u32 %r7, %r0, %r7;\n"
                        "cp.async.ca.shared.global [%r7], [%in], 8, %r6; cp.async.wait_all;\n"
                        "ld.shared.v2.u32 {%r4, %r8}, [%r7]; add.u32 %r4, %r4, %r8; "
                        "st.global.u32 [%rd0], %r4;",
        1, 32};
    uint32_t in[WORDS] = {0x12345678, 0x9abcdef0}, wanted[32];
    for (int i = 0; i < 32; i++)
        wanted[i] = 0x5678;
    cr_expect_eq(count_right(&part, in, wanted, 32, at_issue, 3), 3);
    cr_expect_eq(count_right(&part, in, wanted, 32, late_ones, 3), 3);
}

Test(schedules, a_late_copy_that_is_not_waited_for_is_reported)
{
    static const program early = {"read before the wait", COPY_OWN THEN_STORE, 1, 32};
    static const uint32_t in[WORDS];
    for (int i = 0; i < 3; i++) {
        outcome o = run_under(&early, in, late_ones[i], "1");
        cr_expect_eq(o.result, CUDA_ERROR_LAUNCH_FAILED);
        cr_expect(strstr(o.report, "a cp.async of this warp into it is not waited for"), "%s",
                  o.report);
    }
}

Test(schedules, the_highest_lane_may_be_elected)
{
    /* the leader stores for the warp, as if it were lane 0 */
    static const program wrong = {
        "leader 0", WORDS_OF_THREAD "elect.sync %r3|%p1, -1; @%p1 st.global.u32 [%rd0], 77;", 1,
        32};
    static const char *const low[] = {"0", "1,elect=low"}, *const high[] = {"0,elect=high"};
    static const uint32_t in[WORDS];
    uint32_t wanted[32] = {77};
    cr_expect_eq(count_right(&wrong, in, wanted, 32, low, 2), 2);
    cr_expect_eq(count_right(&wrong, in, wanted, 32, high, 1), 0);
    uint32_t last[32] = {[31] = 77};
    cr_expect_eq(count_right(&wrong, in, last, 32, high, 1), 1);
}

Test(schedules, a_brief_wait_exposes_a_try_wait_that_is_not_repeated)
{
    /* the second warp arrives, the first stores what it was told */
#define WAIT_AND_STORE(again)                                                                      \
    WORDS_OF_THREAD                                                                                \
    "setp.eq.u32 %p2, %thread, 0; @%p2 mbarrier.init.shared.b64 [shared+1024], 32; bar.sync 0;\n"  \
    "setp.ge.u32 %p0, %thread, 32; @%p0 bra A;\n"                                                  \
    "L: mbarrier.try_wait.parity.shared.b64 %p1, [shared+1024], 0;" again                          \
    " selp.u32 %r4, 1, 0, %p1; st.global.u32 [%rd0], %r4; bra E;\n"                                \
    "A: mbarrier.arrive.shared.b64 %rd2, [shared+1024];\nE:"
    static const program once = {"one try_wait", WAIT_AND_STORE(""), 1, 64};
    static const program until = {"try_wait until", WAIT_AND_STORE(" @!%p1 bra L;"), 1, 64};
    static const char *const brief[] = {"0,waits=brief", "1,waits=brief", "2,waits=brief",
                                        "3,waits=brief", "4,waits=brief", "5,waits=brief"};
    enum { BRIEF = sizeof brief / sizeof brief[0] };
    static const uint32_t in[WORDS];
    uint32_t wanted[32];
    for (int i = 0; i < 32; i++)
        wanted[i] = 1;
    cr_expect_eq(count_right(&once, in, wanted, 32, orders, ORDERS), ORDERS);
    cr_expect_lt(count_right(&once, in, wanted, 32, brief, BRIEF), BRIEF);
    cr_expect_eq(count_right(&until, in, wanted, 32, brief, BRIEF), BRIEF);
}

/* ---- repeating ----------------------------------------------------------------------------- */

/* Tickets of one counter in each block: they tell the order in which its warps came. */
static const program tickets = {
    "tickets",
    WORDS_OF_THREAD
    "setp.ne.u32 %p0, %thread, 0; mov.u32 %r6, 0; @!%p0 st.shared.u32 "
    "[shared+1024], %r6; bar.sync 0; mov.u32 %r8, 0;\n"
    "L: atom.shared.add.u32 %r6, [shared+1024], 1; add.u32 %r8, %r8, 1; setp.lt.u32 "
    "%p1, %r8, 9; @%p1 bra L;\n"
    "mov.u32 %r9, %ctaid.x; mad.lo.u32 %r9, %r9, 512, %r1; cvt.u64.u32 %rd2, %r9; "
    "add.u64 %rd0, %out, %rd2; st.global.u32 [%rd0], %r6;",
    4, 128};

Test(schedules, a_run_is_a_function_of_the_word_and_the_block)
{
    static const char *const words[] = {"0",           "3",           "3,quantum=1",
                                        "3,quantum=7", "4,quantum=7", "3,quantum=block"};
    static const uint32_t in[WORDS];
    outcome of[6];
    for (int i = 0; i < 6; i++) {
        of[i] = run_under(&tickets, in, words[i], "1");
        outcome again = run_under(&tickets, in, words[i], "1"),
                threads = run_under(&tickets, in, words[i], "3");
        cr_assert_eq(of[i].result, CUDA_SUCCESS);
        cr_expect(has_words(&again, of[i].out, WORDS), "%s again", words[i]);
        cr_expect(has_words(&threads, of[i].out, WORDS), "%s with three threads", words[i]);
    }
    for (int i = 0; i < 6; i++) {
        for (int k = 0; k < i; k++)
            cr_expect(!has_words(&of[i], of[k].out, WORDS), "%s is like %s", words[i], words[k]);
    }
}

Test(schedules, the_order_of_blocks_follows_the_seed)
{
    /* a block that counts on the one before it */
    static const program chain = {
        "chain",
        "mov.u32 %r0, %ctaid.x; shl.b32 %r1, %r0, 2; cvt.u64.u32 %rd2, %r1; add.u64 %rd0, %out, "
        "%rd2; mov.u32 %r3, 1;\n"
        "setp.eq.u32 %p0, %r0, 0; @%p0 bra S; ld.global.u32 %r2, [%rd0-4]; add.u32 %r3, %r2, 1;\n"
        "S: st.global.u32 [%rd0], %r3;",
        64, 1};
    static const char *const in_order[] = {"0", "0,quantum=1"}, *const others[] = {"1", "2", "3"};
    static const uint32_t in[WORDS];
    uint32_t wanted[64];
    for (unsigned i = 0; i < 64; i++)
        wanted[i] = i + 1;
    cr_expect_eq(count_right(&chain, in, wanted, 64, in_order, 2), 2);
    cr_expect_eq(count_right(&chain, in, wanted, 64, others, 3), 0);
}

Test(schedules, warps_that_spin_do_not_spin_for_ever)
{
    /* the second warp waits for a flag that the first one sets */
    static const program flag = {
        "flag",
        WORDS_OF_THREAD
        "mov.u32 %r6, 0; st.shared.u32 [%r2], %r6; bar.sync 0; setp.lt.u32 %p0, %thread, 32; @%p0 "
        "bra S;\nL: ld.volatile.shared.u32 %r7, [%r2-128]; setp.eq.u32 %p1, %r7, 0; @%p1 bra L;\n"
        "st.global.u32 [%rd0-128], %r7; bra.uni E;\nS: add.u32 %r5, %r5, 1; st.shared.u32 [%r2], "
        "%r5;\nE:",
        1, 64};
    static const uint32_t in[WORDS];
    uint32_t wanted[32];
    for (unsigned i = 0; i < 32; i++)
        wanted[i] = 7 * i + 1;
    cr_expect_eq(count_right(&flag, in, wanted, 32, orders, ORDERS), ORDERS);
}
