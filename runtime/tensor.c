/* tensor.c: checks of the tensors a caller gives. */
#include "tensor.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/text.h"

enum { ALIGNMENT = 16, MAX_RANK = 32 };

static const struct {
    int code, bits;
    const char *name;
} types[] = {
    [BUNDLE_BF16] = {MMLP_TYPE_BFLOAT, 16, "bf16"},
    [BUNDLE_FP16] = {MMLP_TYPE_FLOAT, 16, "fp16"},
    [BUNDLE_FP32] = {MMLP_TYPE_FLOAT, 32, "fp32"},
    [BUNDLE_DTYPES] = {MMLP_TYPE_FLOAT, 64, "fp64"}, /* host tensors only */
};
enum { TYPE_COUNT = BUNDLE_DTYPES + 1 };

bool tensor_is(const mmlp_tensor *tensor, bundle_dtype dtype)
{
    return tensor->dtype.code == types[dtype].code && tensor->dtype.bits == types[dtype].bits &&
           tensor->dtype.lanes == 1;
}

void *tensor_address(const mmlp_tensor *tensor)
{
    return tensor->data ? (char *)tensor->data + tensor->byte_offset : NULL;
}

/* ---- what a message shows ------------------------------------------------------------------- */

static void print_dims(text *out, const int64_t *dims, int rank, const char *any)
{
    text_puts(out, "[");
    for (int i = 0; i < rank; i++) {
        text_puts(out, i ? ", " : "");
        if (dims[i] < 0 && any)
            text_puts(out, any);
        else
            text_printf(out, "%" PRId64, dims[i]);
    }
    text_puts(out, "]");
}

static void print_type(text *out, const mmlp_tensor *tensor)
{
    for (int i = 0; i < TYPE_COUNT; i++) {
        if (tensor_is(tensor, (bundle_dtype)i)) {
            text_puts(out, types[i].name);
            return;
        }
    }
    text_printf(out, "DLPack type (code %d, %d bits, %d lanes)", tensor->dtype.code,
                tensor->dtype.bits, tensor->dtype.lanes);
}

static void print_device(text *out, int32_t type, int32_t id)
{
    if (type == MMLP_DEVICE_CPU)
        text_puts(out, "on the host");
    else if (type == MMLP_DEVICE_CUDA)
        text_printf(out, "on CUDA device %d", id);
    else
        text_printf(out, "on DLPack device type %d", type);
}

/* ---- checks --------------------------------------------------------------------------------- */

/* What follows the name of the wanted type. */
static const char *or_fp32(const tensor_wanted *wanted)
{
    return wanted->or_fp32 && wanted->dtype != BUNDLE_FP32 ? " or fp32" : "";
}

static mmlp_status fail_missing(const tensor_wanted *wanted)
{
    text dims = TEXT_INIT;
    print_dims(&dims, wanted->dims, wanted->rank, "tokens");
    mmlp_status status =
        mmlp_fail(MMLP_ERROR_ARGUMENT, "%s: NULL was given, wanted %s%s %s", wanted->name,
                  types[wanted->dtype].name, or_fp32(wanted), text_string(&dims));
    text_free(&dims);
    return status;
}

static mmlp_status check_shape(const mmlp_tensor *tensor, const tensor_wanted *wanted)
{
    bool same = tensor->ndim == wanted->rank && (tensor->shape || wanted->rank == 0);
    for (int i = 0; same && i < wanted->rank; i++)
        same = wanted->dims[i] < 0 ? tensor->shape[i] >= 0 : tensor->shape[i] == wanted->dims[i];
    if (same)
        return MMLP_OK;
    text found = TEXT_INIT, dims = TEXT_INIT;
    if (tensor->shape && tensor->ndim >= 0 && tensor->ndim <= MAX_RANK)
        print_dims(&found, tensor->shape, tensor->ndim, NULL);
    else
        text_printf(&found, "%d dimensions", tensor->ndim);
    print_dims(&dims, wanted->dims, wanted->rank, "tokens");
    mmlp_status status = mmlp_fail(MMLP_ERROR_SHAPE, "%s: found the shape %s, wanted %s",
                                   wanted->name, text_string(&found), text_string(&dims));
    text_free(&found);
    text_free(&dims);
    return status;
}

static mmlp_status check_type(const mmlp_tensor *tensor, const tensor_wanted *wanted)
{
    if (tensor_is(tensor, wanted->dtype) || (wanted->or_fp32 && tensor_is(tensor, BUNDLE_FP32)))
        return MMLP_OK;
    text found = TEXT_INIT;
    print_type(&found, tensor);
    mmlp_status status = mmlp_fail(MMLP_ERROR_SHAPE, "%s: found %s, wanted %s%s", wanted->name,
                                   text_string(&found), types[wanted->dtype].name, or_fp32(wanted));
    text_free(&found);
    return status;
}

static mmlp_status check_device(const mmlp_tensor *tensor, const tensor_wanted *wanted)
{
    if (tensor->device.device_type == wanted->device_type &&
        (wanted->device_type == MMLP_DEVICE_CPU || tensor->device.device_id == wanted->device_id))
        return MMLP_OK;
    text found = TEXT_INIT, device = TEXT_INIT;
    print_device(&found, tensor->device.device_type, tensor->device.device_id);
    print_device(&device, wanted->device_type, wanted->device_id);
    mmlp_status status = mmlp_fail(MMLP_ERROR_SHAPE, "%s: found it %s, wanted it %s", wanted->name,
                                   text_string(&found), text_string(&device));
    text_free(&found);
    text_free(&device);
    return status;
}

/* Strides mean nothing for dimensions of one element, and for empty tensors. */
static mmlp_status check_contiguous(const mmlp_tensor *tensor, const tensor_wanted *wanted)
{
    if (!tensor->strides)
        return MMLP_OK;
    bool same = true, empty = false;
    int64_t stride = 1;
    for (int i = tensor->ndim - 1; i >= 0; i--) {
        same = same && (tensor->shape[i] == 1 || tensor->strides[i] == stride);
        empty = empty || tensor->shape[i] == 0;
        if (tensor->shape[i] > 0 && stride <= INT64_MAX / tensor->shape[i])
            stride *= tensor->shape[i];
    }
    if (same || empty)
        return MMLP_OK;
    text strides = TEXT_INIT;
    print_dims(&strides, tensor->strides, tensor->ndim, NULL);
    mmlp_status status = mmlp_fail(MMLP_ERROR_SHAPE,
                                   "%s: found the strides %s, wanted a contiguous row-major tensor",
                                   wanted->name, text_string(&strides));
    text_free(&strides);
    return status;
}

static mmlp_status check_address(const mmlp_tensor *tensor, const tensor_wanted *wanted,
                                 unsigned alignment)
{
    for (int i = 0; i < tensor->ndim; i++) {
        if (tensor->shape[i] == 0)
            return MMLP_OK;
    }
    if (!tensor->data)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "%s: its address is NULL", wanted->name);
    uintptr_t address = (uintptr_t)tensor->data + tensor->byte_offset;
    if (address % alignment != 0)
        return mmlp_fail(MMLP_ERROR_SHAPE,
                         "%s: found it at address 0x%" PRIxPTR ", wanted a multiple of %u bytes",
                         wanted->name, address, alignment);
    return MMLP_OK;
}

mmlp_status tensor_check(const mmlp_tensor *tensor, const tensor_wanted *wanted)
{
    if (!tensor)
        return fail_missing(wanted);
    MMLP_TRY(check_shape(tensor, wanted));
    MMLP_TRY(check_type(tensor, wanted));
    MMLP_TRY(check_device(tensor, wanted));
    MMLP_TRY(check_contiguous(tensor, wanted));
    return check_address(tensor, wanted, ALIGNMENT);
}

mmlp_status tensor_check_host(const mmlp_tensor *tensor, const tensor_wanted *wanted)
{
    if (!tensor)
        return fail_missing(wanted);
    MMLP_TRY(check_shape(tensor, wanted));
    for (int i = 0; i < TYPE_COUNT; i++) {
        if (tensor_is(tensor, (bundle_dtype)i)) {
            MMLP_TRY(check_device(tensor, wanted));
            MMLP_TRY(check_contiguous(tensor, wanted));
            return check_address(tensor, wanted, tensor->dtype.bits / 8u);
        }
    }
    text found = TEXT_INIT;
    print_type(&found, tensor);
    mmlp_status status =
        mmlp_fail(MMLP_ERROR_SHAPE, "%s: found %s, wanted bf16, fp16, fp32 or fp64", wanted->name,
                  text_string(&found));
    text_free(&found);
    return status;
}

mmlp_status tensor_check_any(int64_t *elements, const mmlp_tensor *tensor,
                             const tensor_wanted *wanted)
{
    *elements = 0;
    if (!tensor)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "%s: NULL was given", wanted->name);
    if (tensor->ndim < 0 || tensor->ndim > MAX_RANK || (tensor->ndim > 0 && !tensor->shape))
        return mmlp_fail(MMLP_ERROR_SHAPE, "%s: found %d dimensions, wanted 0 to %d", wanted->name,
                         tensor->ndim, MAX_RANK);
    int64_t count = 1;
    for (int i = 0; i < tensor->ndim; i++) {
        if (tensor->shape[i] < 0 || __builtin_mul_overflow(count, tensor->shape[i], &count))
            return mmlp_fail(MMLP_ERROR_SHAPE, "%s: found %lld as dimension %d, which is too much",
                             wanted->name, (long long)tensor->shape[i], i);
    }
    MMLP_TRY(check_type(tensor, wanted));
    MMLP_TRY(check_device(tensor, wanted));
    MMLP_TRY(check_contiguous(tensor, wanted));
    MMLP_TRY(check_address(tensor, wanted, ALIGNMENT));
    *elements = count;
    return MMLP_OK;
}
