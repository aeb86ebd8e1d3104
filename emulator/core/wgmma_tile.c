/*
 * wgmma_tile.c: matrices of wgmma in shared memory (PTX ISA 9.7.15.5.1.2): what a descriptor says,
 * and whether a warp may read what it describes. Called by wgmma.c; wgmma.h has the layouts.
 */
#include "wgmma.h"

/* A field of a descriptor, in bytes. */
static uint32_t field(uint64_t descriptor, int shift)
{
    return (uint32_t)(descriptor >> shift & 0x3fff) << 4;
}

bool wgmma_tile_read(wgmma_tile *out, emu_warp *w, const emu_instr *in, uint64_t descriptor,
                     char name)
{
    static const uint32_t spans[] = {WGMMA_CHUNK, 128, 64, 32};
    unsigned base = descriptor >> 49 & 7, mode = (unsigned)(descriptor >> 62);
    if (base && mode) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, FULL_MASK,
                    "the descriptor of %c (0x%llx) has base offset %u: the emulator wants 0, a "
                    "swizzle pattern that begins at a multiple of %u bytes",
                    name, (unsigned long long)descriptor, base, 8 * spans[mode]);
        return false;
    }
    int64_t transposed = name == 'A' ? WGMMA_A_TRANSPOSED : WGMMA_B_TRANSPOSED;
    *out = (wgmma_tile){.rows = name == 'A' ? WGMMA_ROWS : wgmma_columns(in),
                        .transposed = (in->imm & transposed) != 0,
                        .start = field(descriptor, 0),
                        .leading = field(descriptor, 16),
                        .stride = field(descriptor, 32),
                        .span = spans[mode]};
    return true;
}

static bool is_known(const exec_block *block, uint32_t at)
{
    return (block->shared_known[at / 64] >> at % 64 & 0xffff) == 0xffff;
}

static bool check_chunk(emu_warp *w, const emu_instr *in, uint32_t at, char name)
{
    const char *wrong = NULL;
    CUresult result = CUDA_ERROR_LAUNCH_FAILED;
    if (at + WGMMA_CHUNK > w->block->shared_bytes) {
        result = CUDA_ERROR_ILLEGAL_ADDRESS;
        wrong = name == 'A' ? "A of wgmma is out of bounds" : "B of wgmma is out of bounds";
    } else if (!is_known(w->block, at)) {
        wrong = name == 'A' ? "wgmma reads A that was never written, or is still being copied"
                            : "wgmma reads B that was never written, or is still being copied";
    }
    if (wrong) {
        fault_raise_address(w, in, result, FULL_MASK, SPACE_SHARED, at, WGMMA_CHUNK, wrong);
    }
    return !wrong;
}

/* A quick yes: the whole range that the tile lies in is written. Swizzling stays within 128 bytes.
 */
static bool is_range_known(const exec_block *block, const wgmma_tile *t)
{
    uint32_t low = UINT32_MAX, high = 0;
    for (uint32_t b = 0; b < t->rows / 8; b++) {
        for (uint32_t half = 0; half < 2; half++) {
            uint32_t first = wgmma_chunk_at(t, b, half, 0), last = first + 7 * t->span;
            low = first < low ? first : low;
            high = last > high ? last : high;
        }
    }
    low = low / 128 * 2;
    high = (high / 128 + 1) * 2; /* words of marks */
    uint64_t missing = 0;
    if (high * 64 > block->shared_bytes) {
        return false;
    }
    for (uint32_t i = low; i < high; i++) {
        missing |= ~block->shared_known[i];
    }
    return !missing;
}

bool wgmma_tile_check(emu_warp *w, const emu_instr *in, const wgmma_tile *t, char name)
{
    if (is_range_known(w->block, t)) {
        return true;
    }
    for (uint32_t b = 0; b < t->rows / 8; b++) {
        for (uint32_t k = 0; k < 16; k++) {
            if (!check_chunk(w, in, wgmma_chunk_at(t, b, k / 8, k % 8), name)) {
                return false;
            }
        }
    }
    return true;
}

bool wgmma_tile_race(emu_warp *w, const emu_instr *in, const wgmma_tile *t)
{
    for (uint32_t b = 0; b < t->rows / 8; b++) {
        uint64_t at[IR_LANES];
        for (uint32_t k = 0; k < 16; k++) {
            at[k] = wgmma_chunk_at(t, b, k & 1, k >> 1);
        }
        if (!race_access(w, in, SPACE_SHARED, ACCESS_READ | ACCESS_WGMMA, at, WGMMA_CHUNK,
                         0xffff)) {
            return false;
        }
    }
    return true;
}
