// gemm_fp32.cu: C[M,N] = A[M,K] * B[K,N], all row-major fp32, with FMA instructions.
// Made for tools/bench/gemm_fp32.ptx: see the comment there for how to launch it.
//
// One block of 256 threads computes a 128 x 128 tile, a thread 8 x 8 elements of it. K is consumed in
// slices of 8: A is stored transposed, so that both operands of a slice are read as float4.
// Needs: M and N multiples of 128, K of 8; all pointers 16-byte aligned.

constexpr int tile = 128, tile_k = 8, threads = 256;

extern "C" __global__ void __launch_bounds__(threads)
    gemm_fp32(const float *a, const float *b, float *c, int m, int n, int k)
{
    __shared__ __align__(16) float a_tile[tile_k][tile], b_tile[tile_k][tile];
    const int thread = threadIdx.x, row = thread / 16 * 8, column = thread % 16 * 8;
    const float *a_from = a + (size_t)(blockIdx.y * tile + thread / 2) * k + thread % 2 * 4;
    const float *b_from = b + (size_t)(thread / 32) * n + blockIdx.x * tile + thread % 32 * 4;
    float acc[8][8] = {};

    for (int slice = 0; slice < k; slice += tile_k) {
        float4 va = *(const float4 *)(a_from + slice);
        float4 vb = *(const float4 *)(b_from + (size_t)slice * n);
        a_tile[thread % 2 * 4 + 0][thread / 2] = va.x;
        a_tile[thread % 2 * 4 + 1][thread / 2] = va.y;
        a_tile[thread % 2 * 4 + 2][thread / 2] = va.z;
        a_tile[thread % 2 * 4 + 3][thread / 2] = va.w;
        *(float4 *)&b_tile[thread / 32][thread % 32 * 4] = vb;
        __syncthreads();
#pragma unroll
        for (int t = 0; t < tile_k; t++) {
            float fa[8], fb[8];
            *(float4 *)&fa[0] = *(const float4 *)&a_tile[t][row];
            *(float4 *)&fa[4] = *(const float4 *)&a_tile[t][row + 4];
            *(float4 *)&fb[0] = *(const float4 *)&b_tile[t][column];
            *(float4 *)&fb[4] = *(const float4 *)&b_tile[t][column + 4];
#pragma unroll
            for (int i = 0; i < 8; i++) {
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    acc[i][j] = fmaf(fa[i], fb[j], acc[i][j]);
                }
            }
        }
        __syncthreads();
    }
    float *to = c + (size_t)(blockIdx.y * tile + row) * n + blockIdx.x * tile + column;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        *(float4 *)(to + (size_t)i * n) = make_float4(acc[i][0], acc[i][1], acc[i][2], acc[i][3]);
        *(float4 *)(to + (size_t)i * n + 4) = make_float4(acc[i][4], acc[i][5], acc[i][6], acc[i][7]);
    }
}
