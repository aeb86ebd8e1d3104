/* run_check.c: compares the results of a step with the fp64 references. */
#include "run_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "progress.h"
#include "tool.h"

enum {
    LARGE_WEIGHT = 1 << 20, /* elements: gradients of larger ones are compared in some rows */
    SAMPLED_ROWS = 32,
    ONE_GEMM = 8192 /* the longest sum whose limit is that of one product */
};

/* ---- what both comparisons share ------------------------------------------------------------ */

compare_kind run_check_kind(run_slot slot)
{
    switch (slot) {
    case RUN_FC2_BIAS: /* output_bias */
    case RUN_FC1_OUTPUT:
    case RUN_ACTIVATION_OUTPUT:
    case RUN_OUTPUT:
    case RUN_RECOMPUTED_ACTIVATION:
        return COMPARE_FORWARD;
    case RUN_GRAD_PER_TOKEN_SCALE:
        return COMPARE_SCALE_GRADIENT;
    default:
        return COMPARE_GRADIENT;
    }
}

void run_check_name(char out[RUN_NAME_SIZE + 16], const run_step *s, const char *name)
{
    if (s->ranks > 1 && strncmp(name, "rank", 4) != 0)
        snprintf(out, RUN_NAME_SIZE + 16, "rank%d.%s", s->rank, name);
    else
        snprintf(out, RUN_NAME_SIZE + 16, "%s", name);
}

/* A tensor, or NULL when there is none. */
static const mmlp_tensor *view_of(const run_tensor *tensor)
{
    return tensor->view.data ? &tensor->view : NULL;
}

mmlp_reference_backward_args run_check_backward_args(run_step *s)
{
    mmlp_reference_backward_args args = MMLP_REFERENCE_BACKWARD_ARGS_INIT;
    args.linear_fc1_weight = view_of(&s->shared.host[RUN_FC1_WEIGHT]);
    args.linear_fc1_bias = view_of(&s->shared.host[RUN_FC1_BIAS]);
    args.linear_fc2_weight = view_of(&s->shared.host[RUN_FC2_WEIGHT]);
    args.linear_fc2_bias = view_of(&s->shared.host[RUN_FC2_BIAS]);
    return args;
}

int run_check_row(double *error, compare_table *table, const compare_case *c,
                  const run_tensor *actual)
{
    compare_case full = *c;
    size_t count = run_tensor_elements(actual);
    double *values = malloc((count + 1) * sizeof *values);
    if (!values)
        return tool_fail(EXIT_DEVICE, "out of memory: %zu values in fp64", count);
    run_tensor_to_double(values, actual, 0, count);
    full.shape = actual->shape;
    full.rank = actual->view.ndim;
    full.actual = values;
    *error = compare_row(table, &full);
    free(values);
    return 0;
}

static int allocate(double **out, size_t count)
{
    *out = calloc(count + 1, sizeof **out);
    return *out ? 0 : tool_fail(EXIT_DEVICE, "out of memory: the fp64 reference");
}

static int fp64_row(compare_table *table, double errors[RUN_SLOT_COUNT], const run_step *s,
                    int microbatch, run_slot slot, const run_tensor *actual, const double *expected,
                    const double *terms)
{
    char base[RUN_NAME_SIZE], name[RUN_NAME_SIZE + 16];
    run_step_name(base, s, microbatch, slot);
    run_check_name(name, s, base);
    compare_case c = {.name = name,
                      .against = "fp64",
                      .dtype = s->properties.params_dtype,
                      .kind = run_check_kind(slot),
                      .expected = expected,
                      .terms = terms};
    if ((slot == RUN_FC1_OUTPUT && s->properties.hidden_size <= ONE_GEMM) ||
        (slot == RUN_OUTPUT && s->properties.ffn_hidden_size <= ONE_GEMM))
        c.kind = COMPARE_GEMM;
    double error = 0;
    int code = run_check_row(&error, table, &c, actual);
    if (code == 0 && error > errors[slot])
        errors[slot] = error;
    return code;
}

/* ---- tokens and sums of all ranks ----------------------------------------------------------- */

static int is_of_tokens(run_slot slot)
{
    run_role role = run_slot_role(slot);
    return role == RUN_INPUT || role == RUN_BUFFER || role == RUN_RESULT;
}

/* A host tensor of all tokens, from each rank's part on the host or (context) on the device. */
static int gather_tokens(run_tensor *whole, const run_tensor *part, mmlp_context *context,
                         const ranks *r)
{
    run_tensor own = {0};
    int code = context ? run_tensor_download(&own, part, context) : 0;
    const run_tensor *from = context ? &own : part;
    *whole = *part;
    whole->shape[0] *= r->count;
    whole->bytes *= (size_t)r->count;
    if (code == 0)
        code = run_tensor_alloc_host(whole);
    if (code == 0)
        ranks_gather(r, whole->view.data, from->view.data, part->bytes);
    run_tensor_free_host(&own);
    return code;
}

static int is_split_by_tokens(const run_step *s, run_slot slot)
{
    int halves;
    return s->properties.sequence_parallel && run_slot_role(slot) != RUN_BUFFER &&
           run_slot_split(&halves, &s->properties, slot) == 0 && is_of_tokens(slot);
}

int run_check_gather(run_step *s, const ranks *r)
{
    int code = 0;
    for (run_slot slot = 0; code == 0 && slot < RUN_SLOT_COUNT; ++slot) {
        if (run_slot_role(slot) != RUN_INPUT || !is_split_by_tokens(s, slot) ||
            !run_step_uses(s, slot))
            continue;
        for (int i = 0; code == 0 && i < s->count; ++i) {
            run_tensor whole, *host = run_step_host(s, i, slot);
            code = run_step_download(s, i, slot);
            if (code == 0)
                code = gather_tokens(&whole, host, NULL, r);
            if (code != 0)
                break;
            free(host->view.data);
            *host = whole;
            host->view.shape = host->shape;
        }
    }
    return code;
}

/* ---- results of tokens ---------------------------------------------------------------------- */

/* Some tokens of a microbatch: what the device has, and what fp64 gives. */
typedef struct token_sample {
    run_tensor tensors[RUN_SLOT_COUNT];
    double *expected[RUN_SLOT_COUNT];
    double *scale_terms;
} token_sample;

static int take_tensor(run_tensor *out, run_step *s, int microbatch, run_slot slot, int64_t samples,
                       const ranks *r)
{
    const run_tensor *host = run_step_host(s, microbatch, slot);
    const run_tensor *device = run_step_device(s, microbatch, slot);
    int on_host = host->view.data != NULL;
    if (run_slot_role(slot) != RUN_RESULT || !is_split_by_tokens(s, slot))
        return run_tensor_sample(out, on_host ? host : device, samples,
                                 on_host ? NULL : s->context);
    run_tensor whole = {0};
    int code = gather_tokens(&whole, on_host ? host : device, on_host ? NULL : s->context, r);
    if (code == 0)
        code = run_tensor_sample(out, &whole, samples, NULL);
    run_tensor_free_host(&whole);
    return code;
}

static int take_sample(token_sample *out, run_step *s, int microbatch, int64_t samples,
                       const ranks *r)
{
    int code = allocate(&out->scale_terms, (size_t)samples);
    for (run_slot slot = 0; code == 0 && slot < RUN_SLOT_COUNT; ++slot) {
        if (!run_step_uses(s, slot) || !is_of_tokens(slot))
            continue;
        code = take_tensor(&out->tensors[slot], s, microbatch, slot, samples, r);
        if (code == 0 && run_slot_role(slot) != RUN_INPUT)
            code = allocate(&out->expected[slot], run_tensor_elements(&out->tensors[slot]));
    }
    return code;
}

static void free_sample(token_sample *sample)
{
    for (int slot = 0; slot < RUN_SLOT_COUNT; ++slot) {
        run_tensor_free_host(&sample->tensors[slot]);
        free(sample->expected[slot]);
    }
    free(sample->scale_terms);
}

/* Each rank's part of a sum over ranks; the bias of fc2 is in that of rank 0 alone. */
static mmlp_status sample_forward(token_sample *sample, run_step *s, const mmlp_bundle *bundle,
                                  const mmlp_tensor *fc2_bias)
{
    mmlp_reference_forward_args args = MMLP_REFERENCE_FORWARD_ARGS_INIT;
    args.hidden_states = &sample->tensors[RUN_HIDDEN_STATES].view;
    args.linear_fc1_weight = view_of(&s->shared.host[RUN_FC1_WEIGHT]);
    args.linear_fc1_bias = view_of(&s->shared.host[RUN_FC1_BIAS]);
    args.linear_fc2_weight = view_of(&s->shared.host[RUN_FC2_WEIGHT]);
    args.linear_fc2_bias = fc2_bias;
    args.per_token_scale = view_of(&sample->tensors[RUN_PER_TOKEN_SCALE]);
    args.stored_activation = &sample->tensors[RUN_ACTIVATION_OUTPUT].view;
    args.fc1_output = sample->expected[RUN_FC1_OUTPUT];
    args.activation_output = sample->expected[RUN_ACTIVATION_OUTPUT];
    args.output = sample->expected[RUN_OUTPUT];
    return mmlp_bundle_reference_forward(bundle, &args);
}

static mmlp_status sample_backward(token_sample *sample, run_step *s, const mmlp_bundle *bundle)
{
    mmlp_reference_backward_args args = run_check_backward_args(s);
    args.grad_output = &sample->tensors[RUN_GRAD_OUTPUT].view;
    args.hidden_states = &sample->tensors[RUN_HIDDEN_STATES].view;
    args.per_token_scale = view_of(&sample->tensors[RUN_PER_TOKEN_SCALE]);
    args.stored_fc1_output = &sample->tensors[RUN_FC1_OUTPUT].view;
    args.activation_output = sample->expected[RUN_RECOMPUTED_ACTIVATION];
    args.grad_fc1_output = sample->expected[RUN_GRAD_FC1_OUTPUT];
    args.grad_hidden_states = sample->expected[RUN_GRAD_HIDDEN_STATES];
    args.grad_per_token_scale = sample->expected[RUN_GRAD_PER_TOKEN_SCALE];
    if (args.grad_per_token_scale)
        args.scale_terms = sample->scale_terms;
    return mmlp_bundle_reference_backward(bundle, &args);
}

static int compute_sample(token_sample *sample, run_step *s, const mmlp_bundle *bundle,
                          const ranks *r)
{
    const run_tensor *bias = &s->shared.host[RUN_FC2_BIAS];
    run_tensor zeros = *bias;
    int code = run_tensor_alloc_host(&zeros);
    if (code != 0)
        return code;
    memset(zeros.view.data, 0, zeros.bytes);
    int adds = !s->properties.communicates || s->rank == 0;
    mmlp_status status =
        sample_forward(sample, s, bundle, view_of(adds || !bias->view.data ? bias : &zeros));
    if (status == MMLP_OK && s->train)
        status = sample_backward(sample, s, bundle);
    code = status == MMLP_OK ? 0 : tool_fail_status(status);
    static const run_slot summed[] = {RUN_OUTPUT, RUN_GRAD_HIDDEN_STATES};
    for (int i = 0; code == 0 && s->properties.communicates && i < 2; ++i)
        if (sample->expected[summed[i]])
            ranks_sum(r, sample->expected[summed[i]],
                      run_tensor_elements(&sample->tensors[summed[i]]));
    run_tensor_free_host(&zeros);
    return code;
}

static int check_tokens_of(compare_table *table, double errors[RUN_SLOT_COUNT], run_step *s,
                           const mmlp_bundle *bundle, int microbatch, int64_t check_tokens,
                           const ranks *r)
{
    int64_t tokens = s->microbatches[microbatch].tokens;
    int64_t samples = check_tokens < tokens ? check_tokens : tokens;
    token_sample sample = {0};
    int code = take_sample(&sample, s, microbatch, samples, r);
    if (code == 0)
        code = compute_sample(&sample, s, bundle, r);
    for (run_slot slot = 0; code == 0 && slot < RUN_SLOT_COUNT; ++slot) {
        if (sample.expected[slot])
            code = fp64_row(table, errors, s, microbatch, slot, &sample.tensors[slot],
                            sample.expected[slot],
                            slot == RUN_GRAD_PER_TOKEN_SCALE ? sample.scale_terms : NULL);
    }
    free_sample(&sample);
    return code;
}

/* ---- sums over tokens ----------------------------------------------------------------------- */

/* The gradients of the parameters: sums over the tokens of all microbatches, and what they start
 * from. Weights in some rows only when they are large. */
typedef struct gradient_sums {
    int64_t sampled_rows;                  /* 0: all */
    run_tensor actual[RUN_SLOT_COUNT];     /* host */
    double *total[RUN_SLOT_COUNT];         /* fp64 */
    double *of_microbatch[RUN_SLOT_COUNT]; /* fp64 */
} gradient_sums;

static int is_weight(run_slot slot)
{
    return slot == RUN_GRAD_FC1_WEIGHT || slot == RUN_GRAD_FC2_WEIGHT;
}

static int start_sums(gradient_sums *sums, run_step *s)
{
    int64_t weight = s->properties.fc1_output_size * s->properties.hidden_size;
    sums->sampled_rows = weight > LARGE_WEIGHT ? SAMPLED_ROWS : 0;
    int code = 0;
    for (run_slot slot = 0; code == 0 && slot < RUN_SLOT_COUNT; ++slot) {
        if (!run_step_uses(s, slot) || run_slot_role(slot) != RUN_GRADIENT)
            continue;
        const run_tensor *device = run_step_device(s, 0, slot);
        run_tensor *actual = &sums->actual[slot];
        int sampled = is_weight(slot) && sums->sampled_rows > 0;
        code = sampled ? run_tensor_sample(actual, device, sums->sampled_rows, s->context)
                       : run_tensor_download(actual, device, s->context);
        size_t count = run_tensor_elements(actual);
        if (code == 0)
            code = allocate(&sums->total[slot], count);
        if (code == 0)
            code = allocate(&sums->of_microbatch[slot], count);
        if (code != 0 || !s->initial[slot].view.data)
            continue;
        run_tensor initial = {0};
        code = run_tensor_sample(&initial, &s->initial[slot], actual->shape[0], NULL);
        if (code == 0)
            run_tensor_to_double(sums->total[slot], &initial, 0, count);
        run_tensor_free_host(&initial);
    }
    return code;
}

static void free_sums(gradient_sums *sums)
{
    for (int slot = 0; slot < RUN_SLOT_COUNT; ++slot) {
        run_tensor_free_host(&sums->actual[slot]);
        free(sums->total[slot]);
        free(sums->of_microbatch[slot]);
    }
}

static int add_microbatch(gradient_sums *sums, run_step *s, const mmlp_bundle *bundle,
                          int microbatch)
{
    mmlp_reference_backward_args args = run_check_backward_args(s);
    args.grad_output = &run_step_host(s, microbatch, RUN_GRAD_OUTPUT)->view;
    args.hidden_states = &run_step_host(s, microbatch, RUN_HIDDEN_STATES)->view;
    args.per_token_scale = view_of(run_step_host(s, microbatch, RUN_PER_TOKEN_SCALE));
    args.stored_fc1_output = &run_step_host(s, microbatch, RUN_FC1_OUTPUT)->view;
    if (s->properties.save_activation)
        args.stored_activation = &run_step_host(s, microbatch, RUN_ACTIVATION_OUTPUT)->view;
    args.sampled_rows = sums->sampled_rows;
    args.grad_linear_fc1_weight = sums->of_microbatch[RUN_GRAD_FC1_WEIGHT];
    args.grad_linear_fc1_bias = sums->of_microbatch[RUN_GRAD_FC1_BIAS];
    args.grad_linear_fc2_weight = sums->of_microbatch[RUN_GRAD_FC2_WEIGHT];
    args.grad_linear_fc2_bias = sums->of_microbatch[RUN_GRAD_FC2_BIAS];
    mmlp_status status = mmlp_bundle_reference_backward(bundle, &args);
    if (status != MMLP_OK)
        return tool_fail_status(status);
    for (int slot = 0; slot < RUN_SLOT_COUNT; ++slot) {
        size_t count = sums->total[slot] ? run_tensor_elements(&sums->actual[slot]) : 0;
        for (size_t i = 0; i < count; ++i)
            sums->total[slot][i] += sums->of_microbatch[slot][i];
    }
    return 0;
}

static int check_sums(compare_table *table, double errors[RUN_SLOT_COUNT], run_step *s,
                      const mmlp_bundle *bundle, const ranks *r)
{
    gradient_sums sums = {0};
    int code = start_sums(&sums, s);
    run_tensor *bias = &sums.actual[RUN_GRAD_FC2_BIAS];
    if (code == 0 && bias->view.data && run_slot_is_partial(&s->properties, RUN_GRAD_FC2_BIAS))
        ranks_sum_floats(r, bias->view.data, run_tensor_elements(bias));
    for (int i = 0; code == 0 && i < s->count; ++i)
        code = add_microbatch(&sums, s, bundle, i);
    for (run_slot slot = 0; code == 0 && slot < RUN_SLOT_COUNT; ++slot) {
        if (sums.total[slot])
            code = fp64_row(table, errors, s, 0, slot, &sums.actual[slot], sums.total[slot], NULL);
    }
    free_sums(&sums);
    return code;
}

int run_check_reference(compare_table *table, double errors[RUN_SLOT_COUNT], run_step *s,
                        const mmlp_bundle *bundle, int64_t check_tokens, const ranks *r)
{
    progress_begin("computing the fp64 reference");
    int code = 0;
    for (run_slot slot = 0; code == 0 && slot < RUN_SLOT_COUNT; ++slot) {
        run_role role = run_slot_role(slot);
        int copies = role == RUN_INPUT ? s->count : role == RUN_PARAMETER ? 1 : 0;
        for (int i = 0; code == 0 && i < copies; ++i)
            code = run_step_download(s, i, slot);
        errors[slot] = -1;
    }
    for (int i = 0; code == 0 && i < s->count; ++i)
        code = check_tokens_of(table, errors, s, bundle, i, check_tokens, r);
    if (code == 0 && s->train)
        code = check_sums(table, errors, s, bundle, r);
    progress_end();
    return code;
}
