// An inclusive sum over one block.
extern "C" __global__ void inclusive(int *out, const int *in)
{
    __shared__ int totals[32];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, value = in[threadIdx.x];
    for (int step = 1; step < 32; step *= 2) {
        int below = __shfl_up_sync(0xffffffff, value, step);
        if (lane >= step)
            value += below;
    }
    if (lane == 31)
        totals[warp] = value;
    __syncthreads();
    if (warp == 0) {
        int total = lane < blockDim.x / 32 ? totals[lane] : 0;
        for (int step = 1; step < 32; step *= 2) {
            int below = __shfl_up_sync(0xffffffff, total, step);
            total += lane >= step ? below : 0;
        }
        totals[lane] = total;
    }
    __syncthreads();
    out[threadIdx.x] = value + (warp ? totals[warp - 1] : 0);
}
