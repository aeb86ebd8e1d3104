/*
 * mma_kernel.h: many products D = A B + C through kernels of one mma.sync instruction, elements as
 * bits.
 */
#ifndef MMLP_TESTS_MMA_KERNEL_H
#define MMLP_TESTS_MMA_KERNEL_H

#include <stdint.h>

typedef struct mma_instruction {
    const char *name;      /* whole: "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32" */
    int k;                 /* depth */
    int element_bits;      /* of A and B in a register: 8, 16 or 32 (tf32) */
    int half_accumulators; /* C and D are f16 */
} mma_instruction;

enum { MMA_ROWS = 16, MMA_COLUMNS = 8, MMA_MOST_DEPTH = 32 };

/* An element of tf32 is its 19 bits; what lies below them in a register must not count. */
typedef struct mma_tile {
    uint32_t a[MMA_ROWS][MMA_MOST_DEPTH], b[MMA_COLUMNS][MMA_MOST_DEPTH]; /* b: by column */
    uint32_t c[MMA_ROWS][MMA_COLUMNS], d[MMA_ROWS][MMA_COLUMNS];
} mma_tile;

/* Fills in the d of every tile; one block each. */
void mma_run(const mma_instruction *instruction, mma_tile *tiles, unsigned count);

#endif
