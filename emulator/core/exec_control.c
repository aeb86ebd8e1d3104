/*
 * exec_control.c: branches, barriers and ends: thin, the work is in warp.c, barrier.c and print.c.
 */
#include "exec_lanes.h"

DEFINE_HANDLER(branch)
{
    if (mask == w->mask && w->split_count == 1) {
        w->pc = in->target;
    } else {
        warp_jump(w, mask, in->target);
    }
}

/* imm entries from `target` of the jump table; lanes are grouped by their entry */
DEFINE_HANDLER(branch_index)
{
    const u32 *index = REG(const u32, 0);
    u32 targets[IR_LANES + 1], groups[IR_LANES + 1], outside = 0;
    int count = 0;
    for (u32 left = mask; left;) {
        u32 value = index[__builtin_ctz(left)], same = 0;
        for (u32 l = left; l; l &= l - 1) {
            int i = __builtin_ctz(l);
            same |= (u32)(index[i] == value) << i;
        }
        left &= ~same;
        if (value >= in->imm) {
            outside |= same;
            continue;
        }
        targets[count] = w->block->grid->kernel->jumps[in->target + value];
        groups[count++] = same;
    }
    if (outside) {
        fault_raise(w, in, CUDA_ERROR_ILLEGAL_INSTRUCTION, outside,
                    "brx.idx with an index beyond its %lld targets", (long long)in->imm);
        return;
    }
    if (w->mask & ~mask) {
        targets[count] = w->pc;
        groups[count++] = w->mask & ~mask;
    }
    warp_scatter(w, targets, groups, count);
}

DEFINE_HANDLER(exit)
{
    (void)in;
    warp_exit_lanes(w, mask);
}

DEFINE_HANDLER(trap)
{
    fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, mask, "trap");
}

DEFINE_HANDLER(bar)
{
    barrier_arrive(w, in, mask);
}

DEFINE_HANDLER(grid_wait)
{
    (void)in;
    (void)mask;
    if (w->block->race) {
        race_grids_waited(w);
    }
}

DEFINE_HANDLER(mbarrier)
{
    mbarrier_run(w, in, mask);
}

DEFINE_HANDLER(bar_warp)
{
    const u32 *given = REG(const u32, 0);
    u32 members = given[__builtin_ctz(mask)], strangers = 0;
    for (u32 left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        strangers |= (u32)(!(given[i] >> i & 1)) << i;
    }
    if (strangers) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, strangers,
                    "bar.warp.sync by lanes that are not in their member mask");
        return;
    }
    if ((members & w->live & ~mask) != 0) {
        warp_sync(w, mask, members);
    }
}

DEFINE_HANDLER(print)
{
    print_format(w, in, mask);
}

DEFINE_HANDLER(assert_fail)
{
    print_assertion(w, in, mask);
}

DEFINE_HANDLER(nop)
{
    (void)w;
    (void)in;
    (void)mask;
}
