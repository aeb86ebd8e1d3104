/* softfloat.h: small floating-point formats as exact doubles, for the oracles of the ISA tests. */
#ifndef MMLP_TESTS_SOFTFLOAT_H
#define MMLP_TESTS_SOFTFLOAT_H

#include <stdint.h>

/* ROUND_NONE: what is rounded is exact. */
typedef enum rounding { ROUND_NEAREST, ROUND_ZERO, ROUND_DOWN, ROUND_UP, ROUND_NONE } rounding;

/* A binary format: exponent and mantissa bits. e4m3 has no infinities: its top exponent holds
 * numbers. */
typedef struct float_format {
    int exponent_bits, mantissa_bits;
    int has_infinity;
} float_format;

extern const float_format format_f16, format_bf16, format_e4m3, format_e5m2;

double format_to_double(float_format format, uint64_t bits);
/* Rounds an exact value once. Overflow follows the rounding mode; NaN gives the canonical NaN. */
uint64_t format_from_double(float_format format, double value, rounding mode);

float float_of(uint64_t bits);
double double_of(uint64_t bits);
uint64_t bits_of_float(float value);
uint64_t bits_of_double(double value);

/* a * b + c rounded to odd: rounding the result again to a format of at most 51 bits is then exact.
 */
double fma_to_odd(double a, double b, double c);

#endif
