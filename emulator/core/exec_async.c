/*
 * exec_async.c: fences, cp.async and the waits for it. The bytes move at once, or (copies=late) in
 * the wait, and count as uninitialised until the lane has waited for their group.
 *
 * cp.async: r: target, source, size, ignore predicate; aux: bytes; target: source offset.
 */
#include "exec_access.h"

static void forget_shared(u8 *map, u64 offset, u32 bytes)
{
    u64 word = mark_word(map, offset) & ~mark_bits(offset, bytes);
    memcpy(map + (offset >> 6 << 3), &word, sizeof word);
}

/* Remembers the targets until the lanes wait for their group, and `source` if it moves then. */
static void remember_copy(emu_warp *w, const lane_addresses *to, const async_source *source,
                          u32 bytes, u32 mask)
{
    while (mask) {
        u32 group = w->groups[__builtin_ctz(mask)], same = 0;
        for (int i = 0; i < IR_LANES; i++) {
            same |= (u32)(w->groups[i] == group) << i;
        }
        POOL_GROW(w->copies, w->copy_count, w->copy_capacity);
        if (source) {
            POOL_GROW(w->sources, w->copy_count, w->source_capacity);
            w->sources[w->copy_count] = *source;
        }
        async_copy *copy = &w->copies[w->copy_count++];
        copy->mask = mask & same;
        copy->group = group;
        copy->bytes = bytes;
        copy->number = w->copies_issued;
        for (int i = 0; i < IR_LANES; i++) {
            copy->target[i] = (u32)to->at[i];
        }
        mask &= ~same;
    }
    w->copies_issued++;
}

/* The lanes whose source is read, or FULL fault: sizes over the copy size are an error. */
static bool sizes_allowed(emu_warp *w, const emu_instr *in, u32 mask, const u32 *size, u32 bytes)
{
    u32 bad = 0;
    LANES(bad |= (u32)(size[i] > bytes) << i;);
    if (bad) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, bad,
                    "cp.async with a source of %u bytes, more than the %u it copies",
                    size[__builtin_ctz(bad)], bytes);
    }
    return !bad;
}

/* The usual case: 16 bytes in every lane. */
static void copy_whole(emu_warp *w, const lane_addresses *to, const lane_addresses *from, u32 mask)
{
    u8 *shared = w->block->shared, *known = (u8 *)w->block->shared_known;
    static const u8 none[2];
    LANES(memcpy(shared + to->at[i], host(0, from->at[i]), 16);
          memcpy(known + (to->at[i] >> 3), none, sizeof none););
}

/* Lanes whose sources have different sizes, one request: those of one size at a time, so that each
 * is checked (and counted) for what it reads. The size need not be a power of two: the address is
 * aligned to the copy's. */
static bool check_parts(emu_warp *w, const emu_instr *in, const lane_addresses *from,
                        const u32 *size, u32 bytes, u32 reading)
{
    if (w->block->counts) {
        ISA(count_request)(w, from, reading);
    }
    for (u32 left = reading; left;) {
        u32 part = size[__builtin_ctz(left)], same = 0;
        for (int i = 0; i < IR_LANES; i++) {
            same |= (u32)(size[i] == part) << i;
        }
        same &= left;
        lane_addresses alike;
        read_addresses(&alike, w, in, 1, true, (s32)in->target, same);
        if (!check_global(w, in, &alike, part, bytes, ACCESS_READ | ACCESS_PART, same)) {
            return false;
        }
        left &= ~same;
    }
    return true;
}

/* `size` bytes from the source, zeros up to `bytes`. */
static void copy_parts(emu_warp *w, const lane_addresses *to, const lane_addresses *from,
                       const u32 *size, u32 reading, u32 bytes, u32 mask)
{
    for (u32 left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        u8 value[16] = {0};
        if (reading >> i & 1) {
            memcpy(value, host(0, from->at[i]), size[i]);
        }
        memcpy(w->block->shared + to->at[i], value, bytes < sizeof value ? bytes : sizeof value);
        forget_shared((u8 *)w->block->shared_known, to->at[i], bytes);
    }
}

/* What copy_parts would do now, for the wait; until then nobody may read the target. */
static void put_off(emu_warp *w, const lane_addresses *to, const lane_addresses *from,
                    const u32 *size, u32 reading, u32 bytes, u32 mask)
{
    async_source source;
    for (u32 left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        bool reads = reading >> i & 1;
        source.at[i] = reads ? from->at[i] : 0;
        source.bytes[i] = reads ? (u8)size[i] : 0;
        forget_shared((u8 *)w->block->shared_known, to->at[i], bytes);
    }
    remember_copy(w, to, &source, bytes, mask);
}

/* The wait for lane i of copy k. */
static void land(emu_warp *w, int k, int i)
{
    const async_copy *copy = &w->copies[k];
    const async_source *source = &w->sources[k];
    u8 value[16] = {0};
    if (source->bytes[i]) {
        memcpy(value, host(0, source->at[i]), source->bytes[i]);
    }
    memcpy(w->block->shared + copy->target[i], value, copy->bytes);
}

DEFINE_HANDLER(cp_async)
{
    u32 bytes = in->aux >> AUX_ACTION_SHIFT, ignored = read_predicate(w, in->r[3]) & mask;
    const u32 *size = REG(const u32, 2);
    lane_addresses to, from;
    if (!sizes_allowed(w, in, mask, size, bytes)) {
        return;
    }
    read_addresses(&to, w, in, 0, in->aux & AUX_WIDE, in->imm, mask);
    if (!check_shared(w, w->block, in, &to, bytes, bytes, ACCESS_WRITE | ACCESS_ASYNC, mask)) {
        return;
    }
    w->block->shared_whole = false;
    u32 reading = 0, whole = 0;
    LANES(reading |= (u32)(size[i] > 0) << i; whole |= (u32)(size[i] == bytes) << i;);
    reading &= ~ignored;
    whole &= ~ignored;
    if (reading) {
        /* the tail that is filled with zeros is not read */
        read_addresses(&from, w, in, 1, true, (s32)in->target, reading);
        if (reading == whole ? !check_global(w, in, &from, bytes, bytes, ACCESS_READ, reading)
                             : !check_parts(w, in, &from, size, bytes, reading)) {
            return;
        }
    }
    if (w->block->grid->schedule.late_copies) {
        put_off(w, &to, &from, size, reading, bytes, mask);
        return;
    }
    if (bytes == 16 && whole == mask) {
        copy_whole(w, &to, &from, mask);
    } else {
        copy_parts(w, &to, &from, size, reading, bytes, mask);
    }
    remember_copy(w, &to, NULL, bytes, mask);
}

DEFINE_HANDLER(fence)
{
    (void)mask;
    if (w->block->race) {
        race_fence(w, in);
    }
}

DEFINE_HANDLER(fence_init)
{
    (void)in;
    (void)mask;
    if (w->block->race) {
        race_init_fence(w);
    }
}

DEFINE_HANDLER(fence_proxy)
{
    (void)in;
    (void)mask;
    if (w->block->race) {
        race_proxy_fence(w);
    }
}

DEFINE_HANDLER(bulk)
{
    bulk_issue(w, in, mask);
}

DEFINE_HANDLER(st_async)
{
    bulk_store_async(w, in, mask);
}

DEFINE_HANDLER(bulk_commit)
{
    (void)in;
    bulk_commit(w, mask);
}

DEFINE_HANDLER(bulk_wait)
{
    bulk_wait(w, in, mask);
}

DEFINE_HANDLER(cp_async_commit)
{
    (void)in;
    LANES(w->groups[i]++;);
}

/* The lanes of a copy whose group `mask` waits for; `pending` as in finish_copies. */
static inline u32 arrived_lanes(const emu_warp *w, const async_copy *copy, s64 pending, u32 mask)
{
    u32 lanes = 0;
    if (pending < 0) {
        return copy->mask & mask;
    }
    for (int i = 0; i < IR_LANES; i++) {
        lanes |= (u32)((s64)copy->group < (s64)w->groups[i] - pending) << i;
    }
    return lanes & copy->mask & mask;
}

/* pending: how many of the latest groups may stay so; -1: none of all, committed or not */
static void finish_copies(emu_warp *w, s64 pending, u32 mask)
{
    u8 *known = (u8 *)w->block->shared_known;
    static const u8 all[2] = {0xff, 0xff};
    bool late = w->block->grid->schedule.late_copies;
    int kept = 0;
    for (int k = 0; k < w->copy_count; k++) {
        async_copy *copy = &w->copies[k];
        u32 arrived = arrived_lanes(w, copy, pending, mask);
        for (u32 left = arrived; left; left &= left - 1) {
            u64 offset = copy->target[__builtin_ctz(left)];
            if (late) {
                land(w, k, __builtin_ctz(left));
            }
            if (copy->bytes == 16) {
                memcpy(known + (offset >> 3), all, sizeof all);
                continue;
            }
            u64 word = mark_word(known, offset) | mark_bits(offset, copy->bytes);
            memcpy(known + (offset >> 6 << 3), &word, sizeof word);
        }
        copy->mask &= ~arrived;
        if (copy->mask && kept++ != k) {
            w->copies[kept - 1] = *copy;
            if (late) {
                w->sources[kept - 1] = w->sources[k];
            }
        }
    }
    w->copy_count = kept;
}

/* imm: as pending above */
DEFINE_HANDLER(cp_async_wait)
{
    finish_copies(w, in->imm, mask);
    if (w->block->race) {
        race_copies_waited(w);
    }
}

/* cp.async.mbarrier.arrive: the copies are done, but only who waits at the mbarrier learns of it */
DEFINE_HANDLER(cp_async_arrive)
{
    finish_copies(w, -1, mask);
    mbarrier_run(w, in, mask);
}
