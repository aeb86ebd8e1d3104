// ptx_mma.cuh: inline PTX of the warp-wide matrix instructions (PTX ISA 9.0).

// ldmatrix_x4 with each matrix transposed: r[j] holds the elements (2 * (l % 4) + {0, 1}, l / 4) of matrix j.
__device__ __forceinline__ void ldmatrix_x4_trans(unsigned (&r)[4], unsigned row_address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row_address)
                 : "memory");
}

// 9.7.14.5 mma.sync m16n8k16, d += a * b with fp32 accumulation. With g = lane / 4, t = lane % 4:
// a[i] holds row g + 8 * (i % 2), columns 2t + 8 * (i / 2) + {0, 1}; b[i] holds k = 2t + 8i + {0, 1} of
// column g; d[i] is row g + 8 * (i / 2), column 2t + i % 2.
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], unsigned b0,
                                             unsigned b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.${storage == "bf16" and "bf16" or "f16"}.${storage == "bf16" and "bf16" or "f16"}.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
