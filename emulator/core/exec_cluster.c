/*
 * exec_cluster.c: barrier.cluster, and the addresses of shared memory within a cluster.
 */
#include "exec_lanes.h"

DEFINE_HANDLER(cluster_arrive)
{
    cluster_arrive(w, in, mask);
}

DEFINE_HANDLER(cluster_wait)
{
    cluster_wait(w, in, mask);
}

static u64 address_of(const emu_warp *w, const emu_instr *in, int lane)
{
    u64 address = warp_lane_value(w, in->r[1], lane, in->aux & AUX_WIDE);
    return in->aux & AUX_GENERIC ? address - IR_SHARED_WINDOW : address;
}

/* False: a fault was raised. */
static bool check_address(emu_warp *w, const emu_instr *in, int lane, u64 address)
{
    if (address / IR_RANK_BYTES <= (u64)w->block->cluster->count) {
        return true;
    }
    fault_raise(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, 1u << lane,
                "an address that is not in the shared memory of the cluster: 0x%llx",
                (unsigned long long)warp_lane_value(w, in->r[1], lane, in->aux & AUX_WIDE));
    return false;
}

DEFINE_HANDLER(mapa)
{
    bool wide = in->aux & AUX_WIDE;
    u64 window = in->aux & AUX_GENERIC ? IR_SHARED_WINDOW : 0;
    u32 count = (u32)w->block->cluster->count;
    for (u32 left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        u64 address = address_of(w, in, i);
        u32 rank = REG(const u32, 2)[i];
        if (!check_address(w, in, i, address)) {
            return;
        }
        if (rank >= count) {
            fault_raise(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, 1u << i,
                        "mapa to block %u of a cluster of %u", rank, count);
            return;
        }
        address = address % IR_RANK_BYTES + ((u64)rank + 1) * IR_RANK_BYTES + window;
        memcpy(w->registers + in->r[0] + (size_t)i * (wide ? 8 : 4), &address, wide ? 8 : 4);
    }
}

DEFINE_HANDLER(getctarank)
{
    for (u32 left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        u64 address = address_of(w, in, i), number = address / IR_RANK_BYTES;
        if (!check_address(w, in, i, address)) {
            return;
        }
        REG(u32, 0)[i] = number ? (u32)number - 1 : (u32)cluster_rank(w->block);
    }
}
