// Warp-synchronous code without shuffles, and the votes of part of a warp.
extern "C" __global__ void tree(int *out, const int *in)
{
    __shared__ volatile int values[64];
    int lane = threadIdx.x % 32;
    volatile int *own = values + threadIdx.x / 32 * 32;
    own[lane] = in[threadIdx.x];
    __syncwarp();
    for (int step = 16; step > 0; step /= 2) {
        int other = lane < step ? own[lane + step] : 0;
        __syncwarp();
        own[lane] += other;
        __syncwarp();
    }
    if (lane == 0)
        out[threadIdx.x / 32] = own[0];
}

extern "C" __global__ void votes(unsigned *out)
{
    unsigned lane = threadIdx.x, *row = out + 8 * lane;
    row[0] = __ballot_sync(0xffffffff, lane % 3 == 0);
    row[1] = __match_any_sync(0xffffffff, lane / 5);
    int same;
    row[2] = __match_all_sync(0xffffffff, lane < 32, &same) + same;
    if (lane % 2)
        row[3] = __ballot_sync(0xaaaaaaaa, lane > 9);
    else
        row[3] = __reduce_add_sync(0x55555555, lane);
    __syncwarp();
    row[4] = __any_sync(0xffffffff, lane == 31) * 2 + __all_sync(0xffffffff, lane < 31);
    row[5] = __shfl_sync(0xffffffff, lane * 10, lane + 3, 8);
    unsigned long long wide = __shfl_xor_sync(0xffffffff, (unsigned long long)lane << 33, 1);
    row[6] = (unsigned)(wide >> 33);
    row[7] = 0;
    if (lane < 12)
        row[7] = __activemask() == 0xfff ? 1 : 2;
}

// Lanes that have left are not waited for, although the mask names them.
extern "C" __global__ void left(unsigned *out)
{
    unsigned lane = threadIdx.x;
    if (lane >= 20)
        return;
    __syncwarp();
    out[lane] = __ballot_sync(0xffffffff, lane % 2) + __shfl_sync(0xffffffff, lane, 7);
}
