// d = a b + c by one mma.sync of every shape and type; one warp each. The rows of a [16] and the columns
// of b [8] are words that hold elements in ascending k; c and d are row-major [16][8].
//
// Lane 4 g + t has words t and, where there are eight, t + 4 of rows g and g + 8 of a and of column g of
// b, and of c and d columns 2 t and 2 t + 1 of rows g and g + 8.

struct __align__(8) floats {
    float x, y;
};
struct __align__(8) integers {
    int x, y;
};

struct operands {
    unsigned a[4], b[2];
};

template <int words> static __device__ operands load(const unsigned *a, const unsigned *b)
{
    constexpr int second = words == 8 ? 4 : 0;
    int g = threadIdx.x / 4, t = threadIdx.x % 4;
    const unsigned *top = a + g * words + t, *bottom = top + 8 * words, *column = b + g * words + t;
    return {{top[0], bottom[0], top[second], bottom[second]}, {column[0], column[second]}};
}

#define PRODUCT(name, words, fragments, pair, constraint, form)                                       \
    extern "C" __global__ void name(pair *d, const unsigned *a, const unsigned *b, const pair *c)     \
    {                                                                                                 \
        operands in = load<words>(a, b);                                                              \
        int at = threadIdx.x;                                                                         \
        pair top = c[at], bottom = c[at + 32];                                                        \
        asm volatile("mma.sync.aligned." form " {%0,%1,%2,%3}, " fragments ", {%0,%1,%2,%3};"         \
                     : "+" constraint(top.x), "+" constraint(top.y), "+" constraint(bottom.x),        \
                       "+" constraint(bottom.y)                                                       \
                     : "r"(in.a[0]), "r"(in.a[1]), "r"(in.a[2]), "r"(in.a[3]), "r"(in.b[0]),          \
                       "r"(in.b[1]));                                                                 \
        d[at] = top;                                                                                  \
        d[at + 32] = bottom;                                                                          \
    }
#define SHALLOW(name, pair, constraint, form) PRODUCT(name, 4, "{%4,%5}, {%8}", pair, constraint, form)
#define DEEP(name, pair, constraint, form)                                                            \
    PRODUCT(name, 8, "{%4,%5,%6,%7}, {%8,%9}", pair, constraint, form)

SHALLOW(m16n8k8_bf16, floats, "f", "m16n8k8.row.col.f32.bf16.bf16.f32")
DEEP(m16n8k16_bf16, floats, "f", "m16n8k16.row.col.f32.bf16.bf16.f32")
SHALLOW(m16n8k8_f16, floats, "f", "m16n8k8.row.col.f32.f16.f16.f32")
DEEP(m16n8k16_f16, floats, "f", "m16n8k16.row.col.f32.f16.f16.f32")
SHALLOW(m16n8k4_tf32, floats, "f", "m16n8k4.row.col.f32.tf32.tf32.f32")
DEEP(m16n8k8_tf32, floats, "f", "m16n8k8.row.col.f32.tf32.tf32.f32")
SHALLOW(m16n8k16_s8, integers, "r", "m16n8k16.row.col.s32.s8.s8.s32")
DEEP(m16n8k32_s8, integers, "r", "m16n8k32.row.col.s32.s8.s8.s32")
SHALLOW(m16n8k16_u8, integers, "r", "m16n8k16.row.col.s32.u8.u8.s32")
DEEP(m16n8k32_u8, integers, "r", "m16n8k32.row.col.s32.u8.u8.s32")
DEEP(m16n8k32_s8_u8, integers, "r", "m16n8k32.row.col.s32.s8.u8.s32")
DEEP(m16n8k32_u8_s8, integers, "r", "m16n8k32.row.col.satfinite.s32.u8.s8.s32")

// Accumulators of f16: a word has two columns.
#define HALF_PRODUCT(name, words, fragments, form)                                                    \
    extern "C" __global__ void name(unsigned *d, const unsigned *a, const unsigned *b,                \
                                    const unsigned *c)                                                \
    {                                                                                                 \
        operands in = load<words>(a, b);                                                              \
        int at = threadIdx.x;                                                                         \
        unsigned top = c[at], bottom = c[at + 32];                                                    \
        asm volatile("mma.sync.aligned." form " {%0,%1}, " fragments ", {%0,%1};"                     \
                     : "+r"(top), "+r"(bottom)                                                        \
                     : "r"(in.a[0]), "r"(in.a[1]), "r"(in.a[2]), "r"(in.a[3]), "r"(in.b[0]),          \
                       "r"(in.b[1]));                                                                 \
        d[at] = top;                                                                                  \
        d[at + 32] = bottom;                                                                          \
    }
HALF_PRODUCT(m16n8k8_f16_f16, 4, "{%2,%3}, {%6}", "m16n8k8.row.col.f16.f16.f16.f16")
HALF_PRODUCT(m16n8k16_f16_f16, 8, "{%2,%3,%4,%5}, {%6,%7}", "m16n8k16.row.col.f16.f16.f16.f16")

#if __CUDA_ARCH__ >= 890
SHALLOW(m16n8k16_e4m3, floats, "f", "m16n8k16.row.col.f32.e4m3.e4m3.f32")
DEEP(m16n8k32_e4m3, floats, "f", "m16n8k32.row.col.f32.e4m3.e4m3.f32")
SHALLOW(m16n8k16_e5m2, floats, "f", "m16n8k16.row.col.f32.e5m2.e5m2.f32")
DEEP(m16n8k32_e5m2, floats, "f", "m16n8k32.row.col.f32.e5m2.e5m2.f32")
DEEP(m16n8k32_e4m3_e5m2, floats, "f", "m16n8k32.row.col.f32.e4m3.e5m2.f32")
DEEP(m16n8k32_e5m2_e4m3, floats, "f", "m16n8k32.row.col.f32.e5m2.e4m3.f32")
#endif
