/*
 * wgmma_pipeline.c: a ring of stages that one warp fills by bulk copies and a warpgroup multiplies,
 * under many orders of warps and both moments of asynchronous work, races checked.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "scheduled.h"
#include "wgmma_kernel.h"

enum { SCHEDULES = 50, TURNS = 6, STAGE = 9216, SLICES = 3, REGISTERS = 4 };

/* Barriers of two stages: full, then empty. */
#define FULL  "shared+49088"
#define EMPTY "shared+49104"

#define WAIT_FOR(barriers, parity)                                                                 \
    "mov.u32 %r3, " barriers "; mad.lo.u32 %r3, %r1, 8, %r3;\n"                                    \
    "{ again: mbarrier.try_wait.parity.shared.b64 %p0, [%r3], " parity "; @!%p0 bra again; }\n"
#define STEP                                                                                       \
    "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%d0,%d1,%d2,%d3}, %da, %db, 1, 1, 1, "   \
    "0, "                                                                                          \
    "0;\nadd.u64 %da, %da, 2; add.u64 %db, %db, 2;\n"

/* %r0: the turn, %r1: its stage, %r2: the parity of the stage's phase. */
#define TURN "and.b32 %r1, %r0, 1; shr.u32 %r2, %r0, 1; and.b32 %r2, %r2, 1;\n"

/* `early`: the consumer lets go of a stage before it has waited for the products on it. */
#define PIPELINE(early, late)                                                                      \
    "setp.eq.u32 %p1, %thread, 0; @!%p1 bra begun;\n"                                              \
    "mbarrier.init.shared.b64 [" FULL "], 1; mbarrier.init.shared.b64 [" FULL "+8], 1;\n"          \
    "mbarrier.init.shared.b64 [" EMPTY "], 4; mbarrier.init.shared.b64 [" EMPTY "+8], 4;\n"        \
    "begun: bar.sync 0; mov.u32 %r0, 0; setp.ge.u32 %p2, %thread, 128; @%p2 bra produce;\n"        \
    "multiply:\n" TURN                                                                             \
    WAIT_FOR(                                                                                      \
        FULL,                                                                                      \
        "%r2") "cvt.u64.u32 %rd0, %r1; mul.lo.u64 %rd0, %rd0, 1024; add.u64 %rd0, %rd0, %tile;\n"  \
               "add.u64 %da, %rd0, 0x4000004000010000; add.u64 %db, %rd0, 0x4000004000010200;\n"   \
               "wgmma.fence.sync.aligned;\n" STEP STEP STEP STEP                                   \
               "wgmma.commit_group.sync.aligned;\n" early                                          \
               "and.b32 %r4, %thread, 31; setp.eq.u32 %p1, %r4, 0; mov.u32 %r3, " EMPTY ";\n"      \
               "mad.lo.u32 %r3, %r1, 8, %r3; @%p1 mbarrier.arrive.shared.b64 _, [%r3];\n" late     \
               "add.u32 %r0, %r0, 1; setp.lt.u32 %p1, %r0, 6; @%p1 bra multiply; bra done;\n"      \
               "produce: setp.eq.u32 %p1, %thread, 128; @!%p1 ret; mov.u64 %rd1, %in;\n"           \
               "next:\n" TURN "xor.b32 %r2, %r2, 1;\n" WAIT_FOR(                                   \
                   EMPTY, "%r2") "mov.u32 %r3, " FULL                                              \
                                 "; mad.lo.u32 %r3, %r1, 8, %r3; mov.u32 %r4, shared;\n"           \
                                 "mad.lo.u32 %r4, %r1, 16384, %r4; "                               \
                                 "mbarrier.arrive.expect_tx.shared.b64 _, [%r3], 9216;\n"          \
                                 "rem.u32 %r5, %r0, 3; mul.wide.u32 %rd1, %r5, 9216; add.u64 "     \
                                 "%rd1, %rd1, %in;\n"                                              \
                                 "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::"    \
                                 "bytes [%r4], [%rd1], 9216, "                                     \
                                 "[%r3];\nadd.u32 %r0, %r0, 1; setp.lt.u32 %p1, %r0, 6; @%p1 bra " \
                                 "next; ret;\ndone:\n"
#define WAIT "wgmma.wait_group.sync.aligned 0;\n"

/* Slice i is 64 x 64 elements of i + 1 for A, then 8 x 64 ones for B. */
static void fill_slices(wgmma_memory *m)
{
    static const uint16_t numbers[SLICES + 1] = {0x3f80, 0x4000, 0x4040, 0x3f80};
    memset(m, 0, sizeof *m);
    for (int i = 0; i < SLICES * STAGE; i += 2)
        memcpy(m->shared + i, &numbers[i % STAGE < 8192 ? i / STAGE : SLICES], 2);
}

static unsigned char *run_here(const void *body, size_t *bytes)
{
    static wgmma_memory m;
    fill_slices(&m);
    wgmma_run(&(wgmma_kernel){"pipeline", body, REGISTERS, true, 160, NULL}, &m);
    *bytes = sizeof m.d;
    unsigned char *left = malloc(sizeof m.d);
    cr_assert_not_null(left);
    memcpy(left, m.d, sizeof m.d);
    return left;
}

Test(wgmma_pipeline, a_ring_of_stages_gives_the_same_under_every_schedule, .timeout = 120)
{
    const float wanted = 64 * (1 + 2 + 3) * (TURNS / SLICES);
    for (int i = 0; i < SCHEDULES; i++) {
        char schedule[64];
        size_t bytes;
        snprintf(schedule, sizeof schedule, "%d,quantum=%d,copies=%s", i, 1 + i * i % 97,
                 i % 2 ? "late" : "issue");
        unsigned char *left = scheduled_run(run_here, PIPELINE(WAIT, ""), schedule, "1", &bytes);
        for (size_t k = 0; k < WGMMA_THREADS * REGISTERS; k++) {
            float found;
            size_t at = k / REGISTERS * WGMMA_FRAGMENT + k % REGISTERS;
            memcpy(&found, left + 4 * at, 4);
            cr_assert_eq(found, wanted, "%s: register %zu of thread %zu is %g, not %g", schedule,
                         k % REGISTERS, k / REGISTERS, (double)found, (double)wanted);
        }
        free(left);
    }
}

Test(wgmma_pipeline, a_stage_that_is_released_before_the_wait_is_a_race)
{
    static wgmma_memory m;
    fill_slices(&m);
    CUresult result =
        wgmma_try(&(wgmma_kernel){"early", PIPELINE("", WAIT), REGISTERS, true, 160, NULL}, &m);
    cr_assert_neq(result, CUDA_SUCCESS);
    const char *report = device_last_report();
    cr_assert(strstr(report, "race: a bulk copy's write after wgmma's read"), "%s", report);
    cr_assert(strstr(report, "wgmma.wait_group that covers it"), "%s", report);
}
