// Keys with values, sorted in shared memory by a network of exchanges; a thread has two of them.
extern "C" __global__ void sort(unsigned *keys, unsigned *values)
{
    extern __shared__ uint2 pairs[];
    unsigned count = 2 * blockDim.x;
    for (unsigned i = threadIdx.x; i < count; i += blockDim.x)
        pairs[i] = make_uint2(keys[i], values[i]);
    for (unsigned size = 2; size <= count; size *= 2)
        for (unsigned stride = size / 2; stride > 0; stride /= 2) {
            __syncthreads();
            unsigned low = 2 * threadIdx.x - (threadIdx.x & (stride - 1)), high = low + stride;
            bool descends = (low & size) != 0;
            uint2 first = pairs[low], second = pairs[high];
            if ((first.x > second.x) != descends) {
                pairs[low] = second;
                pairs[high] = first;
            }
        }
    __syncthreads();
    for (unsigned i = threadIdx.x; i < count; i += blockDim.x) {
        keys[i] = pairs[i].x;
        values[i] = pairs[i].y;
    }
}
