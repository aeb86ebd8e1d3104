/*
 * mma_oracle.h: another writing of what tensor cores compute, from the description in
 * docs/emulator.md alone: exact multiples of powers of two.
 */
#ifndef MMLP_TESTS_MMA_ORACLE_H
#define MMLP_TESTS_MMA_ORACLE_H

#include <stdint.h>

#include "softfloat.h"

extern const float_format format_tf32; /* 19 bits */

typedef struct oracle_rules {
    int products, fraction, result_fraction;
    int c_comes_last;
} oracle_rules;

/* The bits of d = c + sum of a[k] b[k]; c and d are f16 or fp32. */
uint32_t oracle_dot(const oracle_rules *rules, float_format a_format, float_format b_format,
                    const uint32_t *a, const uint32_t *b, int depth, uint32_t c, int half);

#endif
