//% storage = kernel.storage
//% epilogue_parameters = {} -- what only the epilogue reads and writes
//% for _, p in ipairs(kernel.parameters) do
//%     if p.name ~= kernel.a_name and p.name ~= kernel.b_name and p.name ~= "tokens" then
//%         epilogue_parameters[#epilogue_parameters + 1] = p
//%     end
//% end
// ${kernel.title}
//
// ${kernel.entry}: ${kernel.a_name} [tokens, ${kernel.k}] times the transpose of ${kernel.b_name} [${kernel.n}, ${kernel.k}],
// accumulated in fp32; the epilogue reads the accumulators and rounds once, at the store.
//
// Grid: ceil(tokens / tile_m) * ceil(columns / tile_columns) blocks of ${kernel.threads} threads, one tile each.
// Dynamic shared memory: shared_bytes. All pointers start on 16 bytes (checked by the library's launch).
// tokens may be any number from 1 on; rows beyond it are loaded as zeros and not stored.

//% include "device/ptx_copy.cuh"

//% include "device/ptx_mma.cuh"

//% include "device/ptx_convert.cuh"

//% include "device/ptx_math.cuh"

//% include "device/dtype.cuh"

//% include "device/math.cuh"

constexpr int reduction = ${kernel.k};     // length of each dot product
constexpr int columns = ${kernel.columns};       // of the output
constexpr int tile_m = ${kernel.tile_m};           // tokens of a block
constexpr int tile_n = ${kernel.tile_n};           // accumulator columns of a block
//% if kernel.halves == 2 then
constexpr int tile_columns = tile_n / 2;    // outputs of a block: half its accumulators are gates, half ups
//% else
constexpr int tile_columns = tile_n;
//% end
constexpr int tile_k = ${kernel.tile_k};
constexpr int stages = ${kernel.stages};
constexpr int warps_m = ${kernel.warps_m}; // warps along the tokens
constexpr int warps_n = ${kernel.warps_n}; // warps along the columns
constexpr int threads = 32 * warps_m * warps_n;
constexpr int group_m = ${kernel.group_m}; // tiles along the tokens that share columns while they are in L2

constexpr int warp_m = tile_m / warps_m;
constexpr int warp_n = tile_n / warps_n;
constexpr int fragments_m = warp_m / 16;
constexpr int fragments_n = warp_n / 8;
constexpr int k_steps = tile_k / 16;
constexpr int k_tiles = (reduction + tile_k - 1) / tile_k;

// A stage holds tile_m rows of A, then tile_n rows of B; a row is tile_k elements, 64 bytes in four chunks
// of 16. Chunk c of row r is stored at position c ^ (r / 2 % 4): the eight rows that ldmatrix reads at a
// time then lie in different banks.
constexpr int row_bytes = 2 * tile_k;
constexpr int row_chunks = row_bytes / 16;
constexpr int stage_a_bytes = tile_m * row_bytes;
constexpr int stage_bytes = (tile_m + tile_n) * row_bytes;
constexpr int rows_per_pass = threads / row_chunks; // rows that one cp.async of every thread fills
constexpr int passes_a = tile_m / rows_per_pass;
constexpr int passes_b = tile_n / rows_per_pass;

// After the main loop the same memory stages fp32 accumulators, 16 rows of every warp at a time. The
// eight floats of padding put the rows that a warp writes together into different banks.
constexpr int staged_rows = 16 * warps_m;
constexpr int staged_stride = tile_n + 8;
constexpr int vectors_per_row = tile_columns / 4;
constexpr int rows_per_visit = threads / vectors_per_row;

constexpr int shared_bytes = ${kernel.shared_bytes};

static_assert(row_chunks == 4, "the swizzle is made for rows of four chunks");
static_assert(tile_m % rows_per_pass == 0 && tile_columns % rows_per_pass == 0, "whole passes");
static_assert(rows_per_pass % 8 == 0, "a thread's rows share one swizzle");
static_assert(threads % vectors_per_row == 0 && staged_rows % rows_per_visit == 0, "whole visits");
static_assert(stages * stage_bytes <= shared_bytes, "the stages fit");
static_assert(staged_rows * staged_stride * 4 <= shared_bytes, "the staged rows fit");

//% include "epilogues/visit_rows.cuh"

// Where this block's tile lies. Tiles are numbered down groups of group_m tiles of tokens, so that
// blocks that run together share rows and columns.
struct Tile {
    long long first_token;
    int first_column;
};

__device__ __forceinline__ Tile tile_of_block(long long tokens)
{
    constexpr unsigned tiles_n = (columns + tile_columns - 1) / tile_columns;
    const unsigned tiles_m = (unsigned)((tokens + tile_m - 1) / tile_m);
    const unsigned group = blockIdx.x / (group_m * tiles_n);
    const unsigned in_group = blockIdx.x % (group_m * tiles_n);
    const unsigned group_rows = min(tiles_m - group * group_m, (unsigned)group_m);
    return {(long long)(group * group_m + in_group % group_rows) * tile_m,
            (int)(in_group / group_rows) * tile_columns};
}

// This thread's part of filling the stages: one chunk of every rows_per_pass-th row of A and of B.
//% local ragged_n = kernel.columns % (kernel.tile_n // kernel.halves) ~= 0
//% local ragged_k = kernel.k % kernel.tile_k ~= 0
struct Loader {
    const ${storage} *a, *b;         // the whole matrices
    const ${storage} *a_row, *b_row; // this thread's chunk of its first row
    unsigned a_inside;       // bit p: the row of pass p exists
//% if ragged_n then
    unsigned b_inside;
//% end
//% if ragged_k then
    int k_offset; // of the chunk, in elements
//% end
    unsigned destination; // of the chunk, in stage 0

    __device__ __forceinline__ Loader(const ${storage} *a_, const ${storage} *b_, Tile tile, long long tokens,
                                      unsigned shared)
        : a(a_), b(b_)
    {
        const int row = threadIdx.x / row_chunks;
        const int chunk = threadIdx.x % row_chunks;
        a_row = a + (tile.first_token + row) * reduction + 8 * chunk;
        b_row = b + (long long)(tile.first_column + row) * reduction + 8 * chunk;
        a_inside = 0;
#pragma unroll
        for (int pass = 0; pass < passes_a; ++pass)
            a_inside |= (unsigned)(tile.first_token + row + pass * rows_per_pass < tokens) << pass;
//% if ragged_n then
        b_inside = 0;
#pragma unroll
        for (int pass = 0; pass < passes_b; ++pass) {
            const int tile_row = pass * rows_per_pass % tile_columns + row;
            b_inside |= (unsigned)(tile.first_column + tile_row < columns) << pass;
        }
//% end
//% if ragged_k then
        k_offset = 8 * chunk;
//% end
        destination = shared + row * row_bytes + 16 * (chunk ^ (row / 2 % 4));
    }

    // Starts the copies of one k tile. What lies outside is written as zeros and not read.
    __device__ __forceinline__ void load(int stage, int k_tile) const
    {
        const unsigned to = destination + stage * stage_bytes;
        const int k = k_tile * tile_k;
//% if ragged_k then
        const bool k_inside = k + k_offset < reduction;
//% end
#pragma unroll
        for (int pass = 0; pass < passes_a; ++pass) {
            const bool inside = (a_inside >> pass & 1)${ragged_k and " && k_inside" or ""};
            const ${storage} *from = a_row + (long long)pass * rows_per_pass * reduction + k;
            cp_async_16(to + pass * rows_per_pass * row_bytes, inside ? from : a, inside ? 16 : 0);
        }
#pragma unroll
        for (int pass = 0; pass < passes_b; ++pass) {
//% if kernel.halves == 2 then
            // Tile rows below tile_columns are rows of the gate weights, the others of the up weights.
            const int weight_row = pass * rows_per_pass / tile_columns * columns +
                                   pass * rows_per_pass % tile_columns;
//% else
            const int weight_row = pass * rows_per_pass;
//% end
            const ${storage} *from = b_row + (long long)weight_row * reduction + k;
//% local b_inside = {}
//% if ragged_n then b_inside[#b_inside + 1] = "(b_inside >> pass & 1)" end
//% if ragged_k then b_inside[#b_inside + 1] = "k_inside" end
//% if #b_inside > 0 then
            const bool inside = ${table.concat(b_inside, " && ")};
            cp_async_16(to + stage_a_bytes + pass * rows_per_pass * row_bytes, inside ? from : b, inside ? 16 : 0);
//% else
            cp_async_16(to + stage_a_bytes + pass * rows_per_pass * row_bytes, from, 16);
//% end
        }
    }
};

// The operands of one k step of a warp.
struct Fragments {
    unsigned a[fragments_m][4];
    unsigned b[fragments_n / 2][4]; // two fragments of eight columns each: {b0, b1} of both
};

// Where this lane's ldmatrix rows lie. A: matrices in the order (rows 0-7, k 0-7), (rows 8-15, k 0-7),
// (rows 0-7, k 8-15), (rows 8-15, k 8-15). B: (columns 0-7, k 0-7), (columns 0-7, k 8-15), then
// columns 8-15.
struct FragmentReader {
    unsigned a_address, b_address;

    __device__ __forceinline__ FragmentReader(unsigned shared, int warp_row, int warp_column)
    {
        const int lane = threadIdx.x % 32;
        const int a_row = warp_row * warp_m + lane % 16;
        const int a_chunk = lane / 16;
        const int b_row = warp_column * warp_n + lane / 16 * 8 + lane % 8;
        const int b_chunk = lane / 8 % 2;
        a_address = shared + a_row * row_bytes + 16 * (a_chunk ^ (a_row / 2 % 4));
        b_address = shared + stage_a_bytes + b_row * row_bytes + 16 * (b_chunk ^ (b_row / 2 % 4));
    }

    __device__ __forceinline__ void read(Fragments &fragments, int stage, int k_step) const
    {
        // A k step is two chunks further: chunk c + 2 is stored where bit 1 of the position is flipped.
        const unsigned from_a = (a_address + stage * stage_bytes) ^ (32 * k_step);
        const unsigned from_b = (b_address + stage * stage_bytes) ^ (32 * k_step);
#pragma unroll
        for (int i = 0; i < fragments_m; ++i)
            ldmatrix_x4(fragments.a[i], from_a + i * 16 * row_bytes);
#pragma unroll
        for (int j = 0; j < fragments_n / 2; ++j)
            ldmatrix_x4(fragments.b[j], from_b + j * 16 * row_bytes);
    }
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

    const Tile tile = tile_of_block(tokens);
    const Loader loader(${kernel.a_name}, ${kernel.b_name}, tile, tokens, shared);
    const FragmentReader reader(shared, warp_row, warp_column);

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
        if (stage < k_tiles)
            loader.load(stage, stage);
        cp_async_commit();
    }
    cp_async_wait<stages - 2>();
    __syncthreads();

    // Fragments are read one k step ahead of the mma that use them.
    Fragments fragments[2];
    reader.read(fragments[0], 0, 0);
    int stage = 0;
#pragma unroll 1
    for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
        const int next_stage = stage + 1 == stages ? 0 : stage + 1;
        const int free_stage = stage == 0 ? stages - 1 : stage - 1;
#pragma unroll
        for (int k_step = 0; k_step < k_steps; ++k_step) {
            Fragments &next = fragments[(k_step + 1) % 2];
            if (k_step + 1 < k_steps) {
                reader.read(next, stage, k_step + 1);
            } else {
                // The next stage has arrived, and no warp reads this one any more: the next iteration
                // may refill it.
                cp_async_wait<stages - 2>();
                __syncthreads();
                if (k_tile + 1 < k_tiles)
                    reader.read(next, next_stage, 0);
            }
            if (k_step == 0) {
                if (k_tile + stages - 1 < k_tiles)
                    loader.load(free_stage, k_tile + stages - 1);
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
    Epilogue epilogue;
//% for _, p in ipairs(epilogue_parameters) do
    epilogue.${p.name} = ${p.name};
//% end
    epilogue.begin(tile.first_column);
    float *staged = reinterpret_cast<float *>(shared_memory);
    const int lane = threadIdx.x % 32;
    float *mine = staged + (warp_row * 16 + lane / 4) * staged_stride + warp_column * warp_n + lane % 4 * 2;
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
        __syncthreads();
#pragma unroll 1
        for (int row = threadIdx.x / vectors_per_row; row < staged_rows; row += rows_per_visit) {
            const long long token = tile.first_token + row / 16 * warp_m + slice * 16 + row % 16;
            if (token < tokens && epilogue.inside)
                epilogue.visit(staged + row * staged_stride, token);
        }
        __syncthreads();
    }
}
