// Counts in shared memory first, then adds them to the ones in global memory.
extern "C" __global__ void histogram(unsigned *counts, const unsigned char *in, int count)
{
    __shared__ unsigned own[256];
    own[threadIdx.x] = 0;
    __syncthreads();
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        atomicAdd(&own[in[i]], 1);
    __syncthreads();
    if (own[threadIdx.x])
        atomicAdd(&counts[threadIdx.x], own[threadIdx.x]);
}
