// A block a row: its maximum, the sum of the exponentials, and the quotients.
template <typename combine> static __device__ float over_block(float value, combine both)
{
    __shared__ float partial[32];
    for (int step = 16; step > 0; step /= 2)
        value = both(value, __shfl_xor_sync(0xffffffff, value, step));
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        partial[threadIdx.x / 32] = value;
    __syncthreads();
    value = partial[0];
    for (int warp = 1; warp < blockDim.x / 32; warp++)
        value = both(value, partial[warp]);
    return value;
}

extern "C" __global__ void softmax(float *out, const float *in, int columns)
{
    const float *row = in + (size_t)blockIdx.x * columns;
    float most = row[0], sum = 0;
    for (int i = threadIdx.x; i < columns; i += blockDim.x)
        most = fmaxf(most, row[i]);
    most = over_block(most, [](float a, float b) { return fmaxf(a, b); });
    for (int i = threadIdx.x; i < columns; i += blockDim.x)
        sum += expf(row[i] - most);
    sum = over_block(sum, [](float a, float b) { return a + b; });
    for (int i = threadIdx.x; i < columns; i += blockDim.x)
        out[(size_t)blockIdx.x * columns + i] = expf(row[i] - most) / sum;
}
