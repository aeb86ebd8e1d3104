// ${kernel.spec_name}: ${kernel.step}, dgrad: the second stage of the gradient of the per-token scale.
//
// ${kernel.entry}: adds the partial sums of each token, ${kernel.input} [tokens, partial_sums]${kernel.has_second_input and " and " .. kernel.second_input .. " [tokens, second_sums]" or ""}.
//
// Grid: ceil(tokens / rows_per_block) blocks of ${kernel.threads} threads, one token a warp. The order of the
// additions is fixed: each lane its own, then pairs of lanes.

constexpr int partial_sums = ${kernel.columns};
//% if kernel.has_second_input then
constexpr int second_sums = ${(kernel.hidden_size + kernel.summed_columns - 1) // kernel.summed_columns};
//% end
constexpr int rows_per_block = ${kernel.threads} / 32;

extern "C" __global__ void __launch_bounds__(${kernel.threads}) ${kernel.entry}(
    const float *__restrict__ ${kernel.input},
//% if kernel.has_second_input then
    const float *__restrict__ ${kernel.second_input},
//% end
    float *__restrict__ ${kernel.output}, long long tokens)
{
    const long long token = (long long)blockIdx.x * rows_per_block + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (token >= tokens)
        return; // all lanes of the warp
    float sum = 0.0f;
    for (int i = lane; i < partial_sums; i += 32)
        sum += ${kernel.input}[token * partial_sums + i];
//% if kernel.has_second_input then
    for (int i = lane; i < second_sums; i += 32)
        sum += ${kernel.second_input}[token * second_sums + i];
//% end
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2)
        sum += __shfl_xor_sync(0xffffffffu, sum, distance);
    if (lane == 0)
        ${kernel.output}[token] = sum;
}
