/*
 * exec_checks.c: the slow ways out of the checks of exec_access.h: what watches the launch, lanes
 * in different allocations or blocks, and the faults.
 */
#include "exec_access.h"

/* Shows an access that is in bounds to what watches the launch; false: a fault was raised. */
static bool watch_global(emu_warp *w, const emu_instr *in, const lane_addresses *a, u32 bytes,
                         u32 access, u32 mask)
{
    if (w->block->counts) {
        if (!(access & ACCESS_PART)) {
            ISA(count_request)(w, a, mask);
        }
        ISA(tally_global)(w, a, bytes, access, mask);
    }
    return !w->block->race || race_access(w, in, SPACE_GLOBAL, NULL, access, a->at, bytes, mask);
}

bool ISA(find_span)(emu_warp *w, const lane_addresses *a, u32 bytes)
{
    memory_allocation found;
    if (!memory_find(w->block->grid->memory, a->lowest, &found)) {
        return false;
    }
    u64 end = found.base + found.bytes;
    if (a->highest > end || a->highest + bytes > end) {
        return false;
    }
    w->span = (memory_span){found.base, end, found.whole};
    return true;
}

bool ISA(watch_span)(emu_warp *w, const emu_instr *in, const lane_addresses *a, u32 bytes,
                     u32 access, u32 mask)
{
    if (w->block->counts || w->block->race) {
        w->span = (memory_span){UINT64_MAX, 0, w->span.whole}; /* holds no address */
        return watch_global(w, in, a, bytes, access, mask);
    }
    return true;
}

/* Lanes in different allocations, or outside of all. */
bool ISA(check_lanes_apart)(emu_warp *w, const emu_instr *in, const lane_addresses *a, u32 bytes,
                            u32 access, u32 mask)
{
    memory_arena *arena = w->block->grid->memory;
    u32 outside = 0, unwritten = 0;
    w->span = (memory_span){0};
    for (u32 left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        memory_allocation found;
        if (!memory_find(arena, a->at[i], &found) || a->at[i] + bytes > found.base + found.bytes) {
            outside |= 1u << i;
        } else if ((access & ACCESS_READ) && !found.whole) {
            u64 offset = a->at[i] - (u64)(uintptr_t)arena->base;
            unwritten |= (u32)!is_marked(arena->known, offset, bytes) << i;
        }
    }
    if (outside) {
        fault_raise_address(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, outside, SPACE_GLOBAL,
                            a->at[__builtin_ctz(outside)], bytes, "out of bounds");
        return false;
    }
    if (!watch_global(w, in, a, bytes, access, mask)) {
        return false;
    }
    if (unwritten) {
        ISA(fail_unwritten)(w, in, a, 0, bytes, SPACE_GLOBAL, unwritten);
    }
    return !unwritten;
}

bool ISA(check_shared_watched)(emu_warp *w, exec_block *owner, const emu_instr *in,
                               const lane_addresses *a, u32 bytes, u32 align, u32 access, u32 mask)
{
    const exec_block *b = w->block;
    if (a->highest + bytes > owner->shared_bytes || a->highest > UINT32_MAX) {
        ISA(fail_bounds)
        (w, in, a, cluster_window(w, owner), bytes, SPACE_SHARED, owner->shared_bytes, mask);
        return false;
    }
    if (a->bits & (align - 1)) {
        return true; /* the caller's fault */
    }
    if (b->counts) {
        ISA(count_shared)(w, a, bytes, mask);
    }
    return !b->race || race_access(w, in, SPACE_SHARED, owner, access, a->at, bytes, mask);
}

void ISA(fail_alignment)(emu_warp *w, const emu_instr *in, const lane_addresses *a, u64 origin,
                         u32 bytes, ptx_space space, u32 mask)
{
    u32 bad = 0;
    for (u32 left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        bad |= (u32)((a->at[i] & (bytes - 1)) != 0) << i;
    }
    fault_raise_address(w, in, CUDA_ERROR_MISALIGNED_ADDRESS, bad, space,
                        origin + a->at[__builtin_ctz(bad)], bytes, "misaligned");
}

void ISA(fail_bounds)(emu_warp *w, const emu_instr *in, const lane_addresses *a, u64 origin,
                      u32 bytes, ptx_space space, u64 limit, u32 mask)
{
    u32 bad = 0;
    for (u32 left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        bad |= (u32)(a->at[i] > limit || a->at[i] + bytes > limit) << i;
    }
    fault_raise_address(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, bad, space,
                        origin + a->at[__builtin_ctz(bad)], bytes, "out of bounds");
}

void ISA(fail_unwritten)(emu_warp *w, const emu_instr *in, const lane_addresses *a, u64 origin,
                         u32 bytes, ptx_space space, u32 bad)
{
    fault_raise_address(w, in, CUDA_ERROR_LAUNCH_FAILED, bad, space,
                        origin + a->at[__builtin_ctz(bad)], bytes,
                        "a read of memory that was never written");
}

bool ISA(next_owner)(owner_visit *v)
{
    if (!v->left || v->w->block->fault.result) {
        return false;
    }
    u64 first = v->a->at[__builtin_ctz(v->left)], window = first / IR_RANK_BYTES;
    v->lanes = 0;
    for (u32 left = v->left; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        v->lanes |= (u32)(v->a->at[i] / IR_RANK_BYTES == window) << i;
    }
    v->left &= ~v->lanes;
    v->owner = cluster_owner(v->w, v->in, v->lanes, first, v->in->aux & AUX_CLUSTER, v->bytes);
    for (int i = 0; i < IR_LANES; i++) {
        v->at.at[i] = (v->lanes >> i & 1 ? v->a->at[i] : first) % IR_RANK_BYTES;
    }
    summarise(&v->at);
    return v->owner != NULL;
}
