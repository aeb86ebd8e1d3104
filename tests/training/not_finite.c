/*
 * not_finite.c: NaN and infinities in one element of one input, and numbers that overflow their
 * storage: what depends on them says so, as the fp64 reference does, and nothing else changes.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loaded_mlp.h"
#include "training_step.h"

#define REQUIRE(call) cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())

enum { TOKENS = 130, HIDDEN = 40, FFN = 136 }; /* fc1 has more than a tile each way */

#define EXPERT "is_expert = true, per_token_scale = true"

static const struct {
    const char *name, *fields, *params;
} specs[] = {
    {"silu",
     "activation_func = F.silu, gated_linear_unit = true, add_bias_linear = true, "
     "num_moe_experts = 2",
     EXPERT},
    {"relu", "activation_func = F.relu, gated_linear_unit = false, add_bias_linear = true", ""},
    {"gelu", "activation_func = F.gelu, gated_linear_unit = true, add_bias_linear = false", ""},
    {"clamped GLU",
     "activation_func = quick_gelu, gated_linear_unit = true, add_bias_linear = true, "
     "activation_func_clamp_value = 1.0, glu_linear_offset = 1.0, num_moe_experts = 2",
     EXPERT},
};
enum { SPECS = sizeof specs / sizeof *specs };

/* What is compared: the outputs of a step, and fc1_output. */
enum { FIRST_RESULT = STEP_OUTPUT, FC1_OUTPUT = STEP_TENSORS, RESULTS };
typedef struct results {
    double *found[RESULTS], *expected[RESULTS]; /* of the device; in fp64 */
} results;

typedef struct scene {
    mmlp_context *context;
    loaded_mlp loaded;
    training_step step;
    const char *spec, *dtype;
    results clean, now; /* without the planted element, with it */
} scene;

static size_t count_of(const training_step *step, int result)
{
    return result == FC1_OUTPUT ? (size_t)(TOKENS * step->properties.fc1_output_size)
                                : step_count(step, (step_tensor)result);
}

static const char *name_of(int result)
{
    return result == FC1_OUTPUT ? "fc1_output" : step_tensor_name((step_tensor)result);
}

static void allocate(const training_step *step, results *r)
{
    for (int i = FIRST_RESULT; i < RESULTS; i++) {
        size_t bytes = (count_of(step, i) + 1) * sizeof(double);
        cr_assert((r->found[i] = malloc(bytes)) && (r->expected[i] = malloc(bytes)));
    }
}

static void free_results(results *r)
{
    for (int i = FIRST_RESULT; i < RESULTS; i++) {
        free(r->found[i]);
        free(r->expected[i]);
    }
}

static void open_scene(scene *s, const char *name, const char *dtype, const char *spec_fields,
                       const char *params)
{
    char fields[512];
    *s = (scene){.spec = name, .dtype = dtype, .context = loaded_device()};
    snprintf(fields, sizeof fields, "%s, params_dtype = '%s'", spec_fields, dtype);
    char *content = loaded_spec(HIDDEN, FFN, fields, params);
    loaded_open(&s->loaded, s->context, content, TOKENS, 0, "128x128");
    free(content);
    step_options options = {.tokens = TOKENS, .seed = 3};
    step_start(&s->step, s->context, s->loaded.bundle, s->loaded.mlp, &options);
    allocate(&s->step, &s->clean);
    allocate(&s->step, &s->now);
}

static void close_scene(scene *s)
{
    free_results(&s->clean);
    free_results(&s->now);
    step_finish(&s->step);
    loaded_close(&s->loaded);
    mmlp_context_destroy(s->context);
}

/* ---- device and reference: forward all from the inputs, backward from the stored fc1_output ----
 */

static double *wanted(const scene *s, const results *r, int which)
{
    return count_of(&s->step, which) ? r->expected[which] : NULL;
}

static void run_reference(const scene *s, results *r, const mmlp_tensor *fc1_output)
{
    mmlp_reference_forward_args forward = MMLP_REFERENCE_FORWARD_ARGS_INIT;
    mmlp_reference_backward_args backward = MMLP_REFERENCE_BACKWARD_ARGS_INIT;
    step_reference_inputs(&s->step, &forward, &backward);
    backward.stored_fc1_output = fc1_output;
    forward.fc1_output = wanted(s, r, FC1_OUTPUT);
    forward.output = wanted(s, r, STEP_OUTPUT);
    backward.grad_hidden_states = wanted(s, r, STEP_GRAD_HIDDEN_STATES);
    backward.grad_per_token_scale = wanted(s, r, STEP_GRAD_SCALE);
    backward.grad_linear_fc1_weight = wanted(s, r, STEP_GRAD_FC1_WEIGHT);
    backward.grad_linear_fc1_bias = wanted(s, r, STEP_GRAD_FC1_BIAS);
    backward.grad_linear_fc2_weight = wanted(s, r, STEP_GRAD_FC2_WEIGHT);
    backward.grad_linear_fc2_bias = wanted(s, r, STEP_GRAD_FC2_BIAS);
    REQUIRE(mmlp_bundle_reference_forward(s->loaded.bundle, &forward));
    REQUIRE(mmlp_bundle_reference_backward(s->loaded.bundle, &backward));
}

static void run(scene *s, results *r)
{
    mmlp_buffer_view view = MMLP_BUFFER_VIEW_INIT;
    mmlp_tensor fc1_output = s->step.tensors[STEP_HIDDEN_STATES].host;
    REQUIRE(step_run(&s->step, s->loaded.mlp));
    step_download(&s->step);
    REQUIRE(mmlp_mlp_buffer(s->loaded.mlp, "fc1_output", TOKENS, &view));
    cr_assert_not_null(fc1_output.data = malloc(view.bytes));
    fc1_output.shape = view.shape;
    REQUIRE(mmlp_buffer_download(s->context, fc1_output.data, (char *)s->step.saved + view.offset,
                                 view.bytes, NULL));
    for (int i = FIRST_RESULT; i < RESULTS; i++) {
        const mmlp_tensor *host = i == FC1_OUTPUT ? &fc1_output : &s->step.tensors[i].host;
        for (size_t k = 0; k < count_of(&s->step, i); k++)
            r->found[i][k] = step_element(host, k);
    }
    run_reference(s, r, &fc1_output);
    free(fc1_output.data);
}

/* ---- one planted element --------------------------------------------------------------------- */

/* Whether what the device has is right; `clean`: both without the planted element. */
typedef bool judge(double found, double expected, double clean_found, double clean_expected);

/* What does not depend on the element keeps its bits. (A clamp's derivative at NaN is 0, as in
 * PyTorch, so that gradients can depend on the element and be finite.) */
static bool same_nan(double found, double expected, double clean_found, double clean_expected)
{
    if (expected == clean_expected)
        return found == clean_found;
    return isnan(expected) ? isnan(found) : isfinite(found);
}

/* An infinity may become NaN on its way, as infinity minus infinity does, and where fp64 has a NaN
 * (infinity times zero) there may be the limit. Of what stays finite the changes are compared,
 * which are rounded less than large values. */
static bool limit_or_nan(double found, double expected, double clean_found, double clean_expected)
{
    if (expected == clean_expected)
        return found == clean_found;
    if (isnan(found) || isnan(expected))
        return true;
    if (isinf(expected))
        return found == expected;
    double change = found - clean_found, wanted_change = expected - clean_expected;
    return fabs(change - wanted_change) <= 0.05 * (1 + fabs(expected) + fabs(clean_expected));
}

/* Plants the value, runs and compares; puts back what was there. Reports the first element of each
 * output that is wrong. */
static void plant(scene *s, step_tensor which, size_t at, double value, judge *is_right)
{
    const mmlp_tensor *host = &s->step.tensors[which].host;
    double before = step_element(host, at);
    step_set_element(host, at, value);
    step_upload(&s->step, which);
    run(s, &s->now);
    for (int i = FIRST_RESULT; i < RESULTS; i++) {
        const double *found = s->now.found[i], *expected = s->now.expected[i];
        size_t count = count_of(&s->step, i), wrong = 0, first = 0;
        for (size_t k = 0; k < count; k++) {
            if (!is_right(found[k], expected[k], s->clean.found[i][k], s->clean.expected[i][k]) &&
                wrong++ == 0)
                first = k;
        }
        cr_expect(wrong == 0, "%s, %s: %g in %s[%zu]: %zu of %zu of %s, [%zu] is %g, not %g",
                  s->spec, s->dtype, value, step_tensor_name(which), at, wrong, count, name_of(i),
                  first, found[first], expected[first]);
    }
    step_set_element(host, at, before);
    step_upload(&s->step, which);
}

/* Each value in turn in every input of every spec, at other places. */
static void plant_all(const double *values, size_t count, judge *is_right)
{
    static const char *const dtypes[] = {"bf16", "fp32"};
    for (size_t i = 0; i < 2 * SPECS; i++) {
        scene s;
        open_scene(&s, specs[i / 2].name, dtypes[i % 2], specs[i / 2].fields, specs[i / 2].params);
        run(&s, &s.clean);
        for (step_tensor which = 0; which < STEP_OUTPUT; which++) {
            size_t elements = step_count(&s.step, which);
            for (size_t k = 0; elements > 0 && k < count; k++)
                plant(&s, which, (elements - 1) * k / (count - 1), values[k], is_right);
        }
        close_scene(&s);
    }
}

Test(not_finite, a_nan_reaches_what_depends_on_it_and_nothing_else)
{
    static const double values[] = {(double)NAN, (double)NAN, -(double)NAN};
    plant_all(values, sizeof values / sizeof *values, same_nan);
}

Test(not_finite, an_infinity_gives_the_limit_or_nan)
{
    static const double values[] = {(double)INFINITY, -(double)INFINITY};
    plant_all(values, sizeof values / sizeof *values, limit_or_nan);
}

/* ---- numbers that are too large -------------------------------------------------------------- */

static const double limit = 65520; /* from here on fp16 rounds to infinity */

static void set_all(scene *s, step_tensor which, double value)
{
    for (size_t i = 0; i < step_count(&s->step, which); i++)
        step_set_element(&s->step.tensors[which].host, i, value);
    step_upload(&s->step, which);
}

/* fc1's accumulators are 512 * 8 * HIDDEN, more than fp16 holds; nothing cancels. */
static void overflow(scene *s, double sign)
{
    set_all(s, STEP_HIDDEN_STATES, 512);
    set_all(s, STEP_FC1_WEIGHT, 8);
    set_all(s, STEP_FC2_WEIGHT, sign);
    set_all(s, STEP_GRAD_OUTPUT, 0.25);
    run(s, &s->now);
}

static void expect_overflow(const scene *s, int which)
{
    for (size_t i = 0; i < count_of(&s->step, which); i++) {
        double found = s->now.found[which][i], expected = s->now.expected[which][i];
        bool right = fabs(expected) >= limit ? found == copysign((double)INFINITY, expected)
                                             : fabs(found - expected) <= 1e-3 * fabs(expected);
        cr_assert(right, "%s: %s[%zu] is %g, not %g", s->spec, name_of(which), i, found, expected);
    }
}

Test(not_finite, what_overflows_fp16_is_infinite)
{
    scene s;
    open_scene(&s, "relu", "fp16",
               "activation_func = F.relu, gated_linear_unit = false, add_bias_linear = false", "");
    for (int sign = -1; sign < 2; sign += 2) {
        overflow(&s, sign);
        cr_expect_gt(fabs(s.now.expected[STEP_OUTPUT][0]), limit);
        cr_expect_lt(fabs(s.now.expected[STEP_GRAD_HIDDEN_STATES][0]), limit);
        cr_expect_gt(fabs(s.now.expected[STEP_GRAD_FC1_WEIGHT][0]), limit);
        for (int i = FIRST_RESULT; i < RESULTS; i++)
            expect_overflow(&s, i);
    }
    close_scene(&s);
}

Test(not_finite, a_gated_activation_that_overflows_is_infinite)
{
    /* Its derivative multiplies infinity with zero: gradients are what they are. */
    scene s;
    open_scene(&s, "swiglu", "fp16",
               "activation_func = F.silu, gated_linear_unit = true, add_bias_linear = false", "");
    overflow(&s, 1);
    expect_overflow(&s, STEP_OUTPUT);
    close_scene(&s);
}
