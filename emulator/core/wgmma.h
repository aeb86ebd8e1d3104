/*
 * wgmma.h: asynchronous products of a warpgroup (PTX ISA 9.7.15), between the instructions
 * (wgmma.c), the matrices in shared memory (wgmma_tile.c) and the arithmetic (exec_wgmma.c).
 *
 * A product begins when all four warps have issued it, and may run until a wait_group that covers
 * it: its registers and its shared memory are in use until then. It is executed when it begins, or
 * (copies=late) in the wait.
 */
#ifndef EMU_WGMMA_H
#define EMU_WGMMA_H

#include "exec.h"

enum {
    WGMMA_ROWS = 64,
    WGMMA_MOST_COLUMNS = 256,
    WGMMA_K_BYTES = 32, /* of every element size */
    WGMMA_CHUNK = 16,
};

/* A or B in shared memory, in blocks of 8 rows (m or n) and 16 bytes along k, two of them side by
 * side. Rows of a block have 16 bytes; where k does not run along them, they are columns. */
typedef struct wgmma_tile {
    uint32_t rows;
    bool transposed; /* m or n runs along the bytes */
    uint32_t start, leading, stride;
    uint32_t span;      /* bytes that the swizzle mixes: 16 (none), 32, 64, 128 */
    uint32_t low, high; /* what it has lies between, in whole lines of 128 bytes */
} wgmma_tile;

/* One product, as the warps have issued it. */
typedef struct wgmma_op {
    const emu_instr *in;
    uint64_t descriptors[2]; /* of A and B */
    wgmma_tile tiles[2];     /* A's: none where it is in registers */
    bool adds;               /* scale-d: to what D has */
    uint32_t warps;          /* that have issued it: one bit each */
} wgmma_op;

/* ---- what an instruction says ---- */

static inline uint32_t wgmma_columns(const emu_instr *in)
{
    return 8 * (in->aux & WGMMA_N8);
}

static inline ptx_type wgmma_type(const emu_instr *in, int shift)
{
    return (ptx_type)(in->aux >> shift & WGMMA_TYPE);
}

static inline uint32_t wgmma_d_registers(const emu_instr *in)
{
    return wgmma_columns(in) / (wgmma_type(in, WGMMA_D_SHIFT) == TYPE_F16 ? 4 : 2);
}

/* Offsets of the registers of D, then of A, if it is in registers. */
static inline const uint32_t *wgmma_list(const emu_warp *w, const emu_instr *in)
{
    return w->block->grid->kernel->lists + in->target;
}

/* ---- wgmma.c ---- */

/* Called with the first of the four warps, when all have issued the product. */
typedef void wgmma_execute(emu_warp *warps, const wgmma_op *op);

void wgmma_issue(emu_warp *w, const emu_instr *in, uint32_t mask, wgmma_execute *execute);
void wgmma_fence(emu_warp *w, const emu_instr *in, uint32_t mask);
/* The warp has waited for all of its products, and there were some. */
bool wgmma_is_between(const emu_warp *w);
void wgmma_commit(emu_warp *w, const emu_instr *in, uint32_t mask);
void wgmma_wait(emu_warp *w, const emu_instr *in, uint32_t mask);

void wgmma_block_start(exec_block *block);
void wgmma_block_end(exec_block *block);   /* all warps have ended */
void wgmma_block_free(wgmma_block *block); /* NULL allowed */
/* Products that a warp has issued. */
uint32_t wgmma_issued(const exec_block *block, int warp);

/* ---- wgmma_tile.c ---- */

/* `which`: 0 A, 1 B. In bounds; false: a fault was raised. */
bool wgmma_tile_read(wgmma_tile *out, emu_warp *w, const emu_instr *in, uint64_t descriptor,
                     int which);
/* All of it was written, and nothing is being copied there; false: a fault was raised. */
bool wgmma_tile_known(emu_warp *w, const emu_instr *in, const wgmma_tile *tile, int which);
/* For the race detector: the warp reads it until it waits. */
bool wgmma_tile_race(emu_warp *w, const emu_instr *in, const wgmma_tile *tile);

/* Where row (or column) `i` of a block begins; half: along k. */
static inline uint32_t wgmma_chunk_at(const wgmma_tile *t, uint32_t block, uint32_t half,
                                      uint32_t i)
{
    uint32_t at = t->start + i * t->span;
    if (t->span == WGMMA_CHUNK) {
        at += block * t->stride + half * t->leading;
    } else if (t->transposed) {
        uint32_t blocks = t->span / WGMMA_CHUNK; /* side by side */
        at += block % blocks * WGMMA_CHUNK + block / blocks * t->leading + half * t->stride;
    } else {
        at += block * t->stride + half * WGMMA_CHUNK;
    }
    return at ^ (at >> 7 & (t->span / WGMMA_CHUNK - 1)) << 4;
}

#endif
