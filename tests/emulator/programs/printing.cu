// Text from the device, and a condition that fails.
extern "C" __global__ void print(int count, const char *unused)
{
    if (threadIdx.x == 0)
        printf("block %d of %u: %5.2f|%-4d|%04x|%c|%s|%%|%lld|%p\n", blockIdx.x, gridDim.x,
               blockIdx.x + 0.125, count, 0xab, 'z', "text", -5000000000LL, (void *)0x10);
    int written = threadIdx.x == 33 ? printf("thread %i%s", threadIdx.x, "\n") : 2;
    if (threadIdx.x == 40)
        printf("printf gave %d and takes %*d|%.3s|%+e\n", written, 6, 17, "abcdef", 0.001);
}
extern "C" __global__ void check(const int *limit)
{
    assert(threadIdx.x < *limit && "too many");
}
