/*
 * race.c: what the detector of race.h is told: accesses, barriers, fences and the waits for
 * cp.async, from the places where they are executed. Nothing is called while races are not checked.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "race.h"

/* Lists of global memory that may lie about from earlier launches: some 300 MB. */
enum { MOST_BEGUN = 1 << 23 };

static race_part *own_part(const exec_block *block, int index)
{
    const race_clock *clock = &block->race->warps[index].clock;
    return clock->count == 1 ? clock->parts : clock_find(clock, block->linear);
}

/* What the warp does from here on is not known to those that learn of what it did. */
static void next_step(const exec_block *block, int index)
{
    own_part(block, index)->steps[index]++;
    block->race->warps[index].known_clock = 0;
}

void race_next_step(emu_warp *w)
{
    next_step(w->block, w->index);
}

/* ---- launches and blocks ---- */

race_grid *race_open(const memory_arena *arena)
{
    race_grid *grid = pool_require(calloc(1, sizeof *grid));
    grid->map_bytes = (arena->reserved / RACE_GRANULE + 1) * sizeof *grid->global.granules;
    grid->global.granules = mmap(NULL, grid->map_bytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (grid->global.granules == MAP_FAILED) {
        free(grid);
        return NULL;
    }
    return grid;
}

void race_close(race_grid *grid)
{
    if (grid) {
        munmap(grid->global.granules, grid->map_bytes);
        free(grid->global.more);
        sync_free(&grid->places);
        free(grid);
    }
}

void race_begin(race_grid *grid)
{
    race_shadow *global = &grid->global;
    if (global->begun > MOST_BEGUN || ++global->launch == 0) {
        madvise(global->granules, grid->map_bytes, MADV_DONTNEED);
        global->begun = 0;
        global->launch = 1;
    }
    global->count = 1;
    sync_forget(&grid->places);
}

static void forget_barrier(race_block *race, size_t id)
{
    clock_reset(&race->barriers[id], NULL);
    for (int i = 0; i < SCOPES; i++) {
        clock_reset(&race->barriers_seen[id][i], NULL);
    }
}

static void start_warp(race_warp *warp, const exec_block *block, int index)
{
    race_part part = {.block = block->linear};
    part.steps[index] = 1;
    warp->group[SCOPE_BLOCK] = block->linear;
    warp->group[SCOPE_CLUSTER] = block->cluster->linear;
    clock_reset(&warp->clock, &part);
    for (int i = 0; i < SCOPES; i++) {
        clock_reset(&warp->fenced[i], NULL);
        clock_reset(&warp->seen[i], NULL);
    }
    warp->last_address = 0;
    warp->known_clock = 0;
    warp->grids_over = !block->grid->is_dependent;
    block->race->grid_waits[index] = 0;
}

void race_block_start(exec_block *block)
{
    if (!block->race) {
        block->race = pool_require(calloc(1, sizeof *block->race));
    }
    race_block *race = block->race;
    shadow_reset(&race->shared, block->shared_bytes);
    sync_forget(&race->places);
    clock_reset(&race->visitors, NULL);
    for (int i = 0; i < EXEC_BARRIERS; i++) {
        forget_barrier(race, (size_t)i);
    }
    for (int i = 0; i < block->warp_count; i++) {
        start_warp(&race->warps[i], block, i);
    }
}

void race_block_free(race_block *race)
{
    if (!race) {
        return;
    }
    free(race->shared.granules);
    free(race->shared.more);
    sync_free(&race->places);
    clock_free(&race->visitors);
    for (int i = 0; i < EXEC_BARRIERS; i++) {
        clock_free(&race->barriers[i]);
        for (int k = 0; k < SCOPES; k++) {
            clock_free(&race->barriers_seen[i][k]);
        }
    }
    for (int i = 0; i < EXEC_MAX_WARPS; i++) {
        race_warp *warp = &race->warps[i];
        clock_free(&warp->clock);
        for (int k = 0; k < SCOPES; k++) {
            clock_free(&warp->fenced[k]);
            clock_free(&warp->seen[k]);
        }
    }
    free(race);
}

/* ---- visits of other blocks ---- */

static void visit_block(const emu_warp *w, const exec_block *owner, uint32_t access)
{
    race_part part = {.block = w->block->linear};
    race_clock clock = {.parts = &part, .count = 1};
    if (owner == w->block) {
        return;
    }
    if (access & ACCESS_BULK) {
        part.bulk[w->index] = w->bulk_issued + 1;
    } else {
        part.steps[w->index] = race_step(w);
    }
    clock_join(&owner->race->visitors, &clock);
}

static const exec_block *find_block(const exec_cluster *cluster, uint64_t linear)
{
    const exec_block *block = cluster->blocks;
    while (block->linear != linear) {
        block++;
    }
    return block;
}

const exec_block *race_block_left(const exec_block *block, int *warp)
{
    const race_clock *visitors = &block->race->visitors;
    const exec_block *late = NULL;
    race_clock known = {0};
    for (int i = 0; i < block->warp_count; i++) {
        clock_join(&known, &block->race->warps[i].clock);
    }
    for (size_t i = 0; i < visitors->count && !late; i++) {
        const race_part *visitor = &visitors->parts[i];
        const race_part *seen = clock_find(&known, visitor->block);
        for (int k = 0; k < EXEC_MAX_WARPS && !late; k++) {
            if (visitor->steps[k] > (seen ? seen->steps[k] : 0) ||
                visitor->bulk[k] > (seen ? seen->bulk[k] : 0)) {
                late = find_block(block->cluster, visitor->block);
                *warp = k;
            }
        }
    }
    clock_free(&known);
    return late;
}

/* ---- accesses ---- */

static uint32_t kind_of(const emu_instr *in, uint32_t access)
{
    uint32_t kind = 0;
    kind |= access & ACCESS_READ ? RACE_READ : 0;
    kind |= access & ACCESS_WRITE ? RACE_WRITE : 0;
    kind |= access & ACCESS_ASYNC ? RACE_ASYNC : 0;
    kind |= access & ACCESS_BULK ? RACE_BULK : 0;
    kind |= access & ACCESS_GENERIC ? RACE_GENERIC : 0;
    kind |= access & ACCESS_WGMMA ? RACE_BULK | RACE_WGMMA : 0;
    kind |= in->order & ORDER_STRONG ? RACE_STRONG : 0;
    kind |= in->order & ORDER_WIDE ? RACE_WIDE : 0;
    kind |= in->order & ORDER_CLUSTER ? RACE_CLUSTER : 0;
    return kind;
}

bool race_access(emu_warp *w, const emu_instr *in, ptx_space space, exec_block *owner,
                 uint32_t access, const uint64_t *at, uint32_t bytes, uint32_t mask)
{
    exec_block *block = w->block;
    const exec_grid *grid = block->grid;
    bool is_shared = space == SPACE_SHARED;
    /* a reduction of a bulk copy is strong, but nobody learns by it */
    bool is_strong = (in->order & ORDER_STRONG) && !(access & ACCESS_BULK);
    race_warp *warp = &block->race->warps[w->index];
    if (!is_shared && !warp->grids_over &&
        !race_grids_over(w, in, access, at[__builtin_ctz(mask)], bytes, mask)) {
        return false;
    }
    race_places *places = is_shared ? &owner->race->places : &grid->race->places;
    if (is_shared) {
        visit_block(w, owner, access);
    }
    if (is_strong && (access & ACCESS_READ)) {
        sync_acquire(warp, places, in, at, mask);
    }
    race_visit visit = {.warp = warp, .cluster = block->cluster, .own = own_part(block, w->index)};
    visit.origin = is_shared ? 0 : (uint64_t)(uintptr_t)grid->memory->base;
    visit.record.block = (uint32_t)block->linear;
    visit.record.warps = 1u << w->index;
    visit.record.clock = access & ACCESS_WGMMA   ? wgmma_issued(block, w->index)
                         : access & ACCESS_BULK  ? w->bulk_issued
                         : access & ACCESS_ASYNC ? w->copies_issued
                                                 : visit.own->steps[w->index];
    visit.record.instr = (uint32_t)(in - grid->kernel->code);
    visit.record.kind = kind_of(in, access);
    race_shadow *shadow = is_shared ? &owner->race->shared : &grid->race->global;
    if (!shadow_access(shadow, &visit, at, bytes, mask)) {
        visit.address += is_shared ? cluster_window(w, owner) : 0;
        race_report(w, in, space, &visit);
        return false;
    }
    if (is_strong && (access & ACCESS_WRITE)) {
        sync_release(warp, places, in, (access & ACCESS_READ) != 0, at, mask);
        if (in->order & ORDER_RELEASE) {
            next_step(block, w->index);
        }
    }
    return true;
}

/* ---- order ---- */

void race_fence(emu_warp *w, const emu_instr *in)
{
    sync_fence(&w->block->race->warps[w->index], in);
    next_step(w->block, w->index);
}

void race_init_fence(emu_warp *w)
{
    race_warp *warp = &w->block->race->warps[w->index];
    race_part part = {.block = w->block->linear};
    race_clock inits = {.parts = &part, .count = 1};
    part.inits[w->index] = race_step(w);
    for (int i = SCOPE_BLOCK; i <= SCOPE_CLUSTER; i++) {
        clock_join(&warp->fenced[i], &inits);
    }
    next_step(w->block, w->index);
}

void race_copies_waited(emu_warp *w)
{
    race_part *own = own_part(w->block, w->index);
    own->copies[w->index] = w->copy_count ? w->copies[0].number : w->copies_issued;
}

void race_arrive(emu_warp *w, uint32_t barrier)
{
    race_block *race = w->block->race;
    race_warp *warp = &race->warps[w->index];
    clock_join(&race->barriers[barrier], &warp->clock);
    for (int i = 0; i < SCOPES; i++) {
        clock_join(&race->barriers_seen[barrier][i], &warp->seen[i]);
    }
    next_step(w->block, w->index);
}

void race_complete(exec_block *block, const block_barrier *barrier)
{
    race_block *race = block->race;
    size_t id = (size_t)(barrier - block->barriers);
    race_clock *together = &race->barriers[id], *seen = race->barriers_seen[id];
    for (int i = 0; i < block->warp_count && !barrier->expected; i++) {
        if (!block->warps[i].live) {
            clock_join(together, &race->warps[i].clock); /* its end counts as its arrival */
        }
    }
    for (int i = 0; i < block->warp_count; i++) {
        for (int k = 0; k < SCOPES && barrier->waiting[i]; k++) {
            clock_join(&race->warps[i].seen[k], &seen[k]);
        }
        if (barrier->waiting[i]) {
            clock_join(&race->warps[i].clock, together);
            race->warps[i].known_clock = 0;
        }
    }
    forget_barrier(race, id);
}

/* A range that a bulk copy touches, in pieces of 16 bytes and a rest. */
bool race_bulk(emu_warp *w, const emu_instr *in, ptx_space space, exec_block *owner,
               uint32_t access, uint64_t first, uint64_t bytes)
{
    uint64_t rest = bytes % BULK_PIECE, whole = bytes - rest;
    for (uint64_t done = 0; done < whole;) {
        uint64_t at[IR_LANES];
        uint32_t mask = 0;
        for (int i = 0; i < IR_LANES && done < whole; i++, done += BULK_PIECE) {
            at[i] = first + done;
            mask |= 1u << i;
        }
        if (!race_access(w, in, space, owner, access | ACCESS_BULK, at, BULK_PIECE, mask)) {
            return false;
        }
    }
    uint64_t last = first + whole;
    return !rest ||
           race_access(w, in, space, owner, access | ACCESS_BULK, &last, (uint32_t)rest, 1);
}

void race_bulk_done(const exec_block *issuer, int warp, uint32_t number, exec_block *block,
                    uint64_t address)
{
    race_part part = {.block = issuer->linear};
    race_clock clock = {.parts = &part, .count = 1};
    part.bulk[warp] = part.bulk_reads[warp] = number + 1;
    sync_add(&block->race->places, block->linear, &clock, address);
}

void race_bulk_waited(emu_warp *w, uint32_t count, bool reads_alone)
{
    race_part *own = own_part(w->block, w->index);
    uint32_t *known = &own->bulk[w->index], *reads = &own->bulk_reads[w->index];
    *reads = count > *reads ? count : *reads;
    *known = count > *known && !reads_alone ? count : *known;
}

void race_wgmma_waited(emu_warp *w, uint32_t count)
{
    own_part(w->block, w->index)->wgmma[w->index / WARPGROUP] = count;
}

void race_proxy_fence(emu_warp *w)
{
    race_clock *clock = &w->block->race->warps[w->index].clock;
    for (size_t i = 0; i < clock->count; i++) {
        memcpy(clock->parts[i].proxied, clock->parts[i].steps, sizeof clock->parts[i].proxied);
    }
    next_step(w->block, w->index);
}

/* ---- mbarriers: waits learn what the arrivals of the phases before have released. The places of
 * an object are its address, for the phase that runs, and the address after it, for the last one
 * that is over. ---- */

uint32_t race_step(const emu_warp *w)
{
    return own_part(w->block, w->index)->steps[w->index];
}

bool race_knows(const emu_warp *w, const exec_block *block, int warp, uint32_t step)
{
    const race_part *part = clock_find(&w->block->race->warps[w->index].clock, block->linear);
    return part && (part->steps[warp] >= step || part->inits[warp] >= step);
}

void race_mbarrier_arrive(emu_warp *w, const emu_instr *in, exec_block *block, uint64_t address)
{
    visit_block(w, block, 0);
    sync_arrive(&w->block->race->warps[w->index], &block->race->places, block->linear, in, address);
    next_step(w->block, w->index);
}

void race_mbarrier_copied(emu_warp *w, exec_block *block, uint64_t address)
{
    race_part part = {.block = w->block->linear};
    race_clock clock = {.parts = &part, .count = 1};
    part.copies[w->index] = w->copies_issued;
    sync_add(&block->race->places, block->linear, &clock, address);
}

void race_mbarrier_wait(emu_warp *w, const emu_instr *in, uint64_t address)
{
    race_block *race = w->block->race;
    uint64_t over = address + 1;
    sync_acquire(&race->warps[w->index], &race->places, in, &over, 1);
}

void race_phase(exec_block *block, uint64_t address)
{
    sync_move(&block->race->places, address, address + 1);
}

/* ---- barrier.cluster ---- */

void race_cluster_start(exec_cluster *cluster)
{
    if (!cluster->race) {
        cluster->race = pool_require(calloc(1, sizeof *cluster->race));
    }
    clock_reset(&cluster->race->arriving, NULL);
    clock_reset(&cluster->race->over, NULL);
}

void race_cluster_free(race_cluster *race)
{
    if (race) {
        clock_free(&race->arriving);
        clock_free(&race->over);
        free(race);
    }
}

void race_cluster_arrive(emu_warp *w, const emu_instr *in)
{
    race_warp *warp = &w->block->race->warps[w->index];
    clock_join(&w->block->cluster->race->arriving,
               in->order & ORDER_RELEASE ? &warp->clock : &warp->fenced[SCOPE_CLUSTER]);
    next_step(w->block, w->index);
}

void race_cluster_complete(exec_cluster *cluster)
{
    race_cluster *race = cluster->race;
    clock_reset(&race->over, NULL);
    clock_join(&race->over, &race->arriving);
    clock_reset(&race->arriving, NULL);
    for (int i = 0; i < cluster->count; i++) {
        const exec_block *block = &cluster->blocks[i];
        for (int k = 0; k < block->warp_count; k++) {
            if (!block->warps[k].live) { /* its end counts as its arrival */
                clock_join(&race->over, &block->race->warps[k].clock);
            }
        }
    }
}

void race_cluster_wait(emu_warp *w)
{
    race_warp *warp = &w->block->race->warps[w->index];
    clock_join(&warp->clock, &w->block->cluster->race->over);
    warp->known_clock = 0;
}
