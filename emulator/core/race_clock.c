/*
 * race_clock.c: vector clocks in two levels: warps of a block are an array, blocks a sorted list,
 * because most warps hear of no block but their own.
 */
#include <stdlib.h>
#include <string.h>

#include "race.h"

/* Where the part of a block is or belongs. */
static size_t place_of(const race_clock *clock, uint64_t block)
{
    size_t low = 0, high = clock->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (clock->parts[middle].block < block) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

race_part *clock_find(const race_clock *clock, uint64_t block)
{
    size_t i = place_of(clock, block);
    return i < clock->count && clock->parts[i].block == block ? &clock->parts[i] : NULL;
}

static inline uint32_t later(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static void join_part(race_part *part, const race_part *other)
{
    for (int i = 0; i < EXEC_MAX_WARPS; i++) {
        part->steps[i] = later(part->steps[i], other->steps[i]);
        part->copies[i] = later(part->copies[i], other->copies[i]);
        part->bulk[i] = later(part->bulk[i], other->bulk[i]);
        part->bulk_reads[i] = later(part->bulk_reads[i], other->bulk_reads[i]);
        part->bulk_over[i] = later(part->bulk_over[i], other->bulk_over[i]);
        part->proxied[i] = later(part->proxied[i], other->proxied[i]);
        part->inits[i] = later(part->inits[i], other->inits[i]);
    }
    for (int i = 0; i < EXEC_WARPGROUPS; i++) {
        part->wgmma[i] = later(part->wgmma[i], other->wgmma[i]);
    }
}

static void join_completed(race_part *part, const race_part *other)
{
    for (int i = 0; i < EXEC_MAX_WARPS; i++) {
        part->bulk_reads[i] = later(part->bulk_reads[i], other->bulk_reads[i]);
        part->bulk_over[i] = later(part->bulk_over[i], later(other->bulk_over[i], other->bulk[i]));
    }
    for (int i = 0; i < EXEC_WARPGROUPS; i++) {
        part->wgmma[i] = later(part->wgmma[i], other->wgmma[i]);
    }
}

/* The part of a block, all zeros if it was not there; those before `at` are of earlier blocks. */
static race_part *part_from(race_clock *clock, size_t *at, uint64_t block)
{
    while (*at < clock->count && clock->parts[*at].block < block) {
        ++*at;
    }
    if (*at == clock->count || clock->parts[*at].block != block) {
        POOL_GROW(clock->parts, clock->count, clock->capacity);
        memmove(&clock->parts[*at + 1], &clock->parts[*at],
                (clock->count - *at) * sizeof *clock->parts);
        clock->parts[*at] = (race_part){.block = block};
        clock->count++;
    }
    return &clock->parts[*at];
}

void clock_join(race_clock *clock, const race_clock *other)
{
    size_t at = 0;
    for (size_t i = 0; i < other->count; i++) {
        join_part(part_from(clock, &at, other->parts[i].block), &other->parts[i]);
    }
}

void clock_join_completed(race_clock *clock, const race_clock *other)
{
    size_t at = 0;
    for (size_t i = 0; i < other->count; i++) {
        join_completed(part_from(clock, &at, other->parts[i].block), &other->parts[i]);
    }
}

void clock_reset(race_clock *clock, const race_part *first)
{
    clock->count = 0;
    if (first) {
        POOL_GROW(clock->parts, clock->count, clock->capacity);
        clock->parts[clock->count++] = *first;
    }
}

void clock_free(race_clock *clock)
{
    free(clock->parts);
    *clock = (race_clock){0};
}
