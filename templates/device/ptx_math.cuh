// ptx_math.cuh: inline PTX of the hardware's approximate fp32 functions, subnormals flushed (PTX ISA 9.0,
// section 9.7.3).

// 2^x, relative error below 2^-22.
__device__ __forceinline__ float mlp_ex2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// log2(x), absolute error below 2^-22 where x lies in (0.5, 2), relative elsewhere.
__device__ __forceinline__ float mlp_lg2_approx(float x)
{
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / x, 1 ulp.
__device__ __forceinline__ float mlp_rcp_approx(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// sqrt(x), relative error below 2^-23.
__device__ __forceinline__ float mlp_sqrt_approx(float x)
{
    float y;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / sqrt(x), relative error below 2^-22.9.
__device__ __forceinline__ float mlp_rsqrt_approx(float x)
{
    float y;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
