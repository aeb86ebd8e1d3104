// gemm_bf16.cu: C[M,N] = A[M,K] * B[N,K]^T, bf16 in, fp32 out, on tensor cores (sm_80 and newer).
// Made for tools/bench/gemm_bf16.ptx: see the comment there for how to launch it.
//
// One block computes a 128 x 256 tile with eight warps of 64 x 64. K is consumed in slices of 32
// through a ring of four stages in shared memory, filled by cp.async. A row of a slice is 64 bytes,
// four chunks of 16; chunk c of row r is stored at place c ^ ((r >> 1) & 3), so that the eight rows an
// ldmatrix reads lie in different banks.
// Needs: M a multiple of 128, N of 256, K of 32, K at least 96; A, B 16-byte aligned, C 8-byte.

#include <cuda_bf16.h>

constexpr int tile_m = 128, tile_n = 256, tile_k = 32, stages = 4;
constexpr int row_bytes = tile_k * 2;
constexpr int a_bytes = tile_m * row_bytes, b_bytes = tile_n * row_bytes;
constexpr int stage_bytes = a_bytes + b_bytes;
constexpr int threads = 256;

__device__ __forceinline__ void copy_16(unsigned to, const void *from)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

__device__ __forceinline__ void load_4(unsigned (&r)[4], unsigned from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

__device__ __forceinline__ void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ unsigned place(int row, int chunk)
{
    return row * row_bytes + ((chunk ^ (row >> 1 & 3)) << 4);
}

// Rows row0 .. of a row-major [rows, K] matrix, columns k0 .. k0 + 31, into one operand of a stage.
template <int rows>
__device__ __forceinline__ void fetch(unsigned to, const __nv_bfloat16 *from, int row0, int k0, int k)
{
#pragma unroll
    for (int i = threadIdx.x; i < rows * 4; i += threads) {
        int row = i >> 2, chunk = i & 3;
        copy_16(to + place(row, chunk), from + (size_t)(row0 + row) * k + k0 + chunk * 8);
    }
}

extern "C" __global__ void __launch_bounds__(threads)
    gemm_bf16(const __nv_bfloat16 *a, const __nv_bfloat16 *b, float *c, int m, int n, int k)
{
    extern __shared__ __align__(128) unsigned char shared[];
    const unsigned ring = (unsigned)__cvta_generic_to_shared(shared);
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const int row0 = blockIdx.y * tile_m, column0 = blockIdx.x * tile_n;
    const int warp_row = (warp & 1) * 64, warp_column = (warp >> 1) * 64;
    const int slices = k / tile_k;
    float acc[4][8][4] = {};

    for (int s = 0; s < stages - 1; s++) {
        fetch<tile_m>(ring + s * stage_bytes, a, row0, s * tile_k, k);
        fetch<tile_n>(ring + s * stage_bytes + a_bytes, b, column0, s * tile_k, k);
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
    for (int slice = 0; slice < slices; slice++) {
        asm volatile("cp.async.wait_group %0;" ::"n"(stages - 2) : "memory");
        __syncthreads();
        int next = slice + stages - 1;
        if (next < slices) {
            unsigned to = ring + next % stages * stage_bytes;
            fetch<tile_m>(to, a, row0, next * tile_k, k);
            fetch<tile_n>(to + a_bytes, b, column0, next * tile_k, k);
        }
        asm volatile("cp.async.commit_group;" ::: "memory");
        const unsigned a_tile = ring + slice % stages * stage_bytes, b_tile = a_tile + a_bytes;
#pragma unroll
        for (int step = 0; step < tile_k / 16; step++) {
            unsigned fa[4][4], fb[4][4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                load_4(fa[i], a_tile + place(warp_row + i * 16 + (lane & 15), step * 2 + (lane >> 4)));
            }
#pragma unroll
            for (int j = 0; j < 4; j++) {
                int row = warp_column + j * 16 + (lane & 7) + (lane >> 4) * 8;
                load_4(fb[j], b_tile + place(row, step * 2 + (lane >> 3 & 1)));
            }
#pragma unroll
            for (int i = 0; i < 4; i++) {
#pragma unroll
                for (int j = 0; j < 8; j++) {
                    multiply(acc[i][j], fa[i], fb[j >> 1][(j & 1) * 2], fb[j >> 1][(j & 1) * 2 + 1]);
                }
            }
        }
    }
    const int row = row0 + warp_row + (lane >> 2), column = column0 + warp_column + (lane & 3) * 2;
#pragma unroll
    for (int i = 0; i < 4; i++) {
#pragma unroll
        for (int j = 0; j < 8; j++) {
            float *to = c + (size_t)(row + i * 16) * n + column + j * 8;
            *(float2 *)to = make_float2(acc[i][j][0], acc[i][j][1]);
            *(float2 *)(to + (size_t)8 * n) = make_float2(acc[i][j][2], acc[i][j][3]);
        }
    }
}
