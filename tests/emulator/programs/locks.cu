// Threads that wait for each other.
__device__ int lock;

// One thread of each block: the lock is tried again until it is free.
extern "C" __global__ void between_blocks(volatile int *count)
{
    if (threadIdx.x == 0) {
        while (atomicCAS(&lock, 0, 1) != 0)
            ;
        __threadfence();
        *count = *count + 1;
        __threadfence();
        atomicExch(&lock, 0);
    }
}

// Every thread of a warp in turn, the way that needs no independent lanes.
extern "C" __global__ void within_warps(volatile int *count)
{
    bool done = false;
    while (!done) {
        if (atomicCAS(&lock, 0, 1) == 0) {
            *count = *count + 1;
            __threadfence();
            atomicExch(&lock, 0);
            done = true;
        }
    }
}

// The same with a loop that ends only when another lane of the warp goes on.
extern "C" __global__ void independent(volatile int *count)
{
    while (atomicCAS(&lock, 0, 1) != 0)
        __nanosleep(20);
    *count = *count + 1;
    __threadfence();
    atomicExch(&lock, 0);
}

// Block i waits for block i + 1, which starts later.
extern "C" __global__ void backwards(volatile int *flags, int *order)
{
    int i = blockIdx.x;
    if (threadIdx.x == 0) {
        if (i + 1 < gridDim.x)
            while (!flags[i + 1])
                ;
        __threadfence();
        order[i] = i + 1 < gridDim.x ? ((volatile int *)order)[i + 1] + 1 : 0;
        __threadfence();
        flags[i] = 1;
    }
}

// All blocks meet, twice.
extern "C" __global__ void grid_barrier(unsigned *arrived, int *out, int *in)
{
    int next = (blockIdx.x + 1) % gridDim.x;
    for (int turn = 0; turn < 2; turn++) {
        out[blockIdx.x * blockDim.x + threadIdx.x] =
            ((volatile int *)in)[next * blockDim.x + threadIdx.x] + turn;
        __syncthreads();
        if (threadIdx.x == 0) {
            __threadfence();
            atomicAdd(arrived, 1);
            while (*(volatile unsigned *)arrived < gridDim.x * (turn + 1))
                ;
            __threadfence();
        }
        __syncthreads();
        int *other = in;
        in = out;
        out = other;
    }
}
