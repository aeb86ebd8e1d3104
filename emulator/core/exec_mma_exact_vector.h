/*
 * exec_mma_exact_vector.h: the integer operations of exec_mma_exact_wide.h on 16 lanes (AVX-512) or
 * 8 (AVX2). Defines MMA_HAVE_EXACT_WIDE where it can. Shifts by 32 or more give 0, or copies of the
 * sign. INTS_MUL_16 multiplies the low 16 bits, signed, where b has none above them.
 */
#ifndef EMU_EXEC_MMA_EXACT_VECTOR_H
#define EMU_EXEC_MMA_EXACT_VECTOR_H

#if defined(__AVX2__)
#define MMA_HAVE_EXACT_WIDE

#include <immintrin.h>

#include "lane_types.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)

typedef __m512i ints;
enum { INTS_LANES = 16 };
#define INTS_LOAD(from)                   _mm512_load_si512(from)
#define INTS_STORE(to, a)                 _mm512_store_si512(to, a)
#define INTS_REPEAT(from)                 _mm512_broadcast_i32x4(_mm_load_si128((const void *)(from)))
#define INTS_SPREAD(a, column)            _mm512_shuffle_epi32(a, (_MM_PERM_ENUM)((column)*0x55))
#define INTS_ALL(value)                   _mm512_set1_epi32(value)
#define INTS_ADD(a, b)                    _mm512_add_epi32(a, b)
#define INTS_SUB(a, b)                    _mm512_sub_epi32(a, b)
#define INTS_MUL_16(a, b)                 _mm512_madd_epi16(a, b)
#define INTS_AND(a, b)                    _mm512_and_si512(a, b)
#define INTS_ANDNOT(a, b)                 _mm512_andnot_si512(a, b) /* ~a & b */
#define INTS_OR(a, b)                     _mm512_or_si512(a, b)
#define INTS_XOR(a, b)                    _mm512_xor_si512(a, b)
#define INTS_MAX(a, b)                    _mm512_max_epi32(a, b)
#define INTS_LEFT(a, count)               _mm512_slli_epi32(a, (unsigned)(count))
#define INTS_RIGHT(a, count)              _mm512_srli_epi32(a, (unsigned)(count))
#define INTS_RIGHT_SIGNED(a, count)       _mm512_srai_epi32(a, (unsigned)(count))
#define INTS_LEFT_EACH(a, counts)         _mm512_sllv_epi32(a, counts)
#define INTS_RIGHT_EACH(a, counts)        _mm512_srlv_epi32(a, counts)
#define INTS_RIGHT_SIGNED_EACH(a, counts) _mm512_srav_epi32(a, counts)
#define INTS_TO_FLOAT_BITS(a)             _mm512_castps_si512(_mm512_cvtepi32_ps(a))
#define INTS_IF_EQUAL(a, b, yes, no)      _mm512_mask_blend_epi32(_mm512_cmpeq_epi32_mask(a, b), no, yes)
#define INTS_IF_GREATER(a, b, yes, no)                                                             \
    _mm512_mask_blend_epi32(_mm512_cmpgt_epi32_mask(a, b), no, yes)
#define INTS_ANY(a) (_mm512_test_epi32_mask(a, a) != 0)

/* Words t, t + 8, t + 16, t + 24, then t + 4, t + 12, ...; with 16 lanes, those of t + 1 too. */
static inline ints ints_columns(const u32 *from, int t)
{
    const ints first = _mm512_setr_epi32(0, 8, 16, 24, 4, 12, 20, 28, 1, 9, 17, 25, 5, 13, 21, 29);
    return _mm512_permutex2var_epi32(INTS_LOAD(from), INTS_ADD(first, INTS_ALL(t)),
                                     INTS_LOAD(from + 16));
}

#else

typedef __m256i ints;
enum { INTS_LANES = 8 };
#define INTS_LOAD(from)                   _mm256_load_si256((const void *)(from))
#define INTS_STORE(to, a)                 _mm256_store_si256((void *)(to), a)
#define INTS_REPEAT(from)                 _mm256_broadcastsi128_si256(_mm_load_si128((const void *)(from)))
#define INTS_SPREAD(a, column)            _mm256_shuffle_epi32(a, (column)*0x55)
#define INTS_ALL(value)                   _mm256_set1_epi32(value)
#define INTS_ADD(a, b)                    _mm256_add_epi32(a, b)
#define INTS_SUB(a, b)                    _mm256_sub_epi32(a, b)
#define INTS_MUL_16(a, b)                 _mm256_madd_epi16(a, b)
#define INTS_AND(a, b)                    _mm256_and_si256(a, b)
#define INTS_ANDNOT(a, b)                 _mm256_andnot_si256(a, b)
#define INTS_OR(a, b)                     _mm256_or_si256(a, b)
#define INTS_XOR(a, b)                    _mm256_xor_si256(a, b)
#define INTS_MAX(a, b)                    _mm256_max_epi32(a, b)
#define INTS_LEFT(a, count)               _mm256_slli_epi32(a, (int)(count))
#define INTS_RIGHT(a, count)              _mm256_srli_epi32(a, (int)(count))
#define INTS_RIGHT_SIGNED(a, count)       _mm256_srai_epi32(a, (int)(count))
#define INTS_LEFT_EACH(a, counts)         _mm256_sllv_epi32(a, counts)
#define INTS_RIGHT_EACH(a, counts)        _mm256_srlv_epi32(a, counts)
#define INTS_RIGHT_SIGNED_EACH(a, counts) _mm256_srav_epi32(a, counts)
#define INTS_TO_FLOAT_BITS(a)             _mm256_castps_si256(_mm256_cvtepi32_ps(a))
#define INTS_IF_EQUAL(a, b, yes, no)      _mm256_blendv_epi8(no, yes, _mm256_cmpeq_epi32(a, b))
#define INTS_IF_GREATER(a, b, yes, no)    _mm256_blendv_epi8(no, yes, _mm256_cmpgt_epi32(a, b))
#define INTS_ANY(a)                       (!_mm256_testz_si256(a, a))

static inline ints ints_columns(const u32 *from, int t)
{
    const s32 *at = (const s32 *)from + t;
    return _mm256_setr_epi32(at[0], at[8], at[16], at[24], at[4], at[12], at[20], at[28]);
}

#endif
#endif
#endif
