// math.cuh: the functions that epilogues are printed with, in fp32. Branch-free but for selects, built on
// the hardware's approximations; NaN propagates through all of them. Plain enough to compile as host C,
// which is how the tests sweep it.

// e^x; relative error grows with |x| to 1e-5 at 100. 0 below -87.4, infinity above 88.8.
__device__ __forceinline__ float mlp_exp(float x)
{
    return mlp_ex2_approx(1.4426950408889634f * x);
}

// ln x, the absolute error below 2^-22 near 1. Subnormal x is scaled first: the hardware reads it as 0.
__device__ __forceinline__ float mlp_log(float x)
{
    const float scaled = x < 1.17549435e-38f ? x * 16777216.0f : x;
    const float offset = x < 1.17549435e-38f ? -24.0f : 0.0f;
    return 0.6931471805599453f * (mlp_lg2_approx(scaled) + offset);
}

// 1 / (1 + e^-x), accurate in both tails: where e^-x is infinite, below -88.7, the result is 0.
__device__ __forceinline__ float mlp_sigmoid(float x)
{
    return mlp_rcp_approx(1.0f + mlp_ex2_approx(-1.4426950408889634f * x));
}

// The same with |x|, so that sigmoid(x), sigmoid(-x) and tanh(x / 2) share e and r: for expressions that have several.
__device__ __forceinline__ float mlp_sigmoid_shared(float x)
{
    const float e = mlp_ex2_approx(-1.4426950408889634f * fabsf(x));
    const float r = mlp_rcp_approx(1.0f + e);
    return x < 0.0f ? e * r : r;
}

// A polynomial below 0.6 (relative error 2e-8), where 1 - 2 e r would cancel. Shares e and r with sigmoid_shared(2x).
__device__ __forceinline__ float mlp_tanh(float x)
{
    const float square = x * x;
    float series = fmaf(square, 0.00626911973f, -0.0211109591f);
    series = fmaf(square, series, 0.0538739489f);
    series = fmaf(square, series, -0.133329154f);
    series = fmaf(square, series, 0.333333303f);
    const float small = fmaf(-x * square, series, x);
    const float e = mlp_ex2_approx(-1.4426950408889634f * fabsf(2.0f * x));
    const float r = mlp_rcp_approx(1.0f + e);
    const float large = fmaf(-2.0f, e * r, 1.0f);
    return fabsf(x) < 0.6f ? small : x < 0.0f ? -large : large;
}

// log(1 + e^x), accurate in both tails: max(x, 0) + log(1 + e) with e = e^-|x|, and
// log(1 + e) = 2 artanh(z) = 2 (z + z^3 / 3 + z^5 / 5 + ...) with z = e / (2 + e) of at most 1/3.
__device__ __forceinline__ float mlp_softplus(float x)
{
    const float e = mlp_ex2_approx(-1.4426950408889634f * fabsf(x));
    const float z = e * mlp_rcp_approx(2.0f + e);
    const float square = z * z;
    float series = fmaf(square, 0.0769230769f, 0.0909090909f);
    series = fmaf(square, series, 0.111111111f);
    series = fmaf(square, series, 0.142857143f);
    series = fmaf(square, series, 0.2f);
    series = fmaf(square, series, 0.333333333f);
    const float tail = 2.0f * fmaf(z * square, series, z);
    return x > 0.0f ? x + tail : tail;
}

// 1 - erf(x), relative error below 4e-6 for x up to 9: Chebyshev fit of Numerical Recipes, section 6.2.
__device__ __forceinline__ float mlp_erfc(float x)
{
    const float magnitude = fabsf(x);
    const float t = mlp_rcp_approx(fmaf(0.5f, magnitude, 1.0f));
    float series = fmaf(t, 0.17087277f, -0.82215223f);
    series = fmaf(t, series, 1.48851587f);
    series = fmaf(t, series, -1.13520398f);
    series = fmaf(t, series, 0.27886807f);
    series = fmaf(t, series, -0.18628806f);
    series = fmaf(t, series, 0.09678418f);
    series = fmaf(t, series, 0.37409196f);
    series = fmaf(t, series, 1.00002368f);
    series = fmaf(t, series, -1.26551223f);
    const float tail = t * mlp_exp(fmaf(-magnitude, magnitude, series));
    return x < 0.0f ? 2.0f - tail : tail;
}

// The Taylor series below 0.5, where 1 - erfc(x) would cancel.
__device__ __forceinline__ float mlp_erf(float x)
{
    const float square = x * x;
    float series = fmaf(square, 0.0008548327f, -0.005223977f);
    series = fmaf(square, series, 0.0268661706f);
    series = fmaf(square, series, -0.112837917f);
    series = fmaf(square, series, 0.376126389f);
    const float small = x * fmaf(-square, series, 1.12837917f);
    return fabsf(x) < 0.5f ? small : 1.0f - mlp_erfc(x);
}

__device__ __forceinline__ float mlp_sqrt(float x)
{
    return mlp_sqrt_approx(x);
}

// Subnormal x is scaled first, as in mlp_log.
__device__ __forceinline__ float mlp_rsqrt(float x)
{
    const float scaled = x < 1.17549435e-38f ? x * 16777216.0f : x;
    const float factor = x < 1.17549435e-38f ? 4096.0f : 1.0f;
    return factor * mlp_rsqrt_approx(scaled);
}

// A comparison with NaN is false, so a NaN in b falls through to b, and one in a is asked for.
__device__ __forceinline__ float mlp_min(float a, float b)
{
    return a < b || a != a ? a : b;
}

__device__ __forceinline__ float mlp_max(float a, float b)
{
    return a > b || a != a ? a : b;
}

__device__ __forceinline__ float mlp_clamp(float x, float low, float high)
{
    return mlp_min(mlp_max(x, low), high);
}
