/*
 * compare.h: the numerics contract as a table of checks: the norm-wise error of a result against
 * expected values, its limit, and ok or FAIL.
 */
#ifndef MMLP_TOOLS_COMPARE_H
#define MMLP_TOOLS_COMPARE_H

#include <stddef.h>
#include <stdint.h>

/* ||actual - expected|| / ||expected||; where ||expected|| is 0, the largest |actual|. Any value
 * that is not finite on one side alone gives infinity. */
double compare_error(const double *actual, const double *expected, size_t count);

/* The limit for a forward result of `count` elements stored as `dtype` ("bf16", "fp16", "fp32"). */
double compare_limit(const char *dtype, size_t count, int expected_is_zero);

typedef struct compare_table {
    int rows, failed;
} compare_table;

/* Prints one row (the heading before the first) and counts it. against: "file" or "fp64". */
void compare_row(compare_table *table, const char *name, const char *against, const double *actual,
                 const double *expected, const int64_t *shape, int rank, const char *dtype);

#endif
