/*
 * device_shim.h: enough of a GPU to compile templates/device/math.cuh as host C. The approximations
 * of the hardware are the exact value moved by up to 2 ulp, in a way that looks random and repeats,
 * with subnormals flushed to zero on both sides.
 */
#ifndef DEVICE_SHIM_H
#define DEVICE_SHIM_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define __device__      static
#define __forceinline__ inline

static inline float flush(float x)
{
    return fabsf(x) < 1.17549435e-38f ? copysignf(0.0f, x) : x;
}

/* The fp32 value of `exact`, up to 2 ulp beside it. */
static inline float approximate(double exact, float argument)
{
    float rounded = (float)exact;
    uint32_t bits;
    memcpy(&bits, &argument, sizeof bits);
    int steps = (int)((bits * 2654435761u) >> 30) - 2; /* -2, -1, 0, 1 */
    if (!isfinite(rounded) || rounded == 0)
        return rounded;
    for (; steps < 0; steps++)
        rounded = nextafterf(rounded, -INFINITY);
    for (; steps > 0; steps--)
        rounded = nextafterf(rounded, INFINITY);
    return flush(rounded);
}

static inline float mlp_ex2_approx(float x)
{
    return approximate(exp2((double)flush(x)), x);
}

static inline float mlp_lg2_approx(float x)
{
    return approximate(log2((double)flush(x)), x);
}

static inline float mlp_rcp_approx(float x)
{
    return approximate(1.0 / (double)flush(x), x);
}

static inline float mlp_sqrt_approx(float x)
{
    return approximate(sqrt((double)flush(x)), x);
}

static inline float mlp_rsqrt_approx(float x)
{
    return approximate(1.0 / sqrt((double)flush(x)), x);
}

#endif
