// Kernels as textbooks have them, right as they stand: textbook.c breaks them one by one. Each takes
// numbers and leaves numbers.

// Sums of blocks: shuffles within warps, shared memory between them.
extern "C" __global__ void sums(int *out, const int *in)
{
    __shared__ int partial[4];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int value = in[blockIdx.x * blockDim.x + threadIdx.x];
    for (int step = 16; step > 0; step /= 2)
        value += __shfl_down_sync(0xffffffff, value, step);
    if (lane == 0)
        partial[warp] = value;
    __syncthreads();
    if (threadIdx.x == 0)
        out[blockIdx.x] = partial[0] + partial[1] + partial[2] + partial[3];
}

// An inclusive sum in log2 steps, from one buffer to the other.
extern "C" __global__ void scan(int *out, const int *in)
{
    __shared__ int buffers[2][128];
    int me = threadIdx.x, from = 0;
    buffers[0][me] = in[me];
    __syncthreads();
    for (int step = 1; step < 128; step *= 2) {
        int below = me >= step ? buffers[from][me - step] : 0;
        buffers[1 - from][me] = buffers[from][me] + below;
        from = 1 - from;
        __syncthreads();
    }
    out[me] = buffers[from][me];
}

// 32 x 32 numbers, four rows at a time.
extern "C" __global__ void transpose(int *out, const int *in)
{
    __shared__ int tile[32][33];
    int x = threadIdx.x % 32, y = threadIdx.x / 32;
    for (int row = y; row < 32; row += 4)
        tile[row][x] = in[row * 32 + x];
    __syncthreads();
    for (int row = y; row < 32; row += 4)
        out[row * 32 + x] = tile[x][row];
}

// The square of a 32 x 32 matrix in 16 x 16 tiles.
extern "C" __global__ void square(int *out, const int *in)
{
    __shared__ int a[16][16], b[16][16];
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    int row = blockIdx.x / 2 * 16 + y, column = blockIdx.x % 2 * 16 + x, sum = 0;
    for (int at = 0; at < 32; at += 16) {
        a[y][x] = in[row * 32 + at + x];
        b[y][x] = in[(at + y) * 32 + column];
        __syncthreads();
        for (int k = 0; k < 16; k++)
            sum += a[y][k] * b[k][x];
        __syncthreads();
    }
    out[row * 32 + column] = sum;
}

// Counts in shared memory, then in global memory.
extern "C" __global__ void histogram(int *out, const int *in)
{
    __shared__ int bins[8];
    if (threadIdx.x < 8)
        bins[threadIdx.x] = 0;
    __syncthreads();
    atomicAdd(&bins[in[blockIdx.x * blockDim.x + threadIdx.x] & 7], 1);
    __syncthreads();
    if (threadIdx.x < 8)
        atomicAdd(&out[threadIdx.x], bins[threadIdx.x]);
}

// Three stages of asynchronous copies; a stage is refilled behind the barrier that its readers reach.
extern "C" __global__ void ring(int *out, const int *in)
{
    constexpr int stages = 3, turns = 8;
    __shared__ int buffer[stages][128];
    int me = threadIdx.x, sum = 0;
    auto copy = [&](int turn) {
        unsigned to = (unsigned)__cvta_generic_to_shared(&buffer[turn % stages][me]);
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(in + turn * 128 + me) : "memory");
    };
    for (int turn = 0; turn < stages - 1; turn++) {
        copy(turn);
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
    for (int turn = 0; turn < turns; turn++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(stages - 2) : "memory");
        __syncthreads();
        sum += buffer[turn % stages][(me + 50) % 128];
        if (turn + stages - 1 < turns)
            copy(turn + stages - 1);
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
    out[me] = sum;
}

// Half of the warps fill a buffer, the other half empty it.
extern "C" __global__ void pipe(int *out, const int *in)
{
    __shared__ int buffer[64];
    int me = threadIdx.x % 64, sum = 0;
    for (int turn = 0; turn < 4; turn++) {
        if (threadIdx.x < 64) {
            if (turn > 0)
                asm volatile("bar.sync 2, 128;" ::: "memory");
            buffer[me] = in[turn * 64 + me];
            asm volatile("bar.arrive 1, 128;" ::: "memory");
        } else {
            asm volatile("bar.sync 1, 128;" ::: "memory");
            sum += buffer[63 - me];
            if (turn < 3)
                asm volatile("bar.arrive 2, 128;" ::: "memory");
        }
    }
    if (threadIdx.x >= 64)
        out[me] = sum;
}

// Block 1 takes what block 0 wrote when the flag is up.
__device__ int raised, message[128];
extern "C" __global__ void flag(int *out, const int *in)
{
    if (blockIdx.x == 0) {
        message[threadIdx.x] = in[threadIdx.x];
        __syncthreads();
        if (threadIdx.x == 0)
            asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(&raised) : "memory");
    } else {
        int seen = 0;
        while (threadIdx.x == 0 && seen == 0)
            asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(seen) : "l"(&raised) : "memory");
        __syncthreads();
        out[threadIdx.x] = message[127 - threadIdx.x];
    }
}

// The last block to finish adds up what all have left.
__device__ unsigned finished;
__device__ int partial_sums[8];
extern "C" __global__ void last_block(int *out, const int *in)
{
    __shared__ bool is_last;
    int value = __reduce_add_sync(0xffffffff, in[blockIdx.x * 32 + threadIdx.x]);
    if (threadIdx.x == 0) {
        partial_sums[blockIdx.x] = value;
        __threadfence();
        is_last = atomicAdd(&finished, 1) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (is_last && threadIdx.x == 0) {
        int total = 0;
        for (int block = 0; block < gridDim.x; block++)
            total += partial_sums[block];
        *out = total;
    }
}

// Warps of all blocks add to one number under a lock.
__device__ int lock;
extern "C" __global__ void guarded(int *out, const int *in)
{
    if (threadIdx.x % 32 == 0) {
        while (atomicCAS(&lock, 0, 1) != 0)
            ;
        __threadfence();
        *out += in[threadIdx.x / 32];
        __threadfence();
        atomicExch(&lock, 0);
    }
}

// 16 bytes a thread, in opposite order.
extern "C" __global__ void vectors(int *out, const int *in)
{
    int last = 127;
    ((int4 *)out)[threadIdx.x] = ((const int4 *)in)[last - threadIdx.x];
}

// Eight numbers in private memory at computed places, and back.
extern "C" __global__ void rotated(int *out, const int *in)
{
    int own[8];
    for (int i = 0; i < 8; i++)
        own[(i + threadIdx.x) % 8] = in[threadIdx.x * 8 + i];
    for (int i = 0; i < 8; i++)
        out[threadIdx.x * 8 + i] = own[(i + in[i] + threadIdx.x) & 7];
}
