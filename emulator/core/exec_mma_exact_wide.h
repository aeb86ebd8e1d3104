/*
 * exec_mma_exact_wide.h: mma_model.h's sums for whole fragments of 16-bit and tf32 elements, 16 or
 * 8 elements of D at a time in 32-bit lanes; exec_mma.c explains why nothing of C or D moves.
 *
 * A product has at most 27 bits (F = 25) and a sum of 16 and c 33 with its sign, so that it is kept
 * in two halves. Infinities, NaNs and overflow are left to the scalar functions.
 */
#ifndef EMU_EXEC_MMA_EXACT_WIDE_H
#define EMU_EXEC_MMA_EXACT_WIDE_H

#include "exec_mma_exact_vector.h"

#ifdef MMA_HAVE_EXACT_WIDE

#include "exec_mma_exact.h"

enum {
    EXACT_MOST_K = 16,
    EXACT_ZERO = -20000,
    EXACT_B_FRACTION = 13 /* leaves 12 bits or fewer to A: both fit in 16 with a sign */
};

/* Constant arguments must reach the innermost loops. */
#define EXACT_INLINE static inline __attribute__((always_inline))
#define EXACT_UNROLL _Pragma("GCC unroll 16")

typedef struct exact_ints {
    ints significand; /* with its sign */
    ints exponent;    /* of zero: EXACT_ZERO, below every other */
} exact_ints;

typedef struct exact_job {
    mma_format format;
    int depth, block; /* block: products that are summed at once */
    int fraction;
    bool half; /* C and D are f16 */
} exact_job;

/*
 * B[k][column] as [place of k][even columns, then odd ones]. A step is one register of B; in it the
 * even k come first, then the odd ones, as in exact_ints a[]: the order within a sum is free.
 */
typedef struct exact_rows {
    _Alignas(64) s32 significand[EXACT_MOST_K][8];
    _Alignas(64) s32 exponent[EXACT_MOST_K][8];
} exact_rows;

/* sign, exponent field and mantissa bits of a format, in the low bits of a lane */
typedef struct exact_layout {
    int mantissa, bias;
    s32 top; /* the field of infinities and NaNs */
} exact_layout;

/* With `fraction` bits behind the point. `specials` gathers lanes that are no finite numbers. */
EXACT_INLINE exact_ints exact_split(ints bits, exact_layout l, int fraction, ints *specials)
{
    ints one = INTS_ALL(1), zero = INTS_ALL(0);
    ints field = INTS_AND(INTS_RIGHT(bits, l.mantissa), INTS_ALL(l.top));
    ints mantissa = INTS_AND(bits, INTS_ALL((1 << l.mantissa) - 1));
    ints implicit = INTS_IF_EQUAL(field, zero, zero, INTS_ALL(1 << l.mantissa));
    ints magnitude = INTS_OR(mantissa, implicit);
    ints negative =
        INTS_SUB(zero, INTS_AND(INTS_RIGHT(bits, l.top == 0x1f ? 15 : l.mantissa + 8), one));
    ints exponent = INTS_SUB(INTS_MAX(field, one), INTS_ALL(l.bias));
    *specials = INTS_OR(*specials, INTS_IF_EQUAL(field, INTS_ALL(l.top), one, zero));
    exponent = INTS_IF_EQUAL(magnitude, zero, INTS_ALL(EXACT_ZERO), exponent);
    magnitude = INTS_LEFT(magnitude, fraction - l.mantissa);
    return (exact_ints){INTS_SUB(INTS_XOR(magnitude, negative), negative), exponent};
}

EXACT_INLINE exact_layout exact_layout_of(mma_format format)
{
    return format == MMA_FORMAT_F16    ? (exact_layout){10, 15, 0x1f}
           : format == MMA_FORMAT_BF16 ? (exact_layout){7, 127, 0xff}
                                       : (exact_layout){10, 127, 0xff};
}

/* Element `word` of the lanes of a register. */
EXACT_INLINE ints exact_element(ints bits, mma_format format, int word)
{
    return format == MMA_FORMAT_TF32 ? INTS_RIGHT(bits, 13) : word ? INTS_RIGHT(bits, 16) : bits;
}

/* value 2^-right, towards zero: of a negative number the complement is shifted, which rounds its
 * magnitude down. */
EXACT_INLINE ints exact_shift(ints value, ints right)
{
    ints sign = INTS_RIGHT_SIGNED(value, 31);
    return INTS_SUB(INTS_RIGHT_SIGNED_EACH(INTS_ADD(value, sign), right), sign);
}

/*
 * The position of the first bit of a number below 2^32; 0 for 0. One too high where 24 bits and
 * more are ones and rounding carries: what exact_encode makes of that is the same.
 */
EXACT_INLINE ints exact_top_bit(ints magnitude)
{
    ints bits = INTS_TO_FLOAT_BITS(INTS_RIGHT(magnitude, 1));
    return INTS_MAX(INTS_SUB(INTS_RIGHT(bits, 23), INTS_ALL(126)), INTS_ALL(0));
}

/*
 * The magnitude times 2^unit as fp32, cut off, or as f16, to nearest, without a sign. `specials`:
 * it is too large. (What only rounds up to infinity is one.)
 */
EXACT_INLINE ints exact_encode(ints magnitude, ints unit, bool half, ints *specials)
{
    const int kept = half ? 10 : 23, least = half ? -14 : -126, most = half ? 15 : 127;
    ints zero = INTS_ALL(0), one = INTS_ALL(1);
    ints exponent = INTS_ADD(exact_top_bit(magnitude), unit);
    *specials = INTS_OR(*specials, INTS_IF_GREATER(exponent, INTS_ALL(most), one, zero));
    exponent = INTS_MAX(exponent, INTS_ALL(least));
    ints drop = INTS_SUB(INTS_SUB(exponent, INTS_ALL(kept)), unit);
    ints right = INTS_MAX(drop, zero), left = INTS_MAX(INTS_SUB(zero, drop), zero);
    if (half) {
        ints odd = INTS_AND(INTS_RIGHT_EACH(magnitude, right), one);
        ints up = INTS_ADD(INTS_SUB(INTS_LEFT_EACH(one, INTS_SUB(right, one)), one), odd);
        magnitude = INTS_ADD(magnitude, INTS_IF_GREATER(right, zero, up, zero));
    }
    ints mantissa = INTS_LEFT_EACH(INTS_RIGHT_EACH(magnitude, right), left);
    ints result = INTS_ADD(mantissa, INTS_LEFT(INTS_SUB(exponent, INTS_ALL(least)), kept));
    return INTS_IF_EQUAL(magnitude, zero, zero, result);
}

/* c and a block of products of a and the rows of b: the bits of the sum. */
EXACT_INLINE ints exact_block(ints c_bits, const exact_ints *a, const exact_rows *b, int first,
                              int odd, const exact_job *job, ints *specials)
{
    const exact_layout c_layout =
        job->half ? (exact_layout){10, 15, 0x1f} : (exact_layout){23, 127, 0xff};
    ints exponents[EXACT_MOST_K];
    exact_ints c = exact_split(c_bits, c_layout, job->fraction, specials);
    ints largest = INTS_MAX(c.exponent, INTS_ALL(MMA_LEAST_EXPONENT));
    EXACT_UNROLL
    for (int k = 0; k < job->block; k++) {
        exponents[k] =
            INTS_ADD(a[first + k].exponent, INTS_REPEAT(b->exponent[first + k] + 4 * odd));
        largest = INTS_MAX(largest, exponents[k]);
    }
    ints sums[2] = {INTS_ALL(0), exact_shift(c.significand, INTS_SUB(largest, c.exponent))};
    EXACT_UNROLL
    for (int k = 0; k < job->block; k++) {
        ints product =
            INTS_MUL_16(a[first + k].significand, INTS_REPEAT(b->significand[first + k] + 4 * odd));
        ints *sum = &sums[k & 1];
        *sum = INTS_ADD(*sum, exact_shift(product, INTS_SUB(largest, exponents[k])));
    }
    /* half of the sum has its sign, and the sum itself its magnitude */
    ints carry = INTS_AND(INTS_AND(sums[0], sums[1]), INTS_ALL(1));
    ints half_sum =
        INTS_ADD(INTS_ADD(INTS_RIGHT_SIGNED(sums[0], 1), INTS_RIGHT_SIGNED(sums[1], 1)), carry);
    ints negative = INTS_RIGHT_SIGNED(half_sum, 31);
    ints magnitude = INTS_SUB(INTS_XOR(INTS_ADD(sums[0], sums[1]), negative), negative);
    ints unit = INTS_SUB(largest, INTS_ALL(job->fraction));
    ints result = exact_encode(magnitude, unit, job->half, specials);
    return INTS_OR(result, INTS_LEFT(negative, job->half ? 15 : 31));
}

/* One register of B: its eight columns, even ones first, for each place in a step. */
EXACT_INLINE void exact_read_b(exact_rows *b, int step, const u32 *from, mma_format format,
                               ints *specials)
{
    const int words = format == MMA_FORMAT_TF32 ? 1 : 2;
    for (int t = 0; t < 4; t += INTS_LANES / 8) {
        ints columns = ints_columns(from, t);
        for (int word = 0; word < words; word++) {
            ints bits = exact_element(columns, format, word);
            exact_ints split =
                exact_split(bits, exact_layout_of(format), EXACT_B_FRACTION, specials);
            int place = 4 * (words * step + word) + t;
            INTS_STORE(b->significand[place], INTS_AND(split.significand, INTS_ALL(0xffff)));
            INTS_STORE(b->exponent[place], split.exponent);
        }
    }
}

#define EXACT_SPREAD(t)                                                                            \
    a[4 * word + (t)] = (exact_ints)                                                               \
    {                                                                                              \
        INTS_SPREAD(split.significand, t), INTS_SPREAD(split.exponent, t)                          \
    }

/* The lanes of one register of A, each row repeated over its columns. */
EXACT_INLINE void exact_read_a(exact_ints *a, const u32 *from, mma_format format, int fraction,
                               ints *specials)
{
    const int words = format == MMA_FORMAT_TF32 ? 1 : 2;
    for (int word = 0; word < words; word++) {
        ints bits = exact_element(INTS_LOAD(from), format, word);
        exact_ints split = exact_split(bits, exact_layout_of(format), fraction, specials);
        EXACT_SPREAD(0);
        EXACT_SPREAD(1);
        EXACT_SPREAD(2);
        EXACT_SPREAD(3);
    }
}

/* False: nothing was written, for some number is not finite. Everything but `fraction` is constant
 * where this is called. */
EXACT_INLINE bool exact_wide_multiply(const exact_product *p, exact_job job)
{
    exact_rows b;
    _Alignas(64) u32 d[4][IR_LANES];
    const int words = job.format == MMA_FORMAT_TF32 ? 1 : 2, steps = job.depth / (4 * words);
    ints specials = INTS_ALL(0);
    for (int step = 0; step < steps; step++) {
        exact_read_b(&b, step, p->b[step], job.format, &specials);
    }
    for (int rows = 0; rows < 2; rows++) {
        for (int lane = 0; lane < IR_LANES; lane += INTS_LANES) {
            exact_ints a[EXACT_MOST_K];
            for (int step = 0; step < steps; step++) {
                exact_read_a(a + 4 * words * step, p->a[2 * step + rows] + lane, job.format,
                             job.fraction - EXACT_B_FRACTION, &specials);
            }
            for (int odd = 0; odd < 2; odd++) {
                int i = 2 * rows + odd;
                ints sum = INTS_LOAD(p->c[job.half ? rows : i] + lane);
                if (job.half && odd) {
                    sum = INTS_RIGHT(sum, 16);
                }
                for (int k = 0; k < job.depth; k += job.block) {
                    sum = exact_block(sum, a, &b, k, odd, &job, &specials);
                }
                INTS_STORE(d[i] + lane, sum);
            }
        }
    }
    if (INTS_ANY(specials)) {
        return false;
    }
    for (int i = 0; i < 4; i += job.half ? 2 : 1) {
        u32 *to = p->d[job.half ? i / 2 : i];
        for (int lane = 0; lane < IR_LANES; lane++) {
            to[lane] = job.half ? (d[i][lane] & 0xffff) | d[i + 1][lane] << 16 : d[i][lane];
        }
    }
    return true;
}

EXACT_INLINE bool exact_wide_run(const exact_product *p, mma_format format, int depth, bool half)
{
    exact_job whole = {format, depth, depth, p->model->fraction, half};
    exact_job halves = {format, depth, depth / 2, p->model->fraction, half};
    if (p->model->block >= depth) {
        return exact_wide_multiply(p, whole);
    }
    return p->model->block == depth / 2 && exact_wide_multiply(p, halves);
}

#endif
#endif
