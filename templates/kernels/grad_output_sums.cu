//% storage = kernel.storage
// ${kernel.spec_name}: ${kernel.step}, dgrad, ${kernel.storage}: the first stage of what sums grad_output [tokens, columns].
//
// ${kernel.entry}: one row of ${kernel.output} [ceil(tokens / tile_m), columns] for each block's tokens: the sums of
// its columns${kernel.has_second_input and ", each token times its scale; and bias_scale_sums [tokens, ceil(columns / summed_columns)]: the dot products" or ""}
//% if kernel.has_second_input then
// of summed_columns columns with the bias.
//% end
//
// Grid: ceil(tokens / tile_m) * ceil(columns / tile_n) blocks of ${kernel.threads} threads; four columns a thread.

//% include "device/ptx_copy.cuh"

//% include "device/ptx_convert.cuh"

//% include "device/dtype.cuh"

constexpr int columns = ${kernel.columns};
constexpr int tile_m = ${kernel.summed_rows}; // tokens of a block
constexpr int tile_n = 256;         // columns of a block
constexpr int threads = ${kernel.threads};
//% if kernel.has_second_input then
constexpr int summed_columns = ${kernel.summed_columns}; // four of each lane of a warp
//% end
constexpr int vectors_per_row = tile_n / 4;
constexpr int rows_per_visit = threads / vectors_per_row;

extern "C" __global__ void __launch_bounds__(threads) ${kernel.entry}(
    const ${storage} *__restrict__ grad_output,
//% if kernel.has_second_input then
    const ${storage} *__restrict__ linear_fc2_bias, const float *__restrict__ per_token_scale,
//% end
    float *__restrict__ ${kernel.output},
//% if kernel.has_second_input then
    float *__restrict__ bias_scale_sums,
//% end
    long long tokens)
{
    __shared__ __align__(16) float parts[rows_per_visit][tile_n];
    constexpr unsigned tiles_n = (columns + tile_n - 1) / tile_n;
    const long long first_token = (long long)(blockIdx.x / tiles_n) * tile_m;
    const int staged_column = 4 * (threadIdx.x % vectors_per_row);
    const int column = (int)(blockIdx.x % tiles_n) * tile_n + staged_column;
    const int part = threadIdx.x / vectors_per_row;
    const bool inside = column < columns;

    float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
//% if kernel.has_second_input then
    float bias[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (inside)
        load4(bias, linear_fc2_bias + column);
//% end
    // A warp's lanes have the same token: they take every turn together.
#pragma unroll 1
    for (int row = part; row < tile_m; row += rows_per_visit) {
        const long long token = first_token + row;
        if (token >= tokens)
            break;
        float values[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (inside)
            load4(values, grad_output + token * columns + column);
//% if kernel.has_second_input then
        const float scale = per_token_scale[token];
        float dot = 0.0f;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            sums[i] = fmaf(scale, values[i], sums[i]);
            dot = fmaf(values[i], bias[i], dot);
        }
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2)
            dot += __shfl_xor_sync(0xffffffffu, dot, distance);
        if (threadIdx.x % 32 == 0 && inside)
            bias_scale_sums[token * ((columns + summed_columns - 1) / summed_columns) + column / summed_columns] = dot;
//% else
#pragma unroll
        for (int i = 0; i < 4; ++i)
            sums[i] += values[i];
//% end
    }

    // The parts of each column, in their order.
    store4(&parts[part][staged_column], sums);
    __syncthreads();
    const int own = (int)(blockIdx.x % tiles_n) * tile_n + threadIdx.x;
    if (own < columns) {
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < rows_per_visit; ++i)
            sum += parts[i][threadIdx.x];
        ${kernel.output}[first_token / tile_m * columns + own] = sum;
    }
}
