/*
 * wgmma_tile.c: matrices of wgmma in shared memory (PTX ISA 9.7.15.5.1.2): what a descriptor says,
 * and whether a warp may read what it describes. Called by wgmma.c; wgmma.h has the layouts.
 */
#include <stdio.h>

#include "wgmma.h"

enum { LINE = 128 };

/* A field of a descriptor, in bytes. */
static uint32_t field(uint64_t descriptor, int shift)
{
    return (uint32_t)(descriptor >> shift & 0x3fff) << 4;
}

/* The first chunk that is wrong in the sense of `is_right`; UINT32_MAX: none. */
static uint32_t find_chunk(const exec_block *block, const wgmma_tile *t,
                           bool (*is_right)(const exec_block *block, uint32_t at))
{
    for (uint32_t b = 0; b < t->rows / 8; b++) {
        for (uint32_t k = 0; k < 16; k++) {
            uint32_t at = wgmma_chunk_at(t, b, k / 8, k % 8);
            if (!is_right(block, at)) {
                return at;
            }
        }
    }
    return UINT32_MAX;
}

static bool fail_chunk(emu_warp *w, const emu_instr *in, CUresult result, uint32_t at, int which,
                       const char *wrong)
{
    char what[80];
    snprintf(what, sizeof what, "%s of wgmma %s", which ? "B" : "A", wrong);
    fault_raise_address(w, in, result, FULL_MASK, SPACE_SHARED, at, WGMMA_CHUNK, what);
    return false;
}

static bool is_inside(const exec_block *block, uint32_t at)
{
    return at + WGMMA_CHUNK <= block->shared_bytes;
}

static bool is_known(const exec_block *block, uint32_t at)
{
    return (block->shared_known[at / 64] >> at % 64 & 0xffff) == 0xffff;
}

/* Swizzling stays within a line. */
static void find_range(wgmma_tile *t)
{
    uint32_t low = UINT32_MAX, high = 0;
    for (uint32_t b = 0; b < t->rows / 8; b++) {
        for (uint32_t half = 0; half < 2; half++) {
            uint32_t first = wgmma_chunk_at(t, b, half, 0), last = first + 7 * t->span;
            low = first < low ? first : low;
            high = last > high ? last : high;
        }
    }
    t->low = low / LINE * LINE;
    t->high = (high / LINE + 1) * LINE;
}

bool wgmma_tile_read(wgmma_tile *out, emu_warp *w, const emu_instr *in, uint64_t descriptor,
                     int which)
{
    static const uint32_t spans[] = {WGMMA_CHUNK, 128, 64, 32};
    unsigned base = descriptor >> 49 & 7, mode = (unsigned)(descriptor >> 62);
    if (base && mode) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, FULL_MASK,
                    "the descriptor of %s (0x%llx) has base offset %u: the emulator wants 0, a "
                    "swizzle pattern that begins at a multiple of %u bytes",
                    which ? "B" : "A", (unsigned long long)descriptor, base, 8 * spans[mode]);
        return false;
    }
    int64_t transposed = which ? WGMMA_B_TRANSPOSED : WGMMA_A_TRANSPOSED;
    *out = (wgmma_tile){.rows = which ? wgmma_columns(in) : WGMMA_ROWS,
                        .transposed = (in->imm & transposed) != 0,
                        .start = field(descriptor, 0),
                        .leading = field(descriptor, 16),
                        .stride = field(descriptor, 32),
                        .span = spans[mode]};
    find_range(out);
    uint32_t outside =
        out->high > w->block->shared_bytes ? find_chunk(w->block, out, is_inside) : UINT32_MAX;
    return outside == UINT32_MAX ||
           fail_chunk(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, outside, which, "is out of bounds");
}

bool wgmma_tile_known(emu_warp *w, const emu_instr *in, const wgmma_tile *t, int which)
{
    const exec_block *block = w->block;
    uint64_t missing = t->high > block->shared_bytes;
    for (uint32_t i = t->low / 64; i < t->high / 64 && !missing; i++) {
        missing = ~block->shared_known[i];
    }
    uint32_t unknown = missing ? find_chunk(block, t, is_known) : UINT32_MAX;
    return unknown == UINT32_MAX || fail_chunk(w, in, CUDA_ERROR_LAUNCH_FAILED, unknown, which,
                                               "was never written, or is still being copied");
}

bool wgmma_tile_race(emu_warp *w, const emu_instr *in, const wgmma_tile *t)
{
    for (uint32_t b = 0; b < t->rows / 8; b++) {
        uint64_t at[IR_LANES];
        for (uint32_t k = 0; k < 16; k++) {
            at[k] = wgmma_chunk_at(t, b, k & 1, k >> 1);
        }
        if (!race_access(w, in, SPACE_SHARED, w->block, ACCESS_READ | ACCESS_WGMMA, at,
                         WGMMA_CHUNK, 0xffff)) {
            return false;
        }
    }
    return true;
}
