// A function that calls itself and cannot be a loop.
__noinline__ __device__ int ackermann(int m, int n)
{
    return m == 0 ? n + 1 : n == 0 ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1));
}
extern "C" __global__ void recurse(int *out)
{
    *out = ackermann(2, *out);
}
