// Fills a tensor with N(0, std). Element i depends on the seed and i alone: the counter-based generator
// Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011) numbers groups of four elements, and the Box-Muller
// transform turns each pair of its words into a pair of normal values.
//
// Grid: ceil(elements / elements_per_block) blocks of ${kernel.threads} threads, four elements a thread.
// destination: aligned to the element; dtype: 0 bf16, 1 fp16, 2 fp32.

//% include "device/ptx_convert.cuh"

//% include "device/ptx_math.cuh"

//% include "device/ptx_trigonometry.cuh"

constexpr int elements_per_block = 4 * ${kernel.threads};

__device__ __forceinline__ uint4 philox_4x32_10(uint4 counter, uint2 key)
{
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned high0 = __umulhi(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
        const unsigned high1 = __umulhi(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
        counter = make_uint4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
        key.x += 0x9E3779B9u;
        key.y += 0xBB67AE85u;
    }
    return counter;
}

// Two words to two independent normal values: the radius from one, the angle from the other.
__device__ __forceinline__ float2 box_muller(unsigned radius_word, unsigned angle_word)
{
    const float uniform = fmaf((float)radius_word, 0x1p-32f, 0x1p-33f);          // in (0, 1]
    const float radius = mlp_sqrt_approx(-1.3862943611f * mlp_lg2_approx(uniform)); // sqrt(-2 ln)
    const float angle = 6.2831853072f * ((float)angle_word * 0x1p-32f);
    return make_float2(radius * cos_approx(angle), radius * sin_approx(angle));
}

extern "C" __global__ void __launch_bounds__(${kernel.threads}) ${kernel.entry}(
    void *__restrict__ destination, long long elements, float std, unsigned long long seed, int dtype)
{
    const long long group = (long long)blockIdx.x * ${kernel.threads} + threadIdx.x;
    const uint4 words =
        philox_4x32_10(make_uint4((unsigned)group, (unsigned)(group >> 32), 0, 0),
                       make_uint2((unsigned)seed, (unsigned)(seed >> 32)));
    const float2 first = box_muller(words.x, words.y);
    const float2 second = box_muller(words.z, words.w);
    const float values[4] = {std * first.x, std * first.y, std * second.x, std * second.y};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const long long element = 4 * group + i;
        if (element >= elements)
            break;
        if (dtype == 0)
            static_cast<unsigned short *>(destination)[element] = fp32_to_bf16(values[i]);
        else if (dtype == 1)
            static_cast<unsigned short *>(destination)[element] = fp32_to_fp16(values[i]);
        else
            static_cast<float *>(destination)[element] = values[i];
    }
}
