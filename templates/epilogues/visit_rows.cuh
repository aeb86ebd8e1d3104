// visit_rows.cuh: the epilogue of ${kernel.step}. A main loop stages staged_rows rows of fp32 accumulators in
// shared memory at a time and calls Epilogue::visit_slice; every thread keeps the same four columns
// throughout, so that per-column inputs are read once and column sums stay in registers.
//% local e = kernel.epilogue
//% local ragged = kernel.columns % (kernel.tile_n // kernel.halves) ~= 0

// The eight floats of padding put the rows that a warp writes together into different banks.
constexpr int staged_stride = tile_n + 8;
constexpr int vectors_per_row = tile_columns / 4;
constexpr int rows_per_visit = threads / vectors_per_row;
static_assert(threads % vectors_per_row == 0 && staged_rows % rows_per_visit == 0, "whole visits");
static_assert(staged_rows * staged_stride * 4 <= shared_bytes, "the staged rows fit");
//% if #e.row_sums > 0 then
constexpr int summed_columns = ${kernel.summed_columns}; // of one partial sum of a row
static_assert(vectors_per_row % 32 == 0 && summed_columns == 4 * 32, "a warp's lanes are in one row");
//% end

//% if kernel.halves == 2 then
// The tile's first half of accumulator columns are gate columns, its second half the up columns of the
// same outputs.
//% end
struct Epilogue {
//% for _, p in ipairs(e.parameters) do
    ${p.declaration};
//% end
    int column;         // of this thread's first output, within the whole
    int staged_column;  // the same within the tile
    bool inside;        // the columns exist
//% for _, c in ipairs(e.column_inputs) do
    float ${c.name}[4];
//% end
//% for _, s in ipairs(e.column_sums) do
    float ${s.name}_sum[4]; // of the rows this thread has visited
//% end

    __device__ __forceinline__ void begin(int first_column)
    {
        staged_column = 4 * (threadIdx.x % vectors_per_row);
        column = first_column + staged_column;
        inside = ${ragged and "column < columns" or "true"};
//% for _, s in ipairs(e.column_sums) do
#pragma unroll
        for (int i = 0; i < 4; ++i)
            ${s.name}_sum[i] = 0.0f;
//% end
//% if #e.column_inputs > 0 then
        if (inside) {
//% for _, c in ipairs(e.column_inputs) do
            load4(${c.name}, ${c.pointer} + ${c.column_offset > 0 and c.column_offset .. " + column" or "column"});
//% end
        }
//% end
    }

    // All rows of a slice, which other threads have just written and may write again afterwards.
    __device__ __forceinline__ void visit_slice(const float *staged, int slice, long long first_row, long long rows)
    {
        __syncthreads();
#pragma unroll 1
        for (int row = threadIdx.x / vectors_per_row; row < staged_rows; row += rows_per_visit) {
            const long long output_row = first_row + tile_row(slice, row);
            if (output_row < rows)
                visit(staged + row * staged_stride, output_row);
        }
        __syncthreads();
    }

    // staged: the row's tile_n accumulators; row: of the output.
    __device__ __forceinline__ void visit(const float *staged, long long row)
    {
//% for _, s in ipairs(e.row_sums) do
        float ${s.name}_sum = 0.0f;
//% end
        if (inside) {
//% for half, name in ipairs(e.accumulators) do
            float ${name}_values[4];
            load4(${name}_values, staged + ${half == 1 and "staged_column" or "tile_columns + staged_column"});
//% end
//% for _, x in ipairs(e.element_inputs) do
//%     if x.where_beta_is_1 then
            float ${x.name}_values[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            if (beta != 0)
                load4_mutable(${x.name}_values, ${x.pointer} + row * ${x.stride} + column);
//%     else
            float ${x.name}_values[4];
            load4(${x.name}_values, ${x.pointer} + row * ${x.stride} + ${x.column_offset > 0 and x.column_offset .. " + column" or "column"});
//%     end
//% end
//% for _, r in ipairs(e.row_inputs) do
            const float ${r.name} = ${r.pointer}[row];
//% end
//% for _, r in ipairs(e.stores) do
            float ${r.name}_out[4];
//% end
#pragma unroll
            for (int i = 0; i < 4; ++i) {
//% for _, name in ipairs(e.accumulators) do
                const float ${name} = ${name}_values[i];
//% end
//% for _, x in ipairs(e.element_inputs) do
                const float ${x.name} = ${x.name}_values[i];
//% end
//% for _, c in ipairs(e.column_inputs) do
                const float ${c.name} = this->${c.name}[i];
//% end
                ${e.statements}
//% for _, r in ipairs(e.stores) do
                ${r.name}_out[i] = ${r.value};
//% end
//% for _, s in ipairs(e.column_sums) do
                ${s.name}_sum[i] += as_stored(${s.value});
//% end
//% for _, s in ipairs(e.row_sums) do
                ${s.name}_sum += ${s.value};
//% end
            }
//% for _, r in ipairs(e.stores) do
//%     local place = r.pointer .. " + row * " .. r.stride .. " + " .. (r.column_offset > 0 and r.column_offset .. " + column" or "column")
//%     if r.optional then
            if (${r.pointer} != nullptr)
                store4(${place}, ${r.name}_out);
//%     else
            store4(${place}, ${r.name}_out);
//%     end
//% end
        }
//% for _, s in ipairs(e.row_sums) do
        // The 32 lanes have summed_columns columns of one row.
#pragma unroll
        for (int distance = 16; distance > 0; distance /= 2)
            ${s.name}_sum += __shfl_xor_sync(0xffffffffu, ${s.name}_sum, distance);
        if (threadIdx.x % 32 == 0 && inside)
            ${s.pointer}[row * ${s.stride} + column / summed_columns] = ${s.name}_sum;
//% end
    }
//% if #e.column_sums > 0 then

    // Adds what the threads have of each column in the order of the threads, and stores one row of partial
    // sums for the tile.
    __device__ __forceinline__ void finish(float *shared, Tile tile) const
    {
        static_assert(rows_per_visit * tile_columns * 4 <= shared_bytes, "a sum of every thread fits");
        float *mine = shared + threadIdx.x / vectors_per_row * tile_columns + staged_column;
//% for i, s in ipairs(e.column_sums) do
//%     if i > 1 then
        __syncthreads();
//%     end
        store4(mine, ${s.name}_sum);
        __syncthreads();
        for (int c = threadIdx.x; c < tile_columns; c += threads) {
            float sum = 0.0f;
#pragma unroll
            for (int part = 0; part < rows_per_visit; ++part)
                sum += shared[part * tile_columns + c];
            if (tile.first_column + c < columns)
                ${s.pointer}[tile.first_row / tile_m * ${s.stride} + ${s.column_offset > 0 and s.column_offset .. " + " or ""}tile.first_column + c] = sum;
        }
//% end
    }
//% end
};
