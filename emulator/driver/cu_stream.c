/*
 * cu_stream.c: streams and events. Work has run when the call that enqueues it returns, unless
 * something before it in the stream waits for others (queue.h): without that a stream is always
 * empty, an event is reached when it is recorded, and waiting only asks for a fault. A stream that
 * captures (cu_capture.c) runs nothing.
 */
#include <stdlib.h>

#include "driver/queue.h"

/* ---- streams -------------------------------------------------------------------------------- */

CUresult graph_enqueue(CUstream stream, const graph_work *work)
{
    CUcontext context;
    bool skip, captured;
    FRONT_TRY(front_stream_context(&context, stream));
    FRONT_TRY(front_check_enqueue(context, &skip));
    FRONT_TRY(capture_add(&captured, stream, context, work));
    return captured || skip ? CUDA_SUCCESS : queue_run(stream, context, work);
}

static void release_stream(front_object *object)
{
    capture_leave((CUstream)object);
    queue_wait_stream((CUstream)object, object->context);
    free(object);
}

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
    stream->object.release = release_stream;
    stream->flags = flags;
    stream->priority = priority > 0 ? 0 : priority < -5 ? -5 : priority;
    stream->id = front_new_id();
    trace_name_track(stream->id, context->device, "stream");
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
    release_stream(&hStream->object);
    return CUDA_SUCCESS;
}

static CUresult enter_wait(CUcontext *out, CUstream stream)
{
    FRONT_TRY(front_stream_context(out, stream));
    FRONT_TRY(capture_refuse_stream(stream, *out));
    return capture_check_unsafe();
}

CUresult CUDAAPI cuStreamSynchronize(CUstream hStream)
{
    CUcontext context;
    FRONT_TRY(enter_wait(&context, hStream));
    queue_wait_stream(hStream, context);
    return front_check_fault(context);
}

CUresult CUDAAPI cuStreamQuery(CUstream hStream)
{
    CUcontext context;
    FRONT_TRY(enter_wait(&context, hStream));
    FRONT_TRY(front_check_fault(context));
    return queue_is_empty(hStream, context) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
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

typedef struct callback_work {
    CUstream stream;
    CUresult status;
    CUstreamCallback call;
    void *argument;
} callback_work;

static CUresult run_callback(CUcontext context, const void *arguments)
{
    (void)context;
    const callback_work *work = arguments;
    work->call(work->stream, work->status, work->argument);
    return CUDA_SUCCESS;
}

static const char *describe_callback(FILE *args, const void *arguments)
{
    (void)args, (void)arguments;
    return "callback";
}

static const graph_kind callback_kind = {CU_GRAPH_NODE_TYPE_HOST, false, run_callback, "host",
                                         describe_callback};

CUresult CUDAAPI cuStreamAddCallback(CUstream hStream, CUstreamCallback callback, void *userData,
                                     unsigned int flags)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!callback || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    bool skip;
    FRONT_TRY(front_check_enqueue(context, &skip));
    FRONT_TRY(capture_refuse_stream(hStream, context));
    callback_work work = {hStream, skip ? context->fault : CUDA_SUCCESS, callback, userData};
    return queue_run_now(hStream, context, &(graph_work){&callback_kind, &work, sizeof work});
}

/* ---- events --------------------------------------------------------------------------------- */

static void release_event(front_object *object)
{
    graph_nodes_clear(&((CUevent)object)->frontier);
    queue_forget((CUevent)object);
    free(object);
}

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
    event->object.release = release_event;
    event->flags = Flags;
    event->id = front_new_id();
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
    release_event(&hEvent->object);
    return CUDA_SUCCESS;
}

/* The nodes of CU_EVENT_RECORD_EXTERNAL and CU_EVENT_WAIT_EXTERNAL; their argument is the event. */
static CUresult run_record(CUcontext context, const void *arguments)
{
    CUevent event = *(const CUevent *)arguments;
    if (!front_is(event, FRONT_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    bool captured; /* never: the stream of a launch does not capture */
    FRONT_TRY(capture_record(&captured, event, CU_STREAM_PER_THREAD, context));
    event->record = 0; /* nobody has asked for this one's number */
    queue_reach(event);
    return CUDA_SUCCESS;
}

static CUresult run_wait(CUcontext context, const void *arguments)
{
    (void)context;
    return front_is(*(const CUevent *)arguments, FRONT_EVENT) ? CUDA_SUCCESS
                                                              : CUDA_ERROR_INVALID_HANDLE;
}

static const graph_kind record_kind = {CU_GRAPH_NODE_TYPE_EVENT_RECORD, false, run_record, "record",
                                       queue_describe_record};
static const graph_kind wait_kind = {CU_GRAPH_NODE_TYPE_WAIT_EVENT, false, run_wait, "wait",
                                     queue_describe_wait};

/* Outside of a capture there is no graph for the node. */
static CUresult add_external(CUstream stream, CUcontext context, CUevent event,
                             const graph_kind *kind)
{
    bool captured;
    graph_work work = {kind, &event, sizeof event};
    FRONT_TRY(capture_add(&captured, stream, context, &work));
    return captured ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult CUDAAPI cuEventRecordWithFlags(CUevent hEvent, CUstream hStream, unsigned int flags)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!front_is(hEvent, FRONT_EVENT) || hEvent->object.context != context)
        return CUDA_ERROR_INVALID_HANDLE;
    if (flags > CU_EVENT_RECORD_EXTERNAL)
        return CUDA_ERROR_INVALID_VALUE;
    bool skip, captured;
    FRONT_TRY(front_check_enqueue(context, &skip));
    if (flags == CU_EVENT_RECORD_EXTERNAL)
        return add_external(hStream, context, hEvent, &record_kind);
    FRONT_TRY(capture_record(&captured, hEvent, hStream, context));
    if (!captured)
        return queue_record(hEvent, hStream, context);
    queue_forget(hEvent);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuEventRecord(CUevent hEvent, CUstream hStream)
{
    return cuEventRecordWithFlags(hEvent, hStream, 0);
}

CUresult CUDAAPI cuStreamWaitEvent(CUstream hStream, CUevent hEvent, unsigned int Flags)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!front_is(hEvent, FRONT_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (Flags > CU_EVENT_WAIT_EXTERNAL)
        return CUDA_ERROR_INVALID_VALUE;
    bool skip, captured;
    FRONT_TRY(front_check_enqueue(context, &skip));
    if (Flags == CU_EVENT_WAIT_EXTERNAL)
        return add_external(hStream, context, hEvent, &wait_kind);
    FRONT_TRY(capture_wait(&captured, hStream, context, hEvent));
    return captured ? CUDA_SUCCESS : queue_after(hStream, context, hEvent);
}

static CUresult enter_event(CUevent event)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!front_is(event, FRONT_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    FRONT_TRY(capture_refuse_event(event));
    return capture_check_unsafe();
}

CUresult CUDAAPI cuEventSynchronize(CUevent hEvent)
{
    FRONT_TRY(enter_event(hEvent));
    queue_wait_event(hEvent);
    return front_check_fault(hEvent->object.context);
}

CUresult CUDAAPI cuEventQuery(CUevent hEvent)
{
    FRONT_TRY(enter_event(hEvent));
    FRONT_TRY(front_check_fault(hEvent->object.context));
    return queue_is_reached(hEvent) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

CUresult CUDAAPI cuEventElapsedTime(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!front_is(hStart, FRONT_EVENT) || !front_is(hEnd, FRONT_EVENT))
        return CUDA_ERROR_INVALID_HANDLE;
    if (!pMilliseconds)
        return CUDA_ERROR_INVALID_VALUE;
    FRONT_TRY(capture_refuse_event(hStart));
    FRONT_TRY(capture_refuse_event(hEnd));
    if (!hStart->recorded || !hEnd->recorded ||
        ((hStart->flags | hEnd->flags) & CU_EVENT_DISABLE_TIMING))
        return CUDA_ERROR_INVALID_HANDLE;
    FRONT_TRY(front_check_fault(hStart->object.context));
    if (!queue_is_reached(hStart) || !queue_is_reached(hEnd))
        return CUDA_ERROR_NOT_READY;
    *pMilliseconds = (float)(hEnd->milliseconds - hStart->milliseconds);
    return CUDA_SUCCESS;
}
