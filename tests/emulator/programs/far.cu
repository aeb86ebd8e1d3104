// Offsets beyond 32 bits: a grid-stride loop that touches one element in 2^26.
extern "C" __global__ void mark(float *far, size_t count)
{
    size_t step = (size_t)gridDim.x * blockDim.x << 20;
    for (size_t i = (size_t)(blockIdx.x * blockDim.x + threadIdx.x) << 20; i < count; i += step)
        far[i] = (float)(i >> 20);
    if (blockIdx.x == 0 && threadIdx.x == 0)
        far[count - 1] = -1.0f;
}
extern "C" __global__ void collect(float *out, const float *far, size_t count)
{
    size_t i = (size_t)threadIdx.x << 20;
    out[threadIdx.x] = i < count ? far[i] : far[count - 1];
}
