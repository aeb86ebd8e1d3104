//% storage = kernel.storage
//% layout = {
//%     chunk = 8, -- elements of 16 bytes
//%     k_major_row_bytes = "2 * tile_k",
//%     k_major_position = "c ^ (r / 2 % 4)",
//%     mn_major_position = "c ^ (r % 8)",
//% }
//% local runs_over_tokens = kernel.k == nil
// ${kernel.title}
//
// ${kernel.entry}: ${kernel.product},
// accumulated in fp32; the epilogue reads the accumulators and rounds once, at the store.
//
// Grid: ceil(${kernel.m_text} / tile_m) * ceil(columns / tile_columns) blocks of ${kernel.threads} threads, one tile each.
// Dynamic shared memory: shared_bytes. All pointers start on 16 bytes (checked by the library's launch).
// tokens may be any number from ${runs_over_tokens and 0 or 1} on; what lies beyond it is loaded as zeros and not stored.

//% include "device/ptx_copy.cuh"

//% include "device/ptx_matrix.cuh"

//% include "device/ptx_mma.cuh"

//% include "device/ptx_convert.cuh"

//% include "device/ptx_math.cuh"

//% include "device/dtype.cuh"

//% include "device/math.cuh"

//% include "device/gemm_sizes.cuh"

constexpr int warps_m = ${kernel.warps_m}; // warps along the rows
constexpr int warps_n = ${kernel.warps_n}; // warps along the columns
constexpr int warp_m = tile_m / warps_m;
constexpr int warp_n = tile_n / warps_n;
constexpr int fragments_m = warp_m / 16;
constexpr int fragments_n = warp_n / 8;
constexpr int k_steps = tile_k / 16;
constexpr int stage_bytes = 2 * (tile_m + tile_n) * tile_k;
static_assert(threads == 32 * warps_m * warps_n, "every warp has its part");
static_assert(stages * stage_bytes <= shared_bytes, "the stages fit");

// After the main loop the same memory stages fp32 accumulators, 16 rows of every warp at a time.
constexpr int staged_rows = 16 * warps_m;

// The row of the tile that is staged as `row` in the given slice.
__device__ __forceinline__ int tile_row(int slice, int row)
{
    return row / 16 * warp_m + slice * 16 + row % 16;
}

//% include "device/tiles.cuh"

//% operand = kernel.a
//% if operand.k_major then
//% include "device/mma_k_major.cuh"
//% else
//% include "device/mma_mn_major.cuh"
//% end

//% operand = kernel.b
//% if operand.k_major then
//% include "device/mma_k_major.cuh"
//% else
//% include "device/mma_mn_major.cuh"
//% end

//% include "epilogues/visit_rows.cuh"

// The operands of one k step of a warp.
struct Fragments {
    unsigned a[fragments_m][4];
    unsigned b[fragments_n / 2][4]; // two fragments of eight columns each: {b0, b1} of both
};

extern "C" __global__ void __launch_bounds__(threads, 1)
${kernel.entry}(
//% for i, p in ipairs(kernel.parameters) do
    ${p.declaration}${i < #kernel.parameters and "," or ")"}
//% end
{
    extern __shared__ __align__(1024) unsigned char shared_memory[];
    const unsigned shared = shared_address(shared_memory);
    const int warp = threadIdx.x / 32;
    const int warp_row = warp / warps_n;
    const int warp_column = warp % warps_n;
//% if runs_over_tokens then
    constexpr long long rows = m;
    const int k_tiles = (int)((tokens + tile_k - 1) / tile_k);
//% else
    const long long rows = tokens;
    constexpr int k_tiles = (reduction + tile_k - 1) / tile_k;
//% end

    const Tile tile = tile_of_block(rows);
    const unsigned shared_b = shared + OperandA::bytes;
    const OperandA a({${kernel.a.name}, tile.first_row, ${kernel.a.bound}shared}, shared, warp_row * warp_m);
    const OperandB b({${kernel.b.name}, tile.first_column, ${kernel.b.bound}shared_b}, shared_b, warp_column * warp_n);

    float accumulators[fragments_m][fragments_n][4];
#pragma unroll
    for (int i = 0; i < fragments_m; ++i)
#pragma unroll
        for (int j = 0; j < fragments_n; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e)
                accumulators[i][j][e] = 0.0f;

    // Every iteration commits one group, filled or not, so that the newest stages - 2 groups may always be
    // unfinished when the next stage is needed.
#pragma unroll
    for (int stage = 0; stage < stages - 1; ++stage) {
        if (stage < k_tiles) {
            a.load(stage, stage);
            b.load(stage, stage);
        }
        cp_async_commit();
    }
    cp_async_wait<stages - 2>();
    __syncthreads();

    // Fragments are read one k step ahead of the mma that use them.
    Fragments fragments[2];
//% if runs_over_tokens then
    if (k_tiles > 0) {
        a.read(fragments[0].a, 0, 0);
        b.read(fragments[0].b, 0, 0);
    }
//% else
    a.read(fragments[0].a, 0, 0);
    b.read(fragments[0].b, 0, 0);
//% end
    int stage = 0;
#pragma unroll 1
    for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
        const int next_stage = stage + 1 == stages ? 0 : stage + 1;
        const int free_stage = stage == 0 ? stages - 1 : stage - 1;
#pragma unroll
        for (int k_step = 0; k_step < k_steps; ++k_step) {
            Fragments &next = fragments[(k_step + 1) % 2];
            if (k_step + 1 < k_steps) {
                a.read(next.a, stage, k_step + 1);
                b.read(next.b, stage, k_step + 1);
            } else {
                // The next stage has arrived, and no warp reads this one any more: the next iteration
                // may refill it.
                cp_async_wait<stages - 2>();
                __syncthreads();
                if (k_tile + 1 < k_tiles) {
                    a.read(next.a, next_stage, 0);
                    b.read(next.b, next_stage, 0);
                }
            }
            if (k_step == 0) {
                if (k_tile + stages - 1 < k_tiles) {
                    a.load(free_stage, k_tile + stages - 1);
                    b.load(free_stage, k_tile + stages - 1);
                }
                cp_async_commit();
            }
            const Fragments &current = fragments[k_step % 2];
#pragma unroll
            for (int i = 0; i < fragments_m; ++i)
#pragma unroll
                for (int j = 0; j < fragments_n; ++j)
                    mma_m16n8k16(accumulators[i][j], current.a[i], current.b[j / 2][j % 2 * 2],
                                 current.b[j / 2][j % 2 * 2 + 1]);
        }
        stage = next_stage;
    }

    // The last barrier of the loop came after every read of the stages, and no copy is in flight: the
    // last stages - 1 groups are empty.
    float *staged = reinterpret_cast<float *>(shared_memory);
    const int lane = threadIdx.x % 32;
    float *mine = staged + (warp_row * 16 + lane / 4) * staged_stride + warp_column * warp_n + lane % 4 * 2;
//% include "epilogues/begin.cuh"
#pragma unroll 1
    for (int slice = 0; slice < fragments_m; ++slice) {
        // Rows 16 * slice .. + 15 of every warp. The comparison, rather than accumulators[slice], keeps
        // the accumulators in registers.
#pragma unroll
        for (int i = 0; i < fragments_m; ++i) {
            if (i == slice) {
#pragma unroll
                for (int j = 0; j < fragments_n; ++j) {
                    const float *d = accumulators[i][j];
                    *reinterpret_cast<float2 *>(mine + j * 8) = make_float2(d[0], d[1]);
                    *reinterpret_cast<float2 *>(mine + 8 * staged_stride + j * 8) = make_float2(d[2], d[3]);
                }
            }
        }
        epilogue.visit_slice(staged, slice, tile.first_row, rows);
    }
//% if #kernel.epilogue.column_sums > 0 then
    epilogue.finish(staged, tile);
//% end
}
