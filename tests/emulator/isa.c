/* isa.c: makes a kernel of one instruction, runs it on the emulator, compares with the oracle. */
#include "isa.h"

#include <criterion/criterion.h>
#include <cuda.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "softfloat.h"

enum { RANDOM_ROWS = 2048, MAX_EDGES = 40 };

static const struct {
    const char *reg; /* register and memory type */
    int bytes;
} storage[] = {
    [ISA_NONE] = {"b32", 4},  [ISA_I16] = {"b16", 2},    [ISA_I32] = {"b32", 4},
    [ISA_I64] = {"b64", 8},   [ISA_F16] = {"b16", 2},    [ISA_BF16] = {"b16", 2},
    [ISA_F32] = {"f32", 4},   [ISA_F64] = {"f64", 8},    [ISA_BIT] = {"b32", 4},
    [ISA_F16X2] = {"b32", 4}, [ISA_BF16X2] = {"b32", 4}, [ISA_F32X2] = {"b64", 8},
};

static uint64_t random_bits(void)
{
    static uint64_t state = 0x9E3779B97F4A7C15u;
    state += 0x9E3779B97F4A7C15u;
    uint64_t x = state;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

/* The type of an element of a pair; of other types the type itself. */
static isa_type element_of(isa_type type)
{
    return type == ISA_F16X2    ? ISA_F16
           : type == ISA_BF16X2 ? ISA_BF16
           : type == ISA_F32X2  ? ISA_F32
                                : type;
}

static int edges(uint64_t out[MAX_EDGES], isa_type type)
{
    int count = 0;
    isa_type element = element_of(type);
    if (element != type) {
        uint64_t low[MAX_EDGES];
        count = edges(low, element);
        for (int i = 0; i < count; ++i)
            out[i] = low[i] | low[(7 * i + 3) % count] << (8 * storage[element].bytes);
        return count;
    }
    switch (type) {
    case ISA_BIT:
        out[count++] = 1;
        out[count++] = 0;
        break;
    default:
        out[count++] = 0;
        break;
    case ISA_I16:
    case ISA_I32:
    case ISA_I64: {
        static const uint64_t integers[] = {0,
                                            1,
                                            2,
                                            3,
                                            7,
                                            15,
                                            16,
                                            17,
                                            31,
                                            32,
                                            33,
                                            63,
                                            64,
                                            65,
                                            255,
                                            256,
                                            0x7f,
                                            0x80,
                                            0x7fff,
                                            0x8000,
                                            0xffff,
                                            0x7fffffff,
                                            0x80000000,
                                            0xffffffff,
                                            0x7fffffffffffffff,
                                            0x8000000000000000,
                                            0xffffffffffffffff,
                                            0xfffffffffffffffe,
                                            0x5555555555555555,
                                            0xaaaaaaaaaaaaaaaa};
        for (size_t i = 0; i < sizeof integers / sizeof integers[0]; ++i)
            out[count++] = integers[i];
        break;
    }
    case ISA_F16: {
        static const uint16_t halves[] = {0x0000, 0x8000, 0x0001, 0x8001, 0x03ff, 0x0400, 0x3800,
                                          0x3c00, 0xbc00, 0x3c01, 0x4000, 0xc248, 0x7bff, 0xfbff,
                                          0x7c00, 0xfc00, 0x7e00, 0xfe01, 0x4248, 0x5640};
        for (size_t i = 0; i < sizeof halves / sizeof halves[0]; ++i)
            out[count++] = halves[i];
        break;
    }
    case ISA_BF16: {
        static const uint16_t bfloats[] = {0x0000, 0x8000, 0x0001, 0x8001, 0x007f, 0x0080, 0x3f00,
                                           0x3f80, 0xbf80, 0x3f81, 0x4000, 0xc049, 0x7f7f, 0xff7f,
                                           0x7f80, 0xff80, 0x7fc0, 0xffc1, 0x4049, 0x42c8};
        for (size_t i = 0; i < sizeof bfloats / sizeof bfloats[0]; ++i)
            out[count++] = bfloats[i];
        break;
    }
    case ISA_F32: {
        static const float floats[] = {0.0f,           1.0f,           -1.0f,
                                       0.5f,           1.5f,           2.5f,
                                       -2.5f,          3.1415927f,     100.0f,
                                       -87.3f,         88.7f,          1e-20f,
                                       1e20f,          -3e38f,         3.4028235e38f,
                                       1.1754944e-38f, 1e-45f,         -1e-40f,
                                       65504.0f,       65520.0f,       448.0f,
                                       464.0f,         57344.0f,       2147483648.0f,
                                       4294967296.0f,  -2147483904.0f, 9.2233720368547758e18f,
                                       0.99999994f,    1.0000001f};
        for (size_t i = 0; i < sizeof floats / sizeof floats[0]; ++i)
            out[count++] = bits_of_float(floats[i]);
        static const uint32_t special[] = {0x80000000, 0x7f800000, 0xff800000, 0x7fc00000,
                                           0xffc12345};
        for (size_t i = 0; i < sizeof special / sizeof special[0]; ++i)
            out[count++] = special[i];
        break;
    }
    case ISA_F64: {
        static const double doubles[] = {0.0,
                                         1.0,
                                         -1.0,
                                         0.5,
                                         1.5,
                                         2.5,
                                         -2.5,
                                         3.141592653589793,
                                         1e300,
                                         -1e300,
                                         1e-300,
                                         4.9e-324,
                                         2.2250738585072014e-308,
                                         1e10,
                                         -1e19,
                                         1.8446744073709552e19,
                                         2147483647.5,
                                         4294967295.5};
        for (size_t i = 0; i < sizeof doubles / sizeof doubles[0]; ++i)
            out[count++] = bits_of_double(doubles[i]);
        static const uint64_t special[] = {0x8000000000000000, 0x7ff0000000000000,
                                           0xfff0000000000000, 0x7ff8000000000000};
        for (size_t i = 0; i < sizeof special / sizeof special[0]; ++i)
            out[count++] = special[i];
        break;
    }
    }
    return count;
}

/* Random bits; for floats half of them of moderate size, where arithmetic neither overflows nor
 * vanishes. */
static uint64_t random_operand(isa_type type)
{
    isa_type element = element_of(type);
    if (element != type)
        return random_operand(element) | random_operand(element) << (8 * storage[element].bytes);
    uint64_t bits = random_bits();
    int moderate = (int)(random_bits() & 1);
    switch (type) {
    case ISA_F16:
        return moderate ? (bits & 0x83ff) | (13 + bits / 65536 % 5) << 10 : bits & 0xffff;
    case ISA_BF16:
        return moderate ? (bits & 0x807f) | (124 + bits / 65536 % 7) << 7 : bits & 0xffff;
    case ISA_F32:
        return moderate ? (bits & 0x807fffff) | (120 + (bits >> 32) % 14) << 23 : bits & 0xffffffff;
    case ISA_F64:
        return moderate ? (bits & 0x800fffffffffffff) | (1016 + random_bits() % 14) << 52 : bits;
    case ISA_NONE:
        return 0;
    case ISA_BIT:
        return bits & 1;
    default:
        return bits >> (random_bits() % 64);
    }
}

typedef struct rows {
    uint64_t *a, *b, *c;
    size_t count;
} rows;

static uint64_t mask_of(isa_type type)
{
    int bytes = storage[type].bytes;
    return bytes == 8 ? ~(uint64_t)0 : ((uint64_t)1 << (8 * bytes)) - 1;
}

static void add_row(rows *r, const isa_case *test, uint64_t a, uint64_t b, uint64_t c)
{
    r->a[r->count] = a & mask_of(test->a);
    r->b[r->count] = b & mask_of(test->b);
    r->c[r->count] = c & mask_of(test->c);
    ++r->count;
}

static rows make_rows(const isa_case *test)
{
    uint64_t ea[MAX_EDGES], eb[MAX_EDGES], ec[MAX_EDGES];
    int na = edges(ea, test->a), nb = edges(eb, test->b), nc = edges(ec, test->c);
    size_t most = (size_t)(na * nb * nc) + RANDOM_ROWS;
    rows r = {calloc(most, 8), calloc(most, 8), calloc(most, 8), 0};
    cr_assert(r.a && r.b && r.c);
    for (int i = 0; i < na; ++i)
        for (int j = 0; j < nb; ++j)
            for (int k = 0; k < nc; ++k)
                add_row(&r, test, ea[i], eb[j], ec[k]);
    for (int i = 0; i < RANDOM_ROWS; ++i)
        add_row(&r, test, random_operand(test->a), random_operand(test->b),
                random_operand(test->c));
    return r;
}

static char *make_ptx(const isa_case *test)
{
    const char *d = storage[test->d].reg, *a = storage[test->a].reg, *b = storage[test->b].reg,
               *c = storage[test->c].reg;
    char *text = NULL;
    int length = asprintf(
        &text,
        ".version 9.0\n.target sm_100\n.address_size 64\n"
        ".visible .entry one(.param .u64 pd, .param .u64 pa, .param .u64 pb, .param .u64 pc, "
        ".param .u32 pn)\n{\n"
        "  .reg .%s %%d; .reg .%s %%a; .reg .%s %%b; .reg .%s %%c;\n"
        "  .reg .pred %%p, %%q, %%s, %%end; .reg .b32 %%t, %%n, %%i, %%x, %%y; .reg .b64 %%g, "
        "%%o;\n"
        "  mov.u32 %%x, %%ctaid.x; mov.u32 %%y, %%ntid.x; mov.u32 %%i, %%tid.x;\n"
        "  mad.lo.s32 %%i, %%x, %%y, %%i;\n"
        "  ld.param.u32 %%n, [pn];\n  setp.ge.u32 %%end, %%i, %%n;\n  @%%end ret;\n"
        "  ld.param.u64 %%g, [pa]; mul.wide.u32 %%o, %%i, %d; add.s64 %%g, %%g, %%o; ld.global.%s "
        "%%a, [%%g];\n"
        "  ld.param.u64 %%g, [pb]; mul.wide.u32 %%o, %%i, %d; add.s64 %%g, %%g, %%o; ld.global.%s "
        "%%b, [%%g];\n"
        "  ld.param.u64 %%g, [pc]; mul.wide.u32 %%o, %%i, %d; add.s64 %%g, %%g, %%o; ld.global.%s "
        "%%c, [%%g];\n"
        "CASE:\n  %s\nCASE_END:\n"
        "  ld.param.u64 %%g, [pd]; mul.wide.u32 %%o, %%i, %d; add.s64 %%g, %%g, %%o; st.global.%s "
        "[%%g], %%d;\n"
        "  ret;\n}\n",
        d, a, b, c, storage[test->a].bytes, a, storage[test->b].bytes, b, storage[test->c].bytes, c,
        test->ptx, storage[test->d].bytes, d);
    cr_assert(length > 0);
    return text;
}

static CUdeviceptr upload(const uint64_t *values, size_t count, isa_type type)
{
    size_t bytes = (size_t)storage[type].bytes;
    unsigned char *packed = malloc(count * bytes);
    cr_assert(packed);
    for (size_t i = 0; i < count; ++i)
        memcpy(packed + i * bytes, &values[i], bytes); /* little-endian */
    CUdeviceptr pointer = device_upload(packed, count * bytes);
    free(packed);
    return pointer;
}

static double value_of(uint64_t bits, isa_type type)
{
    switch (type) {
    case ISA_F16:
        return format_to_double(format_f16, bits);
    case ISA_BF16:
        return format_to_double(format_bf16, bits);
    case ISA_F32:
        return (double)float_of(bits);
    default:
        return double_of(bits);
    }
}

static int is_nan(uint64_t bits, isa_type type)
{
    switch (type) {
    case ISA_F16:
        return (bits & 0x7fff) > 0x7c00;
    case ISA_BF16:
        return (bits & 0x7fff) > 0x7f80;
    case ISA_F32:
        return (bits & 0x7fffffff) > 0x7f800000;
    case ISA_F64:
        return (bits & 0x7fffffffffffffff) > 0x7ff0000000000000;
    default:
        return 0;
    }
}

static int64_t ordered32(uint64_t bits)
{
    return bits & 0x80000000 ? -(int64_t)(bits & 0x7fffffff) : (int64_t)bits;
}

static int agrees_element(isa_type type, isa_compare compare, uint64_t got, uint64_t expected)
{
    static const double bounds[] = {
        [ISA_REL20] = 0x1p-20, [ISA_REL18] = 0x1p-18, [ISA_REL10] = 0x1p-10,
        [ISA_EX2] = 0x1p-10,   [ISA_REL7] = 0x1p-7,   [ISA_ABS20] = 0x1p-20,
        [ISA_ABS10] = 0x1p-10, [ISA_ABS8] = 0x1p-8,   [ISA_LG2] = 0x1p-22 + 0x1p-24};
    if (got == expected)
        return 1;
    if (is_nan(expected, type) || is_nan(got, type))
        return is_nan(got, type) && is_nan(expected, type);
    if (compare == ISA_EXACT)
        return 0;
    if (compare == ISA_ULP2)
        return llabs(ordered32(got) - ordered32(expected)) <= 2;
    if (compare == ISA_EX2 && expected < 0x400)
        return llabs((int64_t)got - (int64_t)expected) <= 1;
    double g = value_of(got, type), e = value_of(expected, type);
    int is_absolute = compare >= ISA_ABS20 && (compare != ISA_LG2 || fabs(e) <= 1);
    double scale = is_absolute ? 1.0 : fabs(e);
    return fabs(g - e) <= scale * bounds[compare];
}

static int agrees(const isa_case *test, uint64_t got, uint64_t expected)
{
    isa_type element = element_of(test->d);
    if (element == test->d)
        return agrees_element(element, test->compare, got, expected);
    uint64_t mask = mask_of(element);
    int bits = 8 * storage[element].bytes;
    return agrees_element(element, test->compare, got & mask, expected & mask) &&
           agrees_element(element, test->compare, got >> bits, expected >> bits);
}

static void run_case(const isa_case *test)
{
    char *ptx = make_ptx(test);
    CUmodule module = device_load_known(ptx, test->ptx);
    free(ptx);
    if (!module)
        return;
    rows r = make_rows(test);
    size_t bytes = (size_t)storage[test->d].bytes;
    CUdeviceptr a = upload(r.a, r.count, test->a), b = upload(r.b, r.count, test->b),
                c = upload(r.c, r.count, test->c), d = device_alloc(r.count * bytes);
    unsigned n = (unsigned)r.count;
    void *arguments[] = {&d, &a, &b, &c, &n};
    device_run(module, "one", (n + 127) / 128, 128, 0, arguments, test->ptx);

    unsigned char *results = malloc(r.count * bytes);
    cr_assert(results);
    device_download(results, d, r.count * bytes);
    int shown = 0;
    for (size_t i = 0; i < r.count && shown < 4; ++i) {
        uint64_t got = 0;
        memcpy(&got, results + i * bytes, bytes);
        uint64_t expected = test->oracle(r.a[i], r.b[i], r.c[i]) & mask_of(test->d);
        if (!agrees(test, got, expected)) {
            cr_expect(0,
                      "%s\n  a 0x%" PRIx64 " b 0x%" PRIx64 " c 0x%" PRIx64 ": got 0x%" PRIx64
                      ", expected 0x%" PRIx64,
                      test->ptx, r.a[i], r.b[i], r.c[i], got, expected);
            ++shown;
        }
    }
    free(results);
    free(r.a);
    free(r.b);
    free(r.c);
    cuModuleUnload(module);
    cuMemFree(a);
    cuMemFree(b);
    cuMemFree(c);
    cuMemFree(d);
}

void isa_run(const isa_case *cases, int count)
{
    device_open();
    for (int i = 0; i < count; ++i)
        run_case(&cases[i]);
    device_close();
}
