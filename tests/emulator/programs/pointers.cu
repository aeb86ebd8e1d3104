// A table of functions: the call goes through a register.
__device__ int add(int a, int b) { return a + b; }
__device__ int subtract(int a, int b) { return a - b; }
__device__ int (*const table[2])(int, int) = {add, subtract};
extern "C" __global__ void indirect(int *out)
{
    out[threadIdx.x] = table[out[threadIdx.x] & 1](threadIdx.x, 5);
}
