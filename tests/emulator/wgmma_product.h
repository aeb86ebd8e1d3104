/*
 * wgmma_product.h: one wgmma.mma_async of random matrices in random layouts: what it starts from,
 * its PTX in a kernel of wgmma_kernel.h, and what it must give.
 */
#ifndef MMLP_TESTS_WGMMA_PRODUCT_H
#define MMLP_TESTS_WGMMA_PRODUCT_H

#include <stddef.h>

#include "ptx_text.h"
#include "wgmma_kernel.h"
#include "wgmma_oracle.h"

typedef enum wgmma_result { D_F16, D_F32, D_S32 } wgmma_result;

typedef struct wgmma_operands {
    wgmma_result d;
    wgmma_element a, b;
    bool saturates;
} wgmma_operands;

enum { WGMMA_COMBINATIONS = 20 };
extern const wgmma_operands wgmma_combinations[WGMMA_COMBINATIONS];

typedef struct wgmma_product {
    wgmma_operands types;
    int n, k;
    bool a_in_registers, adds; /* adds: to what D has */
    int scale_a, scale_b;
    wgmma_tile a_tile, b_tile;
    double a[WGMMA_M][WGMMA_MOST_K], b[WGMMA_MOST_K][WGMMA_MOST_N], d[WGMMA_M][WGMMA_MOST_N];
    double wanted[WGMMA_M][WGMMA_MOST_N];
    double magnitude[WGMMA_M][WGMMA_MOST_N]; /* of all that was summed */
} wgmma_product;

bool product_allows_n(wgmma_operands types, int n);
int product_random_n(wgmma_operands types);
/* Forms and layouts; A lies from byte `from` on, B from WGMMA_B bytes behind that up to `end`. */
void product_start(wgmma_product *p, wgmma_operands types, int n, int from, int end);
/* Integers: D comes out exact, in whatever order it is summed. */
void product_fill(wgmma_product *p);
/* What D must be, once p->a, b and d are there. */
void product_multiply(wgmma_product *p);

int product_registers(const wgmma_product *p);
/* The elements of A and B that lie there; other bytes stay. */
void product_write_shared(const wgmma_product *p, wgmma_memory *memory);
/* A's if it is there, and D's from register `first` on. */
void product_write_registers(const wgmma_product *p, wgmma_memory *memory, int first);
/* `error`: relative to p->magnitude. `ptx` is for the message. */
void product_compare(const wgmma_product *p, const wgmma_memory *memory, int first, double error,
                     const char *ptx);

void product_emit_descriptors(ptx_text *t, const wgmma_product *p);
/* Wants PRODUCT_PREDICATES before it. */
void product_emit(ptx_text *t, const wgmma_product *p, int first);

#define PRODUCT_PREDICATES "setp.ge.u32 %%p1, %%thread, 0; setp.lt.u32 %%p2, %%thread, 0;\n"
#define PRODUCT_FENCE      "wgmma.fence.sync.aligned;\n"
#define PRODUCT_COMMIT     "wgmma.commit_group.sync.aligned;\n"
#define PRODUCT_WAIT       "wgmma.wait_group.sync.aligned 0;\n"

#endif
