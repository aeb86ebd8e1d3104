/*
 * reference.c: the forward pass in fp64 on the host, from the manifest's expressions. Each stage is
 * its own: fc1_output from the inputs, the activation from fc1_output, the output from the
 * activation that was stored. Tools and tests compare devices with it; the passes never call it.
 */
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "reference_math.h"

enum { BLOCK = 128 }; /* tokens that share one pass over the weights */

typedef struct reference {
    const mmlp_bundle *bundle;
    mmlp_reference_forward_args args;
    int64_t tokens;
    double *fc1_bias, *fc2_bias, *scale; /* whole, or NULL */
    /* of one block of tokens: */
    double *fc1, *activation, *accumulator;
    reference_workspace workspace;
} reference;

/* What is given must be right, and what the wanted stages read must be given. */
static mmlp_status check_inputs(reference *r)
{
    const mmlp_bundle *b = r->bundle;
    const mmlp_reference_forward_args *a = &r->args;
    MMLP_TRY(reference_check(a->hidden_states, "hidden_states", -1, b->hidden_size));
    r->tokens = a->hidden_states->shape[0];
    bool output = a->output != NULL;
    bool activation = a->activation_output || (output && !a->stored_activation);
    bool bias1 =
        reference_uses(&b->activation, "gate_bias") || reference_uses(&b->activation, "up_bias");
    bool scale = (activation && reference_uses(&b->activation, "scale")) ||
                 (output && reference_uses(&b->output, "scale"));
    if (a->fc1_output || activation || a->linear_fc1_weight)
        MMLP_TRY(reference_check(a->linear_fc1_weight, "linear_fc1.weight", b->fc1_output_size,
                                 b->hidden_size));
    if ((activation && bias1) || a->linear_fc1_bias)
        MMLP_TRY(reference_check(a->linear_fc1_bias, "linear_fc1.bias", b->fc1_output_size, 0));
    if (output || a->linear_fc2_weight)
        MMLP_TRY(reference_check(a->linear_fc2_weight, "linear_fc2.weight", b->hidden_size,
                                 b->ffn_hidden_size));
    if ((output && reference_uses(&b->output, "bias")) || a->linear_fc2_bias)
        MMLP_TRY(reference_check(a->linear_fc2_bias, "linear_fc2.bias", b->hidden_size, 0));
    if (scale || a->per_token_scale)
        MMLP_TRY(reference_check(a->per_token_scale, "per_token_scale", r->tokens, 0));
    if (a->stored_activation)
        MMLP_TRY(reference_check(a->stored_activation, "stored_activation", r->tokens,
                                 b->ffn_hidden_size));
    return MMLP_OK;
}

static mmlp_status allocate_all(reference *r)
{
    const mmlp_bundle *b = r->bundle;
    int64_t block = r->tokens < BLOCK ? r->tokens : BLOCK;
    int64_t longest = b->hidden_size > b->ffn_hidden_size ? b->hidden_size : b->ffn_hidden_size;
    int nodes = b->activation.count > b->output.count ? b->activation.count : b->output.count;
    MMLP_TRY(reference_allocate_whole(&r->fc1_bias, r->args.linear_fc1_bias, b->fc1_output_size,
                                      "a bias"));
    MMLP_TRY(
        reference_allocate_whole(&r->fc2_bias, r->args.linear_fc2_bias, b->hidden_size, "a bias"));
    MMLP_TRY(reference_allocate_whole(&r->scale, r->args.per_token_scale, r->tokens, "the scale"));
    MMLP_TRY(reference_allocate(&r->fc1, block * b->fc1_output_size, "fc1_output in fp64"));
    MMLP_TRY(reference_allocate(&r->activation, block * b->ffn_hidden_size,
                                "activation_output in fp64"));
    MMLP_TRY(reference_allocate(&r->accumulator, block * b->hidden_size, "the output in fp64"));
    return reference_workspace_make(&r->workspace, longest, nodes);
}

static void free_all(reference *r)
{
    double *all[] = {r->fc1_bias, r->fc2_bias, r->scale, r->fc1, r->activation, r->accumulator};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    reference_workspace_free(&r->workspace);
}

/* out[tokens, rows of the weights] = in[tokens, columns] times the weights. */
static void multiply(double *out, const reference *r, const reference_operand *in,
                     const mmlp_tensor *weights)
{
    reference_operand b = reference_rows(weights, NULL, 0, weights->shape[0], weights->shape[1]);
    reference_multiply(out, b.lines, false, in, &b, weights->shape[1], &r->workspace);
}

static void activate(const reference *r, int64_t first, int64_t tokens)
{
    const mmlp_bundle *b = r->bundle;
    int64_t ffn = b->ffn_hidden_size, width = b->fc1_output_size;
    const reference_source known[] = {
        {"gate", r->fc1, width, 1},
        {"up", r->fc1 + ffn, width, 1},
        {"gate_bias", r->fc1_bias, 0, 1},
        {"up_bias", r->fc1_bias ? r->fc1_bias + ffn : NULL, 0, 1},
        {"scale", r->scale ? r->scale + first : NULL, 1, 0},
        {NULL, NULL, 0, 0},
    };
    reference_evaluation e = {
        .program = &b->activation,
        .tokens = tokens,
        .columns = ffn,
        .results = {{b->activation_result, REFERENCE_STORE, r->activation, ffn}},
        .result_count = 1};
    reference_choose_sources(&e, known);
    reference_evaluate(&e, &r->workspace);
}

static void finish_output(const reference *r, int64_t first, int64_t tokens)
{
    const mmlp_bundle *b = r->bundle;
    const reference_source known[] = {
        {"accumulator", r->accumulator, b->hidden_size, 1},
        {"bias", r->fc2_bias, 0, 1},
        {"scale", r->scale ? r->scale + first : NULL, 1, 0},
        {NULL, NULL, 0, 0},
    };
    reference_evaluation e = {
        .program = &b->output,
        .tokens = tokens,
        .columns = b->hidden_size,
        .results = {{b->output_result, REFERENCE_STORE, r->args.output + first * b->hidden_size,
                     b->hidden_size}},
        .result_count = 1};
    reference_choose_sources(&e, known);
    reference_evaluate(&e, &r->workspace);
}

static void run_block(const reference *r, int64_t first, int64_t tokens)
{
    const mmlp_bundle *b = r->bundle;
    const mmlp_reference_forward_args *a = &r->args;
    bool activation = a->activation_output || (a->output && !a->stored_activation);
    if (a->fc1_output || activation) {
        reference_operand x = reference_rows(a->hidden_states, NULL, first, tokens, b->hidden_size);
        multiply(r->fc1, r, &x, a->linear_fc1_weight);
        reference_copy_out(a->fc1_output, r->fc1, first, tokens, b->fc1_output_size);
    }
    if (activation) {
        activate(r, first, tokens);
        reference_copy_out(a->activation_output, r->activation, first, tokens, b->ffn_hidden_size);
    }
    if (a->output) {
        reference_operand x =
            reference_rows(a->stored_activation, r->activation, a->stored_activation ? first : 0,
                           tokens, b->ffn_hidden_size);
        multiply(r->accumulator, r, &x, a->linear_fc2_weight);
        finish_output(r, first, tokens);
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
