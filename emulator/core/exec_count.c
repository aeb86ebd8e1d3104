/*
 * exec_count.c: what one access of a warp adds to the counters (counters.h). Most accesses have a
 * pattern that a few vector instructions recognise; the others are looked at lane by lane.
 */
#include "exec_access.h"

/* Distinct values that were seen, in the order in which they came. */
typedef struct value_set {
    u64 values[IR_LANES];
    u64 above; /* all of them */
    u32 count;
} value_set;

static inline void begin_values(value_set *set)
{
    set->above = 0;
    set->count = 0;
}

/* True when the value is new. Values that only rise, as most addresses do, need no search. */
static inline bool add_value(value_set *set, u64 value)
{
    if (value < set->above) {
        for (u32 k = set->count; k-- > 0;) {
            if (set->values[k] == value) {
                return false;
            }
        }
    } else {
        set->above = value + 1;
    }
    set->values[set->count++] = value;
    return true;
}

/* ---- global memory ---- */

static u32 distinct_sectors(const lane_addresses *a, u32 mask)
{
    value_set sectors;
    u32 changes = 0, falls = 0;
    for (int i = 1; i < IR_LANES; i++) {
        u64 before = a->at[i - 1] >> 5, here = a->at[i] >> 5;
        changes += here != before;
        falls += here < before;
    }
    if (mask == FULL_MASK && falls == 0) {
        return changes + 1;
    }
    begin_values(&sectors);
    for (u32 left = mask; left; left &= left - 1) {
        add_value(&sectors, a->at[__builtin_ctz(left)] >> 5);
    }
    return sectors.count;
}

void ISA(count_request)(emu_warp *w, const lane_addresses *a, u32 mask)
{
    block_counts *counts = w->block->counts;
    counts->global_requests++;
    counts->global_sectors += distinct_sectors(a, mask);
}

static void tally_word(memory_tally *tally, u32 access, u64 offset, u64 bits)
{
    if ((access & ACCESS_READ) && !tally_has(tally, TALLY_READ, offset, bits)) {
        tally_mark(tally, TALLY_READ, offset, bits);
    }
    if ((access & ACCESS_WRITE) && !tally_has(tally, TALLY_WRITTEN, offset, bits)) {
        tally_mark(tally, TALLY_WRITTEN, offset, bits);
    }
}

/* Neighbouring lanes of the same 64 bytes together. */
void ISA(tally_global)(emu_warp *w, const lane_addresses *a, u32 bytes, u32 access, u32 mask)
{
    const exec_grid *grid = w->block->grid;
    u64 origin = (u64)(uintptr_t)grid->memory->base;
    u64 offset = a->at[__builtin_ctz(mask)] - origin, bits = 0;
    for (u32 left = mask; left; left &= left - 1) {
        u64 here = a->at[__builtin_ctz(left)] - origin;
        if (here >> 6 != offset >> 6) {
            tally_word(grid->tally, access, offset, bits);
            bits = 0;
        }
        offset = here;
        bits |= mark_bits(here, bytes);
    }
    tally_word(grid->tally, access, offset, bits);
}

/* ---- shared memory ----
 *
 * An access of 2^shift bytes (words of 4 bytes where it has fewer) fills one of `slots` places of
 * the 128 bytes that a wavefront serves; the lanes of one group are as many as there are places.
 */

/* The most distinct accesses that one place has. */
static u32 busiest_slot(const u64 *at, u32 shift, u32 slots, u32 mask)
{
    value_set units;
    u32 busiest = 0;
    u8 load[32] = {0};
    begin_values(&units);
    for (u32 left = mask; left; left &= left - 1) {
        u64 unit = at[__builtin_ctz(left)] >> shift;
        if (add_value(&units, unit)) {
            u32 used = ++load[unit & (slots - 1)];
            busiest = used > busiest ? used : busiest;
        }
    }
    return busiest;
}

/* True when no place has two accesses that differ; lanes of the same access are neighbours. */
static inline bool is_conflict_free(const u64 *at, u32 shift, u32 slots)
{
    u32 used = 0, changes = 0;
    for (u32 i = 0; i < slots; i++) {
        used |= 1u << (at[i] >> shift & (slots - 1));
    }
    for (u32 i = 1; i < slots; i++) {
        changes += at[i] >> shift != at[i - 1] >> shift;
    }
    return (u32)__builtin_popcount(used) == changes + 1;
}

static inline void count_groups(emu_warp *w, const lane_addresses *a, u32 shift, u32 slots,
                                u32 mask)
{
    block_counts *counts = w->block->counts;
    u32 group = slots == 32 ? FULL_MASK : (1u << slots) - 1;
    for (u32 first = 0; first < IR_LANES; first += slots) {
        const u64 *at = a->at + first;
        u32 lanes = mask >> first & group;
        if (!lanes) {
            continue;
        }
        u32 wavefronts = lanes == group && is_conflict_free(at, shift, slots)
                             ? 1
                             : busiest_slot(at, shift, slots, lanes);
        counts->shared_wavefronts += wavefronts;
        counts->shared_excess += wavefronts - 1;
    }
}

void ISA(count_shared)(emu_warp *w, const lane_addresses *a, u32 bytes, u32 mask)
{
    switch (bytes) {
    case 32:
        count_groups(w, a, 5, 4, mask);
        break;
    case 16:
        count_groups(w, a, 4, 8, mask);
        break;
    case 8:
        count_groups(w, a, 3, 16, mask);
        break;
    default:
        count_groups(w, a, 2, 32, mask);
        break;
    }
}
