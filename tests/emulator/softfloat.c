/* softfloat.c: small floating-point formats as exact doubles. */
#include "softfloat.h"

#include <fenv.h>
#include <math.h>
#include <string.h>

const float_format format_f16 = {5, 10, 1}, format_bf16 = {8, 7, 1}, format_e4m3 = {4, 3, 0},
                   format_e5m2 = {5, 2, 1};

float float_of(uint64_t bits)
{
    uint32_t word = (uint32_t)bits;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint64_t bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

uint64_t bits_of_double(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

double format_to_double(float_format f, uint64_t bits)
{
    int m = f.mantissa_bits;
    int bias = (1 << (f.exponent_bits - 1)) - 1;
    int top = (1 << f.exponent_bits) - 1;
    int exponent = (int)(bits >> m) & top;
    int mantissa = (int)(bits & ((1u << m) - 1));
    int negative = (int)(bits >> (m + f.exponent_bits)) & 1;
    double value;
    if (exponent == top && f.has_infinity)
        value = mantissa ? (double)NAN : (double)INFINITY;
    else if (exponent == top && mantissa == (1 << m) - 1)
        value = (double)NAN;
    else if (exponent == 0)
        value = ldexp(mantissa, 1 - bias - m);
    else
        value = ldexp((1 << m) + mantissa, exponent - bias - m);
    return negative ? -value : value;
}

uint64_t format_from_double(float_format f, double value, rounding mode)
{
    int m = f.mantissa_bits;
    int bias = (1 << (f.exponent_bits - 1)) - 1;
    int top = (1 << f.exponent_bits) - 1;
    uint64_t sign = (uint64_t)(signbit(value) != 0) << (m + f.exponent_bits);
    uint64_t infinity = (uint64_t)top << m;
    uint64_t largest = f.has_infinity ? infinity - 1 : infinity | ((1u << m) - 2);
    if (isnan(value))
        return f.has_infinity ? infinity | 1u << (m - 1) : infinity | ((1u << m) - 1);
    double magnitude = fabs(value);
    if (isinf(value))
        return sign | (f.has_infinity ? infinity : largest);
    if (magnitude == 0)
        return sign;

    int exponent;
    frexp(magnitude, &exponent); /* magnitude in [2^(exponent - 1), 2^exponent) */
    int unit = exponent - 1 - m; /* of the last place */
    if (unit < 1 - bias - m)
        unit = 1 - bias - m;
    double places = ldexp(magnitude, -unit); /* exact */
    double whole = floor(places), rest = places - whole;
    int up = 0;
    switch (mode) {
    case ROUND_NEAREST:
        up = rest > 0.5 || (rest == 0.5 && fmod(whole, 2) == 1);
        break;
    case ROUND_ZERO:
    case ROUND_NONE:
        break;
    case ROUND_DOWN:
        up = sign && rest > 0;
        break;
    case ROUND_UP:
        up = !sign && rest > 0;
        break;
    }
    /* A carry out of the mantissa moves into the exponent by itself. */
    uint64_t result = (uint64_t)(whole + up);
    result += (uint64_t)(unit + bias + m - 1) << m;
    if (unit == 1 - bias - m && whole + up < (1 << m))
        result = (uint64_t)(whole + up); /* subnormal */
    if (result > largest) {
        int to_infinity =
            mode == ROUND_NEAREST || (mode == ROUND_DOWN && sign) || (mode == ROUND_UP && !sign);
        result = to_infinity && f.has_infinity ? infinity : largest;
    }
    return sign | result;
}

double fma_to_odd(double a, double b, double c)
{
    fenv_t saved;
    feholdexcept(&saved);
    fesetround(FE_TOWARDZERO);
    volatile double x = a, y = b, z = c;
    volatile double result = fma(x, y, z);
    int inexact = fetestexcept(FE_INEXACT) != 0;
    fesetenv(&saved);
    uint64_t bits = bits_of_double(result);
    if (inexact && isfinite(result))
        bits |= 1;
    return double_of(bits);
}
