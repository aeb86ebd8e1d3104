/*
 * reference.c: the forward pass in fp64 on the host, from the manifest's expressions. Each stage is
 * its own: fc1_output from the inputs, the activation from fc1_output, the output from the
 * activation that was stored. Tools and tests compare devices with it; the passes never call it.
 *
 * A product sums k in rising order in one double per element, so results do not depend on threads.
 */
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "bundle.h"
#include "context.h"
#include "tensor.h"

/* LANES tokens are worked on side by side (vectors of the host); BLOCK tokens share one pass over
 * the weights, whose rows are turned into doubles once. */
enum { LANES = 8, BLOCK = 64, ROW_GRAIN = 4 };

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

/* `count` elements from element `first` on, as doubles. */
static void read_doubles(double *out, const mmlp_tensor *tensor, int64_t first, int64_t count)
{
    const void *address = tensor_address(tensor);
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

/* ---- a matrix product ----------------------------------------------------------------------- */

/* Tokens x K, in groups of LANES tokens: element (t, k) is at [t / LANES][k][t % LANES]. Lanes
 * beyond the last token are zero. */
static void interleave(double *out, const double *rows, int64_t tokens, int64_t columns)
{
    int64_t groups = (tokens + LANES - 1) / LANES;
    memset(out, 0, (size_t)(groups * columns * LANES) * sizeof *out);
    for (int64_t t = 0; t < tokens; t++) {
        double *lane = out + t / LANES * columns * LANES + t % LANES;
        for (int64_t k = 0; k < columns; k++)
            lane[k * LANES] = rows[t * columns + k];
    }
}

static void dot_lanes(double *restrict sums, const double *restrict weights,
                      const double *restrict lanes, int64_t columns)
{
    double total[LANES] = {0};
    for (int64_t k = 0; k < columns; k++) {
        double w = weights[k];
        for (int i = 0; i < LANES; i++)
            total[i] += w * lanes[k * LANES + i];
    }
    memcpy(sums, total, sizeof total);
}

typedef struct product {
    const mmlp_tensor *weights; /* [rows, columns] */
    int64_t rows, columns, tokens;
    const double *lanes; /* interleaved tokens */
    double *row_buffers; /* `columns` doubles for each worker */
    double *out;         /* [tokens, rows] */
} product;

static void product_rows(void *user, int worker, int64_t first, int64_t last)
{
    const product *p = user;
    double sums[LANES];
    double *row = p->row_buffers + worker * p->columns;
    for (int64_t r = first; r < last; r++) {
        read_doubles(row, p->weights, r * p->columns, p->columns);
        for (int64_t t = 0; t < p->tokens; t += LANES) {
            dot_lanes(sums, row, p->lanes + t * p->columns, p->columns);
            for (int64_t i = 0; i < LANES && t + i < p->tokens; i++)
                p->out[(t + i) * p->rows + r] = sums[i];
        }
    }
}

/* ---- expressions ---------------------------------------------------------------------------- */

enum { MAX_INPUTS = 8 };

/* Where an input of a program comes from: indexed by token, by column, or by both. */
typedef struct source {
    const char *name;
    const double *values;
    int64_t token_stride, column_stride;
} source;

typedef struct evaluation {
    const program *program;
    int result;
    source sources[MAX_INPUTS]; /* in the order of the program's inputs */
    int64_t columns;
    double *out;         /* [tokens, columns] */
    double *node_values; /* `program->count` doubles for each worker */
} evaluation;

static void evaluate_tokens(void *user, int worker, int64_t first, int64_t last)
{
    const evaluation *e = user;
    double inputs[MAX_INPUTS] = {0};
    double *values = e->node_values + (int64_t)worker * e->program->count;
    for (int64_t t = first; t < last; t++) {
        for (int64_t c = 0; c < e->columns; c++) {
            for (int i = 0; i < e->program->input_count; i++) {
                const source *s = &e->sources[i];
                inputs[i] = s->values[t * s->token_stride + c * s->column_stride];
            }
            program_evaluate(e->program, inputs, values);
            e->out[t * e->columns + c] = values[e->result];
        }
    }
}

/* Picks the sources of the program's inputs by name from a list that ends with a NULL name. The
 * manifest's reader has made sure that every input is in the list. */
static void choose_sources(evaluation *e, const source *known)
{
    for (int i = 0; i < e->program->input_count; i++) {
        for (const source *s = known; s->name; s++) {
            if (strcmp(s->name, e->program->inputs[i]) == 0)
                e->sources[i] = *s;
        }
    }
}

static bool uses(const program *p, const char *name)
{
    for (int i = 0; i < p->input_count; i++) {
        if (strcmp(p->inputs[i], name) == 0)
            return true;
    }
    return false;
}

/* ---- the pass ------------------------------------------------------------------------------- */

typedef struct reference {
    const mmlp_bundle *bundle;
    mmlp_reference_forward_args args;
    int64_t tokens;
    double *fc1_bias, *fc2_bias, *scale; /* whole, or NULL */
    /* of one block of tokens: */
    double *rows, *lanes, *fc1, *activation, *accumulator, *output;
    /* of each worker: */
    double *row_buffers, *node_values;
} reference;

static mmlp_status check_host(const mmlp_tensor *tensor, const char *name, int64_t dim0,
                              int64_t dim1)
{
    tensor_wanted wanted = {
        .name = name, .rank = dim1 ? 2 : 1, .dims = {dim0, dim1}, .device_type = MMLP_DEVICE_CPU};
    return tensor_check_host(tensor, &wanted);
}

/* What is given must be right, and what the wanted stages read must be given. */
static mmlp_status check_inputs(reference *r)
{
    const mmlp_bundle *b = r->bundle;
    const mmlp_reference_forward_args *a = &r->args;
    MMLP_TRY(check_host(a->hidden_states, "hidden_states", -1, b->hidden_size));
    r->tokens = a->hidden_states->shape[0];
    bool output = a->output != NULL;
    bool activation = a->activation_output || (output && !a->stored_activation);
    bool bias1 = uses(&b->activation, "gate_bias") || uses(&b->activation, "up_bias");
    bool scale =
        (activation && uses(&b->activation, "scale")) || (output && uses(&b->output, "scale"));
    if (a->fc1_output || activation || a->linear_fc1_weight)
        MMLP_TRY(check_host(a->linear_fc1_weight, "linear_fc1.weight", b->fc1_output_size,
                            b->hidden_size));
    if ((activation && bias1) || a->linear_fc1_bias)
        MMLP_TRY(check_host(a->linear_fc1_bias, "linear_fc1.bias", b->fc1_output_size, 0));
    if (output || a->linear_fc2_weight)
        MMLP_TRY(check_host(a->linear_fc2_weight, "linear_fc2.weight", b->hidden_size,
                            b->ffn_hidden_size));
    if ((output && uses(&b->output, "bias")) || a->linear_fc2_bias)
        MMLP_TRY(check_host(a->linear_fc2_bias, "linear_fc2.bias", b->hidden_size, 0));
    if (scale || a->per_token_scale)
        MMLP_TRY(check_host(a->per_token_scale, "per_token_scale", r->tokens, 0));
    if (a->stored_activation)
        MMLP_TRY(
            check_host(a->stored_activation, "stored_activation", r->tokens, b->ffn_hidden_size));
    return MMLP_OK;
}

static mmlp_status allocate(double **out, int64_t count, const char *what)
{
    *out = malloc((size_t)count * sizeof **out + 1);
    return *out ? MMLP_OK : mmlp_fail_memory((size_t)count * sizeof **out, what);
}

static mmlp_status whole(double **out, const mmlp_tensor *tensor, int64_t count, const char *what)
{
    if (!tensor)
        return MMLP_OK;
    MMLP_TRY(allocate(out, count, what));
    read_doubles(*out, tensor, 0, count);
    return MMLP_OK;
}

static mmlp_status allocate_all(reference *r)
{
    const mmlp_bundle *b = r->bundle;
    int64_t workers = parallel_workers();
    int64_t widest = b->hidden_size > b->ffn_hidden_size ? b->hidden_size : b->ffn_hidden_size;
    int64_t nodes = b->activation.count > b->output.count ? b->activation.count : b->output.count;
    MMLP_TRY(whole(&r->fc1_bias, r->args.linear_fc1_bias, b->fc1_output_size, "a bias"));
    MMLP_TRY(whole(&r->fc2_bias, r->args.linear_fc2_bias, b->hidden_size, "a bias"));
    MMLP_TRY(whole(&r->scale, r->args.per_token_scale, r->tokens, "the scale"));
    MMLP_TRY(allocate(&r->rows, BLOCK * widest, "tokens in fp64"));
    MMLP_TRY(allocate(&r->lanes, BLOCK * widest, "tokens in fp64"));
    MMLP_TRY(allocate(&r->fc1, BLOCK * b->fc1_output_size, "fc1_output in fp64"));
    MMLP_TRY(allocate(&r->activation, BLOCK * b->ffn_hidden_size, "activation_output in fp64"));
    MMLP_TRY(allocate(&r->accumulator, BLOCK * b->hidden_size, "the output in fp64"));
    MMLP_TRY(allocate(&r->output, BLOCK * b->hidden_size, "the output in fp64"));
    MMLP_TRY(allocate(&r->row_buffers, workers * widest, "rows in fp64"));
    return allocate(&r->node_values, workers * nodes, "an expression");
}

static void free_all(reference *r)
{
    double *all[] = {r->fc1_bias, r->fc2_bias,    r->scale,      r->rows,
                     r->lanes,    r->fc1,         r->activation, r->accumulator,
                     r->output,   r->row_buffers, r->node_values};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
}

/* out[tokens, rows of the weights] = in[tokens, columns] times the weights. */
static void multiply(double *out, const reference *r, const double *in, const mmlp_tensor *weights,
                     int64_t tokens)
{
    product p = {.weights = weights,
                 .rows = weights->shape[0],
                 .columns = weights->shape[1],
                 .tokens = tokens,
                 .lanes = r->lanes,
                 .row_buffers = r->row_buffers,
                 .out = out};
    interleave(r->lanes, in, tokens, p.columns);
    parallel_for(p.rows, ROW_GRAIN, product_rows, &p);
}

static void activate(const reference *r, int64_t first, int64_t tokens)
{
    const mmlp_bundle *b = r->bundle;
    int64_t ffn = b->ffn_hidden_size, width = b->fc1_output_size;
    const source known[] = {
        {"gate", r->fc1, width, 1},
        {"up", r->fc1 + ffn, width, 1},
        {"gate_bias", r->fc1_bias, 0, 1},
        {"up_bias", r->fc1_bias ? r->fc1_bias + ffn : NULL, 0, 1},
        {"scale", r->scale ? r->scale + first : NULL, 1, 0},
        {NULL, NULL, 0, 0},
    };
    evaluation e = {.program = &b->activation,
                    .result = b->activation_result,
                    .columns = ffn,
                    .out = r->activation,
                    .node_values = r->node_values};
    choose_sources(&e, known);
    parallel_for(tokens, 1, evaluate_tokens, &e);
}

static void finish_output(const reference *r, int64_t first, int64_t tokens)
{
    const mmlp_bundle *b = r->bundle;
    const source known[] = {
        {"accumulator", r->accumulator, b->hidden_size, 1},
        {"bias", r->fc2_bias, 0, 1},
        {"scale", r->scale ? r->scale + first : NULL, 1, 0},
        {NULL, NULL, 0, 0},
    };
    evaluation e = {.program = &b->output,
                    .result = b->output_result,
                    .columns = b->hidden_size,
                    .out = r->output,
                    .node_values = r->node_values};
    choose_sources(&e, known);
    parallel_for(tokens, 1, evaluate_tokens, &e);
}

static void copy_out(double *callers, const double *block, int64_t first, int64_t tokens,
                     int64_t columns)
{
    if (callers)
        memcpy(callers + first * columns, block, (size_t)(tokens * columns) * sizeof *block);
}

static void run_block(const reference *r, int64_t first, int64_t tokens)
{
    const mmlp_bundle *b = r->bundle;
    const mmlp_reference_forward_args *a = &r->args;
    bool activation = a->activation_output || (a->output && !a->stored_activation);
    if (a->fc1_output || activation) {
        read_doubles(r->rows, a->hidden_states, first * b->hidden_size, tokens * b->hidden_size);
        multiply(r->fc1, r, r->rows, a->linear_fc1_weight, tokens);
        copy_out(a->fc1_output, r->fc1, first, tokens, b->fc1_output_size);
    }
    if (activation) {
        activate(r, first, tokens);
        copy_out(a->activation_output, r->activation, first, tokens, b->ffn_hidden_size);
    }
    if (a->output) {
        if (a->stored_activation)
            read_doubles(r->activation, a->stored_activation, first * b->ffn_hidden_size,
                         tokens * b->ffn_hidden_size);
        multiply(r->accumulator, r, r->activation, a->linear_fc2_weight, tokens);
        finish_output(r, first, tokens);
        copy_out(a->output, r->output, first, tokens, b->hidden_size);
    }
}

mmlp_status mmlp_bundle_reference_forward(const mmlp_bundle *bundle,
                                          const mmlp_reference_forward_args *args)
{
    if (!bundle)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_bundle_reference_forward: bundle is NULL");
    mmlp_status status = MMLP_OK;
    reference r = {.bundle = bundle, .args = MMLP_REFERENCE_FORWARD_ARGS_INIT};
    MMLP_TRY(struct_read(&r.args, args, sizeof r.args, "mmlp_reference_forward_args"));
    MMLP_TRY(check_inputs(&r));
    MMLP_TRY_CLEANUP(allocate_all(&r));
    for (int64_t first = 0; first < r.tokens; first += BLOCK)
        run_block(&r, first, r.tokens - first < BLOCK ? r.tokens - first : BLOCK);

cleanup:
    free_all(&r);
    return status;
}
