// Functions of pairs of 16-bit floats; a thread has one pair of each type. out has 16 pairs a thread.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

template <typename pair> __device__ void compute(pair *out, pair x, pair y)
{
    out[0] = h2sqrt(x);
    out[1] = h2rsqrt(x);
    out[2] = h2rcp(x);
    out[3] = h2exp(y);
    out[4] = h2exp2(y);
    out[5] = h2log(x);
    out[6] = h2log2(x);
    out[7] = h2sin(y);
    out[8] = h2cos(y);
    out[9] = h2floor(y);
    out[10] = h2ceil(y);
    out[11] = h2trunc(y);
    out[12] = h2rint(y);
    out[13] = __hfma2_relu(x, y, y);
    out[14] = __hmul2_sat(x, y);
    out[15] = __h2div(y, x);
}

// The first pairs are of __half, those of __nv_bfloat16 lie behind them.
extern "C" __global__ void functions(__half2 *out, const float2 *x, const float2 *y, int count)
{
    int i = threadIdx.x;
    compute(out + 16 * i, __float22half2_rn(x[i]), __float22half2_rn(y[i]));
    compute(reinterpret_cast<__nv_bfloat162 *>(out) + 16 * (count + i), __float22bfloat162_rn(x[i]),
            __float22bfloat162_rn(y[i]));
}
