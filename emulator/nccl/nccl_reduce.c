/* nccl_reduce.c: see nccl_reduce.h. A block of elements is widened into an accumulator, rank by
 * rank, and narrowed once. */
#include "nccl/nccl_reduce.h"

#include "core/smallfloat.h"

#define BLOCK 256

/* ---- elements ------------------------------------------------------------------------------- */

#define ACCESS(name, stored, wide, widen, narrow)                                                  \
    static wide load_##name(const unsigned char *at)                                               \
    {                                                                                              \
        stored value;                                                                              \
        memcpy(&value, at, sizeof value);                                                          \
        return widen;                                                                              \
    }                                                                                              \
    static void store_##name(unsigned char *at, wide value)                                        \
    {                                                                                              \
        stored result = narrow;                                                                    \
        memcpy(at, &result, sizeof result);                                                        \
    }
#define LOAD(name, stored)                                                                         \
    static uint64_t load_##name(const unsigned char *at)                                           \
    {                                                                                              \
        stored value;                                                                              \
        memcpy(&value, at, sizeof value);                                                          \
        return (uint64_t)(int64_t)value;                                                           \
    }

LOAD(i8, int8_t)
LOAD(i32, int32_t)
ACCESS(u8, uint8_t, uint64_t, value, (uint8_t)value)
ACCESS(u32, uint32_t, uint64_t, value, (uint32_t)value)
ACCESS(u64, uint64_t, uint64_t, value, value)
ACCESS(f16, uint16_t, float, f16_to_f32(value), f32_to_f16(value))
ACCESS(bf16, uint16_t, float, bf16_to_f32(value), f32_to_bf16(value))
ACCESS(f32, float, float, value, value)
ACCESS(f64, double, double, value, value)
ACCESS(e4m3, uint8_t, float, e4m3_to_f32(value),
       (uint8_t)small_encode(value, &format_e4m3, ROUND_NEAREST, true))
ACCESS(e5m2, uint8_t, float, e5m2_to_f32(value),
       (uint8_t)small_encode(value, &format_e5m2, ROUND_NEAREST, true))

/* ---- accumulators --------------------------------------------------------------------------- */

#define PLUS(a, b)      ((a) + (b))
#define TIMES(a, b)     ((a) * (b))
#define SIGNED(a)       ((int64_t)(a))
#define LEAST(a, b)     ((a) < (b) ? (a) : (b))
#define MOST(a, b)      ((a) > (b) ? (a) : (b))
#define LEAST_INT(a, b) (SIGNED(a) < SIGNED(b) ? (a) : (b))
#define MOST_INT(a, b)  (SIGNED(a) > SIGNED(b) ? (a) : (b))

#define EACH(expression)                                                                           \
    for (size_t i = 0; i < count; i++)                                                             \
        to[i] = (expression);                                                                      \
    break

/* combine_NAME(to, from, count, op): to = to op from; finish_NAME: avg's division. */
#define ACCUMULATOR(NAME, wide, least, most, quotient)                                             \
    static void combine_##NAME(wide *to, const wide *from, size_t count, ncclRedOp_t op)           \
    {                                                                                              \
        switch ((int)op) {                                                                         \
        case ncclProd:                                                                             \
            EACH(TIMES(to[i], from[i]));                                                           \
        case ncclMin:                                                                              \
            EACH(least(to[i], from[i]));                                                           \
        case ncclMax:                                                                              \
            EACH(most(to[i], from[i]));                                                            \
        default: /* ncclSum, ncclAvg */                                                            \
            EACH(PLUS(to[i], from[i]));                                                            \
        }                                                                                          \
    }                                                                                              \
    static void divide_##NAME(wide *to, size_t count, int ranks)                                   \
    {                                                                                              \
        for (size_t i = 0; i < count; i++)                                                         \
            to[i] = quotient;                                                                      \
    }

ACCUMULATOR(INT, uint64_t, LEAST_INT, MOST_INT, (uint64_t)(SIGNED(to[i]) / ranks))
ACCUMULATOR(UINT, uint64_t, LEAST, MOST, to[i] / (uint64_t)ranks)
ACCUMULATOR(FLOAT, float, fminf, fmaxf, to[i] / (float)ranks)
ACCUMULATOR(DOUBLE, double, fmin, fmax, to[i] / (double)ranks)

typedef uint64_t wide_INT, wide_UINT;
typedef float wide_FLOAT;
typedef double wide_DOUBLE;

/* reduce_TYPE: one block of at most BLOCK elements that begins `at` bytes into each input. */
#define TYPE(type, name, bytes, NAME, load, store)                                                 \
    static void reduce_##type(unsigned char *out, const void *const *inputs, size_t at, int ranks, \
                              size_t count, ncclRedOp_t op)                                        \
    {                                                                                              \
        wide_##NAME to[BLOCK], from[BLOCK];                                                        \
        for (int rank = 0; rank < ranks; rank++) {                                                 \
            const unsigned char *input = (const unsigned char *)inputs[rank] + at;                 \
            wide_##NAME *wide = rank == 0 ? to : from;                                             \
            for (size_t i = 0; i < count; i++)                                                     \
                wide[i] = load(input + (bytes)*i);                                                 \
            if (rank > 0)                                                                          \
                combine_##NAME(to, from, count, op);                                               \
        }                                                                                          \
        if (op == ncclAvg)                                                                         \
            divide_##NAME(to, count, ranks);                                                       \
        for (size_t i = 0; i < count; i++)                                                         \
            store(out + at + (bytes)*i, to[i]);                                                    \
    }
#include "nccl/nccl_types.def"
#undef TYPE

static const struct {
    const char *name;
    size_t bytes;
    void (*reduce)(unsigned char *out, const void *const *inputs, size_t at, int ranks,
                   size_t count, ncclRedOp_t op);
} types[ncclNumTypes] = {
#define TYPE(type, name, bytes, NAME, load, store) [type] = {name, bytes, reduce_##type},
#include "nccl/nccl_types.def"
#undef TYPE
};

void reduce_elements(void *out, const void *const *inputs, int ranks, size_t count,
                     ncclDataType_t type, ncclRedOp_t op)
{
    for (size_t i = 0; i < count; i += BLOCK)
        types[type].reduce(out, inputs, i * types[type].bytes, ranks,
                           count - i < BLOCK ? count - i : BLOCK, op);
}

size_t type_bytes(ncclDataType_t type)
{
    return types[type].bytes;
}

const char *type_name(ncclDataType_t type)
{
    return types[type].name;
}
