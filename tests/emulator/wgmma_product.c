/* wgmma_product.c: see wgmma_product.h. */
#include "wgmma_product.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "tensor_oracle.h"

static const char *const result_names[] = {"f16", "f32", "s32"};

const wgmma_operands wgmma_combinations[WGMMA_COMBINATIONS] = {
    {D_F16, A_F16, A_F16, 0},   {D_F32, A_F16, A_F16, 0},   {D_F32, A_BF16, A_BF16, 0},
    {D_F32, A_TF32, A_TF32, 0}, {D_F16, A_E4M3, A_E4M3, 0}, {D_F16, A_E4M3, A_E5M2, 0},
    {D_F16, A_E5M2, A_E4M3, 0}, {D_F16, A_E5M2, A_E5M2, 0}, {D_F32, A_E4M3, A_E4M3, 0},
    {D_F32, A_E4M3, A_E5M2, 0}, {D_F32, A_E5M2, A_E4M3, 0}, {D_F32, A_E5M2, A_E5M2, 0},
    {D_S32, A_S8, A_S8, 0},     {D_S32, A_S8, A_U8, 0},     {D_S32, A_U8, A_S8, 0},
    {D_S32, A_U8, A_U8, 0},     {D_S32, A_S8, A_S8, 1},     {D_S32, A_S8, A_U8, 1},
    {D_S32, A_U8, A_S8, 1},     {D_S32, A_U8, A_U8, 1},
};

static int element_bytes(wgmma_element type)
{
    return wgmma_types[type].bits / 8;
}

static int depth(wgmma_operands types)
{
    return WGMMA_MOST_K / element_bytes(types.a);
}

bool product_allows_n(wgmma_operands types, int n)
{
    return types.d != D_S32 || n <= 32 || n % 16 == 0;
}

int product_random_n(wgmma_operands types)
{
    int n = 8 * between(1, WGMMA_MOST_N / 8);
    return product_allows_n(types, n) ? n : product_random_n(types);
}

/* ---- layouts --------------------------------------------------------------------------------- */

static int gap(int most)
{
    return below(2) ? 0 : 16 * below(most / 16 + 1);
}

/* Byte offsets of an index of `mn_count` steps over `unit` bytes, and of one of two steps. */
static void random_strides(int *mn_stride, int mn_count, int *k_stride, int unit)
{
    if (below(2)) {
        *mn_stride = unit + gap(64);
        *k_stride = *mn_stride * mn_count + gap(256);
    } else {
        *k_stride = unit + gap(64);
        *mn_stride = *k_stride * 2 + gap(64);
    }
}

/* A tile of `mn` rows of A or columns of B, somewhere from `from` on. */
static wgmma_tile try_tile(wgmma_element type, int swizzle, int mn, int from)
{
    wgmma_tile t = {.element_bytes = element_bytes(type), .swizzle = swizzle};
    int span = swizzle ? swizzle : 16;
    int per_chunk = 16 / t.element_bytes, per_span = span / t.element_bytes;
    t.is_mn_major = t.element_bytes == 2 && below(2);
    t.pattern = from + (swizzle ? 8 * swizzle : 16) * below(4);
    if (!swizzle) {
        random_strides(&t.stride, mn / 8, &t.leading, 128);
    } else if (!t.is_mn_major) {
        t.stride = 8 * span + gap(64);
        t.leading = 16 * below(1 << 14); /* not used */
        t.k = per_chunk * below(span / 16 - 1);
    } else {
        int atoms = (mn + per_span - 1) / per_span;
        random_strides(&t.leading, atoms, &t.stride, 8 * span);
        if (mn < per_span)
            t.mn = per_chunk * below((per_span - mn) / per_chunk + 1);
    }
    return t;
}

static bool ends_before(const wgmma_tile *t, int mn_count, int k_count, int end)
{
    for (int mn = 0; mn < mn_count; mn++)
        for (int k = 0; k < k_count; k++)
            if (wgmma_place(t, mn, k) + t->element_bytes > end)
                return false;
    return true;
}

static wgmma_tile random_tile(wgmma_element type, int swizzle, int mn, int from, int end)
{
    wgmma_tile t;
    do {
        t = try_tile(type, swizzle, mn, from);
    } while (!ends_before(&t, mn, WGMMA_MOST_K / t.element_bytes, end));
    return t;
}

void product_start(wgmma_product *p, wgmma_operands types, int n, int from, int end)
{
    static const int swizzles[] = {0, 32, 64, 128};
    *p = (wgmma_product){.types = types, .n = n, .k = depth(types)};
    bool is_float = types.d != D_S32;
    p->a_in_registers = below(2);
    p->adds = below(4) != 0;
    p->scale_a = is_float && below(2) ? -1 : 1;
    p->scale_b = is_float && below(2) ? -1 : 1;
    p->a_tile = random_tile(types.a, swizzles[below(4)], WGMMA_M, from, from + WGMMA_B);
    p->b_tile = random_tile(types.b, swizzles[below(4)], n, from + WGMMA_B, end);
}

/* ---- numbers --------------------------------------------------------------------------------- */

/* Integers that all sums of 32 products are exact of, in f16 too; all integers of 8 bits. */
static double small_number(wgmma_element type)
{
    if (type == A_S8)
        return between(-128, 127);
    return type == A_U8 ? between(0, 255) : between(-4, 4);
}

static double small_sum(wgmma_result d)
{
    return d == D_S32 ? between(-1000000, 1000000) : between(-100, 100);
}

void product_fill(wgmma_product *p)
{
    for (int k = 0; k < p->k; k++) {
        for (int i = 0; i < WGMMA_M; i++)
            p->a[i][k] = small_number(p->types.a);
        for (int j = 0; j < p->n; j++)
            p->b[k][j] = small_number(p->types.b);
    }
    for (int i = 0; i < WGMMA_M; i++)
        for (int j = 0; j < p->n; j++)
            p->d[i][j] = small_sum(p->types.d);
}

/* What an s32 keeps of a sum. */
static double to_s32(double sum, bool saturates)
{
    if (saturates)
        return fmin(fmax(sum, INT32_MIN), INT32_MAX);
    return (int32_t)(uint32_t)(int64_t)sum;
}

void product_multiply(wgmma_product *p)
{
    for (int i = 0; i < WGMMA_M; i++) {
        for (int j = 0; j < p->n; j++) {
            double sum = p->adds ? p->d[i][j] : 0, magnitude = fabs(sum);
            for (int k = 0; k < p->k; k++) {
                double term = p->scale_a * p->a[i][k] * p->scale_b * p->b[k][j];
                sum += term;
                magnitude += fabs(term);
            }
            p->wanted[i][j] = p->types.d == D_S32 ? to_s32(sum, p->types.saturates) : sum;
            p->magnitude[i][j] = magnitude;
        }
    }
}

/* ---- registers and memory -------------------------------------------------------------------- */

static int d_parts(const wgmma_product *p)
{
    return p->types.d == D_F16 ? 2 : 1;
}

int product_registers(const wgmma_product *p)
{
    return p->n / 2 / d_parts(p);
}

static void put(uint8_t *shared, const wgmma_tile *t, int mn, int k, uint32_t bits)
{
    int at = wgmma_place(t, mn, k);
    memcpy(shared + at, &bits, (size_t)t->element_bytes);
}

void product_write_shared(const wgmma_product *p, wgmma_memory *m)
{
    for (int k = 0; k < p->k; k++) {
        for (int i = 0; i < WGMMA_M && !p->a_in_registers; i++)
            put(m->shared, &p->a_tile, i, k,
                wgmma_encode(p->types.a, p->a[i][k], (uint32_t)below(8192)));
        for (int j = 0; j < p->n; j++)
            put(m->shared, &p->b_tile, j, k,
                wgmma_encode(p->types.b, p->b[k][j], (uint32_t)below(8192)));
    }
}

static uint32_t encode_d(wgmma_result d, double value)
{
    if (d == D_S32)
        return (uint32_t)(int64_t)value;
    return d == D_F32 ? (uint32_t)bits_of_float((float)value)
                      : (uint32_t)format_from_double(format_f16, value, ROUND_NEAREST);
}

static double decode_d(wgmma_result d, uint32_t bits)
{
    if (d == D_S32)
        return (int32_t)bits;
    return d == D_F32 ? (double)float_of(bits) : format_to_double(format_f16, bits & 0xffff);
}

void product_write_registers(const wgmma_product *p, wgmma_memory *m, int first)
{
    int parts = d_parts(p), bytes = element_bytes(p->types.a);
    for (int t = 0; t < WGMMA_THREADS; t++) {
        for (int r = 0; r < product_registers(p); r++) {
            m->d[t][first + r] = 0;
            for (int i = 0; i < parts; i++) {
                wgmma_position at = wgmma_d_position(t, r, i, parts);
                m->d[t][first + r] |= encode_d(p->types.d, p->d[at.row][at.column]) << (16 * i);
            }
        }
        for (int r = 0; r < 4 && p->a_in_registers; r++) {
            m->a[t][r] = 0;
            for (int i = 0; i < 4 / bytes; i++) {
                wgmma_position at = wgmma_a_position(t, r, i, bytes);
                uint32_t bits =
                    wgmma_encode(p->types.a, p->a[at.row][at.column], (uint32_t)below(8192));
                m->a[t][r] |= bits << (8 * bytes * i);
            }
        }
    }
}

void product_compare(const wgmma_product *p, const wgmma_memory *m, int first, double error,
                     const char *ptx)
{
    int parts = d_parts(p);
    for (int t = 0; t < WGMMA_THREADS; t++)
        for (int r = 0; r < product_registers(p); r++)
            for (int i = 0; i < parts; i++) {
                wgmma_position at = wgmma_d_position(t, r, i, parts);
                double found = decode_d(p->types.d, m->d[t][first + r] >> (16 * i));
                double wanted = p->wanted[at.row][at.column];
                double allowed = error * p->magnitude[at.row][at.column];
                cr_assert(fabs(found - wanted) <= allowed, "D[%d][%d] is %g, not %g\n%s", at.row,
                          at.column, found, wanted, ptx);
            }
}

/* ---- PTX ------------------------------------------------------------------------------------- */

static void emit_descriptor(ptx_text *t, const char *name, const wgmma_tile *tile)
{
    emit(t, "add.u64 %s, %%tile, %#llx;\n", name, (unsigned long long)wgmma_descriptor(tile));
}

void product_emit_descriptors(ptx_text *t, const wgmma_product *p)
{
    if (!p->a_in_registers)
        emit_descriptor(t, "%da", &p->a_tile);
    emit_descriptor(t, "%db", &p->b_tile);
}

/* Whether D is added to is said by a predicate, or by its negation, or by a number. */
void product_emit(ptx_text *t, const wgmma_product *p, int first)
{
    static const char *const scales[][2] = {{"!%p1", "%p1"}, {"%p2", "!%p2"}, {"0", "1"}};
    /* The grammar has .satfinite before the types, the examples have it behind them. */
    const char *saturates = p->types.saturates ? ".satfinite" : "";
    bool is_first = below(2);
    emit(t, "wgmma.mma_async.sync.aligned.m64n%dk%d%s.%s.%s.%s%s {", p->n, p->k,
         is_first ? saturates : "", result_names[p->types.d], wgmma_types[p->types.a].name,
         wgmma_types[p->types.b].name, is_first ? "" : saturates);
    for (int i = 0; i < product_registers(p); i++)
        emit(t, "%s%%d%d", i ? "," : "", first + i);
    emit(t, "}, %s, %%db, %s", p->a_in_registers ? "{%a0,%a1,%a2,%a3}" : "%da",
         scales[below(3)][p->adds]);
    if (p->types.d != D_S32)
        emit(t, ", %d, %d", p->scale_a, p->scale_b);
    if (element_bytes(p->types.a) == 2 && !p->a_in_registers)
        emit(t, ", %d", p->a_tile.is_mn_major);
    if (element_bytes(p->types.a) == 2)
        emit(t, ", %d", p->b_tile.is_mn_major);
    emit(t, ";\n");
}
