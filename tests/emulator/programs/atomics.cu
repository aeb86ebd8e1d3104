// Additions of many threads to few places, in all types that have them.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
extern "C" __global__ void add(float *f, double *d, __half2 *h, __nv_bfloat162 *b,
                               unsigned long long *u, int *most)
{
    __shared__ float own;
    if (threadIdx.x == 0)
        own = 0;
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicAdd(f, (float)i);
    atomicAdd(d, i * 0.5);
    atomicAdd(h, __floats2half2_rn(i % 4, -1.0f));
    atomicAdd(b, __floats2bfloat162_rn(1.0f, i % 2));
    atomicAdd(u, 1ull << 33);
    atomicMax(most, i % 100);
    atomicAdd(&own, 0.25f);
    __syncthreads();
    if (threadIdx.x == 0)
        atomicAdd(f + 1, own);
}

// A multiplication made of compare-and-swap.
extern "C" __global__ void multiply(unsigned long long *product)
{
    unsigned long long seen = *product, wanted;
    do {
        wanted = seen;
        seen = atomicCAS(product, wanted, wanted * 3);
    } while (seen != wanted);
}
