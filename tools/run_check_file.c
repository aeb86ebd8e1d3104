/* run_check_file.c: compares the results of a step with the expected values of a file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run_check.h"
#include "run_shard.h"
#include "tool.h"

/* The F32 values of a file's tensor, of as many elements as the result has. */
static int read_expected(double **out, const run_tensor *result, const safetensor *expected,
                         const char *path)
{
    size_t count = run_tensor_elements(result);
    *out = NULL;
    if (strcmp(safetensors_dtype(&expected->view), "F32") != 0 ||
        expected->bytes != count * sizeof(float))
        return tool_fail(EXIT_INPUT, "%s: expected tensor '%s' is not F32 of the result's shape",
                         path, expected->name);
    *out = malloc((count + 1) * sizeof **out);
    if (!*out)
        return tool_fail(EXIT_DEVICE, "out of memory: the expected values");
    for (size_t i = 0; i < count; ++i) {
        float value;
        memcpy(&value, (const char *)expected->view.data + i * sizeof value, sizeof value);
        (*out)[i] = (double)value;
    }
    return 0;
}

/* The norm of the terms that each element of grad.per_token_scale sums. */
static int find_scale_terms(double **out, run_step *s, const mmlp_bundle *bundle, int microbatch)
{
    mmlp_reference_backward_args args = run_check_backward_args(s);
    args.grad_output = &run_step_host(s, microbatch, RUN_GRAD_OUTPUT)->view;
    args.per_token_scale = &run_step_host(s, microbatch, RUN_PER_TOKEN_SCALE)->view;
    args.stored_fc1_output = &run_step_host(s, microbatch, RUN_FC1_OUTPUT)->view;
    *out = malloc(((size_t)s->microbatches[microbatch].tokens + 1) * sizeof **out);
    if (!*out)
        return tool_fail(EXIT_DEVICE, "out of memory: the fp64 reference");
    args.scale_terms = *out;
    mmlp_status status = mmlp_bundle_reference_backward(bundle, &args);
    return status == MMLP_OK ? 0 : tool_fail_status(status);
}

/* Whether rounding before the kink of an activation can change this result as a whole. */
static int has_kink(const run_step *s, run_slot slot)
{
    return s->properties.has_clamp_or_relu &&
           (slot == RUN_GRAD_HIDDEN_STATES || slot == RUN_GRAD_FC1_WEIGHT ||
            slot == RUN_GRAD_FC1_BIAS);
}

static int64_t tokens_behind(const run_step *s, int microbatch, run_slot slot)
{
    if (run_slot_role(slot) != RUN_GRADIENT)
        return s->microbatches[microbatch].tokens;
    int64_t sum = 0;
    for (int i = 0; i < s->count; ++i)
        sum += s->microbatches[i].tokens;
    return sum;
}

static int check_expected(compare_table *table, run_step *s, const mmlp_bundle *bundle,
                          int microbatch, run_slot slot, const safetensor *expected,
                          const char *path)
{
    double *values = NULL, *terms = NULL;
    int code = run_step_download(s, microbatch, slot);
    const run_tensor *actual = run_step_host(s, microbatch, slot);
    if (code == 0)
        code = read_expected(&values, actual, expected, path);
    if (code == 0 && slot == RUN_GRAD_PER_TOKEN_SCALE)
        code = find_scale_terms(&terms, s, bundle, microbatch);
    if (code == 0) {
        char name[RUN_NAME_SIZE + 16];
        run_check_name(name, s, expected->name);
        compare_case c = {.name = name,
                          .against = "file",
                          .dtype = s->properties.params_dtype,
                          .kind = run_check_kind(slot),
                          .expected = values,
                          .terms = terms,
                          .kink = has_kink(s, slot),
                          .tokens = tokens_behind(s, microbatch, slot)};
        double error;
        code = run_check_row(&error, table, &c, actual);
    }
    free(values);
    free(terms);
    return code;
}

/* What the file expects of a slot, if anything. A main_grad that starts from nothing is a gradient
 * too.
 */
static int find_expected(run_shard *expected, int *found, const run_step *s,
                         const safetensors *file, int microbatch, run_slot slot)
{
    char name[RUN_NAME_SIZE];
    run_step_name(name, s, microbatch, slot);
    int code = run_shard_find(expected, found, s, file, name, slot);
    if (code == 0 && !*found && run_step_is_main_grad(s, slot) && !s->initial[slot].view.data)
        code = run_shard_find(expected, found, s, file, run_slot_word(slot), slot);
    return code;
}

static int check_slot(compare_table *table, run_step *s, const mmlp_bundle *bundle, int microbatch,
                      run_slot slot, const safetensors *file, const char *path)
{
    run_shard expected;
    int found, code = find_expected(&expected, &found, s, file, microbatch, slot);
    if (code == 0 && found && !run_step_uses(s, slot))
        code = tool_fail(EXIT_INPUT, "%s: expects '%s', which %s does not give", path,
                         expected.tensor.name, s->properties.name);
    else if (code == 0 && found)
        code = check_expected(table, s, bundle, microbatch, slot, &expected.tensor, path);
    run_shard_free(&expected);
    return code;
}

/* main_grad of a weight where gradients are of params_dtype. */
static int refuse_main_grad(const run_step *s, const safetensors *file, const char *path)
{
    for (size_t i = 0; i < file->count; ++i) {
        const char *name = file->tensors[i].name;
        if (!s->properties.gradient_accumulation_fusion && strncmp(name, "main_grad.", 10) == 0)
            return tool_fail(EXIT_INPUT,
                             "%s: expects '%s', which %s does not give "
                             "(gradient_accumulation_fusion = false)",
                             path, name, s->properties.name);
    }
    return 0;
}

int run_check_file(compare_table *table, run_step *s, const mmlp_bundle *bundle,
                   const safetensors *file, const char *path)
{
    int code = s->train ? refuse_main_grad(s, file, path) : 0;
    for (run_slot slot = 0; code == 0 && slot < RUN_SLOT_COUNT; ++slot) {
        run_role role = run_slot_role(slot);
        int is_forward = run_check_kind(slot) == COMPARE_FORWARD;
        if (role == RUN_INPUT || role == RUN_PARAMETER || (!s->train && !is_forward))
            continue;
        int copies = role == RUN_GRADIENT ? 1 : s->count;
        for (int i = 0; code == 0 && i < copies; ++i)
            code = check_slot(table, s, bundle, i, slot, file, path);
    }
    /* The fc2 bias that is handed back to the caller. */
    run_shard bias = {0};
    int found = 0;
    if (code == 0)
        code = run_shard_find(&bias, &found, s, file, "output_bias", RUN_FC2_BIAS);
    if (code == 0 && found && s->properties.fc2_bias != MMLP_FC2_BIAS_RETURNED)
        code = tool_fail(EXIT_INPUT, "%s: expects '%s', which %s does not give", path,
                         bias.tensor.name, s->properties.name);
    else if (code == 0 && found)
        code = check_expected(table, s, bundle, 0, RUN_FC2_BIAS, &bias.tensor, path);
    run_shard_free(&bias);
    return code;
}
