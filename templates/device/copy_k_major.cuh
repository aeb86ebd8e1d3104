// copy_k_major.cuh: ${operand.struct}Copy brings the tiles of ${operand.name} [${operand.rows_text}, ${operand.stride}], which is contiguous
// along the reduction, to shared memory. A stage holds ${operand.tile} rows of tile_k elements in chunks of 16 bytes;
// chunk c of row r lies at position ${layout.k_major_position}.
//% local is_a = operand.struct == "OperandA"
//% local halves = not is_a and kernel.halves == 2
//% local ragged_rows = operand.bound ~= ""
//% local ragged_k = operand.stride % kernel.tile_k ~= 0
struct ${operand.struct}Copy {
    static constexpr int row_bytes = ${layout.k_major_row_bytes};
    static constexpr int bytes = ${operand.tile} * row_bytes;   // of a stage
    static constexpr int row_chunks = tile_k / ${layout.chunk};
    static constexpr int rows_per_pass = threads / row_chunks; // that one cp.async of every thread fills
    static constexpr int passes = ${operand.tile} / rows_per_pass;
    static_assert(${halves and "tile_columns" or operand.tile} % rows_per_pass == 0, "whole passes");
    static_assert(rows_per_pass % 8 == 0, "a thread's chunks have one position");

    const ${storage} *whole, *first; // the matrix, and this thread's chunk of its first row
//% if ragged_rows then
    unsigned inside; // bit p: the row of pass p exists
//% end
//% if ragged_k then
    int k_offset; // of the chunk, in elements
//% end
    unsigned destination; // of the chunk, in stage 0

    // first_row: of the tile; rows: of the matrix; shared: stage 0.
    __device__ __forceinline__ ${operand.struct}Copy(const ${storage} *matrix, long long first_row, ${ragged_rows and "long long rows, " or ""}unsigned shared)
        : whole(matrix)
    {
        const int r = threadIdx.x / row_chunks;
        const int c = threadIdx.x % row_chunks;
        first = matrix + (first_row + r) * ${operand.stride} + ${layout.chunk} * c;
//% if ragged_rows then
        inside = 0;
#pragma unroll
        for (int pass = 0; pass < passes; ++pass)
            inside |= (unsigned)(first_row + r + pass * rows_per_pass${halves and " % tile_columns" or ""} < rows) << pass;
//% end
//% if ragged_k then
        k_offset = ${layout.chunk} * c;
//% end
        destination = shared + r * row_bytes + 16 * (${layout.k_major_position});
    }

    // Starts the copies of one k tile. What lies outside is written as zeros and not read.
    __device__ __forceinline__ void load(int stage, int k_tile) const
    {
        const unsigned to = destination + stage * stage_bytes;
        const int k = k_tile * tile_k;
//% if ragged_k then
        const bool k_inside = k + k_offset < ${operand.stride};
//% end
#pragma unroll
        for (int pass = 0; pass < passes; ++pass) {
//% if halves then
            // Tile rows below tile_columns are rows of the gate weights, the others of the up weights.
            const int row = pass * rows_per_pass / tile_columns * columns + pass * rows_per_pass % tile_columns;
//% else
            const int row = pass * rows_per_pass;
//% end
            const ${storage} *from = first + (long long)row * ${operand.stride} + k;
//% local conditions = {}
//% if ragged_rows then conditions[#conditions + 1] = "(inside >> pass & 1)" end
//% if ragged_k then conditions[#conditions + 1] = "k_inside" end
//% if #conditions > 0 then
            const bool exists = ${table.concat(conditions, " && ")};
            cp_async_16(to + pass * rows_per_pass * row_bytes, exists ? from : whole, exists ? 16 : 0);
//% else
            cp_async_16(to + pass * rows_per_pass * row_bytes, from, 16);
//% end
        }
    }
};
