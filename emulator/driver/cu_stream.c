/*
 * cu_stream.c: streams and events. Work has run when the call that enqueues it returns, so a stream
 * is always empty, an event is reached when it is recorded, and waiting only asks for a fault.
 */
#include <stdlib.h>
#include <time.h>

#include "driver/front.h"

static void release_object(front_object *object)
{
    free(object);
}

/* ---- streams -------------------------------------------------------------------------------- */

CUresult CUDAAPI cuStreamCreateWithPriority(CUstream *phStream, unsigned int flags, int priority)
{
    CUcontext context;
    FRONT_TRY(front_enter(&context));
    if (!phStream || flags > CU_STREAM_NON_BLOCKING)
        return CUDA_ERROR_INVALID_VALUE;
    *phStream = NULL;
    CUstream stream = calloc(1, sizeof *stream);
    if (!stream)
        return CUDA_ERROR_OUT_OF_MEMORY;
    stream->object.kind = FRONT_STREAM;
    stream->object.context = context;
    stream->object.release = release_object;
    stream->flags = flags;
    stream->priority = priority > 0 ? 0 : priority < -5 ? -5 : priority;
    stream->id = front_new_id();
    front_add(&stream->object);
    *phStream = stream;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamCreate(CUstream *phStream, unsigned int Flags)
{
    return cuStreamCreateWithPriority(phStream, Flags, 0);
}

CUresult CUDAAPI cuStreamDestroy(CUstream hStream)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    if (!front_remove(hStream, FRONT_STREAM))
        return CUDA_ERROR_INVALID_HANDLE;
    free(hStream);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamSynchronize(CUstream hStream)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    return front_check_fault(context);
}

CUresult CUDAAPI cuStreamQuery(CUstream hStream)
{
    return cuStreamSynchronize(hStream);
}

static bool is_default(CUstream stream)
{
    return stream == NULL || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD;
}

CUresult CUDAAPI cuStreamGetFlags(CUstream hStream, unsigned int *flags)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = is_default(hStream) ? CU_STREAM_DEFAULT : hStream->flags;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetPriority(CUstream hStream, int *priority)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!priority)
        return CUDA_ERROR_INVALID_VALUE;
    *priority = is_default(hStream) ? 0 : hStream->priority;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetCtx(CUstream hStream, CUcontext *pctx)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!pctx)
        return CUDA_ERROR_INVALID_VALUE;
    *pctx = context;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetDevice(CUstream hStream, CUdevice *device)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    *device = context->device;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamGetId(CUstream hStream, unsigned long long *streamId)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!streamId)
        return CUDA_ERROR_INVALID_VALUE;
    *streamId = is_default(hStream) ? (uintptr_t)hStream : hStream->id;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamIsCapturing(CUstream hStream, CUstreamCaptureStatus *captureStatus)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!captureStatus)
        return CUDA_ERROR_INVALID_VALUE;
    *captureStatus = CU_STREAM_CAPTURE_STATUS_NONE;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamWaitEvent(CUstream hStream, CUevent hEvent, unsigned int Flags)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!front_is(hEvent, FRONT_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (Flags > CU_EVENT_WAIT_EXTERNAL)
        return CUDA_ERROR_INVALID_VALUE;
    bool skip;
    return front_check_enqueue(context, &skip);
}

CUresult CUDAAPI cuStreamAddCallback(CUstream hStream, CUstreamCallback callback, void *userData,
                                     unsigned int flags)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!callback || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    bool skip;
    FRONT_TRY(front_check_enqueue(context, &skip));
    callback(hStream, skip ? context->fault : CUDA_SUCCESS, userData);
    return CUDA_SUCCESS;
}

/* ---- events --------------------------------------------------------------------------------- */

CUresult CUDAAPI cuEventCreate(CUevent *phEvent, unsigned int Flags)
{
    CUcontext context;
    FRONT_TRY(front_enter(&context));
    unsigned known = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
    if (!phEvent || (Flags & ~known))
        return CUDA_ERROR_INVALID_VALUE;
    *phEvent = NULL;
    if (Flags & CU_EVENT_INTERPROCESS)
        return CUDA_ERROR_NOT_SUPPORTED;
    CUevent event = calloc(1, sizeof *event);
    if (!event)
        return CUDA_ERROR_OUT_OF_MEMORY;
    event->object.kind = FRONT_EVENT;
    event->object.context = context;
    event->object.release = release_object;
    event->flags = Flags;
    front_add(&event->object);
    *phEvent = event;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventDestroy(CUevent hEvent)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!front_remove(hEvent, FRONT_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    free(hEvent);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventRecordWithFlags(CUevent hEvent, CUstream hStream, unsigned int flags)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!front_is(hEvent, FRONT_EVENT) || hEvent->object.context != context)
        return CUDA_ERROR_INVALID_HANDLE;
    if (flags > CU_EVENT_RECORD_EXTERNAL)
        return CUDA_ERROR_INVALID_VALUE;
    bool skip;
    FRONT_TRY(front_check_enqueue(context, &skip));
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    hEvent->milliseconds = 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
    hEvent->recorded = true;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventRecord(CUevent hEvent, CUstream hStream)
{
    return cuEventRecordWithFlags(hEvent, hStream, 0);
}

CUresult CUDAAPI cuEventSynchronize(CUevent hEvent)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!front_is(hEvent, FRONT_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    return front_check_fault(hEvent->object.context);
}

CUresult CUDAAPI cuEventQuery(CUevent hEvent)
{
    return cuEventSynchronize(hEvent);
}

CUresult CUDAAPI cuEventElapsedTime(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!front_is(hStart, FRONT_EVENT) || !front_is(hEnd, FRONT_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!pMilliseconds)
        return CUDA_ERROR_INVALID_VALUE;
    if (!hStart->recorded || !hEnd->recorded ||
        ((hStart->flags | hEnd->flags) & CU_EVENT_DISABLE_TIMING))
        return CUDA_ERROR_INVALID_HANDLE;
    FRONT_TRY(front_check_fault(hStart->object.context));
    *pMilliseconds = (float)(hEnd->milliseconds - hStart->milliseconds);
    return CUDA_SUCCESS;
}
