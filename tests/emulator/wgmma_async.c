/*
 * wgmma_async.c: when products of a warpgroup run and end, and what may not be done meanwhile: to
 * their registers, to their tiles, and by some warps alone. Run with MMLP_EMULATOR_CHECK=race.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "wgmma_kernel.h"

/* Tiles of 64 x 64 and 8 x 64 elements, swizzled in 128 bytes. */
#define TILES          "add.u64 %da, %tile, 0x4000004000010000; add.u64 %db, %tile, 0x4000004000010400;\n"
#define FENCE          "wgmma.fence.sync.aligned;\n"
#define COMMIT         "wgmma.commit_group.sync.aligned;\n"
#define WAIT(pending)  "wgmma.wait_group.sync.aligned " pending ";\n"
#define MULTIPLY(d, a) "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 " d ", " a
#define D              "{%d0,%d1,%d2,%d3}"
#define SECOND_D       "{%d4,%d5,%d6,%d7}"
#define LARGE_D        "{%d0,%d1,%d2,%d3,%d4,%d5,%d6,%d7}"
#define MMA            MULTIPLY(D, "%da, %db, 1, 1, 1, 0, 0;\n")
#define SECOND_MMA     MULTIPLY(SECOND_D, "%da, %db, 1, 1, 1, 0, 0;\n")
#define REGISTERS_MMA  MULTIPLY(D, "{%a0,%a1,%a2,%a3}, %db, 1, 1, 1, 0;\n")
#define LARGE_MMA                                                                                  \
    "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 " LARGE_D ", %da, %db, 1, 1, 1, 0, 0;\n"
#define DONE COMMIT WAIT("0")

enum { REGISTERS = 8 };

/* A and B are ones: D grows by 16 with each product. */
static wgmma_memory *memory(void)
{
    static wgmma_memory m;
    memset(&m, 0, sizeof m);
    for (int i = 0; i < WGMMA_SHARED; i += 2) {
        m.shared[i] = 0x80;
        m.shared[i + 1] = 0x3f;
    }
    for (int i = 0; i < 4 * WGMMA_THREADS; i++)
        m.a[i / 4][i % 4] = 0x3f803f80;
    return &m;
}

static float value(const wgmma_memory *m, int thread, int i)
{
    float f;
    memcpy(&f, &m->d[thread][i], sizeof f);
    return f;
}

static void expect(const char *name, const char *body, unsigned threads, float first, float second)
{
    wgmma_memory *m = memory();
    wgmma_run(&(wgmma_kernel){name, body, REGISTERS, true, threads}, m);
    for (int thread = 0; thread < WGMMA_THREADS; thread++) {
        for (int i = 0; i < REGISTERS; i++) {
            float wanted = i < 4 ? first : second;
            cr_assert_eq(value(m, thread, i), wanted, "%s: register %d of thread %d is %g, not %g",
                         name, i, thread, (double)value(m, thread, i), (double)wanted);
        }
    }
}

Test(wgmma_async, products_on_the_same_accumulators_follow_each_other)
{
    expect("one group", TILES FENCE MMA MMA MMA DONE, 128, 48, 0);
    expect("three groups", TILES FENCE MMA COMMIT MMA COMMIT MMA DONE, 128, 48, 0);
    expect("no fence is wanted behind a wait", TILES FENCE MMA DONE MMA DONE, 128, 32, 0);
    expect("an empty group", TILES FENCE COMMIT MMA DONE, 128, 16, 0);
    expect("A in registers, twice", TILES FENCE REGISTERS_MMA REGISTERS_MMA DONE, 128, 32, 0);
}

Test(wgmma_async, a_group_that_was_waited_for_may_be_touched_while_others_run)
{
    expect("the first of two",
           TILES FENCE MMA COMMIT SECOND_MMA COMMIT WAIT("1") "add.f32 %d0, %d0, %d1;\n"
                                                              "sub.f32 %d0, %d0, %d1;\n" WAIT("0"),
           128, 16, 16);
    expect("touched, fenced, used again",
           TILES FENCE MMA DONE "add.f32 %d0, %d0, 1.0; sub.f32 %d0, %d0, 1.0;\n" FENCE MMA DONE,
           128, 32, 0);
    expect("another shape behind wait and fence", TILES FENCE MMA DONE FENCE LARGE_MMA DONE, 128,
           32, 16);
}

Test(wgmma_async, two_warpgroups_multiply_by_themselves)
{
    expect("the second one more often",
           TILES FENCE "setp.lt.u32 %p1, %thread, 128; @%p1 bra once;\n" MMA "once:\n" MMA DONE,
           256, 16, 0);
}

Test(wgmma_async, a_tile_may_be_overwritten_by_one_thread_that_has_waited)
{
    expect("a wait of one warp is for all four",
           TILES FENCE MMA DONE "setp.eq.u32 %p1, %thread, 77; @%p1 st.shared.u32 [shared], 0;\n"
                                "@%p1 st.shared.u32 [shared+2048], 0;\n",
           128, 16, 0);
}

/* ---- what is wrong --------------------------------------------------------------------------- */

typedef struct mistake {
    const char *name, *body;
    unsigned threads;
    const char *said[2];
} mistake;

static void check_mistakes(const mistake *mistakes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const mistake *m = &mistakes[i];
        CUresult result =
            wgmma_try(&(wgmma_kernel){m->name, m->body, REGISTERS, true, m->threads}, memory());
        const char *report = device_last_report();
        cr_expect_neq(result, CUDA_SUCCESS, "%s", m->name);
        for (int s = 0; s < 2 && m->said[s]; s++)
            cr_expect(strstr(report, m->said[s]), "%s: '%s' is not in\n%s", m->name, m->said[s],
                      report);
    }
}
#define CHECK_MISTAKES(...)                                                                        \
    do {                                                                                           \
        static const mistake mistakes_[] = {__VA_ARGS__};                                          \
        check_mistakes(mistakes_, sizeof mistakes_ / sizeof *mistakes_);                           \
    } while (0)

Test(wgmma_async, registers_are_left_alone_until_the_wait)
{
    CHECK_MISTAKES({"D is read",
                    TILES FENCE MMA COMMIT "mov.f32 %f0, %d2;\n" WAIT("0"),
                    128,
                    {"%d2 is touched while the wgmma at line", "no wgmma.wait_group covers that"}},
                   {"D is written",
                    TILES FENCE MMA COMMIT "mov.f32 %d3, 0f00000000;\n" WAIT("0"),
                    128,
                    {"%d3 is touched while the wgmma at line"}},
                   {"A is written",
                    TILES FENCE REGISTERS_MMA COMMIT "mov.b32 %a1, 0;\n" WAIT("0"),
                    128,
                    {"%a1 is touched while the wgmma at line"}},
                   {"the wait is for an older group",
                    TILES FENCE MMA COMMIT SECOND_MMA COMMIT WAIT("1") "mov.f32 %f0, %d5;\n",
                    128,
                    {"%d5 is touched while the wgmma at line"}},
                   {"no group was committed",
                    TILES FENCE MMA WAIT("0") "mov.f32 %f0, %d0;\n",
                    128,
                    {"%d0 is touched while the wgmma at line"}},
                   {"another shape while the first runs",
                    TILES FENCE MMA COMMIT FENCE LARGE_MMA DONE,
                    128,
                    {"%d0 is used by the wgmma at line", "as D of another shape: no wgmma.wait"}});
}

Test(wgmma_async, registers_are_fenced)
{
    CHECK_MISTAKES(
        {"no fence at all", TILES MMA DONE, 128, {"no wgmma.fence before the warp's first wgmma"}},
        {"D was written",
         TILES FENCE "mov.f32 %d1, 0f00000000;\n" MMA DONE,
         128,
         {"%d1 was touched by another instruction after the warp's last wgmma.fence"}},
        {"D was read",
         TILES FENCE MMA DONE "mov.f32 %f0, %d1;\n" MMA DONE,
         128,
         {"%d1 was touched by another instruction"}},
        {"A was written",
         TILES FENCE "mov.b32 %a3, 0;\n" REGISTERS_MMA DONE,
         128,
         {"%a3 was touched by another instruction"}},
        {"another shape",
         TILES FENCE MMA DONE LARGE_MMA DONE,
         128,
         {"%d0 was used by the wgmma at line", "another shape: wgmma.fence is missing"}});
}

#define BY_WARP(number, instruction) "setp.eq.u32 %p1, %warp, " number "; @%p1 " instruction ";\n"
#define NOT_BY_WARP(number, what)                                                                  \
    "{ setp.eq.u32 %p1, %warp, " number "; @%p1 bra skip;\n" what "skip: }\n"

Test(wgmma_async, all_warps_of_a_warpgroup_take_part_alike)
{
    CHECK_MISTAKES(
        {"descriptors of lanes",
         TILES "setp.eq.u32 %p1, %thread, 37; @%p1 add.u64 %db, %db, 64;\n" FENCE MMA DONE,
         128,
         {"the descriptor of B differs among lanes", "in lane 5"}},
        {"descriptors of warps",
         TILES BY_WARP("2", "add.u64 %da, %da, 2") FENCE MMA DONE,
         128,
         {"the warps of a warpgroup issue different products", "another descriptor of A"}},
        {"scale-d of lanes",
         TILES FENCE "setp.lt.u32 %p1, %thread, 5;\n" MULTIPLY(D, "%da, %db, %p1, 1, 1, 0, 0;\n")
             DONE,
         128,
         {"scale-d of wgmma differs among lanes", "0x0000001f"}},
        {"scale-d of warps",
         TILES FENCE "setp.lt.u32 %p1, %thread, 32;\n" MULTIPLY(D, "%da, %db, %p1, 1, 1, 0, 0;\n")
             DONE,
         128,
         {"issue different products", "another scale-d"}},
        {"instructions",
         TILES FENCE NOT_BY_WARP("1", MMA) SECOND_MMA DONE,
         128,
         {"issue different products", "has another wgmma"}},
        {"lanes under a guard",
         TILES FENCE "setp.ne.u32 %p1, %thread, 3; @%p1 " MMA DONE,
         128,
         {"wgmma.mma_async in a diverged warp", "0x00000008"}},
        {"lanes that have gone",
         TILES FENCE "setp.eq.u32 %p1, %thread, 3; @%p1 ret;\n" MMA DONE,
         128,
         {"wgmma.mma_async after lanes 0x00000008"}},
        {"three warps",
         TILES FENCE MMA DONE,
         96,
         {"in a warpgroup that is not whole: the block has 96 threads", "warps 0 to 3 are wanted"}},
        {"a warp that does not multiply",
         TILES FENCE NOT_BY_WARP("3", MMA DONE) "bar.sync 0;\n",
         128,
         {"deadlock",
          "for 1 wgmma of its warpgroup, of which have issued: warp 0 1 warp 1 1 warp 2 1 "
          "warp 3 0"}},
        {"nor does anybody wait",
         TILES FENCE NOT_BY_WARP("3", MMA) "bar.sync 0; ret;\n",
         128,
         {"the block has ended, and not all warps of a warpgroup have issued a wgmma",
          "warps 0x00000008, for the wgmma at line"}});
}

Test(wgmma_async, tiles_are_in_shared_memory_and_written)
{
    CHECK_MISTAKES(
        {"a base offset",
         TILES "add.u64 %db, %db, 0x2000000000000;\n" FENCE MMA DONE,
         128,
         {"the descriptor of B", "has base offset 1: the emulator wants 0"}},
        {"the end of shared memory",
         TILES "add.u64 %da, %tile, 0x4000004000010a40;\n" FENCE MMA DONE,
         128,
         {"A of wgmma is out of bounds: 16 bytes at a shared address", "0xc000 (shared)"}},
        {"a stride that leaves it",
         TILES "add.u64 %da, %tile, 0x40003f0000010000;\n" FENCE MMA DONE,
         128,
         {"A of wgmma is out of bounds"}},
        {"what nobody wrote",
         "{ .shared .align 1024 .b8 other[1024];\nmov.u64 %db, other; shr.u64 %db, %db, 4;\n" TILES
         "mov.u64 %db, other; shr.u64 %db, %db, 4; add.u64 %db, %db, 0x4000004000010000; }\n" FENCE
             MMA DONE,
         128,
         {"B of wgmma was never written, or is still being copied: 16 bytes at a shared address"}});
}

Test(wgmma_async, tensor_cores_without_wgmma_are_refused)
{
    setenv("MMLP_EMULATOR_NUMERICS", "exact:b200", 1);
    CHECK_MISTAKES({"exact:b200",
                    TILES FENCE MMA DONE,
                    128,
                    {"wgmma: the tensor cores that MMLP_EMULATOR_NUMERICS names have none"}});
}

#define WRITE(thread, at)                                                                          \
    "setp.eq.u32 %p1, %thread, " thread "; @%p1 st.shared.u32 [shared+" at "], %r0;\n"

Test(wgmma_async, what_nothing_orders_is_a_race)
{
    CHECK_MISTAKES(
        {"no proxy fence",
         TILES WRITE("5", "128") "bar.sync 0;\n" FENCE MMA DONE,
         128,
         {"race: wgmma's read after write", "fence.proxy.async between the write and the wgmma"}},
        {"no barrier behind the proxy fence",
         TILES WRITE("5", "128") "fence.proxy.async;\n" FENCE MMA DONE,
         128,
         {"race: "}},
        {"written before the wait",
         TILES FENCE MMA COMMIT "bar.sync 0;\n" WRITE("5", "16384") WAIT("0"),
         128,
         {"race: write after wgmma's read", "wgmma.wait_group that covers it"}},
        {"written by another warpgroup",
         TILES "setp.ge.u32 %p2, %thread, 128; @%p2 bra second;\n" FENCE MMA DONE
               "bra end;\nsecond:\n" WRITE("200", "16384") "end:\n",
         256,
         {"race: "}},
        {"loaded before the wait",
         "setp.eq.u32 %p1, %thread, 0; @%p1 mbarrier.init.shared.b64 [shared+40960], 1;\n"
         "bar.sync 0;\n" TILES FENCE MMA COMMIT
         "bar.sync 0;\n@%p1 mbarrier.arrive.expect_tx.shared.b64 _, [shared+40960], 256;\n"
         "@%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [shared], [%in], "
         "256, [shared+40960];\n" WAIT("0"),
         128,
         {"race: a bulk copy's write after wgmma's read"}},
        {"multiplied before the load is there",
         "setp.eq.u32 %p1, %thread, 0; @%p1 mbarrier.init.shared.b64 [shared+40960], 1;\n"
         "@%p1 mbarrier.arrive.expect_tx.shared.b64 _, [shared+40960], 256;\n"
         "@%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [shared], [%in], "
         "256, [shared+40960];\nbar.sync 0;\n" TILES FENCE MMA DONE,
         128,
         {"wgmma"}});
}
