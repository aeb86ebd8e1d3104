//% include "device/copy_k_major.cuh"

// mma_k_major.cuh: ${operand.struct} hands out those tiles as fragments of mma. With chunk c of row r at position
// c ^ (r / 2 % 4), the eight rows that ldmatrix reads at a time lie in different banks.
struct ${operand.struct} : ${operand.struct}Copy {
    static_assert(row_bytes == 64, "the swizzle is made for rows of four chunks");

    unsigned source; // of this lane's ldmatrix row, in stage 0

    // warp_first: the warp's first row within the tile.
    __device__ __forceinline__ ${operand.struct}(const ${operand.struct}Copy &copy, unsigned shared, int warp_first)
        : ${operand.struct}Copy(copy)
    {
        const int lane = threadIdx.x % 32;
//% if operand.struct == "OperandA" then
        // Matrices in the order (rows 0-7, k 0-7), (rows 8-15, k 0-7), (rows 0-7, k 8-15), (rows 8-15, k 8-15).
        const int r = warp_first + lane % 16;
        const int c = lane / 16;
//% else
        // Matrices in the order (columns 0-7, k 0-7), (columns 0-7, k 8-15), then columns 8-15.
        const int r = warp_first + lane / 16 * 8 + lane % 8;
        const int c = lane / 8 % 2;
//% end
        source = shared + r * row_bytes + 16 * (${layout.k_major_position});
    }

    // The fragments of one k step: two chunks further, chunk c + 2 lies where bit 1 of the position is
    // flipped.
    template <int count>
    __device__ __forceinline__ void read(unsigned (&fragments)[count][4], int stage, int k_step) const
    {
        const unsigned from = (source + stage * stage_bytes) ^ (32 * k_step);
#pragma unroll
        for (int i = 0; i < count; ++i)
            ldmatrix_x4(fragments[i], from + i * 16 * row_bytes);
    }
};
