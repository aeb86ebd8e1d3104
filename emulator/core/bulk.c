/*
 * bulk.c: cp.async.bulk (PTX ISA 9.7.9.25.4): copies of 16 bytes and more between global and shared
 * memory, by the async proxy. A copy to shared memory tells an mbarrier how many bytes have come;
 * one to global memory belongs to a group that its lane waits for. The bytes move when the copy is
 * issued, or (copies=late) when somebody waits for them.
 *
 * r: shared address, global address, bytes, mbarrier; aux: BULK_*.
 */
#include <string.h>

#include "exec.h"

/* ---- ranges ---------------------------------------------------------------------------------- */

static bool is_marked_range(const uint64_t *map, uint64_t first, uint64_t bytes)
{
    for (uint64_t at = first; at < first + bytes; at += BULK_PIECE) {
        if ((map[at / 64] >> at % 64 & 0xffff) != 0xffff) {
            return false;
        }
    }
    return true;
}

/* Sets or clears the marks of a range of shared memory. */
static void mark_range(uint64_t *map, uint64_t first, uint64_t bytes, bool known)
{
    for (uint64_t at = first; at < first + bytes; at += BULK_PIECE) {
        uint64_t bits = UINT64_C(0xffff) << at % 64;
        map[at / 64] = known ? map[at / 64] | bits : map[at / 64] & ~bits;
    }
}

/* The range is in one allocation and, if it is read, was written. */
static bool check_global(emu_warp *w, const emu_instr *in, uint32_t lane, uint64_t first,
                         uint64_t bytes, bool reads)
{
    memory_arena *arena = w->block->grid->memory;
    memory_allocation found;
    if (!memory_find(arena, first, &found) || first + bytes > found.base + found.bytes) {
        fault_raise_address(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, lane, SPACE_GLOBAL, first, bytes,
                            "out of bounds");
        return false;
    }
    if (reads && !found.whole) {
        uint64_t offset = first - (uint64_t)(uintptr_t)arena->base;
        if (!is_marked_range((const uint64_t *)(const void *)arena->known, offset, bytes)) {
            fault_raise_address(w, in, CUDA_ERROR_LAUNCH_FAILED, lane, SPACE_GLOBAL, first, bytes,
                                "a read of memory that was never written");
            return false;
        }
    }
    return true;
}

static bool check_shared(emu_warp *w, const emu_instr *in, uint32_t lane, uint64_t first,
                         uint64_t bytes, bool reads)
{
    exec_block *block = w->block;
    if (first > block->shared_bytes || bytes > block->shared_bytes - first) {
        fault_raise_address(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, lane, SPACE_SHARED, first, bytes,
                            "out of bounds");
        return false;
    }
    if (reads && !is_marked_range(block->shared_known, first, bytes)) {
        fault_raise_address(w, in, CUDA_ERROR_LAUNCH_FAILED, lane, SPACE_SHARED, first, bytes,
                            "a read of memory that was never written");
        return false;
    }
    return true;
}

static bool check_alignment(emu_warp *w, const emu_instr *in, const bulk_copy *c)
{
    bool global = c->global % BULK_PIECE != 0;
    if (c->bytes % BULK_PIECE) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, 1u << c->lane,
                    "cp.async.bulk of %u bytes: a multiple of 16 is wanted", c->bytes);
        return false;
    }
    if (global || c->shared % BULK_PIECE) {
        fault_raise_address(w, in, CUDA_ERROR_MISALIGNED_ADDRESS, 1u << c->lane,
                            global ? SPACE_GLOBAL : SPACE_SHARED, global ? c->global : c->shared,
                            BULK_PIECE, "misaligned");
        return false;
    }
    return true;
}

/* ---- moving ---------------------------------------------------------------------------------- */

static void mark_written(memory_arena *arena, uint64_t first, uint64_t bytes)
{
    uint64_t *map = (uint64_t *)(void *)arena->known;
    uint64_t offset = first - (uint64_t)(uintptr_t)arena->base;
    for (uint64_t at = offset; at < offset + bytes; at += BULK_PIECE) {
        __atomic_fetch_or(&map[at / 64], UINT64_C(0xffff) << at % 64, __ATOMIC_RELAXED);
    }
}

static void move(exec_block *block, bulk_copy *c)
{
    uint8_t *shared = block->shared + c->shared;
    void *global = (void *)(uintptr_t)c->global;
    c->has_moved = true;
    if (c->stores) {
        memcpy(global, shared, c->bytes);
        mark_written(block->grid->memory, c->global, c->bytes);
        return;
    }
    memcpy(shared, global, c->bytes);
    mark_range(block->shared_known, c->shared, c->bytes, true);
    if (block->race) {
        race_bulk_done(block, c->warp, c->number, c->mbarrier);
    }
    mbarrier_complete_bytes(block, c->mbarrier, c->bytes);
}

/* Loads that have moved are done; stores are kept until they are waited for. */
static void forget_done(exec_block *block)
{
    int kept = 0;
    for (int i = 0; i < block->bulk_count; i++) {
        const bulk_copy *c = &block->bulk[i];
        if (c->stores || !c->has_moved) {
            block->bulk[kept++] = *c;
        }
    }
    block->bulk_count = kept;
}

bool bulk_land(exec_block *block, uint32_t address)
{
    bool any = false;
    for (int i = 0; i < block->bulk_count; i++) {
        bulk_copy *c = &block->bulk[i];
        if (!c->stores && !c->has_moved && (address == UINT32_MAX || c->mbarrier == address)) {
            move(block, c);
            any = true;
        }
    }
    forget_done(block);
    return any;
}

void bulk_end(exec_block *block)
{
    bulk_land(block, UINT32_MAX);
    for (int i = 0; i < block->bulk_count && !block->fault.result; i++) {
        const bulk_copy *c = &block->bulk[i];
        if (!c->is_read) {
            text t = {0};
            fault_begin(block, CUDA_ERROR_LAUNCH_FAILED,
                        "the block has ended while bulk copies read its shared memory", &t);
            text_add(
                &t,
                "  missing     cp.async.bulk.commit_group and wait_group.read by warp %d, lane "
                "%d, for %u bytes from 0x%x (shared)\n",
                c->warp, c->lane, c->bytes, c->shared);
            block->fault.text = t.chars;
        }
    }
}

/* ---- the instructions ------------------------------------------------------------------------ */

static uint64_t lane_value(const emu_warp *w, uint32_t offset, int lane, bool wide)
{
    uint64_t value = 0;
    memcpy(&value, w->registers + offset + (size_t)lane * (wide ? 8 : 4), wide ? 8 : 4);
    return value;
}

static bulk_copy read_copy(const emu_warp *w, const emu_instr *in, int lane)
{
    uint64_t offset = (uint64_t)in->imm;
    return (bulk_copy){
        .global = lane_value(w, in->r[1], lane, true) + (uint64_t)(int64_t)(int32_t)in->target,
        .shared = (uint32_t)(lane_value(w, in->r[0], lane, in->aux & BULK_WIDE) + offset),
        .bytes = (uint32_t)lane_value(w, in->r[2], lane, false),
        .mbarrier = (uint32_t)(lane_value(w, in->r[3], lane, in->aux & BULK_MBARRIER_WIDE) +
                               (in->aux >> BULK_OFFSET_SHIFT)),
        .group = w->bulk_groups[lane],
        .number = w->bulk_issued,
        .warp = (uint8_t)w->index,
        .lane = (uint8_t)lane,
        .stores = (in->aux & BULK_STORES) != 0};
}

static bool check(emu_warp *w, const emu_instr *in, const bulk_copy *c)
{
    uint32_t lane = 1u << c->lane;
    if (!check_alignment(w, in, c) || !check_shared(w, in, lane, c->shared, c->bytes, c->stores) ||
        !check_global(w, in, lane, c->global, c->bytes, !c->stores)) {
        return false;
    }
    if (!c->stores && !mbarrier_is_live(w->block, c->mbarrier)) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, lane,
                    "cp.async.bulk tells an mbarrier at 0x%x (shared), where mbarrier.init has not "
                    "been called",
                    c->mbarrier);
        return false;
    }
    uint32_t shared_access = c->stores ? ACCESS_READ : ACCESS_WRITE,
             global_access = c->stores ? ACCESS_WRITE : ACCESS_READ;
    return !w->block->race || (race_bulk(w, in, SPACE_SHARED, shared_access, c->shared, c->bytes) &&
                               race_bulk(w, in, SPACE_GLOBAL, global_access, c->global, c->bytes));
}

void bulk_issue(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    exec_block *block = w->block;
    for (uint32_t left = mask; left && !block->fault.result; left &= left - 1) {
        bulk_copy c = read_copy(w, in, __builtin_ctz(left));
        if (!check(w, in, &c)) {
            return;
        }
        w->bulk_issued++;
        bool late = block->grid->schedule.late_copies;
        if (!c.stores) {
            mark_range(block->shared_known, c.shared, c.bytes, false);
        }
        if (!late) {
            move(block, &c);
        }
        if (c.stores || late) {
            POOL_GROW(block->bulk, block->bulk_count, block->bulk_capacity);
            block->bulk[block->bulk_count++] = c;
        }
    }
}

void bulk_commit(emu_warp *w, uint32_t mask)
{
    for (uint32_t left = mask; left; left &= left - 1) {
        w->bulk_groups[__builtin_ctz(left)]++;
    }
}

/* imm: how many of the latest groups may stay unfinished; aux: BULK_READ, only their reads count.
 */
void bulk_wait(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    exec_block *block = w->block;
    int kept = 0;
    for (int i = 0; i < block->bulk_count; i++) {
        bulk_copy *c = &block->bulk[i];
        bool awaited = c->stores && c->warp == w->index && (mask >> c->lane & 1) &&
                       (int64_t)c->group < (int64_t)w->bulk_groups[c->lane] - in->imm;
        if (awaited && !c->has_moved) {
            move(block, c);
        }
        c->is_read |= awaited;
        if (awaited && block->race) {
            race_bulk_waited(w, c->number + 1);
        }
        if (!awaited || (in->aux & BULK_READ)) {
            block->bulk[kept++] = *c;
        }
    }
    block->bulk_count = kept;
}
