// Lanes that leave a loop at different times, by break, continue and return.
extern "C" __global__ void steps(int *out, int count)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count)
        return;
    unsigned n = i;
    int steps = 0;
    while (n != 1) {
        if (n == 0) {
            out[i] = -1;
            return;
        }
        steps++;
        if (n % 2 == 0) {
            n /= 2;
            continue;
        }
        n = 3 * n + 1;
        if (steps > 100)
            break;
    }
    int inner = 0;
    for (int k = 0; k < i % 9; k++)
        for (int m = k; m < 20; m++) {
            if (m * k > i)
                break;
            inner += m;
        }
    out[i] = steps * 1000 + inner;
}

// Threads that have nothing to do leave before a barrier of the others.
extern "C" __global__ void early(int *out, int count)
{
    __shared__ int values[128];
    int i = threadIdx.x;
    if (i >= count)
        return;
    values[i] = i * 3;
    __syncthreads();
    out[i] = values[count - 1 - i];
}

// Three dimensions, and what blocks and threads are called in them.
extern "C" __global__ void place(unsigned *out)
{
    unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    unsigned threads = blockDim.x * blockDim.y * blockDim.z;
    out[block * threads + thread] = block * 1000 + thread;
}
