// ${kernel.spec_name}: ${kernel.step}, dgrad: the second stage of a bias gradient.
//
// ${kernel.entry}: adds the rows of ${kernel.input} [ceil(tokens / partial_tokens), columns], partial sums, in their
// order, and beta times what the destination holds; with beta 0 that is not read.
//
// Grid: ceil(columns / ${kernel.threads}) blocks of ${kernel.threads} threads, one column a thread.
// The destination has the type ${kernel.output}_dtype says: 0 bf16, 1 fp16, 2 fp32.

//% include "device/ptx_convert.cuh"

constexpr int columns = ${kernel.columns};
constexpr int partial_tokens = ${kernel.summed_rows}; // tokens that one row of partial sums covers

extern "C" __global__ void __launch_bounds__(${kernel.threads}) ${kernel.entry}(
    const float *__restrict__ ${kernel.input}, void *__restrict__ ${kernel.output}, int ${kernel.output}_dtype, int beta,
    long long tokens)
{
    const int column = blockIdx.x * ${kernel.threads} + threadIdx.x;
    if (column >= columns)
        return;
    const int rows = (int)((tokens + partial_tokens - 1) / partial_tokens);
    float sum = 0.0f;
    for (int row = 0; row < rows; ++row)
        sum += ${kernel.input}[(long long)row * columns + column];

    if (${kernel.output}_dtype == 2) {
        float *place = static_cast<float *>(${kernel.output}) + column;
        *place = beta != 0 ? *place + sum : sum;
    } else if (${kernel.output}_dtype == 1) {
        unsigned short *place = static_cast<unsigned short *>(${kernel.output}) + column;
        *place = fp32_to_fp16(beta != 0 ? fp16_to_fp32(*place) + sum : sum);
    } else {
        unsigned short *place = static_cast<unsigned short *>(${kernel.output}) + column;
        *place = fp32_to_bf16(beta != 0 ? bf16_to_fp32(*place) + sum : sum);
    }
}
