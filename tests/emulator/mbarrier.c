/*
 * mbarrier.c: the barriers that live in shared memory: phases, states, transactions, waits, and
 * what may not be done. Run with MMLP_EMULATOR_CHECK=race.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "compiled.h"
#include "device.h"
#include "kernel.h"

enum { WORDS = 16 };

/* Word k of `out` is what the body left in %r<k>, of thread 0. */
#define STORE                                                                                      \
    "\nsetp.ne.u32 %p15, %thread, 0; @%p15 ret;\n"                                                 \
    "st.global.v4.u32 [%out], {%r0, %r1, %r2, %r3};\n"                                             \
    "st.global.v4.u32 [%out+16], {%r4, %r5, %r6, %r7};\n"
/* Whether the phase of a state or parity is over, as a word. */
#define TEST(word, state)                                                                          \
    "mbarrier.test_wait.shared.b64 %p0, [shared], " state "; selp.u32 " word ", 1, 0, %p0;\n"
#define PARITY(word, parity)                                                                       \
    "mbarrier.test_wait.parity.shared::cta.b64 %p0, [shared], " parity "; selp.u32 " word          \
    ", 1, 0, %p0;\n"

static void expect(const char *name, const char *body, unsigned threads, const uint32_t *wanted,
                   int count)
{
    uint32_t out[WORDS];
    kernel_run(name, body, 1, threads, NULL, 0, out, sizeof out);
    for (int i = 0; i < count; i++)
        cr_expect_eq(out[i], wanted[i], "%s: word %d is %u, not %u", name, i, out[i], wanted[i]);
}
#define EXPECT(name, body, threads, ...)                                                           \
    expect(name, body, threads, (const uint32_t[]){__VA_ARGS__},                                   \
           sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

/* ---- phases ---------------------------------------------------------------------------------- */

Test(mbarrier, a_phase_is_over_when_as_many_have_arrived_as_it_counts)
{
    EXPECT("three arrivals",
           "mbarrier.init.shared.b64 [shared], 3;\n"
           "mbarrier.arrive.shared.b64 %rd0, [shared];\n" TEST("%r0", "%rd0") PARITY(
               "%r1", "0") "mbarrier.arrive.shared.b64 %rd1, [shared], 2;\n" TEST("%r2", "%rd0")
               PARITY("%r3", "0") PARITY(
                   "%r4", "1") "mbarrier.arrive.shared.b64 %rd2, [shared];\n" TEST("%r5", "%rd2")
                   TEST("%r6", "%rd1") STORE,
           1, 0, 0, 1, 1, 0, 0, 1);
}

Test(mbarrier, every_lane_of_an_instruction_arrives)
{
    EXPECT("a warp",
           "setp.eq.u32 %p1, %thread, 0; @%p1 mbarrier.init.shared.b64 [shared], 31;\n"
           "bar.warp.sync -1; setp.ge.u32 %p2, %thread, 2;\n"
           "@%p2 mbarrier.arrive.shared.b64 _, [shared];\n" PARITY(
               "%r0", "0") "@%p1 mbarrier.arrive.shared.b64 _, [shared];\n" PARITY("%r1", "0")
               STORE,
           32, 0, 1);
}

Test(mbarrier, a_state_has_the_arrivals_that_the_phase_lacked)
{
    EXPECT("pending",
           "mbarrier.init.shared.b64 [shared], 5;\n"
           "mbarrier.arrive.noComplete.shared.b64 %rd0, [shared], 2;\n"
           "mbarrier.arrive.noComplete.release.cta.shared::cta.b64 %rd1, [shared], 1;\n"
           "mbarrier.pending_count.b64 %r0, %rd0; mbarrier.pending_count.b64 %r1, %rd1;\n" STORE,
           1, 5, 3);
}

Test(mbarrier, who_drops_out_is_not_counted_in_later_phases)
{
    EXPECT(
        "arrive_drop",
        "mbarrier.init.shared.b64 [shared], 3;\n"
        "mbarrier.arrive_drop.shared.b64 _, [shared];\n"
        "mbarrier.arrive.shared.b64 _, [shared], 2;\n" PARITY(
            "%r0", "0") "mbarrier.arrive.shared.b64 %rd0, [shared];\n" TEST("%r1",
                                                                            "%rd0") "mbarrier."
                                                                                    "arrive.shared."
                                                                                    "b64 _, "
                                                                                    "[shared];"
                                                                                    "\n" TEST("%r2",
                                                                                              "%rd"
                                                                                              "0")
                                                                                        STORE,
        1, 1, 0, 1);
}

Test(mbarrier, bytes_that_are_expected_hold_the_phase_open)
{
    EXPECT("transactions",
           "mbarrier.init.shared.b64 [shared], 1;\n"
           "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [shared], 96;\n"
           "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 %rd0, [shared], 32;\n" TEST(
               "%r0", "%rd0") "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [shared], "
                              "100;\n" TEST("%r1", "%rd0") "mbarrier.complete_tx.shared.b64 "
                                                           "[shared], 28;\n" TEST("%r2", "%rd0")
                                                               STORE,
           1, 0, 0, 1);
    EXPECT("bytes that come before they are expected",
           "mbarrier.init.shared.b64 [shared], 2;\n"
           "mbarrier.arrive.shared.b64 %rd0, [shared];\n"
           "mbarrier.complete_tx.shared.b64 [shared], 16;\n"
           "mbarrier.arrive.expect_tx.shared.b64 _, [shared], 16;\n" TEST("%r0", "%rd0") STORE,
           1, 1);
}

Test(mbarrier, generic_addresses_reach_it_and_inval_frees_its_bytes)
{
    EXPECT("generic",
           "mov.u64 %rd1, shared; cvta.shared.u64 %rd1, %rd1;\n"
           "mbarrier.init.b64 [%rd1+8], 1; mbarrier.arrive.b64 %rd0, [%rd1+8];\n"
           "mbarrier.test_wait.b64 %p0, [%rd1+8], %rd0; selp.u32 %r0, 1, 0, %p0;\n"
           "mbarrier.inval.b64 [%rd1+8]; mov.u64 %rd2, 77; st.shared.u64 [shared+8], %rd2;\n"
           "ld.shared.u32 %r1, [shared+8]; mbarrier.init.shared.b64 [shared+8], 1;\n" STORE,
           1, 1, 77);
}

/* Every form: "@S" is the space, "@A" the address. */
static const char every_form[] =
    "mov.u64 %rd9, shared; @C\n"
    "mbarrier.init@S.b64 @A, 8;\n"
    "mbarrier.arrive@S.b64 %rd0, @A;\n"
    "mbarrier.arrive.noComplete@S.b64 %rd1, @A, 1;\n"
    "mbarrier.arrive.expect_tx@S.b64 %rd2, @A, 16;\n"
    "mbarrier.expect_tx@S.b64 @A, 16;\n"
    "mbarrier.arrive_drop@S.b64 %rd3, @A;\n"
    "mbarrier.arrive_drop.noComplete@S.b64 %rd4, @A, 1;\n"
    "mbarrier.arrive_drop.expect_tx@S.b64 %rd5, @A, 8;\n"
    "mbarrier.complete_tx@S.b64 @A, 40;\n"
    "mbarrier.test_wait@S.b64 %p0, @A, %rd0; selp.u32 %r0, 1, 0, %p0;\n"
    "mbarrier.arrive@S.b64 %rd6, @A, 2;\n"
    "mbarrier.test_wait@S.b64 %p0, @A, %rd0; selp.u32 %r1, 1, 0, %p0;\n"
    "mbarrier.test_wait.parity@S.b64 %p0, @A, 0; selp.u32 %r2, 1, 0, %p0;\n"
    "mbarrier.try_wait@S.b64 %p0, @A, %rd0; selp.u32 %r3, 1, 0, %p0;\n"
    "mbarrier.try_wait.parity@S.b64 %p0, @A, 0, 20; selp.u32 %r4, 1, 0, %p0;\n"
    "mbarrier.pending_count.b64 %r5, %rd5;\n"
    "mbarrier.arrive@S.b64 _, @A, 5;\n"
    "mbarrier.test_wait.parity@S.b64 %p0, @A, 1; selp.u32 %r6, 1, 0, %p0;\n"
    "mbarrier.test_wait.parity@S.b64 %p0, @A, 0; selp.u32 %r7, 1, 0, %p0;\n"
    "mbarrier.inval@S.b64 @A;\n" STORE;

static void expand(char *out, const char *space, const char *address, const char *convert)
{
    for (const char *at = every_form; *at; at++) {
        const char *with = strncmp(at, "@S", 2) == 0   ? space
                           : strncmp(at, "@A", 2) == 0 ? address
                           : strncmp(at, "@C", 2) == 0 ? convert
                                                       : NULL;
        if (with) {
            out += sprintf(out, "%s", with);
            at++;
        } else {
            *out++ = *at;
        }
    }
    *out = '\0';
}

Test(mbarrier, every_form_does_the_same_in_every_kind_of_address)
{
    static const char *const kinds[][3] = {{".shared", "[shared]", ""},
                                           {".shared::cta", "[shared]", ""},
                                           {"", "[%rd9]", "cvta.shared.u64 %rd9, %rd9;"}};
    static const uint32_t wanted[] = {0, 1, 1, 1, 1, 3, 1, 0};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char body[2 * sizeof every_form];
        expand(body, kinds[i][0], kinds[i][1], kinds[i][2]);
        expect(kinds[i][0], body, 1, wanted, 8);
    }
}

Test(mbarrier, orders_and_fences_may_be_written)
{
    EXPECT("orders",
           "mbarrier.init.shared.b64 [shared], 2; fence.mbarrier_init.release.cluster;\n"
           "fence.proxy.async; fence.proxy.async.global;\n"
           "fence.proxy.async.shared::cta; prefetch.tensormap [%out];\n"
           "mbarrier.arrive.release.cta.shared.b64 %rd0, [shared];\n"
           "mbarrier.arrive.relaxed.cluster.shared.b64 _, [shared];\n"
           "mbarrier.test_wait.acquire.cta.shared.b64 %p0, [shared], %rd0; selp.u32 %r0, 1, 0, "
           "%p0;\n" STORE,
           1, 1);
}

/* ---- waits ----------------------------------------------------------------------------------- */

#define INIT(count)                                                                                \
    "setp.eq.u32 %p1, %thread, 0; @%p1 mbarrier.init.shared.b64 [shared], " count "; bar.sync "    \
    "0;\n"
#define WAIT(address, parity)                                                                      \
    "{ again: mbarrier.try_wait.parity.shared.b64 %p0, " address ", " parity                       \
    "; @!%p0 bra again; }\n"
/* Warp 0 gets the word that warp 1 wrote. */
#define HANDED_OVER(arrive, wait)                                                                  \
    INIT("1")                                                                                      \
    "setp.ge.u32 %p2, %thread, 32; setp.eq.u32 %p3, %thread, 32; @!%p2 bra take;\n"                \
    "@%p3 st.shared.u32 [shared+64], 4711;\n"                                                      \
    "@%p3 " arrive " bra end;\ntake:\n" wait "ld.shared.u32 %r0, [shared+64];\nend:\n"

static const char handed_over[] =
    HANDED_OVER("mbarrier.arrive.shared.b64 _, [shared];\n", WAIT("[shared]", "0")) STORE;

Test(mbarrier, a_wait_ends_when_the_phase_does_and_sees_what_was_written_before)
{
    EXPECT("handed over", handed_over, 64, 4711);
}

Test(mbarrier, a_wait_for_the_parity_before_the_first_phase_does_not_wait)
{
    EXPECT("a producer's first turn", INIT("1") WAIT("[shared]", "1") "mov.u32 %r0, 5;" STORE, 32,
           5);
}

Test(mbarrier, a_wait_that_nobody_can_end_says_no_before_it_is_a_deadlock)
{
    EXPECT("one try",
           INIT("1") "mbarrier.try_wait.parity.shared.b64 %p0, [shared], 0;\n"
                     "selp.u32 %r0, 1, 0, %p0; @%p1 mbarrier.arrive.shared.b64 _, [shared];\n"
                     "mbarrier.try_wait.parity.shared.b64 %p0, [shared], 0, 1000;\n"
                     "selp.u32 %r1, 1, 0, %p0;\n" STORE,
           32, 0, 1);
}

/* A ring of two stages: warp 1 fills, warp 0 empties; `full` at 0 and 8, `empty` at 16 and 24. */
#define RING(wait_empty)                                                                           \
    "setp.eq.u32 %p1, %thread, 0; mov.u32 %r10, shared; mov.u32 %r0, 0;\n"                         \
    "@%p1 mbarrier.init.shared.b64 [shared], 1; @%p1 mbarrier.init.shared.b64 [shared+8], 1;\n"    \
    "@%p1 mbarrier.init.shared.b64 [shared+16], 1; @%p1 mbarrier.init.shared.b64 [shared+24], "    \
    "1;\n"                                                                                         \
    "bar.sync 0; mov.u32 %r11, 0; setp.eq.u32 %p3, %thread, 32;\n"                                 \
    "setp.ge.u32 %p2, %thread, 32;\n"                                                              \
    "turn: and.b32 %r12, %r11, 1; mad.lo.u32 %r13, %r12, 8, %r10; shr.u32 %r14, %r11, 1;\n"        \
    "and.b32 %r14, %r14, 1; mad.lo.u32 %r15, %r12, 64, %r10; xor.b32 %r16, %r14, 1;\n"             \
    "@%p2 bra fill;\n" WAIT(                                                                       \
        "[%r13]",                                                                                  \
        "%r14") "ld.shared.u32 %r17, [%r15+128]; mad.lo.u32 %r0, %r0, 3, %r17; bar.warp.sync "     \
                "-1;\n"                                                                            \
                "@%p1 mbarrier.arrive.shared.b64 _, [%r13+16]; bra next;\n"                        \
                "fill:\n" wait_empty "@%p3 st.shared.u32 [%r15+128], %r11;\n"                      \
                "@%p3 mbarrier.arrive.shared.b64 _, [%r13];\n"                                     \
                "next: add.u32 %r11, %r11, 1; setp.lt.u32 %p4, %r11, 6; @%p4 bra turn;\n"

Test(mbarrier, a_ring_is_filled_and_emptied_in_turn)
{
    EXPECT("a ring", RING(WAIT("[%r13+16]", "%r16")) STORE, 64,
           ((((1 * 3 + 2) * 3 + 3) * 3 + 4) * 3) + 5);
}

PROGRAM(mbarrier, the_librarys_barrier_hands_numbers_over, "barriers.cu")
{
    enum { TURNS = 5 };
    int in[64], out[64], turns = TURNS;
    for (int i = 0; i < 64; i++)
        in[i] = i * i - 100;
    CUdeviceptr from = device_upload(in, sizeof in), to = device_alloc(sizeof out);
    LAUNCH(module, "hand_over", 1, 128, &to, &from, &turns);
    device_download(out, to, sizeof out);
    for (int i = 0; i < 64; i++) {
        int sum = 0;
        for (int turn = 0; turn < TURNS; turn++)
            sum = 3 * sum + in[63 - i] + turn;
        cr_expect_eq(out[i], sum, "%d: %d, not %d", i, out[i], sum);
    }
}

/* ---- what is wrong --------------------------------------------------------------------------- */

#define CHECK_MISTAKES(table) kernel_mistakes(table, sizeof(table) / sizeof(table)[0], NULL, 0)
#define ONE                   "mbarrier.init.shared.b64 [shared], 1;\n"

Test(mbarrier, misuse_is_named)
{
    static const kernel_mistake cases[] = {
        {"no init",
         "mbarrier.arrive.shared.b64 _, [shared];",
         1,
         {"misuse of the mbarrier at 0x0", "mbarrier.init has not been called there"}},
        {"init twice", ONE ONE, 1, {"initialised again without mbarrier.inval"}},
        {"after inval",
         ONE "mbarrier.inval.shared.b64 [shared]; mbarrier.arrive.shared.b64 _, [shared];",
         1,
         {"mbarrier.init has not been called there"}},
        {"too many",
         ONE "mbarrier.arrive.shared.b64 _, [shared], 2;",
         1,
         {"2 arrivals, but the phase lacks 1"}},
        {"no arrival",
         ONE "mov.u32 %r0, 0; mbarrier.arrive.shared.b64 _, [shared], %r0;",
         1,
         {"0 arrivals, but the phase lacks 1"}},
        {"a count of none", "mbarrier.init.shared.b64 [shared], 0;", 1, {"not 0"}},
        {"a count too large", "mbarrier.init.shared.b64 [shared], 1048576;", 1, {"not 1048576"}},
        {"too many bytes",
         ONE "mbarrier.expect_tx.shared.b64 [shared], 1048575; "
             "mbarrier.expect_tx.shared.b64 [shared], 1;",
         1,
         {"the transaction count would become 1048576"}},
        {"a plain store",
         ONE "st.shared.u32 [shared+4], 1; mbarrier.arrive.shared.b64 _, [shared];",
         1,
         {"a plain store has overwritten it"}},
        {"a plain load",
         ONE "ld.shared.u32 %r0, [shared+4];",
         1,
         {"never written", "there is an mbarrier"}},
        {"noComplete",
         ONE "mbarrier.arrive.noComplete.shared.b64 _, [shared], 1;",
         1,
         {".noComplete, but the arrival completes the phase"}},
        {"an old state",
         ONE "mbarrier.arrive.shared.b64 %rd0, [shared]; mbarrier.arrive.shared.b64 _, [shared]; "
             "mbarrier.test_wait.shared.b64 %p0, [shared], %rd0;",
         1,
         {"2 phases behind"}},
        {"misaligned", "mbarrier.init.shared.b64 [shared+4], 1;", 1, {"misaligned: 8 bytes"}},
        {"out of bounds",
         "mbarrier.init.shared.b64 [shared+16384], 1;",
         1,
         {"out of bounds: 8 bytes at a shared address"}},
        {"global memory", "mbarrier.init.b64 [%out], 1;", 1, {"out of bounds"}},
    };
    CHECK_MISTAKES(cases);
}

Test(mbarrier, a_wait_that_can_never_end_is_a_deadlock_with_its_object)
{
    static const kernel_mistake cases[] = {
        {"an arrival is missing",
         INIT("2") "@%p1 mbarrier.arrive.shared.b64 _, [shared];\n" WAIT("[shared]", "0"),
         64,
         {"deadlock", "at the mbarrier at 0x0 (phase 0 lacks 1 of 2 arrivals and 0 bytes)"}},
        {"bytes are missing",
         INIT("1") "@%p1 mbarrier.arrive.expect_tx.shared.b64 _, [shared], 64;\n" WAIT("[shared]",
                                                                                       "0"),
         64,
         {"deadlock", "(phase 0 lacks 0 of 1 arrivals and 64 bytes)"}},
        {"the other parity", INIT("1") WAIT("[shared]", "0"), 32, {"deadlock", "lacks 1 of 1"}},
    };
    CHECK_MISTAKES(cases);
}

Test(mbarrier, what_is_not_ordered_by_it_is_a_race)
{
    static const kernel_mistake cases[] = {
        {"no wait", HANDED_OVER("mbarrier.arrive.shared.b64 _, [shared];\n", ""), 64, {"shared"}},
        {"a relaxed arrival",
         HANDED_OVER("mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [shared];\n",
                     WAIT("[shared]", "0")),
         64,
         {"race: read after write"}},
        {"a relaxed wait",
         HANDED_OVER("mbarrier.arrive.shared.b64 _, [shared];\n",
                     "{ again: mbarrier.try_wait.parity.relaxed.cta.shared::cta.b64 %p0, [shared], "
                     "0; @!%p0 bra again; }\n"),
         64,
         {"race: read after write"}},
        {"init without a barrier",
         "setp.eq.u32 %p1, %thread, 0; @%p1 mbarrier.init.shared.b64 [shared], 2;\n"
         "{ again: @%p1 bra done; nanosleep.u32 20; done: }\n"
         "and.b32 %r0, %thread, 31; setp.eq.u32 %p2, %r0, 0;\n"
         "@%p2 mbarrier.arrive.shared.b64 _, [shared];",
         64,
         {"misuse of the mbarrier at 0x0"}},
        /* A race, or phases that go by while nobody looks. */
        {"a stage that is refilled too early", RING(""), 64, {NULL}},
    };
    CHECK_MISTAKES(cases);
}
