/*
 * exec_transpose.h: 8x8 matrices of 16-bit elements, as ldmatrix and wgmma transpose them.
 */
#ifndef EMU_EXEC_TRANSPOSE_H
#define EMU_EXEC_TRANSPOSE_H

#if defined(__SSE2__)
#include <emmintrin.h>
#endif
#include <string.h>

#include "lane_types.h"

enum { ROW_BYTES = 16 };

#if defined(__SSE2__)
static inline void transpose(const u8 *from, u8 *to)
{
    __m128i r[8], s[8];
    for (int i = 0; i < 8; i++) {
        r[i] = _mm_loadu_si128((const __m128i *)(const void *)(from + ROW_BYTES * i));
    }
    for (int i = 0; i < 4; i++) {
        s[2 * i] = _mm_unpacklo_epi16(r[i], r[i + 4]);
        s[2 * i + 1] = _mm_unpackhi_epi16(r[i], r[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        r[2 * i] = _mm_unpacklo_epi16(s[i], s[i + 4]);
        r[2 * i + 1] = _mm_unpackhi_epi16(s[i], s[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
        s[2 * i] = _mm_unpacklo_epi16(r[i], r[i + 4]);
        s[2 * i + 1] = _mm_unpackhi_epi16(r[i], r[i + 4]);
    }
    for (int i = 0; i < 8; i++) {
        _mm_storeu_si128((__m128i *)(void *)(to + ROW_BYTES * i), s[i]);
    }
}
#else
static inline void transpose(const u8 *from, u8 *to)
{
    for (int row = 0; row < 8; row++) {
        for (int column = 0; column < 8; column++) {
            memcpy(to + ROW_BYTES * column + 2 * row, from + ROW_BYTES * row + 2 * column, 2);
        }
    }
}
#endif

#endif
