/* programs_matrix.c: mma.sync in every shape and type that the emulator has: d = a b + c of small
 * whole numbers, which every type holds and sums exactly. */
#include <criterion/criterion.h>
#include <stdbool.h>
#include <string.h>

#include "compiled.h"
#include "device.h"
#include "softfloat.h"

enum { M = 16, N = 8, MOST_K = 32, MOST_WORDS = 8 };

typedef enum element { BF16, F16, TF32, E4M3, E5M2, S8, U8 } element;

typedef enum accumulator { TO_F32, TO_F16, TO_S32, TO_S32_SATURATED } accumulator;

static const struct {
    const char *entry;
    element a, b;
    int words; /* of a row of a, and of a column of b */
    accumulator to;
    int since; /* compute capability */
} products[] = {
    {"m16n8k8_bf16", BF16, BF16, 4, TO_F32, 80},
    {"m16n8k16_bf16", BF16, BF16, 8, TO_F32, 80},
    {"m16n8k8_f16", F16, F16, 4, TO_F32, 80},
    {"m16n8k16_f16", F16, F16, 8, TO_F32, 80},
    {"m16n8k8_f16_f16", F16, F16, 4, TO_F16, 80},
    {"m16n8k16_f16_f16", F16, F16, 8, TO_F16, 80},
    {"m16n8k4_tf32", TF32, TF32, 4, TO_F32, 80},
    {"m16n8k8_tf32", TF32, TF32, 8, TO_F32, 80},
    {"m16n8k16_s8", S8, S8, 4, TO_S32, 80},
    {"m16n8k32_s8", S8, S8, 8, TO_S32, 80},
    {"m16n8k16_u8", U8, U8, 4, TO_S32, 80},
    {"m16n8k32_u8", U8, U8, 8, TO_S32, 80},
    {"m16n8k32_s8_u8", S8, U8, 8, TO_S32, 80},
    {"m16n8k32_u8_s8", U8, S8, 8, TO_S32_SATURATED, 80},
    {"m16n8k16_e4m3", E4M3, E4M3, 4, TO_F32, 89},
    {"m16n8k32_e4m3", E4M3, E4M3, 8, TO_F32, 89},
    {"m16n8k16_e5m2", E5M2, E5M2, 4, TO_F32, 89},
    {"m16n8k32_e5m2", E5M2, E5M2, 8, TO_F32, 89},
    {"m16n8k32_e4m3_e5m2", E4M3, E5M2, 8, TO_F32, 89},
    {"m16n8k32_e5m2_e4m3", E5M2, E4M3, 8, TO_F32, 89},
};
enum { PRODUCTS = sizeof products / sizeof products[0] };

static int bits_of_element(element type)
{
    return type == TF32 ? 32 : type == BF16 || type == F16 ? 16 : 8;
}

/* A whole number from -8 to 8, of bytes one of all sizes. */
static int value_of(element type, int row, int k)
{
    int value = (row * 5 + k * 3 + row * k) % 17 - 8;
    return type == S8 ? 15 * value : type == U8 ? 15 * (value + 8) : value;
}

static uint32_t encode(element type, int value)
{
    switch (type) {
    case BF16:
        return (uint32_t)format_from_double(format_bf16, value, ROUND_NEAREST);
    case F16:
        return (uint32_t)format_from_double(format_f16, value, ROUND_NEAREST);
    case TF32:
        return (uint32_t)bits_of_float((float)value);
    case E4M3:
        return (uint32_t)format_from_double(format_e4m3, value, ROUND_NEAREST);
    case E5M2:
        return (uint32_t)format_from_double(format_e5m2, value, ROUND_NEAREST);
    default:
        return (uint32_t)value & 255;
    }
}

/* `rows` rows of words, elements in ascending k from the low bits. */
static CUdeviceptr upload_rows(element type, int rows, int words)
{
    uint32_t packed[M * MOST_WORDS] = {0};
    int bits = bits_of_element(type), in_a_word = 32 / bits;
    for (int row = 0; row < rows; row++)
        for (int k = 0; k < words * in_a_word; k++)
            packed[row * words + k / in_a_word] |= encode(type, value_of(type, row, k))
                                                   << (bits * (k % in_a_word));
    return device_upload(packed, (size_t)(rows * words) * sizeof packed[0]);
}

/* Elements of c: small, but one is near the largest integer. */
static long long addend(accumulator to, int row, int column)
{
    bool is_whole = to == TO_S32 || to == TO_S32_SATURATED;
    return is_whole && row == 3 && column == 5 ? 2147483640 : (row * 7 + column * 3) % 11 - 5;
}

static void store(unsigned char *at, accumulator to, long long value)
{
    uint32_t bits = (uint32_t)value;
    if (to == TO_S32_SATURATED)
        bits = value > INT32_MAX ? INT32_MAX : value < INT32_MIN ? (uint32_t)INT32_MIN : bits;
    else if (to == TO_F32)
        bits = (uint32_t)bits_of_float((float)value);
    else if (to == TO_F16)
        bits = (uint32_t)format_from_double(format_f16, (double)value, ROUND_NEAREST);
    memcpy(at, &bits, to == TO_F16 ? 2 : 4);
}

static long long dot(int product, int row, int column)
{
    long long sum = addend(products[product].to, row, column);
    int depth = products[product].words * 32 / bits_of_element(products[product].a);
    for (int k = 0; k < depth; k++)
        sum += value_of(products[product].a, row, k) * value_of(products[product].b, column, k);
    return sum;
}

static void check_product(CUmodule module, int product)
{
    accumulator to = products[product].to;
    const char *entry = products[product].entry;
    size_t bytes = to == TO_F16 ? 2 : 4;
    unsigned char c[M * N * 4] = {0}, wanted[M * N * 4] = {0}, got[M * N * 4] = {0};
    for (int i = 0; i < M * N; i++) {
        store(c + (size_t)i * bytes, to, addend(to, i / N, i % N));
        store(wanted + (size_t)i * bytes, to, dot(product, i / N, i % N));
    }
    CUdeviceptr device_a = upload_rows(products[product].a, M, products[product].words);
    CUdeviceptr device_b = upload_rows(products[product].b, N, products[product].words);
    CUdeviceptr device_c = device_upload(c, M * N * bytes), d = device_alloc(M * N * bytes);
    LAUNCH(module, entry, 1, 32, &d, &device_a, &device_b, &device_c);
    device_download(got, d, M * N * bytes);
    for (int i = 0; i < M * N; i++)
        cr_assert_arr_eq(got + (size_t)i * bytes, wanted + (size_t)i * bytes, bytes,
                         "%s: row %d, column %d, expected %lld", entry, i / N, i % N,
                         dot(product, i / N, i % N));
}

PROGRAM(programs_matrix, mma_of_every_shape_and_type_sums_whole_numbers_exactly, "mma_shapes.cu")
{
    int ran = 0;
    for (int i = 0; i < PRODUCTS; i++) {
        CUfunction function;
        CUresult found = cuModuleGetFunction(&function, module, products[i].entry);
        if (found == CUDA_ERROR_NOT_FOUND && products[i].since > 80)
            continue; /* the module is for an older device */
        check_product(module, i);
        ran++;
    }
    cr_expect(ran == PRODUCTS || ran == 14, "%d products ran", ran);
}
