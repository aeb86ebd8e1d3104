/*
 * exec_mma.c: mma.sync. D = A B + C is one chain of fused multiply-adds per element, k ascending,
 * in f32. Layouts: in the accumulators, lane 4g + t of register i holds row g + 8 (i / 2), column
 * 2t + i % 2, so sixteen neighbouring lanes of a register are four rows with four columns each. For
 * a fixed k such a vector is multiplied by A[row][k], repeated over the four columns, and
 * B[k][column], repeated over the four rows: no element of C ever changes place.
 */
#include "exec_mma.h"
#include "exec_mma_wide.h"

enum { MMA_MOST_K = 16 };

/*
 * Operands widened to f32. a[half][k][lane]: A[g + 8 half][k] spread as the accumulators are, for
 * one lane of each row only: element g. b[k][odd][t]: B[k][2t + odd].
 */
typedef struct mma_operands {
    f32 a[2][MMA_MOST_K][8];
    f32 b[MMA_MOST_K][2][4];
} mma_operands;

/* ---- reading fragments ---- */

/* Pairs of 16-bit elements: register j of A is rows g + 8 (j % 2), columns 2t, 2t + 1 (+ 8 (j /
 * 2)). */
static inline void read_pairs(mma_operands *o, const emu_warp *w, const emu_instr *in, int a_at,
                              int a_count, f32 (*value_of)(u16))
{
    int b_count = a_count / 2;
    for (int j = 0; j < a_count; j++) {
        const u16 *from = REG(const u16, a_at + j);
        for (int lane = 0; lane < IR_LANES; lane++) {
            for (int odd = 0; odd < 2; odd++) {
                o->a[j & 1][8 * (j >> 1) + 2 * (lane & 3) + odd][lane >> 2] =
                    value_of(from[2 * lane + odd]);
            }
        }
    }
    for (int j = 0; j < b_count; j++) {
        const u16 *from = REG(const u16, a_at + a_count + j);
        for (int lane = 0; lane < IR_LANES; lane++) {
            int n = lane >> 2;
            for (int odd = 0; odd < 2; odd++) {
                o->b[8 * j + 2 * (lane & 3) + odd][n & 1][n >> 1] = value_of(from[2 * lane + odd]);
            }
        }
    }
}

/* ---- the chain ---- */

typedef f32 mma_accumulators[4][IR_LANES];

static inline void multiply(mma_accumulators c, const mma_operands *o, int depth)
{
    for (int i = 0; i < 4; i++) {
        for (int k = 0; k < depth; k++) {
            const f32 *a = o->a[i >> 1][k], *b = o->b[k][i & 1];
            for (int g = 0; g < 8; g++) {
                for (int t = 0; t < 4; t++) {
                    c[i][4 * g + t] = __builtin_fmaf(a[g], b[t], c[i][4 * g + t]);
                }
            }
        }
    }
}

static inline void read_accumulators(mma_accumulators c, const emu_warp *w, const emu_instr *in,
                                     int at, bool halves)
{
    for (int i = 0; i < 4; i++) {
        if (!halves) {
            memcpy(c[i], REG(const f32, at + i), sizeof c[i]);
            continue;
        }
        const u16 *from = REG(const u16, at + i / 2);
        for (int lane = 0; lane < IR_LANES; lane++) {
            c[i][lane] = f16_to_f32(from[2 * lane + (i & 1)]);
        }
    }
}

static inline void write_accumulators(mma_accumulators c, emu_warp *w, const emu_instr *in,
                                      bool halves)
{
    for (int i = 0; i < 4; i++) {
        if (!halves) {
            memcpy(REG(f32, i), c[i], sizeof c[i]);
            continue;
        }
        u16 *to = REG(u16, i / 2);
        for (int lane = 0; lane < IR_LANES; lane++) {
            to[2 * lane + (i & 1)] = f32_to_f16(c[i][lane]);
        }
    }
}

static inline void mma_pairs(emu_warp *w, const emu_instr *in, int depth, f32 (*value_of)(u16))
{
    mma_operands o;
    mma_accumulators c;
    bool halves = in->aux & MMA_AUX_HALVES;
    int a_at = halves ? 2 : 4, a_count = depth / 4;
    read_pairs(&o, w, in, a_at, a_count, value_of);
    read_accumulators(c, w, in, a_at + a_count + a_count / 2, halves);
    multiply(c, &o, depth);
    write_accumulators(c, w, in, halves);
}

#if defined(MMA_HAVE_WIDE)
#define RUN_BF16(depth) mma_wide_run(w, in, (depth) / 8, MMA_BF16)
#define RUN_F16(depth)                                                                             \
    do {                                                                                           \
        if (in->aux & MMA_AUX_HALVES) {                                                            \
            mma_pairs(w, in, depth, f16_to_f32);                                                   \
        } else {                                                                                   \
            mma_wide_run(w, in, (depth) / 8, MMA_F16);                                             \
        }                                                                                          \
    } while (0)
#define RUN_TF32(depth) mma_wide_run(w, in, (depth) / 4, MMA_TF32)
#else

/* tf32: register j of A is rows g + 8 (j % 2), column t + 4 (j / 2); the 13 low bits do not count.
 */
static inline void read_tf32(mma_operands *o, const emu_warp *w, const emu_instr *in, int a_at,
                             int a_count)
{
    for (int j = 0; j < a_count; j++) {
        const u32 *from = REG(const u32, a_at + j);
        for (int lane = 0; lane < IR_LANES; lane++) {
            o->a[j & 1][4 * (j >> 1) + (lane & 3)][lane >> 2] =
                f32_of_bits(from[lane] & 0xffffe000u);
        }
    }
    for (int j = 0; j < a_count / 2; j++) {
        const u32 *from = REG(const u32, a_at + a_count + j);
        for (int lane = 0; lane < IR_LANES; lane++) {
            int n = lane >> 2;
            o->b[4 * j + (lane & 3)][n & 1][n >> 1] = f32_of_bits(from[lane] & 0xffffe000u);
        }
    }
}

static inline void mma_tf32(emu_warp *w, const emu_instr *in, int depth)
{
    mma_operands o;
    mma_accumulators c;
    int a_count = depth / 2;
    read_tf32(&o, w, in, 4, a_count);
    read_accumulators(c, w, in, 4 + a_count + a_count / 2, false);
    multiply(c, &o, depth);
    write_accumulators(c, w, in, false);
}

#define RUN_BF16(depth) mma_pairs(w, in, depth, bf16_to_f32)
#define RUN_F16(depth)  mma_pairs(w, in, depth, f16_to_f32)
#define RUN_TF32(depth) mma_tf32(w, in, depth)
#endif

#define MMA(name, run)                                                                             \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        if (enter_mma(w, in, mask)) {                                                              \
            run;                                                                                   \
        }                                                                                          \
    }
MMA(mma_m16n8k16_bf16, RUN_BF16(16))
MMA(mma_m16n8k8_bf16, RUN_BF16(8))
MMA(mma_m16n8k16_f16, RUN_F16(16))
MMA(mma_m16n8k8_f16, RUN_F16(8))
MMA(mma_m16n8k8_tf32, RUN_TF32(8))
MMA(mma_m16n8k4_tf32, RUN_TF32(4))

/* ---- 8-bit types ---- */

static f32 widen_byte(u8 value, ptx_type type)
{
    switch (type) {
    case TYPE_E4M3:
        return e4m3_to_f32(value);
    case TYPE_E5M2:
        return e5m2_to_f32(value);
    case TYPE_S8:
        return (s8)value;
    default:
        return value;
    }
}

/* Every element as f32: exact for bytes. a[row][k], b[column][k] */
static void read_bytes(f32 a[16][32], f32 b[8][32], const emu_warp *w, const emu_instr *in)
{
    bool deep = in->aux & MMA_AUX_DEEP;
    ptx_type a_type = (ptx_type)(in->aux >> MMA_AUX_A_SHIFT & 0xff),
             b_type = (ptx_type)(in->aux >> MMA_AUX_B_SHIFT & 0xff);
    int a_count = deep ? 4 : 2, b_count = deep ? 2 : 1;
    for (int lane = 0; lane < IR_LANES; lane++) {
        int g = lane >> 2, t = lane & 3;
        for (int i = 0; i < 4 * a_count; i++) {
            int row = g + 8 * (i >> 2 & 1), k = 4 * t + (i & 3) + 16 * (i >> 3);
            a[row][k] = widen_byte(REG(const u8, 4 + (i >> 2))[4 * lane + (i & 3)], a_type);
        }
        for (int i = 0; i < 4 * b_count; i++) {
            int k = 4 * t + (i & 3) + 16 * (i >> 2);
            b[g][k] = widen_byte(REG(const u8, 4 + a_count + (i >> 2))[4 * lane + (i & 3)], b_type);
        }
    }
}

static u32 integer_dot(const f32 *a, const f32 *b, int depth, s32 c, bool saturate)
{
    s64 sum = c;
    for (int k = 0; k < depth; k++) {
        sum += (s64)(s32)a[k] * (s32)b[k];
    }
    if (saturate) {
        sum = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum;
    }
    return (u32)sum;
}

DEFINE_HANDLER(mma_byte)
{
    f32 a[16][32], b[8][32];
    u32 results[4][IR_LANES];
    bool deep = in->aux & MMA_AUX_DEEP, integer = in->aux & MMA_AUX_INTEGERS;
    int depth = deep ? 32 : 16, c_at = deep ? 10 : 7;
    if (!enter_mma(w, in, mask)) {
        return;
    }
    read_bytes(a, b, w, in);
    for (int i = 0; i < 4; i++) {
        const u32 *c = REG(const u32, c_at + i);
        for (int lane = 0; lane < IR_LANES; lane++) {
            const f32 *row = a[(lane >> 2) + 8 * (i >> 1)], *column = b[2 * (lane & 3) + (i & 1)];
            if (integer) {
                results[i][lane] =
                    integer_dot(row, column, depth, (s32)c[lane], in->aux & MMA_AUX_SATURATE);
                continue;
            }
            f32 sum = f32_of_bits(c[lane]);
            for (int k = 0; k < depth; k++) {
                sum = __builtin_fmaf(row[k], column[k], sum);
            }
            results[i][lane] = bits_of_f32(sum);
        }
    }
    for (int i = 0; i < 4; i++) {
        memcpy(REG(u32, i), results[i], sizeof results[i]);
    }
}
