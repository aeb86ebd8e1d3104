//% include "device/copy_mn_major.cuh"

// fp32_mn_major.cuh: ${operand.struct} hands out those tiles to 16 threads along the operand, twice four columns each.
struct ${operand.struct} : ${operand.struct}Copy {
    const float *source; // this thread's first columns, in stage 0

    // The column of the tile that is number i of those that thread `own` of 16 has.
    static __device__ __forceinline__ int place(int own, int i)
    {
        return 4 * own + i / 4 * 64 + i % 4;
    }

    __device__ __forceinline__ ${operand.struct}(const ${operand.struct}Copy &copy, const float *shared, int own)
        : ${operand.struct}Copy(copy), source(shared + place(own, 0))
    {
    }

    // values[i][j]: column place(own, i), reduction index k + j.
    __device__ __forceinline__ void read(float (&values)[8][4], int stage, int k) const
    {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                float four[4];
                load4(four, source + stage * (stage_bytes / 4) + (k + j) * (row_bytes / 4) + 64 * half);
#pragma unroll
                for (int c = 0; c < 4; ++c)
                    values[4 * half + c][j] = four[c];
            }
        }
    }
};
