//% storage = kernel.storage
//% layout = {
//%     chunk = 4, -- elements of 16 bytes
//%     k_major_row_bytes = "4 * tile_k + 16",
//%     k_major_position = "c",
//%     mn_major_position = "c",
//% }
//% local runs_over_tokens = kernel.k == nil
// ${kernel.title}
//
// ${kernel.entry}: ${kernel.product},
// in fp32 on the FMA units; the epilogue reads the accumulators.
//
// Grid: ceil(${kernel.m_text} / tile_m) * ceil(columns / tile_columns) blocks of ${kernel.threads} threads, one tile each.
// Dynamic shared memory: shared_bytes. All pointers start on 16 bytes (checked by the library's launch).
// tokens may be any number from ${runs_over_tokens and 0 or 1} on; what lies beyond it is loaded as zeros and not stored.

//% include "device/ptx_copy.cuh"

//% include "device/ptx_math.cuh"

//% include "device/dtype.cuh"

//% include "device/math.cuh"

//% include "device/gemm_sizes.cuh"

constexpr int stage_bytes = 4 * (tile_m + tile_n) * (tile_k + 4);
static_assert(tile_m == 128 && tile_n == 128 && threads == 256, "16 x 16 threads, 8 x 8 outputs each");
static_assert(stages * stage_bytes <= shared_bytes, "the stages fit");

// After the main loop the same memory stages accumulators, one row of each of the 16 rows of threads at a time.
constexpr int staged_rows = 16;

//% include "device/tiles.cuh"

//% operand = kernel.a
//% if operand.k_major then
//% include "device/fp32_k_major.cuh"
//% else
//% include "device/fp32_mn_major.cuh"
//% end

//% operand = kernel.b
//% if operand.k_major then
//% include "device/fp32_k_major.cuh"
//% else
//% include "device/fp32_mn_major.cuh"
//% end

// The row of the tile that is staged as `row` in the given slice.
__device__ __forceinline__ int tile_row(int slice, int row)
{
    return OperandA::place(row, slice);
}

//% include "epilogues/visit_rows.cuh"

extern "C" __global__ void __launch_bounds__(threads, 1)
${kernel.entry}(
//% for i, p in ipairs(kernel.parameters) do
    ${p.declaration}${i < #kernel.parameters and "," or ")"}
//% end
{
    extern __shared__ __align__(1024) unsigned char shared_memory[];
    float *shared = reinterpret_cast<float *>(shared_memory);
    const int thread_row = threadIdx.x / 16;
    const int thread_column = threadIdx.x % 16;
//% if runs_over_tokens then
    constexpr long long rows = m;
    const int k_tiles = (int)((tokens + tile_k - 1) / tile_k);
//% else
    const long long rows = tokens;
    constexpr int k_tiles = (reduction + tile_k - 1) / tile_k;
//% end

    const Tile tile = tile_of_block(rows);
    float *shared_b = shared + OperandA::bytes / 4;
    const OperandA a({${kernel.a.name}, tile.first_row, ${kernel.a.bound}shared_address(shared)}, shared, thread_row);
    const OperandB b({${kernel.b.name}, tile.first_column, ${kernel.b.bound}shared_address(shared_b)}, shared_b, thread_column);

    float accumulators[8][8];
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j)
            accumulators[i][j] = 0.0f;

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

    int stage = 0;
#pragma unroll 1
    for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
        // This stage has arrived, and no warp reads the one before it any more: it may be refilled.
        cp_async_wait<stages - 2>();
        __syncthreads();
        if (k_tile + stages - 1 < k_tiles) {
            const int free_stage = stage == 0 ? stages - 1 : stage - 1;
            a.load(free_stage, k_tile + stages - 1);
            b.load(free_stage, k_tile + stages - 1);
        }
        cp_async_commit();
#pragma unroll 1
        for (int k = 0; k < tile_k; k += 4) {
            float a_values[8][4], b_values[8][4];
            a.read(a_values, stage, k);
            b.read(b_values, stage, k);
#pragma unroll
            for (int e = 0; e < 4; ++e)
#pragma unroll
                for (int i = 0; i < 8; ++i)
#pragma unroll
                    for (int j = 0; j < 8; ++j)
                        accumulators[i][j] = fmaf(a_values[i][e], b_values[j][e], accumulators[i][j]);
        }
        stage = stage + 1 == stages ? 0 : stage + 1;
    }

    // No copy is in flight: the last stages - 1 groups are empty.
    __syncthreads();
    float *staged = shared;
    float *mine = staged + thread_row * staged_stride;
//% include "epilogues/begin.cuh"
#pragma unroll 1
    for (int slice = 0; slice < 8; ++slice) {
        // The comparison, rather than accumulators[slice], keeps the accumulators in registers.
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            if (i == slice) {
#pragma unroll
                for (int j = 0; j < 8; ++j)
                    mine[OperandB::place(thread_column, j)] = accumulators[i][j];
            }
        }
        epilogue.visit_slice(staged, slice, tile.first_row, rows);
    }
//% if #kernel.epilogue.column_sums > 0 then
    epilogue.finish(staged, tile);
//% end
}
