/*
 * exec_matrix.c: ldmatrix, stmatrix, movmatrix. A register of 32 lanes, seen as memory, is a
 * row-major 8x8 matrix of 16-bit elements, so a matrix moves as eight rows of 16 bytes.
 */
#include "exec_access.h"
#include "exec_transpose.h"

enum { MATRIX_BYTES = 128 };

/* Row addresses: lane 8j + i has row i of matrix j; other lanes' addresses are not looked at. */
static inline bool read_rows(emu_warp *w, const emu_instr *in, u32 mask, int k, bool reads,
                             lane_addresses *a)
{
    u32 matrices = in->aux & AUX_VECTOR;
    u32 used = matrices == 4 ? FULL_MASK : (1u << 8 * matrices) - 1;
    if (!warp_meet(w, in, mask, w->existing, "a matrix instruction")) {
        return false;
    }
    if (mask != FULL_MASK) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, mask,
                    "a matrix instruction in a warp of %d lanes", __builtin_popcount(mask));
        return false;
    }
    read_addresses(a, w, in, k, in->aux & AUX_WIDE, in->imm, used);
    if ((in->aux >> AUX_SPACE_SHIFT & 7) == SPACE_GENERIC) {
        if (pick_space(a, SPACE_SHARED, used, a) != used) {
            fault_raise(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, used,
                        "a row address of a matrix is not in shared memory");
            return false;
        }
    }
    return check_shared(w, w->block, in, a, ROW_BYTES, ROW_BYTES, reads ? ACCESS_READ : ACCESS_WRITE, used);
}

DEFINE_HANDLER(ldmatrix)
{
    lane_addresses a;
    u32 matrices = in->aux & AUX_VECTOR;
    bool transposed = in->aux >> AUX_ACTION_SHIFT & 1;
    if (!read_rows(w, in, mask, (int)matrices, true, &a)) {
        return;
    }
    const u8 *shared = w->block->shared;
    for (u32 j = 0; j < matrices; j++) {
        u8 rows[MATRIX_BYTES];
        u8 *to = transposed ? rows : REG(u8, j);
        for (u32 i = 0; i < 8; i++) {
            memcpy(to + ROW_BYTES * i, shared + a.at[8 * j + i], ROW_BYTES);
        }
        if (transposed) {
            transpose(rows, REG(u8, j));
        }
    }
}

DEFINE_HANDLER(stmatrix)
{
    lane_addresses a;
    u32 matrices = in->aux & AUX_VECTOR;
    bool transposed = in->aux >> AUX_ACTION_SHIFT & 1;
    if (!read_rows(w, in, mask, 0, false, &a)) {
        return;
    }
    for (u32 j = 0; j < matrices; j++) {
        u8 rows[MATRIX_BYTES];
        if (transposed) {
            transpose(REG(const u8, j + 1), rows);
        } else {
            memcpy(rows, REG(const u8, j + 1), MATRIX_BYTES);
        }
        for (u32 i = 0; i < 8; i++) {
            memcpy(w->block->shared + a.at[8 * j + i], rows + ROW_BYTES * i, ROW_BYTES);
        }
    }
    mark_shared((u8 *)w->block->shared_known, &a, ROW_BYTES,
                matrices == 4 ? FULL_MASK : (1u << 8 * matrices) - 1);
}

DEFINE_HANDLER(movmatrix)
{
    u8 rows[MATRIX_BYTES];
    if (warp_meet(w, in, mask, w->existing, "a matrix instruction")) {
        memcpy(rows, REG(const u8, 1), MATRIX_BYTES);
        transpose(rows, REG(u8, 0));
    }
}
