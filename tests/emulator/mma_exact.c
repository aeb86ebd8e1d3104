/*
 * mma_exact.c: the exact numerics against the oracle of mma_oracle.c, for every device, type and
 * shape, on numbers drawn to meet in every way: of any exponent, subnormal, zero, cancelling,
 * infinite, NaN. What has no instruction is compared at the level of functions.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "kernel.h"
#include "mma_kernel.h"
#include "mma_model.h"
#include "mma_oracle.h"

/* ---- random operands ---- */

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint32_t draw(uint32_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 32) * below >> 32);
}

typedef enum mixture {
    MIX_NEAR,     /* magnitudes within a few powers of two */
    MIX_WIDE,     /* any finite number */
    MIX_SMALL,    /* subnormal numbers, zeros, the smallest normal ones */
    MIX_CANCELS,  /* every second product is the one before it with the other sign */
    MIX_LARGE,    /* the largest numbers */
    MIX_FULL,     /* the longest sums: all of one sign, nearly all bits of the significands set */
    MIX_UNLIKE,   /* those of A subnormal or zero, those of B large */
    MIX_TINY,     /* products around the least exponent that counts */
    MIX_BORDERS,  /* sums just beside powers of two */
    MIX_SPECIALS, /* any bits */
    MIXTURES
} mixture;

static uint32_t draw_number(float_format f, mixture mix, int k)
{
    int m = f.mantissa_bits, top = (1 << f.exponent_bits) - 1, bias = top >> 1;
    int last = f.has_infinity ? top - 1 : top, exponent;
    uint32_t sign = draw(2), mantissa = draw(1u << m);
    switch (mix) {
    case MIX_SMALL:
        exponent = (int)draw(3) / 2;
        mantissa = draw(4) ? mantissa : 0;
        break;
    case MIX_LARGE:
        exponent = last - (int)draw(3);
        break;
    case MIX_FULL:
        exponent = bias;
        mantissa |= (1u << m) - 4;
        sign = 0;
        break;
    case MIX_TINY:
        exponent = bias - 67 - (int)draw(8);
        break;
    case MIX_BORDERS:
        exponent = bias - (k < 4 ? 0 : 12 + (int)draw(2));
        mantissa = 0;
        sign &= k >= 4;
        break;
    case MIX_SPECIALS:
        exponent = draw(6) ? bias - 2 + (int)draw(5) : (int)draw((uint32_t)top + 1);
        exponent = draw(24) ? exponent : top;
        mantissa = draw(3) ? mantissa : 0;
        break;
    case MIX_WIDE:
        exponent = (int)draw((uint32_t)last + 1);
        break;
    default:
        exponent = bias - 2 + (int)draw(5);
        break;
    }
    exponent = exponent < 0 ? 0 : exponent;
    if (mix != MIX_SPECIALS && !f.has_infinity && exponent == top && mantissa == (1u << m) - 1)
        mantissa--;
    return sign << (m + f.exponent_bits) | (uint32_t)exponent << m | mantissa;
}

static const float_format format_single = {8, 23, 1};

typedef struct exact_case {
    mma_instruction instruction;
    const float_format *a, *b;
    mma_format a_id, b_id;
    mma_unit unit;
} exact_case;

static void draw_tile(mma_tile *tile, const exact_case *c, mixture mix)
{
    uint32_t b_sign = 1u << (c->b->mantissa_bits + c->b->exponent_bits);
    mixture a_mix = mix == MIX_UNLIKE ? MIX_SMALL : mix;
    mixture b_mix = mix == MIX_UNLIKE ? MIX_LARGE : mix;
    memset(tile, 0, sizeof *tile);
    for (int k = 0; k < c->instruction.k; k++) {
        bool negates = mix == MIX_CANCELS && k % 2;
        for (int row = 0; row < MMA_ROWS; row++)
            tile->a[row][k] = negates ? tile->a[row][k - 1] : draw_number(*c->a, a_mix, k);
        for (int column = 0; column < MMA_COLUMNS; column++)
            tile->b[column][k] =
                negates ? tile->b[column][k - 1] ^ b_sign : draw_number(*c->b, b_mix, k);
    }
    float_format c_format = c->instruction.half_accumulators ? format_f16 : format_single;
    for (int row = 0; row < MMA_ROWS; row++)
        for (int column = 0; column < MMA_COLUMNS; column++) {
            mixture c_mix = draw(3) ? mix : draw(2) ? MIX_NEAR : MIX_WIDE;
            tile->c[row][column] = draw(3) ? draw_number(c_format, c_mix, 0) : 0;
        }
}

/* ---- instructions ---- */

#define MMA_NAME(shape, types) "mma.sync.aligned." #shape ".row.col." #types
#define PAIRS(shape, k, acc, half, type, format, id)                                               \
    {                                                                                              \
        {MMA_NAME(shape, acc.type.type.acc), k, 16, half}, &format, &format, id, id, MMA_UNIT_16   \
    }
#define TF32(shape, k)                                                                             \
    {                                                                                              \
        {MMA_NAME(shape, f32.tf32.tf32.f32), k, 32, 0}, &format_tf32, &format_tf32,                \
            MMA_FORMAT_TF32, MMA_FORMAT_TF32, MMA_UNIT_TF32                                        \
    }
#define BYTES(shape, k, a, b, a_id, b_id)                                                          \
    {                                                                                              \
        {MMA_NAME(shape, f32.a.b.f32), k, 8, 0}, &format_##a, &format_##b, a_id, b_id,             \
            MMA_UNIT_FP8                                                                           \
    }

static const exact_case cases[] = {
    PAIRS(m16n8k16, 16, f32, 0, bf16, format_bf16, MMA_FORMAT_BF16),
    PAIRS(m16n8k8, 8, f32, 0, bf16, format_bf16, MMA_FORMAT_BF16),
    PAIRS(m16n8k16, 16, f32, 0, f16, format_f16, MMA_FORMAT_F16),
    PAIRS(m16n8k8, 8, f32, 0, f16, format_f16, MMA_FORMAT_F16),
    PAIRS(m16n8k16, 16, f16, 1, f16, format_f16, MMA_FORMAT_F16),
    PAIRS(m16n8k8, 8, f16, 1, f16, format_f16, MMA_FORMAT_F16),
    TF32(m16n8k8, 8),
    TF32(m16n8k4, 4),
    BYTES(m16n8k32, 32, e4m3, e4m3, MMA_FORMAT_E4M3, MMA_FORMAT_E4M3),
    BYTES(m16n8k32, 32, e5m2, e5m2, MMA_FORMAT_E5M2, MMA_FORMAT_E5M2),
    BYTES(m16n8k32, 32, e4m3, e5m2, MMA_FORMAT_E4M3, MMA_FORMAT_E5M2),
    BYTES(m16n8k32, 32, e5m2, e4m3, MMA_FORMAT_E5M2, MMA_FORMAT_E4M3),
    BYTES(m16n8k16, 16, e4m3, e4m3, MMA_FORMAT_E4M3, MMA_FORMAT_E4M3),
    BYTES(m16n8k16, 16, e5m2, e5m2, MMA_FORMAT_E5M2, MMA_FORMAT_E5M2),
};
enum { CASES = sizeof cases / sizeof cases[0] };

/* products, fraction, fraction of the result, c comes last; no products: there is no such unit */
typedef struct device_rules {
    const char *numerics;
    oracle_rules units[MMA_UNITS];
} device_rules;

static const device_rules a100_rules = {
    "exact:a100", {[MMA_UNIT_16] = {8, 24, 23, 0}, [MMA_UNIT_TF32] = {4, 24, 23, 0}}};
static const device_rules ada_rules = {"exact:ada",
                                       {[MMA_UNIT_16] = {8, 24, 23, 0},
                                        [MMA_UNIT_TF32] = {4, 24, 23, 0},
                                        [MMA_UNIT_FP8] = {16, 13, 13, 0}}};
static const device_rules h100_rules = {"exact:h100",
                                        {[MMA_UNIT_16] = {16, 25, 23, 0},
                                         [MMA_UNIT_TF32] = {8, 25, 23, 0},
                                         [MMA_UNIT_FP8] = {16, 25, 23, 1}}};
static const device_rules b200_rules = {"exact:b200",
                                        {[MMA_UNIT_16] = {16, 25, 23, 0},
                                         [MMA_UNIT_TF32] = {8, 25, 23, 0},
                                         [MMA_UNIT_FP8] = {16, 25, 23, 1}}};

enum { TILES = 100 };

static void check_case(const exact_case *c, const oracle_rules *rules)
{
    static mma_tile tiles[TILES];
    const mma_instruction *m = &c->instruction;
    for (int i = 0; i < TILES; i++)
        draw_tile(&tiles[i], c, (mixture)(i % MIXTURES));
    mma_run(m, tiles, TILES);
    int wrong = 0;
    for (int i = 0; i < TILES; i++)
        for (int row = 0; row < MMA_ROWS; row++)
            for (int column = 0; column < MMA_COLUMNS; column++) {
                uint32_t got = tiles[i].d[row][column];
                uint32_t expected =
                    oracle_dot(rules, *c->a, *c->b, tiles[i].a[row], tiles[i].b[column], m->k,
                               tiles[i].c[row][column], m->half_accumulators);
                if (got != expected && wrong++ == 0)
                    cr_expect(false, "%s, tile %d (%d, %d): got 0x%x, expected 0x%x", m->name, i,
                              row, column, got, expected);
            }
    cr_expect_eq(wrong, 0, "%s: %d of %d differ", m->name, wrong, TILES * MMA_ROWS * MMA_COLUMNS);
}

static void check_device(const device_rules *device)
{
    setenv("MMLP_EMULATOR_NUMERICS", device->numerics, 1);
    int checked = 0;
    for (int i = 0; i < CASES; i++)
        if (device->units[cases[i].unit].products > 0) {
            check_case(&cases[i], &device->units[cases[i].unit]);
            checked++;
        }
    cr_assert_eq(checked, device == &a100_rules ? 8 : CASES);
}

Test(mma_exact, an_a100_sums_eight_products_or_four)
{
    check_device(&a100_rules);
}

Test(mma_exact, ada_keeps_thirteen_bits_of_fp8)
{
    check_device(&ada_rules);
}

Test(mma_exact, an_h100_sums_sixteen_products_or_eight)
{
    check_device(&h100_rules);
}

Test(mma_exact, a_b200_adds_c_last_to_fp8)
{
    check_device(&b200_rules);
}

/* ---- what has no instruction ---- */

static void check_functions(mma_device device, mma_unit unit, const exact_case *c,
                            const oracle_rules *rules)
{
    const mma_model *model = mma_model_of(device, unit);
    cr_assert(model != NULL);
    for (int i = 0; i < TILES; i++) {
        mma_tile tile;
        mma_number a[MMA_MOST_DEPTH], b[MMA_MOST_DEPTH];
        draw_tile(&tile, c, (mixture)(i % MIXTURES));
        for (int row = 0; row < MMA_ROWS; row++) {
            int column = row % MMA_COLUMNS, k = c->instruction.k;
            for (int j = 0; j < k; j++) {
                a[j] = mma_decode(tile.a[row][j], c->a_id);
                b[j] = mma_decode(tile.b[column][j], c->b_id);
            }
            uint32_t c_bits = tile.c[row][column];
            int half = c->instruction.half_accumulators;
            uint32_t got = mma_dot(model, a, b, k, c_bits, half);
            uint32_t expected =
                oracle_dot(rules, *c->a, *c->b, tile.a[row], tile.b[column], k, c_bits, half);
            cr_assert_eq(got, expected, "%s: got 0x%x, expected 0x%x", c->instruction.name, got,
                         expected);
        }
    }
}

Test(mma_exact, a_v100_sums_four_products)
{
    for (int i = 2; i < 6; i++)
        check_functions(MMA_DEVICE_V100, MMA_UNIT_16, &cases[i], &(oracle_rules){4, 23, 23, 0});
}

Test(mma_exact, wgmma_sums_thirty_two_products_of_fp8)
{
    for (int i = 8; i < CASES; i++)
        check_functions(MMA_DEVICE_H100, MMA_UNIT_FP8_WGMMA, &cases[i],
                        &(oracle_rules){32, 13, 13, 0});
}

/* ---- words ---- */

static uint32_t add_small(const char *device, const char *numerics)
{
    /* 1 + 2^-24 + 2^-24 and so on: a chain loses what a sum keeps */
    static const mma_instruction m = {MMA_NAME(m16n8k8, f32.f16.f16.f32), 8, 16, 0};
    static mma_tile tile;
    setenv("MMLP_EMULATOR_DEVICE", device, 1);
    if (numerics)
        setenv("MMLP_EMULATOR_NUMERICS", numerics, 1);
    else
        unsetenv("MMLP_EMULATOR_NUMERICS");
    memset(&tile, 0, sizeof tile);
    tile.c[0][0] = 0x3f800000;
    for (int k = 0; k < 2; k++) {
        tile.a[0][k] = 0x0c00; /* 2^-12 */
        tile.b[0][k] = 0x0c00;
    }
    mma_run(&m, &tile, 1);
    return tile.d[0][0];
}

Test(mma_exact, fast_is_a_chain_and_the_default)
{
    cr_assert_eq(add_small("b200", NULL), 0x3f800000);
}

Test(mma_exact, exact_alone_is_that_of_the_device)
{
    cr_assert_eq(add_small("b200", "exact"), 0x3f800001);
}

Test(mma_exact, an_a100_has_no_fp8)
{
    uint32_t in[8] = {0};
    setenv("MMLP_EMULATOR_NUMERICS", "exact:a100", 1);
    CUresult result = kernel_try("fp8",
                                 "mov.b32 %r0, 0; mov.f32 %f0, 0f00000000;\n"
                                 "mma.sync.aligned.m16n8k16.row.col.f32.e4m3.e4m3.f32 "
                                 "{%f0,%f1,%f2,%f3}, {%r0,%r0}, {%r0}, {%f0,%f0,%f0,%f0};",
                                 1, 32, in, sizeof in, 4);
    cr_assert_eq(result, CUDA_ERROR_ILLEGAL_INSTRUCTION);
    cr_assert(strstr(device_last_report(), "mma of 8-bit floats: the tensor cores that "
                                           "MMLP_EMULATOR_NUMERICS names have none"),
              "%s", device_last_report());
}
