/*
 * barrier.c: the sixteen barriers of a block: bar.sync, bar.arrive, bar.red and their barrier.*
 * forms. A warp counts as arrived when all of its lanes that still run have arrived.
 */
#include <string.h>

#include "exec.h"

static uint32_t *lane_register(emu_warp *w, uint32_t offset)
{
    return (uint32_t *)(void *)(w->registers + offset);
}

/* The operand's value, the same in all lanes of the mask. */
static bool uniform(emu_warp *w, const emu_instr *in, uint32_t mask, int k, const char *what,
                    uint32_t *out)
{
    const uint32_t *lanes = lane_register(w, in->r[k]);
    *out = lanes[__builtin_ctz(mask)];
    for (uint32_t left = mask; left; left &= left - 1) {
        if (lanes[__builtin_ctz(left)] != *out) {
            fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, mask,
                        "a barrier whose %s differs among lanes", what);
            return false;
        }
    }
    return true;
}

static bool is_complete(const exec_block *block, const block_barrier *b)
{
    uint32_t arrived = 0;
    bool all = true;
    for (int i = 0; i < block->warp_count; i++) {
        const emu_warp *w = &block->warps[i];
        bool here = b->lanes[i] && (w->live & ~b->lanes[i]) == 0;
        arrived += here ? 32 : 0;
        all &= here || w->live == 0;
    }
    return b->expected ? arrived >= b->expected : all;
}

static void write_result(emu_warp *w, const block_barrier *b, uint32_t lanes)
{
    uint32_t *result = lane_register(w, b->results[w->index]);
    if (b->action == ACTION_POPC) {
        for (uint32_t left = lanes; left; left &= left - 1) {
            result[__builtin_ctz(left)] = b->value;
        }
    } else {
        *result = (*result & ~lanes) | (b->value ? lanes : 0);
    }
}

/* Most kernels have filled their tiles when they first meet here. */
static bool is_shared_whole(const exec_block *block)
{
    size_t words = block->shared_bytes / 64, tail = block->shared_bytes % 64;
    for (size_t i = 0; i < words; i++) {
        if (~block->shared_known[i]) {
            return false;
        }
    }
    uint64_t wanted = (UINT64_C(1) << tail) - 1;
    return (block->shared_known[words] & wanted) == wanted;
}

static void complete(exec_block *block, int id)
{
    block_barrier *b = &block->barriers[id];
    if (block->race) {
        race_complete(block, b);
    }
    if (block->counts) {
        block->counts->barriers++;
    }
    block->shared_whole = block->shared_whole || is_shared_whole(block);
    for (int i = 0; i < block->warp_count; i++) {
        emu_warp *w = &block->warps[i];
        if (!b->waiting[i]) {
            continue;
        }
        if (b->reduces) {
            write_result(w, b, b->waiting[i]);
        }
        for (int k = 0; k < w->split_count; k++) {
            warp_split *s = &w->splits[k];
            if (s->state == SPLIT_AT_BARRIER && s->waits_for == (uint32_t)id) {
                s->state = SPLIT_READY;
            }
        }
    }
    *b = (block_barrier){.completed = b->completed + 1};
}

void barrier_recheck(exec_block *block)
{
    for (int id = 0; id < EXEC_BARRIERS; id++) {
        if (block->barriers[id].in_progress && is_complete(block, &block->barriers[id])) {
            complete(block, id);
        }
    }
}

/* Rules that hold for one arrival alone, and for it together with those before. */
static bool is_legal(emu_warp *w, const emu_instr *in, uint32_t mask, uint32_t id, uint32_t count)
{
    const block_barrier *b = &w->block->barriers[id < EXEC_BARRIERS ? id : 0];
    bool reduces = (in->aux & 0xff) == MODE_RED;
    uint32_t threads = (uint32_t)w->block->warp_count * 32;
    const char *wrong = NULL;
    if (id >= EXEC_BARRIERS) {
        wrong = "the barrier's number is above 15";
    } else if ((in->aux & BAR_COUNTED) && (count == 0 || count % 32 || count > threads)) {
        wrong = "the thread count is zero, no multiple of 32, or more than the block has";
    } else if (b->in_progress && (b->reduces != reduces ||
                                  (reduces && b->action != (int)(in->aux >> BAR_ACTION_SHIFT)))) {
        wrong = "bar.red is mixed with another operation on one barrier";
    } else if (b->lanes[w->index] & mask) {
        wrong = "the warp arrives again before the barrier is complete";
    }
    if (b->in_progress && b->expected != count && id < EXEC_BARRIERS) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, mask,
                    "misuse of barrier %u: this warp counts %u threads, the one that began it %u "
                    "(0: all)",
                    id, count, b->expected);
        return false;
    }
    if (wrong) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, mask, "misuse of barrier %u (count %u): %s",
                    id, count, wrong);
    }
    return !wrong;
}

static void add_to_reduction(block_barrier *b, uint32_t votes, uint32_t mask)
{
    if (b->action == ACTION_POPC) {
        b->value += (uint32_t)__builtin_popcount(votes & mask);
    } else if (b->action == ACTION_AND) {
        b->value &= (votes & mask) == mask;
    } else {
        b->value |= (votes & mask) != 0;
    }
}

/* r: result, id, count, predicate */
void barrier_arrive(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    exec_block *block = w->block;
    uint32_t id, count, mode = in->aux & 0xff;
    if ((in->aux & BAR_ALIGNED) && !warp_meet(w, in, mask, w->live, "an aligned barrier")) {
        return;
    }
    if (mask != w->mask) {
        warp_retry(w, mask);
        return;
    }
    if (!uniform(w, in, mask, 1, "number", &id) || !uniform(w, in, mask, 2, "count", &count) ||
        !is_legal(w, in, mask, id, count)) {
        return;
    }
    block_barrier *b = &block->barriers[id];
    if (!b->in_progress) {
        b->in_progress = true;
        b->expected = count;
        b->reduces = mode == MODE_RED;
        b->action = (int)(in->aux >> BAR_ACTION_SHIFT);
        b->value = b->reduces && b->action == ACTION_AND;
    }
    b->lanes[w->index] |= mask;
    if (block->race) {
        race_arrive(w, id);
    }
    if (b->reduces) {
        add_to_reduction(b, *lane_register(w, in->r[3]), mask);
        b->results[w->index] = in->r[0];
    }
    if (mode != MODE_ARRIVE) {
        b->waiting[w->index] |= mask;
        warp_block(w, SPLIT_AT_BARRIER, id, true);
    }
    if (is_complete(block, b)) {
        complete(block, (int)id);
    }
}
