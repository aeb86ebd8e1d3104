// Threads that share memory in the right way: the race detector must stay silent.
#include <cuda_pipeline.h>

constexpr int threads = 128;

// Two buffers, one barrier an iteration: the buffer written is the one all have left.
extern "C" __global__ void double_buffer(int *out, const int *in)
{
    __shared__ int buffer[2][threads];
    int me = threadIdx.x, sum = 0;
    buffer[0][me] = in[me];
    for (int i = 0; i < 9; i++) {
        __syncthreads();
        int value = buffer[i % 2][(me + 37) % threads];
        sum += value;
        buffer[(i + 1) % 2][me] = value;
    }
    out[me] = sum;
}

// Three stages of cp.async, the copies of a stage started behind the barrier that all its readers reach.
extern "C" __global__ void ring(int *out, const int *in)
{
    constexpr int stages = 3, turns = 8;
    __shared__ int buffer[stages][threads];
    int me = threadIdx.x, sum = 0;
    for (int i = 0; i < stages - 1; i++) {
        __pipeline_memcpy_async(&buffer[i][me], in + i * threads + me, 4);
        __pipeline_commit();
    }
    for (int i = 0; i < turns; i++) {
        __pipeline_wait_prior(stages - 2);
        __syncthreads();
        sum += buffer[i % stages][(me + 50) % threads];
        int next = i + stages - 1;
        if (next < turns)
            __pipeline_memcpy_async(&buffer[next % stages][me], in + next * threads + me, 4);
        __pipeline_commit();
    }
    out[me] = sum;
}

// Half of the warps fill a buffer, the other half empty it: one barrier says full, one says empty.
extern "C" __global__ void named_barriers(int *out, const int *in)
{
    __shared__ int buffer[threads / 2];
    int me = threadIdx.x % (threads / 2), sum = 0;
    for (int i = 0; i < 5; i++) {
        if (threadIdx.x < threads / 2) {
            if (i > 0)
                asm volatile("bar.sync 2, 128;" ::: "memory");
            buffer[me] = in[me] + i;
            asm volatile("bar.arrive 1, 128;" ::: "memory");
        } else {
            asm volatile("bar.sync 1, 128;" ::: "memory");
            sum += buffer[(me + 33) % (threads / 2)];
            if (i < 4)
                asm volatile("bar.arrive 2, 128;" ::: "memory");
        }
    }
    if (threadIdx.x >= threads / 2)
        out[me] = sum;
}

// Warps pass a plain counter on under a lock that orders by itself.
extern "C" __global__ void acquire_release_lock(int *out, int *lock)
{
    if (threadIdx.x % 32 == 0) {
        int old;
        do {
            asm volatile("atom.acquire.gpu.global.cas.b32 %0, [%1], 0, 1;" : "=r"(old) : "l"(lock) : "memory");
        } while (old != 0);
        *out = *out + 1;
        asm volatile("st.release.gpu.global.b32 [%0], 0;" : : "l"(lock) : "memory");
    }
}

// The same within a block, with the narrowest scope, in shared memory.
extern "C" __global__ void block_lock(int *out)
{
    __shared__ int lock, count;
    if (threadIdx.x == 0)
        lock = count = 0;
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        while (atomicCAS_block(&lock, 0, 1) != 0)
            ;
        __threadfence_block();
        count++;
        __threadfence_block();
        atomicExch_block(&lock, 0);
    }
    __syncthreads();
    if (threadIdx.x == 0)
        atomicAdd(out, count);
}

// Block 1 takes what block 0 wrote when a flag is up.
extern "C" __global__ void flag(int *out, volatile int *raised, int *values)
{
    if (blockIdx.x == 0) {
        values[threadIdx.x] = threadIdx.x + 1;
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) {
            __threadfence();
            *raised = 1;
        }
    } else {
        if (threadIdx.x == 0) {
            while (*raised == 0)
                ;
            __threadfence();
        }
        __syncthreads();
        out[threadIdx.x] = values[(threadIdx.x + 64) % threads];
    }
}

// Warps write every other half word: neighbours share words, not bytes.
extern "C" __global__ void halves(unsigned short *out)
{
    __shared__ unsigned short words[threads];
    int me = threadIdx.x % 32 * 4 + threadIdx.x / 32;
    words[me] = me;
    out[blockIdx.x + 4 * me] = me;
    out[2 + blockIdx.x + 4 * me] = out[blockIdx.x + 4 * me] + words[me];
    __syncthreads();
    out[blockIdx.x + 4 * me] = words[(me + 2) % threads];
}

// Bins in shared memory, then added to bins that all blocks share; every warp reads them behind a barrier.
extern "C" __global__ void bins(int *out, const int *in)
{
    __shared__ int count[8];
    if (threadIdx.x < 8)
        count[threadIdx.x] = 0;
    __syncthreads();
    for (int i = blockIdx.x * threads + threadIdx.x; i < 8 * threads; i += gridDim.x * threads)
        atomicAdd(&count[in[i] % 8], 1);
    __syncthreads();
    if (threadIdx.x < 8)
        atomicAdd(&out[threadIdx.x], count[threadIdx.x]);
}

// In place: another thread of another block has what this one wrote, a launch later.
extern "C" __global__ void rotate(int *to, const int *from)
{
    int me = blockIdx.x * threads + threadIdx.x;
    to[me] = from[(me + threads + 5) % (gridDim.x * threads)] + 1;
}
