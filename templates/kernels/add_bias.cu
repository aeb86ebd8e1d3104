//% storage = kernel.storage
// ${kernel.spec_name}: ${kernel.step}, forward: the bias of fc2, added to what the ranks have summed.
//
// ${kernel.entry}: ${kernel.output} [tokens, columns] += ${kernel.input}${kernel.has_second_input and ", times the scale of the token" or ""}; in fp32, rounded once.
//
// Grid: tokens * ceil(columns / tile_n) blocks of ${kernel.threads} threads; four columns a thread.

//% include "device/ptx_copy.cuh"

//% include "device/ptx_convert.cuh"

//% include "device/dtype.cuh"

constexpr int columns = ${kernel.columns};
constexpr int tile_n = 4 * ${kernel.threads}; // columns of a block

extern "C" __global__ void __launch_bounds__(${kernel.threads}) ${kernel.entry}(
    const ${storage} *__restrict__ ${kernel.input},
//% if kernel.has_second_input then
    const float *__restrict__ ${kernel.second_input},
//% end
    ${storage} *__restrict__ ${kernel.output}, long long tokens)
{
    constexpr unsigned tiles_n = (columns + tile_n - 1) / tile_n;
    const long long token = blockIdx.x / tiles_n;
    const int column = (int)(blockIdx.x % tiles_n) * tile_n + 4 * threadIdx.x;
    if (token >= tokens || column >= columns)
        return;
    ${storage} *place = ${kernel.output} + token * columns + column;
    float bias[4], values[4];
    load4(bias, ${kernel.input} + column);
    load4_mutable(values, place);
//% if kernel.has_second_input then
    const float scale = ${kernel.second_input}[token];
//% end
#pragma unroll
    for (int i = 0; i < 4; ++i)
        values[i] = ${kernel.has_second_input and "fmaf(scale, bias[i], values[i])" or "values[i] + bias[i]"};
    store4(place, values);
}
