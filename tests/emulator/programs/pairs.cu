// Arithmetic on pairs of 16-bit floats; out has 8 pairs of __half, then 8 of __nv_bfloat16.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

template <typename pair> __device__ void compute(pair *out, const pair *in)
{
    pair a = in[0], b = in[1], c = in[2];
    out[0] = __hadd2(a, b);
    out[1] = __hsub2(a, b);
    out[2] = __hmul2(a, b);
    out[3] = __hfma2(a, b, c);
    out[4] = __hmax2(a, b);
    out[5] = __hmin2(a, b);
    out[6] = __hneg2(__habs2(b));
    out[7] = __hgt2(a, b);
}

extern "C" __global__ void pairs(__half2 *out, const float2 *in)
{
    __half2 halves[3];
    __nv_bfloat162 bfloats[3];
    for (int i = 0; i < 3; i++) {
        halves[i] = __float22half2_rn(in[i]);
        bfloats[i] = __float22bfloat162_rn(in[i]);
    }
    compute(out, halves);
    compute(reinterpret_cast<__nv_bfloat162 *>(out + 8), bfloats);
}

// What does not fit is rounded to even, and comes back exactly.
extern "C" __global__ void round_trip(float *out, const float *in)
{
    int i = threadIdx.x;
    out[2 * i] = __half2float(__float2half_rn(in[i]));
    out[2 * i + 1] = __bfloat162float(__float2bfloat16_rn(in[i]));
}
