/*
 * cluster.c: the blocks of a cluster, all resident, and the turns that their warps take. The order
 * is a function of the schedule and the cluster's number alone.
 */
#include <stdlib.h>

#include "exec.h"

enum { QUANTUM = 512 };

exec_cluster *cluster_new(const exec_grid *grid)
{
    exec_cluster *cluster = pool_require(calloc(1, sizeof *cluster));
    cluster->grid = grid;
    cluster->count = grid->cluster_blocks;
    cluster->blocks = pool_require(calloc((size_t)cluster->count, sizeof *cluster->blocks));
    return cluster;
}

void cluster_free(exec_cluster *cluster)
{
    for (int i = 0; i < cluster->count; i++) {
        block_release(&cluster->blocks[i]);
    }
    race_cluster_free(cluster->race);
    free(cluster->blocks);
    free(cluster);
}

/* The number, in the grid, of the block with that rank. */
static uint64_t block_number(const exec_cluster *cluster, unsigned rank)
{
    const exec_grid *g = cluster->grid;
    uint64_t left = cluster->linear, number = 0, stride = 1;
    for (int i = 0; i < 3; i++) {
        unsigned clusters = g->grid[i] / g->cluster[i];
        number += (left % clusters * g->cluster[i] + rank % g->cluster[i]) * stride;
        left /= clusters;
        rank /= g->cluster[i];
        stride *= g->grid[i];
    }
    return number;
}

void cluster_start(exec_cluster *cluster, uint64_t turn, uint64_t linear)
{
    const exec_grid *g = cluster->grid;
    cluster->turn = turn;
    cluster->linear = linear;
    cluster->random = schedule_mix(g->schedule.seed ^ schedule_mix(linear));
    cluster->paused = false;
    cluster->barriers = 0;
    cluster->phases = 0;
    cluster->gave_up_at = 0;
    cluster->gave_up = 0;
    for (int i = 0; i < cluster->count; i++) {
        block_start(&cluster->blocks[i], cluster, block_number(cluster, (unsigned)i));
    }
    if (g->race) {
        race_cluster_start(cluster);
    }
}

int cluster_rank(const exec_block *block)
{
    return (int)(block - block->cluster->blocks);
}

exec_block *cluster_faulty(exec_cluster *cluster)
{
    for (int i = 0; i < cluster->count; i++) {
        if (cluster->blocks[i].fault.result) {
            return &cluster->blocks[i];
        }
    }
    return NULL;
}

uint64_t cluster_executed(const exec_cluster *cluster)
{
    uint64_t executed = 0;
    for (int i = 0; i < cluster->count; i++) {
        for (int k = 0; k < cluster->blocks[i].warp_count; k++) {
            executed += cluster->blocks[i].warps[k].executed;
        }
    }
    return executed;
}

static uint32_t next_random(exec_cluster *cluster)
{
    cluster->random =
        cluster->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(cluster->random >> 33);
}

/* A warp that can run, the search beginning at a random one; NULL: none. */
static emu_warp *choose_warp(exec_cluster *cluster)
{
    int per_block = cluster->blocks[0].warp_count, warps = per_block * cluster->count;
    int start = (int)(next_random(cluster) % (uint32_t)warps);
    for (int i = 0; i < warps; i++) {
        int at = (start + i) % warps;
        emu_warp *w = &cluster->blocks[at / per_block].warps[at % per_block];
        if (warp_runnable(w)) {
            return w;
        }
    }
    return NULL;
}

static int32_t choose_quantum(exec_cluster *cluster)
{
    int32_t fixed = cluster->grid->schedule.quantum;
    return fixed ? fixed : QUANTUM + (int32_t)(next_random(cluster) % QUANTUM);
}

static bool has_ended(const exec_cluster *cluster)
{
    for (int i = 0; i < cluster->count; i++) {
        if (!block_has_ended(&cluster->blocks[i])) {
            return false;
        }
    }
    return true;
}

static void end(exec_cluster *cluster)
{
    for (int i = 0; i < cluster->count; i++) {
        block_end(&cluster->blocks[i]);
    }
}

/* The block has ended: all that others have done to its memory must lie before. */
static void leave(exec_block *block)
{
    int warp;
    const exec_block *other = block->race ? race_block_left(block, &warp) : NULL;
    if (other && !block->fault.result) {
        text t = {0};
        fault_begin(block, CUDA_ERROR_LAUNCH_FAILED,
                    "the block has exited, and nothing orders that behind what another block does "
                    "to its shared memory",
                    &t);
        text_add(&t,
                 "  earlier     an access or arrival by warp %d of block (%u,%u,%u), number %d of "
                 "the cluster\n"
                 "  missing     barrier.cluster before the end, or a wait for that block's arrival\n",
                 warp, other->index[0], other->index[1], other->index[2], cluster_rank(other));
        block->fault.text = t.chars;
    }
}

/* Copies that nobody has waited for land; true: there were any. */
static bool land(exec_cluster *cluster)
{
    bool any = false;
    for (int i = 0; i < cluster->count; i++) {
        any |= bulk_land(&cluster->blocks[i], UINT32_MAX);
    }
    return any;
}

bool cluster_run(exec_cluster *cluster, uint64_t instructions)
{
    uint64_t done = 0;
    while (done < instructions) {
        emu_warp *w = choose_warp(cluster);
        if (w) {
            uint64_t before = w->executed;
            warp_run(w, choose_quantum(cluster));
            done += w->executed - before;
            if (!w->live && cluster->count > 1 && block_has_ended(w->block)) {
                bulk_leave(w->block);
                leave(w->block);
            }
            if (w->block->fault.result) {
                return false;
            }
        } else if (has_ended(cluster)) {
            end(cluster);
            return false;
        } else if (!land(cluster) && !mbarrier_give_up(cluster)) {
            fault_deadlock(cluster);
            return false;
        }
    }
    if (has_ended(cluster)) {
        end(cluster);
        return false;
    }
    return true;
}

/* ---- addresses ------------------------------------------------------------------------------- */

uint64_t cluster_window(const emu_warp *w, const exec_block *owner)
{
    return owner == w->block ? 0 : ((uint64_t)cluster_rank(owner) + 1) * IR_RANK_BYTES;
}

exec_block *cluster_owner(emu_warp *w, const emu_instr *in, uint32_t lanes, uint64_t address,
                          bool may_be_other, size_t bytes)
{
    exec_cluster *cluster = w->block->cluster;
    uint64_t window = address / IR_RANK_BYTES;
    if (window > (uint64_t)cluster->count) {
        fault_raise_address(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, lanes, SPACE_SHARED, address, bytes,
                            "out of bounds");
        return NULL;
    }
    exec_block *owner = window ? &cluster->blocks[window - 1] : w->block;
    if (owner != w->block && !may_be_other) {
        fault_raise_address(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, lanes, SPACE_SHARED, address, bytes,
                            "an address of another block, where .shared::cta is wanted");
        return NULL;
    }
    if (owner != w->block && block_has_ended(owner)) {
        fault_raise_address(w, in, CUDA_ERROR_LAUNCH_FAILED, lanes, SPACE_SHARED, address, bytes,
                            "shared memory of a block that has exited");
        return NULL;
    }
    return owner;
}
