// copy_mn_major.cuh: ${operand.struct}Copy brings the tiles of ${operand.name} [${operand.rows_text}, ${operand.stride}], whose rows are steps
// of the reduction, to shared memory as they are stored, without a transposed copy. A stage holds tile_k rows of
// ${operand.tile} elements in chunks of 16 bytes; chunk c of row r lies at position ${layout.mn_major_position}.
//% local ragged_columns = operand.stride % operand.tile_size ~= 0
//% local ragged_k = operand.bound ~= ""
struct ${operand.struct}Copy {
    static constexpr int row_bytes = 16 * ${operand.tile} / ${layout.chunk};
    static constexpr int bytes = tile_k * row_bytes; // of a stage
    static constexpr int row_chunks = row_bytes / 16;
    static constexpr int rows_per_pass = threads / row_chunks; // that one cp.async of every thread fills
    static constexpr int passes = tile_k / rows_per_pass;
    static_assert(tile_k % rows_per_pass == 0, "whole passes");
    static_assert(rows_per_pass % 8 == 0, "a thread's chunks have one position");

    const ${storage} *whole, *first; // the matrix, and this thread's chunk of its first row
//% if ragged_k then
    long long left; // rows of the matrix from this thread's first on
//% end
//% if ragged_columns then
    bool inside; // the chunk's columns exist
//% end
    unsigned destination; // of the chunk, in stage 0

    // first_column: of the tile; reduction: rows of the matrix; shared: stage 0.
    __device__ __forceinline__ ${operand.struct}Copy(const ${storage} *matrix, long long first_column, ${ragged_k and "long long reduction, " or ""}unsigned shared)
        : whole(matrix)
    {
        const int r = threadIdx.x / row_chunks;
        const int c = threadIdx.x % row_chunks;
        first = matrix + (long long)r * ${operand.stride} + first_column + ${layout.chunk} * c;
//% if ragged_k then
        left = reduction - r;
//% end
//% if ragged_columns then
        inside = first_column + ${layout.chunk} * c < ${operand.stride};
//% end
        destination = shared + r * row_bytes + 16 * (${layout.mn_major_position});
    }

    // Starts the copies of one k tile. What lies outside is written as zeros and not read.
    __device__ __forceinline__ void load(int stage, int k_tile) const
    {
        const unsigned to = destination + stage * stage_bytes;
        const long long k = (long long)k_tile * tile_k;
#pragma unroll
        for (int pass = 0; pass < passes; ++pass) {
            const ${storage} *from = first + (k + pass * rows_per_pass) * ${operand.stride};
//% local conditions = {}
//% if ragged_k then conditions[#conditions + 1] = "k + pass * rows_per_pass < left" end
//% if ragged_columns then conditions[#conditions + 1] = "inside" end
//% if #conditions > 0 then
            const bool exists = ${table.concat(conditions, " && ")};
            cp_async_16(to + pass * rows_per_pass * row_bytes, exists ? from : whole, exists ? 16 : 0);
//% else
            cp_async_16(to + pass * rows_per_pass * row_bytes, from, 16);
//% end
        }
    }
};
