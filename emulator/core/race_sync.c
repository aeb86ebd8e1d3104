/*
 * race_sync.c: how atomics, volatile flags and fences order warps. A strong write leaves at its
 * address what the warp knew at its last fence, or knows now if the write is a release; a strong
 * read takes it, at once if it is an acquire, else at the next fence. Atomic operations add to what
 * is there, stores replace it. Fence and access count as far as the smaller of their scopes.
 */
#include <stdlib.h>

#include "race.h"

static size_t slot_of(const race_places *places, uint64_t address)
{
    size_t i = (size_t)((address * UINT64_C(0x9e3779b97f4a7c15)) >> 20) & (places->capacity - 1);
    while (places->table[i].address && places->table[i].address != address + 1) {
        i = (i + 1) & (places->capacity - 1);
    }
    return i;
}

static race_place *find_place(const race_places *places, uint64_t address)
{
    race_place *place = places->count ? &places->table[slot_of(places, address)] : NULL;
    return place && place->address ? place : NULL;
}

static race_place *make_place(race_places *places, uint64_t address)
{
    if (2 * places->count >= places->capacity) {
        race_places larger = {.capacity = places->capacity ? 2 * places->capacity : 64};
        larger.table = pool_require(calloc(larger.capacity, sizeof *larger.table));
        for (size_t i = 0; i < places->capacity; i++) {
            if (places->table[i].address) {
                larger.table[slot_of(&larger, places->table[i].address - 1)] = places->table[i];
            }
        }
        free(places->table);
        places->table = larger.table;
        places->capacity = larger.capacity;
    }
    race_place *place = &places->table[slot_of(places, address)];
    places->count += place->address == 0;
    place->address = address + 1;
    return place;
}

/* The widest scope of a strong instruction. */
static int scope_of(const emu_instr *in)
{
    return in->order & ORDER_WIDE      ? SCOPE_DEVICE
           : in->order & ORDER_CLUSTER ? SCOPE_CLUSTER
                                       : SCOPE_BLOCK;
}

static void acquire(race_warp *warp, const race_place *place, const emu_instr *in)
{
    bool is_acquire = (in->order & ORDER_ACQUIRE) != 0;
    if (!is_acquire && warp->last_address == place->address &&
        warp->last_version == place->version) {
        return;
    }
    warp->known_clock = 0;
    for (int i = 0; i <= scope_of(in); i++) {
        if (place->group[i] == warp->group[i]) {
            clock_join(is_acquire ? &warp->clock : &warp->seen[i], &place->released[i]);
            clock_join_completed(&warp->clock, &place->released[i]);
        }
    }
    if (!is_acquire) {
        warp->last_address = place->address;
        warp->last_version = place->version;
    }
}

void sync_acquire(race_warp *warp, race_places *places, const emu_instr *in, const uint64_t *at,
                  uint32_t mask)
{
    for (uint32_t left = mask; left && places->count; left &= left - 1) {
        const race_place *place = find_place(places, at[__builtin_ctz(left)]);
        if (place) {
            acquire(warp, place, in);
        }
    }
}

/* Adds to what is there, unless that is for another block or cluster. */
static void leave(race_place *place, int scope, uint64_t group, const race_clock *clock)
{
    if (place->group[scope] != group) {
        clock_reset(&place->released[scope], NULL);
    }
    place->group[scope] = group;
    clock_join(&place->released[scope], clock);
}

static void release(race_warp *warp, race_place *place, const emu_instr *in, bool reads)
{
    bool is_release = (in->order & ORDER_RELEASE) != 0;
    for (int i = 0; i < SCOPES; i++) {
        if (!reads) {
            clock_reset(&place->released[i], NULL);
        }
        if (i <= scope_of(in)) {
            leave(place, i, warp->group[i], is_release ? &warp->clock : &warp->fenced[i]);
        }
    }
}

void sync_release(race_warp *warp, race_places *places, const emu_instr *in, bool reads,
                  const uint64_t *at, uint32_t mask)
{
    bool has_order = (in->order & ORDER_RELEASE) || warp->fenced[SCOPE_BLOCK].count;
    for (uint32_t left = mask; left && (has_order || places->count); left &= left - 1) {
        uint64_t address = at[__builtin_ctz(left)];
        race_place *place = has_order ? make_place(places, address) : find_place(places, address);
        if (place) {
            release(warp, place, in, reads);
            place->version = ++places->version;
        }
    }
}

void sync_arrive(race_warp *warp, race_places *places, uint64_t block, const emu_instr *in,
                 uint64_t address)
{
    bool is_release = (in->order & ORDER_RELEASE) != 0;
    race_place *place = make_place(places, address);
    for (int i = warp->group[SCOPE_BLOCK] == block ? SCOPE_BLOCK : SCOPE_CLUSTER; i <= scope_of(in);
         i++) {
        leave(place, i, warp->group[i], is_release ? &warp->clock : &warp->fenced[i]);
        clock_join_completed(&place->released[i], &warp->clock);
    }
    place->version = ++places->version;
}

void sync_fence(race_warp *warp, const emu_instr *in)
{
    int scope = scope_of(in);
    warp->known_clock = 0;
    for (int i = 0; i <= scope; i++) {
        clock_join(&warp->clock, &warp->seen[i]);
    }
    for (int i = 0; i <= scope; i++) {
        clock_join(&warp->fenced[i], &warp->clock);
    }
}

void sync_add(race_places *places, uint64_t block, const race_clock *clock, uint64_t address)
{
    race_place *place = make_place(places, address);
    leave(place, SCOPE_BLOCK, block, clock);
    place->version = ++places->version;
}

void sync_move(race_places *places, uint64_t from, uint64_t to)
{
    if (!find_place(places, from)) {
        return;
    }
    race_place *target = make_place(places, to); /* may move the table */
    race_place *source = find_place(places, from);
    for (int i = 0; i < SCOPES; i++) {
        leave(target, i, source->group[i], &source->released[i]);
        clock_reset(&source->released[i], NULL);
    }
    target->version = ++places->version;
}

void sync_forget(race_places *places)
{
    for (size_t i = 0; i < places->capacity && places->count; i++) {
        race_place *place = &places->table[i];
        for (int k = 0; k < SCOPES; k++) {
            clock_free(&place->released[k]);
        }
        *place = (race_place){0};
    }
    places->count = 0;
}

void sync_free(race_places *places)
{
    sync_forget(places);
    free(places->table);
    *places = (race_places){0};
}
