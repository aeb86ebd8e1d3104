//% include "device/copy_mn_major.cuh"

// mma_mn_major.cuh: ${operand.struct} hands out those tiles as fragments of mma, transposed by ldmatrix.trans. With chunk
// c of row r at position c ^ (r % 8), the eight rows that it reads at a time lie in different banks.
struct ${operand.struct} : ${operand.struct}Copy {
    unsigned source; // of this lane's ldmatrix row, in stage 0

    // warp_first: the warp's first column within the tile.
    __device__ __forceinline__ ${operand.struct}(const ${operand.struct}Copy &copy, unsigned shared, int warp_first)
        : ${operand.struct}Copy(copy)
    {
        const int lane = threadIdx.x % 32;
//% if operand.struct == "OperandA" then
        // Matrices in the order (rows 0-7, k 0-7), (rows 8-15, k 0-7), (rows 0-7, k 8-15), (rows 8-15, k 8-15).
        const int r = lane / 16 * 8 + lane % 8;
        const int c = warp_first / 8 + lane / 8 % 2;
//% else
        // Matrices in the order (columns 0-7, k 0-7), (columns 0-7, k 8-15), then columns 8-15.
        const int r = lane % 16;
        const int c = warp_first / 8 + lane / 16;
//% end
        source = shared + r * row_bytes + 16 * (${layout.mn_major_position});
    }

    // The fragments of one k step, 16 rows further. Fragment i is two chunks further, within the eight that
    // the swizzle permutes.
    template <int count>
    __device__ __forceinline__ void read(unsigned (&fragments)[count][4], int stage, int k_step) const
    {
        static_assert(count <= 4, "a warp's columns are eight chunks at most");
        const unsigned from = source + stage * stage_bytes + k_step * 16 * row_bytes;
#pragma unroll
        for (int i = 0; i < count; ++i)
            ldmatrix_x4_trans(fragments[i], from ^ (32 * i));
    }
};
