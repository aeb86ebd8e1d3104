/*
 * cluster_barrier.c: barrier.cluster (PTX ISA 9.7.13.4), at which all threads of a cluster meet.
 * Threads arrive and wait one by one; a phase is over when all that still run have arrived.
 *
 * aux: CLUSTER_ALIGNED; order: of arrive whether it releases, of wait whether it acquires.
 */
#include "exec.h"

static void complete(exec_cluster *cluster)
{
    cluster->barriers++;
    if (cluster->race) {
        race_cluster_complete(cluster);
    }
    for (int i = 0; i < cluster->count; i++) {
        exec_block *block = &cluster->blocks[i];
        for (int k = 0; k < block->warp_count; k++) {
            cluster_arrivals *a = &block->arrivals[k];
            emu_warp *w = &block->warps[k];
            a->over |= a->now & ~a->waiting;
            a->now = 0;
            if (a->waiting && block->race) {
                race_cluster_wait(w);
            }
            a->waiting = 0;
            for (int n = 0; n < w->split_count; n++) {
                if (w->splits[n].state == SPLIT_AT_CLUSTER) {
                    w->splits[n].state = SPLIT_READY;
                }
            }
        }
    }
}

void cluster_recheck(exec_cluster *cluster)
{
    uint32_t arrived = 0;
    for (int i = 0; i < cluster->count; i++) {
        const exec_block *block = &cluster->blocks[i];
        for (int k = 0; k < block->warp_count; k++) {
            if (block->warps[k].live & ~block->arrivals[k].now) {
                return;
            }
            arrived |= block->arrivals[k].now;
        }
    }
    if (arrived) {
        complete(cluster);
    }
}

static bool meet(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    return !(in->aux & CLUSTER_ALIGNED) ||
           warp_meet(w, in, mask, w->live, "an aligned barrier.cluster");
}

void cluster_arrive(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    cluster_arrivals *a = &w->block->arrivals[w->index];
    uint32_t again = mask & (a->now | a->over);
    if (!meet(w, in, mask)) {
        return;
    }
    if (again) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, again,
                    "barrier.cluster.arrive again, without barrier.cluster.wait between");
        return;
    }
    a->now |= mask;
    if (w->block->race) {
        race_cluster_arrive(w, in);
    }
    cluster_recheck(w->block->cluster);
}

void cluster_wait(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    cluster_arrivals *a = &w->block->arrivals[w->index];
    uint32_t absent = mask & ~(a->now | a->over), pending = mask & a->now;
    if (!meet(w, in, mask)) {
        return;
    }
    if (absent) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, absent,
                    "barrier.cluster.wait without barrier.cluster.arrive before it");
        return;
    }
    a->over &= ~mask;
    if (pending && pending != w->mask) { /* those whose phase is over go on */
        warp_retry(w, pending);
    } else if (pending) {
        a->waiting |= pending;
        warp_block(w, SPLIT_AT_CLUSTER, 0, true);
    }
    if (pending != mask && w->block->race) {
        race_cluster_wait(w);
    }
}
