/*
 * exec_mma_wide.h: mma.sync for 16-bit and tf32 fragments with f32 accumulators, in AVX-512 or AVX2
 * registers; see exec_mma.c for the layouts. A is spread over the columns by a shuffle within 128
 * bits, B over the rows by a repeating load. Defines MMA_HAVE_WIDE where it can.
 */
#ifndef EMU_EXEC_MMA_WIDE_H
#define EMU_EXEC_MMA_WIDE_H

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define MMA_HAVE_WIDE

#include <immintrin.h>

#include "exec_lanes.h"

typedef enum mma_kind { MMA_BF16, MMA_F16, MMA_TF32 } mma_kind;

/* B[k][column] as b[k][8]: the even columns, then the odd ones. */
enum { MMA_ROW = 8 };

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)

typedef __m512 vec;
typedef __m512i vec_bits;
enum { MMA_PARTS = 2 }; /* registers for 32 lanes */
#define VEC_LOAD(from)            _mm512_load_ps(from)
#define VEC_LOAD_BITS(from)       _mm512_load_si512(from)
#define VEC_STORE(to, value)      _mm512_store_ps(to, value)
#define VEC_ZERO                  _mm512_setzero_ps()
#define VEC_REPEAT(from)          _mm512_broadcast_f32x4(_mm_load_ps(from))
#define VEC_SPREAD(value, column) _mm512_permute_ps(value, (column)*0x55)
#define VEC_FMA(a, b, c)          _mm512_fmadd_ps(a, b, c)

/* Element `word` of every 32-bit lane as f32; tf32 has one, whose 13 low bits do not count. */
static inline vec widen(vec_bits bits, mma_kind kind, int word)
{
    if (kind == MMA_F16) {
        return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(word ? _mm512_srli_epi32(bits, 16) : bits));
    }
    if (kind == MMA_BF16 && word == 0) {
        return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
    }
    const int keep = kind == MMA_BF16 ? (int)0xffff0000 : (int)0xffffe000;
    return _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(keep)));
}

/* One register of B, lane 4n + t, to rows of b: row words * t + word. */
static inline void spread_b(const u32 *from, f32 *to, mma_kind kind)
{
    const __m512i first =
        _mm512_setr_epi32(0, 8, 16, 24, 4, 12, 20, 28, 1, 9, 17, 25, 5, 13, 21, 29);
    const int words = kind == MMA_TF32 ? 1 : 2;
    __m512i low = _mm512_load_si512(from), high = _mm512_load_si512(from + 16);
    for (int t = 0; t < 4; t += 2) {
        __m512i index = _mm512_add_epi32(first, _mm512_set1_epi32(t));
        __m512i two = _mm512_permutex2var_epi32(low, index, high); /* columns of t, then of t + 1 */
        for (int word = 0; word < words; word++) {
            __m512 values = widen(two, kind, word);
            _mm256_store_ps(to + MMA_ROW * (words * t + word), _mm512_castps512_ps256(values));
            _mm256_store_ps(to + MMA_ROW * (words * (t + 1) + word),
                            _mm512_extractf32x8_ps(values, 1));
        }
    }
}

#else

typedef __m256 vec;
typedef __m256i vec_bits;
enum { MMA_PARTS = 4 };
#define VEC_LOAD(from)            _mm256_load_ps(from)
#define VEC_LOAD_BITS(from)       _mm256_load_si256((const __m256i *)(const void *)(from))
#define VEC_STORE(to, value)      _mm256_store_ps(to, value)
#define VEC_ZERO                  _mm256_setzero_ps()
#define VEC_REPEAT(from)          _mm256_broadcast_ps((const __m128 *)(const void *)(from))
#define VEC_SPREAD(value, column) _mm256_permute_ps(value, (column)*0x55)
#define VEC_FMA(a, b, c)          _mm256_fmadd_ps(a, b, c)

static inline vec widen(vec_bits bits, mma_kind kind, int word)
{
    if (kind == MMA_F16) {
        __m256i half =
            word ? _mm256_srli_epi32(bits, 16) : _mm256_and_si256(bits, _mm256_set1_epi32(0xffff));
        __m256i packed = _mm256_packus_epi32(half, half);
        return _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08)));
    }
    if (kind == MMA_BF16 && word == 0) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
    }
    const int keep = kind == MMA_BF16 ? (int)0xffff0000 : (int)0xffffe000;
    return _mm256_castsi256_ps(_mm256_and_si256(bits, _mm256_set1_epi32(keep)));
}

static inline void spread_b(const u32 *from, f32 *to, mma_kind kind)
{
    const int words = kind == MMA_TF32 ? 1 : 2;
    __m128i rows[2][4];
    for (int odd = 0; odd < 2; odd++) {
        __m128i n[4];
        for (int i = 0; i < 4; i++) {
            n[i] = _mm_load_si128((const __m128i *)(const void *)(from + 4 * (2 * i + odd)));
        }
        __m128i a = _mm_unpacklo_epi32(n[0], n[1]), b = _mm_unpacklo_epi32(n[2], n[3]);
        __m128i c = _mm_unpackhi_epi32(n[0], n[1]), e = _mm_unpackhi_epi32(n[2], n[3]);
        rows[odd][0] = _mm_unpacklo_epi64(a, b);
        rows[odd][1] = _mm_unpackhi_epi64(a, b);
        rows[odd][2] = _mm_unpacklo_epi64(c, e);
        rows[odd][3] = _mm_unpackhi_epi64(c, e);
    }
    for (int t = 0; t < 4; t++) {
        __m256i row = _mm256_inserti128_si256(_mm256_castsi128_si256(rows[0][t]), rows[1][t], 1);
        for (int word = 0; word < words; word++) {
            _mm256_store_ps(to + MMA_ROW * (words * t + word), widen(row, kind, word));
        }
    }
}

#endif

typedef struct mma_wide {
    const f32 *a_registers[4], *c_registers[4];
    f32 *d_registers[4];
    int steps; /* pairs of A registers (upper and lower rows), registers of B */
} mma_wide;

#define MMA_STEP(column)                                                                           \
    for (int word = 0; word < words; word++) {                                                     \
        const f32 *row = b + MMA_ROW * (words * (column) + word);                                  \
        vec even = VEC_REPEAT(row), odd = VEC_REPEAT(row + 4);                                     \
        for (int half = first; half < last; half++) {                                              \
            for (int part = 0; part < MMA_PARTS; part++) {                                         \
                vec repeated = VEC_SPREAD(a[word][half][part], column);                            \
                c[half][0][part] = VEC_FMA(repeated, even, c[half][0][part]);                      \
                c[half][1][part] = VEC_FMA(repeated, odd, c[half][1][part]);                       \
            }                                                                                      \
        }                                                                                          \
    }

/* Rows 8 half .. 8 half + 7 for first <= half < last. */
static inline __attribute__((always_inline)) void mma_rows(const mma_wide *m, const f32 *b_rows,
                                                           mma_kind kind, int first, int last)
{
    const int words = kind == MMA_TF32 ? 1 : 2, lanes = IR_LANES / MMA_PARTS;
    vec c[2][2][MMA_PARTS], a[2][2][MMA_PARTS];
    for (int half = first; half < last; half++) {
        for (int part = 0; part < MMA_PARTS; part++) {
            c[half][0][part] = VEC_LOAD(m->c_registers[2 * half] + lanes * part);
            c[half][1][part] = VEC_LOAD(m->c_registers[2 * half + 1] + lanes * part);
        }
    }
    for (int step = 0; step < m->steps; step++) {
        const f32 *b = b_rows + MMA_ROW * 4 * words * step;
        for (int half = first; half < last; half++) {
            for (int part = 0; part < MMA_PARTS; part++) {
                vec_bits bits = VEC_LOAD_BITS(m->a_registers[2 * step + half] + lanes * part);
                for (int word = 0; word < words; word++) {
                    a[word][half][part] = widen(bits, kind, word);
                }
            }
        }
        MMA_STEP(0)
        MMA_STEP(1)
        MMA_STEP(2)
        MMA_STEP(3)
    }
    for (int half = first; half < last; half++) {
        for (int part = 0; part < MMA_PARTS; part++) {
            VEC_STORE(m->d_registers[2 * half] + lanes * part, c[half][0][part]);
            VEC_STORE(m->d_registers[2 * half + 1] + lanes * part, c[half][1][part]);
        }
    }
}

/* r: four of D, 2 steps of A, steps of B, four of C */
static inline __attribute__((always_inline)) void mma_wide_run(emu_warp *w, const emu_instr *in,
                                                               int steps, mma_kind kind)
{
    _Alignas(64) f32 b[16 * MMA_ROW];
    mma_wide m = {.steps = steps};
    const int words = kind == MMA_TF32 ? 1 : 2;
    for (int i = 0; i < 4; i++) {
        m.c_registers[i] = REG(const f32, 4 + 3 * steps + i);
        m.d_registers[i] = REG(f32, i);
    }
    for (int i = 0; i < 2 * steps; i++) {
        m.a_registers[i] = REG(const f32, 4 + i);
    }
    for (int step = 0; step < steps; step++) {
        spread_b(REG(const u32, 4 + 2 * steps + step), b + MMA_ROW * 4 * words * step, kind);
    }
    if (MMA_PARTS == 2) {
        mma_rows(&m, b, kind, 0, 2);
        return;
    }
    /* AVX2 has registers for half of the rows; D must not overwrite what the other half reads */
    f32 upper[2][IR_LANES] __attribute__((aligned(64)));
    f32 *const d[2] = {m.d_registers[0], m.d_registers[1]};
    m.d_registers[0] = upper[0];
    m.d_registers[1] = upper[1];
    mma_rows(&m, b, kind, 0, 1);
    mma_rows(&m, b, kind, 1, 2);
    memcpy(d[0], upper[0], sizeof upper[0]);
    memcpy(d[1], upper[1], sizeof upper[1]);
}

#endif
#endif
