/*
 * reference_math.h: what the fp64 references of the passes are made of: numbers of any type as
 * doubles, matrix products, and programs evaluated for every token and column. Results do not
 * depend on the number of threads: every sum has a fixed order.
 */
#ifndef MMLP_REFERENCE_MATH_H
#define MMLP_REFERENCE_MATH_H

#include "bundle.h"

/* ---- checks and memory ---------------------------------------------------------------------- */

/* A host tensor of any floating type; dim1 0: a vector. */
mmlp_status reference_check(const mmlp_tensor *tensor, const char *name, int64_t dim0,
                            int64_t dim1);
/* `count` doubles; the caller frees them. */
mmlp_status reference_allocate(double **out, int64_t count, const char *what);
/* The same, filled with a whole tensor; nothing for NULL. */
mmlp_status reference_allocate_whole(double **out, const mmlp_tensor *tensor, int64_t count,
                                     const char *what);
/* A block's rows of `columns` to where row `first` begins; nothing for NULL. */
void reference_copy_out(double *callers, const double *block, int64_t first, int64_t rows,
                        int64_t columns);
/* `count` elements from element `first` on. */
void reference_read(double *out, const mmlp_tensor *tensor, int64_t first, int64_t count);

/* What products and programs need besides their operands. */
typedef struct reference_workspace {
    double *lines;  /* of one block of lines, packed */
    double *strips; /* of each worker, packed */
    double *nodes;  /* of each worker: the values of a program's nodes */
    int node_count;
} reference_workspace;

/* For sums of up to `longest` elements and programs of up to node_count nodes. Free it whatever the
 * status. */
mmlp_status reference_workspace_make(reference_workspace *out, int64_t longest, int node_count);
void reference_workspace_free(reference_workspace *w);

/* ---- products ------------------------------------------------------------------------------- */

/* A matrix whose lines are summed along: element k of line i is at line_stride * i + step * k. */
typedef struct reference_operand {
    const mmlp_tensor *tensor; /* NULL: values */
    const double *values;
    int64_t first; /* the element where line 0 begins */
    int64_t lines, line_stride, step;
    int64_t sampled_of; /* 0, or: line i stands for row reference_sample(i, lines, sampled_of) */
} reference_operand;

/* A matrix from row `first` on: its rows, for products over its columns, and the other way. */
reference_operand reference_rows(const mmlp_tensor *tensor, const double *values, int64_t first,
                                 int64_t rows, int64_t columns);
reference_operand reference_columns(const mmlp_tensor *tensor, const double *values, int64_t first,
                                    int64_t columns);
/* Row i of `samples` rows that are spread evenly over `rows`. */
int64_t reference_sample(int64_t i, int64_t samples, int64_t rows);

/* out[i * out_stride + j] (+)= the sum over k < length of a[i][k] b[j][k], k in rising order. */
void reference_multiply(double *out, int64_t out_stride, bool add, const reference_operand *a,
                        const reference_operand *b, int64_t length, const reference_workspace *w);

/* ---- programs ------------------------------------------------------------------------------- */

enum { REFERENCE_MAX_INPUTS = 8, REFERENCE_MAX_RESULTS = 8, REFERENCE_COLUMN_BLOCK = 64 };

/* Where an input of a program comes from: indexed by token, by column, or by both. */
typedef struct reference_source {
    const char *name;
    const double *values;
    int64_t token_stride, column_stride;
} reference_source;

typedef enum reference_kind {
    REFERENCE_STORE,      /* out[t * stride + c] = value */
    REFERENCE_COLUMN_SUM, /* out[c] += value, t in rising order */
    REFERENCE_ROW_SUM     /* of each block of columns: out[(t * stride + block) * 2] = the sum of
                           * the values, and behind it that of their squares */
} reference_kind;

typedef struct reference_result {
    int node;
    reference_kind kind;
    double *out; /* NULL: not wanted */
    int64_t stride;
} reference_result;

typedef struct reference_evaluation {
    const program *program;
    int64_t tokens, columns;
    reference_source sources[REFERENCE_MAX_INPUTS]; /* in the order of the program's inputs */
    reference_result results[REFERENCE_MAX_RESULTS];
    int result_count;
} reference_evaluation;

/* Picks the sources of the program's inputs by name from a list that ends with a NULL name. The
 * manifest's reader has made sure that every input is in the list. */
void reference_choose_sources(reference_evaluation *e, const reference_source *known);
void reference_evaluate(const reference_evaluation *e, const reference_workspace *w);
/* Whether the program has an input of that name. */
bool reference_uses(const program *p, const char *name);

#endif
