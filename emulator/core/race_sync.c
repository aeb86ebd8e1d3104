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

static void acquire(race_warp *warp, const race_place *place, uint64_t block, const emu_instr *in)
{
    bool is_acquire = (in->order & ORDER_ACQUIRE) != 0;
    if (!is_acquire && warp->last_address == place->address &&
        warp->last_version == place->version) {
        return;
    }
    warp->known_clock = 0;
    if (place->narrow_block == block) {
        clock_join(is_acquire ? &warp->clock : &warp->seen[SCOPE_BLOCK], &place->narrow);
    }
    if (in->order & ORDER_WIDE) {
        clock_join(is_acquire ? &warp->clock : &warp->seen[SCOPE_DEVICE], &place->wide);
    }
    if (!is_acquire) {
        warp->last_address = place->address;
        warp->last_version = place->version;
    }
}

void sync_acquire(race_warp *warp, race_places *places, uint64_t block, const emu_instr *in,
                  const uint64_t *at, uint32_t mask)
{
    for (uint32_t left = mask; left && places->count; left &= left - 1) {
        const race_place *place = find_place(places, at[__builtin_ctz(left)]);
        if (place) {
            acquire(warp, place, block, in);
        }
    }
}

static void release(race_warp *warp, race_place *place, uint64_t block, const emu_instr *in,
                    bool reads)
{
    bool is_release = (in->order & ORDER_RELEASE) != 0;
    if (!reads || place->narrow_block != block) {
        clock_reset(&place->narrow, NULL);
    }
    if (!reads) {
        clock_reset(&place->wide, NULL);
    }
    place->narrow_block = block;
    clock_join(&place->narrow, is_release ? &warp->clock : &warp->fenced[SCOPE_BLOCK]);
    if (in->order & ORDER_WIDE) {
        clock_join(&place->wide, is_release ? &warp->clock : &warp->fenced[SCOPE_DEVICE]);
    }
}

void sync_release(race_warp *warp, race_places *places, uint64_t block, const emu_instr *in,
                  bool reads, const uint64_t *at, uint32_t mask)
{
    bool has_order = (in->order & ORDER_RELEASE) || warp->fenced[SCOPE_BLOCK].count;
    for (uint32_t left = mask; left && (has_order || places->count); left &= left - 1) {
        uint64_t address = at[__builtin_ctz(left)];
        race_place *place = has_order ? make_place(places, address) : find_place(places, address);
        if (place) {
            release(warp, place, block, in, reads);
            place->version = ++places->version;
        }
    }
}

void sync_fence(race_warp *warp, const emu_instr *in)
{
    warp->known_clock = 0;
    clock_join(&warp->clock, &warp->seen[SCOPE_BLOCK]);
    if (in->order & ORDER_WIDE) {
        clock_join(&warp->clock, &warp->seen[SCOPE_DEVICE]);
        clock_join(&warp->fenced[SCOPE_DEVICE], &warp->clock);
    }
    clock_join(&warp->fenced[SCOPE_BLOCK], &warp->clock);
}

void sync_bulk(race_places *places, uint64_t block, int warp, uint32_t count, uint64_t address)
{
    race_part part = {.block = block};
    race_clock clock = {.parts = &part, .count = 1};
    part.bulk[warp] = part.bulk_reads[warp] = count;
    race_place *place = make_place(places, address);
    if (place->narrow_block != block) {
        clock_reset(&place->narrow, NULL);
    }
    place->narrow_block = block;
    clock_join(&place->narrow, &clock);
    place->version = ++places->version;
}

void sync_move(race_places *places, uint64_t block, uint64_t from, uint64_t to)
{
    if (!find_place(places, from)) {
        return;
    }
    race_place *target = make_place(places, to); /* may move the table */
    race_place *source = find_place(places, from);
    if (target->narrow_block != block) {
        clock_reset(&target->narrow, NULL);
    }
    target->narrow_block = block;
    clock_join(&target->narrow, &source->narrow);
    clock_reset(&source->narrow, NULL);
    target->version = ++places->version;
}

void sync_forget(race_places *places)
{
    for (size_t i = 0; i < places->capacity && places->count; i++) {
        race_place *place = &places->table[i];
        clock_free(&place->narrow);
        clock_free(&place->wide);
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
