// c[16][8] = a[16][64] b[64][8] by one warp: cp.async, ldmatrix, ldmatrix.trans, mma.sync. The two
// kernels differ in the type of a and b alone; all three matrices are row-major.
static __device__ unsigned shared_address(const void *pointer)
{
    return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

#define MMA_KERNEL(name, type)                                                                     \
    extern "C" __global__ void name(float *c, const uint4 *a, const uint4 *b)                      \
    {                                                                                              \
        __shared__ __align__(16) unsigned short as[16][72], bs[64][8];                             \
        int lane = threadIdx.x;                                                                    \
        for (int i = lane; i < 128; i += 32)                                                       \
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(                        \
                             shared_address(&as[i / 8][i % 8 * 8])),                               \
                         "l"(a + i));                                                              \
        asm volatile("cp.async.commit_group;");                                                    \
        for (int i = lane; i < 64; i += 32)                                                        \
            asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(                        \
                             shared_address(bs[i])),                                               \
                         "l"(b + i));                                                              \
        asm volatile("cp.async.commit_group;");                                                    \
        asm volatile("cp.async.wait_group 0;" ::: "memory");                                       \
        __syncthreads();                                                                           \
        float d[4] = {0, 0, 0, 0};                                                                 \
        for (int k = 0; k < 64; k += 16) {                                                         \
            unsigned x[4], y[2];                                                                   \
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"           \
                         : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])                          \
                         : "r"(shared_address(&as[lane % 16][k + lane / 16 * 8])));                \
            asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"           \
                         : "=r"(y[0]), "=r"(y[1])                                                  \
                         : "r"(shared_address(&bs[k + lane % 16][0])));                            \
            asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type ".f32 "            \
                         "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                   \
                         : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                          \
                         : "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(y[0]), "r"(y[1]));      \
        }                                                                                          \
        float2 *rows = reinterpret_cast<float2 *>(c);                                              \
        rows[lane] = make_float2(d[0], d[1]);                                                      \
        rows[32 + lane] = make_float2(d[2], d[3]);                                                 \
    }

MMA_KERNEL(product_bf16, "bf16")
MMA_KERNEL(product_f16, "f16")
