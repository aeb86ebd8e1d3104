/*
 * reference_backward.c: the backward pass in fp64 on the host, from the manifest's derivative and
 * the fc1_output that was stored. Tools and tests compare devices with it; the passes never call
 * it.
 *
 * Tokens are worked on in blocks, so that memory does not grow with their number; what is summed
 * over tokens is added up in their order, block after block.
 */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "reference_math.h"

enum { BLOCK = 128 };

typedef struct backward {
    const mmlp_bundle *bundle;
    mmlp_reference_backward_args args;
    int64_t tokens;
    bool elements; /* the program is evaluated at all */
    bool gradient; /* d_activation is needed for it */
    bool folded;
    double *fc1_bias, *fc2_bias, *scale; /* whole, or NULL */
    /* of one block of tokens: */
    double *fc1, *d_activation, *activation, *grad_fc1, *grad_output, *row_sums;
    reference_workspace workspace;
} backward;

/* ---- checks --------------------------------------------------------------------------------- */

static mmlp_status check_results(const backward *r)
{
    const mmlp_bundle *b = r->bundle;
    const mmlp_reference_backward_args *a = &r->args;
    const struct {
        const char *name;
        bool wanted, there;
        const char *reason;
    } optional[] = {
        {"grad_per_token_scale", a->grad_per_token_scale != NULL, b->per_token_scale,
         "per_token_scale = false"},
        {"scale_terms", a->scale_terms != NULL, b->per_token_scale, "per_token_scale = false"},
        {"grad_linear_fc1_bias", a->grad_linear_fc1_bias != NULL, b->add_bias_linear,
         "add_bias_linear = false"},
        {"grad_linear_fc2_bias", a->grad_linear_fc2_bias != NULL, b->add_bias_linear,
         "add_bias_linear = false"},
    };
    for (size_t i = 0; i < sizeof optional / sizeof optional[0]; i++) {
        if (optional[i].wanted && !optional[i].there)
            return mmlp_fail(MMLP_ERROR_ARGUMENT, "%s: found an address, wanted NULL: %s has %s",
                             optional[i].name, b->name, optional[i].reason);
    }
    if (a->sampled_rows < 0 || a->sampled_rows > BUNDLE_MAX_SIZE)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "sampled_rows: found %" PRId64 ", wanted 0 to %d",
                         a->sampled_rows, BUNDLE_MAX_SIZE);
    return MMLP_OK;
}

/* What is given must be right, and what the wanted results read must be given. */
static mmlp_status check_inputs(backward *r)
{
    const mmlp_bundle *b = r->bundle;
    const mmlp_reference_backward_args *a = &r->args;
    const program *p = &b->backward;
    bool scale_gradient = a->grad_per_token_scale || a->scale_terms;
    r->folded = b->fc2_bias == MMLP_FC2_BIAS_FOLDED;
    r->gradient = a->grad_fc1_output || a->grad_hidden_states || scale_gradient ||
                  a->grad_linear_fc1_weight || a->grad_linear_fc1_bias;
    r->elements =
        r->gradient || a->activation_output || (a->grad_linear_fc2_weight && !a->stored_activation);
    bool fc1 = r->elements && !a->stored_fc1_output;
    bool bias1 = r->elements && (reference_uses(p, "gate_bias") || reference_uses(p, "up_bias"));
    bool scale =
        (r->elements && reference_uses(p, "scale")) || (a->grad_linear_fc2_bias && r->folded);

    MMLP_TRY(reference_check(a->grad_output, "grad_output", -1, b->hidden_size));
    r->tokens = a->grad_output->shape[0];
    if (fc1 || a->grad_linear_fc1_weight || a->hidden_states)
        MMLP_TRY(reference_check(a->hidden_states, "hidden_states", r->tokens, b->hidden_size));
    if (fc1 || a->grad_hidden_states || a->linear_fc1_weight)
        MMLP_TRY(reference_check(a->linear_fc1_weight, "linear_fc1.weight", b->fc1_output_size,
                                 b->hidden_size));
    if (bias1 || a->linear_fc1_bias)
        MMLP_TRY(reference_check(a->linear_fc1_bias, "linear_fc1.bias", b->fc1_output_size, 0));
    if (r->gradient || a->linear_fc2_weight)
        MMLP_TRY(reference_check(a->linear_fc2_weight, "linear_fc2.weight", b->hidden_size,
                                 b->ffn_hidden_size));
    if ((scale_gradient && r->folded) || a->linear_fc2_bias)
        MMLP_TRY(reference_check(a->linear_fc2_bias, "linear_fc2.bias", b->hidden_size, 0));
    if (scale || a->per_token_scale)
        MMLP_TRY(reference_check(a->per_token_scale, "per_token_scale", r->tokens, 0));
    if (a->stored_fc1_output)
        MMLP_TRY(reference_check(a->stored_fc1_output, "stored_fc1_output", r->tokens,
                                 b->fc1_output_size));
    if (a->stored_activation)
        MMLP_TRY(reference_check(a->stored_activation, "stored_activation", r->tokens,
                                 b->ffn_hidden_size));
    return check_results(r);
}

/* ---- memory --------------------------------------------------------------------------------- */

static int64_t column_blocks(const backward *r)
{
    return (r->bundle->ffn_hidden_size + REFERENCE_COLUMN_BLOCK - 1) / REFERENCE_COLUMN_BLOCK;
}

static mmlp_status allocate_all(backward *r)
{
    const mmlp_bundle *b = r->bundle;
    int64_t block = r->tokens < 1 ? 1 : r->tokens < BLOCK ? r->tokens : BLOCK;
    int64_t ffn = b->ffn_hidden_size, fc1 = b->fc1_output_size;
    int64_t longest = fc1 > b->hidden_size ? fc1 : b->hidden_size;
    if (longest < block)
        longest = block;
    MMLP_TRY(reference_allocate_whole(&r->fc1_bias, r->args.linear_fc1_bias, fc1, "a bias"));
    MMLP_TRY(
        reference_allocate_whole(&r->fc2_bias, r->args.linear_fc2_bias, b->hidden_size, "a bias"));
    MMLP_TRY(reference_allocate_whole(&r->scale, r->args.per_token_scale, r->tokens, "the scale"));
    MMLP_TRY(reference_allocate(&r->grad_output, block * b->hidden_size, "grad_output in fp64"));
    if (r->elements) {
        MMLP_TRY(reference_allocate(&r->fc1, block * fc1, "fc1_output in fp64"));
        MMLP_TRY(reference_allocate(&r->d_activation, block * ffn, "d_activation in fp64"));
        MMLP_TRY(reference_allocate(&r->activation, block * ffn, "activation_output in fp64"));
        MMLP_TRY(reference_allocate(&r->grad_fc1, block * fc1, "grad_fc1_output in fp64"));
        MMLP_TRY(reference_allocate(&r->row_sums, 2 * block * column_blocks(r), "sums of rows"));
    }
    return reference_workspace_make(&r->workspace, longest, b->backward.count);
}

static void free_all(backward *r)
{
    double *all[] = {r->fc1_bias,     r->fc2_bias,   r->scale,    r->grad_output, r->fc1,
                     r->d_activation, r->activation, r->grad_fc1, r->row_sums};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    reference_workspace_free(&r->workspace);
}

/* ---- matrices of a block -------------------------------------------------------------------- */

/* A weight gradient: out[rows of it that are wanted, columns] += a^T b over the block's tokens. */
static void add_weight_gradient(double *out, const backward *r, reference_operand a,
                                const reference_operand *b, int64_t first, int64_t tokens)
{
    if (r->args.sampled_rows > 0) {
        a.sampled_of = a.lines;
        a.lines = r->args.sampled_rows;
    }
    reference_multiply(out, b->lines, first > 0, &a, b, tokens, &r->workspace);
}

/* ---- the pass ------------------------------------------------------------------------------- */

static void read_fc1_output(const backward *r, int64_t first, int64_t tokens)
{
    const mmlp_bundle *b = r->bundle;
    const mmlp_reference_backward_args *a = &r->args;
    int64_t width = b->fc1_output_size;
    if (a->stored_fc1_output) {
        reference_read(r->fc1, a->stored_fc1_output, first * width, tokens * width);
        return;
    }
    reference_operand x = reference_rows(a->hidden_states, NULL, first, tokens, b->hidden_size);
    reference_operand w = reference_rows(a->linear_fc1_weight, NULL, 0, width, b->hidden_size);
    reference_multiply(r->fc1, width, false, &x, &w, b->hidden_size, &r->workspace);
}

/* activation_output, grad_fc1_output, the bias gradient of fc1, and the sums of the scale's. */
static void evaluate_block(const backward *r, int64_t first, int64_t tokens)
{
    static const double none = 0;
    const mmlp_bundle *b = r->bundle;
    const bundle_backward_results *at = &b->backward_results;
    int64_t ffn = b->ffn_hidden_size, width = b->fc1_output_size;
    const reference_source known[] = {
        {"gate", r->fc1, width, 1},
        {"up", r->fc1 + ffn, width, 1},
        {"gate_bias", r->fc1_bias, 0, 1},
        {"up_bias", r->fc1_bias ? r->fc1_bias + ffn : NULL, 0, 1},
        {"scale", r->scale ? r->scale + first : NULL, 1, 0},
        {"d_activation", r->gradient ? r->d_activation : &none, r->gradient ? ffn : 0, r->gradient},
        {NULL, NULL, 0, 0},
    };
    double *bias = r->args.grad_linear_fc1_bias;
    const reference_result results[] = {
        {at->activation, REFERENCE_STORE, r->activation, ffn},
        {at->gate, REFERENCE_STORE, r->grad_fc1, width},
        {at->up, REFERENCE_STORE, r->grad_fc1 + ffn, width},
        {at->gate_bias, REFERENCE_COLUMN_SUM, bias, 0},
        {at->up_bias, REFERENCE_COLUMN_SUM, bias ? bias + ffn : NULL, 0},
        {at->scale, REFERENCE_ROW_SUM, r->row_sums, column_blocks(r)},
    };
    reference_evaluation e = {.program = &b->backward, .tokens = tokens, .columns = ffn};
    for (size_t i = 0; i < sizeof results / sizeof results[0]; i++) {
        if (results[i].node >= 0)
            e.results[e.result_count++] = results[i];
    }
    reference_choose_sources(&e, known);
    reference_evaluate(&e, &r->workspace);
}

/* The scale multiplies the activation and, where it is folded, the bias of fc2. */
static void finish_scale(const backward *r, int64_t first, int64_t tokens)
{
    int64_t hidden = r->bundle->hidden_size, blocks = column_blocks(r);
    for (int64_t t = 0; t < tokens; t++) {
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < blocks; i++) {
            sum += r->row_sums[(t * blocks + i) * 2];
            squares += r->row_sums[(t * blocks + i) * 2 + 1];
        }
        for (int64_t i = 0; r->folded && i < hidden; i++) {
            double term = r->grad_output[t * hidden + i] * r->fc2_bias[i];
            sum += term;
            squares += term * term;
        }
        if (r->args.grad_per_token_scale)
            r->args.grad_per_token_scale[first + t] = sum;
        if (r->args.scale_terms)
            r->args.scale_terms[first + t] = sqrt(squares);
    }
}

static void add_fc2_bias_gradient(const backward *r, int64_t first, int64_t tokens)
{
    int64_t hidden = r->bundle->hidden_size;
    for (int64_t t = 0; t < tokens; t++) {
        double factor = r->folded ? r->scale[first + t] : 1;
        for (int64_t i = 0; i < hidden; i++)
            r->args.grad_linear_fc2_bias[i] += factor * r->grad_output[t * hidden + i];
    }
}

static void run_block(const backward *r, int64_t first, int64_t tokens)
{
    const mmlp_bundle *b = r->bundle;
    const mmlp_reference_backward_args *a = &r->args;
    int64_t hidden = b->hidden_size, ffn = b->ffn_hidden_size, width = b->fc1_output_size;
    reference_read(r->grad_output, a->grad_output, first * hidden, tokens * hidden);
    if (r->elements)
        read_fc1_output(r, first, tokens);
    if (r->gradient) {
        reference_operand dy = reference_rows(NULL, r->grad_output, 0, tokens, hidden);
        reference_operand w2 = reference_columns(a->linear_fc2_weight, NULL, 0, ffn);
        reference_multiply(r->d_activation, ffn, false, &dy, &w2, hidden, &r->workspace);
    }
    if (r->elements) {
        evaluate_block(r, first, tokens);
        reference_copy_out(a->activation_output, r->activation, first, tokens, ffn);
        reference_copy_out(a->grad_fc1_output, r->grad_fc1, first, tokens, width);
    }
    if (a->grad_per_token_scale || a->scale_terms)
        finish_scale(r, first, tokens);
    if (a->grad_hidden_states) {
        reference_operand dz = reference_rows(NULL, r->grad_fc1, 0, tokens, width);
        reference_operand w1 = reference_columns(a->linear_fc1_weight, NULL, 0, hidden);
        reference_multiply(a->grad_hidden_states + first * hidden, hidden, false, &dz, &w1, width,
                           &r->workspace);
    }
    if (a->grad_linear_fc1_weight) {
        reference_operand x = reference_columns(a->hidden_states, NULL, first, hidden);
        add_weight_gradient(a->grad_linear_fc1_weight, r,
                            reference_columns(NULL, r->grad_fc1, 0, width), &x, first, tokens);
    }
    if (a->grad_linear_fc2_weight) {
        bool stored = a->stored_activation != NULL;
        reference_operand activation =
            reference_columns(a->stored_activation, r->activation, stored ? first : 0, ffn);
        add_weight_gradient(a->grad_linear_fc2_weight, r,
                            reference_columns(NULL, r->grad_output, 0, hidden), &activation, first,
                            tokens);
    }
    if (a->grad_linear_fc2_bias)
        add_fc2_bias_gradient(r, first, tokens);
}

static void clear(double *sums, int64_t count)
{
    if (sums)
        memset(sums, 0, (size_t)count * sizeof *sums);
}

mmlp_status mmlp_bundle_reference_backward(const mmlp_bundle *bundle,
                                           const mmlp_reference_backward_args *args)
{
    if (!bundle)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_bundle_reference_backward: bundle is NULL");
    mmlp_status status = MMLP_OK;
    backward r = {.bundle = bundle, .args = MMLP_REFERENCE_BACKWARD_ARGS_INIT};
    MMLP_TRY(struct_read(&r.args, args, sizeof r.args, "mmlp_reference_backward_args"));
    MMLP_TRY(check_inputs(&r));
    MMLP_TRY_CLEANUP(allocate_all(&r));
    clear(r.args.grad_linear_fc1_bias, bundle->fc1_output_size);
    clear(r.args.grad_linear_fc2_bias, bundle->hidden_size);
    int64_t first = 0;
    do { /* once even for no tokens: sums of nothing are zeros */
        run_block(&r, first, r.tokens - first < BLOCK ? r.tokens - first : BLOCK);
        first += BLOCK;
    } while (first < r.tokens);

cleanup:
    free_all(&r);
    return status;
}
