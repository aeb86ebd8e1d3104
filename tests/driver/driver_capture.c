/* driver_capture.c: the rules of stream capture: what is forbidden, what a forbidden call does to
 * the capture, and how captures begin and end. */
#include <pthread.h>
#include <string.h>

#include "fixture.h"

typedef struct scene {
    CUcontext context;
    CUfunction store_at;
    CUstream stream, other; /* both non-blocking */
    CUdeviceptr memory;
    CUevent event, captured; /* recorded before and in the capture */
} scene;

static scene s;

/* A capture of `stream` has begun. */
static void open_scene(CUstreamCaptureMode mode)
{
    s.context = open_device();
    s.store_at = get_kernel(load_fixture(), "store_at");
    EXPECT_OK(cuStreamCreate(&s.stream, CU_STREAM_NON_BLOCKING));
    EXPECT_OK(cuStreamCreate(&s.other, CU_STREAM_NON_BLOCKING));
    EXPECT_OK(cuMemAlloc(&s.memory, 64));
    EXPECT_OK(cuEventCreate(&s.event, CU_EVENT_DEFAULT));
    EXPECT_OK(cuEventCreate(&s.captured, CU_EVENT_DEFAULT));
    EXPECT_OK(cuEventRecord(s.event, s.other));
    EXPECT_OK(cuStreamBeginCapture(s.stream, mode));
    EXPECT_OK(launch_store(s.store_at, s.memory, s.stream));
    EXPECT_OK(cuEventRecord(s.captured, s.stream));
}

static void expect_status(CUstream stream, CUstreamCaptureStatus wanted)
{
    CUstreamCaptureStatus found;
    EXPECT_OK(cuStreamIsCapturing(stream, &found));
    cr_expect_eq(found, wanted);
}

/* Ends the capture of `stream`; the call gives `wanted`. */
static void end_scene(CUresult wanted)
{
    CUgraph graph = (CUgraph)1;
    EXPECT_RESULT(wanted, cuStreamEndCapture(s.stream, &graph));
    cr_expect_eq(graph != NULL, wanted == CUDA_SUCCESS);
    if (graph)
        EXPECT_OK(cuGraphDestroy(graph));
    expect_status(s.stream, CU_STREAM_CAPTURE_STATUS_NONE);
}

/* ---- forbidden calls ------------------------------------------------------------------------ */

#define CALL(name, call)                                                                           \
    static CUresult call_##name(void)                                                              \
    {                                                                                              \
        return call;                                                                               \
    }
static void CUDA_CB never(CUstream stream, CUresult status, void *argument)
{
    cr_assert_fail("%p %d %p", (void *)stream, (int)status, argument);
}

static unsigned word;
static CUdeviceptr fresh;
static void *host;
static CUmodule module;
static float ms;
CALL(stream_synchronize, cuStreamSynchronize(s.stream))
CALL(stream_query, cuStreamQuery(s.stream))
CALL(context_synchronize, cuCtxSynchronize())
CALL(other_stream_synchronize, cuStreamSynchronize(s.other))
CALL(other_event_query, cuEventQuery(s.event))
CALL(other_event_synchronize, cuEventSynchronize(s.event))
CALL(alloc, cuMemAlloc(&fresh, 16))
CALL(free, cuMemFree(s.memory))
CALL(alloc_host, cuMemAllocHost(&host, 16))
CALL(register_host, cuMemHostRegister(&word, sizeof word, 0))
CALL(copy_in, cuMemcpyHtoD(s.memory, &word, 4))
CALL(copy_out, cuMemcpyDtoH(&word, s.memory, 4))
CALL(set, cuMemsetD32(s.memory, 1, 1))
CALL(load, cuModuleLoadData(&module, fixture_ptx))
CALL(alloc_async, cuMemAllocAsync(&fresh, 16, s.stream))
CALL(callback, cuStreamAddCallback(s.stream, never, NULL, 0))
CALL(event_query, cuEventQuery(s.captured))
CALL(event_synchronize, cuEventSynchronize(s.captured))
CALL(elapsed, cuEventElapsedTime(&ms, s.event, s.captured))
CALL(isolation, cuStreamWaitEvent(s.stream, s.event, 0))
CALL(legacy_fork, cuStreamWaitEvent(NULL, s.captured, 0))

static const struct {
    CUresult (*call)(void);
    const char *name;
    CUresult wanted;
    bool always; /* in relaxed mode too */
} forbidden[] = {
    {call_stream_synchronize, "synchronize", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, true},
    {call_stream_query, "query", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, true},
    {call_context_synchronize, "context", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, true},
    {call_other_stream_synchronize, "other", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, false},
    {call_other_event_query, "event", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, false},
    {call_other_event_synchronize, "event", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, false},
    {call_alloc, "alloc", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, false},
    {call_free, "free", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, false},
    {call_alloc_host, "alloc_host", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, false},
    {call_register_host, "register", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, false},
    {call_copy_in, "copy_in", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, false},
    {call_copy_out, "copy_out", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, false},
    {call_set, "set", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, false},
    {call_load, "load", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, false},
    {call_alloc_async, "alloc_async", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, true},
    {call_callback, "callback", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, true},
    {call_event_query, "captured event", CUDA_ERROR_CAPTURED_EVENT, true},
    {call_event_synchronize, "captured event", CUDA_ERROR_CAPTURED_EVENT, true},
    {call_elapsed, "elapsed", CUDA_ERROR_CAPTURED_EVENT, true},
    {call_isolation, "isolation", CUDA_ERROR_STREAM_CAPTURE_ISOLATION, true},
    {call_legacy_fork, "legacy fork", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, true},
};
enum { FORBIDDEN = sizeof forbidden / sizeof forbidden[0] };

Test(capture, a_forbidden_call_fails_and_invalidates_it)
{
    for (int i = 0; i < FORBIDDEN; i++) {
        open_scene(CU_STREAM_CAPTURE_MODE_GLOBAL);
        expect_result(forbidden[i].wanted, forbidden[i].call(), forbidden[i].name, __LINE__);
        expect_status(s.stream, CU_STREAM_CAPTURE_STATUS_INVALIDATED);
        EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
                      launch_store(s.store_at, s.memory, s.stream));
        EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuEventRecord(s.captured, s.stream));
        end_scene(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        EXPECT_OK(cuMemcpyHtoD(s.memory, &word, 4)); /* all is as before */
        EXPECT_OK(cuCtxDestroy(s.context));
    }
}

Test(capture, a_relaxed_one_forbids_only_what_contradicts_it)
{
    for (int i = 0; i < FORBIDDEN; i++) {
        open_scene(CU_STREAM_CAPTURE_MODE_RELAXED);
        CUresult wanted = forbidden[i].always ? forbidden[i].wanted : CUDA_SUCCESS;
        expect_result(wanted, forbidden[i].call(), forbidden[i].name, __LINE__);
        end_scene(forbidden[i].always ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS);
        EXPECT_OK(cuCtxDestroy(s.context));
    }
}

Test(capture, calls_that_wait_for_nothing_are_allowed)
{
    open_scene(CU_STREAM_CAPTURE_MODE_GLOBAL);
    CUstream stream;
    CUevent event;
    size_t free_bytes, total;
    EXPECT_OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    EXPECT_OK(cuEventCreate(&event, CU_EVENT_DEFAULT));
    EXPECT_OK(cuMemGetInfo(&free_bytes, &total));
    EXPECT_OK(launch_store(s.store_at, s.memory, s.other)); /* runs at once */
    EXPECT_OK(cuStreamWaitEvent(s.stream, event, 0));       /* never recorded: no dependency */
    EXPECT_OK(cuEventDestroy(event));
    EXPECT_OK(cuStreamDestroy(stream));
    end_scene(CUDA_SUCCESS);
    EXPECT_OK(cuMemcpyDtoH(&word, s.memory, 4));
    cr_expect_eq(word, 7);
    EXPECT_OK(cuCtxDestroy(s.context));
}

/* ---- threads -------------------------------------------------------------------------------- */

typedef struct visit {
    CUstreamCaptureMode mode; /* of the visiting thread; afterwards what it was before */
    CUresult (*call)(void);
    CUresult result;
} visit;

static void *visit_thread(void *argument)
{
    visit *v = argument;
    v->result = cuCtxSetCurrent(s.context);
    if (v->result == CUDA_SUCCESS)
        v->result = cuThreadExchangeStreamCaptureMode(&v->mode);
    if (v->result == CUDA_SUCCESS)
        v->result = v->call();
    return NULL;
}

/* The call's result in a thread of its own with that mode. */
static CUresult elsewhere(CUstreamCaptureMode mode, CUresult (*call)(void))
{
    visit v = {mode, call, CUDA_SUCCESS};
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, visit_thread, &v), 0);
    pthread_join(thread, NULL);
    cr_expect_eq(v.mode, CU_STREAM_CAPTURE_MODE_GLOBAL); /* every thread begins so */
    return v.result;
}

Test(capture, another_thread_is_held_back_when_both_modes_are_global)
{
    enum { G = CU_STREAM_CAPTURE_MODE_GLOBAL, T, R };
    static const struct {
        int capture, thread;
        CUresult wanted;
    } cases[] = {
        {G, G, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED},
        {G, T, CUDA_SUCCESS},
        {G, R, CUDA_SUCCESS},
        {T, G, CUDA_SUCCESS},
        {T, T, CUDA_SUCCESS},
        {R, G, CUDA_SUCCESS},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        open_scene((CUstreamCaptureMode)cases[i].capture);
        EXPECT_RESULT(cases[i].wanted, elsewhere((CUstreamCaptureMode)cases[i].thread, call_alloc));
        end_scene(cases[i].wanted ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS);
        EXPECT_OK(cuCtxDestroy(s.context));
    }
}

Test(capture, the_mode_of_its_own_thread_loosens_it_only_when_relaxed)
{
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    open_scene(CU_STREAM_CAPTURE_MODE_GLOBAL);
    EXPECT_OK(cuThreadExchangeStreamCaptureMode(&mode));
    EXPECT_OK(cuMemAlloc(&fresh, 16));
    mode = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    EXPECT_OK(cuThreadExchangeStreamCaptureMode(&mode));
    cr_expect_eq(mode, CU_STREAM_CAPTURE_MODE_RELAXED);
    EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemAlloc(&fresh, 16));
    end_scene(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    mode = (CUstreamCaptureMode)3;
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuThreadExchangeStreamCaptureMode(&mode));
    EXPECT_OK(cuCtxDestroy(s.context));
}

static CUresult call_end(void)
{
    CUgraph graph;
    CUresult result = cuStreamEndCapture(s.stream, &graph);
    return result == CUDA_SUCCESS ? cuGraphDestroy(graph) : result;
}

Test(capture, only_a_relaxed_one_may_end_in_another_thread)
{
    open_scene(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD,
                  elsewhere(CU_STREAM_CAPTURE_MODE_GLOBAL, call_end));
    end_scene(CUDA_SUCCESS);
    EXPECT_OK(cuStreamBeginCapture(s.stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    EXPECT_OK(elsewhere(CU_STREAM_CAPTURE_MODE_GLOBAL, call_end));
    EXPECT_OK(cuCtxDestroy(s.context));
}

/* ---- beginning and ending ------------------------------------------------------------------- */

Test(capture, begins_only_in_a_created_stream_that_does_not_capture)
{
    open_scene(CU_STREAM_CAPTURE_MODE_GLOBAL);
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
    EXPECT_RESULT(CUDA_ERROR_ILLEGAL_STATE, cuStreamBeginCapture(s.stream, mode));
    EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuStreamBeginCapture(NULL, mode));
    EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
                  cuStreamBeginCapture(CU_STREAM_LEGACY, mode));
    EXPECT_RESULT(CUDA_ERROR_NOT_SUPPORTED, cuStreamBeginCapture(CU_STREAM_PER_THREAD, mode));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuStreamBeginCapture(s.other, (CUstreamCaptureMode)3));
    end_scene(CUDA_SUCCESS);
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuStreamEndCapture(s.stream, NULL));
    CUgraph graph;
    EXPECT_RESULT(CUDA_ERROR_ILLEGAL_STATE, cuStreamEndCapture(s.stream, &graph));
    EXPECT_RESULT(CUDA_ERROR_ILLEGAL_STATE, cuStreamEndCapture(NULL, &graph));
    EXPECT_OK(cuCtxDestroy(s.context));
}

Test(capture, ends_in_the_stream_it_began_in)
{
    open_scene(CU_STREAM_CAPTURE_MODE_GLOBAL);
    CUgraph graph;
    EXPECT_OK(cuStreamWaitEvent(s.other, s.captured, 0));
    EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, cuStreamEndCapture(s.other, &graph));
    end_scene(CUDA_SUCCESS);
    EXPECT_OK(cuCtxDestroy(s.context));
}

Test(capture, two_of_them_cannot_merge)
{
    open_scene(CU_STREAM_CAPTURE_MODE_GLOBAL);
    CUgraph graph;
    EXPECT_OK(cuStreamBeginCapture(s.other, CU_STREAM_CAPTURE_MODE_GLOBAL));
    EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_MERGE, cuStreamWaitEvent(s.other, s.captured, 0));
    EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(s.other, &graph));
    end_scene(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    EXPECT_OK(cuCtxDestroy(s.context));
}

Test(capture, its_events_stay_captured_until_they_are_recorded_again)
{
    open_scene(CU_STREAM_CAPTURE_MODE_GLOBAL);
    end_scene(CUDA_SUCCESS);
    EXPECT_RESULT(CUDA_ERROR_CAPTURED_EVENT, cuEventQuery(s.captured));
    EXPECT_RESULT(CUDA_ERROR_CAPTURED_EVENT, cuStreamWaitEvent(s.other, s.captured, 0));
    EXPECT_OK(cuEventRecord(s.captured, s.stream));
    EXPECT_OK(cuEventQuery(s.captured));
    EXPECT_OK(cuStreamWaitEvent(s.other, s.captured, 0));
    EXPECT_OK(cuCtxDestroy(s.context));
}

Test(capture, of_a_blocking_stream_keeps_the_legacy_stream_from_work)
{
    open_scene(CU_STREAM_CAPTURE_MODE_RELAXED);
    CUstreamCaptureStatus status;
    CUstream blocking;
    EXPECT_OK(launch_store(s.store_at, s.memory, NULL)); /* it does not wait for `stream` */
    EXPECT_OK(cuStreamCreate(&blocking, CU_STREAM_DEFAULT));
    EXPECT_OK(cuStreamWaitEvent(blocking, s.captured, 0));
    EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, cuStreamIsCapturing(NULL, &status));
    expect_status(s.stream, CU_STREAM_CAPTURE_STATUS_ACTIVE);
    EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, launch_store(s.store_at, s.memory, NULL));
    end_scene(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

    EXPECT_OK(cuStreamBeginCapture(blocking, CU_STREAM_CAPTURE_MODE_RELAXED));
    EXPECT_OK(launch_store(s.store_at, s.memory, CU_STREAM_PER_THREAD));
    EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, cuMemcpyHtoD(s.memory, &word, 4));
    EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, cuEventRecord(s.event, CU_STREAM_LEGACY));
    EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, cuStreamSynchronize(NULL));
    CUgraph graph;
    EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(blocking, &graph));
    EXPECT_OK(launch_store(s.store_at, s.memory, NULL));
    EXPECT_OK(cuCtxDestroy(s.context));
}

Test(capture, tells_its_graph_its_number_and_what_comes_next_depends_on)
{
    open_scene(CU_STREAM_CAPTURE_MODE_GLOBAL);
    CUstreamCaptureStatus status;
    cuuint64_t id = 0, again = 0;
    CUgraph graph = NULL, ended = NULL;
    CUgraphExec exec;
    const CUgraphNode *after = NULL;
    const CUgraphEdgeData *edges = NULL;
    CUgraphNode only = NULL;
    size_t count = 0;
    EXPECT_OK(cuStreamGetCaptureInfo(s.stream, &status, &id, &graph, &after, &edges, &count));
    cr_expect_eq(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
    cr_assert_eq(count, 1);
    CUgraphNode first = after[0];
    EXPECT_OK(cuGraphGetNodes(graph, &only, &count));
    cr_expect_eq(first, only);
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGraphDestroy(graph));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGraphInstantiate(&exec, graph, 0));
    EXPECT_OK(launch_store(s.store_at, s.memory, s.stream));
    EXPECT_OK(cuStreamGetCaptureInfo(s.stream, &status, &again, NULL, &after, NULL, &count));
    cr_expect_eq(again, id);
    cr_assert_eq(count, 1);
    cr_expect_neq(after[0], first);
    EXPECT_OK(cuStreamWaitEvent(s.stream, s.captured, 0)); /* adds the first node */
    EXPECT_OK(cuStreamGetCaptureInfo(s.stream, &status, NULL, NULL, &after, NULL, &count));
    cr_expect_eq(count, 2);
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE,
                  cuStreamGetCaptureInfo(s.stream, &status, NULL, NULL, NULL, &edges, NULL));
    EXPECT_OK(cuStreamEndCapture(s.stream, &ended));
    cr_expect_eq(ended, graph);
    EXPECT_OK(cuGraphInstantiate(&exec, graph, 0));
    EXPECT_OK(cuCtxDestroy(s.context));
}

Test(capture, is_told_through_the_older_forms_too)
{
    open_scene(CU_STREAM_CAPTURE_MODE_GLOBAL);
    CUresult (*oldest)(CUstream, CUstreamCaptureStatus *, cuuint64_t *) = NULL;
    CUresult (*older)(CUstream, CUstreamCaptureStatus *, cuuint64_t *, CUgraph *,
                      const CUgraphNode **, size_t *) = NULL;
    CUresult (*instantiate)(CUgraphExec *, CUgraph, CUgraphNode *, char *, size_t) = NULL;
    void *address;
    CUstreamCaptureStatus status;
    cuuint64_t id = 0, again = 0;
    CUgraph graph = NULL;
    CUgraphExec exec;
    const CUgraphNode *after;
    size_t count = 0;
    char log[8] = "log";
    EXPECT_OK(cuGetProcAddress("cuStreamGetCaptureInfo", &address, 10010, 0, NULL));
    memcpy(&oldest, &address, sizeof oldest);
    EXPECT_OK(cuGetProcAddress("cuStreamGetCaptureInfo", &address, 11030, 0, NULL));
    memcpy(&older, &address, sizeof older);
    EXPECT_OK(cuGetProcAddress("cuGraphInstantiate", &address, 11000, 0, NULL));
    memcpy(&instantiate, &address, sizeof instantiate);
    EXPECT_OK(oldest(s.stream, &status, &id));
    EXPECT_OK(older(s.stream, &status, &again, &graph, &after, &count));
    cr_expect(id != 0 && id == again && count == 1);
    EXPECT_OK(cuStreamEndCapture(s.stream, &graph));
    EXPECT_OK(instantiate(&exec, graph, NULL, log, sizeof log));
    cr_expect_str_empty(log);
    EXPECT_OK(cuCtxDestroy(s.context));
}

Test(capture, is_lost_with_its_stream_or_its_context)
{
    open_scene(CU_STREAM_CAPTURE_MODE_GLOBAL);
    EXPECT_OK(cuStreamWaitEvent(s.other, s.captured, 0));
    EXPECT_OK(cuStreamDestroy(s.other));
    end_scene(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    EXPECT_OK(cuStreamBeginCapture(s.stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    EXPECT_OK(launch_store(s.store_at, s.memory, s.stream));
    EXPECT_OK(cuStreamDestroy(s.stream));
    EXPECT_OK(cuMemFree(s.memory)); /* nothing captures any more */
    EXPECT_OK(cuCtxDestroy(s.context));

    open_scene(CU_STREAM_CAPTURE_MODE_GLOBAL);
    EXPECT_OK(cuStreamWaitEvent(s.other, s.captured, 0));
    EXPECT_OK(cuCtxDestroy(s.context));
    open_scene(CU_STREAM_CAPTURE_MODE_GLOBAL);
    end_scene(CUDA_SUCCESS);
    EXPECT_OK(cuCtxDestroy(s.context));
}
