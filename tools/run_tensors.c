/* run_tensors.c: makes, moves and converts the tensors of a forward pass. */
#include "run_tensors.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

static const char *const input_names[] = {
#define RUN_INPUT_NAME(slot, name) name,
    RUN_INPUTS(RUN_INPUT_NAME)
#undef RUN_INPUT_NAME
};

const char *run_input_name(run_input input)
{
    return input_names[input];
}

int run_input_used(const mmlp_bundle_properties *mlp, run_input input)
{
    switch (input) {
    case RUN_FC1_BIAS:
    case RUN_FC2_BIAS:
        return mlp->add_bias_linear;
    case RUN_PER_TOKEN_SCALE:
        return mlp->per_token_scale;
    default:
        return 1;
    }
}

/* ---- shapes and types ----------------------------------------------------------------------- */

static void set_type(mmlp_tensor *view, const char *dtype)
{
    view->dtype.lanes = 1;
    view->dtype.code = strcmp(dtype, "bf16") == 0 ? MMLP_TYPE_BFLOAT : MMLP_TYPE_FLOAT;
    view->dtype.bits = strcmp(dtype, "fp32") == 0 ? 32 : 16;
}

/* Gives `tensor` the shape and type that the MLP wants for `input`; no memory yet. */
static void describe(run_tensor *tensor, const run_tensors *t, run_input input)
{
    const mmlp_bundle_properties *mlp = &t->mlp;
    memset(tensor, 0, sizeof *tensor);
    int64_t *shape = tensor->shape;
    tensor->view.ndim = 1;
    switch (input) {
    case RUN_HIDDEN_STATES:
        tensor->view.ndim = 2, shape[0] = t->tokens, shape[1] = mlp->hidden_size;
        break;
    case RUN_FC1_WEIGHT:
        tensor->view.ndim = 2, shape[0] = mlp->fc1_output_size, shape[1] = mlp->hidden_size;
        break;
    case RUN_FC1_BIAS:
        shape[0] = mlp->fc1_output_size;
        break;
    case RUN_FC2_WEIGHT:
        tensor->view.ndim = 2, shape[0] = mlp->hidden_size, shape[1] = mlp->ffn_hidden_size;
        break;
    case RUN_FC2_BIAS:
        shape[0] = mlp->hidden_size;
        break;
    case RUN_PER_TOKEN_SCALE:
    case RUN_INPUT_COUNT:
        shape[0] = t->tokens;
        break;
    }
    set_type(&tensor->view, input == RUN_PER_TOKEN_SCALE ? "fp32" : mlp->params_dtype);
    tensor->view.shape = tensor->shape;
    tensor->bytes = tensor->view.dtype.bits / 8u;
    for (int i = 0; i < tensor->view.ndim; ++i)
        tensor->bytes *= (size_t)shape[i];
}

static int alloc_host(run_tensor *tensor)
{
    tensor->view.device.device_type = MMLP_DEVICE_CPU;
    tensor->view.shape = tensor->shape;
    tensor->view.data = malloc(tensor->bytes ? tensor->bytes : 1);
    return tensor->view.data
               ? 0
               : tool_fail(EXIT_DEVICE, "out of memory: %zu bytes on the host", tensor->bytes);
}

static int alloc_device(run_tensor *tensor, mmlp_context *context)
{
    tensor->view.device.device_type = MMLP_DEVICE_CUDA;
    tensor->view.shape = tensor->shape;
    mmlp_status status = mmlp_buffer_alloc(&tensor->view.data, context, tensor->bytes);
    return status == MMLP_OK ? 0 : tool_fail_status(status);
}

static int upload(run_tensors *t, run_input input)
{
    run_tensor *device = &t->device[input];
    describe(device, t, input);
    int code = alloc_device(device, t->context);
    if (code != 0)
        return code;
    mmlp_status status = mmlp_buffer_upload(t->context, device->view.data, t->host[input].view.data,
                                            device->bytes, NULL);
    return status == MMLP_OK ? 0 : tool_fail_status(status);
}

/* ---- numbers -------------------------------------------------------------------------------- */

static float bf16_to_float(uint16_t bits)
{
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, sizeof value);
    return value;
}

static double fp16_to_double(uint16_t bits)
{
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double value = exponent == 31  ? (mantissa ? (double)NAN : (double)INFINITY)
                   : exponent == 0 ? ldexp(mantissa, -24)
                                   : ldexp(1024 + mantissa, exponent - 25);
    return bits & 0x8000 ? -value : value;
}

/* Round to nearest, ties to even; overflow gives infinity. */
static uint16_t float_to_fp16(float value)
{
    uint16_t sign = signbit(value) ? 0x8000 : 0;
    double magnitude = fabs((double)value);
    if (isnan(value))
        return 0x7fff;
    if (magnitude >= 65520.0)
        return sign | 0x7c00;
    int exponent;
    frexp(magnitude, &exponent);
    int unit = exponent - 11 < -24 ? -24 : exponent - 11; /* of the last place */
    double places = nearbyint(ldexp(magnitude, -unit));
    /* 2048 places carry into the next exponent by themselves. */
    return (uint16_t)(sign | ((unsigned)(unit + 24) * 1024u + (unsigned)places));
}

void run_tensor_to_double(double *out, const run_tensor *tensor, size_t first, size_t count)
{
    const uint16_t *halves = tensor->view.data;
    const float *floats = tensor->view.data;
    for (size_t i = 0; i < count; ++i) {
        if (tensor->view.dtype.bits == 32)
            out[i] = (double)floats[first + i];
        else if (tensor->view.dtype.code == MMLP_TYPE_BFLOAT)
            out[i] = (double)bf16_to_float(halves[first + i]);
        else
            out[i] = fp16_to_double(halves[first + i]);
    }
}

/* ---- inputs --------------------------------------------------------------------------------- */

static int same_shape(const mmlp_tensor *a, const mmlp_tensor *b)
{
    if (a->ndim != b->ndim)
        return 0;
    for (int i = 0; i < a->ndim; ++i)
        if (a->shape[i] != b->shape[i])
            return 0;
    return 1;
}

static void print_shape(char text[64], const mmlp_tensor *view)
{
    size_t length = (size_t)snprintf(text, 64, "[");
    for (int i = 0; i < view->ndim && length < 48; ++i)
        length += (size_t)snprintf(text + length, 64 - length, "%s%" PRId64, i ? ", " : "",
                                   view->shape[i]);
    snprintf(text + length, 64 - length, "]");
}

/* Copies a file's tensor to the host tensor, from BF16 to params_dtype where they differ. */
static int convert(run_tensor *to, const safetensor *from, const char *path)
{
    const mmlp_tensor *view = &from->view;
    if (view->dtype.code == to->view.dtype.code && view->dtype.bits == to->view.dtype.bits) {
        if (to->bytes > 0)
            memcpy(to->view.data, view->data, to->bytes);
        return 0;
    }
    const char *wanted = safetensors_dtype(&to->view);
    if (view->dtype.code != MMLP_TYPE_BFLOAT)
        return tool_fail(EXIT_INPUT,
                         "%s: tensor '%s' is %s, the MLP takes %s (or BF16, which is converted)",
                         path, from->name, safetensors_dtype(view), wanted);
    fprintf(stderr, "%s: notice: '%s' is converted from BF16 to %s\n", path, from->name, wanted);
    const unsigned char *bytes = view->data;
    for (size_t i = 0; i < from->bytes / 2; ++i) {
        float value = bf16_to_float((uint16_t)(bytes[2 * i] | bytes[2 * i + 1] << 8));
        if (to->view.dtype.bits == 32)
            ((float *)to->view.data)[i] = value;
        else
            ((uint16_t *)to->view.data)[i] = float_to_fp16(value);
    }
    return 0;
}

static int input_from_file(run_tensors *t, run_input input, const safetensors *file,
                           const char *path)
{
    const char *name = run_input_name(input);
    const safetensor *found = safetensors_find(file, name);
    if (!run_input_used(&t->mlp, input)) {
        if (found)
            return tool_fail(EXIT_INPUT, "%s: has a tensor '%s', but %s has none (%s)", path, name,
                             t->mlp.name,
                             input == RUN_PER_TOKEN_SCALE ? "per_token_scale = false"
                                                          : "add_bias_linear = false");
        return 0;
    }
    if (!found)
        return tool_fail(EXIT_INPUT, "%s: tensor '%s' is missing", path, name);

    run_tensor *host = &t->host[input];
    describe(host, t, input);
    if (!same_shape(&host->view, &found->view)) {
        char wanted_shape[64], found_shape[64];
        print_shape(wanted_shape, &host->view);
        print_shape(found_shape, &found->view);
        return tool_fail(EXIT_INPUT, "%s: tensor '%s' has shape %s, %s takes %s", path, name,
                         found_shape, t->mlp.name, wanted_shape);
    }
    int code = alloc_host(host);
    if (code == 0)
        code = convert(host, found, path);
    if (code == 0)
        code = upload(t, input);
    return code;
}

int run_tensors_from_file(run_tensors *t, const safetensors *file, const char *path)
{
    const safetensor *hidden_states = safetensors_find(file, "hidden_states");
    if (hidden_states && hidden_states->view.ndim > 0)
        t->tokens = hidden_states->shape[0];
    for (run_input input = 0; input < RUN_INPUT_COUNT; ++input) {
        int code = input_from_file(t, input, file, path);
        if (code != 0)
            return code;
    }
    return 0;
}

int run_tensors_random(run_tensors *t, mmlp_mlp *handle, uint64_t seed)
{
    for (run_input input = 0; input < RUN_INPUT_COUNT; ++input) {
        if (!run_input_used(&t->mlp, input))
            continue;
        run_tensor *device = &t->device[input];
        describe(device, t, input);
        int code = alloc_device(device, t->context);
        if (code != 0)
            return code;
        /* Weights that keep the size of what they multiply. */
        double std = input == RUN_FC1_WEIGHT || input == RUN_FC2_WEIGHT
                         ? 1 / sqrt((double)device->shape[1])
                         : 1;
        mmlp_status status =
            mmlp_mlp_fill_normal(handle, &device->view, std, seed * RUN_INPUT_COUNT + input, NULL);
        if (status != MMLP_OK)
            return tool_fail_status(status);
    }
    return 0;
}

int run_tensors_download_inputs(run_tensors *t)
{
    for (run_input input = 0; input < RUN_INPUT_COUNT; ++input) {
        if (!run_input_used(&t->mlp, input) || t->host[input].view.data)
            continue;
        run_tensor *host = &t->host[input];
        describe(host, t, input);
        int code = alloc_host(host);
        if (code != 0)
            return code;
        mmlp_status status = mmlp_buffer_download(t->context, host->view.data,
                                                  t->device[input].view.data, host->bytes, NULL);
        if (status != MMLP_OK)
            return tool_fail_status(status);
    }
    return 0;
}

/* ---- results -------------------------------------------------------------------------------- */

int run_tensors_allocate_results(run_tensors *t, mmlp_mlp *handle)
{
    mmlp_memory memory = MMLP_MEMORY_INIT;
    mmlp_status status = mmlp_mlp_forward_memory(handle, t->tokens, &memory);
    if (status == MMLP_OK)
        status = mmlp_buffer_alloc(&t->saved, t->context, memory.saved_bytes);
    if (status == MMLP_OK)
        status = mmlp_buffer_alloc(&t->scratch, t->context, memory.scratch_bytes);
    if (status != MMLP_OK)
        return tool_fail_status(status);
    describe(&t->output, t, RUN_HIDDEN_STATES);
    return alloc_device(&t->output, t->context);
}

mmlp_forward_args run_tensors_forward_args(const run_tensors *t)
{
    const mmlp_tensor *inputs[RUN_INPUT_COUNT];
    for (run_input input = 0; input < RUN_INPUT_COUNT; ++input)
        inputs[input] = run_input_used(&t->mlp, input) ? &t->device[input].view : NULL;
    if (t->mlp.fc2_bias == MMLP_FC2_BIAS_RETURNED)
        inputs[RUN_FC2_BIAS] = NULL;

    mmlp_forward_args args = MMLP_FORWARD_ARGS_INIT;
    args.hidden_states = inputs[RUN_HIDDEN_STATES];
    args.linear_fc1_weight = inputs[RUN_FC1_WEIGHT];
    args.linear_fc1_bias = inputs[RUN_FC1_BIAS];
    args.linear_fc2_weight = inputs[RUN_FC2_WEIGHT];
    args.linear_fc2_bias = inputs[RUN_FC2_BIAS];
    args.per_token_scale = inputs[RUN_PER_TOKEN_SCALE];
    args.output = &t->output.view;
    args.saved = t->saved;
    args.scratch = t->scratch;
    return args;
}

int run_tensors_result(run_tensor *out, const run_tensors *t, mmlp_mlp *handle, const char *name)
{
    memset(out, 0, sizeof *out);
    const char *source;
    mmlp_status status = MMLP_OK;
    if (strcmp(name, "output") == 0) {
        describe(out, t, RUN_HIDDEN_STATES);
        source = t->output.view.data;
    } else {
        mmlp_buffer_view view = MMLP_BUFFER_VIEW_INIT;
        status = mmlp_mlp_buffer(handle, name, t->tokens, &view);
        if (status != MMLP_OK)
            return tool_fail_status(status);
        out->view.ndim = 2;
        out->shape[0] = view.shape[0];
        out->shape[1] = view.shape[1];
        set_type(&out->view, view.dtype);
        out->bytes = view.bytes;
        source = view.lifetime == MMLP_LIFETIME_SAVED ? t->saved : t->scratch;
        if (source)
            source += view.offset;
    }
    int code = alloc_host(out);
    if (code != 0)
        return code;
    status = mmlp_buffer_download(t->context, out->view.data, source, out->bytes, NULL);
    return status == MMLP_OK ? 0 : tool_fail_status(status);
}

void run_tensor_free_host(run_tensor *tensor)
{
    free(tensor->view.data);
    memset(tensor, 0, sizeof *tensor);
}

void run_tensors_free(run_tensors *t)
{
    for (run_input input = 0; input < RUN_INPUT_COUNT; ++input) {
        free(t->host[input].view.data);
        mmlp_buffer_free(t->context, t->device[input].view.data);
    }
    mmlp_buffer_free(t->context, t->output.view.data);
    mmlp_buffer_free(t->context, t->saved);
    mmlp_buffer_free(t->context, t->scratch);
}
