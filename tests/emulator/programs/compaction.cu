// Keeps the positive numbers: their order within a block stays, that of the blocks is open.
__device__ unsigned kept;

extern "C" __global__ void compact(int *out, unsigned *starts, unsigned *counts, const int *in, int count)
{
    __shared__ unsigned before_warp[33], start;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    bool keep = i < count && in[i] > 0;
    unsigned mask = __ballot_sync(0xffffffff, keep);
    if (lane == 0)
        before_warp[warp + 1] = __popc(mask);
    __syncthreads();
    if (threadIdx.x == 0) {
        before_warp[0] = 0;
        for (unsigned w = 1; w <= blockDim.x / 32; w++)
            before_warp[w] += before_warp[w - 1];
        counts[blockIdx.x] = before_warp[blockDim.x / 32];
        starts[blockIdx.x] = start = atomicAdd(&kept, counts[blockIdx.x]);
    }
    __syncthreads();
    if (keep)
        out[start + before_warp[warp] + __popc(mask & ((1u << lane) - 1))] = in[i];
}
