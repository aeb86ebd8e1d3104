// visit_fragments.cuh: the epilogue of ${kernel.step}, on the accumulators as wgmma leaves them in registers. A warpgroup
// computes panels of 64 rows by 128 bytes, puts each into shared memory in the layout of its tensor map, and one
// thread stores it. Element i of a thread's accumulators is row 16 w + g + 8 (i / 2 % 2), column 8 (i / 4) + 2 t + i % 2
// (w the warp in the warpgroup, g = lane / 4, t = lane % 4).
//% local e = kernel.epilogue
//% local copied, computed = {}, {}
//% for _, r in ipairs(e.stores) do
//%     local list = r.copied and copied or computed
//%     list[#list + 1] = r
//% end
//% local ragged = kernel.columns % (kernel.tile_n // kernel.halves) ~= 0
//% local wide = e.stores[1].type == "float"
//% local sums = #e.column_sums > 0 or #e.row_sums > 0

constexpr int panel_columns = ${wide and 32 or 64};
constexpr int panels = tile_columns / panel_columns;
constexpr int accumulators_per_half = tile_columns / 2; // of a thread
//% if #e.row_sums > 0 then
constexpr int summed_columns = ${kernel.summed_columns}; // of one partial sum of a row
static_assert(summed_columns == tile_columns, "a tile has one partial sum of each row");
//% end
constexpr int consumers_barrier = 3;                     // of all warpgroups; 1 and 2 are those of one

struct Epilogue {
//% for _, p in ipairs(e.parameters) do
    ${p.declaration};
//% end
    int warpgroup;     // from 0: which 64 of the tile's rows
    bool issues;       // this thread starts the copies of its warpgroup
//% if kernel.staged_panels > 0 then
    unsigned staged;   // panels of this warpgroup
    unsigned staged_at[4 * staged_panels]; // where this lane's elements of each quarter of them lie
//% end
//% if #e.element_inputs > 0 then
    unsigned inputs;   // the same, of element inputs
//% end
//% if #e.column_sums > 0 then
    unsigned all_sums; // fp32, for each sum a row of every warp
    unsigned sums;     // this warp's first
//% end
    unsigned in_panel; // where this lane's first elements lie in a panel

    __device__ __forceinline__ void begin(unsigned shared)
    {
        const int lane = threadIdx.x % 32;
        const int warp = threadIdx.x / 32 % 4;
        warpgroup = threadIdx.x / 128 - 1;
        asm volatile("" : "+r"(warpgroup)); // else it, and what follows from it, is computed again for every tile
        issues = threadIdx.x % 128 == 0;
//% if kernel.staged_panels > 0 then
        staged = shared + staged_offset + warpgroup * staged_panels * panel_bytes;
//% end
//% if #e.element_inputs > 0 then
        inputs = shared + inputs_offset + warpgroup * input_panels * panel_bytes;
//% end
//% if #e.column_sums > 0 then
        all_sums = shared + sums_offset;
        sums = all_sums + (4 * warpgroup + warp) * tile_columns * 4;
//% end
//% if wide then
        // Row g, columns 2 t and 2 t + 1: chunk t / 2, 8 bytes of it.
        const int row = 16 * warp + lane / 4;
        in_panel = row * 128 + (lane / 2 % 2 ^ row % 8) * 16 + lane % 2 * 8;
//% else
        // The row whose address this lane gives to ldmatrix and stmatrix, of 16 rows by two chunks.
        const int row = 16 * warp + lane % 16;
        in_panel = row * 128 + (lane / 16 ^ row % 8) * 16;
//% end
//% if kernel.staged_panels > 0 then
#pragma unroll
        for (int i = 0; i < 4 * staged_panels; ++i) {
            staged_at[i] = (staged + i / 4 * panel_bytes + in_panel) ^ (i % 4 * 32);
            asm volatile("" : "+r"(staged_at[i]));
        }
//% end
    }

//% if kernel.staged_panels > 0 then
    // Until what was stored from that panel's place before has been read; all threads of the warpgroup.
    __device__ __forceinline__ void acquire_panel(int panel) const
    {
        if (issues) {
            if (panel == 0)
                bulk_wait_read<0>();
            else
                bulk_wait_read<staged_panels - 1>();
        }
        named_barrier_sync(1 + warpgroup, 128);
    }

//% end
    // Until all of the warpgroup have written, in sight of bulk copies.
    __device__ __forceinline__ void publish_panel() const
    {
        fence_proxy_async();
        named_barrier_sync(1 + warpgroup, 128);
    }

//% local function map_parameters(stores)
//%     local text = ""
//%     for _, r in ipairs(stores) do text = text .. ", const TensorMap &" .. r.map end
//%     return text
//% end
//% local function map_arguments(stores)
//%     local text = ""
//%     for _, r in ipairs(stores) do text = text .. ", " .. r.map end
//%     return text
//% end
//% if #computed > 0 or sums then
    // What is computed.
    __device__ __forceinline__ void compute(const float (&d)[accumulators], Tile tile, long long rows${map_parameters(computed)})
    {
//%     if #e.row_inputs + #e.column_inputs > 0 or sums then
        const int lane = threadIdx.x % 32;
//%     end
//%     if #e.row_inputs > 0 or sums then
        const long long row = tile.first_row + 64 * warpgroup + threadIdx.x / 32 % 4 * 16 + lane / 4;
        const bool row_exists[2] = {row < rows, row + 8 < rows};
//%     end
//%     for _, r in ipairs(e.row_inputs) do
        const float ${r.name}_of_row[2] = {row_exists[0] ? ${r.pointer}[row] : 0.0f, row_exists[1] ? ${r.pointer}[row + 8] : 0.0f};
//%     end
//%     for _, s in ipairs(e.row_sums) do
        float ${s.name}_sum[2] = {0.0f, 0.0f};
//%     end
#pragma unroll
        for (int panel = 0; panel < panels; ++panel) {
//%     for i, r in ipairs(computed) do
//%         if not r.in_input then
            acquire_panel(panel);
//%         end
//%     end
#pragma unroll
            for (int group = 0; group < 8; group += 2) {
                // Eight columns and the next eight; rows g and g + 8.
//%     for i, x in ipairs(e.element_inputs) do
                unsigned ${x.name}_words[4];
//%         if x.where_beta_is_1 then
                ${x.name}_words[0] = ${x.name}_words[1] = ${x.name}_words[2] = ${x.name}_words[3] = 0;
                if (beta != 0)
                    ldmatrix_x4(${x.name}_words, (inputs + (${i - 1} * panels + panel) * panel_bytes + in_panel) ^ (group * 16));
//%         else
                ldmatrix_x4(${x.name}_words, (inputs + (${i - 1} * panels + panel) * panel_bytes + in_panel) ^ (group * 16));
//%         end
//%     end
//%     for _, r in ipairs(computed) do
                float ${r.name}_out[8];
//%     end
//%     for _, s in ipairs(e.column_sums) do
                float ${s.name}_sum[4] = {0.0f, 0.0f, 0.0f, 0.0f}; // of four columns
//%     end
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    const int i = panel * 32 + (group + half) * 4;
//%     if #e.column_inputs > 0 or ragged and #e.row_sums > 0 then
                    const int column = tile.first_column + panel * 64 + (group + half) * 8 + lane % 4 * 2;
//%     end
//%     for _, c in ipairs(e.column_inputs) do
                    float ${c.name}_of_column[2] = {0.0f, 0.0f};
${ragged and "                    if (column < columns)\n    " or ""}                    load2(${c.name}_of_column, ${c.pointer} + ${c.column_offset > 0 and c.column_offset .. " + column" or "column"});
//%     end
#pragma unroll
                    for (int q = 0; q < 4; ++q) {
//%     for half, name in ipairs(e.accumulators) do
                        const float ${name} = d[i + q${half == 2 and " + accumulators_per_half" or ""}];
//%     end
//%     for _, x in ipairs(e.element_inputs) do
                        const float ${x.name} = unpack(${x.name}_words[half * 2 + q / 2], q % 2);
//%     end
//%     for _, c in ipairs(e.column_inputs) do
                        const float ${c.name} = ${c.name}_of_column[q % 2];
//%     end
//%     for _, r in ipairs(e.row_inputs) do
                        const float ${r.name} = ${r.name}_of_row[q / 2];
//%     end
                        ${e.statements}
//%     for _, r in ipairs(computed) do
                        ${r.name}_out[half * 4 + q] = ${r.value};
//%     end
//%     for _, s in ipairs(e.column_sums) do
                        ${s.name}_sum[half * 2 + q % 2] += row_exists[q / 2] ? as_stored(${s.value}) : 0.0f;
//%     end
//%     for _, s in ipairs(e.row_sums) do
                        ${s.name}_sum[q / 2] += ${ragged and "column < columns ? " .. s.value .. " : 0.0f" or s.value};
//%     end
                    }
                }
//%     for i, r in ipairs(computed) do
//%         local place = r.in_input and "(inputs + (" .. i - 1 .. " * panels + panel) * panel_bytes + in_panel) ^ (group * 16)"
//%             or "staged_at[panel % staged_panels * 4 + group / 2]"
                store_group(${place}, ${r.name}_out);
//%     end
//%     for k, s in ipairs(e.column_sums) do
                add_columns(sums + ${k - 1} * sum_bytes + (panel * 64 + group * 8) * 4, ${s.name}_sum);
//%     end
            }
//%     if #computed > 0 then
            publish_panel();
            if (issues) {
//%         for i, r in ipairs(computed) do
                tensor_store_2d(${r.map}, tile.first_column + panel * panel_columns, tile.first_row + 64 * warpgroup, ${r.in_input and "inputs + (" .. i - 1 .. " * panels + panel) * panel_bytes" or "staged + panel % staged_panels * panel_bytes"});
//%         end
                bulk_commit();
            }
//%     end
        }
//%     for _, s in ipairs(e.row_sums) do
        // The four lanes of a row have tile_columns columns of it.
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            ${s.name}_sum[half] += __shfl_xor_sync(0xffffffffu, ${s.name}_sum[half], 1);
            ${s.name}_sum[half] += __shfl_xor_sync(0xffffffffu, ${s.name}_sum[half], 2);
            if (lane % 4 == 0 && row_exists[half])
                ${s.pointer}[(row + 8 * half) * ${s.stride} + tile.first_column / summed_columns] = ${s.name}_sum[half];
        }
//%     end
    }

//% end
//% for _, r in ipairs(copied) do
//%     local at = r.value == e.accumulators[2] and "accumulators_per_half" or "0"
    // ${r.name} is the accumulators as they are.
    __device__ __forceinline__ void copy_${r.name}(const float (&d)[accumulators], Tile tile, const TensorMap &${r.map}${r.adds_where_beta_is_1 and ", bool adds" or ""}) const
    {
#pragma unroll
        for (int panel = 0; panel < panels; ++panel) {
            acquire_panel(panel);
#pragma unroll
            for (int group = 0; group < panel_columns / 8; ${wide and "++group" or "group += 2"}) {
//%     if wide then
                const int i = (panel * 4 + group) * 4;
                shared_store_8(staged_at[panel % staged_panels * 4 + group], d[i], d[i + 1]);
                shared_store_8(staged_at[panel % staged_panels * 4 + group] + 8 * 128, d[i + 2], d[i + 3]);
//%     else
                const int i = ${at} + panel * 32 + group * 4;
                const float out[8] = {d[i], d[i + 1], d[i + 2], d[i + 3], d[i + 4], d[i + 5], d[i + 6], d[i + 7]};
                store_group(staged_at[panel % staged_panels * 4 + group / 2], out);
//%     end
            }
            publish_panel();
            if (issues) {
//%     local where = "tile.first_column + panel * panel_columns, tile.first_row + 64 * warpgroup, staged + panel % staged_panels * panel_bytes"
//%     if r.adds_where_beta_is_1 then
                if (adds)
                    tensor_add_2d(${r.map}, ${where});
                else
                    tensor_store_2d(${r.map}, ${where});
//%     else
                tensor_store_2d(${r.map}, ${where});
//%     end
                bulk_commit();
            }
        }
    }

//% end
//% if not wide then
    // Rows g and g + 8 of eight columns, then of the next eight.
    static __device__ __forceinline__ void store_group(unsigned destination, const float (&out)[8])
    {
        unsigned words[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
            words[i] = fp32_to_${storage}x2(out[2 * i], out[2 * i + 1]);
        stmatrix_x4(destination, words);
    }

//% end
//% if #e.column_sums > 0 then
    // What the eight lanes of a column have of it, over the warp's 16 rows: to shared memory.
    static __device__ __forceinline__ void add_columns(unsigned destination, float (&sum)[4])
    {
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
            for (int distance = 4; distance < 32; distance *= 2)
                sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], distance);
        const int lane = threadIdx.x % 32;
        if (lane < 4) {
            shared_store_8(destination + lane * 8, sum[0], sum[1]);
            shared_store_8(destination + 32 + lane * 8, sum[2], sum[3]);
        }
    }

    // Adds the warps' sums in their order, and stores one row of partial sums for the tile.
    __device__ __forceinline__ void finish_columns(Tile tile, long long rows) const
    {
        named_barrier_sync(consumers_barrier, 32 * consumer_warps);
        for (int c = threadIdx.x - 128; c < tile_columns; c += 32 * consumer_warps) {
//%     for k, s in ipairs(e.column_sums) do
            float ${s.name}_sum = 0.0f;
#pragma unroll
            for (int warp = 0; warp < consumer_warps; ++warp)
                ${s.name}_sum += shared_load_4(all_sums + ${k - 1} * sum_bytes + (warp * tile_columns + c) * 4);
            if (tile.first_column + c < columns${kernel.cluster > 1 and " && tile.first_row < rows" or ""})
                ${s.pointer}[(long long)(tile.first_row / tile_m) * ${s.stride} + ${s.column_offset > 0 and s.column_offset .. " + " or ""}tile.first_column + c] = ${s.name}_sum;
//%     end
        }
        named_barrier_sync(consumers_barrier, 32 * consumer_warps);
    }

//% end
    // All of a tile; all warpgroups.
    __device__ __forceinline__ void run(const float (&d)[accumulators], Tile tile, long long rows${map_parameters(e.stores)})
    {
//% if #computed > 0 or sums then
        compute(d, tile, rows${map_arguments(computed)});
//% end
//% for _, r in ipairs(copied) do
//%     if r.optional then
        if (${r.pointer} != nullptr)
            copy_${r.name}(d, tile, ${r.map});
//%     elseif r.adds_where_beta_is_1 then
        copy_${r.name}(d, tile, ${r.map}, beta != 0);
//%     else
        copy_${r.name}(d, tile, ${r.map});
//%     end
//% end
//% if #e.column_sums > 0 then
        finish_columns(tile, rows);
//% end
    }
};
