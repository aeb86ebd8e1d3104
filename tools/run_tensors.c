/* run_tensors.c: describes, makes, moves and converts the tensors of a training step. */
#include "run_tensors.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

static const struct {
    const char *name;
    run_role role;
    run_extent extents[2];
    run_type type;
} slots[] = {
#define RUN_SLOT_ROW(slot, name, role, rows, columns, type)                                        \
    {name, RUN_##role, {RUN_##rows, RUN_##columns}, RUN_##type},
    RUN_SLOTS(RUN_SLOT_ROW)
#undef RUN_SLOT_ROW
};

const char *run_slot_word(run_slot slot)
{
    return slots[slot].name;
}

run_role run_slot_role(run_slot slot)
{
    return slots[slot].role;
}

int run_slot_split(int *halves, const mmlp_bundle_properties *mlp, run_slot slot)
{
    *halves = 1;
    for (int axis = 0; axis < 2; ++axis) {
        run_extent extent = slots[slot].extents[axis];
        if (extent == RUN_FC1)
            *halves = mlp->gated_linear_unit ? 2 : 1;
        if (extent == RUN_FC1 || extent == RUN_FFN ||
            (extent == RUN_LOCAL && mlp->sequence_parallel))
            return axis;
    }
    return -1;
}

int run_slot_is_partial(const mmlp_bundle_properties *mlp, run_slot slot)
{
    return (slot == RUN_GRAD_FC2_BIAS && mlp->sequence_parallel) ||
           (slot == RUN_GRAD_PER_TOKEN_SCALE && mlp->tensor_model_parallel_size > 1);
}

/* ---- shapes and types ----------------------------------------------------------------------- */

static void set_type(run_tensor *tensor, const char *dtype)
{
    tensor->view.dtype.lanes = 1;
    tensor->view.dtype.code = strcmp(dtype, "bf16") == 0 ? MMLP_TYPE_BFLOAT : MMLP_TYPE_FLOAT;
    tensor->view.dtype.bits = strcmp(dtype, "fp32") == 0 ? 32 : 16;
    tensor->view.shape = tensor->shape;
    tensor->bytes = run_tensor_elements(tensor) * tensor->view.dtype.bits / 8u;
}

static int64_t size_of(run_extent extent, const mmlp_bundle_properties *mlp, int64_t tokens)
{
    switch (extent) {
    case RUN_TOKENS:
        return tokens;
    case RUN_LOCAL:
        return mlp->sequence_parallel ? tokens / mlp->tensor_model_parallel_size : tokens;
    case RUN_HIDDEN:
        return mlp->hidden_size;
    case RUN_FFN:
        return mlp->ffn_hidden_size;
    case RUN_FC1:
        return mlp->fc1_output_size;
    case RUN_NONE:
        break;
    }
    return 0;
}

void run_tensor_describe(run_tensor *tensor, const mmlp_bundle_properties *mlp, run_slot slot,
                         int64_t tokens)
{
    memset(tensor, 0, sizeof *tensor);
    tensor->view.ndim = slots[slot].extents[1] == RUN_NONE ? 1 : 2;
    for (int i = 0; i < tensor->view.ndim; ++i)
        tensor->shape[i] = size_of(slots[slot].extents[i], mlp, tokens);
    int fp32 = slots[slot].type == RUN_FP32 ||
               (slots[slot].type == RUN_WEIGHT_GRADIENT && mlp->gradient_accumulation_fusion);
    set_type(tensor, fp32 ? "fp32" : mlp->params_dtype);
}

void run_tensor_describe_matrix(run_tensor *tensor, const int64_t shape[2], const char *dtype)
{
    memset(tensor, 0, sizeof *tensor);
    tensor->view.ndim = 2;
    memcpy(tensor->shape, shape, sizeof tensor->shape);
    set_type(tensor, dtype);
}

size_t run_tensor_elements(const run_tensor *tensor)
{
    size_t count = 1;
    for (int i = 0; i < tensor->view.ndim; ++i)
        count *= (size_t)tensor->shape[i];
    return count;
}

/* ---- memory --------------------------------------------------------------------------------- */

int run_tensor_alloc_host(run_tensor *tensor)
{
    tensor->view.device.device_type = MMLP_DEVICE_CPU;
    tensor->view.shape = tensor->shape;
    tensor->view.data = malloc(tensor->bytes ? tensor->bytes : 1);
    return tensor->view.data
               ? 0
               : tool_fail(EXIT_DEVICE, "out of memory: %zu bytes on the host", tensor->bytes);
}

int run_tensor_alloc_device(run_tensor *tensor, mmlp_context *context)
{
    tensor->view.device.device_type = MMLP_DEVICE_CUDA;
    tensor->view.shape = tensor->shape;
    mmlp_status status = mmlp_buffer_alloc(&tensor->view.data, context, tensor->bytes);
    return status == MMLP_OK ? 0 : tool_fail_status(status);
}

int run_tensor_upload(run_tensor *device, const run_tensor *host, mmlp_context *context)
{
    *device = *host;
    device->view.data = NULL;
    int code = run_tensor_alloc_device(device, context);
    if (code != 0)
        return code;
    mmlp_status status =
        mmlp_buffer_upload(context, device->view.data, host->view.data, device->bytes, NULL);
    return status == MMLP_OK ? 0 : tool_fail_status(status);
}

int run_tensor_download(run_tensor *host, const run_tensor *device, mmlp_context *context)
{
    *host = *device;
    int code = run_tensor_alloc_host(host);
    if (code != 0)
        return code;
    mmlp_status status =
        mmlp_buffer_download(context, host->view.data, device->view.data, host->bytes, NULL);
    return status == MMLP_OK ? 0 : tool_fail_status(status);
}

void run_tensor_free_host(run_tensor *tensor)
{
    free(tensor->view.data);
    memset(tensor, 0, sizeof *tensor);
}

int run_tensor_sample(run_tensor *out, const run_tensor *from, int64_t samples,
                      mmlp_context *context)
{
    int64_t rows = from->shape[0];
    size_t row_bytes = rows ? from->bytes / (size_t)rows : 0;
    *out = *from;
    out->shape[0] = samples;
    out->bytes = row_bytes * (size_t)samples;
    int code = run_tensor_alloc_host(out);
    for (int64_t i = 0; code == 0 && i < samples; ++i) {
        int64_t row = samples == 1 ? 0 : i * (rows - 1) / (samples - 1);
        char *to = (char *)out->view.data + (size_t)i * row_bytes;
        const char *source = (const char *)from->view.data + (size_t)row * row_bytes;
        if (!context) {
            memcpy(to, source, row_bytes);
            continue;
        }
        mmlp_status status = mmlp_buffer_download(context, to, source, row_bytes, NULL);
        if (status != MMLP_OK)
            code = tool_fail_status(status);
    }
    return code;
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

void run_tensor_from_bf16(run_tensor *out, const void *values)
{
    const unsigned char *bytes = values;
    size_t count = run_tensor_elements(out);
    for (size_t i = 0; i < count; ++i) {
        float value = bf16_to_float((uint16_t)(bytes[2 * i] | bytes[2 * i + 1] << 8));
        if (out->view.dtype.bits == 32)
            ((float *)out->view.data)[i] = value;
        else
            ((uint16_t *)out->view.data)[i] = float_to_fp16(value);
    }
}
