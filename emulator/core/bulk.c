/*
 * bulk.c: cp.async.bulk (PTX ISA 9.7.9.25.4): copies of 16 bytes and more between global and shared
 * memory, by the async proxy. A copy to shared memory tells an mbarrier how many bytes have come;
 * one to global memory belongs to a group that its lane waits for. The bytes move when the copy is
 * issued, or (copies=late) when somebody waits for them.
 *
 * r: shared address, global address or that of a tensor map, bytes, mbarrier, coordinates; aux:
 * BULK_*.
 */
#include <string.h>

#include "exec.h"

/* ---- ranges ---------------------------------------------------------------------------------- */

/* The marks of bytes first .. end - 1 in the word that begins at `at`. */
static uint64_t word_bits(uint64_t at, uint64_t first, uint64_t end)
{
    uint64_t bits = ~UINT64_C(0);
    bits &= at < first ? ~UINT64_C(0) << (first - at) : bits;
    bits &= end - at < 64 ? (UINT64_C(1) << (end - at)) - 1 : bits;
    return bits;
}

static bool is_marked_range(const uint64_t *map, uint64_t first, uint64_t bytes)
{
    uint64_t missing = 0;
    for (uint64_t at = first / 64 * 64; at < first + bytes; at += 64) {
        missing |= word_bits(at, first, first + bytes) & ~map[at / 64];
    }
    return !missing;
}

/* Sets or clears the marks of a range of shared memory. */
static void mark_range(uint64_t *map, uint64_t first, uint64_t bytes, bool known)
{
    for (uint64_t at = first / 64 * 64; at < first + bytes; at += 64) {
        uint64_t bits = word_bits(at, first, first + bytes);
        map[at / 64] = known ? map[at / 64] | bits : map[at / 64] & ~bits;
    }
}

void bulk_mark_written(memory_arena *arena, uint64_t first, uint64_t bytes)
{
    uint64_t *map = (uint64_t *)(void *)arena->known;
    uint64_t offset = first - (uint64_t)(uintptr_t)arena->base;
    for (uint64_t at = offset / 64 * 64; at < offset + bytes; at += 64) {
        __atomic_fetch_or(&map[at / 64], word_bits(at, offset, offset + bytes), __ATOMIC_RELAXED);
    }
}

/* One request, whatever its size; shared memory serves 128 bytes at a time. */
static void count_range(exec_block *block, uint64_t first, uint64_t bytes, uint32_t access)
{
    memory_tally *tally = block->grid->tally;
    uint64_t offset = first - (uint64_t)(uintptr_t)block->grid->memory->base;
    block->counts->global_requests++;
    block->counts->global_sectors += (first + bytes + 31) / 32 - first / 32;
    block->counts->shared_wavefronts += (bytes + 127) / 128;
    for (uint64_t at = offset / 64 * 64; at < offset + bytes; at += 64) {
        uint64_t bits = word_bits(at, offset, offset + bytes);
        if (access & ACCESS_READ) {
            tally_mark(tally, TALLY_READ, at, bits);
        }
        if (access & ACCESS_WRITE) {
            tally_mark(tally, TALLY_WRITTEN, at, bits);
        }
    }
}

bool bulk_check_global(emu_warp *w, const emu_instr *in, const bulk_copy *c, uint64_t first,
                       uint64_t bytes, uint64_t read)
{
    memory_arena *arena = w->block->grid->memory;
    memory_allocation found;
    uint32_t lane = 1u << c->lane;
    if (!memory_find(arena, first, &found) || first + bytes > found.base + found.bytes) {
        fault_raise_address(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, lane, SPACE_GLOBAL, first, bytes,
                            "out of bounds");
        return false;
    }
    if (read && !found.whole) {
        uint64_t offset = first - (uint64_t)(uintptr_t)arena->base;
        if (!is_marked_range((const uint64_t *)(const void *)arena->known, offset, read)) {
            fault_raise_address(w, in, CUDA_ERROR_LAUNCH_FAILED, lane, SPACE_GLOBAL, first, read,
                                "a read of memory that was never written");
            return false;
        }
    }
    uint32_t access = (read ? ACCESS_READ : 0) | (c->stores ? ACCESS_WRITE : 0);
    if (w->block->counts) {
        count_range(w->block, first, bytes, access);
    }
    return !w->block->race || race_bulk(w, in, SPACE_GLOBAL, NULL, access, first, bytes);
}

static bool check_shared(emu_warp *w, const emu_instr *in, uint32_t lane, exec_block *owner,
                         uint64_t first, uint64_t bytes, uint32_t access)
{
    uint64_t window = cluster_window(w, owner);
    if (first > owner->shared_bytes || bytes > owner->shared_bytes - first) {
        fault_raise_address(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, lane, SPACE_SHARED, window + first,
                            bytes, "out of bounds");
        return false;
    }
    if (access == ACCESS_READ && !is_marked_range(owner->shared_known, first, bytes)) {
        fault_raise_address(w, in, CUDA_ERROR_LAUNCH_FAILED, lane, SPACE_SHARED, window + first,
                            bytes, "a read of memory that was never written");
        return false;
    }
    return !owner->race || race_bulk(w, in, SPACE_SHARED, owner, access, first, bytes);
}

static bool check_alignment(emu_warp *w, const emu_instr *in, const bulk_copy *c)
{
    bool outside = c->global % BULK_PIECE != 0;
    if (c->bytes % BULK_PIECE) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, 1u << c->lane,
                    "cp.async.bulk of %u bytes: a multiple of 16 is wanted", c->bytes);
        return false;
    }
    if (outside || c->shared % BULK_PIECE) {
        fault_raise_address(w, in, CUDA_ERROR_MISALIGNED_ADDRESS, 1u << c->lane,
                            outside && !c->is_peer ? SPACE_GLOBAL : SPACE_SHARED,
                            outside ? c->global : c->shared, BULK_PIECE, "misaligned");
        return false;
    }
    return true;
}

/* ---- moving ---------------------------------------------------------------------------------- */

static void move_range(exec_block *block, const bulk_copy *c)
{
    uint8_t *shared = block->shared + c->shared;
    uint8_t *global = c->is_peer ? c->issuer->shared + c->global : (void *)(uintptr_t)c->global;
    if (c->is_value) {
        memcpy(shared, c->value, c->bytes);
    } else if (c->stores) {
        memcpy(global, shared, c->bytes);
        bulk_mark_written(block->grid->memory, c->global, c->bytes);
    } else {
        memcpy(shared, global, c->bytes);
    }
}

/* block: the issuer of a store, the target of a load. */
static void move(exec_block *block, bulk_copy *c)
{
    c->has_moved = true;
    if (c->is_tensor) {
        tensor_move(block, c);
    } else {
        move_range(block, c);
    }
    if (c->stores) {
        return;
    }
    mark_range(block->shared_known, c->shared, c->bytes, true);
    if (block->race) {
        race_bulk_done(c->issuer, c->warp, c->number, block, c->mbarrier);
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

static void fail_leaving(exec_block *block, const bulk_copy *c, const char *what)
{
    text t = {0};
    if (!block->fault.result) {
        fault_begin(block, CUDA_ERROR_LAUNCH_FAILED, what, &t);
        text_add(
            &t,
            "  copy        of %u bytes to 0x%x (shared), by warp %d, lane %d of block (%u,%u,%u), "
            "number %d of the cluster\n"
            "  missing     a wait for its mbarrier, and barrier.cluster before the end\n",
            c->bytes, c->shared, c->warp, c->lane, c->issuer->index[0], c->issuer->index[1],
            c->issuer->index[2], cluster_rank(c->issuer));
        block->fault.text = t.chars;
    }
}

/* Copies of the cluster that still move to or from its shared memory. */
void bulk_leave(exec_block *block)
{
    const exec_cluster *cluster = block->cluster;
    for (int i = 0; i < cluster->count; i++) {
        const exec_block *target = &cluster->blocks[i];
        for (int k = 0; k < target->bulk_count; k++) {
            const bulk_copy *c = &target->bulk[k];
            if (c->stores) {
                continue;
            }
            if (target == block && c->issuer != block) {
                fail_leaving(
                    block, c,
                    "the block has exited while another block copies to its shared memory");
            } else if (target != block && c->is_peer && c->issuer == block) {
                fail_leaving(block, c,
                             "the block has exited while a copy to another block reads its shared "
                             "memory");
            }
        }
    }
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

static bulk_copy read_copy(const emu_warp *w, const emu_instr *in, int lane)
{
    uint64_t offset = (uint64_t)in->imm;
    return (bulk_copy){
        .issuer = w->block,
        .global = warp_lane_value(w, in->r[1], lane, true) + (uint64_t)(int64_t)(int32_t)in->target,
        .shared = (uint32_t)(warp_lane_value(w, in->r[0], lane, in->aux & BULK_WIDE) + offset),
        .bytes = (uint32_t)warp_lane_value(w, in->r[2], lane, false),
        .mbarrier = (uint32_t)(warp_lane_value(w, in->r[3], lane, in->aux & BULK_MBARRIER_WIDE) +
                               (in->aux >> BULK_OFFSET_SHIFT & (BULK_OFFSETS - 1))),
        .group = w->bulk_groups[lane],
        .number = w->bulk_issued,
        .warp = (uint8_t)w->index,
        .lane = (uint8_t)lane,
        .stores = (in->aux & BULK_STORES) != 0,
        .reduces = (in->aux & BULK_REDUCES) != 0,
        .is_peer = (in->aux & BULK_PEER) != 0,
        .is_tensor = (in->aux & BULK_TENSOR) != 0};
}

static const char *name_of(const bulk_copy *c)
{
    return c->is_value ? "st.async" : "cp.async.bulk";
}

/* The blocks that a load goes to, one bit for each rank; 0: a fault was raised. */
static uint32_t find_targets(emu_warp *w, const emu_instr *in, const bulk_copy *c)
{
    uint32_t lane = 1u << c->lane, count = (uint32_t)w->block->cluster->count;
    bool any = in->aux & BULK_CLUSTER;
    exec_block *to = cluster_owner(w, in, lane, c->shared, any, c->bytes),
               *told = to ? cluster_owner(w, in, lane, c->mbarrier, any, 8) : NULL;
    uint16_t mask;
    if (!told) {
        return 0;
    }
    if (to != told) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, lane,
                    "%s to block %d of the cluster tells an mbarrier of block %d", name_of(c),
                    cluster_rank(to), cluster_rank(told));
        return 0;
    }
    if (!(in->aux & BULK_MULTICAST)) {
        return 1u << cluster_rank(to);
    }
    memcpy(&mask, w->registers + in->r[4 + (in->aux >> TENSOR_RANK_SHIFT & 7)] + 2 * c->lane,
           sizeof mask);
    if (!mask || mask >> count) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, lane,
                    "multicast to blocks 0x%x of a cluster of %u", mask, count);
        return 0;
    }
    return mask;
}

static bool check_target(emu_warp *w, const emu_instr *in, const bulk_copy *c, exec_block *target)
{
    uint32_t lane = 1u << c->lane;
    if (target != w->block && block_has_ended(target)) {
        fault_raise_address(w, in, CUDA_ERROR_LAUNCH_FAILED, lane, SPACE_SHARED,
                            cluster_window(w, target) + c->shared, c->bytes,
                            "shared memory of a block that has exited");
        return false;
    }
    uint32_t access = ACCESS_WRITE | (c->is_value ? ACCESS_GENERIC : 0);
    if (!check_shared(w, in, lane, target, c->shared, c->bytes, access)) {
        return false;
    }
    if (!mbarrier_is_live(target, c->mbarrier)) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, lane,
                    "%s tells an mbarrier at 0x%llx (shared), where mbarrier.init has not been "
                    "called",
                    name_of(c), (unsigned long long)(cluster_window(w, target) + c->mbarrier));
        return false;
    }
    return true;
}

/* What lies outside the target: in registers, in global memory, or in the issuer's shared memory.
 */
static bool check_outside(emu_warp *w, const emu_instr *in, const bulk_copy *c)
{
    if (c->is_tensor) {
        return tensor_check_rows(w, in, c);
    }
    if (c->is_peer) {
        return check_shared(w, in, 1u << c->lane, w->block, c->global, c->bytes, ACCESS_READ);
    }
    return c->is_value || c->bytes == 0 ||
           bulk_check_global(w, in, c, c->global, c->bytes, c->stores ? 0 : c->bytes);
}

/* block: the issuer of a store, the target of a load. */
static void begin(exec_block *block, const bulk_copy *given)
{
    bulk_copy c = *given;
    bool late = block->grid->schedule.late_copies;
    if (!c.stores) {
        mark_range(block->shared_known, c.shared, c.bytes, false);
        block->shared_whole = false;
    }
    if (!late) {
        move(block, &c);
    }
    if (c.stores || late) {
        POOL_GROW(block->bulk, block->bulk_count, block->bulk_capacity);
        block->bulk[block->bulk_count++] = c;
    }
}

static void issue_store(emu_warp *w, const emu_instr *in, const bulk_copy *c)
{
    exec_block *block = w->block;
    if (check_shared(w, in, 1u << c->lane, block, c->shared, c->bytes, ACCESS_READ) &&
        check_outside(w, in, c)) {
        begin(block, c);
    }
}

static void issue_load(emu_warp *w, const emu_instr *in, bulk_copy *c)
{
    exec_block *blocks = w->block->cluster->blocks;
    uint32_t targets = find_targets(w, in, c);
    c->shared %= IR_RANK_BYTES;
    c->mbarrier %= IR_RANK_BYTES;
    for (uint32_t left = targets; left; left &= left - 1) {
        if (!check_target(w, in, c, &blocks[__builtin_ctz(left)])) {
            return;
        }
    }
    if (!targets || !check_outside(w, in, c)) {
        return;
    }
    for (uint32_t left = targets; left; left &= left - 1) {
        begin(&blocks[__builtin_ctz(left)], c);
    }
}

void bulk_issue(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    for (uint32_t left = mask; left; left &= left - 1) {
        bulk_copy c = read_copy(w, in, __builtin_ctz(left));
        if (c.is_tensor ? !tensor_begin(w, in, &c) : !check_alignment(w, in, &c)) {
            return;
        }
        if (in->aux & BULK_PREFETCHES) {
            continue; /* there are no caches */
        }
        if (c.stores) {
            issue_store(w, in, &c);
        } else {
            issue_load(w, in, &c);
        }
        if (w->block->fault.result) {
            return;
        }
        w->bulk_issued++;
    }
}

static bulk_copy read_store(const emu_warp *w, const emu_instr *in, int lane)
{
    uint32_t count = in->aux & AUX_VECTOR, bytes = in->aux & STORE_ASYNC_8 ? 8 : 4;
    bulk_copy c = {.issuer = w->block,
                   .bytes = count * bytes,
                   .number = w->bulk_issued,
                   .warp = (uint8_t)w->index,
                   .lane = (uint8_t)lane,
                   .is_value = true};
    c.shared =
        (uint32_t)(warp_lane_value(w, in->r[0], lane, in->aux & AUX_WIDE) + (uint64_t)in->imm);
    c.mbarrier = (uint32_t)warp_lane_value(w, in->r[1], lane, in->aux & STORE_ASYNC_MBARRIER_WIDE) +
                 in->target;
    for (uint32_t i = 0; i < count; i++) {
        memcpy(c.value + i * bytes, w->registers + in->r[2 + i] + (uint32_t)lane * bytes, bytes);
    }
    return c;
}

/* r: address, mbarrier, values; imm, target: the offsets of the first two. */
void bulk_store_async(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    for (uint32_t left = mask; left && !w->block->fault.result; left &= left - 1) {
        bulk_copy c = read_store(w, in, __builtin_ctz(left));
        if (c.shared % c.bytes) {
            fault_raise_address(w, in, CUDA_ERROR_MISALIGNED_ADDRESS, 1u << c.lane, SPACE_SHARED,
                                c.shared, c.bytes, "misaligned");
            return;
        }
        issue_load(w, in, &c);
        w->bulk_issued++;
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
            race_bulk_waited(w, c->number + 1, (in->aux & BULK_READ) != 0);
        }
        if (!awaited || (in->aux & BULK_READ)) {
            block->bulk[kept++] = *c;
        }
    }
    block->bulk_count = kept;
}
