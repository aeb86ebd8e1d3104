// ptx_trigonometry.cuh: inline PTX of the hardware's sine and cosine (PTX ISA 9.0, section 9.7.3): absolute
// error below 2^-20.5 for x in [0, 2 pi].

__device__ __forceinline__ float sin_approx(float x)
{
    float y;
    asm("sin.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float cos_approx(float x)
{
    float y;
    asm("cos.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
