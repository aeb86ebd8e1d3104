/*
 * compare.h: the numerics contract as a table of checks: the norm-wise error of a result against
 * expected values, its limit, and ok or FAIL.
 */
#ifndef MMLP_TOOLS_COMPARE_H
#define MMLP_TOOLS_COMPARE_H

#include <stddef.h>
#include <stdint.h>

/* ||actual - expected|| / ||terms||, terms NULL: / ||expected||; where that norm is 0, the largest
 * |actual|. Any value that is not finite on one side alone gives infinity. */
double compare_error(const double *actual, const double *expected, const double *terms,
                     size_t count);

/* What a result comes from, which sets its limit. */
typedef enum compare_kind {
    COMPARE_GEMM,          /* one product, of at most 8192 terms */
    COMPARE_FORWARD,       /* anything else of the forward pass */
    COMPARE_GRADIENT,      /* of the backward pass */
    COMPARE_SCALE_GRADIENT /* grad.per_token_scale, whose terms cancel */
} compare_kind;

/* The limit for a result of `count` elements of an MLP with this params_dtype ("bf16", "fp16",
 * "fp32"). */
double compare_limit(compare_kind kind, const char *dtype, size_t count);

/* One result and what is expected of it. */
typedef struct compare_case {
    const char *name, *against; /* "file" or "fp64" */
    const char *dtype;
    compare_kind kind;
    const int64_t *shape;
    int rank;
    const double *actual, *expected;
    const double *terms; /* COMPARE_SCALE_GRADIENT: the norm of the terms of each element */
    /* Rounding can have moved a value over the limit of a clamp or a relu before both sides were
     * computed: the limit is wide, or there is none below COMPARE_KINK_TOKENS tokens. */
    int kink;
    int64_t tokens; /* with kink */
} compare_case;
enum { COMPARE_KINK_TOKENS = 32 };

typedef struct compare_table {
    int rows, failed; /* checks that were made, and those over their limit */
    int lines;        /* printed */
} compare_table;

/* Prints one row (the heading before the first), counts it, and returns the error. */
double compare_row(compare_table *table, const compare_case *c);

#endif
