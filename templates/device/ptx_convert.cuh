// ptx_convert.cuh: inline PTX between fp32 and the 16-bit types (PTX ISA 9.0, section 9.7.9.21 cvt).
// Narrowing rounds to nearest, ties to even.

__device__ __forceinline__ unsigned short fp32_to_bf16(float value)
{
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

__device__ __forceinline__ unsigned short fp32_to_fp16(float value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

// Two at a time: `low` ends in the low half of the word (the instruction takes the high half first).
__device__ __forceinline__ unsigned fp32_to_bf16x2(float low, float high)
{
    unsigned pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ __forceinline__ unsigned fp32_to_fp16x2(float low, float high)
{
    unsigned pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

__device__ __forceinline__ float fp16_to_fp32(unsigned short bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

// bf16 is the upper half of fp32.
__device__ __forceinline__ float bf16_to_fp32(unsigned short bits)
{
    return __uint_as_float((unsigned)bits << 16);
}
