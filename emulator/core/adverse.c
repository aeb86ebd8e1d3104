/*
 * adverse.c: approximate instructions that are as wrong as the PTX ISA lets them be (approx=adverse
 * of a schedule). machine.c puts these handlers in the place of the exact ones; no other schedule
 * sees them. The error is a function of the schedule's seed and of the operands, as on a GPU, where
 * equal operands give equal results.
 */
#include "adverse.h"

#include <math.h>
#include <string.h>

#include "exec.h"
#include "machine.h"
#include "smallfloat.h"

static const small_format format_f32 = {23, 127, 0x7f7fffff, 0x7f800000, 0x7fffffff};

/* What is between the instruction and the number it approximates. */
typedef struct approximation {
    ir_op op;
    const small_format *format;
    int elements; /* in a register: 2 for packed halves */
    int sources;
    double (*value)(double a, double b);
    double (*bound)(double a, double value, const small_format *format);
} approximation;

/* ---- numbers ---- */

static f64 decoded(u32 bits, const small_format *f)
{
    return f == &format_f32    ? f32_of_bits(bits)
           : f == &format_bf16 ? bf16_to_f32((u16)bits)
                               : f16_to_f32((u16)bits);
}

static double reciprocal(double a, double b)
{
    (void)b;
    return 1 / a;
}

static double quotient(double a, double b)
{
    return a / b;
}

static double square_root(double a, double b)
{
    (void)b;
    return sqrt(a);
}

static double reciprocal_root(double a, double b)
{
    (void)b;
    return 1 / sqrt(a);
}

static double power_of_two(double a, double b)
{
    (void)b;
    return exp2(a);
}

static double logarithm(double a, double b)
{
    (void)b;
    return log2(a);
}

static double sine(double a, double b)
{
    (void)b;
    return sin(a);
}

static double cosine(double a, double b)
{
    (void)b;
    return cos(a);
}

static double hyperbolic_tangent(double a, double b)
{
    (void)b;
    return tanh(a);
}

/* ---- bounds: the sections of the PTX ISA are those of the instructions ---- */

static double ulps(double value, int count, const small_format *f)
{
    int exponent;
    frexp(value, &exponent);
    exponent = exponent - 1 < 1 - f->bias ? 1 - f->bias : exponent - 1;
    return ldexp(count, exponent - f->mantissa);
}

static double one_ulp(double a, double value, const small_format *f)
{
    (void)a;
    return ulps(value, 1, f);
}

static double two_ulps(double a, double value, const small_format *f)
{
    (void)a;
    return ulps(value, 2, f);
}

static double root_bound(double a, double value, const small_format *f)
{
    (void)a, (void)f;
    return fabs(value) * 0x1p-23;
}

static double reciprocal_root_bound(double a, double value, const small_format *f)
{
    (void)a, (void)f;
    return fabs(value) * exp2(-22.9);
}

static double logarithm_bound(double a, double value, const small_format *f)
{
    (void)f;
    return a > 0.5 && a < 2 ? 0x1p-22 : fabs(value) * 0x1p-22;
}

/* The range that the ISA gives this bound for is an argument within pi; beyond it is wider. */
static double angle_bound(double a, double value, const small_format *f)
{
    (void)a, (void)value, (void)f;
    return exp2(-20.5);
}

static double tangent_bound(double a, double value, const small_format *f)
{
    (void)a;
    return f == &format_f32 ? fabs(value) * 0x1p-11 : f == &format_f16 ? exp2(-10.987) : 0x1p-8;
}

static double half_power_bound(double a, double value, const small_format *f)
{
    (void)a;
    return fabs(value) * (f == &format_f16 ? exp2(-9.9) : 0x1p-7);
}

/* ---- errors ---- */

/* From -1 to 1. A quarter of the seeds errs upwards, a quarter downwards, a quarter either way as
 * far as possible, the others anywhere in between. */
static double drawn_error(uint64_t seed, ir_op op, u32 a, u32 b)
{
    uint64_t hash = schedule_mix(schedule_mix(seed ^ (uint64_t)op << 32 ^ a) ^ b);
    switch (seed & 3) {
    case 0:
        return (double)(int64_t)hash * 0x1p-63;
    case 1:
        return 1;
    case 2:
        return -1;
    default:
        return hash & 1 ? 1 : -1;
    }
}

/* The result for one element: `exact` where an error has no meaning or no room. */
static u32 wrong_result(const approximation *row, uint64_t seed, u32 a, u32 b, u32 exact, bool ftz)
{
    const small_format *f = row->format;
    u32 sign = (u32)1 << (f == &format_f32 ? 31 : 15), mantissa = ((u32)1 << f->mantissa) - 1;
    u32 least = mantissa + 1; /* the smallest normal number */
    bool is_normal = (exact & ~sign) >= least && (exact & ~sign) < f->infinity;
    if (!is_normal || !(a & ~sign) || (ftz && (a & ~sign) < least)) {
        return exact;
    }
    double x = decoded(a, f), value = row->value(x, decoded(b, f));
    double bound = row->bound(x, value, f);
    double wanted = value + drawn_error(seed, row->op, a, b) * bound;
    u32 wrong = small_encode(wanted, f, wanted > value ? ROUND_DOWN : ROUND_UP, false);
    bool stays_normal = (wrong & ~sign) >= least && (wrong & ~sign) < f->infinity;
    return stays_normal && fabs(decoded(wrong, f) - value) <= bound ? wrong : exact;
}

static const approximation rows[] = {
#define APPROX(name, format, elements, sources, value, bound)                                      \
    {IR_##name, &format, elements, sources, value, bound},
#include "adverse.def"
#undef APPROX
};

enum {
#define APPROX(name, format, elements, sources, value, bound) ROW_##name,
#include "adverse.def"
#undef APPROX
    ROW_COUNT
};

static void read_source(u32 out[IR_LANES], const emu_warp *w, uint32_t offset, size_t bytes)
{
    for (size_t i = 0; i < IR_LANES; i++) {
        out[i] = 0;
        memcpy(&out[i], w->registers + offset + i * bytes, bytes);
    }
}

/* Runs the exact handler and bends what it wrote. */
static void run_row(const approximation *row, emu_warp *w, const emu_instr *in, uint32_t mask)
{
    const exec_grid *grid = w->block->grid;
    u32 a[IR_LANES], b[IR_LANES];
    size_t bytes = row->format == &format_f32 || row->elements == 2 ? 4 : 2;
    int width = 32 / row->elements;
    u32 part = row->elements == 2 ? 0xffff : ~(u32)0;
    read_source(a, w, in->r[1], bytes);
    read_source(b, w, in->r[row->sources], bytes);
    grid->machine->host_handlers[row->op](w, in, mask);
    for (uint32_t left = mask; left; left &= left - 1) {
        size_t i = (size_t)__builtin_ctz(left);
        uint8_t *at = w->registers + in->r[0] + i * bytes;
        u32 exact = 0, wrong = 0;
        memcpy(&exact, at, bytes);
        for (int k = 0; k < row->elements; k++) {
            u32 one = wrong_result(row, grid->schedule.seed, a[i] >> k * width & part,
                                   b[i] >> k * width & part, exact >> k * width & part,
                                   in->aux & AUX_FTZ);
            wrong |= one << k * width;
        }
        memcpy(at, &wrong, bytes);
    }
}

#define APPROX(name, format, elements, sources, value, bound)                                      \
    static void run_##name(emu_warp *w, const emu_instr *in, uint32_t mask)                        \
    {                                                                                              \
        run_row(&rows[ROW_##name], w, in, mask);                                                   \
    }
#include "adverse.def"
#undef APPROX

void adverse_replace(emu_handler *handlers[IR_OP_COUNT])
{
#define APPROX(name, format, elements, sources, value, bound) handlers[IR_##name] = run_##name;
#include "adverse.def"
#undef APPROX
}
