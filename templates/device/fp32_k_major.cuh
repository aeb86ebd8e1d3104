//% include "device/copy_k_major.cuh"

// fp32_k_major.cuh: ${operand.struct} hands out those tiles to 16 threads along the operand, eight rows each. The 16
// bytes behind a row put the eight rows that a quarter of a warp reads at a time into different banks.
struct ${operand.struct} : ${operand.struct}Copy {
    const float *source; // this thread's first row, in stage 0

    // The row of the tile that is number i of those that thread `own` of 16 has.
    static __device__ __forceinline__ int place(int own, int i)
    {
        return own + 16 * i;
    }

    __device__ __forceinline__ ${operand.struct}(const ${operand.struct}Copy &copy, const float *shared, int own)
        : ${operand.struct}Copy(copy), source(shared + place(own, 0) * (row_bytes / 4))
    {
    }

    // values[i][j]: row place(own, i), reduction index k + j.
    __device__ __forceinline__ void read(float (&values)[8][4], int stage, int k) const
    {
#pragma unroll
        for (int i = 0; i < 8; ++i)
            load4(values[i], source + stage * (stage_bytes / 4) + 16 * i * (row_bytes / 4) + k);
    }
};
