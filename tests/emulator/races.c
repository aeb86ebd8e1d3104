/* races.c: kernels with one race each, which MMLP_EMULATOR_CHECK=race must find and explain in any
 * order of warps and blocks. */
#include <criterion/criterion.h>
#include <string.h>

#include "device.h"
#include "kernel.h"

enum { IN_BYTES = 1024, OUT_BYTES = 1024 };

typedef struct race {
    const char *name, *body;
    unsigned blocks, threads;
    const char *said[4]; /* parts of the report */
} race;

static void check_races(const race *races, size_t count)
{
    static const unsigned char in[IN_BYTES];
    for (size_t i = 0; i < count; i++) {
        const race *r = &races[i];
        CUresult result =
            kernel_try(r->name, r->body, r->blocks, r->threads, in, IN_BYTES, OUT_BYTES);
        const char *report = device_last_report();
        cr_expect_eq(result, CUDA_ERROR_LAUNCH_FAILED, "%s: %d\n%s", r->name, (int)result, report);
        cr_expect(strstr(report, ": race: "), "%s: no race in\n%s", r->name, report);
        for (size_t k = 0; k < sizeof r->said / sizeof r->said[0] && r->said[k]; k++)
            cr_expect(strstr(report, r->said[k]), "%s: '%s' is not in\n%s", r->name, r->said[k],
                      report);
    }
}
#define CHECK_RACES(table) check_races(table, sizeof(table) / sizeof(table)[0])

/* %r1: the address of the thread's word; %r2: of the word of a thread of the next warp; %rd0: the
 * thread's word of the input; all words are 0. */
#define WORDS                                                                                      \
    "mov.u32 %r0, shared; mad.lo.u32 %r1, %thread, 4, %r0; mov.u32 %r3, %ntid.x;\n"                \
    "add.u32 %r2, %thread, 32; rem.u32 %r2, %r2, %r3; mad.lo.u32 %r2, %r2, 4, %r0;\n"              \
    "mul.wide.u32 %rd0, %thread, 4; add.s64 %rd0, %rd0, %in; mov.u32 %r4, 0;\n"                    \
    "st.shared.u32 [%r1], %r4; st.shared.u32 [%r1+1024], %r4; bar.sync 0;\n"
#define FIRST_WARP  "setp.ge.u32 %p0, %thread, 32; @%p0 bra others;\n"
#define OTHER_WARPS "bra end;\nothers:\n"
/* A flag without fences: the others go on behind the first warp, but are not ordered. */
#define RAISE       "st.volatile.shared.u32 [shared+8192], 1;\n"
#define AWAIT                                                                                      \
    "again: ld.volatile.shared.u32 %r5, [shared+8192]; setp.eq.u32 %p1, %r5, 0; @%p1 bra again;\n"
#define NO_FLAG "st.volatile.shared.u32 [shared+8192], 0; bar.sync 0;\n"

Test(races, a_missing_barrier_is_named_with_both_sides)
{
    static const race cases[] = {
        {"between read and write",
         WORDS "ld.shared.u32 %r4, [%r2];\n"
               "st.shared.u32 [%r1], %thread;\n",
         1,
         64,
         {"st.shared.u32 [%r1], %thread;\n", "ld.shared.u32 %r4, [%r2];\n",
          "missing     no barrier between them"}},
        {"between two writes",
         WORDS "st.shared.u32 [%r0], %thread;\n",
         1,
         64,
         {"race: write after write, by another warp of the block", "address     0x0 (shared)"}},
        {"of which one writes half a word",
         WORDS "mov.b16 %h0, 0; st.shared.b16 [%r1+2], %h0;\n"
               "ld.shared.u32 %r4, [%r2];\n",
         1,
         64,
         {"no barrier between them"}},
        {"in global memory",
         WORDS "mul.wide.u32 %rd1, %thread, 4; add.s64 %rd1, %rd1, %out;\n"
               "st.global.u32 [%rd1], %thread;\n"
               "ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%out+128];\n",
         1,
         64,
         {"no barrier between them", "1024 bytes, no label: at offset"}},
        {"by a row of a matrix",
         WORDS
         "mul.lo.u32 %r4, %thread, 16; and.b32 %r4, %r4, 127; add.u32 %r4, %r4, %r0;\n" FIRST_WARP
         "st.shared.u32 [%r0+64], %thread;\n" OTHER_WARPS
         "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r6}, [%r4];\nend:\n",
         1,
         64,
         {"ldmatrix", "no barrier between them", "address     0x40 (shared)"}},
    };
    CHECK_RACES(cases);
}

Test(races, a_barrier_orders_only_those_that_take_part)
{
    static const race cases[] = {
        {"a consumer that is not counted",
         WORDS NO_FLAG FIRST_WARP "st.shared.u32 [%r1], %thread;\n"
                                  "bar.sync 1, 64;\n" RAISE OTHER_WARPS
                                  "setp.lt.u32 %p2, %thread, 64; @%p2 bra counted;\n" AWAIT
                                  "ld.shared.u32 %r4, [shared];\n"
                                  "bra end;\ncounted: bar.sync 1, 64;\nend:\n",
         1,
         96,
         {"race: read after write, by another warp of the block", "warp        2",
          "missing     no barrier between them"}},
        {"bar.arrive does not wait",
         WORDS NO_FLAG FIRST_WARP "bar.sync 1, 64;\n"
                                  "st.shared.u32 [%r1], %thread;\n" RAISE OTHER_WARPS
                                  "bar.arrive 1, 64;\n" AWAIT
                                  "ld.shared.u32 %r4, [shared];\nend:\n",
         1,
         64,
         {"race: read after write", "missing     no barrier between them"}},
    };
    CHECK_RACES(cases);
}

#define COPY(to, from, group) "cp.async.ca.shared.global [%r1+" to "], [%rd0+" from "], 4;\n" group
#define COMMIT                "cp.async.commit_group;\n"

Test(races, a_copy_is_not_there_before_it_is_waited_for)
{
    static const race cases[] = {
        {"read by its own warp",
         WORDS COPY("0", "0", COMMIT) "ld.shared.u32 %r4, [%r1];\n",
         1,
         64,
         {"race: read after cp.async's write, by the same warp", "cp.async.ca.shared.global",
          "missing     cp.async not waited for"}},
        {"overwritten by its own warp",
         WORDS COPY("0", "0", COMMIT) "st.shared.u32 [%r1], %r4;\n",
         1,
         64,
         {"race: write after cp.async's write, by the same warp", "cp.async not waited for"}},
        {"behind a barrier, but not waited for",
         WORDS COPY("0", "0", COMMIT) "bar.sync 0;\nld.shared.u32 %r4, [%r2];\n",
         1,
         64,
         {"missing     cp.async not waited for"}},
        {"a group that is not committed",
         WORDS COPY("0", "0", "") "cp.async.wait_group 0;\nld.shared.u32 %r4, [%r1];\n",
         1,
         32,
         {"missing     cp.async not waited for"}},
        {"a second copy to the same place",
         WORDS COPY("0", "0", "") COPY("0", "0", COMMIT),
         1,
         32,
         {"race: cp.async's write after cp.async's write, by the same warp"}},
        {"waited for by one warp, read by another",
         WORDS NO_FLAG FIRST_WARP COPY("0", "0",
                                       COMMIT) "cp.async.wait_group 0;\n" RAISE OTHER_WARPS AWAIT
                                               "ld.shared.u32 %r4, [shared];\nend:\n",
         1,
         64,
         {"read after cp.async's write, by another warp of the block",
          "missing     no barrier between them: the cp.async was waited for by its own warp "
          "alone"}},
        {"a ring with one stage fewer",
         WORDS
         "mov.u32 %r6, 0;\n"
         "turn: " COPY("0", "0",
                       COMMIT) "cp.async.wait_group 0;\nbar.sync 0;\n"
                               "ld.shared.u32 %r4, [%r2];\n"
                               "add.u32 %r6, %r6, 1; setp.lt.u32 %p0, %r6, 4; @%p0 bra turn;\n",
         1,
         64,
         {"cp.async", "ld.shared.u32 %r4, [%r2];"}},
    };
    CHECK_RACES(cases);
}

/* Blocks: the first writes, the second waits for the flag at %out+512. */
#define SECOND_BLOCK "mov.u32 %r0, %ctaid.x; setp.ne.u32 %p0, %r0, 0; @%p0 bra second;\n"
#define WRITE        "st.global.u32 [%out], 7;\n"
#define ELSE         "bra end;\nsecond:\n"
#define READ         "ld.global.u32 %r2, [%out];\nend:\n"
#define UP           "st.volatile.global.u32 [%out+512], 1;\n"
#define WAIT                                                                                       \
    "again: ld.volatile.global.u32 %r1, [%out+512]; setp.eq.u32 %p1, %r1, 0; @%p1 bra again;\n"
#define UNORDERED "missing     nothing orders the blocks"

Test(races, blocks_are_ordered_by_fences_and_atomics_alone)
{
    static const race cases[] = {
        {"a flag without a fence before it",
         SECOND_BLOCK WRITE UP ELSE WAIT "membar.gl;\n" READ,
         2,
         1,
         {"race: read after write, by another block", UNORDERED,
          "a fence before an atomic or flag is written"}},
        {"a flag without a fence after it",
         SECOND_BLOCK WRITE "membar.gl;\n" UP ELSE WAIT READ,
         2,
         1,
         {"race: read after write, by another block", UNORDERED}},
        {"a fence that ends at the block",
         SECOND_BLOCK WRITE "membar.cta;\n" UP ELSE WAIT "membar.gl;\n" READ,
         2,
         1,
         {UNORDERED, "all of scope .gpu"}},
        {"a release for the block alone",
         SECOND_BLOCK WRITE "st.release.cta.global.u32 [%out+512], 1;\n" ELSE WAIT
                            "membar.gl;\n" READ,
         2,
         1,
         {"race: strong", "has scope .cta, the other block needs .gpu"}},
        {"atomics for the block alone",
         "atom.relaxed.cta.global.add.u32 %r0, [%out], 1;\n",
         2,
         1,
         {"race: atomic after atomic, by another block",
          "has scope .cta, the other block needs .gpu"}},
        {"of which only the earlier one is narrow",
         SECOND_BLOCK "atom.relaxed.cta.global.add.u32 %r0, [%out], 1;\n" UP ELSE WAIT
                      "red.relaxed.gpu.global.add.u32 [%out], 1;\nend:\n",
         2,
         1,
         {"the earlier access has scope .cta, the other block needs .gpu"}},
        {"a plain store beside an atomic",
         SECOND_BLOCK WRITE UP ELSE WAIT "red.global.add.u32 [%out], 1;\nend:\n",
         2,
         1,
         {"race: atomic after write", "only one of the two is atomic or volatile"}},
        {"a plain read beside an atomic of the block",
         WORDS "atom.shared.add.u32 %r4, [%r0], 1;\nld.shared.u32 %r5, [%r0];\n",
         1,
         64,
         {"no barrier between them, and only one of the two is atomic or volatile"}},
    };
    CHECK_RACES(cases);
}

Test(races, a_relaxed_flag_within_a_block_orders_nothing)
{
    static const race cases[] = {
        {"no fences",
         WORDS NO_FLAG FIRST_WARP "st.shared.u32 [%r1], %thread;\n" RAISE OTHER_WARPS AWAIT
                                  "ld.shared.u32 %r4, [shared];\nend:\n",
         1,
         64,
         {"race: read after write, by another warp", "nor a release and an acquire"}},
        {"a fence behind the flag",
         WORDS NO_FLAG FIRST_WARP "st.shared.u32 [%r1], %thread;\n" RAISE
                                  "membar.cta;\n" OTHER_WARPS AWAIT
                                  "membar.cta;\nld.shared.u32 %r4, [shared];\nend:\n",
         1,
         64,
         {"race: read after write, by another warp", "nor a release and an acquire"}},
    };
    CHECK_RACES(cases);
}
