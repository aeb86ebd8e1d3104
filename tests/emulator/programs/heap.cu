// Memory from the device's heap.
extern "C" __global__ void allocate(int **out)
{
    *out = (int *)malloc(64);
}
