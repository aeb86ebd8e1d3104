/* programs_math.c: arithmetic of ordinary CUDA C programs: the device library in double and single
 * precision, integers, bits, pairs of 16-bit floats and tensor core products. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compiled.h"
#include "device.h"
#include "softfloat.h"

/* Distance in units of the last place of a double or, `narrow`, of a float. */
static double ulps(double got, double wanted, bool narrow)
{
    if (got == wanted || (isnan(got) && isnan(wanted)))
        return 0;
    if (!isfinite(got) || !isfinite(wanted))
        return INFINITY;
    double unit = narrow ? (double)(nextafterf((float)fabs(wanted), INFINITY) - (float)fabs(wanted))
                         : nextafter(fabs(wanted), INFINITY) - fabs(wanted);
    return fabs(got - wanted) / unit;
}

PROGRAM(programs_math, double_precision_functions_agree_with_the_hosts, "doubles.cu")
{
    enum { COUNT = 64, COLUMNS = 12 };
    static const char *const names[COLUMNS] = {"sqrt", "1/x", "fma",  "rint", "exp", "log",
                                               "sin",  "cos", "cbrt", "erf",  "pow", "atan2"};
    /* what the programming guide allows, and one for the host's own error */
    static const double allowed[COLUMNS] = {0, 0, 0, 0, 2, 2, 3, 3, 2, 3, 3, 3};
    double in[COUNT] = {0.0,    1.0,  0.5,   1e-310, 1e300, INFINITY, 2.5,
                        1.5e-8, 1e22, 710.0, 0.7,    3.0,   1e5,      5e-324};
    for (int i = 14; i < COUNT; i++)
        in[i] = exp((i - 40) * 0.37);
    double got[COUNT][COLUMNS];
    int count = COUNT;
    CUdeviceptr device_in = device_upload(in, sizeof in), out = device_alloc(sizeof got);
    LAUNCH(module, "doubles", 2, 32, &out, &device_in, &count);
    device_download(got, out, sizeof got);
    for (int i = 0; i < COUNT; i++) {
        double x = in[i];
        double wanted[COLUMNS] = {sqrt(x),
                                  1.0 / x,
                                  fma(x, x, -1.0 / 3.0),
                                  rint(x),
                                  exp(fmin(x, 700.0)),
                                  log(x),
                                  sin(x),
                                  cos(x),
                                  cbrt(x),
                                  erf(x),
                                  pow(x, 0.37),
                                  atan2(x, 2.0)};
        for (int k = 0; k < COLUMNS; k++)
            cr_expect(ulps(got[i][k], wanted[k], false) <= allowed[k],
                      "%s of %.17g: %.17g, expected %.17g", names[k], x, got[i][k], wanted[k]);
    }
}

PROGRAM(programs_math, single_precision_functions_agree_with_the_hosts, "singles.cu")
{
    enum { COUNT = 64, COLUMNS = 10 };
    static const char *const names[COLUMNS] = {"sqrtf", "3/x",  "expf", "logf",   "sinf",
                                               "tanhf", "erff", "powf", "__expf", "rsqrtf"};
    static const double allowed[COLUMNS] = {0.5, 0.5, 2, 2, 3, 3, 3, 5, 40, 3};
    float in[COUNT] = {1.0f, 0.5f, 1e-40f, 1e30f, 2.5f, 1.5e-8f, 1e6f, 300000.0f, 0.7f, 3.0f};
    for (int i = 10; i < COUNT; i++)
        in[i] = expf((float)(i - 40) * 0.37f);
    float got[COUNT][COLUMNS];
    int count = COUNT;
    CUdeviceptr device_in = device_upload(in, sizeof in), out = device_alloc(sizeof got);
    LAUNCH(module, "singles", 2, 32, &out, &device_in, &count);
    device_download(got, out, sizeof got);
    for (int i = 0; i < COUNT; i++) {
        double x = (double)in[i];
        double wanted[COLUMNS] = {sqrt(x),
                                  3.0 / x,
                                  exp(fmin(x, 80.0)),
                                  log(x),
                                  sin(x),
                                  tanh(x),
                                  erf(x),
                                  pow(x, (double)0.37f),
                                  exp(fmin(x, 10.0)),
                                  1.0 / sqrt(x)};
        for (int k = 0; k < COLUMNS; k++) {
            if (fabs(wanted[k]) > 3.4e38)
                continue; /* beyond the format */
            cr_expect(ulps((double)got[i][k], wanted[k], true) <= allowed[k],
                      "%s of %.9g: %.9g, expected %.9g", names[k], x, (double)got[i][k], wanted[k]);
        }
    }
}

PROGRAM(programs_math, integers_divide_towards_zero, "division.cu")
{
    static const long long edges[] = {1,
                                      -1,
                                      2,
                                      7,
                                      -7,
                                      10,
                                      0x7fffffff,
                                      0x80000000,
                                      0xffffffff,
                                      0x100000000,
                                      1000003,
                                      -1000000007,
                                      INT64_MAX,
                                      INT64_MIN,
                                      123456789012345,
                                      -98765432109876};
    enum { EDGES = sizeof edges / sizeof edges[0], COUNT = EDGES * EDGES };
    static long long a[COUNT], b[COUNT], got[COUNT][10];
    for (int i = 0; i < COUNT; i++) {
        a[i] = edges[i / EDGES];
        b[i] = edges[i % EDGES];
        if (a[i] == INT64_MIN && b[i] == -1)
            b[i] = 3;
    }
    CUdeviceptr da = device_upload(a, sizeof a), db = device_upload(b, sizeof b);
    CUdeviceptr out = device_alloc(sizeof got);
    LAUNCH(module, "division", 1, COUNT, &out, &da, &db);
    device_download(got, out, sizeof got);
    for (int i = 0; i < COUNT; i++) {
        unsigned long long ux = (unsigned long long)a[i], uy = (unsigned long long)b[i];
        unsigned vx = (unsigned)ux, vy = (unsigned)uy ? (unsigned)uy : 1u;
        long long sx = (int)vx, sy = vy == 0xffffffffu ? 7 : (int)vy;
        long long wanted[10] = {a[i] / b[i],
                                a[i] % b[i],
                                (long long)(ux / uy),
                                (long long)(ux % uy),
                                vx / vy,
                                vx % vy,
                                sx / sy,
                                sx % sy,
                                (long long)((unsigned __int128)ux * uy >> 64),
                                (long long)(ux / 1000003u + (unsigned long long)(sx * sy >> 32))};
        for (int k = 0; k < 10; k++)
            cr_expect_eq(got[i][k], wanted[k], "%lld, %lld, column %d: %lld, expected %lld", a[i],
                         b[i], k, got[i][k], wanted[k]);
    }
}

static uint64_t greatest_divisor(uint64_t a, uint64_t b)
{
    return b ? greatest_divisor(b, a % b) : a;
}

static uint64_t power_modulo(uint64_t base, uint32_t exponent, uint64_t modulus)
{
    unsigned __int128 result = 1 % modulus, square = base % modulus;
    for (; exponent; exponent >>= 1, square = square * square % modulus)
        if (exponent & 1)
            result = result * square % modulus;
    return (uint64_t)result;
}

PROGRAM(programs_math, integers_of_64_bits_multiply_shift_and_reduce, "wide_integers.cu")
{
    enum { COUNT = 128, COLUMNS = 12 };
    static uint64_t a[COUNT] = {0, 1, UINT64_MAX, INT64_MAX, (uint64_t)INT64_MIN, 1000000007},
                    b[COUNT] = {0, UINT64_MAX, 64, 63, 1, 998244353}, got[COUNT][COLUMNS];
    uint64_t random = 88172645463325252u;
    for (int i = 6; i < COUNT; i++) {
        a[i] = random = random * 6364136223846793005u + 1442695040888963407u;
        b[i] = (random = random * 6364136223846793005u + 1442695040888963407u) >> i % 40;
    }
    CUdeviceptr da = device_upload(a, sizeof a), db = device_upload(b, sizeof b);
    CUdeviceptr out = device_alloc(sizeof got);
    LAUNCH(module, "compute", 1, COUNT, &out, &da, &db);
    device_download(got, out, sizeof got);
    for (int i = 0; i < COUNT; i++) {
        uint64_t x = a[i], y = b[i], root = (uint64_t)sqrtl((long double)x);
        int64_t sx = (int64_t)x, sy = (int64_t)y;
        unsigned amount = y & 63;
        unsigned __int128 sum = ((unsigned __int128)x << 64 | y) + ((unsigned __int128)y << 64 | x);
        root -= (unsigned __int128)root * root > x;
        uint64_t wanted[COLUMNS] = {
            greatest_divisor(x, y),
            power_modulo(x, (uint32_t)y, (y >> 1) + 3),
            root,
            x << amount,
            (uint64_t)(sx >> amount),
            x << amount | x >> (-amount & 63),
            (uint64_t)(sum >> 64),
            (uint64_t)sum,
            (uint64_t)(sx < sy ? sx : sy) ^ (x > y ? x : y),
            (uint64_t)((__int128)sx * sy >> 64),
            (uint64_t)(int64_t)((double)sx * 0.5),
            bits_of_double((double)x) + (unsigned)__builtin_popcountll(x & ~y),
        };
        for (int k = 0; k < COLUMNS; k++)
            cr_expect_eq(got[i][k], wanted[k], "%llx, %llx, column %d: %llx, expected %llx",
                         (unsigned long long)x, (unsigned long long)y, k,
                         (unsigned long long)got[i][k], (unsigned long long)wanted[k]);
    }
}

static unsigned dot_bytes(unsigned x, unsigned y, bool is_signed)
{
    unsigned sum = 100;
    for (int i = 0; i < 32; i += 8)
        sum += is_signed ? (unsigned)((signed char)(x >> i) * (signed char)(y >> i))
                         : (x >> i & 255) * (y >> i & 255);
    return sum;
}

PROGRAM(programs_math, bits_move_as_their_functions_say, "bits.cu")
{
    enum { COUNT = 128 };
    unsigned a[COUNT] = {0, 1, 0xffffffff, 0x80000000, 0x7f800000, 0x4f800000, 0x3fc00000};
    unsigned b[COUNT] = {0, 0xffffffff, 0xffffffff, 31, 32, 33, 64};
    unsigned got[COUNT][16], random = 12345;
    for (int i = 7; i < COUNT; i++) {
        a[i] = random = random * 1664525 + 1013904223;
        b[i] = random = random * 1664525 + 1013904223;
    }
    CUdeviceptr da = device_upload(a, sizeof a), db = device_upload(b, sizeof b);
    CUdeviceptr out = device_alloc(sizeof got);
    LAUNCH(module, "bits", 1, COUNT, &out, &da, &db);
    device_download(got, out, sizeof got);
    for (int i = 0; i < COUNT; i++) {
        unsigned x = a[i], y = b[i], reversed = 0, sums = 0, most = 0;
        unsigned long long wide = (unsigned long long)x << 32 | y, swapped = 0;
        unsigned long long pair = (unsigned long long)y << 32 | x;
        for (int k = 0; k < 64; k++) {
            reversed |= k < 32 ? (x >> k & 1) << (31 - k) : 0;
            swapped |= (wide >> k & 1) << (63 - k);
        }
        for (int k = 0; k < 32; k += 8)
            sums |= (((x >> k) + (y >> k)) & 255) << k;
        for (int k = 0; k < 32; k += 16) {
            unsigned u = x >> k & 0xffff, v = y >> k & 0xffff;
            most |= (u > v ? u : v) << k;
        }
        unsigned right = (y & 63) < 32 ? y & 63 : 32;
        unsigned magnitude = x & 0x7fffffff;
        double value = (double)float_of(magnitude);
        unsigned wanted[16] = {
            (unsigned)__builtin_popcount(x),
            x ? (unsigned)__builtin_clz(x) : 32,
            (unsigned)__builtin_ffs((int)x),
            reversed,
            (unsigned)(pair << (y & 31) >> 32),
            (unsigned)(pair >> right),
            /* __byte_perm(x, y, 0x5142): bytes 2, 4, 1, 5 from the lowest */
            (x >> 16 & 255) | (y & 255) << 8 | (x >> 8 & 255) << 16 | (y >> 8 & 255) << 24,
            (unsigned)__builtin_popcountll(wide),
            wide ? (unsigned)__builtin_clzll(wide) : 64,
            (unsigned)__builtin_ffsll((long long)wide),
            (unsigned)(swapped >> 16),
            dot_bytes(x, y, true),
            dot_bytes(x, y, false),
            (x > y ? x - y : y - x) + 5,
            isnan(value)            ? 0
            : value >= 4294967296.0 ? 0xffffffff
                                    : (unsigned)value,
            sums ^ most,
        };
        for (int k = 0; k < 16; k++)
            cr_expect_eq(got[i][k], wanted[k], "0x%x, 0x%x, column %d: 0x%x, expected 0x%x", x, y,
                         k, got[i][k], wanted[k]);
    }
}

PROGRAM(programs_math, pairs_of_16_bit_floats_round_once, "pairs.cu")
{
    static const float in[3][2] = {{1.7f, -300.3f}, {0.33f, 41.77f}, {-0.56f, 12526.0f}};
    uint16_t got[2][8][2];
    CUdeviceptr device_in = device_upload(in, sizeof in), out = device_alloc(sizeof got);
    LAUNCH(module, "pairs", 1, 1, &out, &device_in);
    device_download(got, out, sizeof got);
    for (int f = 0; f < 2; f++) {
        float_format format = f ? format_bf16 : format_f16;
        for (int k = 0; k < 2; k++) {
            double v[3];
            for (int i = 0; i < 3; i++)
                v[i] = format_to_double(
                    format, format_from_double(format, (double)in[i][k], ROUND_NEAREST));
            double wanted[8] = {v[0] + v[1],      v[0] - v[1],      v[0] * v[1], v[0] * v[1] + v[2],
                                fmax(v[0], v[1]), fmin(v[0], v[1]), -fabs(v[1]), v[0] > v[1]};
            for (int i = 0; i < 8; i++) {
                uint64_t bits = format_from_double(format, wanted[i], ROUND_NEAREST);
                cr_expect_eq(got[f][i][k], bits, "%s, operation %d, half %d: 0x%x, expected 0x%x",
                             f ? "bf16" : "f16", i, k, got[f][i][k], (unsigned)bits);
            }
        }
    }
    enum { COUNT = 256 };
    float values[COUNT], back[COUNT][2];
    for (int i = 0; i < COUNT; i++)
        values[i] = float_of((uint32_t)i * 0x01010301u + (uint32_t)i % 5 * 0x1000u);
    CUdeviceptr device_values = device_upload(values, sizeof values);
    out = device_alloc(sizeof back);
    LAUNCH(module, "round_trip", 1, COUNT, &out, &device_values);
    device_download(back, out, sizeof back);
    for (int i = 0; i < COUNT; i++)
        for (int f = 0; f < 2; f++) {
            float_format format = f ? format_bf16 : format_f16;
            double wanted = format_to_double(
                format, format_from_double(format, (double)values[i], ROUND_NEAREST));
            double found = (double)back[i][f];
            cr_expect(found == wanted || (isnan(found) && isnan(wanted)),
                      "%a in %s: %a, expected %a", (double)values[i], f ? "bf16" : "f16", found,
                      wanted);
        }
}

/* ---- functions of pairs ---- */

enum { HALF_COLUMNS = 16 };
static const char *const half_names[HALF_COLUMNS] = {
    "h2sqrt", "h2rsqrt", "h2rcp",  "h2exp",   "h2exp2", "h2log",        "h2log2",      "h2sin",
    "h2cos",  "h2floor", "h2ceil", "h2trunc", "h2rint", "__hfma2_relu", "__hmul2_sat", "__h2div"};
/* Units in the last place of the format. */
static const double half_allowed[HALF_COLUMNS] = {1, 1, 1, 1, 1, 1, 1, 2, 2};

static double half_function(int column, double x, double y)
{
    switch (column) {
    case 0:
        return sqrt(x);
    case 1:
        return 1 / sqrt(x);
    case 2:
        return 1 / x;
    case 3:
        return exp(y);
    case 4:
        return exp2(y);
    case 5:
        return log(x);
    case 6:
        return log2(x);
    case 7:
        return sin(y);
    case 8:
        return cos(y);
    case 9:
        return floor(y);
    case 10:
        return ceil(y);
    case 11:
        return trunc(y);
    case 12:
        return rint(y);
    case 13:
        return fmax(fma(x, y, y), 0);
    case 14:
        return fmin(fmax(x * y, 0), 1);
    default:
        return y / x;
    }
}

static void check_half_functions(float_format format, const uint16_t *got, const float *x,
                                 const float *y)
{
    double a = format_to_double(format, format_from_double(format, (double)*x, ROUND_NEAREST));
    double b = format_to_double(format, format_from_double(format, (double)*y, ROUND_NEAREST));
    for (int k = 0; k < HALF_COLUMNS; k++) {
        double wanted = half_function(k, a, b);
        uint64_t bits = format_from_double(format, wanted, ROUND_NEAREST);
        double distance = fabs((double)(got[2 * k] & 0x7fff) - (double)(bits & 0x7fff));
        bool near_zero = fabs(wanted) < 0x1p-8 && half_allowed[k] > 0;
        cr_expect((near_zero || (got[2 * k] ^ bits) < 0x8000) && distance <= half_allowed[k],
                  "%s of %g, %g in %s: 0x%x, expected 0x%x", half_names[k], a, b,
                  format.exponent_bits == 5 ? "f16" : "bf16", got[2 * k], (unsigned)bits);
    }
}

PROGRAM(programs_math, functions_of_16_bit_pairs_are_near_the_hosts, "half2_math.cu")
{
    enum { COUNT = 96 };
    static float x[COUNT][2], y[COUNT][2];
    static uint16_t got[2][COUNT][HALF_COLUMNS][2];
    for (int i = 0; i < 2 * COUNT; i++) {
        x[i / 2][i % 2] = expf((float)(i * 37 % 191) / 24.0f - 4.0f);
        y[i / 2][i % 2] = (float)(i * 53 % 193) / 20.0f - 4.8f;
    }
    CUdeviceptr device_x = device_upload(x, sizeof x), device_y = device_upload(y, sizeof y);
    CUdeviceptr out = device_alloc(sizeof got);
    int count = COUNT;
    LAUNCH(module, "functions", 1, COUNT, &out, &device_x, &device_y, &count);
    device_download(got, out, sizeof got);
    for (int f = 0; f < 2; f++)
        for (int i = 0; i < 2 * COUNT; i++)
            check_half_functions(f ? format_bf16 : format_f16, &got[f][i / 2][0][i % 2],
                                 &x[i / 2][i % 2], &y[i / 2][i % 2]);
}

static void check_product(CUmodule module, const char *entry, float_format format)
{
    uint16_t a[16][64], b[64][8];
    float got[16][8];
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 64; k++)
            a[i][k] = (uint16_t)format_from_double(format, (i * 5 + k * 3) % 17 - 8, ROUND_NEAREST);
    for (int k = 0; k < 64; k++)
        for (int j = 0; j < 8; j++)
            b[k][j] = (uint16_t)format_from_double(format, (k * 7 + j) % 13 - 6, ROUND_NEAREST);
    CUdeviceptr da = device_upload(a, sizeof a), db = device_upload(b, sizeof b);
    CUdeviceptr out = device_alloc(sizeof got);
    LAUNCH(module, entry, 1, 32, &out, &da, &db);
    device_download(got, out, sizeof got);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) {
            double wanted = 0;
            for (int k = 0; k < 64; k++)
                wanted += format_to_double(format, a[i][k]) * format_to_double(format, b[k][j]);
            cr_assert((double)got[i][j] == wanted, "%s %d, %d: %g, expected %g", entry, i, j,
                      (double)got[i][j], wanted);
        }
}

PROGRAM(programs_math, tensor_core_products_of_small_integers_are_exact, "mma.cu")
{
    check_product(module, "product_bf16", format_bf16);
    check_product(module, "product_f16", format_f16);
}
