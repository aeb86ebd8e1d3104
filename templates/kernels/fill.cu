// Fills a part of a matrix with zeros, with N(0, a), or uniformly in [a, b). An element depends on the seed
// and on its index in the whole matrix alone: the counter-based generator Philox4x32-10 (Salmon, Moraes,
// Dror, Shaw, SC 2011) numbers groups of four elements, and for normal values the Box-Muller transform turns
// each pair of its words into a pair.
//
// Element i of the part is row r = i / columns, column c = i % columns; its index in the whole is
// (r / half_rows * whole_half_rows + first_row + r % half_rows) * whole_columns + first_column + c.
//
// Grid: ceil(elements / elements_per_block) blocks of ${kernel.threads} threads, four elements a thread, of one
// row, since columns, first_column and whole_columns are multiples of 4 or there is one row.
// destination: aligned to four elements; distribution: 0 zeros, 1 normal, 2 uniform; dtype: 0 bf16, 1 fp16, 2 fp32.

//% include "device/ptx_copy.cuh"

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

// A word to [0, 1): the upper 24 bits, which fp32 holds exactly.
__device__ __forceinline__ float unit(unsigned word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

extern "C" __global__ void __launch_bounds__(${kernel.threads}) ${kernel.entry}(
    void *__restrict__ destination, long long elements, long long columns, long long first_column,
    long long whole_columns, long long half_rows, long long first_row, long long whole_half_rows, float a, float b,
    unsigned long long seed, int distribution, int dtype)
{
    const long long first = 4 * ((long long)blockIdx.x * ${kernel.threads} + threadIdx.x);
    if (first >= elements)
        return;
    const long long row = first / columns;
    const long long whole_row = row / half_rows * whole_half_rows + first_row + row % half_rows;
    const long long group = (whole_row * whole_columns + first_column + first % columns) / 4;
    const uint4 words = philox_4x32_10(make_uint4((unsigned)group, (unsigned)(group >> 32), 0, 0),
                                       make_uint2((unsigned)seed, (unsigned)(seed >> 32)));
    float values[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (distribution == 1) {
        const float2 low = box_muller(words.x, words.y);
        const float2 high = box_muller(words.z, words.w);
        values[0] = a * low.x;
        values[1] = a * low.y;
        values[2] = a * high.x;
        values[3] = a * high.y;
    } else if (distribution == 2) {
        values[0] = fmaf(b - a, unit(words.x), a);
        values[1] = fmaf(b - a, unit(words.y), a);
        values[2] = fmaf(b - a, unit(words.z), a);
        values[3] = fmaf(b - a, unit(words.w), a);
    }
    unsigned short *const halves = static_cast<unsigned short *>(destination) + first;
    float *const floats = static_cast<float *>(destination) + first;
    if (first + 4 <= elements) {
        if (dtype == 0)
            global_store_8(halves, fp32_to_bf16x2(values[0], values[1]), fp32_to_bf16x2(values[2], values[3]));
        else if (dtype == 1)
            global_store_8(halves, fp32_to_fp16x2(values[0], values[1]), fp32_to_fp16x2(values[2], values[3]));
        else
            *reinterpret_cast<float4 *>(floats) = make_float4(values[0], values[1], values[2], values[3]);
        return;
    }
#pragma unroll
    for (int i = 0; i < 3; ++i) {
        if (first + i >= elements)
            break;
        if (dtype == 0)
            halves[i] = fp32_to_bf16(values[i]);
        else if (dtype == 1)
            halves[i] = fp32_to_fp16(values[i]);
        else
            floats[i] = values[i];
    }
}
