/*
 * race_shadow.c: for every 64 bytes the accesses that a later one may still race with. A record
 * goes when a newer one, which it lies before, touches all of its bytes and races with whatever it
 * would race with.
 */
#include <stdlib.h>
#include <string.h>

#include "race.h"

static inline bool is_same_moment(const race_record *now, const race_record *old)
{
    return (old->warps & now->warps) && old->clock == now->clock && old->block == now->block &&
           old->kind == now->kind;
}

/* The warps of a block whose step of this number is known. */
static uint32_t known_warps(const uint32_t steps[EXEC_MAX_WARPS], uint32_t step)
{
    uint32_t warps = 0;
    for (int i = 0; i < EXEC_MAX_WARPS; i++) {
        warps |= (uint32_t)(steps[i] >= step) << i;
    }
    return warps;
}

/* The warps of a record that a part of a clock knows. A bulk copy sees what was written before a
 * fence to its proxy. */
static inline uint32_t warps_known_to(const race_visit *visit, const race_part *part,
                                      const race_record *record)
{
    if (record->kind & RACE_WGMMA) {
        uint32_t warps = 0;
        for (int i = 0; i < EXEC_WARPGROUPS; i++) {
            warps |= part->wgmma[i] > record->clock ? 0xfu << i * WARPGROUP : 0;
        }
        return warps;
    }
    if (record->kind & RACE_BULK) {
        int warp = __builtin_ctz(record->warps);
        uint32_t ended = record->kind & RACE_WRITE ? part->bulk[warp] : part->bulk_reads[warp];
        bool is_over = (visit->record.kind & RACE_WRITE) && part->bulk_over[warp] > record->clock;
        return ended > record->clock || is_over ? record->warps : 0;
    }
    if (record->kind & RACE_ASYNC) {
        return part->copies[__builtin_ctz(record->warps)] > record->clock ? record->warps : 0;
    }
    bool crosses = (visit->record.kind & RACE_BULK) && !(visit->record.kind & RACE_GENERIC) &&
                   (record->kind & RACE_WRITE);
    return known_warps(crosses ? part->proxied : part->steps, record->clock);
}

/* The warps of a record that nothing orders before the access. */
static inline uint32_t unordered_warps(race_visit *visit, const race_record *record)
{
    if (record->block != visit->record.block) {
        const race_part *part =
            visit->warp->clock.count == 1 ? NULL : clock_find(&visit->warp->clock, record->block);
        return part ? record->warps & ~warps_known_to(visit, part, record) : record->warps;
    }
    if ((record->kind | visit->record.kind) & (RACE_ASYNC | RACE_BULK)) {
        return record->warps & ~warps_known_to(visit, visit->own, record);
    }
    race_warp *warp = visit->warp;
    if (record->clock != warp->known_clock) {
        warp->known_clock = record->clock;
        warp->known_warps = known_warps(visit->own->steps, record->clock);
    }
    return record->warps & ~warp->known_warps;
}

/* A strong access goes to where the other side's fence has brought its bytes: that the warp has
 * seen an atomic or flag that says so is enough, without a fence of its own. NVIDIA's reductions by
 * the last block read so. */
static uint32_t unseen_warps(const race_visit *visit, const race_record *record, uint32_t warps)
{
    bool is_strong =
        (visit->record.kind & RACE_STRONG) && !(record->kind & (RACE_ASYNC | RACE_BULK));
    for (int i = 0; i < SCOPES && is_strong; i++) {
        const race_part *part = clock_find(&visit->warp->seen[i], record->block);
        warps &= part ? ~known_warps(part->steps, record->clock) : warps;
    }
    return warps;
}

/* How far the scope of a strong access goes. */
static inline uint32_t reach(const race_record *record)
{
    return record->kind & RACE_WIDE ? 2 : record->kind & RACE_CLUSTER ? 1 : 0;
}

static bool is_of(const exec_cluster *cluster, uint32_t block)
{
    for (int i = 0; i < cluster->count; i++) {
        if ((uint32_t)cluster->blocks[i].linear == block) {
            return true;
        }
    }
    return false;
}

/* Whether the scopes of two strong accesses cover each other. */
static bool is_covered(const race_visit *visit, const race_record *a, const race_record *b)
{
    return a->block == b->block || (a->kind & b->kind & RACE_WIDE) ||
           (reach(a) && reach(b) && is_of(visit->cluster, a->block));
}

/* Two accesses that nothing orders: is that a race? */
static inline bool is_conflict(const race_visit *visit, const race_record *a, const race_record *b)
{
    bool covered = (a->kind & b->kind & RACE_STRONG) && is_covered(visit, a, b);
    return ((a->kind | b->kind) & RACE_WRITE) && !covered;
}

/* Does whatever races with `old`, and comes after `now`, race with `now` too? */
static inline bool replaces(const race_record *now, const race_record *old)
{
    bool writes = (now->kind & RACE_WRITE) || !(old->kind & RACE_WRITE);
    bool as_weak =
        !(now->kind & RACE_STRONG) || ((old->kind & RACE_STRONG) && reach(now) <= reach(old));
    return writes && as_weak && !(old->bytes & ~now->bytes);
}

/* `spare`: a record without bytes, or NULL. */
static void add_record(race_shadow *shadow, race_record *first, race_record *spare,
                       const race_record *now)
{
    if (!spare) {
        POOL_GROW(shadow->more, shadow->count, shadow->capacity);
        spare = &shadow->more[shadow->count];
        spare->next = first->next;
        first->next = shadow->count++;
    }
    uint32_t next = spare->next, launch = spare->launch;
    *spare = *now;
    spare->next = next;
    spare->launch = launch;
}

/* Another warp has read the same at the same step. */
static inline bool is_alike(const race_record *now, const race_record *old)
{
    return old->clock == now->clock && old->instr == now->instr && old->lanes == now->lanes &&
           old->bytes == now->bytes && old->kind == now->kind && old->block == now->block &&
           !(now->kind & RACE_WRITE);
}

/*
 * Of accesses that no order is known of, those of two blocks other than the newest one's stand for
 * all with the same bytes and kind: whoever writes there later races with one of the two. (A writer
 * that is ordered behind these two but not behind a third is not found.)
 */
static inline bool visit_granule(race_shadow *shadow, race_visit *visit, race_record *first)
{
    const race_record *now = &visit->record;
    race_record *spare = NULL;
    uint32_t elsewhere = now->block, unordered;
    bool is_known = false;
    if (first->launch != shadow->launch) {
        *first = *now;
        first->next = 0;
        first->launch = shadow->launch;
        shadow->begun++;
        return true;
    }
    for (race_record *old = first;; old = &shadow->more[old->next]) {
        bool covers = !(now->bytes & ~old->bytes);
        if (!(old->bytes & now->bytes)) {
            spare = old->bytes || spare ? spare : old;
        } else if (is_same_moment(now, old) && (covers || (now->kind & RACE_ASYNC))) {
            is_known |= covers;
        } else if (is_alike(now, old)) {
            old->warps |= now->warps;
            is_known = true;
        } else if (!(unordered = unordered_warps(visit, old))) {
            if (replaces(now, old)) {
                old->bytes = 0;
                spare = spare ? spare : old;
            }
        } else if (is_conflict(visit, old, now)) {
            if ((unordered = unseen_warps(visit, old, unordered)) != 0) {
                visit->earlier = *old;
                visit->earlier.warps = unordered & -unordered;
                return false;
            }
        } else if (covers && old->kind == now->kind && old->block != now->block) {
            is_known |= elsewhere != now->block && elsewhere != old->block;
            elsewhere = old->block;
        }
        if (!old->next) {
            break;
        }
    }
    if (!is_known) {
        add_record(shadow, first, spare, now);
    }
    return true;
}

/* What the lanes of an access touch of one granule. */
typedef struct race_piece {
    uint64_t granule, bytes;
    uint32_t lanes;
} race_piece;

enum { MOST_PIECES = 2 * IR_LANES, SLOTS = 64 };

static int collect_pieces(race_piece *pieces, const race_shadow *shadow, const race_visit *visit,
                          const uint64_t *at, uint32_t bytes, uint32_t mask)
{
    uint8_t slots[SLOTS] = {0}; /* of granules: the piece last made */
    uint64_t all = (UINT64_C(1) << bytes) - 1;
    int count = 0;
    for (uint32_t left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        uint64_t offset = at[i] - visit->origin, granule = offset / RACE_GRANULE;
        uint64_t touched = all << offset % RACE_GRANULE;
        while (touched) {
            uint8_t *slot = &slots[granule % SLOTS];
            if (*slot >= count || pieces[*slot].granule != granule) {
                *slot = (uint8_t)count;
                pieces[count++] = (race_piece){.granule = granule};
                __builtin_prefetch(&shadow->granules[granule], 1);
            }
            pieces[*slot].lanes |= 1u << i;
            pieces[*slot].bytes |= touched;
            granule++;
            bool goes_on = granule * RACE_GRANULE < offset + bytes;
            touched = goes_on ? all >> (granule * RACE_GRANULE - offset) : 0;
        }
    }
    return count;
}

bool shadow_access(race_shadow *shadow, race_visit *visit, const uint64_t *at, uint32_t bytes,
                   uint32_t mask)
{
    race_piece pieces[MOST_PIECES];
    int count = collect_pieces(pieces, shadow, visit, at, bytes, mask);
    for (int i = 0; i < count; i++) {
        visit->record.bytes = pieces[i].bytes;
        visit->record.lanes = pieces[i].lanes;
        if (!visit_granule(shadow, visit, &shadow->granules[pieces[i].granule])) {
            uint64_t both = visit->record.bytes & visit->earlier.bytes;
            visit->address =
                visit->origin + pieces[i].granule * RACE_GRANULE + (unsigned)__builtin_ctzll(both);
            return false;
        }
    }
    return true;
}

void shadow_reset(race_shadow *shadow, size_t bytes)
{
    size_t granules = bytes / RACE_GRANULE + 1;
    if (granules > shadow->granule_count) {
        free(shadow->granules);
        shadow->granules = pool_require(malloc(granules * sizeof *shadow->granules));
        shadow->granule_count = granules;
    }
    memset(shadow->granules, 0, granules * sizeof *shadow->granules);
    shadow->count = 1;
}
