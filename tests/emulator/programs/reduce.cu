// The sum of a block: shuffles within warps, shared memory between them.
extern "C" __global__ void block_sums(float *sums, const float *in, int count)
{
    __shared__ float partial[32];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float value = i < count ? in[i] : 0.0f;
    for (int step = 16; step > 0; step /= 2)
        value += __shfl_down_sync(0xffffffff, value, step);
    if (threadIdx.x % 32 == 0)
        partial[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x < 32) {
        value = threadIdx.x < blockDim.x / 32 ? partial[threadIdx.x] : 0.0f;
        for (int step = 16; step > 0; step /= 2)
            value += __shfl_xor_sync(0xffffffff, value, step);
        if (threadIdx.x == 0)
            sums[blockIdx.x] = value;
    }
}

// The last block to finish adds up the sums of all.
__device__ unsigned finished;
extern "C" __global__ void total(float *sums, float *out, const float *in)
{
    __shared__ bool is_last;
    float value = in[blockIdx.x * 32 + threadIdx.x];
    for (int step = 16; step > 0; step /= 2)
        value += __shfl_down_sync(0xffffffff, value, step);
    if (threadIdx.x == 0) {
        sums[blockIdx.x] = value;
        __threadfence();
        is_last = atomicInc(&finished, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (is_last && threadIdx.x == 0) {
        value = 0;
        for (int i = 0; i < gridDim.x; i++)
            value += ((volatile float *)sums)[i];
        *out = value;
    }
}
