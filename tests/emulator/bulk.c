/*
 * bulk.c: cp.async.bulk: what it moves, whom it tells, what orders it, and what may not be done.
 * Run with MMLP_EMULATOR_CHECK=race, with copies that land at once and at the last moment.
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
}
TestSuite(bulk, .init = fill_input);

#define FIRST "setp.eq.u32 %p1, %thread, 0; @!%p1 bra rest;\n"
#define INIT  FIRST "mbarrier.init.shared.b64 [shared+8192], 1;\nrest: bar.sync 0;\n"
#define LOAD(to, from, bytes)                                                                      \
    "@%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [shared+" to           \
    "], [%in+" from "], " bytes ", [shared+8192];\n"
#define EXPECT_BYTES(bytes)                                                                        \
    "@%p1 mbarrier.arrive.expect_tx.shared.b64 _, [shared+8192], " bytes ";\n"
#define WAIT(parity)                                                                               \
    "{ again: mbarrier.try_wait.parity.shared.b64 %p0, [shared+8192], " parity                     \
    "; @!%p0 bra again; }\n"
#define STORE(to, from, bytes)                                                                     \
    "@%p1 cp.async.bulk.global.shared::cta.bulk_group [%out+" to "], [shared+" from "], " bytes    \
    ";\n@%p1 cp.async.bulk.commit_group;\n"
#define STORED "@%p1 cp.async.bulk.wait_group 0;\n"
/* Every thread's word of shared memory, from offset 0, goes to `out`. */
#define KEEP                                                                                       \
    "mov.u32 %r0, shared; mad.lo.u32 %r1, %thread, 4, %r0; ld.shared.u32 %r2, [%r1];\n"            \
    "mul.wide.u32 %rd0, %thread, 4; add.s64 %rd0, %rd0, %out; st.global.u32 [%rd0], %r2;\n"
/* Every thread writes its word of shared memory. */
#define WRITE                                                                                      \
    "mov.u32 %r0, shared; mad.lo.u32 %r1, %thread, 4, %r0; mad.lo.u32 %r2, %thread, 3, 7;\n"       \
    "st.shared.u32 [%r1], %r2;\n"

static void expect(const char *name, const char *body, unsigned threads, int count,
                   uint32_t (*wanted)(int i))
{
    uint32_t out[WORDS];
    kernel_run(name, body, 1, threads, in, sizeof in, out, sizeof out);
    for (int i = 0; i < count; i++)
        cr_assert_eq(out[i], wanted(i), "%s: word %d is %u, not %u", name, i, out[i], wanted(i));
}

static uint32_t as_given(int i)
{
    return in[i];
}

static uint32_t from_64(int i)
{
    return i < 4 ? in[16 + i] : in[i];
}

static uint32_t written(int i)
{
    return 3 * (uint32_t)i + 7;
}

static uint32_t nothing(int i)
{
    (void)i;
    return 0;
}

Test(bulk, a_load_is_there_when_its_mbarrier_says_so)
{
    expect("256 bytes", INIT EXPECT_BYTES("256") LOAD("0", "0", "256") WAIT("0") KEEP, 64, 64,
           as_given);
    expect("to .shared::cta",
           INIT EXPECT_BYTES("256") "@%p1 cp.async.bulk.shared::cta.global.mbarrier::complete_tx::"
                                    "bytes [shared], [%in], 256, [shared+8192];\n" WAIT("0") KEEP,
           64, 64, as_given);
    expect("two copies of one phase",
           INIT EXPECT_BYTES("272") LOAD("0", "64", "16") LOAD("16", "16", "256") WAIT("0") KEEP,
           64, 64, from_64);
    expect("bytes before they are expected",
           INIT LOAD("0", "0", "512") EXPECT_BYTES("512") WAIT("0") KEEP, 128, 128, as_given);
}

Test(bulk, a_stage_is_filled_again_when_its_readers_have_gone)
{
    expect("two turns",
           INIT EXPECT_BYTES("256") LOAD("0", "512", "256") WAIT("0") KEEP
           "bar.sync 0;\n" EXPECT_BYTES("256") LOAD("0", "0", "256") WAIT("1") KEEP,
           64, 64, as_given);
}

Test(bulk, a_store_takes_what_was_written_before_the_fence_and_the_barrier)
{
    expect("256 bytes",
           FIRST "rest:\n" WRITE
                 "fence.proxy.async.shared::cta; bar.sync 0;\n" STORE("0", "0", "256") STORED,
           64, 64, written);
    expect("the fence by the thread that stores",
           FIRST "rest:\n" WRITE "bar.sync 0; fence.proxy.async;\n" STORE("0", "0", "256") STORED,
           64, 64, written);
    expect("nothing", FIRST "rest:\n" STORE("0", "0", "0") STORED, 32, 4, nothing);
}

Test(bulk, what_is_read_may_be_written_again)
{
    expect("wait_group.read",
           FIRST "rest:\n" WRITE "fence.proxy.async; bar.sync 0;\n" STORE(
               "0", "0", "256") "@%p1 cp.async.bulk.wait_group.read 0;\nbar.sync 0;\nmov.u32 %r2, "
                                "9; st.shared.u32 [%r1], %r2;\n" STORED,
           64, 64, written);
    expect("all but the last group",
           FIRST "rest:\n" WRITE "fence.proxy.async; bar.sync 0;\n" STORE("0", "0", "128")
               STORE("128", "128", "128") "@%p1 cp.async.bulk.wait_group.read 1;\nbar.sync 0;\n"
                                          "setp.lt.u32 %p2, %thread, 32; mov.u32 %r2, 9; @%p2 "
                                          "st.shared.u32 [%r1], %r2;\n" STORED,
           64, 64, written);
}

/* Warp 0 waits for a copy and says so to warp 1, without a release; then `by_warp_1`. */
#define TELL(by_warp_1)                                                                            \
    FIRST                                                                                          \
        "mbarrier.init.shared.b64 [shared+8192], 1; mbarrier.init.shared.b64 [shared+8200], 1;\n"  \
        "mbarrier.init.shared.b64 [shared+8208], 1;\nrest: bar.sync 0;\n" EXPECT_BYTES("256")      \
            LOAD("0", "0", "256") "setp.ge.u32 %p2, %thread, 32; @%p2 bra second;\n" WAIT(         \
                "0") "@%p1 mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [shared+8200]; bra "     \
                     "end;\n"                                                                      \
                     "second: mbarrier.try_wait.parity.relaxed.cta.shared::cta.b64 %p0, "          \
                     "[shared+8200], 0; @!%p0 bra second;\n" by_warp_1 "end:\n"
#define LOAD_AGAIN                                                                                 \
    "setp.eq.u32 %p3, %thread, 32;\n"                                                              \
    "@%p3 mbarrier.arrive.expect_tx.shared.b64 _, [shared+8208], 256;\n"                           \
    "@%p3 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [shared], "            \
    "[%in+256], 256, [shared+8208];\n"                                                             \
    "third: mbarrier.try_wait.parity.shared.b64 %p0, [shared+8208], 0; @!%p0 bra third;\n" KEEP

static uint32_t second_half_from_96(int i)
{
    return i < 32 ? 0 : in[64 + i];
}

Test(bulk, a_copy_that_is_over_is_written_over_by_whoever_hears_of_it)
{
    expect("a relaxed message", TELL(LOAD_AGAIN), 64, 64, second_half_from_96);
}

Test(bulk, what_was_loaded_can_be_stored_without_a_fence)
{
    expect("there and back",
           INIT EXPECT_BYTES("1024") LOAD("0", "0", "1024") WAIT("0") STORE("0", "0", "1024")
               STORED,
           32, WORDS, as_given);
}

/* ---- what is wrong --------------------------------------------------------------------------- */

#define CHECK_MISTAKES(table)                                                                      \
    kernel_mistakes(table, sizeof(table) / sizeof(table)[0], in, sizeof in)

Test(bulk, sizes_addresses_and_objects_are_checked)
{
    static const kernel_mistake cases[] = {
        {"a size", INIT LOAD("0", "0", "24"), 32, {"of 24 bytes: a multiple of 16 is wanted"}},
        {"a target", INIT LOAD("8", "0", "16"), 32, {"misaligned: 16 bytes at a shared address"}},
        {"a source", INIT LOAD("0", "4", "16"), 32, {"misaligned: 16 bytes at a global address"}},
        {"the end of the source",
         INIT LOAD("0", "1008", "32"),
         32,
         {"out of bounds: 32 bytes at a global"}},
        {"the end of the target",
         INIT LOAD("16368", "0", "32"),
         32,
         {"out of bounds: 32 bytes at a shared"}},
        {"no mbarrier",
         FIRST "rest:\n" LOAD("0", "0", "16"),
         32,
         {"mbarrier.init has not been called"}},
        {"a store of what nobody wrote",
         FIRST "rest:\n" STORE("0", "0", "16") STORED,
         32,
         {"never written: 16 bytes at a shared"}},
        {"the end of the output",
         FIRST "rest:\n" WRITE "fence.proxy.async; bar.sync 0;\n" STORE("1008", "0", "32") STORED,
         64,
         {"out of bounds: 32 bytes at a global"}},
        {"leaving",
         FIRST "rest:\n" WRITE "fence.proxy.async; bar.sync 0;\n" STORE("0", "0", "256"),
         64,
         {"has ended while bulk copies read its shared memory",
          "by warp 0, lane 0, for 256 bytes"}},
        {"bytes that nobody expects",
         INIT LOAD("0", "0", "32") EXPECT_BYTES("16") WAIT("0"),
         32,
         {"deadlock", "{ again: mbarrier.try_wait"}},
    };
    CHECK_MISTAKES(cases);
}

Test(bulk, prefetches_move_nothing)
{
    expect("a range", FIRST "rest: cp.async.bulk.prefetch.L2.global [%in], 256;\n", 64, 64,
           nothing);
}

/* Every thread copies its word by cp.async and has an mbarrier told. */
#define SMALL_COPY(count, words)                                                                   \
    FIRST "mbarrier.init.shared.b64 [shared+8192], " count ";\nrest: bar.sync 0;\n"                \
          "mov.u32 %r0, shared; mad.lo.u32 %r1, %thread, 4, %r0; mul.wide.u32 %rd1, %thread, 4;\n" \
          "add.s64 %rd1, %rd1, %in; cp.async.ca.shared.global [%r1], [%rd1], 4;\n"                 \
          "cp.async.mbarrier.arrive." words "shared.b64 [shared+8192];\n"

Test(bulk, small_copies_tell_an_mbarrier)
{
    static const kernel_mistake cases[] = {
        {"not waited for",
         SMALL_COPY("64", "noinc.") "bar.sync 0;\n" KEEP,
         64,
         {"race: read after"}},
        {"not counted", SMALL_COPY("64", "") WAIT("0") KEEP, 64, {"deadlock"}},
    };
    expect("counted", SMALL_COPY("64", "noinc.") WAIT("0") KEEP, 64, 64, as_given);
    expect("beside an arrival",
           SMALL_COPY("64", "") "mbarrier.arrive.shared.b64 _, [shared+8192];\n" WAIT("0") KEEP, 64,
           64, as_given);
    CHECK_MISTAKES(cases);
}

Test(bulk, what_nothing_orders_is_a_race)
{
    static const kernel_mistake cases[] = {
        {"a read before the wait",
         INIT EXPECT_BYTES("256") LOAD("0", "0", "256") KEEP,
         64,
         {"(shared)"}},
        {"a wait by another warp alone",
         INIT EXPECT_BYTES("256") LOAD(
             "0", "0", "256") "setp.ge.u32 %p2, %thread, 32; @%p2 bra on;\n" WAIT("0") "on:\n" KEEP,
         64,
         {"(shared)"}},
        {"a relaxed message", TELL(KEEP), 64, {"(shared)", "a bulk copy's write"}},
        {"a second load into the stage",
         INIT EXPECT_BYTES("512") LOAD("0", "0", "256") LOAD("0", "256", "256") WAIT("0") KEEP,
         64,
         {"race: a bulk copy's write after a bulk copy's write", "nothing that follows the end"}},
        /* A race, or a phase that goes by while a reader waits for it. */
        {"readers that have not gone",
         INIT EXPECT_BYTES("256") LOAD("0", "0", "256") WAIT("0") KEEP EXPECT_BYTES("256")
             LOAD("0", "256", "256") WAIT("1"),
         64,
         {NULL}},
        {"no fence",
         FIRST "rest:\n" WRITE "bar.sync 0;\n" STORE("0", "0", "256") STORED,
         64,
         {"race: a bulk copy's read after write", "fence.proxy.async between"}},
        {"no barrier",
         FIRST "rest:\n" WRITE "fence.proxy.async;\n" STORE("0", "0", "256") STORED,
         64,
         {"(shared)"}},
        {"written again too early",
         FIRST "rest:\n" WRITE "fence.proxy.async; bar.sync 0;\n" STORE(
             "0", "0", "256") "bar.sync 0; st.shared.u32 [%r1], %r2;\n" STORED,
         64,
         {"race: write after a bulk copy's read", "wait_group.read"}},
        {"one group too many is left",
         FIRST "rest:\n" WRITE "fence.proxy.async; bar.sync 0;\n" STORE("0", "0", "128")
             STORE("128", "128", "128") "@%p1 cp.async.bulk.wait_group.read 1;\nbar.sync "
                                        "0;\nst.shared.u32 [%r1], %r2;\n" STORED,
         64,
         {"race: write after a bulk copy's read"}},
        {"output that is read too early",
         FIRST "rest:\n" WRITE "fence.proxy.async; bar.sync 0;\n" STORE(
             "0", "0", "256") "@%p1 ld.global.u32 %r5, [%out];\n" STORED,
         64,
         {"(global)", "a bulk copy's write"}},
    };
    CHECK_MISTAKES(cases);
}
