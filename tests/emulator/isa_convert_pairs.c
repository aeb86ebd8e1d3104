/* isa_convert_pairs.c: cvt to and from two numbers in one register, and cvt.pack (PTX
 * ISA 9.7.9.21, 9.7.9.22). */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>

#include "device.h"
#include "isa.h"
#include "softfloat.h"

typedef struct pair_type {
    const char *name;
    isa_type reg;
    int bits; /* of an element */
    const float_format *format;
    double largest;
} pair_type;

static const pair_type halves[] = {{"f16x2", ISA_F16X2, 16, &format_f16, 65504},
                                   {"bf16x2", ISA_BF16X2, 16, &format_bf16, 0x1.fep127}};
static const pair_type bytes[] = {{"e4m3x2", ISA_I16, 8, &format_e4m3, 448},
                                  {"e5m2x2", ISA_I16, 8, &format_e5m2, 57344}};

/* The case that runs. */
static const pair_type *pair;
static rounding mode;
static int clamps_below, is_finite;

/* satfinite: the largest finite number in place of what is beyond it. NaN of bytes is 0x7f. */
static uint64_t narrow(double value)
{
    if (is_finite && fabs(value) > pair->largest)
        value = copysign(pair->largest, value);
    if (clamps_below && !isnan(value) && signbit(value))
        value = 0;
    if (isnan(value) && pair->bits == 8)
        return 0x7f;
    return format_from_double(*pair->format, value, mode);
}

/* The first operand in the upper half. */
static uint64_t from_f32(uint64_t a, uint64_t b, uint64_t c)
{
    (void)c;
    return narrow((double)float_of(a)) << pair->bits | narrow((double)float_of(b));
}

static uint64_t from_f16x2(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return narrow(format_to_double(format_f16, a >> 16)) << 8 |
           narrow(format_to_double(format_f16, a & 0xffff));
}

static uint64_t widen(uint64_t byte)
{
    double value = format_to_double(*pair->format, byte);
    if (clamps_below && !isnan(value) && signbit(value))
        value = 0;
    return format_from_double(format_f16, value, ROUND_NEAREST);
}

static uint64_t to_f16x2(uint64_t a, uint64_t b, uint64_t c)
{
    (void)b, (void)c;
    return widen(a >> 8 & 0xff) << 16 | widen(a & 0xff);
}

static const char *suffix(void)
{
    static const char *const words[] = {"", ".relu", ".satfinite", ".satfinite.relu"};
    return words[clamps_below + 2 * is_finite];
}

static void run(const char *ptx, isa_type d, isa_type a, isa_type b, isa_oracle *oracle)
{
    isa_case test = {.ptx = ptx, .d = d, .a = a, .b = b, .oracle = oracle};
    isa_run(&test, 1);
}

Test(isa_convert_pairs, two_fp32_become_a_pair_of_16_bits)
{
    static const char *const modes[] = {"rn", "rz"};
    device_open(); /* once for all cases */
    for (pair = halves; pair < halves + 2; ++pair) {
        for (int i = 0; i < 8; ++i) {
            mode = (rounding)(i & 1), clamps_below = i >> 1 & 1, is_finite = i >> 2;
            char ptx[96];
            snprintf(ptx, sizeof ptx, "cvt.%s%s.%s.f32 %%d, %%a, %%b;", modes[mode], suffix(),
                     pair->name);
            run(ptx, pair->reg, ISA_F32, ISA_F32, from_f32);
        }
    }
    device_close();
}

Test(isa_convert_pairs, bytes_saturate_to_their_largest_number_and_widen_exactly)
{
    mode = ROUND_NEAREST;
    device_open();
    for (pair = bytes; pair < bytes + 2; ++pair) {
        for (clamps_below = 0; clamps_below < 2; ++clamps_below) {
            char ptx[96];
            is_finite = 1;
            snprintf(ptx, sizeof ptx, "cvt.rn%s.%s.f32 %%d, %%a, %%b;", suffix(), pair->name);
            run(ptx, ISA_I16, ISA_F32, ISA_F32, from_f32);
            snprintf(ptx, sizeof ptx, "cvt.rn%s.%s.f16x2 %%d, %%a;", suffix(), pair->name);
            run(ptx, ISA_I16, ISA_F16X2, ISA_NONE, from_f16x2);
            is_finite = 0;
            snprintf(ptx, sizeof ptx, "cvt.rn%s.f16x2.%s %%d, %%a;", suffix(), pair->name);
            run(ptx, ISA_F16X2, ISA_I16, ISA_NONE, to_f16x2);
        }
    }
    device_close();
}

/* ---- cvt.pack: a and b saturated, a above b, over the upper part of what c holds below ---- */

static int pack_bits, pack_signed;

static uint64_t clamped(uint64_t bits)
{
    int64_t value = (int32_t)bits, least = pack_signed ? -((int64_t)1 << (pack_bits - 1)) : 0;
    int64_t most = ((int64_t)1 << (pack_bits - pack_signed)) - 1;
    value = value < least ? least : value > most ? most : value;
    return (uint64_t)value & (((uint64_t)1 << pack_bits) - 1);
}

static uint64_t pack(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t both = clamped(a) << pack_bits | clamped(b);
    return pack_bits == 16 ? both : c << 16 | both;
}

Test(isa_convert_pairs, pack_saturates_integers_and_pushes_earlier_ones_up)
{
    static const struct {
        const char *ptx;
        int bits, is_signed;
    } cases[] = {{"cvt.pack.sat.u16.s32 %d, %a, %b;", 16, 0},
                 {"cvt.pack.sat.s16.s32 %d, %a, %b;", 16, 1},
                 {"cvt.pack.sat.u8.s32.b32 %d, %a, %b, %c;", 8, 0},
                 {"cvt.pack.sat.s8.s32.b32 %d, %a, %b, %c;", 8, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        pack_bits = cases[i].bits, pack_signed = cases[i].is_signed;
        isa_case test = {.ptx = cases[i].ptx,
                         .d = ISA_I32,
                         .a = ISA_I32,
                         .b = ISA_I32,
                         .c = ISA_I32,
                         .oracle = pack};
        isa_run(&test, 1);
    }
}
