// wgmma_bf16.cu: C[M,N] = A[M,K] * B[N,K]^T, bf16 in, fp32 out, by bulk copies and wgmma (sm_90a).
// Made for tools/bench/wgmma_bf16.ptx: see the comment there for how to launch it.
//
// One block computes a 128 x 128 tile. Two warpgroups multiply 64 rows each; one more warp loads slices of 64
// of K into a ring of four stages, by tensor maps that swizzle 128 bytes, and is told when both are done with
// a stage. Needs: M and N multiples of 128, K of 64; boxes of 64 x 128 elements.

#include <cuda_bf16.h>

constexpr int tile_m = 128, tile_n = 128, tile_k = 64, stages = 4, accumulators = tile_n / 2;
constexpr int a_bytes = tile_m * tile_k * 2, stage_bytes = a_bytes + tile_n * tile_k * 2;
constexpr int workers = 256, threads = workers + 32;

struct __align__(64) tensor_map {
    unsigned long long words[16];
};

__device__ __forceinline__ void init(unsigned barrier, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void wait(unsigned barrier, int parity)
{
    asm volatile("{\n.reg .pred done;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

__device__ __forceinline__ void arrive(unsigned barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void expect(unsigned barrier, int bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

__device__ __forceinline__ void load(unsigned to, const tensor_map *map, int k, int row, unsigned barrier)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(map), "r"(k), "r"(row), "r"(barrier)
                 : "memory");
}

#define D8(i)                                                                                                \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]),  \
        "+f"(d[i + 7])

// 64 rows and 16 of k; `tile` / 16 with the stride between groups of 8 rows and the swizzle's number.
__device__ __forceinline__ void multiply(float (&d)[accumulators], unsigned a, unsigned b)
{
    constexpr unsigned long long layout = 1ull << 62 | 64ull << 32 | 1ull << 16;
    asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, "
                 "%21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, "
                 "%40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, "
                 "%59, %60, %61, %62, %63}, %64, %65, 1, 1, 1, 0, 0;"
                 : D8(0), D8(8), D8(16), D8(24), D8(32), D8(40), D8(48), D8(56)
                 : "l"(layout | a >> 4), "l"(layout | b >> 4)
                 : "memory");
}

__device__ __forceinline__ void fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

template <int pending>
__device__ __forceinline__ void commit_and_wait()
{
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

extern "C" __global__ void __launch_bounds__(threads)
    wgmma_bf16(const __grid_constant__ tensor_map a_map, const __grid_constant__ tensor_map b_map, float *c, int n,
               int k)
{
    extern __shared__ __align__(1024) unsigned char shared[];
    __shared__ unsigned long long full[stages], empty[stages];
    const unsigned ring = (unsigned)__cvta_generic_to_shared(shared);
    const unsigned full_at = (unsigned)__cvta_generic_to_shared(full);
    const unsigned empty_at = (unsigned)__cvta_generic_to_shared(empty);
    const int slices = k / tile_k, row0 = blockIdx.y * tile_m, column0 = blockIdx.x * tile_n;

    if (threadIdx.x == 0) {
        for (int s = 0; s < stages; ++s) {
            init(full_at + 8 * s, 1);
            init(empty_at + 8 * s, workers / 128);
        }
    }
    __syncthreads();

    const int warp = __shfl_sync(0xffffffff, threadIdx.x / 32, 0); // the same in all lanes, for ptxas
    if (warp >= workers / 32) {
        if (threadIdx.x == workers) {
            for (int i = 0; i < slices; ++i) {
                const unsigned s = i % stages, at = ring + s * stage_bytes, barrier = full_at + 8 * s;
                wait(empty_at + 8 * s, i / stages & 1 ^ 1);
                expect(barrier, stage_bytes);
                load(at, &a_map, i * tile_k, row0, barrier);
                load(at + a_bytes, &b_map, i * tile_k, column0, barrier);
            }
        }
        return;
    }

    const int group = warp / 4;
    float d[accumulators] = {};
#pragma unroll 1
    for (int i = 0; i < slices; ++i) {
        const unsigned s = i % stages, a = ring + s * stage_bytes + group * (a_bytes / 2);
        const unsigned b = ring + s * stage_bytes + a_bytes;
        wait(full_at + 8 * s, i / stages & 1);
        fence();
#pragma unroll
        for (int step = 0; step < tile_k / 16; ++step)
            multiply(d, a + 32 * step, b + 32 * step);
        commit_and_wait<1>(); // the slice before is done
        if (i > 0 && threadIdx.x % 128 == 0)
            arrive(empty_at + 8 * ((i - 1) % stages));
    }
    commit_and_wait<0>();

    const int row = row0 + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
    float *to = c + (size_t)row * n + column0 + threadIdx.x % 4 * 2;
#pragma unroll
    for (int j = 0; j < accumulators; j += 4) {
        *(float2 *)(to + j * 2) = make_float2(d[j], d[j + 1]);
        *(float2 *)(to + (size_t)8 * n + j * 2) = make_float2(d[j + 2], d[j + 3]);
    }
}
