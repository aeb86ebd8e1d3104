/*
 * buffer.c: device memory and streams for programs that have no CUDA of their own.
 */
#include <stdint.h>

#include "context.h"

static mmlp_status fail_null(const char *function, const char *what)
{
    return mmlp_fail(MMLP_ERROR_ARGUMENT, "%s: %s is NULL", function, what);
}

mmlp_status mmlp_buffer_alloc(void **out, mmlp_context *context, size_t bytes)
{
    if (!out)
        return fail_null("mmlp_buffer_alloc", "out");
    *out = NULL;
    if (!context)
        return fail_null("mmlp_buffer_alloc", "context");
    if (bytes == 0)
        return MMLP_OK;
    const driver *d = &context->cuda;
    CUdeviceptr address = 0;
    MMLP_TRY(context_enter(context));
    mmlp_status status =
        driver_check(d, d->cuMemAlloc(&address, bytes), "a buffer of %zu bytes", bytes);
    context_leave(context);
    *out = (void *)(uintptr_t)address;
    return status;
}

mmlp_status mmlp_buffer_free(mmlp_context *context, void *buffer)
{
    if (!context)
        return fail_null("mmlp_buffer_free", "context");
    if (!buffer)
        return MMLP_OK;
    const driver *d = &context->cuda;
    MMLP_TRY(context_enter(context));
    mmlp_status status = driver_check(d, d->cuMemFree((CUdeviceptr)(uintptr_t)buffer), "cuMemFree");
    context_leave(context);
    return status;
}

mmlp_status mmlp_buffer_upload(mmlp_context *context, void *device, const void *host, size_t bytes,
                               void *stream)
{
    if (!context)
        return fail_null("mmlp_buffer_upload", "context");
    if (bytes == 0)
        return MMLP_OK;
    if (!device || !host)
        return fail_null("mmlp_buffer_upload", device ? "host" : "device");
    const driver *d = &context->cuda;
    mmlp_status status = MMLP_OK;
    MMLP_TRY(context_enter(context));
    MMLP_TRY_CLEANUP(driver_check(
        d, d->cuMemcpyHtoDAsync((CUdeviceptr)(uintptr_t)device, host, bytes, (CUstream)stream),
        "upload of %zu bytes", bytes));
    MMLP_TRY_CLEANUP(
        driver_check(d, d->cuStreamSynchronize((CUstream)stream), "upload of %zu bytes", bytes));

cleanup:
    context_leave(context);
    return status;
}

mmlp_status mmlp_buffer_download(mmlp_context *context, void *host, const void *device,
                                 size_t bytes, void *stream)
{
    if (!context)
        return fail_null("mmlp_buffer_download", "context");
    if (bytes == 0)
        return MMLP_OK;
    if (!device || !host)
        return fail_null("mmlp_buffer_download", device ? "host" : "device");
    const driver *d = &context->cuda;
    mmlp_status status = MMLP_OK;
    MMLP_TRY(context_enter(context));
    MMLP_TRY_CLEANUP(driver_check(
        d, d->cuMemcpyDtoHAsync(host, (CUdeviceptr)(uintptr_t)device, bytes, (CUstream)stream),
        "download of %zu bytes", bytes));
    MMLP_TRY_CLEANUP(
        driver_check(d, d->cuStreamSynchronize((CUstream)stream), "download of %zu bytes", bytes));

cleanup:
    context_leave(context);
    return status;
}

mmlp_status mmlp_stream_create(void **out, mmlp_context *context)
{
    if (!out)
        return fail_null("mmlp_stream_create", "out");
    *out = NULL;
    if (!context)
        return fail_null("mmlp_stream_create", "context");
    const driver *d = &context->cuda;
    CUstream stream = NULL;
    MMLP_TRY(context_enter(context));
    mmlp_status status =
        driver_check(d, d->cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "cuStreamCreate");
    context_leave(context);
    *out = stream;
    return status;
}

mmlp_status mmlp_stream_destroy(mmlp_context *context, void *stream)
{
    if (!context)
        return fail_null("mmlp_stream_destroy", "context");
    if (!stream)
        return MMLP_OK;
    const driver *d = &context->cuda;
    MMLP_TRY(context_enter(context));
    mmlp_status status = driver_check(d, d->cuStreamDestroy((CUstream)stream), "cuStreamDestroy");
    context_leave(context);
    return status;
}

mmlp_status mmlp_stream_sync(mmlp_context *context, void *stream)
{
    if (!context)
        return fail_null("mmlp_stream_sync", "context");
    const driver *d = &context->cuda;
    MMLP_TRY(context_enter(context));
    mmlp_status status =
        driver_check(d, d->cuStreamSynchronize((CUstream)stream), "cuStreamSynchronize");
    context_leave(context);
    return status;
}
