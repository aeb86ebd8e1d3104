/* run_check.c: compares the results of a forward pass with fp64 and with a file's expected values.
 */
#include "run_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

const char *const run_result_names[RESULT_COUNT] = {"fc1_output", "activation_output", "output"};

int run_results_download(run_results *out, const run_tensors *t, mmlp_mlp *handle)
{
    memset(out, 0, sizeof *out);
    for (int i = 0; i < RESULT_COUNT; ++i) {
        int code = run_tensors_result(&out->tensors[i], t, handle, run_result_names[i]);
        if (code != 0)
            return code;
    }
    return 0;
}

void run_results_free(run_results *results)
{
    for (int i = 0; i < RESULT_COUNT; ++i)
        run_tensor_free_host(&results->tensors[i]);
}

/* ---- fp64 ----------------------------------------------------------------------------------- */

static int64_t sampled_token(int64_t index, int64_t samples, int64_t tokens)
{
    return samples == 1 ? 0 : index * (tokens - 1) / (samples - 1);
}

/* The sampled rows of a [tokens] or [tokens, columns] host tensor. */
static int gather(run_tensor *out, const run_tensor *from, int64_t samples)
{
    *out = *from;
    out->view.shape = out->shape;
    out->shape[0] = samples;
    size_t row_bytes = from->shape[0] ? from->bytes / (size_t)from->shape[0] : 0;
    out->bytes = row_bytes * (size_t)samples;
    out->view.data = malloc(out->bytes ? out->bytes : 1);
    if (!out->view.data)
        return tool_fail(EXIT_DEVICE, "out of memory: %zu bytes on the host", out->bytes);
    for (int64_t i = 0; i < samples; ++i) {
        int64_t token = sampled_token(i, samples, from->shape[0]);
        memcpy((char *)out->view.data + (size_t)i * row_bytes,
               (const char *)from->view.data + (size_t)token * row_bytes, row_bytes);
    }
    return 0;
}

static const mmlp_tensor *view_or_null(const run_tensor *tensor)
{
    return tensor->view.data ? &tensor->view : NULL;
}

int run_check_reference(compare_table *table, double errors[RESULT_COUNT], const run_tensors *t,
                        const run_results *results, const mmlp_bundle *bundle, int64_t check_tokens)
{
    int64_t samples = check_tokens < t->tokens ? check_tokens : t->tokens;
    run_tensor hidden_states = {0}, scale = {0};
    run_results sampled = {0};
    double *expected[RESULT_COUNT] = {0}, *actual = NULL;

    int code = gather(&hidden_states, &t->host[RUN_HIDDEN_STATES], samples);
    if (code == 0 && t->mlp.per_token_scale)
        code = gather(&scale, &t->host[RUN_PER_TOKEN_SCALE], samples);
    size_t largest = 1;
    for (int i = 0; code == 0 && i < RESULT_COUNT; ++i) {
        code = gather(&sampled.tensors[i], &results->tensors[i], samples);
        size_t count = (size_t)samples * (size_t)results->tensors[i].shape[1];
        largest = count > largest ? count : largest;
        expected[i] = malloc((count + 1) * sizeof(double));
        if (code == 0 && !expected[i])
            code = tool_fail(EXIT_DEVICE, "out of memory: the fp64 reference");
    }
    if (code == 0 && !(actual = malloc(largest * sizeof(double))))
        code = tool_fail(EXIT_DEVICE, "out of memory: the fp64 reference");

    if (code == 0) {
        mmlp_reference_forward_args args = MMLP_REFERENCE_FORWARD_ARGS_INIT;
        args.hidden_states = &hidden_states.view;
        args.linear_fc1_weight = view_or_null(&t->host[RUN_FC1_WEIGHT]);
        args.linear_fc1_bias = view_or_null(&t->host[RUN_FC1_BIAS]);
        args.linear_fc2_weight = view_or_null(&t->host[RUN_FC2_WEIGHT]);
        args.linear_fc2_bias = view_or_null(&t->host[RUN_FC2_BIAS]);
        args.per_token_scale = view_or_null(&scale);
        args.stored_activation = &sampled.tensors[RESULT_ACTIVATION_OUTPUT].view;
        args.fc1_output = expected[RESULT_FC1_OUTPUT];
        args.activation_output = expected[RESULT_ACTIVATION_OUTPUT];
        args.output = expected[RESULT_OUTPUT];
        mmlp_status status = mmlp_bundle_reference_forward(bundle, &args);
        if (status != MMLP_OK)
            code = tool_fail_status(status);
    }
    for (int i = 0; code == 0 && i < RESULT_COUNT; ++i) {
        const run_tensor *tensor = &sampled.tensors[i];
        size_t count = (size_t)(tensor->shape[0] * tensor->shape[1]);
        run_tensor_to_double(actual, tensor, 0, count);
        errors[i] = compare_error(actual, expected[i], count);
        compare_row(table, run_result_names[i], "fp64", actual, expected[i], tensor->shape, 2,
                    t->mlp.params_dtype);
    }

    run_tensor_free_host(&hidden_states);
    run_tensor_free_host(&scale);
    run_results_free(&sampled);
    for (int i = 0; i < RESULT_COUNT; ++i)
        free(expected[i]);
    free(actual);
    return code;
}

/* ---- expected values of a file -------------------------------------------------------------- */

static int check_expected(compare_table *table, const run_tensor *result,
                          const safetensor *expected, const char *dtype, const char *path)
{
    size_t count = 1;
    for (int i = 0; i < result->view.ndim; ++i)
        count *= (size_t)result->shape[i];
    if (strcmp(safetensors_dtype(&expected->view), "F32") != 0 ||
        expected->bytes != count * sizeof(float))
        return tool_fail(EXIT_INPUT, "%s: expected tensor '%s' is not F32 of the result's shape",
                         path, expected->name);
    double *numbers = malloc((2 * count + 1) * sizeof *numbers);
    if (!numbers)
        return tool_fail(EXIT_DEVICE, "out of memory: the expected values");
    for (size_t i = 0; i < count; ++i) {
        float value;
        memcpy(&value, (const char *)expected->view.data + i * sizeof value, sizeof value);
        numbers[i] = (double)value;
    }
    run_tensor_to_double(numbers + count, result, 0, count);
    compare_row(table, expected->name, "file", numbers + count, numbers, result->shape,
                result->view.ndim, dtype);
    free(numbers);
    return 0;
}

int run_check_file(compare_table *table, const run_tensors *t, const run_results *results,
                   const safetensors *file, const char *path)
{
    const run_tensor *found[RESULT_COUNT + 1] = {0};
    const char *names[RESULT_COUNT + 1];
    for (int i = 0; i < RESULT_COUNT; ++i) {
        names[i] = run_result_names[i];
        found[i] = &results->tensors[i];
    }
    /* The fc2 bias that is handed back to the caller. */
    names[RESULT_COUNT] = "output_bias";
    if (t->mlp.fc2_bias == MMLP_FC2_BIAS_RETURNED)
        found[RESULT_COUNT] = &t->host[RUN_FC2_BIAS];

    for (int i = 0; i < RESULT_COUNT + 1; ++i) {
        const safetensor *expected = safetensors_find(file, names[i]);
        if (!expected)
            continue;
        if (!found[i])
            return tool_fail(EXIT_INPUT, "%s: expects '%s', which %s does not give", path, names[i],
                             t->mlp.name);
        int code = check_expected(table, found[i], expected, t->mlp.params_dtype, path);
        if (code != 0)
            return code;
    }
    return 0;
}
