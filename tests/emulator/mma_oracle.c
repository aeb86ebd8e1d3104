/*
 * mma_oracle.c: see mma_oracle.h. Terms are doubles that hold them exactly; aligned, they are whole
 * numbers of __int128.
 */
#include "mma_oracle.h"

#include <criterion/criterion.h>
#include <math.h>

const float_format format_tf32 = {8, 10, 1};
static const float_format format_fp32 = {8, 23, 1};

enum { LEAST = -133, MOST_TERMS = 33 };

/* Of a finite number: subnormal numbers have that of the smallest normal one. */
static int exponent_of(double value, float_format format)
{
    int least = 2 - (1 << (format.exponent_bits - 1));
    int exponent = value == 0 ? least : ilogb(value);
    return exponent < least ? least : exponent;
}

/* Cut off to a multiple of 2^place. */
static double cut(double value, int place)
{
    return ldexp(trunc(ldexp(value, -place)), place);
}

static uint32_t encode(double value, int result_fraction, int half)
{
    if (half)
        return (uint32_t)format_from_double(format_f16, value, ROUND_NEAREST);
    double kept =
        value == 0 ? value : cut(value, exponent_of(value, format_fp32) - result_fraction);
    if (fabs(kept) >= 0x1p128)
        kept = copysign((double)INFINITY, kept);
    return (uint32_t)bits_of_float((float)kept);
}

/* Some term is an infinity or a NaN: what IEEE 754 says about their sum. */
static uint32_t encode_special(const double *terms, int count, int half)
{
    double sum = 0;
    for (int i = 0; i < count; i++)
        sum += isfinite(terms[i]) ? 0 : terms[i];
    if (isnan(sum))
        return half ? 0x7fff : 0x7fffffff;
    return (half ? 0x7c00u : 0x7f800000u) | (sum < 0 ? (half ? 0x8000u : 0x80000000u) : 0);
}

static uint32_t add_terms(const oracle_rules *rules, const double *terms, const int *exponents,
                          int count, int half)
{
    int largest = LEAST, special = 0;
    for (int i = 0; i < count; i++) {
        special |= !isfinite(terms[i]);
        if (terms[i] != 0 && exponents[i] > largest)
            largest = exponents[i];
    }
    if (special)
        return encode_special(terms, count, half);
    int place = largest - rules->fraction;
    __int128 sum = 0;
    for (int i = 0; i < count; i++)
        sum += (__int128)ldexp(cut(terms[i], place), -place);
    double value = (double)sum;
    cr_assert(sum == (__int128)value, "the oracle's sum is not exact");
    /* A zero has no sign; what rounds to zero has. */
    return encode(ldexp(value, place), rules->result_fraction, half);
}

uint32_t oracle_dot(const oracle_rules *rules, float_format a_format, float_format b_format,
                    const uint32_t *a, const uint32_t *b, int depth, uint32_t c, int half)
{
    float_format c_format = half ? format_f16 : format_fp32;
    uint32_t sum = rules->c_comes_last ? 0 : c;
    for (int first = 0; first < depth; first += rules->products) {
        double terms[MOST_TERMS];
        int exponents[MOST_TERMS], count = 0;
        terms[count] = format_to_double(c_format, sum);
        exponents[count] = exponent_of(terms[count], c_format);
        count++;
        for (int k = first; k < first + rules->products && k < depth; k++) {
            double x = format_to_double(a_format, a[k]), y = format_to_double(b_format, b[k]);
            terms[count] = x * y;
            exponents[count] =
                isfinite(terms[count]) ? exponent_of(x, a_format) + exponent_of(y, b_format) : 0;
            count++;
        }
        sum = add_terms(rules, terms, exponents, count, half);
    }
    if (!rules->c_comes_last)
        return sum;
    float result = float_of(sum) + float_of(c);
    return isnan(result) ? 0x7fffffff : (uint32_t)bits_of_float(result);
}
