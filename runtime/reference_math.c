/*
 * reference_math.c: numbers of any type as doubles, matrix products and evaluated programs, for the
 * fp64 references of the passes. Nothing here knows what an MLP is.
 *
 * A product sums k in rising order in one double per element, whatever the number of threads.
 */
#include "reference_math.h"

#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/parallel.h"
#include "tensor.h"

/* ---- types ---------------------------------------------------------------------------------- */

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static double double_of_fp16(uint16_t half)
{
    uint32_t magnitude = (uint32_t)(half & 0x7fffu) << 13;
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    if ((half & 0x7c00u) == 0x7c00u) /* infinity and NaN */
        return (double)float_of_bits(sign | 0x7f800000u | magnitude);
    return (double)(float_of_bits(sign | magnitude) * 0x1p112f); /* exact, subnormals included */
}

void reference_read(double *out, const mmlp_tensor *tensor, int64_t first, int64_t count)
{
    const void *address = tensor_address(tensor);
    if (count == 0)
        return;
    if (tensor_is(tensor, BUNDLE_BF16)) {
        const uint16_t *in = (const uint16_t *)address + first;
        for (int64_t i = 0; i < count; i++)
            out[i] = (double)float_of_bits((uint32_t)in[i] << 16);
    } else if (tensor_is(tensor, BUNDLE_FP16)) {
        const uint16_t *in = (const uint16_t *)address + first;
        for (int64_t i = 0; i < count; i++)
            out[i] = double_of_fp16(in[i]);
    } else if (tensor_is(tensor, BUNDLE_FP32)) {
        const float *in = (const float *)address + first;
        for (int64_t i = 0; i < count; i++)
            out[i] = (double)in[i];
    } else {
        memcpy(out, (const double *)address + first, (size_t)count * sizeof *out);
    }
}

/* ---- checks and memory ---------------------------------------------------------------------- */

mmlp_status reference_check(const mmlp_tensor *tensor, const char *name, int64_t dim0, int64_t dim1)
{
    tensor_wanted wanted = {
        .name = name, .rank = dim1 ? 2 : 1, .dims = {dim0, dim1}, .device_type = MMLP_DEVICE_CPU};
    return tensor_check_host(tensor, &wanted);
}

mmlp_status reference_allocate(double **out, int64_t count, const char *what)
{
    *out = malloc((size_t)count * sizeof **out + 1);
    return *out ? MMLP_OK : mmlp_fail_memory((size_t)count * sizeof **out, what);
}

mmlp_status reference_allocate_whole(double **out, const mmlp_tensor *tensor, int64_t count,
                                     const char *what)
{
    if (!tensor)
        return MMLP_OK;
    MMLP_TRY(reference_allocate(out, count, what));
    reference_read(*out, tensor, 0, count);
    return MMLP_OK;
}

void reference_copy_out(double *callers, const double *block, int64_t first, int64_t rows,
                        int64_t columns)
{
    if (callers)
        memcpy(callers + first * columns, block, (size_t)(rows * columns) * sizeof *block);
}

/* A block of lines of the left operand is packed once; workers take strips of lines of the right
 * one and pack a part of each at a time, so that what they read over and over stays in a cache. */
enum { TILE_LEFT = 4, TILE_RIGHT = 8, LEFT_BLOCK = 128, STRIP = 64, DEPTH = 256 };

mmlp_status reference_workspace_make(reference_workspace *out, int64_t longest, int node_count)
{
    int64_t workers = parallel_workers();
    *out = (reference_workspace){.node_count = node_count};
    MMLP_TRY(reference_allocate(&out->lines, LEFT_BLOCK * longest, "rows in fp64"));
    MMLP_TRY(reference_allocate(&out->strips, workers * STRIP * DEPTH, "rows in fp64"));
    return reference_allocate(&out->nodes, workers * node_count, "an expression");
}

void reference_workspace_free(reference_workspace *w)
{
    free(w->lines);
    free(w->strips);
    free(w->nodes);
    *w = (reference_workspace){0};
}

/* ---- products ------------------------------------------------------------------------------- */

reference_operand reference_rows(const mmlp_tensor *tensor, const double *values, int64_t first,
                                 int64_t rows, int64_t columns)
{
    return (reference_operand){.tensor = tensor,
                               .values = values,
                               .first = first * columns,
                               .lines = rows,
                               .line_stride = columns,
                               .step = 1};
}

reference_operand reference_columns(const mmlp_tensor *tensor, const double *values, int64_t first,
                                    int64_t columns)
{
    return (reference_operand){.tensor = tensor,
                               .values = values,
                               .first = first * columns,
                               .lines = columns,
                               .line_stride = 1,
                               .step = columns};
}

int64_t reference_sample(int64_t i, int64_t samples, int64_t rows)
{
    return samples > 1 ? i * (rows - 1) / (samples - 1) : 0;
}

/* Elements at `first`, first + 1, ... of an operand. */
static void read_run(double *out, const reference_operand *x, int64_t first, int64_t count)
{
    if (x->tensor)
        reference_read(out, x->tensor, x->first + first, count);
    else
        memcpy(out, x->values + x->first + first, (size_t)count * sizeof *out);
}

/* Lines line0 ... and elements k0 ..., in groups of `group` lines: element (i, k) of the part is at
 * [i / group][k][i % group]. Lines that fill up the last group are zero. At most DEPTH lines. */
static void pack(double *out, const reference_operand *x, int64_t line0, int64_t lines, int64_t k0,
                 int64_t depth, int64_t group)
{
    double run[DEPTH];
    int64_t groups = (lines + group - 1) / group;
    if (lines % group)
        memset(out + (groups - 1) * depth * group, 0, (size_t)(depth * group) * sizeof *out);
    if (x->step == 1) {
        for (int64_t i = 0; i < lines; i++) {
            int64_t line =
                x->sampled_of ? reference_sample(line0 + i, x->lines, x->sampled_of) : line0 + i;
            double *lane = out + i / group * depth * group + i % group;
            for (int64_t done = 0; done < depth; done += DEPTH) {
                int64_t count = depth - done < DEPTH ? depth - done : DEPTH;
                read_run(run, x, line * x->line_stride + k0 + done, count);
                for (int64_t k = 0; k < count; k++)
                    lane[(done + k) * group] = run[k];
            }
        }
        return;
    }
    for (int64_t k = 0; k < depth; k++) {
        int64_t base = (k0 + k) * x->step;
        if (!x->sampled_of && x->line_stride == 1) {
            read_run(run, x, base + line0, lines);
        } else {
            for (int64_t i = 0; i < lines; i++) {
                int64_t line = x->sampled_of ? reference_sample(line0 + i, x->lines, x->sampled_of)
                                             : line0 + i;
                read_run(&run[i], x, base + line * x->line_stride, 1);
            }
        }
        for (int64_t i = 0; i < lines; i++)
            out[i / group * depth * group + k * group + i % group] = run[i];
    }
}

/* sums[i][j] += the sum over k of left[k][i] right[k][j]. */
static void add_tile(double sums[TILE_LEFT][TILE_RIGHT], const double *restrict left,
                     const double *restrict right, int64_t depth)
{
    for (int64_t k = 0; k < depth; k++) {
        for (int i = 0; i < TILE_LEFT; i++) {
            double a = left[k * TILE_LEFT + i];
            for (int j = 0; j < TILE_RIGHT; j++)
                sums[i][j] += a * right[k * TILE_RIGHT + j];
        }
    }
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) static void add_tile_avx2(double sums[TILE_LEFT][TILE_RIGHT],
                                                              const double *restrict left,
                                                              const double *restrict right,
                                                              int64_t depth)
{
    __m256d total[TILE_LEFT][2];
    for (int i = 0; i < TILE_LEFT; i++) {
        total[i][0] = _mm256_loadu_pd(&sums[i][0]);
        total[i][1] = _mm256_loadu_pd(&sums[i][4]);
    }
    for (int64_t k = 0; k < depth; k++) {
        __m256d low = _mm256_loadu_pd(right + k * TILE_RIGHT);
        __m256d high = _mm256_loadu_pd(right + k * TILE_RIGHT + 4);
        for (int i = 0; i < TILE_LEFT; i++) {
            __m256d a = _mm256_broadcast_sd(left + k * TILE_LEFT + i);
            total[i][0] = _mm256_fmadd_pd(a, low, total[i][0]);
            total[i][1] = _mm256_fmadd_pd(a, high, total[i][1]);
        }
    }
    for (int i = 0; i < TILE_LEFT; i++) {
        _mm256_storeu_pd(&sums[i][0], total[i][0]);
        _mm256_storeu_pd(&sums[i][4], total[i][1]);
    }
}
#endif

typedef void tile_function(double sums[TILE_LEFT][TILE_RIGHT], const double *left,
                           const double *right, int64_t depth);

static tile_function *choose_tile(void)
{
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return add_tile_avx2;
#endif
    return add_tile;
}

typedef struct product {
    double *out;
    int64_t out_stride;
    const reference_operand *a, *b;
    int64_t length;
    bool add;
    const reference_workspace *workspace;
    int64_t line0, lines; /* the block of lines of a that is packed */
    tile_function *tile;
} product;

static void pack_left(void *user, int worker, int64_t first, int64_t last)
{
    const product *p = user;
    (void)worker;
    int64_t end = last * TILE_LEFT < p->lines ? last * TILE_LEFT : p->lines;
    pack(p->workspace->lines + first * TILE_LEFT * p->length, p->a, p->line0 + first * TILE_LEFT,
         end - first * TILE_LEFT, 0, p->length, TILE_LEFT);
}

/* One tile of out, as far as there is one: lines i0 ... of the block, columns j0 ... */
static void multiply_tile(const product *p, int64_t i0, int64_t j0, const double *right, int64_t k0,
                          int64_t depth)
{
    double sums[TILE_LEFT][TILE_RIGHT] = {{0}};
    int64_t rows = p->lines - i0 < TILE_LEFT ? p->lines - i0 : TILE_LEFT;
    int64_t columns = p->b->lines - j0 < TILE_RIGHT ? p->b->lines - j0 : TILE_RIGHT;
    double *out = p->out + (p->line0 + i0) * p->out_stride + j0;
    size_t bytes = (size_t)columns * sizeof *out;
    if (p->add || k0 > 0) {
        for (int64_t i = 0; i < rows; i++)
            memcpy(sums[i], out + i * p->out_stride, bytes);
    }
    p->tile(sums, p->workspace->lines + i0 * p->length + k0 * TILE_LEFT, right, depth);
    for (int64_t i = 0; i < rows; i++)
        memcpy(out + i * p->out_stride, sums[i], bytes);
}

static void multiply_strips(void *user, int worker, int64_t first, int64_t last)
{
    const product *p = user;
    double *strip = p->workspace->strips + (int64_t)worker * STRIP * DEPTH;
    for (int64_t j0 = first * STRIP; j0 < last * STRIP && j0 < p->b->lines; j0 += STRIP) {
        int64_t columns = p->b->lines - j0 < STRIP ? p->b->lines - j0 : STRIP;
        int64_t k0 = 0;
        do { /* once even for a length of 0: the sum of nothing is written too */
            int64_t depth = p->length - k0 < DEPTH ? p->length - k0 : DEPTH;
            pack(strip, p->b, j0, columns, k0, depth, TILE_RIGHT);
            for (int64_t i = 0; i < p->lines; i += TILE_LEFT) {
                for (int64_t j = 0; j < columns; j += TILE_RIGHT)
                    multiply_tile(p, i, j0 + j, strip + j * depth, k0, depth);
            }
            k0 += DEPTH;
        } while (k0 < p->length);
    }
}

void reference_multiply(double *out, int64_t out_stride, bool add, const reference_operand *a,
                        const reference_operand *b, int64_t length, const reference_workspace *w)
{
    product p = {.out = out,
                 .out_stride = out_stride,
                 .a = a,
                 .b = b,
                 .length = length,
                 .add = add,
                 .workspace = w,
                 .tile = choose_tile()};
    for (; p.line0 < a->lines; p.line0 += LEFT_BLOCK) {
        p.lines = a->lines - p.line0 < LEFT_BLOCK ? a->lines - p.line0 : LEFT_BLOCK;
        parallel_for((p.lines + TILE_LEFT - 1) / TILE_LEFT, 1, pack_left, &p);
        parallel_for((b->lines + STRIP - 1) / STRIP, 1, multiply_strips, &p);
    }
}

/* ---- programs ------------------------------------------------------------------------------- */

typedef struct evaluation_run {
    const reference_evaluation *evaluation;
    const reference_workspace *workspace;
} evaluation_run;

static void take_result(const reference_result *r, double value, int64_t token, int64_t column)
{
    if (r->kind == REFERENCE_STORE) {
        r->out[token * r->stride + column] = value;
    } else if (r->kind == REFERENCE_COLUMN_SUM) {
        r->out[column] += value;
    } else {
        double *sums = r->out + (token * r->stride + column / REFERENCE_COLUMN_BLOCK) * 2;
        bool begins = column % REFERENCE_COLUMN_BLOCK == 0;
        sums[0] = begins ? value : sums[0] + value;
        sums[1] = begins ? value * value : sums[1] + value * value;
    }
}

static void evaluate_blocks(void *user, int worker, int64_t first, int64_t last)
{
    const evaluation_run *run = user;
    const reference_evaluation *e = run->evaluation;
    double inputs[REFERENCE_MAX_INPUTS] = {0};
    double *values = run->workspace->nodes + (int64_t)worker * run->workspace->node_count;
    int64_t begin = first * REFERENCE_COLUMN_BLOCK, end = last * REFERENCE_COLUMN_BLOCK;
    for (int64_t t = 0; t < e->tokens; t++) {
        for (int64_t c = begin; c < end && c < e->columns; c++) {
            for (int i = 0; i < e->program->input_count; i++) {
                const reference_source *s = &e->sources[i];
                inputs[i] = s->values[t * s->token_stride + c * s->column_stride];
            }
            program_evaluate(e->program, inputs, values);
            for (int i = 0; i < e->result_count; i++) {
                if (e->results[i].out)
                    take_result(&e->results[i], values[e->results[i].node], t, c);
            }
        }
    }
}

void reference_choose_sources(reference_evaluation *e, const reference_source *known)
{
    for (int i = 0; i < e->program->input_count; i++) {
        for (const reference_source *s = known; s->name; s++) {
            if (strcmp(s->name, e->program->inputs[i]) == 0)
                e->sources[i] = *s;
        }
    }
}

void reference_evaluate(const reference_evaluation *e, const reference_workspace *w)
{
    evaluation_run run = {e, w};
    parallel_for((e->columns + REFERENCE_COLUMN_BLOCK - 1) / REFERENCE_COLUMN_BLOCK, 1,
                 evaluate_blocks, &run);
}

bool reference_uses(const program *p, const char *name)
{
    for (int i = 0; i < p->input_count; i++) {
        if (strcmp(p->inputs[i], name) == 0)
            return true;
    }
    return false;
}
