//% storage = kernel.storage
//% local e = kernel.epilogue
//% local runs_over_tokens = kernel.k == nil
//% local consumers = kernel.tile_m // 64
//% local store_maps = ""
//% for _, r in ipairs(e.stores) do store_maps = store_maps .. ", " .. r.map end
// ${kernel.title}
//
// ${kernel.entry}: ${kernel.product},
// accumulated in fp32; the epilogue reads the accumulators and rounds once, at the store.
//
// Grid: as many blocks of ${kernel.threads} threads as the device runs at once, or fewer; each takes one tile after the other.
// The first warpgroup brings tiles to shared memory, a stage at a time; ${consumers == 2 and "the two others multiply them, 64 rows each,\n// and store" or "the other multiplies them\n// and stores"} what the epilogue makes of the sums while the stages fill again.
// Dynamic shared memory: shared_bytes. The tensor maps are made by the library's launch.
// tokens may be any number from ${runs_over_tokens and 0 or 1} on; what lies beyond it is loaded as zeros and not stored.

//% include "device/ptx_grid.cuh"

//% include "device/ptx_copy.cuh"

//% include "device/ptx_mbarrier.cuh"

//% include "device/ptx_tensor.cuh"

//% include "device/ptx_matrix.cuh"

//% include "device/ptx_wgmma.cuh"

//% if kernel.cluster > 1 then
//% include "device/ptx_cluster.cuh"

//% end
//% include "device/ptx_convert.cuh"

//% include "device/ptx_math.cuh"

//% include "device/dtype.cuh"

//% include "device/math.cuh"

//% include "device/gemm_sizes.cuh"

constexpr int consumers = ${consumers}; // warpgroups that multiply
constexpr int accumulators = tile_n / 2; // of a thread: 64 rows by tile_n columns for 128 threads
constexpr int stage_bytes = 2 * (tile_m + tile_n) * tile_k;
constexpr int staged_panels = ${kernel.staged_panels}; // of a warpgroup, between the epilogue and the copies that store
constexpr int input_panels = ${kernel.input_panels};   // of a warpgroup, of element inputs
constexpr int consumer_warps = 4 * consumers;
constexpr int sum_bytes = consumer_warps * tile_columns * 4; // of a column sum: every warp's
constexpr int panel_bytes = 8192; // 64 rows of 128 bytes
constexpr int staged_offset = stages * stage_bytes;
constexpr int inputs_offset = staged_offset + consumers * staged_panels * panel_bytes;
constexpr int sums_offset = inputs_offset + consumers * input_panels * panel_bytes;
constexpr int barriers_offset = sums_offset + ${#e.column_sums} * sum_bytes;
static_assert(threads == 128 * (1 + consumers) && tile_m == 64 * consumers && tile_k == 64, "the roles of the warpgroups");
static_assert(barriers_offset + 8 * (2 * stages + 2) <= shared_bytes, "all parts fit");

//% if consumers == 2 then
// Registers of a thread: all have 168 at first, and the block has 65536.
constexpr int producer_registers = 40;
constexpr int consumer_registers = 232;

//% end
//% include "device/persistent_tiles.cuh"

//% operand = kernel.a
//% include "device/wgmma_operand.cuh"

//% operand = kernel.b
//% include "device/wgmma_operand.cuh"

//% include "epilogues/visit_fragments.cuh"

// A place in the ring of stages, and how often it went round.
struct RingPlace {
    int stage = 0;
    unsigned parity = 0;

    __device__ __forceinline__ void advance()
    {
        if (++stage == stages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

// Descriptor of a tile in shared memory for wgmma (PTX ISA 9.0, section 9.7.15.5.1): address, leading and stride
// byte offsets in units of 16 bytes, and 1 for a swizzle of 128 bytes. Eight rows of 128 bytes are one stride.
__device__ __forceinline__ unsigned long long descriptor(unsigned address, unsigned leading_bytes)
{
    const unsigned low = (address & 0x3ffff) >> 4 | leading_bytes >> 4 << 16;
    return (unsigned long long)(1u << 30 | 1024 >> 4) << 32 | low;
}

// One arrival of a warp, whose products have read the stage${kernel.cluster > 1 and ", in every block that fills it" or ""}.
__device__ __forceinline__ void release_stage(unsigned barrier, int lane)
{
//% if kernel.cluster > 1 then
    if (lane < cluster)
        mbarrier_arrive_at(barrier, lane);
//% else
    if (lane == 0)
        mbarrier_arrive(barrier);
//% end
}

extern "C" __global__ void __launch_bounds__(threads, 1)${kernel.cluster > 1 and " __cluster_dims__(cluster, 1, 1)" or ""}
${kernel.entry}(
//% for _, map in ipairs(kernel.maps) do
    const __grid_constant__ TensorMap ${map.name},
//% end
//% for i, p in ipairs(kernel.parameters) do
    ${p.declaration}${i < #kernel.parameters and "," or ")"}
//% end
{
    extern __shared__ __align__(1024) unsigned char shared_memory[];
    const unsigned shared = shared_address(shared_memory);
    const unsigned full = shared + barriers_offset;   // of each stage: its tiles have arrived
    const unsigned empty = full + 8 * stages;         // of each stage: nobody reads it any more
//% if #e.element_inputs > 0 then
    const unsigned inputs_full = empty + 8 * stages;  // the same of the element inputs
    const unsigned inputs_empty = inputs_full + 8;
//% end
//% if runs_over_tokens then
    constexpr long long rows = m;
    const int k_tiles = (int)((tokens + tile_k - 1) / tile_k);
//% else
    const long long rows = tokens;
    constexpr int k_tiles = (reduction + tile_k - 1) / tile_k;
//% end
    const TileOrder order(rows);
//% if kernel.cluster > 1 then
    const unsigned rank = cluster_rank();
//% else
    constexpr unsigned rank = 0;
//% end

    if (threadIdx.x == 0) {
//% for _, map in ipairs(kernel.maps) do
//%     if not map.optional then
        tensor_prefetch_map(${map.name});
//%     end
//% end
        for (int stage = 0; stage < stages; ++stage) {
            mbarrier_init(full + 8 * stage, 1);
            mbarrier_init(empty + 8 * stage, consumer_warps * cluster);
        }
//% if #e.element_inputs > 0 then
        mbarrier_init(inputs_full, 1);
        mbarrier_init(inputs_empty, consumers);
//% end
        fence_mbarrier_init();
    }
    // No tensor is touched before: the kernel before this one may still run. Nothing is gained by a later word to the next
    // kernel, whose blocks wait here too: shared memory keeps them out until blocks of this one leave, and all have begun.
    wait_for_previous_grid();
    allow_next_grid();
//% if kernel.cluster > 1 then
    cluster_sync();
//% else
    __syncthreads();
//% end

    // The same for all lanes of a warp, and known to be.
    const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0);
    if (warpgroup == 0) {
//% if consumers == 2 then
        release_registers<producer_registers>();
//% end
        if (threadIdx.x == 0) {
            RingPlace place;
//% if #e.element_inputs > 0 then
            unsigned inputs_parity = 0;
//% end
#pragma unroll 1
            for (unsigned index = blockIdx.x / cluster; index < order.count(); index += gridDim.x / cluster) {
                const Tile tile = order.at(index, rank);
#pragma unroll 1
                for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
                    const unsigned to = shared + place.stage * stage_bytes;
                    const unsigned barrier = full + 8 * place.stage;
                    mbarrier_wait${kernel.cluster > 1 and "_for_cluster" or ""}(empty + 8 * place.stage, place.parity ^ 1); // free at first
                    mbarrier_arrive_expect(barrier, stage_bytes);
                    OperandA::load(to, map_a, barrier, tile.first_row, k_tile);
                    OperandB::load(to + OperandA::bytes, map_b, barrier, tile.first_column, k_tile${kernel.cluster > 1 and ", rank" or ""});
                    place.advance();
                }
//% if #e.element_inputs > 0 then
                // Only now: the epilogue before this one is over when the stages of this tile were taken.
                mbarrier_wait(inputs_empty, inputs_parity ^ 1);
                inputs_parity ^= 1;
//%     local wanted = e.element_inputs[1].where_beta_is_1 and "beta == 0 ? 0 : " or ""
                mbarrier_arrive_expect(inputs_full, ${wanted}consumers * input_panels * panel_bytes);
//%     if wanted ~= "" then
                if (beta != 0)
//%     end
#pragma unroll
                for (int panel = 0; panel < panels; ++panel) {
#pragma unroll
                    for (int half = 0; half < consumers; ++half) {
                        const unsigned to = shared + inputs_offset + (half * input_panels + panel) * panel_bytes;
                        const int x = tile.first_column + panel * panel_columns;
                        const int y = tile.first_row + 64 * half;
//%     for i, input in ipairs(e.element_inputs) do
                        tensor_load_2d(to + ${i - 1} * panels * panel_bytes, ${input.map}, inputs_full, x, y);
//%     end
                    }
                }
//% end
            }
        }
    } else {
//% if consumers == 2 then
        acquire_registers<consumer_registers>();
//% end
        const int lane = threadIdx.x % 32;
        // Of the first stage; those of the others are so many units further, without a carry out of the address.
        const unsigned long long first_a = descriptor(shared + (warpgroup - 1) * (OperandA::bytes / consumers), OperandA::leading_bytes);
        const unsigned long long first_b = descriptor(shared + OperandA::bytes, OperandB::leading_bytes);
        Epilogue epilogue;
//% for _, p in ipairs(e.parameters) do
        epilogue.${p.name} = ${p.name};
//% end
        epilogue.begin(shared);
        RingPlace place;
//% if #e.element_inputs > 0 then
        unsigned inputs_parity = 0;
//% end
        float d[accumulators];
#pragma unroll
        for (int i = 0; i < accumulators; ++i)
            d[i] = 0.0f;
#pragma unroll 1
        for (unsigned index = blockIdx.x / cluster; index < order.count(); index += gridDim.x / cluster) {
            const Tile tile = order.at(index, rank);
            int before = 0; // the stage that the newest products but one have read
#pragma unroll 1
            for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
                const unsigned long long a = first_a + place.stage * (stage_bytes >> 4);
                const unsigned long long b = first_b + place.stage * (stage_bytes >> 4);
                mbarrier_wait(full + 8 * place.stage, place.parity);
                wgmma_fence();
#pragma unroll
                for (int step = 0; step < tile_k / 16; ++step)
                    wgmma(d, a + (step * OperandA::k_step_bytes >> 4), b + (step * OperandB::k_step_bytes >> 4),
                          step > 0 || k_tile > 0);
                wgmma_commit();
                // One group stays in flight; the stage of the one before is free.
                wgmma_wait<1>();
                if (k_tile > 0)
                    release_stage(empty + 8 * before, lane);
                before = place.stage;
                place.advance();
            }
            wgmma_wait_all(d);
//% if runs_over_tokens then
            if (k_tiles > 0)
//% end
                release_stage(empty + 8 * before, lane);
//% if #e.element_inputs > 0 then
            mbarrier_wait(inputs_full, inputs_parity);
            inputs_parity ^= 1;
//% end
            epilogue.run(d, tile, rows${store_maps});
//% if #e.element_inputs > 0 then
            // What is stored was written over the inputs.
            if (epilogue.issues) {
                bulk_wait_read<0>();
                mbarrier_arrive(inputs_empty);
            }
//% end
        }
        if (epilogue.issues)
            bulk_wait();
    }
//% if kernel.cluster > 1 then
    // No block leaves while another may still tell it something.
    cluster_sync();
//% end
}
