// The library's barrier, which is an mbarrier: threads of two halves hand numbers over, turn after turn.
#include <cuda/barrier>

using barrier = cuda::barrier<cuda::thread_scope_block>;

extern "C" __global__ void hand_over(int *out, const int *in, int turns)
{
    __shared__ alignas(barrier) char memory[2][sizeof(barrier)];
    __shared__ int buffer[64];
    barrier *full = reinterpret_cast<barrier *>(memory[0]), *empty = reinterpret_cast<barrier *>(memory[1]);
    if (threadIdx.x == 0) {
        init(full, 128);
        init(empty, 128);
    }
    __syncthreads();
    int me = threadIdx.x % 64, sum = 0;
    for (int turn = 0; turn < turns; turn++) {
        if (threadIdx.x < 64) {
            buffer[me] = in[me] + turn;
            (void)full->arrive();
            empty->arrive_and_wait();
        } else {
            full->arrive_and_wait();
            sum = 3 * sum + buffer[63 - me];
            (void)empty->arrive();
        }
    }
    if (threadIdx.x >= 64)
        out[me] = sum;
}
