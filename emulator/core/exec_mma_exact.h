/*
 * exec_mma_exact.h: one product of 16 x 8 elements as the tensor cores of one device round it, for
 * mma.sync (exec_mma_exact.c) and wgmma (exec_wgmma.c).
 */
#ifndef EMU_EXEC_MMA_EXACT_H
#define EMU_EXEC_MMA_EXACT_H

#include "exec_lanes.h"
#include "mma_model.h"

/* Registers of 32 lanes, as the fragments of mma.sync; halves have two of C and of D. */
typedef struct exact_product {
    const mma_model *model;
    mma_format a_format, b_format;
    int depth;
    bool half;       /* C and D are f16 */
    const u32 *a[4]; /* rows g and g + 8, then further along k */
    const u32 *b[2];
    const u32 *c[4];
    u32 *d[4];
} exact_product;

void ISA(exact_multiply)(const exact_product *p);

#endif
