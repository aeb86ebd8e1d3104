// ptx_matrix.cuh: inline PTX that moves fragments between registers and shared memory (PTX ISA 9.0).

// 9.7.14.5.15 ldmatrix: four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of
// matrix l / 8 and receives in r[j] the elements (l / 4, 2 * (l % 4) + {0, 1}) of matrix j.
__device__ __forceinline__ void ldmatrix_x4(unsigned (&r)[4], unsigned row_address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row_address)
                 : "memory");
}

//% if kernel.accumulators then
// 9.7.14.5.16 stmatrix: the way back.
__device__ __forceinline__ void stmatrix_x4(unsigned row_address, const unsigned (&r)[4])
{
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};"
                 :
                 : "r"(row_address), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}
//% end
