// alu.cu: integers and floats in registers alone: shifts, logic, additions, products, comparisons, selections.
// Made for tools/bench/alu.ptx: see the comment there for how to launch it.

extern "C" __global__ void __launch_bounds__(256)
    alu(const float *, const float *, float *c, int, int, int k)
{
    const unsigned thread = (blockIdx.y * gridDim.x + blockIdx.x) * blockDim.x + threadIdx.x;
    unsigned x = thread * 2654435761u + 1, most = 0;
    float sum = 0.0f, scaled = 1.0f;

#pragma unroll 1
    for (int i = 0; i < k; ++i) {
#pragma unroll
        for (int step = 0; step < 4; ++step) {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            most = x > most ? x : most + (unsigned)step;
            scaled = fmaf(scaled, 0.75f, __uint_as_float((x >> 9) | 0x3f800000u));
            sum += scaled > 4.0f ? scaled : -1.0f;
            x += (x & 255u) * 40503u;
        }
    }
    c[thread] = sum + (float)most;
}
