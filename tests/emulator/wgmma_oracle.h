/*
 * wgmma_oracle.h: what PTX ISA 9.7.15.5 says of wgmma.mma_async's matrices: where their elements
 * lie in shared memory and in registers, and what their bits mean. Written apart from the emulator.
 */
#ifndef MMLP_TESTS_WGMMA_ORACLE_H
#define MMLP_TESTS_WGMMA_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

#include "softfloat.h"

enum { WGMMA_M = 64, WGMMA_MOST_N = 256, WGMMA_MOST_K = 32 };

/* Elements of A and B. */
typedef struct wgmma_type {
    const char *name;
    int bits;
    const float_format *format; /* NULL: tf32 and integers */
} wgmma_type;

typedef enum wgmma_element {
    A_F16,
    A_BF16,
    A_TF32,
    A_E4M3,
    A_E5M2,
    A_S8,
    A_U8,
    A_TYPES
} wgmma_element;
extern const wgmma_type wgmma_types[A_TYPES];

/* tf32 gets 13 bits that count for nothing from `noise`. */
uint32_t wgmma_encode(wgmma_element type, double exact, uint32_t noise);
double wgmma_decode(wgmma_element type, uint32_t bits);

/* A matrix in shared memory, of elements (mn, k): a row of A, a column of B, and what is summed. */
typedef struct wgmma_tile {
    bool is_mn_major;
    int element_bytes, swizzle; /* swizzle: bytes of a span, 0: none */
    int pattern;         /* byte where the swizzle's pattern starts, of 1 KB aligned memory */
    int leading, stride; /* byte offsets */
    int mn, k;           /* the element at which the descriptor points */
} wgmma_tile;

/* Where an element lies, counted from the one of the descriptor. */
int wgmma_place(const wgmma_tile *tile, int mn, int k);
/* Without the memory's own address, which is to be added >> 4. */
uint64_t wgmma_descriptor(const wgmma_tile *tile);

/* The element of A or D that a thread has in register `index`, as its `part`-th from the low end.
 */
typedef struct wgmma_position {
    int row, column;
} wgmma_position;
wgmma_position wgmma_a_position(int thread, int index, int part, int element_bytes);
wgmma_position wgmma_d_position(int thread, int index, int part, int parts);

#endif
