/*
 * exec_mma_exact.c: mma.sync as the tensor cores of one device round it: mma_model.h for each
 * element of D. Fragments are those of exec_mma.c: register j of A is rows g + 8 (j % 2); a
 * register of elements of which n fit in 32 bits holds k = n t .. n t + n - 1, n 4 further for the
 * next one.
 */
#include "exec_mma.h"
#include "exec_mma_exact_wide.h"
#include "machine.h"

enum { MMA_MOST_DEPTH = 32 };

typedef struct exact_fragments {
    mma_number a[16][MMA_MOST_DEPTH], b[8][MMA_MOST_DEPTH]; /* by row, by column */
} exact_fragments;

/* The elements of operand `at` on: `registers` of them, rows_of_8 of which are side by side. */
static void read_fragment(mma_number to[][MMA_MOST_DEPTH], const emu_warp *w, const emu_instr *in,
                          int at, int registers, int rows_of_8, mma_format format)
{
    int bits = format == MMA_FORMAT_TF32 ? 32 : format >= MMA_FORMAT_E4M3 ? 8 : 16, n = 32 / bits;
    for (int j = 0; j < registers; j++) {
        const u32 *from = REG(const u32, at + j);
        int row = 8 * (j % rows_of_8), k = 4 * n * (j / rows_of_8);
        for (int lane = 0; lane < IR_LANES; lane++) {
            for (int e = 0; e < n; e++) {
                u32 element = from[lane] >> (bits * e);
                if (format == MMA_FORMAT_TF32) {
                    element >>= 13;
                }
                to[row + (lane >> 2)][k + n * (lane & 3) + e] = mma_decode(element, format);
            }
        }
    }
}

typedef struct exact_shape {
    int a_registers; /* and half as many of B */
    int depth;
    bool halves;
} exact_shape;

static void multiply_scalar(emu_warp *w, const emu_instr *in, const mma_model *model, exact_shape s,
                            mma_format a_format, mma_format b_format)
{
    exact_fragments f;
    u32 results[4][IR_LANES];
    int a_at = s.halves ? 2 : 4, b_at = a_at + s.a_registers, c_at = b_at + s.a_registers / 2;
    read_fragment(f.a, w, in, a_at, s.a_registers, 2, a_format);
    read_fragment(f.b, w, in, b_at, s.a_registers / 2, 1, b_format);
    for (int i = 0; i < 4; i++) {
        for (int lane = 0; lane < IR_LANES; lane++) {
            u32 c = s.halves ? REG(const u16, c_at + i / 2)[2 * lane + i % 2]
                             : REG(const u32, c_at + i)[lane];
            int row = (lane >> 2) + 8 * (i >> 1), column = 2 * (lane & 3) + (i & 1);
            results[i][lane] = mma_dot(model, f.a[row], f.b[column], s.depth, c, s.halves);
        }
    }
    for (int i = 0; i < 4; i++) {
        for (int lane = 0; lane < IR_LANES; lane++) {
            if (s.halves) {
                REG(u16, i / 2)[2 * lane + i % 2] = (u16)results[i][lane];
            } else {
                REG(u32, i)[lane] = results[i][lane];
            }
        }
    }
}

static const mma_model *model_of(const emu_warp *w, mma_unit unit)
{
    return mma_model_of(w->block->grid->machine->tensor_cores, unit);
}

static inline __attribute__((always_inline)) void multiply(emu_warp *w, const emu_instr *in,
                                                           u32 mask, mma_format format, int depth)
{
    if (!enter_mma(w, in, mask)) {
        return;
    }
    bool tf32 = format == MMA_FORMAT_TF32;
    bool halves = format == MMA_FORMAT_F16 && (in->aux & MMA_AUX_HALVES);
    const mma_model *model = model_of(w, tf32 ? MMA_UNIT_TF32 : MMA_UNIT_16);
    exact_shape s = {tf32 ? depth / 2 : depth / 4, depth, halves};
#ifdef MMA_HAVE_EXACT_WIDE
    /* constant, either way */
    if (halves ? exact_wide_run(w, in, model, format, depth, true)
               : exact_wide_run(w, in, model, format, depth, false)) {
        return;
    }
#endif
    multiply_scalar(w, in, model, s, format, format);
}

#define MMA_EXACT(name, format, depth)                                                             \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        multiply(w, in, mask, format, depth);                                                      \
    }
MMA_EXACT(mma_exact_m16n8k16_bf16, MMA_FORMAT_BF16, 16)
MMA_EXACT(mma_exact_m16n8k8_bf16, MMA_FORMAT_BF16, 8)
MMA_EXACT(mma_exact_m16n8k16_f16, MMA_FORMAT_F16, 16)
MMA_EXACT(mma_exact_m16n8k8_f16, MMA_FORMAT_F16, 8)
MMA_EXACT(mma_exact_m16n8k8_tf32, MMA_FORMAT_TF32, 8)
MMA_EXACT(mma_exact_m16n8k4_tf32, MMA_FORMAT_TF32, 4)

static mma_format format_of(u32 type)
{
    return (type & 0xff) == TYPE_E4M3 ? MMA_FORMAT_E4M3 : MMA_FORMAT_E5M2;
}

DEFINE_HANDLER(mma_exact_byte)
{
    if (in->aux & MMA_AUX_INTEGERS) {
        ISA(mma_byte)(w, in, mask);
        return;
    }
    if (!enter_mma(w, in, mask)) {
        return;
    }
    const mma_model *model = model_of(w, MMA_UNIT_FP8);
    if (!model) {
        fault_raise(w, in, CUDA_ERROR_ILLEGAL_INSTRUCTION, mask,
                    "mma of 8-bit floats: the tensor cores that MMLP_EMULATOR_NUMERICS names have "
                    "none");
        return;
    }
    bool deep = in->aux & MMA_AUX_DEEP;
    multiply_scalar(w, in, model, (exact_shape){deep ? 4 : 2, deep ? 32 : 16, false},
                    format_of(in->aux >> MMA_AUX_A_SHIFT), format_of(in->aux >> MMA_AUX_B_SHIFT));
}
