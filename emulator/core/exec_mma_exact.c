/*
 * exec_mma_exact.c: mma.sync as the tensor cores of one device round it: mma_model.h for each
 * element of D. Fragments are those of exec_mma.c: register j of A is rows g + 8 (j % 2); a
 * register of elements of which n fit in 32 bits holds k = n t .. n t + n - 1, n 4 further for the
 * next one.
 */
#include "exec_mma_exact.h"
#include "exec_mma.h"
#include "exec_mma_exact_wide.h"
#include "machine.h"

enum { MMA_MOST_DEPTH = 32 };

typedef struct exact_fragments {
    mma_number a[16][MMA_MOST_DEPTH], b[8][MMA_MOST_DEPTH]; /* by row, by column */
} exact_fragments;

static int bits_of(mma_format format)
{
    return format == MMA_FORMAT_TF32 ? 32 : format >= MMA_FORMAT_E4M3 ? 8 : 16;
}

/* The elements of some registers, rows_of_8 of which are side by side. */
static void read_fragment(mma_number to[][MMA_MOST_DEPTH], const u32 *const *registers, int count,
                          int rows_of_8, mma_format format)
{
    int bits = bits_of(format), n = 32 / bits;
    for (int j = 0; j < count; j++) {
        int row = 8 * (j % rows_of_8), k = 4 * n * (j / rows_of_8);
        for (int lane = 0; lane < IR_LANES; lane++) {
            for (int e = 0; e < n; e++) {
                u32 element = registers[j][lane] >> (bits * e);
                if (format == MMA_FORMAT_TF32) {
                    element >>= 13;
                }
                to[row + (lane >> 2)][k + n * (lane & 3) + e] = mma_decode(element, format);
            }
        }
    }
}

static int a_registers(const exact_product *p)
{
    return p->depth * bits_of(p->a_format) / 64;
}

static void multiply_scalar(const exact_product *p)
{
    exact_fragments f;
    u32 results[4][IR_LANES];
    read_fragment(f.a, p->a, a_registers(p), 2, p->a_format);
    read_fragment(f.b, p->b, a_registers(p) / 2, 1, p->b_format);
    for (int i = 0; i < 4; i++) {
        for (int lane = 0; lane < IR_LANES; lane++) {
            u32 c = p->half ? p->c[i / 2][lane] >> (16 * (i % 2)) & 0xffff : p->c[i][lane];
            int row = (lane >> 2) + 8 * (i >> 1), column = 2 * (lane & 3) + (i & 1);
            results[i][lane] = mma_dot(p->model, f.a[row], f.b[column], p->depth, c, p->half);
        }
    }
    for (int i = 0; i < 4; i += p->half ? 2 : 1) {
        for (int lane = 0; lane < IR_LANES; lane++) {
            if (p->half) {
                p->d[i / 2][lane] = results[i][lane] | results[i + 1][lane] << 16;
            } else {
                p->d[i][lane] = results[i][lane];
            }
        }
    }
}

/* Format, depth and half are constant where the vectors work. */
static bool multiply_wide(const exact_product *p)
{
#ifdef MMA_HAVE_EXACT_WIDE
    switch (p->a_format) {
    case MMA_FORMAT_BF16:
        return p->depth == 16 ? exact_wide_run(p, MMA_FORMAT_BF16, 16, false)
                              : exact_wide_run(p, MMA_FORMAT_BF16, 8, false);
    case MMA_FORMAT_F16:
        if (p->half) {
            return p->depth == 16 ? exact_wide_run(p, MMA_FORMAT_F16, 16, true)
                                  : exact_wide_run(p, MMA_FORMAT_F16, 8, true);
        }
        return p->depth == 16 ? exact_wide_run(p, MMA_FORMAT_F16, 16, false)
                              : exact_wide_run(p, MMA_FORMAT_F16, 8, false);
    case MMA_FORMAT_TF32:
        return p->depth == 8 ? exact_wide_run(p, MMA_FORMAT_TF32, 8, false)
                             : exact_wide_run(p, MMA_FORMAT_TF32, 4, false);
    default:
        return false;
    }
#else
    (void)p;
    return false;
#endif
}

void ISA(exact_multiply)(const exact_product *p)
{
    if (!multiply_wide(p)) {
        multiply_scalar(p);
    }
}

/* ---- mma.sync -------------------------------------------------------------------------------- */

static const mma_model *model_of(const emu_warp *w, mma_unit unit)
{
    return mma_model_of(w->block->grid->machine->tensor_cores, unit);
}

/* r: D, A, B, C; p has everything but the registers. */
static void multiply(emu_warp *w, const emu_instr *in, exact_product p)
{
    int d_count = p.half ? 2 : 4, a_count = a_registers(&p), b_count = a_count / 2, at = d_count;
    for (int i = 0; i < a_count; i++) {
        p.a[i] = REG(const u32, at++);
    }
    for (int i = 0; i < b_count; i++) {
        p.b[i] = REG(const u32, at++);
    }
    for (int i = 0; i < d_count; i++) {
        p.c[i] = REG(const u32, at++);
        p.d[i] = REG(u32, i);
    }
    ISA(exact_multiply)(&p);
}

#define MMA_EXACT(name, format, depth)                                                             \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        if (enter_mma(w, in, mask)) {                                                              \
            const mma_model *model =                                                               \
                model_of(w, format == MMA_FORMAT_TF32 ? MMA_UNIT_TF32 : MMA_UNIT_16);              \
            bool half = format == MMA_FORMAT_F16 && (in->aux & MMA_AUX_HALVES);                    \
            multiply(w, in,                                                                        \
                     (exact_product){model, format, format, depth, half, {0}, {0}, {0}, {0}});     \
        }                                                                                          \
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
    multiply(w, in,
             (exact_product){.model = model,
                             .a_format = format_of(in->aux >> MMA_AUX_A_SHIFT),
                             .b_format = format_of(in->aux >> MMA_AUX_B_SHIFT),
                             .depth = in->aux & MMA_AUX_DEEP ? 32 : 16});
}
