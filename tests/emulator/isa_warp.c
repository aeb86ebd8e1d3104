/* isa_warp.c: instructions that exchange values within a warp or a block (PTX ISA 9.7.9.6, 9.7.13).
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "kernel.h"

#define STORE_R0                                                                                   \
    "mul.wide.u32 %rd0, %thread, 4; add.s64 %rd0, %out, %rd0; st.global.b32 [%rd0], %r0;\n"

static uint32_t value_of_lane(unsigned lane)
{
    return 0x1000u + lane * 7u;
}

static void fill(uint32_t in[32])
{
    for (unsigned lane = 0; lane < 32; ++lane)
        in[lane] = value_of_lane(lane);
}

/* The ISA's own definition: the source lane, and whether it lies in range. */
static unsigned shuffle_source(const char *mode, unsigned lane, unsigned b, unsigned c,
                               int *in_range)
{
    int bval = (int)(b & 31), cval = (int)(c & 31), segmask = (int)(c >> 8 & 31);
    int max_lane = ((int)lane & segmask) | (cval & ~segmask & 31);
    int min_lane = (int)lane & segmask;
    int j;
    if (strcmp(mode, "up") == 0) {
        j = (int)lane - bval;
        *in_range = j >= max_lane;
    } else if (strcmp(mode, "down") == 0) {
        j = (int)lane + bval;
        *in_range = j <= max_lane;
    } else if (strcmp(mode, "bfly") == 0) {
        j = (int)lane ^ bval;
        *in_range = j <= max_lane;
    } else {
        j = min_lane | (bval & ~segmask & 31);
        *in_range = j <= max_lane;
    }
    return *in_range ? (unsigned)j : lane;
}

Test(isa_warp, shuffles_read_the_lane_that_mode_segment_and_clamp_name)
{
    static const char *const modes[] = {"up", "down", "bfly", "idx"};
    static const unsigned controls[] = {0x1f, 0x0, 0x181f, 0x1c1f, 0x1800, 0x100f};
    uint32_t in[32], out[32];
    fill(in);
    for (int m = 0; m < 4; ++m) {
        for (size_t k = 0; k < sizeof controls / sizeof controls[0]; ++k) {
            for (unsigned b = 0; b < 32; b += 5) {
                unsigned c = controls[k];
                char body[1024];
                snprintf(
                    body, sizeof body,
                    "mul.wide.u32 %%rd0, %%thread, 4; add.s64 %%rd0, %%in, %%rd0; ld.global.b32 "
                    "%%r1, [%%rd0];\n"
                    "shfl.sync.%s.b32 %%r0|%%p0, %%r1, %u, 0x%x, -1; @%%p0 add.u32 %%r0, "
                    "%%r0, 0x100000;\n"
                    "mul.wide.u32 %%rd0, %%thread, 4; add.s64 %%rd0, %%out, %%rd0; st.global.b32 "
                    "[%%rd0], %%r0;",
                    modes[m], b, c);
                kernel_run(modes[m], body, 1, 32, in, sizeof in, out, sizeof out);
                for (unsigned lane = 0; lane < 32; ++lane) {
                    int in_range;
                    unsigned source = shuffle_source(modes[m], lane, b, c, &in_range);
                    uint32_t expected = value_of_lane(source) + (in_range ? 0x100000u : 0);
                    cr_assert(out[lane] == expected,
                              "shfl.%s b %u c 0x%x lane %u: got 0x%x, expected 0x%x", modes[m], b,
                              c, lane, out[lane], expected);
                }
            }
        }
    }
}

Test(isa_warp, votes_and_the_active_mask_see_every_lane)
{
    uint32_t out[32];
    kernel_run("ballot", "setp.lt.u32 %p0, %thread, 5; vote.sync.ballot.b32 %r0, %p0, -1;" STORE_R0,
               1, 32, NULL, 0, out, sizeof out);
    for (int lane = 0; lane < 32; ++lane)
        cr_assert_eq(out[lane], 0x1f);

    kernel_run(
        "any, all, uni",
        "setp.lt.u32 %p0, %thread, 5; vote.sync.any.pred %p1, %p0, -1; vote.sync.all.pred %p2, "
        "%p0, -1;\n"
        "vote.sync.uni.pred %p3, %p0, -1; vote.sync.all.pred %p4, !%p0, -1;\n"
        "selp.b32 %r0, 1, 0, %p1; selp.b32 %r1, 2, 0, %p2; or.b32 %r0, %r0, %r1;\n"
        "selp.b32 %r1, 4, 0, %p3; or.b32 %r0, %r0, %r1; selp.b32 %r1, 8, 0, %p4; or.b32 "
        "%r0, %r0, %r1;" STORE_R0,
        1, 32, NULL, 0, out, sizeof out);
    for (int lane = 0; lane < 32; ++lane)
        cr_assert_eq(out[lane], 1, "lane %d: got %u", lane, out[lane]);

    kernel_run("activemask in a branch",
               "mov.u32 %r0, 0; setp.ge.u32 %p0, %thread, 20; @%p0 bra SKIP; activemask.b32 %r0; "
               "SKIP:" STORE_R0,
               1, 32, NULL, 0, out, sizeof out);
    for (int lane = 0; lane < 32; ++lane)
        cr_assert_eq(out[lane], lane < 20 ? 0xfffffu : 0u);

    kernel_run("a vote among the lanes of a branch",
               "mov.u32 %r0, 0; setp.ge.u32 %p0, %thread, 16; @%p0 bra HIGH;\n"
               "and.b32 %r1, %thread, 1; setp.eq.u32 %p1, %r1, 0; vote.sync.ballot.b32 %r0, %p1, "
               "0xffff; bra.uni DONE;\n"
               "HIGH: setp.eq.u32 %p1, %thread, 17; vote.sync.ballot.b32 %r0, %p1, "
               "0xffff0000;\nDONE:" STORE_R0,
               1, 32, NULL, 0, out, sizeof out);
    for (int lane = 0; lane < 32; ++lane)
        cr_assert_eq(out[lane], lane < 16 ? 0x5555u : 0x20000u);
}

Test(isa_warp, match_finds_lanes_with_the_same_value)
{
    uint32_t out[32];
    kernel_run("match.any", "and.b32 %r1, %thread, 3; match.any.sync.b32 %r0, %r1, -1;" STORE_R0, 1,
               32, NULL, 0, out, sizeof out);
    for (int lane = 0; lane < 32; ++lane)
        cr_assert_eq(out[lane], 0x11111111u << (lane & 3));

    kernel_run("match.all",
               "mov.u32 %r1, 7; match.all.sync.b32 %r0|%p0, %r1, -1; match.all.sync.b32 %r2|%p1, "
               "%thread, -1;\n"
               "selp.b32 %r3, 1, 0, %p0; selp.b32 %r4, 2, 0, %p1; add.u32 %r0, %r0, %r2; add.u32 "
               "%r0, %r0, %r3; add.u32 %r0, %r0, %r4;" STORE_R0,
               1, 32, NULL, 0, out, sizeof out);
    for (int lane = 0; lane < 32; ++lane)
        cr_assert_eq(out[lane], 0u, "0xffffffff + 0 + 1 + 0: got 0x%x", out[lane]);
}

Test(isa_warp, redux_reduces_over_the_mask)
{
    static const struct {
        const char *op;
        uint32_t expected;
    } cases[] = {{"add.u32", 496}, {"min.u32", 0}, {"max.u32", 31},
                 {"add.s32", 496}, {"min.s32", 0}, {"max.s32", 31},
                 {"and.b32", 0},   {"or.b32", 31}, {"xor.b32", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        char body[512];
        uint32_t out[32];
        snprintf(body, sizeof body,
                 "redux.sync.%s %%r0, %%thread, -1;\n"
                 "mul.wide.u32 %%rd0, %%thread, 4; add.s64 %%rd0, %%out, %%rd0; st.global.b32 "
                 "[%%rd0], %%r0;",
                 cases[i].op);
        kernel_run(cases[i].op, body, 1, 32, NULL, 0, out, sizeof out);
        for (int lane = 0; lane < 32; ++lane)
            cr_assert_eq(out[lane], cases[i].expected, "%s: got %u", cases[i].op, out[lane]);
    }
}

Test(isa_warp, one_lane_is_elected)
{
    uint32_t out[32];
    kernel_run("elect", "elect.sync %r1|%p0, -1; selp.b32 %r0, 1, 0, %p0;" STORE_R0, 1, 32, NULL, 0,
               out, sizeof out);
    uint32_t elected = 0;
    for (int lane = 0; lane < 32; ++lane)
        elected += out[lane];
    cr_assert_eq(elected, 1);
}

Test(isa_warp, a_barrier_makes_shared_stores_of_other_warps_visible)
{
    uint32_t out[256];
    kernel_run(
        "bar.sync",
        "mov.u32 %r20, shared; mad.lo.u32 %r1, %thread, 4, %r20; mul.lo.u32 %r2, %thread, 3; "
        "st.shared.b32 [%r1], %r2;\n"
        "bar.sync 0;\n"
        "sub.u32 %r3, 255, %thread; mad.lo.u32 %r1, %r3, 4, %r20; ld.shared.b32 %r0, "
        "[%r1];" STORE_R0,
        1, 256, NULL, 0, out, sizeof out);
    for (uint32_t i = 0; i < 256; ++i)
        cr_assert_eq(out[i], 3 * (255 - i));
}

Test(isa_warp, barriers_reduce_predicates_over_the_block)
{
    uint32_t out[96];
    kernel_run("bar.red",
               "setp.lt.u32 %p0, %thread, 70; barrier.cta.red.popc.u32 %r0, 0, %p0; "
               "barrier.cta.red.and.pred %p1, 0, %p0;\n"
               "barrier.cta.red.or.pred %p2, 0, %p0; selp.b32 %r1, 1000, 0, %p1; selp.b32 %r2, "
               "2000, 0, %p2;\n"
               "add.u32 %r0, %r0, %r1; add.u32 %r0, %r0, %r2;" STORE_R0,
               1, 96, NULL, 0, out, sizeof out);
    for (int i = 0; i < 96; ++i)
        cr_assert_eq(out[i], 2070, "got %u", out[i]);
}

Test(isa_warp, a_named_barrier_joins_arrivals_with_waiters)
{
    /* Warp 1 produces and arrives; warp 0 waits for both warps on barrier 3. */
    uint32_t out[64];
    kernel_run(
        "bar.arrive",
        "mov.u32 %r20, shared; mov.u32 %r0, 0; setp.lt.u32 %p0, %thread, 32; @%p0 bra CONSUMER;\n"
        "sub.u32 %r1, %thread, 32; mad.lo.u32 %r1, %r1, 4, %r20; st.shared.b32 [%r1], %thread; "
        "bar.arrive 3, 64; bra.uni DONE;\n"
        "CONSUMER: bar.sync 3, 64; mad.lo.u32 %r1, %thread, 4, %r20; ld.shared.b32 %r0, "
        "[%r1];\nDONE:" STORE_R0,
        1, 64, NULL, 0, out, sizeof out);
    for (uint32_t i = 0; i < 32; ++i)
        cr_assert_eq(out[i], i + 32);
}

Test(isa_warp, special_registers_describe_the_thread)
{
    uint32_t out[64][4];
    kernel_run("special registers",
               "mul.wide.u32 %rd0, %thread, 16; add.s64 %rd0, %out, %rd0; mov.u32 %r0, %laneid; "
               "mov.u32 %r1, %warpid;\n"
               "mov.u32 %r2, %lanemask_lt; mov.u32 %r3, %ntid.x; mov.u32 %r4, %nctaid.x; "
               "mad.lo.u32 %r3, %r4, 1000, %r3;\n"
               "st.global.v4.b32 [%rd0], {%r0,%r1,%r2,%r3};",
               1, 64, NULL, 0, out, sizeof out);
    for (uint32_t i = 0; i < 64; ++i) {
        cr_assert_eq(out[i][0], i % 32);
        cr_assert_eq(out[i][1], i / 32);
        cr_assert_eq(out[i][2], (1u << (i % 32)) - 1);
        cr_assert_eq(out[i][3], 1064);
    }
}

Test(isa_warp, a_barrier_waits_only_for_threads_that_have_not_exited)
{
    /* Half of warp 0 and all of warp 2 leave before the barrier. */
    uint32_t out[96];
    kernel_run(
        "bar.sync after exit",
        "mov.u32 %r20, shared; mad.lo.u32 %r1, %thread, 4, %r20; st.shared.b32 [%r1], %thread;\n"
        "setp.lt.u32 %p0, %thread, 16; setp.ge.u32 %p1, %thread, 64; or.pred %p0, %p0, %p1; @%p0 "
        "exit;\n"
        "bar.sync 0;\n"
        "sub.u32 %r3, 79, %thread; mad.lo.u32 %r1, %r3, 4, %r20; ld.shared.b32 %r0, "
        "[%r1];" STORE_R0,
        1, 96, NULL, 0, out, sizeof out);
    for (uint32_t i = 0; i < 96; ++i)
        cr_assert_eq(out[i], i < 16 || i >= 64 ? 0 : 79 - i, "thread %u: got %u", i, out[i]);
}
