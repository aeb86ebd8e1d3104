/*
 * exec_wgmma.c: the arithmetic of wgmma.mma_async. A warp has 16 rows of D: register i of lane 4g +
 * t is row g + 8 (i / 2 % 2), column 8 (i / 4) + 2t + i % 2, as in mma.sync, four registers for
 * every eight columns. Elements of A and B become f32, A spread over the columns and B repeated
 * over the rows (exec_mma.c), so that D = A B + D is one chain of fused multiply-adds per element,
 * k ascending, and no element of D changes place. Whole numbers of a product are exact in f32.
 */
#include "exec_lanes.h"
#include "exec_mma_exact.h"
#include "exec_mma_wide.h"
#include "exec_transpose.h"
#include "machine.h"
#include "wgmma.h"

enum {
    MOST_K = 32,
    MOST_BLOCKS = WGMMA_MOST_COLUMNS / 8,
    BLOCK_REGISTERS = 4, /* of D, for eight columns */
    MOST_D = BLOCK_REGISTERS * MOST_BLOCKS,
};

/* 8 rows of 16 bytes along k: a register of mma.sync, lane 4 row + t. */
typedef struct fragment {
    _Alignas(64) u32 words[IR_LANES];
} fragment;

/* Elements as f32. */
typedef struct wide_a {
    _Alignas(64) f32 k[MOST_K][2][IR_LANES]; /* rows g, then g + 8 */
} wide_a;
typedef struct wide_b {
    _Alignas(64) f32 k[MOST_K][8]; /* even columns, then odd ones */
} wide_b;

typedef struct wgmma_job {
    u32 blocks, depth;
    u32 per_word; /* elements of 32 bits */
    ptx_type d, a, b;
    u32 signs;              /* of the elements of a word, where A B is negated */
    const mma_model *model; /* NULL: a chain of fused multiply-adds */
} wgmma_job;

static const mma_model *model_of(const emu_warp *w, ptx_type d, ptx_type a)
{
    mma_unit unit = a == TYPE_TF32                    ? MMA_UNIT_TF32
                    : a == TYPE_BF16 || a == TYPE_F16 ? MMA_UNIT_16
                                                      : MMA_UNIT_FP8_WGMMA;
    return d == TYPE_S32 ? NULL : mma_model_of(w->block->grid->machine->tensor_cores, unit);
}

static wgmma_job read_job(const emu_warp *w, const emu_instr *in)
{
    static const u32 signs[] = {[1] = 0x80000000u, [2] = 0x80008000u, [4] = 0x80808080u};
    wgmma_job job = {.blocks = wgmma_columns(in) / 8,
                     .depth = 8 * (in->aux >> WGMMA_K8_SHIFT & 7),
                     .d = wgmma_type(in, WGMMA_D_SHIFT),
                     .a = wgmma_type(in, WGMMA_A_SHIFT),
                     .b = wgmma_type(in, WGMMA_B_SHIFT)};
    bool negates = !(in->imm & WGMMA_A_NEGATED) != !(in->imm & WGMMA_B_NEGATED);
    job.per_word = job.depth * 4 / WGMMA_K_BYTES;
    job.signs = negates ? signs[job.per_word] : 0;
    job.model = model_of(w, job.d, job.a);
    return job;
}

/* ---- operands -------------------------------------------------------------------------------- */

/* Two fragments, along k, for each block of 8 rows. */
static void fetch(fragment (*to)[2], const u8 *shared, const wgmma_tile *tile)
{
    for (u32 block = 0; block < tile->rows / 8; block++) {
        for (u32 half = 0; half < 2; half++) {
            u8 rows[8 * ROW_BYTES], *at = tile->transposed ? rows : (u8 *)to[block][half].words;
            for (u32 i = 0; i < 8; i++) {
                memcpy(at + i * ROW_BYTES, shared + wgmma_chunk_at(tile, block, half, i),
                       ROW_BYTES);
            }
            if (tile->transposed) {
                transpose(rows, (u8 *)to[block][half].words);
            }
        }
    }
}

static inline f32 widen_element(u32 bits, ptx_type type)
{
    switch (type) {
    case TYPE_BF16:
        return bf16_to_f32((u16)bits);
    case TYPE_F16:
        return f16_to_f32((u16)bits);
    case TYPE_TF32:
        return f32_of_bits(bits & 0xffffe000u); /* the low bits do not count */
    case TYPE_E4M3:
        return e4m3_to_f32((u8)bits);
    case TYPE_E5M2:
        return e5m2_to_f32((u8)bits);
    case TYPE_S8:
        return (s8)bits;
    default:
        return (u8)bits;
    }
}

/* The element that lies `shift` bits up in every word. */
#define WIDEN_LANES(type)                                                                          \
    case type:                                                                                     \
        for (int i = 0; i < IR_LANES; i++) {                                                       \
            to[i] = widen_element(from[i] >> shift, type);                                         \
        }                                                                                          \
        break;
#ifdef MMA_HAVE_WIDE
#define WIDEN(type, kind)                                                                          \
    case type:                                                                                     \
        for (int i = 0; i < IR_LANES; i += IR_LANES / MMA_PARTS) {                                 \
            VEC_STORE(to + i, widen(VEC_LOAD_BITS(from + i), kind, shift != 0));                   \
        }                                                                                          \
        break;
#else
#define WIDEN(type, kind) WIDEN_LANES(type)
#endif
static void widen_words(f32 *restrict to, const u32 *restrict from, ptx_type type, u32 shift)
{
    switch (type) {
        WIDEN(TYPE_BF16, MMA_BF16)
        WIDEN(TYPE_F16, MMA_F16)
        WIDEN(TYPE_TF32, MMA_TF32)
        WIDEN_LANES(TYPE_E4M3)
        WIDEN_LANES(TYPE_E5M2)
        WIDEN_LANES(TYPE_S8)
        WIDEN_LANES(TYPE_U8)
    default:
        break;
    }
}
#undef WIDEN
#undef WIDEN_LANES

/* A value of every fourth lane, the t-th, for all four. */
#ifdef MMA_HAVE_WIDE
#define SPREAD(to, values, t)                                                                      \
    for (int i = 0; i < IR_LANES; i += IR_LANES / MMA_PARTS) {                                     \
        VEC_STORE((to) + i, VEC_SPREAD(VEC_LOAD((values) + i), t));                                \
    }
#else
#define SPREAD(to, values, t)                                                                      \
    for (int i = 0; i < IR_LANES; i++) {                                                           \
        (to)[i] = (values)[(i & ~3) + (t)];                                                        \
    }
#endif

/* One fragment of A: row 0 or 1 of two, from k on. */
static void widen_a(wide_a *to, const u32 *from, u32 row, u32 k, const wgmma_job *job)
{
    for (u32 e = 0; e < job->per_word; e++) {
        _Alignas(64) f32 values[IR_LANES];
        widen_words(values, from, job->a, e * 32 / job->per_word);
        SPREAD(to->k[k + e][row], values, 0)
        SPREAD(to->k[k + job->per_word + e][row], values, 1)
        SPREAD(to->k[k + 2 * job->per_word + e][row], values, 2)
        SPREAD(to->k[k + 3 * job->per_word + e][row], values, 3)
    }
}
#undef SPREAD

static void widen_b(wide_b *to, const u32 *from, u32 k, const wgmma_job *job)
{
#ifdef MMA_HAVE_WIDE
    if (job->b == TYPE_BF16) {
        spread_b(from, to->k[k], MMA_BF16);
        return;
    }
    if (job->b == TYPE_F16) {
        spread_b(from, to->k[k], MMA_F16);
        return;
    }
#endif
    for (u32 e = 0; e < job->per_word; e++) {
        _Alignas(64) f32 values[IR_LANES];
        widen_words(values, from, job->b, e * 32 / job->per_word);
        for (u32 t = 0; t < 4; t++) {
            f32 *columns = to->k[k + t * job->per_word + e];
            for (u32 n = 0; n < 8; n++) {
                columns[4 * (n & 1) + n / 2] = values[4 * n + t];
            }
        }
    }
}

/* ---- the chain ------------------------------------------------------------------------------- */

#ifdef MMA_HAVE_WIDE
/* Rows 8 first .. 8 last - 1 of `blocks` blocks, whose accumulators are in host registers. */
static inline __attribute__((always_inline)) void multiply_blocks(f32 *const *d, const wide_a *a,
                                                                  const wide_b *b, u32 depth,
                                                                  bool adds, int blocks, int first,
                                                                  int last)
{
    const int lanes = IR_LANES / MMA_PARTS;
    vec c[2][2][2][MMA_PARTS], rows[2][MMA_PARTS];
    for (int j = 0; j < blocks; j++) {
        for (int half = first; half < last; half++) {
            for (int part = 0; part < MMA_PARTS; part++) {
                for (int odd = 0; odd < 2; odd++) {
                    const f32 *from = d[BLOCK_REGISTERS * j + 2 * half + odd] + lanes * part;
                    c[j][half][odd][part] = adds ? VEC_LOAD(from) : VEC_ZERO;
                }
            }
        }
    }
    for (u32 k = 0; k < depth; k++) {
        for (int half = first; half < last; half++) {
            for (int part = 0; part < MMA_PARTS; part++) {
                rows[half][part] = VEC_LOAD(a->k[k][half] + lanes * part);
            }
        }
        for (int j = 0; j < blocks; j++) {
            for (int odd = 0; odd < 2; odd++) {
                vec columns = VEC_REPEAT(b[j].k[k] + 4 * odd);
                for (int half = first; half < last; half++) {
                    for (int part = 0; part < MMA_PARTS; part++) {
                        c[j][half][odd][part] =
                            VEC_FMA(rows[half][part], columns, c[j][half][odd][part]);
                    }
                }
            }
        }
    }
    for (int j = 0; j < blocks; j++) {
        for (int half = first; half < last; half++) {
            for (int part = 0; part < MMA_PARTS; part++) {
                for (int odd = 0; odd < 2; odd++) {
                    f32 *to = d[BLOCK_REGISTERS * j + 2 * half + odd] + lanes * part;
                    VEC_STORE(to, c[j][half][odd][part]);
                }
            }
        }
    }
}

/* AVX2 has host registers for half of a block's rows, AVX-512 for two blocks. */
static void multiply(f32 *const *d, const wide_a *a, const wide_b *b, u32 blocks, u32 depth,
                     bool adds)
{
    u32 j = 0;
    for (; MMA_PARTS == 2 && j + 2 <= blocks; j += 2) {
        multiply_blocks(d + BLOCK_REGISTERS * j, a, b + j, depth, adds, 2, 0, 2);
    }
    for (; j < blocks; j++) {
        multiply_blocks(d + BLOCK_REGISTERS * j, a, b + j, depth, adds, 1, 0, 1);
        multiply_blocks(d + BLOCK_REGISTERS * j, a, b + j, depth, adds, 1, 1, 2);
    }
}
#else
static void multiply(f32 *const *d, const wide_a *a, const wide_b *b, u32 blocks, u32 depth,
                     bool adds)
{
    for (u32 i = 0; i < BLOCK_REGISTERS * blocks; i++) {
        for (u32 lane = 0; lane < IR_LANES; lane++) {
            f32 sum = adds ? d[i][lane] : 0;
            for (u32 k = 0; k < depth; k++) {
                f32 column = b[i / BLOCK_REGISTERS].k[k][4 * (i & 1) + (lane & 3)];
                sum = __builtin_fmaf(a->k[k][i >> 1 & 1][lane], column, sum);
            }
            d[i][lane] = sum;
        }
    }
}
#endif

/* ---- accumulators ---------------------------------------------------------------------------- */

/* D as f32: its registers themselves, or a copy. */
typedef struct accumulators {
    _Alignas(64) f32 copy[MOST_D][IR_LANES];
    f32 *d[MOST_D];
} accumulators;

#define D_REGISTER(type, i) ((type *)(void *)(w->registers + list[i]))

static void begin_accumulators(accumulators *c, emu_warp *w, const u32 *list, const wgmma_job *job)
{
    for (u32 i = 0; i < BLOCK_REGISTERS * job->blocks; i++) {
        c->d[i] = job->d == TYPE_F32 ? D_REGISTER(f32, i) : c->copy[i];
        for (u32 lane = 0; job->d == TYPE_F16 && lane < IR_LANES; lane++) {
            c->copy[i][lane] = f16_to_f32(D_REGISTER(u16, i / 2)[2 * lane + (i & 1)]);
        }
    }
}

static u32 add_integers(u32 d, f32 product, bool saturates)
{
    s64 sum = (s64)(s32)d + (s64)product;
    if (saturates) {
        sum = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum;
    }
    return (u32)sum;
}

static void end_accumulators(const accumulators *c, emu_warp *w, const u32 *list,
                             const wgmma_job *job, const wgmma_op *op)
{
    for (u32 i = 0; i < BLOCK_REGISTERS * job->blocks && job->d != TYPE_F32; i++) {
        for (u32 lane = 0; lane < IR_LANES; lane++) {
            f32 value = c->copy[i][lane];
            if (job->d == TYPE_F16) {
                D_REGISTER(u16, i / 2)[2 * lane + (i & 1)] = f32_to_f16(value);
            } else {
                u32 *d = &D_REGISTER(u32, i)[lane];
                *d = add_integers(op->adds ? *d : 0, value, op->in->imm & WGMMA_SATURATES);
            }
        }
    }
}

/* ---- a product ------------------------------------------------------------------------------- */

/* A of one warp as mma.sync has it: of registers, or its part of the tile's. */
static void gather_a(fragment to[4], const emu_warp *w, const wgmma_op *op, const wgmma_job *job,
                     const fragment (*tile)[2])
{
    const u32 *a_list = wgmma_list(w, op->in) + wgmma_d_registers(op->in);
    for (u32 j = 0; j < 4; j++) {
        const u32 *from = op->in->imm & WGMMA_A_REGISTERS
                              ? (const u32 *)(const void *)(w->registers + a_list[j])
                              : tile[2 * (w->index % WARPGROUP) + (int)j % 2][j / 2].words;
        for (int i = 0; i < IR_LANES; i++) {
            to[j].words[i] = from[i] ^ job->signs;
        }
    }
}

static void multiply_fast(emu_warp *w, const wgmma_op *op, const wgmma_job *job,
                          const fragment rows[4], const wide_b *b)
{
    wide_a a;
    accumulators c;
    const u32 *list = wgmma_list(w, op->in);
    for (u32 j = 0; j < 4; j++) {
        widen_a(&a, rows[j].words, j % 2, j / 2 * job->depth / 2, job);
    }
    begin_accumulators(&c, w, list, job);
    multiply(c.d, &a, b, job->blocks, job->depth, op->adds && job->d != TYPE_S32);
    end_accumulators(&c, w, list, job, op);
}

static mma_format format_of(ptx_type type)
{
    return type == TYPE_BF16   ? MMA_FORMAT_BF16
           : type == TYPE_F16  ? MMA_FORMAT_F16
           : type == TYPE_TF32 ? MMA_FORMAT_TF32
           : type == TYPE_E4M3 ? MMA_FORMAT_E4M3
                               : MMA_FORMAT_E5M2;
}

static void multiply_exact(emu_warp *w, const wgmma_op *op, const wgmma_job *job,
                           const fragment rows[4], const fragment (*b)[2])
{
    static const fragment zeros;
    const u32 *list = wgmma_list(w, op->in);
    exact_product p = {.model = job->model,
                       .a_format = format_of(job->a),
                       .b_format = format_of(job->b),
                       .depth = (int)job->depth,
                       .half = job->d == TYPE_F16,
                       .a = {rows[0].words, rows[1].words, rows[2].words, rows[3].words}};
    u32 count = p.half ? 2 : BLOCK_REGISTERS;
    for (u32 j = 0; j < job->blocks; j++) {
        p.b[0] = b[j][0].words;
        p.b[1] = b[j][1].words;
        for (u32 i = 0; i < count; i++) {
            p.d[i] = D_REGISTER(u32, count * j + i);
            p.c[i] = op->adds ? p.d[i] : zeros.words;
        }
        ISA(exact_multiply)(&p);
    }
}

static void execute(emu_warp *warps, const wgmma_op *op)
{
    static _Thread_local wide_b b[MOST_BLOCKS];
    fragment a_tile[WGMMA_ROWS / 8][2], b_tile[MOST_BLOCKS][2], rows[4];
    wgmma_job job = read_job(warps, op->in);
    if (!(op->in->imm & WGMMA_A_REGISTERS)) {
        fetch(a_tile, warps->block->shared, &op->tiles[0]);
    }
    fetch(b_tile, warps->block->shared, &op->tiles[1]);
    for (u32 i = 0; i < 2 * job.blocks && !job.model; i++) {
        widen_b(&b[i / 2], b_tile[i / 2][i % 2].words, i % 2 * job.depth / 2, &job);
    }
    for (int i = 0; i < WARPGROUP; i++) {
        gather_a(rows, &warps[i], op, &job, (const fragment(*)[2])a_tile);
        if (job.model) {
            multiply_exact(&warps[i], op, &job, rows, (const fragment(*)[2])b_tile);
        } else {
            multiply_fast(&warps[i], op, &job, rows, b);
        }
    }
}

DEFINE_HANDLER(wgmma)
{
    wgmma_issue(w, in, mask, execute);
}

DEFINE_HANDLER(wgmma_fence)
{
    wgmma_fence(w, in, mask);
}

DEFINE_HANDLER(wgmma_commit)
{
    wgmma_commit(w, in, mask);
}

DEFINE_HANDLER(wgmma_wait)
{
    wgmma_wait(w, in, mask);
}

DEFINE_HANDLER(setmaxnreg)
{
    setmaxnreg_run(w, in, mask);
}
