/*
 * exec_access.h: the checks every memory access goes through, for all lanes of a warp at once:
 * alignment, bounds, and whether what is read was ever written. Single lanes are looked at only
 * when the quick answer is no.
 *
 * Counters (counters.h) and the race detector (race.h) are such a no: while one is on, no warp
 * remembers the allocation it hit last and shared_limit is 0, so every access takes the slow way,
 * where it is seen.
 */
#ifndef EMU_EXEC_ACCESS_H
#define EMU_EXEC_ACCESS_H

#include "exec_lanes.h"

/* Addresses of one access. Lanes that do not take part repeat an address of one that does. */
typedef struct lane_addresses {
    u64 at[IR_LANES];
    u64 lowest, highest, bits; /* bits: all addresses or-ed */
} lane_addresses;

static inline void summarise(lane_addresses *a)
{
    u64 lowest = a->at[0], highest = a->at[0], bits = 0;
    INDEPENDENT
    for (int i = 0; i < IR_LANES; i++) {
        lowest = a->at[i] < lowest ? a->at[i] : lowest;
        highest = a->at[i] > highest ? a->at[i] : highest;
        bits |= a->at[i];
    }
    a->lowest = lowest;
    a->highest = highest;
    a->bits = bits;
}

/* Addresses of all lanes, read from registers of a type, and their summary in the same pass. */
#define READ_ADDRESSES(type, most)                                                                 \
    do {                                                                                           \
        const type *base_ = REG(const type, k);                                                    \
        type lowest_ = most, highest_ = 0, bits_ = 0;                                              \
        INDEPENDENT                                                                                \
        for (int i = 0; i < IR_LANES; i++) {                                                       \
            type at_ = base_[i] + (type)offset;                                                    \
            lowest_ = at_ < lowest_ ? at_ : lowest_;                                               \
            highest_ = at_ > highest_ ? at_ : highest_;                                            \
            bits_ |= at_;                                                                          \
            a->at[i] = at_;                                                                        \
        }                                                                                          \
        a->lowest = lowest_;                                                                       \
        a->highest = highest_;                                                                     \
        a->bits = bits_;                                                                           \
    } while (0)

/* Operand k plus the offset of the instruction. */
static inline void read_addresses(lane_addresses *a, const emu_warp *w, const emu_instr *in, int k,
                                  bool wide, s64 offset, u32 mask)
{
    if (wide) {
        READ_ADDRESSES(u64, UINT64_MAX);
    } else {
        READ_ADDRESSES(u32, UINT32_MAX);
    }
    if (mask != FULL_MASK) {
        u64 taken = a->at[__builtin_ctz(mask)];
        for (int i = 0; i < IR_LANES; i++) {
            a->at[i] = mask >> i & 1 ? a->at[i] : taken;
        }
        summarise(a);
    }
}
#undef READ_ADDRESSES

static inline u8 *host(uintptr_t base, u64 at)
{
    return (u8 *)(base + (uintptr_t)at);
}

/* ---- marks of initialised bytes; `bytes` is a power of two and the address is aligned to it ----
 */

static inline u64 mark_bits(u64 offset, u32 bytes)
{
    return (((u64)1 << bytes) - 1) << (offset & 63);
}

static inline u64 mark_word(const u8 *map, u64 offset)
{
    u64 word;
    memcpy(&word, map + (offset >> 6 << 3), sizeof word);
    return word;
}

static inline bool is_marked(const u8 *map, u64 offset, u32 bytes)
{
    u64 bits = mark_bits(offset, bytes);
    return (mark_word(map, offset) & bits) == bits;
}

/* Bytes first .. end - 1, a short range. */
static inline bool is_range_marked(const u8 *map, u64 first, u64 end)
{
    u64 missing = 0;
    for (u64 at = first & ~(u64)63; at < end; at += 64) {
        u64 wanted = ~(u64)0;
        wanted &= at < first ? ~(u64)0 << (first - at) : wanted;
        wanted &= end - at < 64 ? ((u64)1 << (end - at)) - 1 : wanted;
        missing |= wanted & ~mark_word(map, at);
    }
    return missing == 0;
}

enum { DENSE_BYTES = 1024 }; /* up to here a range is looked at as a whole */

/* The lanes that read something never written. */
static inline u32 unmarked_lanes(const u8 *map, const lane_addresses *a, u64 origin, u32 bytes,
                                 u32 mask)
{
    if (a->highest - a->lowest <= DENSE_BYTES &&
        is_range_marked(map, a->lowest - origin, a->highest - origin + bytes)) {
        return 0;
    }
    u32 bad = 0;
    for (u32 left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        bad |= (u32)!is_marked(map, a->at[i] - origin, bytes) << i;
    }
    return bad;
}

static inline void mark_shared(u8 *map, const lane_addresses *a, u32 bytes, u32 mask)
{
    for (u32 left = mask; left; left &= left - 1) {
        u64 offset = a->at[__builtin_ctz(left)];
        u64 word = mark_word(map, offset) | mark_bits(offset, bytes);
        memcpy(map + (offset >> 6 << 3), &word, sizeof word);
    }
}

/* Global marks are shared with other host threads. */
static inline void mark_global(const emu_warp *w, u8 *map, const lane_addresses *a, u32 bytes,
                               u32 mask)
{
    u64 origin = (u64)(uintptr_t)w->block->grid->memory->base;
    for (u32 left = mask; left; left &= left - 1) {
        u64 offset = a->at[__builtin_ctz(left)] - origin, bits = mark_bits(offset, bytes);
        u64 *word = (u64 *)(void *)(map + (offset >> 6 << 3));
        if ((__atomic_load_n(word, __ATOMIC_RELAXED) & bits) != bits) {
            __atomic_fetch_or(word, bits, __ATOMIC_RELAXED);
        }
    }
}

/* ---- checks: true when the access may go on ---- */

bool ISA(check_lanes_apart)(emu_warp *w, const emu_instr *in, const lane_addresses *a, u32 bytes,
                            u32 access, u32 mask);
/* origin: what the report adds to the addresses */
void ISA(fail_alignment)(emu_warp *w, const emu_instr *in, const lane_addresses *a, u64 origin,
                         u32 bytes, ptx_space space, u32 mask);
void ISA(fail_bounds)(emu_warp *w, const emu_instr *in, const lane_addresses *a, u64 origin,
                      u32 bytes, ptx_space space, u64 limit, u32 mask);
void ISA(fail_unwritten)(emu_warp *w, const emu_instr *in, const lane_addresses *a, u64 origin,
                         u32 bytes, ptx_space space, u32 bad);
bool ISA(find_span)(emu_warp *w, const lane_addresses *a, u32 bytes);
bool ISA(watch_span)(emu_warp *w, const emu_instr *in, const lane_addresses *a, u32 bytes,
                     u32 access, u32 mask);
bool ISA(check_shared_watched)(emu_warp *w, exec_block *owner, const emu_instr *in,
                               const lane_addresses *a, u32 bytes, u32 align, u32 access, u32 mask);

/* exec_count.c: called while the launch is counted */
void ISA(count_request)(emu_warp *w, const lane_addresses *a, u32 mask);
void ISA(tally_global)(emu_warp *w, const lane_addresses *a, u32 bytes, u32 access, u32 mask);
void ISA(count_shared)(emu_warp *w, const lane_addresses *a, u32 bytes, u32 mask);

static inline bool check_global(emu_warp *w, const emu_instr *in, const lane_addresses *a,
                                u32 bytes, u32 align, u32 access, u32 mask)
{
    if (a->bits & (align - 1)) {
        ISA(fail_alignment)(w, in, a, 0, align, SPACE_GLOBAL, mask);
        return false;
    }
    if (a->lowest < w->span.lo || a->highest > w->span.hi || a->highest + bytes > w->span.hi) {
        if (!ISA(find_span)(w, a, bytes)) {
            return ISA(check_lanes_apart)(w, in, a, bytes, access, mask);
        }
        if (!ISA(watch_span)(w, in, a, bytes, access, mask)) {
            return false;
        }
    }
    if (w->span.whole || !(access & ACCESS_READ)) {
        return true;
    }
    const memory_arena *arena = w->block->grid->memory;
    u32 bad = unmarked_lanes(arena->known, a, (u64)(uintptr_t)arena->base, bytes, mask);
    if (bad) {
        ISA(fail_unwritten)(w, in, a, 0, bytes, SPACE_GLOBAL, bad);
    }
    return !bad;
}

/* An access to the owner's shared memory; the addresses are offsets there. */
static inline bool check_shared(emu_warp *w, exec_block *owner, const emu_instr *in,
                                const lane_addresses *a, u32 bytes, u32 align, u32 access, u32 mask)
{
    if ((a->highest + bytes > owner->shared_limit || a->highest > UINT32_MAX) &&
        !ISA(check_shared_watched)(w, owner, in, a, bytes, align, access, mask)) {
        return false;
    }
    if (a->bits & (align - 1)) {
        ISA(fail_alignment)(w, in, a, cluster_window(w, owner), align, SPACE_SHARED, mask);
        return false;
    }
    if (!(access & ACCESS_READ) || owner->shared_whole) {
        return true;
    }
    u32 bad = unmarked_lanes((const u8 *)owner->shared_known, a, 0, bytes, mask);
    if (bad) {
        ISA(fail_unwritten)(w, in, a, cluster_window(w, owner), bytes, SPACE_SHARED, bad);
    }
    return !bad;
}

/* Some address is of .shared::cluster, as mapa makes them. */
static inline bool is_far(const lane_addresses *a)
{
    return __builtin_expect(a->highest >= IR_RANK_BYTES, 0);
}

/* The blocks of the cluster that an access of `bytes` touches, one after the other. */
typedef struct owner_visit {
    emu_warp *w;
    const emu_instr *in;
    const lane_addresses *a;
    u32 bytes, left; /* lanes that are still to come */
    exec_block *owner;
    u32 lanes;         /* whose addresses are of that block */
    lane_addresses at; /* offsets in it */
} owner_visit;
/* False: no lane is left, or a fault was raised. */
bool ISA(next_owner)(owner_visit *v);

static inline bool check_window(emu_warp *w, const emu_instr *in, const lane_addresses *a,
                                u32 bytes, u32 align, ptx_space space, u64 limit, u32 mask)
{
    if (a->highest + bytes > limit || a->highest > limit) {
        ISA(fail_bounds)(w, in, a, 0, bytes, space, limit, mask);
        return false;
    }
    if (a->bits & (align - 1)) {
        ISA(fail_alignment)(w, in, a, 0, align, space, mask);
        return false;
    }
    return true;
}

/* The space of a generic address. */
static inline ptx_space space_of(u64 address)
{
    u64 window = address >> 48;
    return window == 1   ? SPACE_SHARED
           : window == 2 ? SPACE_LOCAL
           : window == 3 ? SPACE_PARAM
                         : SPACE_GLOBAL;
}

/* The lanes of `mask` whose generic address is in `space`; their addresses become offsets in *out.
 */
static inline u32 pick_space(const lane_addresses *a, ptx_space space, u32 mask,
                             lane_addresses *out)
{
    u32 picked = 0;
    for (u32 left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        picked |= (u32)(space_of(a->at[i]) == space) << i;
    }
    if (picked) {
        int first = __builtin_ctz(picked);
        u64 window = space == SPACE_GLOBAL ? 0 : a->at[first] >> 48 << 48;
        u64 other = a->at[first]; /* `out` may be `a` */
        for (int i = 0; i < IR_LANES; i++) {
            out->at[i] = (picked >> i & 1 ? a->at[i] : other) - window;
        }
        summarise(out);
    }
    return picked;
}

#endif
