/* training_step.c: one training step on random numbers, checked stage by stage. */
#include "training_step.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"

#define REQUIRE(call) cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())

/* ---- numbers --------------------------------------------------------------------------------- */

static uint64_t next_word(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* About N(0, 1), a multiple of 2^-6 below 8: exact in every storage type. */
static double next_value(uint64_t *state)
{
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += (double)(next_word(state) >> 11) * 0x1p-53;
    double magnitude = fabs(sum), unit = magnitude < 1 ? 0x1p-7 : magnitude < 2 ? 0x1p-6 : 0x1p-5;
    return nearbyint(sum / unit) * unit;
}

double step_element(const mmlp_tensor *host, size_t i)
{
    const uint16_t *halves = host->data;
    if (host->dtype.bits == 32)
        return (double)((const float *)host->data)[i];
    if (host->dtype.code == MMLP_TYPE_BFLOAT) {
        uint32_t word = (uint32_t)halves[i] << 16;
        float value;
        memcpy(&value, &word, sizeof value);
        return (double)value;
    }
    int exponent = halves[i] >> 10 & 31, mantissa = halves[i] & 1023;
    double value = exponent == 31  ? (mantissa ? (double)NAN : (double)INFINITY)
                   : exponent == 0 ? ldexp(mantissa, -24)
                                   : ldexp(1024 + mantissa, exponent - 25);
    return halves[i] & 0x8000 ? -value : value;
}

void step_set_element(const mmlp_tensor *host, size_t i, double value)
{
    if (host->dtype.bits == 32) {
        ((float *)host->data)[i] = (float)value;
        return;
    }
    float single = (float)value;
    uint32_t word;
    memcpy(&word, &single, sizeof word);
    uint16_t bits = (uint16_t)(word >> 16);
    if (host->dtype.code != MMLP_TYPE_BFLOAT)
        bits = (uint16_t)((word >> 16 & 0x8000) |
                          (isnan(value)   ? 0x7e00
                           : isinf(value) ? 0x7c00
                           : value == 0   ? 0
                                          : (word & 0x7fffffff) / 8192 - (112 << 10)));
    ((uint16_t *)host->data)[i] = bits;
}

/* ---- tensors --------------------------------------------------------------------------------- */

/* The tensor's shape and type; the data only where the MLP has it. */
static void describe(training_step *s, step_tensor which)
{
    const mmlp_bundle_properties *p = &s->properties;
    const char *storage = p->params_dtype, *fp32 = "fp32";
    const char *wgrad = p->gradient_accumulation_fusion ? fp32 : storage;
    const char *bias = s->options.bias_gradients_fp32 ? fp32 : storage;
    int64_t t = s->options.tokens, h = p->hidden_size, f = p->ffn_hidden_size,
            c = p->fc1_output_size;
    int64_t local = p->sequence_parallel ? t / p->tensor_model_parallel_size : t;
    const struct {
        int present;
        int64_t rows, columns;
        const char *dtype;
    } rows[STEP_TENSORS] = {
        [STEP_HIDDEN_STATES] = {1, local, h, storage},
        [STEP_FC1_WEIGHT] = {1, c, h, storage},
        [STEP_FC1_BIAS] = {p->add_bias_linear, c, 0, storage},
        [STEP_FC2_WEIGHT] = {1, h, f, storage},
        [STEP_FC2_BIAS] = {p->add_bias_linear, h, 0, storage},
        [STEP_SCALE] = {p->per_token_scale, t, 0, fp32},
        [STEP_GRAD_OUTPUT] = {1, local, h, storage},
        [STEP_OUTPUT] = {1, local, h, storage},
        [STEP_GRAD_HIDDEN_STATES] = {1, local, h, storage},
        [STEP_GRAD_SCALE] = {p->per_token_scale, t, 0, fp32},
        [STEP_GRAD_FC1_WEIGHT] = {1, c, h, wgrad},
        [STEP_GRAD_FC1_BIAS] = {p->add_bias_linear, c, 0, bias},
        [STEP_GRAD_FC2_WEIGHT] = {1, h, f, wgrad},
        [STEP_GRAD_FC2_BIAS] = {p->add_bias_linear, h, 0, bias},
    };
    step_values *v = &s->tensors[which];
    if (!rows[which].present)
        return;
    v->shape[0] = rows[which].rows;
    v->shape[1] = rows[which].columns;
    mmlp_tensor view = {.ndim = rows[which].columns ? 2 : 1, .shape = v->shape};
    view.dtype.lanes = 1;
    view.dtype.code = strcmp(rows[which].dtype, "bf16") == 0 ? MMLP_TYPE_BFLOAT : MMLP_TYPE_FLOAT;
    view.dtype.bits = strcmp(rows[which].dtype, "fp32") == 0 ? 32 : 16;
    v->bytes = (size_t)(v->shape[0] * (v->shape[1] ? v->shape[1] : 1)) * view.dtype.bits / 8;
    v->host = v->device = view;
    v->host.device.device_type = MMLP_DEVICE_CPU;
    v->device.device.device_type = MMLP_DEVICE_CUDA;
    v->device.device.device_id = s->options.device;
    v->host.data = malloc(v->bytes + 1);
    cr_assert(v->host.data);
}

static size_t count_of(const step_values *v)
{
    return v->bytes / (v->host.dtype.bits / 8u);
}

/* Inputs keep the sizes of what they are multiplied with: weights have about 1 / sqrt(columns). */
static void fill(training_step *s, step_tensor which)
{
    step_values *v = &s->tensors[which];
    uint64_t state = s->options.seed * STEP_TENSORS + which;
    bool gradient = which >= STEP_GRAD_FC1_WEIGHT, weight = v->shape[1] &&
                                                            which != STEP_HIDDEN_STATES &&
                                                            which != STEP_GRAD_OUTPUT && !gradient;
    int exponent = 0;
    if (weight)
        frexp(sqrt((double)v->shape[1]), &exponent);
    if (which >= STEP_OUTPUT && !(gradient && s->options.beta == 1)) {
        memset(v->host.data, 0xff, v->bytes); /* NaN in every type */
        return;
    }
    for (size_t i = 0; i < count_of(v); i++)
        step_set_element(&v->host, i, ldexp(next_value(&state), -exponent));
    if (gradient) {
        free(v->before);
        v->before = malloc((count_of(v) + 1) * sizeof *v->before);
        cr_assert(v->before);
        for (size_t i = 0; i < count_of(v); i++)
            v->before[i] = step_element(&v->host, i);
    }
}

static const mmlp_tensor *device_or_null(const training_step *s, step_tensor which)
{
    return s->tensors[which].host.data ? &s->tensors[which].device : NULL;
}

static const mmlp_tensor *host_or_null(const training_step *s, step_tensor which)
{
    return s->tensors[which].host.data ? &s->tensors[which].host : NULL;
}

static void set_arguments(training_step *s)
{
    mmlp_fc2_bias bias = s->properties.fc2_bias;
    s->forward = (mmlp_forward_args)MMLP_FORWARD_ARGS_INIT;
    s->forward.hidden_states = device_or_null(s, STEP_HIDDEN_STATES);
    s->forward.linear_fc1_weight = device_or_null(s, STEP_FC1_WEIGHT);
    s->forward.linear_fc1_bias = device_or_null(s, STEP_FC1_BIAS);
    s->forward.linear_fc2_weight = device_or_null(s, STEP_FC2_WEIGHT);
    if (bias == MMLP_FC2_BIAS_FOLDED || bias == MMLP_FC2_BIAS_ADDED)
        s->forward.linear_fc2_bias = device_or_null(s, STEP_FC2_BIAS);
    s->forward.per_token_scale = device_or_null(s, STEP_SCALE);
    s->forward.output = device_or_null(s, STEP_OUTPUT);
    s->dgrad = (mmlp_dgrad_args)MMLP_DGRAD_ARGS_INIT;
    s->dgrad.grad_output = device_or_null(s, STEP_GRAD_OUTPUT);
    s->dgrad.hidden_states = s->forward.hidden_states;
    s->dgrad.linear_fc1_weight = s->forward.linear_fc1_weight;
    s->dgrad.linear_fc1_bias = s->forward.linear_fc1_bias;
    s->dgrad.linear_fc2_weight = s->forward.linear_fc2_weight;
    if (bias == MMLP_FC2_BIAS_FOLDED)
        s->dgrad.linear_fc2_bias = s->forward.linear_fc2_bias;
    s->dgrad.per_token_scale = s->forward.per_token_scale;
    s->dgrad.grad_hidden_states = device_or_null(s, STEP_GRAD_HIDDEN_STATES);
    s->dgrad.grad_per_token_scale = device_or_null(s, STEP_GRAD_SCALE);
    s->dgrad.grad_linear_fc1_weight = device_or_null(s, STEP_GRAD_FC1_WEIGHT);
    s->dgrad.grad_linear_fc1_bias = device_or_null(s, STEP_GRAD_FC1_BIAS);
    s->dgrad.grad_linear_fc2_weight = device_or_null(s, STEP_GRAD_FC2_WEIGHT);
    s->dgrad.grad_linear_fc2_bias = device_or_null(s, STEP_GRAD_FC2_BIAS);
    s->dgrad.beta = s->options.beta;
}

static void allocate_memory(training_step *s, const mmlp_mlp *mlp)
{
    mmlp_memory forward = MMLP_MEMORY_INIT, dgrad = MMLP_MEMORY_INIT;
    REQUIRE(mmlp_mlp_memory(mlp, MMLP_PASS_FORWARD, s->options.tokens, &forward));
    REQUIRE(mmlp_mlp_memory(mlp, MMLP_PASS_DGRAD, s->options.tokens, &dgrad));
    REQUIRE(mmlp_buffer_alloc(&s->saved, s->context, forward.saved_bytes));
    REQUIRE(mmlp_buffer_alloc(&s->pending, s->context, dgrad.pending_bytes));
    REQUIRE(mmlp_buffer_alloc(&s->forward_scratch, s->context, forward.scratch_bytes));
    REQUIRE(mmlp_buffer_alloc(&s->dgrad_scratch, s->context, dgrad.scratch_bytes));
    s->forward.saved = s->dgrad.saved = s->saved;
    s->forward.saved_bytes = s->dgrad.saved_bytes = forward.saved_bytes;
    s->forward.scratch = s->forward_scratch;
    s->forward.scratch_bytes = forward.scratch_bytes;
    s->dgrad.scratch = s->dgrad_scratch;
    s->dgrad.scratch_bytes = dgrad.scratch_bytes;
    s->dgrad.pending = s->pending;
    s->dgrad.pending_bytes = dgrad.pending_bytes;
}

void step_upload(training_step *s, step_tensor which)
{
    const step_values *v = &s->tensors[which];
    REQUIRE(mmlp_buffer_upload(s->context, v->device.data, v->host.data, v->bytes, NULL));
}

void step_refill(training_step *s, uint64_t seed)
{
    s->options.seed = seed;
    for (step_tensor i = 0; i < STEP_TENSORS; i++) {
        if (!s->tensors[i].host.data)
            continue;
        fill(s, i);
        step_upload(s, i);
    }
}

void step_start(training_step *s, mmlp_context *context, const mmlp_bundle *bundle,
                const mmlp_mlp *mlp, const step_options *options)
{
    *s = (training_step){.context = context, .bundle = bundle, .options = *options};
    s->properties = (mmlp_bundle_properties)MMLP_BUNDLE_PROPERTIES_INIT;
    REQUIRE(mmlp_bundle_get(bundle, &s->properties));
    for (step_tensor i = 0; i < STEP_TENSORS; i++) {
        describe(s, i);
        REQUIRE(mmlp_buffer_alloc(&s->tensors[i].device.data, context, s->tensors[i].bytes));
    }
    step_refill(s, options->seed);
    set_arguments(s);
    allocate_memory(s, mlp);
}

void step_finish(training_step *s)
{
    for (step_tensor i = 0; i < STEP_TENSORS; i++) {
        mmlp_buffer_free(s->context, s->tensors[i].device.data);
        free(s->tensors[i].host.data);
        free(s->tensors[i].before);
    }
    mmlp_buffer_free(s->context, s->saved);
    mmlp_buffer_free(s->context, s->pending);
    mmlp_buffer_free(s->context, s->forward_scratch);
    mmlp_buffer_free(s->context, s->dgrad_scratch);
}

mmlp_status step_enqueue(training_step *s, mmlp_mlp *mlp, void *stream)
{
    mmlp_status status = mmlp_mlp_forward(mlp, &s->forward, stream);
    if (status == MMLP_OK)
        status = mmlp_mlp_dgrad(mlp, &s->dgrad, stream);
    return status == MMLP_OK ? mmlp_mlp_backward_dw(mlp, stream) : status;
}

mmlp_status step_run(training_step *s, mmlp_mlp *mlp)
{
    mmlp_status status = step_enqueue(s, mlp, NULL);
    return status == MMLP_OK ? mmlp_stream_sync(s->context, NULL) : status;
}

void step_download(training_step *s)
{
    for (step_tensor i = STEP_OUTPUT; i < STEP_TENSORS; i++)
        if (s->tensors[i].host.data)
            REQUIRE(mmlp_buffer_download(s->context, s->tensors[i].host.data,
                                         s->tensors[i].device.data, s->tensors[i].bytes, NULL));
}

unsigned char *step_outputs(training_step *s, size_t *bytes)
{
    unsigned char *all = NULL;
    *bytes = 0;
    step_download(s);
    for (step_tensor i = STEP_OUTPUT; i < STEP_TENSORS; i++) {
        const step_values *v = &s->tensors[i];
        cr_assert((all = realloc(all, *bytes + v->bytes + 1)) != NULL);
        if (v->host.data)
            memcpy(all + *bytes, v->host.data, v->bytes);
        *bytes += v->bytes;
    }
    return all;
}

size_t step_count(const training_step *s, step_tensor which)
{
    return s->tensors[which].host.data ? count_of(&s->tensors[which]) : 0;
}

const char *step_tensor_name(step_tensor which)
{
    static const char *const names[STEP_TENSORS] = {"hidden_states",
                                                    "linear_fc1.weight",
                                                    "linear_fc1.bias",
                                                    "linear_fc2.weight",
                                                    "linear_fc2.bias",
                                                    "per_token_scale",
                                                    "grad_output",
                                                    "output",
                                                    "grad.hidden_states",
                                                    "grad.per_token_scale",
                                                    "grad.linear_fc1.weight",
                                                    "grad.linear_fc1.bias",
                                                    "grad.linear_fc2.weight",
                                                    "grad.linear_fc2.bias"};
    return names[which];
}

/* ---- checks ---------------------------------------------------------------------------------- */

typedef struct check {
    training_step *step;
    char **lines;
    int failed;
} check;

static void compare(check *c, const char *name, compare_kind kind, const mmlp_tensor *actual,
                    size_t count, const double *expected, const double *before, const double *terms)
{
    double *values = malloc((count + 1) * sizeof *values),
           *wanted = malloc((count + 1) * sizeof *wanted);
    cr_assert(values && wanted);
    bool zero = true;
    for (size_t i = 0; i < count; i++) {
        values[i] = step_element(actual, i);
        wanted[i] = expected[i] + (before ? before[i] : 0);
        zero = zero && wanted[i] == 0;
    }
    double error = compare_error(values, wanted, terms, count);
    double limit =
        zero && !terms ? 1e-6 : compare_limit(kind, c->step->properties.params_dtype, count);
    if (!(error <= limit)) {
        char *longer = NULL;
        cr_assert(asprintf(&longer, "%s%s: error %.2e, limit %.2e\n", *c->lines ? *c->lines : "",
                           name, error, limit) > 0);
        free(*c->lines);
        *c->lines = longer;
        c->failed++;
    }
    free(values);
    free(wanted);
}

static double *doubles(int64_t count)
{
    double *array = malloc(((size_t)count + 1) * sizeof *array);
    cr_assert(array);
    return array;
}

/* A buffer of the step ("fc1_output") on the host; data NULL when the MLP has none. scratch: of the
 * pass that writes it. */
static mmlp_tensor fetch(const training_step *s, const mmlp_mlp *mlp, const char *name,
                         void *scratch, int64_t shape[2])
{
    mmlp_buffer_view view = MMLP_BUFFER_VIEW_INIT;
    mmlp_tensor host = s->tensors[STEP_HIDDEN_STATES].host;
    host.data = NULL;
    if (mmlp_mlp_buffer(mlp, name, s->options.tokens, &view) != MMLP_OK)
        return host;
    char *memory = view.lifetime == MMLP_LIFETIME_SAVED     ? s->saved
                   : view.lifetime == MMLP_LIFETIME_PENDING ? s->pending
                                                            : scratch;
    memcpy(shape, view.shape, sizeof view.shape);
    host.shape = shape;
    host.data = malloc(view.bytes + 1);
    cr_assert(host.data);
    if (view.bytes > 0)
        REQUIRE(
            mmlp_buffer_download(s->context, host.data, memory + view.offset, view.bytes, NULL));
    return host;
}

void step_reference_inputs(const training_step *s, mmlp_reference_forward_args *forward,
                           mmlp_reference_backward_args *backward)
{
    forward->hidden_states = backward->hidden_states = host_or_null(s, STEP_HIDDEN_STATES);
    forward->linear_fc1_weight = backward->linear_fc1_weight = host_or_null(s, STEP_FC1_WEIGHT);
    forward->linear_fc1_bias = backward->linear_fc1_bias = host_or_null(s, STEP_FC1_BIAS);
    forward->linear_fc2_weight = backward->linear_fc2_weight = host_or_null(s, STEP_FC2_WEIGHT);
    forward->linear_fc2_bias = backward->linear_fc2_bias = host_or_null(s, STEP_FC2_BIAS);
    forward->per_token_scale = backward->per_token_scale = host_or_null(s, STEP_SCALE);
    backward->grad_output = host_or_null(s, STEP_GRAD_OUTPUT);
}

static void check_forward(check *c, mmlp_reference_forward_args args, const mmlp_tensor *fc1_output,
                          const mmlp_tensor *activation)
{
    training_step *s = c->step;
    int64_t t = s->options.tokens, f = s->properties.ffn_hidden_size, h = s->properties.hidden_size,
            w = s->properties.fc1_output_size;
    args.stored_activation = activation;
    args.fc1_output = doubles(t * w);
    args.activation_output = doubles(t * f);
    args.output = doubles(t * h);
    REQUIRE(mmlp_bundle_reference_forward(s->bundle, &args));
    compare(c, "fc1_output", COMPARE_GEMM, fc1_output, (size_t)(t * w), args.fc1_output, NULL,
            NULL);
    compare(c, "activation_output", COMPARE_FORWARD, activation, (size_t)(t * f),
            args.activation_output, NULL, NULL);
    compare(c, "output", COMPARE_FORWARD, &s->tensors[STEP_OUTPUT].host, (size_t)(t * h),
            args.output, NULL, NULL);
    free(args.fc1_output);
    free(args.activation_output);
    free(args.output);
}

static void compare_step(check *c, const char *name, step_tensor which, compare_kind kind,
                         const double *expected, const double *terms)
{
    step_values *v = &c->step->tensors[which];
    if (v->host.data)
        compare(c, name, kind, &v->host, count_of(v), expected, v->before, terms);
}

static void check_backward(check *c, mmlp_reference_backward_args args, const mmlp_mlp *mlp,
                           const mmlp_tensor *fc1_output, const mmlp_tensor *activation)
{
    training_step *s = c->step;
    const mmlp_bundle_properties *p = &s->properties;
    int64_t t = s->options.tokens, f = p->ffn_hidden_size, h = p->hidden_size,
            w = p->fc1_output_size, shape[2];
    args.stored_fc1_output = fc1_output;
    if (p->save_activation)
        args.stored_activation = activation;
    double *all[] = {args.activation_output = doubles(t * f),
                     args.grad_fc1_output = doubles(t * w),
                     args.grad_hidden_states = doubles(t * h),
                     args.grad_linear_fc1_weight = doubles(w * h),
                     args.grad_linear_fc2_weight = doubles(h * f),
                     p->per_token_scale ? args.grad_per_token_scale = doubles(t) : NULL,
                     p->per_token_scale ? args.scale_terms = doubles(t) : NULL,
                     p->add_bias_linear ? args.grad_linear_fc1_bias = doubles(w) : NULL,
                     p->add_bias_linear ? args.grad_linear_fc2_bias = doubles(h) : NULL};
    REQUIRE(mmlp_bundle_reference_backward(s->bundle, &args));
    mmlp_tensor recomputed = fetch(s, mlp, "recomputed_activation", s->dgrad_scratch, shape);
    if (recomputed.data)
        compare(c, "recomputed_activation", COMPARE_FORWARD, &recomputed, (size_t)(t * f),
                args.activation_output, NULL, NULL);
    free(recomputed.data);
    mmlp_tensor grad = fetch(s, mlp, "grad_fc1_output", s->dgrad_scratch, shape);
    compare(c, "grad_fc1_output", COMPARE_GRADIENT, &grad, (size_t)(t * w), args.grad_fc1_output,
            NULL, NULL);
    free(grad.data);
    compare_step(c, "grad.hidden_states", STEP_GRAD_HIDDEN_STATES, COMPARE_GRADIENT,
                 args.grad_hidden_states, NULL);
    compare_step(c, "grad.per_token_scale", STEP_GRAD_SCALE, COMPARE_SCALE_GRADIENT,
                 args.grad_per_token_scale, args.scale_terms);
    compare_step(c, "grad.linear_fc1.weight", STEP_GRAD_FC1_WEIGHT, COMPARE_GRADIENT,
                 args.grad_linear_fc1_weight, NULL);
    compare_step(c, "grad.linear_fc1.bias", STEP_GRAD_FC1_BIAS, COMPARE_GRADIENT,
                 args.grad_linear_fc1_bias, NULL);
    compare_step(c, "grad.linear_fc2.weight", STEP_GRAD_FC2_WEIGHT, COMPARE_GRADIENT,
                 args.grad_linear_fc2_weight, NULL);
    compare_step(c, "grad.linear_fc2.bias", STEP_GRAD_FC2_BIAS, COMPARE_GRADIENT,
                 args.grad_linear_fc2_bias, NULL);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

int step_check(training_step *s, const mmlp_mlp *mlp, char **lines)
{
    check c = {s, lines, 0};
    int64_t shape[2], activation_shape[2];
    mmlp_tensor fc1_output = fetch(s, mlp, "fc1_output", NULL, shape);
    mmlp_tensor activation =
        fetch(s, mlp, "activation_output", s->forward_scratch, activation_shape);
    mmlp_reference_forward_args forward = MMLP_REFERENCE_FORWARD_ARGS_INIT;
    mmlp_reference_backward_args backward = MMLP_REFERENCE_BACKWARD_ARGS_INIT;
    step_reference_inputs(s, &forward, &backward);
    check_forward(&c, forward, &fc1_output, &activation);
    check_backward(&c, backward, mlp, &fc1_output, &activation);
    free(fc1_output.data);
    free(activation.data);
    return c.failed;
}
