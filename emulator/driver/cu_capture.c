/*
 * cu_capture.c: stream capture: which streams capture into which graph, how events tie streams
 * together, and which calls a capture forbids. One lock guards all of it, the fields of streams and
 * events that front.h leaves to this file included; no work runs under it.
 *
 * What the CUDA documentation leaves open: module loading counts as potentially unsafe, an
 * invalidated capture forbids as much as an active one, and an event stays captured until it is
 * recorded elsewhere. Streams of other contexts cannot join a capture here.
 */
#include <stdlib.h>

#include "driver/graph.h"

typedef struct capture {
    struct capture *next;
    CUgraph graph;
    CUstream origin;
    CUstream streams; /* all that take part */
    CUstreamCaptureMode mode;
    pthread_t thread; /* that began it */
    unsigned long long id;
    bool invalidated;
} capture;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static capture *captures; /* every one that has begun and not ended */
static _Thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

/* ---- under the lock ------------------------------------------------------------------------- */

static bool is_legacy(CUstream stream)
{
    return stream == NULL || stream == CU_STREAM_LEGACY;
}

static capture *capture_of(CUstream stream)
{
    return is_legacy(stream) || stream == CU_STREAM_PER_THREAD ? NULL : stream->capture;
}

static capture *find_capture(unsigned long long id)
{
    capture *c = captures;
    while (c && c->id != id)
        c = c->next;
    return c;
}

static void join_capture(capture *c, CUstream stream)
{
    stream->capture = c;
    stream->next_in_capture = c->streams;
    c->streams = stream;
}

/* Takes the capture out of the list and its streams out of capture mode; what is left is its graph.
 */
static CUgraph end_capture(capture *ended)
{
    capture **link = &captures;
    while (*link != ended)
        link = &(*link)->next;
    *link = ended->next;
    for (CUstream stream = ended->streams; stream; stream = stream->next_in_capture) {
        stream->capture = NULL;
        graph_nodes_clear(&stream->frontier);
    }
    CUgraph graph = ended->graph;
    free(ended);
    return graph;
}

static CUresult invalidate(capture *c, CUresult why)
{
    c->invalidated = true;
    return why;
}

/* Work in the legacy stream waits for all blocking streams of the context. */
static bool is_awaited(const capture *c, CUcontext context)
{
    for (CUstream stream = c->streams; stream; stream = stream->next_in_capture) {
        if (stream->object.context == context && !(stream->flags & CU_STREAM_NON_BLOCKING))
            return true;
    }
    return false;
}

static CUresult check_legacy(CUstream stream, CUcontext context, bool harmful)
{
    CUresult result = CUDA_SUCCESS;
    for (capture *c = is_legacy(stream) ? captures : NULL; c; c = c->next) {
        if (is_awaited(c, context)) {
            result = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
            c->invalidated |= harmful;
        }
    }
    return result;
}

/* The stream's capture, NULL when it has none; only an active one can go on. */
static CUresult enter_stream(capture **out, CUstream stream, CUcontext context)
{
    *out = NULL;
    FRONT_TRY(check_legacy(stream, context, true));
    capture *c = capture_of(stream);
    if (c && c->invalidated)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    *out = c;
    return CUDA_SUCCESS;
}

static CUresult add(bool *captured, CUstream stream, CUcontext context, const graph_work *work)
{
    capture *c;
    CUgraphNode node;
    FRONT_TRY(enter_stream(&c, stream, context));
    *captured = c != NULL;
    if (!c)
        return CUDA_SUCCESS;
    CUresult result = graph_append(&node, c->graph, work, &stream->frontier);
    if (result == CUDA_SUCCESS) {
        stream->frontier.count = 0;
        result = graph_nodes_add(&stream->frontier, node);
    }
    return result == CUDA_SUCCESS ? result : invalidate(c, result);
}

static CUresult record(bool *captured, CUevent event, CUstream stream, CUcontext context)
{
    capture *c;
    FRONT_TRY(enter_stream(&c, stream, context));
    *captured = c != NULL;
    event->frontier.count = 0;
    event->captured = c ? c->id : 0;
    CUresult result = c ? graph_nodes_unite(&event->frontier, &stream->frontier) : CUDA_SUCCESS;
    return result == CUDA_SUCCESS ? result : invalidate(c, result);
}

/* The event belongs to no active capture, the stream to `c` if that is not NULL. */
static CUresult wait_outside(capture *c, const struct CUevent_st *event)
{
    if (event->captured)
        return c ? invalidate(c, CUDA_ERROR_CAPTURED_EVENT) : CUDA_ERROR_CAPTURED_EVENT;
    return c && event->recorded ? invalidate(c, CUDA_ERROR_STREAM_CAPTURE_ISOLATION) : CUDA_SUCCESS;
}

static CUresult wait_for(bool *captured, CUstream stream, CUcontext context,
                         const struct CUevent_st *event)
{
    capture *c, *source = find_capture(event->captured);
    FRONT_TRY(enter_stream(&c, stream, context));
    *captured = c || source;
    if (!source)
        return wait_outside(c, event);
    if (source->invalidated)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (c && c != source) {
        invalidate(c, CUDA_SUCCESS);
        return invalidate(source, CUDA_ERROR_STREAM_CAPTURE_MERGE);
    }
    if (!c) {
        if (is_legacy(stream) || stream == CU_STREAM_PER_THREAD ||
            context != source->graph->object.context)
            return invalidate(source, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        join_capture(source, stream);
    }
    return graph_nodes_unite(&stream->frontier, &event->frontier);
}

static bool forbids(const capture *c)
{
    if (thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED || c->mode == CU_STREAM_CAPTURE_MODE_RELAXED)
        return false;
    return pthread_equal(c->thread, pthread_self()) ||
           (thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
            c->mode == CU_STREAM_CAPTURE_MODE_GLOBAL);
}

/* ---- what other files ask for --------------------------------------------------------------- */

CUresult capture_add(bool *captured, CUstream stream, CUcontext context, const graph_work *work)
{
    pthread_mutex_lock(&lock);
    CUresult result = add(captured, stream, context, work);
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult capture_record(bool *captured, CUevent event, CUstream stream, CUcontext context)
{
    pthread_mutex_lock(&lock);
    CUresult result = record(captured, event, stream, context);
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult capture_wait(bool *captured, CUstream stream, CUcontext context, CUevent event)
{
    pthread_mutex_lock(&lock);
    CUresult result = wait_for(captured, stream, context, event);
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult capture_check_unsafe(void)
{
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    for (capture *c = captures; c; c = c->next) {
        if (forbids(c))
            result = invalidate(c, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult capture_enter_unsafe(CUcontext *out)
{
    FRONT_TRY(front_enter(out));
    return capture_check_unsafe();
}

CUresult capture_refuse_stream(CUstream stream, CUcontext context)
{
    capture *c;
    pthread_mutex_lock(&lock);
    CUresult result = enter_stream(&c, stream, context);
    if (c)
        result = invalidate(c, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult capture_refuse_event(CUevent event)
{
    pthread_mutex_lock(&lock);
    capture *c = find_capture(event->captured);
    if (c)
        invalidate(c, CUDA_ERROR_CAPTURED_EVENT);
    CUresult result = event->captured ? CUDA_ERROR_CAPTURED_EVENT : CUDA_SUCCESS;
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult capture_refuse_context(CUcontext context)
{
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    for (capture *c = captures; c; c = c->next) {
        if (c->graph->object.context == context)
            result = invalidate(c, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

void capture_leave(CUstream stream)
{
    CUgraph lost = NULL;
    pthread_mutex_lock(&lock);
    capture *c = stream->capture;
    if (c) {
        CUstream *link = &c->streams;
        while (*link != stream)
            link = &(*link)->next_in_capture;
        *link = stream->next_in_capture;
        stream->capture = NULL;
        c->invalidated = true;
        if (c->origin == stream)
            lost = end_capture(c);
    }
    graph_nodes_clear(&stream->frontier);
    pthread_mutex_unlock(&lock);
    if (lost)
        graph_destroy(lost);
}

/* ---- the API -------------------------------------------------------------------------------- */

static CUresult begin(CUstream stream, capture *c)
{
    if (stream->capture)
        return CUDA_ERROR_ILLEGAL_STATE;
    c->next = captures;
    captures = c;
    join_capture(c, stream);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuStreamBeginCapture(CUstream hStream, CUstreamCaptureMode mode)
{
    CUcontext context;
    bool skip;
    FRONT_TRY(front_stream_context(&context, hStream));
    if ((unsigned)mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    if (is_legacy(hStream))
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (hStream == CU_STREAM_PER_THREAD)
        return CUDA_ERROR_NOT_SUPPORTED;
    FRONT_TRY(front_check_enqueue(context, &skip));
    capture *c = malloc(sizeof *c);
    CUgraph graph = graph_create(context, true);
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    if (c && graph) {
        *c = (capture){.graph = graph,
                       .origin = hStream,
                       .mode = mode,
                       .thread = pthread_self(),
                       .id = front_new_id()};
        pthread_mutex_lock(&lock);
        result = begin(hStream, c);
        pthread_mutex_unlock(&lock);
    }
    if (result != CUDA_SUCCESS) {
        free(c);
        if (graph)
            graph_destroy(graph);
    }
    return result;
}

/* *ended: the graph of the capture that this ended, with success or not. */
static CUresult end(CUgraph *ended, CUstream stream)
{
    capture *c = capture_of(stream);
    if (!c)
        return CUDA_ERROR_ILLEGAL_STATE;
    if (c->origin != stream)
        return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    if (c->mode != CU_STREAM_CAPTURE_MODE_RELAXED && !pthread_equal(c->thread, pthread_self()))
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    CUresult result = CUDA_SUCCESS;
    if (c->invalidated)
        result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    else if (!graph_is_joined(c->graph, &stream->frontier))
        result = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    *ended = end_capture(c);
    (*ended)->capturing = false;
    return result;
}

CUresult CUDAAPI cuStreamEndCapture(CUstream hStream, CUgraph *phGraph)
{
    CUcontext context;
    CUgraph graph = NULL;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!phGraph)
        return CUDA_ERROR_INVALID_VALUE;
    *phGraph = NULL;
    pthread_mutex_lock(&lock);
    CUresult result = end(&graph, hStream);
    pthread_mutex_unlock(&lock);
    if (result == CUDA_SUCCESS)
        *phGraph = graph;
    else if (graph)
        graph_destroy(graph);
    return result;
}

CUresult CUDAAPI cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!mode || (unsigned)*mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    CUstreamCaptureMode before = thread_mode;
    thread_mode = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}

/* No edge has data, so edgeData_out has nothing to point to. */
CUresult CUDAAPI cuStreamGetCaptureInfo(CUstream hStream, CUstreamCaptureStatus *captureStatus_out,
                                        cuuint64_t *id_out, CUgraph *graph_out,
                                        const CUgraphNode **dependencies_out,
                                        const CUgraphEdgeData **edgeData_out,
                                        size_t *numDependencies_out)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!captureStatus_out || (edgeData_out && !dependencies_out))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&lock);
    CUresult result = check_legacy(hStream, context, false);
    const capture *c = capture_of(hStream);
    *captureStatus_out = !c               ? CU_STREAM_CAPTURE_STATUS_NONE
                         : c->invalidated ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                          : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    if (c && !c->invalidated) {
        if (id_out)
            *id_out = c->id;
        if (graph_out)
            *graph_out = c->graph;
        if (dependencies_out)
            *dependencies_out = hStream->frontier.items;
        if (edgeData_out)
            *edgeData_out = NULL;
        if (numDependencies_out)
            *numDependencies_out = hStream->frontier.count;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

CUresult CUDAAPI cuStreamGetCaptureInfo_v2(CUstream hStream,
                                           CUstreamCaptureStatus *captureStatus_out,
                                           cuuint64_t *id_out, CUgraph *graph_out,
                                           const CUgraphNode **dependencies_out,
                                           size_t *numDependencies_out)
{
    return cuStreamGetCaptureInfo(hStream, captureStatus_out, id_out, graph_out, dependencies_out,
                                  NULL, numDependencies_out);
}

CUresult CUDAAPI cuStreamIsCapturing(CUstream hStream, CUstreamCaptureStatus *captureStatus)
{
    return cuStreamGetCaptureInfo(hStream, captureStatus, NULL, NULL, NULL, NULL, NULL);
}

/* The oldest form, under the name that cuda.h gives to the newest. */
#undef cuStreamGetCaptureInfo
CUresult CUDAAPI cuStreamGetCaptureInfo(CUstream hStream, CUstreamCaptureStatus *captureStatus_out,
                                        cuuint64_t *id_out);

CUresult CUDAAPI cuStreamGetCaptureInfo(CUstream hStream, CUstreamCaptureStatus *captureStatus_out,
                                        cuuint64_t *id_out)
{
    return cuStreamGetCaptureInfo_v2(hStream, captureStatus_out, id_out, NULL, NULL, NULL);
}
