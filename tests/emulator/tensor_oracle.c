/* tensor_oracle.c: tensors and their boxes, from PTX ISA 5.5, the comments of cuda.h and an H200.
 */
#include "tensor_oracle.h"

#include <string.h>

static uint64_t seed;

void random_start(uint64_t from)
{
    seed = from;
}

int below(int bound)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int)((seed >> 33) % (unsigned)bound);
}

int between(int low, int high)
{
    return low + below(high - low + 1);
}

void random_bytes(void *to, size_t count)
{
    for (size_t i = 0; i < count; i++)
        ((uint8_t *)to)[i] = (uint8_t)below(256);
}

/* ---- element types --------------------------------------------------------------------------- */

const element_type tensor_types[TENSOR_TYPES] = {
    {"u8", CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, 0, NULL},
    {"u16", CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, 0, NULL},
    {"u32", CU_TENSOR_MAP_DATA_TYPE_UINT32, 4, 'i', NULL},
    {"s32", CU_TENSOR_MAP_DATA_TYPE_INT32, 4, 'i', NULL},
    {"u64", CU_TENSOR_MAP_DATA_TYPE_UINT64, 8, 'i', NULL},
    {"f16", CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2, 'h', &format_f16},
    {"bf16", CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, 'h', &format_bf16},
    {"f32", CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 4, 'f', NULL},
    {"s64", CU_TENSOR_MAP_DATA_TYPE_INT64, 8, 0, NULL},
    {"f64", CU_TENSOR_MAP_DATA_TYPE_FLOAT64, 8, 'd', NULL},
};

/*
 * Random bits of a type; of floats, numbers so near to one another that no sum is subnormal or
 * overflows, and that every sum of others than doubles is exact as a double. Most sums must round,
 * some at a tie.
 */
static uint64_t random_bits(const element_type *t)
{
    uint64_t bits =
        (uint64_t)below(1 << 30) << 34 ^ (uint64_t)below(1 << 30) << 12 ^ (uint64_t)below(1 << 12);
    uint64_t sign = (uint64_t)below(2);
    if (t->adds == 'f')
        return sign << 31 | (uint64_t)between(118, 136) << 23 | (bits & 0x7fffff);
    if (t->adds == 'd')
        return sign << 63 | (uint64_t)between(1000, 1040) << 52 | bits >> 12;
    if (t->half == &format_f16)
        return sign << 15 | (uint64_t)between(12, 28) << 10 | (bits & 0x3ff);
    if (t->half == &format_bf16)
        return sign << 15 | (uint64_t)between(118, 136) << 7 | (bits & 0x7f);
    return bits;
}

/* Rounded once, to nearest even. */
static uint64_t sum(const element_type *t, uint64_t a, uint64_t b)
{
    if (t->adds == 'i')
        return a + b;
    if (t->adds == 'd')
        return bits_of_double(double_of(a) + double_of(b));
    if (t->adds == 'h')
        return format_from_double(
            *t->half, format_to_double(*t->half, a) + format_to_double(*t->half, b), ROUND_NEAREST);
    return bits_of_float((float)((double)float_of(a) + (double)float_of(b)));
}

void add_element(const element_type *t, uint8_t *to, const uint8_t *from)
{
    uint64_t a = 0, b = 0;
    memcpy(&a, to, t->bytes);
    memcpy(&b, from, t->bytes);
    a = sum(t, a, b);
    memcpy(to, &a, t->bytes);
}

void random_elements(uint8_t *bytes, size_t count, const element_type *t)
{
    for (size_t i = 0; i + t->bytes <= count; i += t->bytes) {
        uint64_t bits = random_bits(t);
        memcpy(bytes + i, &bits, t->bytes);
    }
}

/* ---- tensors and boxes ----------------------------------------------------------------------- */

size_t tensor_bytes(const shape *s)
{
    return s->rank == 1 ? s->sizes[0] * s->type->bytes
                        : s->strides[s->rank - 2] * s->sizes[s->rank - 1];
}

/* What is copied along a dimension; there are no steps along the first one. */
static int along(const shape *s, int dimension)
{
    int step = dimension == 0 ? 1 : (int)s->steps[dimension];
    return ((int)s->box[dimension] + step - 1) / step;
}

int box_elements(const shape *s)
{
    int elements = 1;
    for (int i = 0; i < s->rank; i++)
        elements *= along(s, i);
    return elements;
}

size_t box_bytes(const shape *s)
{
    return (size_t)box_elements(s) * s->type->bytes;
}

int find_element(const shape *s, int element, int is_written, size_t *offset)
{
    int is_inside = 1;
    cuuint64_t unit = is_written ? 16 / s->type->bytes : 1;
    *offset = 0;
    for (int i = 0; i < s->rank; i++) {
        int step = i == 0 ? 1 : (int)s->steps[i];
        int64_t at = (int64_t)s->at[i] + (int64_t)(element % along(s, i)) * step;
        element /= along(s, i);
        cuuint64_t end = i == 0 ? (s->sizes[0] + unit - 1) / unit * unit : s->sizes[i];
        is_inside &= at >= 0 && (uint64_t)at < end;
        if (is_inside)
            *offset += (size_t)at * (i == 0 ? s->type->bytes : s->strides[i - 1]);
    }
    return is_inside;
}

/*
 * Where 16 bytes go, within 128 bytes of shared memory: a row for each 128 bytes. A span of 128
 * bytes goes through eight such rows, one of 64 through the first four, one of 32 through two.
 */
static const char *const swizzles[] = {"01234567", "10325476", "23016745", "32107654",
                                       "45670123", "54761032", "67452301", "76543210"};

size_t place_of_byte(const shape *s, size_t byte)
{
    if (s->swizzle == 0)
        return (size_t)s->target + byte;
    size_t row = byte / 128 % ((size_t)s->swizzle / 16);
    size_t chunk = (size_t)(swizzles[row][byte / 16 % 8] - '0');
    return (size_t)s->target + byte / 128 * 128 + chunk * 16 + byte % 16;
}

static void random_box(shape *s)
{
    int inner = s->swizzle ? s->swizzle : 16 * between(1, s->rank < 3 ? 16 : 8);
    s->box[0] = (cuuint32_t)inner / (cuuint32_t)s->type->bytes;
    s->steps[0] = (cuuint32_t)between(1, 8); /* is ignored */
    static const int most[] = {0, 1, 90, 14, 6, 3};
    do
        for (int i = 1; i < s->rank; i++) {
            s->steps[i] = (cuuint32_t)(below(3) ? 1 : between(2, 8));
            s->box[i] = (cuuint32_t)between(1, most[s->rank]) * s->steps[i];
            s->box[i] -= (cuuint32_t)below((int)s->steps[i]);
        }
    while (box_bytes(s) > ROOM || s->box[1] > 256);
}

static void random_sizes(shape *s)
{
    do {
        int most = s->rank < 3 ? 100 : (s->rank == 3 ? 20 : 7);
        s->sizes[0] = (cuuint64_t)between(1, s->rank < 3 ? 200 : 40);
        for (int i = 1; i < s->rank; i++)
            s->sizes[i] = (cuuint64_t)between(1, most);
        s->strides[0] = (s->sizes[0] * s->type->bytes + 15) / 16 * 16 + (cuuint64_t)below(3) * 16;
        for (int i = 1; i < s->rank - 1; i++)
            s->strides[i] = s->strides[i - 1] * (s->sizes[i] + (cuuint64_t)(below(4) == 0));
    } while (tensor_bytes(s) > TENSOR);
}

shape random_shape(int rank, const element_type *type, int is_written)
{
    static const int spans[] = {0, 0, 32, 64, 128};
    shape s = {.type = type, .rank = rank, .swizzle = spans[below(5)]};
    random_box(&s);
    random_sizes(&s);
    for (int i = 0; i < rank; i++) {
        int size = (int)s.sizes[i], box = (int)s.box[i];
        s.at[i] = below(2) ? below(size) : between(is_written ? 0 : -box - 1, size + 1);
        if (below(3) == 0)
            s.at[i] = size > box ? between(0, size - box) : 0;
    }
    s.at[0] -= s.at[0] % (16 / (int)type->bytes);
    s.target = s.swizzle ? 1024 : 128 * between(1, 8);
    return s;
}

static CUtensorMapSwizzle code_of(int span)
{
    return span == 0    ? CU_TENSOR_MAP_SWIZZLE_NONE
           : span == 32 ? CU_TENSOR_MAP_SWIZZLE_32B
           : span == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                        : CU_TENSOR_MAP_SWIZZLE_128B;
}

/* An element lies within 16 bytes, which stay together in shared memory. */
int load_box(const shape *s, uint8_t *shared, const uint8_t *tensor)
{
    int inside = 0;
    for (int i = 0; i < box_elements(s); i++) {
        size_t offset, bytes = s->type->bytes;
        uint8_t *to = shared + place_of_byte(s, (size_t)i * bytes);
        if (find_element(s, i, 0, &offset)) {
            memcpy(to, tensor + offset, bytes);
            inside++;
        } else {
            memset(to, 0, bytes);
        }
    }
    return inside;
}

CUresult encode_shape(CUtensorMap *map, const shape *s, CUdeviceptr at)
{
    return cuTensorMapEncodeTiled(map, s->type->code, (cuuint32_t)s->rank, (void *)at, s->sizes,
                                  s->strides, s->box, s->steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                  code_of(s->swizzle), CU_TENSOR_MAP_L2_PROMOTION_NONE,
                                  CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}
