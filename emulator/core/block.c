/*
 * block.c: one block: its registers and its shared memory, from its start to its end.
 */
#include <stdlib.h>
#include <string.h>

#include "wgmma.h"

static void *reserve(void *memory, size_t *capacity, size_t bytes, size_t align)
{
    if (bytes <= *capacity && memory) {
        return memory;
    }
    free(memory);
    *capacity = (bytes + align - 1) / align * align + align;
    return pool_require(aligned_alloc(align, *capacity));
}

static uint64_t special_value(const emu_warp *w, ir_special special, unsigned lane)
{
    const exec_block *b = w->block;
    const exec_grid *g = b->grid;
    unsigned thread = (unsigned)w->index * 32 + lane;
    switch (special) {
#define SPECIAL(id, spelling, component, bytes, value)                                             \
    case IR_SPECIAL_##id:                                                                          \
        return (uint64_t)(value);
#include "specials.def"
#undef SPECIAL
    default:
        return 0;
    }
}

static size_t special_bytes(ir_special special)
{
    static const uint8_t bytes[] = {
#define SPECIAL(id, spelling, component, size, value) size,
#include "specials.def"
#undef SPECIAL
    };
    return bytes[special];
}

static void fill_registers(emu_warp *w)
{
    const ir_kernel *kernel = w->block->grid->kernel;
    memcpy(w->registers, kernel->constants, kernel->constant_bytes);
    memset(w->registers + kernel->constant_bytes, 0,
           kernel->register_bytes - kernel->constant_bytes);
    for (int i = 0; i < kernel->special_count; i++) {
        const ir_special_use *use = &kernel->specials[i];
        size_t bytes = special_bytes(use->special);
        if (!bytes) { /* a predicate, the same in all lanes */
            uint32_t value = special_value(w, use->special, 0) ? FULL_MASK : 0;
            memcpy(w->registers + use->offset, &value, sizeof value);
        }
        for (unsigned lane = 0; lane < IR_LANES && bytes; lane++) {
            uint64_t value = special_value(w, use->special, lane);
            memcpy(w->registers + use->offset + lane * bytes, &value, bytes);
        }
    }
}

static void start_warp(exec_block *block, int index)
{
    const exec_grid *g = block->grid;
    emu_warp *w = &block->warps[index];
    async_copy *copies = w->copies;
    async_source *sources = w->sources;
    int capacity = w->copy_capacity, source_capacity = w->source_capacity;
    unsigned left = g->threads_per_block - (unsigned)index * 32;
    *w = (emu_warp){.block = block,
                    .index = index,
                    .copies = copies,
                    .copy_capacity = capacity,
                    .sources = sources,
                    .source_capacity = source_capacity,
                    .existing = left >= 32 ? FULL_MASK : (1u << left) - 1,
                    .split_count = 1,
                    .running = -1,
                    .local_bytes = g->kernel->local_bytes};
    w->live = w->existing;
    w->splits[0] = (warp_split){.mask = w->existing, .state = SPLIT_READY};
    w->registers = block->registers_memory + (size_t)index * g->kernel->register_bytes;
    w->local = block->local_memory + (size_t)index * IR_LANES * w->local_bytes;
    fill_registers(w);
}

/* Zeros, which count as written: cooperative groups find their barriers so. */
static void start_reserved_shared(exec_block *block)
{
    size_t first = block->grid->reserved_shared;
    memset(block->shared + first, 0, IR_RESERVED_SHARED_USED);
    memset(&block->shared_known[first / 64], 0xff,
           (IR_RESERVED_SHARED_USED + 63) / 64 * sizeof *block->shared_known);
}

void block_start(exec_block *block, exec_cluster *cluster, uint64_t linear)
{
    const exec_grid *grid = cluster->grid;
    const ir_kernel *kernel = grid->kernel;
    block->grid = grid;
    block->cluster = cluster;
    block->linear = linear;
    block->index[0] = (unsigned)(linear % grid->grid[0]);
    block->index[1] = (unsigned)(linear / grid->grid[0] % grid->grid[1]);
    block->index[2] = (unsigned)(linear / grid->grid[0] / grid->grid[1]);
    block->warp_count = (int)((grid->threads_per_block + 31) / 32);
    block->shared_bytes = kernel->knows_reserved_shared
                              ? grid->reserved_shared + IR_RESERVED_SHARED_USED
                              : grid->shared_bytes;
    block->registers_memory = reserve(block->registers_memory, &block->registers_capacity,
                                      (size_t)block->warp_count * kernel->register_bytes, 64);
    block->local_memory = reserve(block->local_memory, &block->local_capacity,
                                  (size_t)block->warp_count * IR_LANES * kernel->local_bytes, 64);
    size_t marks = block->shared_bytes / 64 + 2;
    if (block->shared_bytes + 64 > block->shared_capacity || !block->shared) {
        block->shared =
            reserve(block->shared, &block->shared_capacity, block->shared_bytes + 64, 1024);
        free(block->shared_known);
        block->shared_known =
            pool_require(calloc(block->shared_capacity / 64 + 2, sizeof *block->shared_known));
    }
    memset(block->shared_known, 0, marks * sizeof *block->shared_known);
    block->shared_whole = false;
    if (kernel->knows_reserved_shared) {
        start_reserved_shared(block);
    }
    memset(block->barriers, 0, sizeof block->barriers);
    block->mbarrier_count = 0;
    block->bulk_count = 0;
    memset(block->arrivals, 0, sizeof block->arrivals);
    block->shared_limit = grid->race || grid->tally ? 0 : block->shared_bytes;
    block->counts = NULL;
    if (grid->tally) {
        block->counts = &block->counts_memory;
        count_begin(block->counts, kernel);
    }
    if (grid->race) {
        race_block_start(block);
    }
    if (kernel->has_wgmma) {
        wgmma_block_start(block);
    }
    if (kernel->has_setmaxnreg) {
        setmaxnreg_start(block);
    }
    block->fault = (exec_fault){CUDA_SUCCESS, NULL};
    block->printed = (text){0};
    for (int i = 0; i < block->warp_count; i++) {
        start_warp(block, i);
    }
}

bool block_has_ended(const exec_block *block)
{
    for (int i = 0; i < block->warp_count; i++) {
        if (block->warps[i].live) {
            return false;
        }
    }
    return true;
}

void block_end(exec_block *block)
{
    bulk_end(block);
    if (block->grid->kernel->has_wgmma) {
        wgmma_block_end(block);
    }
    if (block->grid->kernel->has_setmaxnreg) {
        setmaxnreg_end(block);
    }
}

void block_release(exec_block *block)
{
    free(block->registers_memory);
    free(block->local_memory);
    free(block->shared);
    free(block->shared_known);
    free(block->mbarriers);
    free(block->bulk);
    race_block_free(block->race);
    wgmma_block_free(block->wgmma);
    count_free(&block->counts_memory);
    for (int i = 0; i < EXEC_MAX_WARPS; i++) {
        free(block->warps[i].copies);
        free(block->warps[i].sources);
    }
}
