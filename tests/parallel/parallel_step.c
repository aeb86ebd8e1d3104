/* parallel_step.c: see parallel_step.h. */
#include "parallel_step.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"

#define REQUIRE(call) cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())

/* ---- bundles -------------------------------------------------------------------------------- */

static const char *const kinds[][3] = {
    [PARALLEL_ADDED_BIAS] = {"activation_func = F.gelu, params_dtype = 'bf16'", "",
                             "ModuleSpec { module = RowParallelLinear, params = { skip_bias_add = "
                             "false } }"},
    [PARALLEL_FOLDED_BIAS] = {"activation_func = F.silu, gated_linear_unit = true, params_dtype = "
                              "'fp16', gradient_accumulation_fusion = true",
                              "per_token_scale = true", "RowParallelLinear"},
    [PARALLEL_DELAYED] = {"activation_func = F.silu, gated_linear_unit = true, add_bias_linear = "
                          "false, params_dtype = 'bf16', gradient_accumulation_fusion = true, "
                          "delay_wgrad_compute = true",
                          "per_token_scale = true", "RowParallelLinear"},
    [PARALLEL_FP32] = {"activation_func = F.silu, gated_linear_unit = true, add_bias_linear = "
                       "false, params_dtype = 'fp32'",
                       "", "RowParallelLinear"},
};

mmlp_bundle *parallel_bundle(parallel_kind kind, int ranks, bool sequence_parallel)
{
    char *content = NULL;
    cr_assert(asprintf(&content,
                       "local config = TransformerConfig { hidden_size = %d, ffn_hidden_size = "
                       "%d, num_layers = 2, tensor_model_parallel_size = %d, sequence_parallel = "
                       "%s, %s }\n"
                       "return ModuleSpec { module = MLP, params = { config = config, %s },\n"
                       "  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear,\n"
                       "    linear_fc2 = %s } }\n",
                       PARALLEL_HIDDEN, PARALLEL_FFN, ranks, sequence_parallel ? "true" : "false",
                       kinds[kind][0], kinds[kind][1], kinds[kind][2]) > 0);
    mmlp_bundle *bundle = loaded_bundle(content, NULL);
    free(content);
    return bundle;
}

mmlp_mlp *parallel_load(const thread_rank *rank, const mmlp_bundle *bundle,
                        const mmlp_mlp_options *options)
{
    mmlp_mlp *mlp;
    REQUIRE(mmlp_mlp_load(&mlp, rank->context, bundle, options));
    return mlp;
}

mmlp_mlp *parallel_bind(const thread_rank *rank, const mmlp_bundle *bundle,
                        const mmlp_mlp_options *options)
{
    mmlp_mlp *mlp = parallel_load(rank, bundle, options);
    REQUIRE(mmlp_mlp_bind_comm(mlp, MMLP_GROUP_TP, rank->comm));
    return mlp;
}

/* ---- parts ---------------------------------------------------------------------------------- */

/* How ranks share a tensor: every one has all of it; or has rows, of each of `halves`, or columns;
 * or a term of a sum. */
typedef enum sharing { COPIES, ROWS, COLUMNS, TERMS } sharing;

static sharing sharing_of(const mmlp_bundle_properties *p, step_tensor which)
{
    switch (which) {
    case STEP_HIDDEN_STATES:
    case STEP_GRAD_OUTPUT:
    case STEP_OUTPUT:
    case STEP_GRAD_HIDDEN_STATES:
        return p->sequence_parallel ? ROWS : COPIES;
    case STEP_FC1_WEIGHT:
    case STEP_FC1_BIAS:
    case STEP_GRAD_FC1_WEIGHT:
    case STEP_GRAD_FC1_BIAS:
        return ROWS;
    case STEP_FC2_WEIGHT:
    case STEP_GRAD_FC2_WEIGHT:
        return COLUMNS;
    case STEP_GRAD_SCALE:
        return TERMS;
    case STEP_GRAD_FC2_BIAS:
        return p->sequence_parallel ? TERMS : COPIES;
    default:
        return COPIES;
    }
}

/* The index in the whole tensor of element i of the rank's part. */
static size_t whole_index(const training_step *part, step_tensor which, const thread_rank *rank,
                          size_t i)
{
    const mmlp_bundle_properties *p = &part->properties;
    const int64_t *shape = part->tensors[which].shape;
    size_t columns = shape[1] ? (size_t)shape[1] : 1, row = i / columns, column = i % columns;
    size_t ranks = (size_t)rank->ranks, r = (size_t)rank->rank;
    sharing how = sharing_of(p, which);
    if (how == COLUMNS)
        return row * columns * ranks + r * columns + column;
    if (how != ROWS)
        return i;
    bool halved = p->gated_linear_unit && shape[0] == p->fc1_output_size &&
                  which != STEP_HIDDEN_STATES && which != STEP_GRAD_OUTPUT &&
                  which != STEP_OUTPUT && which != STEP_GRAD_HIDDEN_STATES;
    size_t rows = (size_t)shape[0] / (halved ? 2 : 1);
    return ((row / rows * ranks + r) * rows + row % rows) * columns + column;
}

void parallel_run_whole(training_step *whole, mmlp_context *context, parallel_kind kind,
                        const step_options *options)
{
    mmlp_bundle *bundle = parallel_bundle(kind, 1, false);
    mmlp_mlp *mlp;
    REQUIRE(mmlp_mlp_load(&mlp, context, bundle, NULL));
    step_start(whole, context, bundle, mlp, options);
    REQUIRE(step_run(whole, mlp));
    step_download(whole);
    mmlp_mlp_unload(mlp);
    mmlp_bundle_close(bundle);
}

static void take(training_step *part, step_tensor which, const thread_rank *rank,
                 const training_step *whole)
{
    const step_values *from = &whole->tensors[which];
    double *before = part->tensors[which].before;
    bool nothing = sharing_of(&part->properties, which) == TERMS && rank->rank > 0;
    for (size_t i = 0; i < step_count(part, which); i++) {
        size_t at = whole_index(part, which, rank, i);
        double value = nothing        ? 0
                       : from->before ? from->before[at]
                                      : step_element(&from->host, at);
        step_set_element(&part->tensors[which].host, i, value);
        if (before)
            before[i] = value;
    }
    if (step_count(part, which) > 0)
        step_upload(part, which);
}

void parallel_start_part(training_step *part, const thread_rank *rank, const mmlp_bundle *bundle,
                         const mmlp_mlp *mlp, const training_step *whole)
{
    step_options options = whole->options;
    options.device = rank->rank;
    step_start(part, rank->context, bundle, mlp, &options);
    for (step_tensor which = 0; which < STEP_TENSORS; which++) {
        bool starts = which >= STEP_GRAD_FC1_WEIGHT && whole->options.beta == 1;
        if (which < STEP_OUTPUT || starts)
            take(part, which, rank, whole);
    }
}

/* ---- results -------------------------------------------------------------------------------- */

void parallel_results_start(parallel_results *out, const training_step *whole)
{
    for (step_tensor which = 0; which < STEP_TENSORS; which++) {
        size_t count = step_count(whole, which);
        out->values[which] = malloc((count + 1) * sizeof(double));
        cr_assert(out->values[which]);
        for (size_t i = 0; i < count; i++)
            out->values[which][i] = (double)NAN;
    }
}

void parallel_results_free(parallel_results *results)
{
    for (step_tensor which = 0; which < STEP_TENSORS; which++)
        free(results->values[which]);
}

/* The term of a folded bias in the gradient of the token's scale, which every rank has whole. */
static double folded_term(const training_step *part, size_t token)
{
    double sum = 0;
    for (size_t i = 0; i < PARALLEL_HIDDEN; i++)
        sum += step_element(&part->tensors[STEP_GRAD_OUTPUT].host, token * PARALLEL_HIDDEN + i) *
               step_element(&part->tensors[STEP_FC2_BIAS].host, i);
    return sum;
}

void parallel_put(parallel_results *out, const thread_rank *rank, training_step *part)
{
    step_download(part);
    for (step_tensor which = STEP_OUTPUT; which < STEP_TENSORS; which++) {
        bool sums = sharing_of(&part->properties, which) == TERMS;
        bool folded = which == STEP_GRAD_SCALE && part->properties.fc2_bias == MMLP_FC2_BIAS_FOLDED;
        size_t differ = 0;
        for (size_t i = 0; i < step_count(part, which); i++) {
            double value = step_element(&part->tensors[which].host, i);
            double *place = &out->values[which][whole_index(part, which, rank, i)];
            bool is_first = isnan(*place);
            if (folded && !is_first)
                value -= folded_term(part, i);
            differ += !is_first && !sums && *place != value;
            *place = is_first || !sums ? value : *place + value;
        }
        cr_expect_eq(differ, 0, "%s: %zu elements of rank %d are not as another rank has them",
                     step_tensor_name(which), differ, rank->rank);
    }
}

void parallel_compare(const parallel_results *found, const training_step *whole,
                      const mmlp_bundle_properties *parts, const char *what)
{
    const char *dtype = parts->params_dtype;
    for (step_tensor which = STEP_OUTPUT; which < STEP_TENSORS; which++) {
        size_t count = step_count(whole, which);
        double *wanted = malloc((count + 1) * sizeof *wanted);
        cr_assert(wanted);
        for (size_t i = 0; i < count; i++)
            wanted[i] = step_element(&whole->tensors[which].host, i);
        bool reduced = which == STEP_OUTPUT || which == STEP_GRAD_HIDDEN_STATES ||
                       sharing_of(parts, which) == TERMS;
        double error = compare_error(found->values[which], wanted, NULL, count);
        double limit =
            reduced ? compare_limit(which == STEP_OUTPUT ? COMPARE_FORWARD : COMPARE_GRADIENT,
                                    dtype, count)
                    : 0;
        cr_expect(error <= limit, "%s: %s: error %.2e, limit %.2e", what, step_tensor_name(which),
                  error, limit);
        free(wanted);
    }
}
