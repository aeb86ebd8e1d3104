/*
 * cu_queue.c: see queue.h. A queue is a list of copied work and one thread, which lives while the
 * list has something. One lock guards all queues and the items that events stand for; no work runs
 * under it. An item is counted: its queue, events and items behind it in other queues hold it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "driver/cu_emulator.h"
#include "driver/queue.h"

typedef struct queue_item {
    struct queue_item *next;
    struct queue_item *after; /* in another queue: to be done before this one runs; or NULL */
    unsigned references;
    unsigned long long number; /* of all items, in the order of enqueueing */
    bool done;
    CUcontext context;
    trace_op *trace;
    graph_work work; /* its arguments are `copy`; kind NULL: nothing to run */
    max_align_t copy[];
} queue_item;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER; /* an item is done, or a thread ends */
static front_queue *busy;                                 /* the queues that have a thread */
static unsigned long long last_number;

/* ---- under the lock ------------------------------------------------------------------------- */

static bool is_default(CUstream stream)
{
    return stream == NULL || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD;
}

static front_queue *queue_of(CUstream stream, CUcontext context)
{
    return is_default(stream) ? &context->queue : &stream->queue;
}

/* Default streams and blocking streams of a context wait for each other. */
static bool is_tied(CUstream stream)
{
    return is_default(stream) || !(stream->flags & CU_STREAM_NON_BLOCKING);
}

/* Whether work in the stream comes after what the busy queue has. */
static bool comes_after(CUstream stream, CUcontext context, const front_queue *other)
{
    const front_queue *own = queue_of(stream, context);
    if (other == own)
        return true;
    return other->context == context && is_tied(stream) && other->is_tied &&
           (is_default(stream) || other == &context->queue);
}

static void drop(queue_item *item)
{
    if (item && --item->references == 0) {
        drop(item->after);
        free(item);
    }
}

static trace_op *trace(CUstream stream, CUcontext context, const char *category,
                       trace_describe *describe, const void *arguments)
{
    unsigned long long track = is_default(stream) ? context->id : stream->id;
    return trace_enqueue(track, context->device, category, describe, arguments);
}

static trace_op *trace_work(CUstream stream, CUcontext context, const graph_work *work)
{
    return trace(stream, context, work->kind->category, work->kind->describe, work->arguments);
}

static void end_queue(front_queue *queue)
{
    front_queue **link = &busy;
    while (*link != queue)
        link = &(*link)->next_busy;
    *link = queue->next_busy;
    queue->is_busy = false;
    pthread_cond_broadcast(&changed);
}

/* ---- the thread of a queue ------------------------------------------------------------------ */

/* Runs and ends an operation; what an item waits for is between its beginning and this. */
static CUresult run_begun(CUcontext context, const graph_work *work, trace_op *op)
{
    CUresult result = work->kind ? work->kind->run(context, work->arguments) : CUDA_SUCCESS;
    trace_end(op);
    return result;
}

static void run_item(const queue_item *item)
{
    bool skip;
    front_check_enqueue(item->context, &skip);
    if (skip)
        trace_drop(item->trace);
    CUresult result = skip ? CUDA_SUCCESS : run_begun(item->context, &item->work, item->trace);
    if (result == CUDA_SUCCESS)
        return;
    const char *name = "an unknown error";
    char report[160];
    cuGetErrorName(result, &name);
    snprintf(report, sizeof report,
             "libcuda (emulator): work behind an operation that waited ended with %s", name);
    front_record_fault(item->context, result, report);
}

static void *run_queue(void *argument)
{
    front_queue *queue = argument;
    pthread_mutex_lock(&lock);
    for (queue_item *item; (item = queue->first) != NULL;) {
        trace_begin(item->trace);
        while (item->after && !item->after->done)
            pthread_cond_wait(&changed, &lock);
        pthread_mutex_unlock(&lock);
        run_item(item);
        pthread_mutex_lock(&lock);
        queue->first = item->next;
        item->done = true;
        drop(item);
        pthread_cond_broadcast(&changed);
    }
    end_queue(queue);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static bool begin_thread(front_queue *queue)
{
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    bool begun = pthread_create(&thread, &attributes, run_queue, queue) == 0;
    pthread_attr_destroy(&attributes);
    return begun;
}

/* ---- adding --------------------------------------------------------------------------------- */

/* Takes the operation over. */
static CUresult append(CUstream stream, CUcontext context, const graph_work *work,
                       queue_item *after, trace_op *op)
{
    front_queue *queue = queue_of(stream, context);
    queue_item *item = calloc(1, sizeof *item + work->bytes);
    if (!item) {
        trace_drop(op);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    item->references = 1;
    item->number = ++last_number;
    item->context = context;
    item->trace = op;
    item->work = *work;
    if (work->bytes)
        item->work.arguments = memcpy(item->copy, work->arguments, work->bytes);
    queue_item *first = queue->first, *last = queue->last;
    if (first)
        last->next = item;
    else
        queue->first = item;
    queue->last = item;
    queue->context = context;
    queue->is_tied = is_tied(stream);
    if (!queue->is_busy) {
        if (!begin_thread(queue)) {
            queue->first = NULL;
            trace_drop(op);
            free(item);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        queue->is_busy = true;
        queue->next_busy = busy;
        busy = queue;
    }
    if (after) {
        item->after = after;
        after->references++;
    }
    return CUDA_SUCCESS;
}

static CUresult append_wait(CUstream stream, CUcontext context, queue_item *after, trace_op *op)
{
    return append(stream, context, &(graph_work){.kind = NULL}, after, op);
}

/* *queued: the stream has something left, so that what comes next must be added to it. */
static CUresult follow(bool *queued, CUstream stream, CUcontext context)
{
    front_queue *own = queue_of(stream, context);
    for (front_queue *other = busy; other; other = other->next_busy) {
        if (other != own && other->first && comes_after(stream, context, other))
            FRONT_TRY(append_wait(stream, context, other->last, NULL));
    }
    *queued = own->first != NULL;
    return CUDA_SUCCESS;
}

CUresult queue_run(CUstream stream, CUcontext context, const graph_work *work)
{
    bool queued;
    pthread_mutex_lock(&lock);
    CUresult result = follow(&queued, stream, context);
    trace_op *op = result == CUDA_SUCCESS ? trace_work(stream, context, work) : NULL;
    queued |= work->kind->waits;
    if (result == CUDA_SUCCESS && queued)
        result = append(stream, context, work, NULL, op);
    pthread_mutex_unlock(&lock);
    if (result != CUDA_SUCCESS || queued)
        return result;
    trace_begin(op);
    return run_begun(context, work, op);
}

CUresult queue_run_now(CUstream stream, CUcontext context, const graph_work *work)
{
    pthread_mutex_lock(&lock);
    trace_op *op = trace_work(stream, context, work);
    pthread_mutex_unlock(&lock);
    queue_wait_stream(stream, context);
    trace_begin(op);
    return run_begun(context, work, op);
}

/* ---- events --------------------------------------------------------------------------------- */

void queue_reach(CUevent event)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    event->milliseconds = 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
    event->recorded = true;
}

static CUresult run_reach(CUcontext context, const void *arguments)
{
    (void)context;
    CUevent event = *(const CUevent *)arguments;
    if (front_is(event, FRONT_EVENT)) /* it may have been destroyed */
        queue_reach(event);
    return CUDA_SUCCESS;
}

/* A graph's node may outlive its event. */
static const char *describe_event(FILE *args, const void *arguments, bool waits)
{
    CUevent event = *(const CUevent *)arguments;
    if (front_is(event, FRONT_EVENT))
        fprintf(args, ",\"event\":%llu", event->id);
    if (front_is(event, FRONT_EVENT) && waits && event->record)
        fprintf(args, ",\"waits_for\":%llu", event->record);
    return waits ? "wait for event" : "record event";
}

const char *queue_describe_record(FILE *args, const void *arguments)
{
    return describe_event(args, arguments, false);
}

const char *queue_describe_wait(FILE *args, const void *arguments)
{
    return describe_event(args, arguments, true);
}

static const graph_kind reach_kind = {CU_GRAPH_NODE_TYPE_EVENT_RECORD, false, run_reach, "record",
                                      queue_describe_record};

static CUresult record(CUevent event, CUstream stream, CUcontext context)
{
    bool queued;
    graph_work work = {&reach_kind, &event, sizeof event};
    queue_item *item = NULL;
    FRONT_TRY(follow(&queued, stream, context));
    trace_op *op = trace_work(stream, context, &work);
    unsigned long long number = trace_number(op);
    if (queued) {
        FRONT_TRY(append(stream, context, &work, NULL, op));
        item = queue_of(stream, context)->last;
        item->references++;
    } else {
        trace_begin(op);
        run_begun(context, &work, op);
    }
    drop(event->item);
    event->item = item;
    event->recorded = true;
    event->record = number;
    return CUDA_SUCCESS;
}

CUresult queue_record(CUevent event, CUstream stream, CUcontext context)
{
    pthread_mutex_lock(&lock);
    CUresult result = record(event, stream, context);
    pthread_mutex_unlock(&lock);
    return result;
}

static CUresult await(CUstream stream, CUcontext context, CUevent event)
{
    trace_op *op = trace(stream, context, "wait", queue_describe_wait, &event);
    bool waits = event->item && !event->item->done;
    if (waits || queue_of(stream, context)->first)
        return append_wait(stream, context, event->item, op);
    trace_begin(op);
    trace_end(op);
    return CUDA_SUCCESS;
}

CUresult queue_after(CUstream stream, CUcontext context, CUevent event)
{
    pthread_mutex_lock(&lock);
    CUresult result = await(stream, context, event);
    pthread_mutex_unlock(&lock);
    return result;
}

bool queue_is_reached(CUevent event)
{
    pthread_mutex_lock(&lock);
    bool reached = !event->item || event->item->done;
    pthread_mutex_unlock(&lock);
    return reached;
}

void queue_wait_event(CUevent event)
{
    pthread_mutex_lock(&lock);
    queue_item *item = event->item;
    if (item)
        item->references++;
    while (item && !item->done)
        pthread_cond_wait(&changed, &lock);
    drop(item);
    pthread_mutex_unlock(&lock);
}

void queue_forget(CUevent event)
{
    pthread_mutex_lock(&lock);
    drop(event->item);
    event->item = NULL;
    pthread_mutex_unlock(&lock);
}

/* ---- waiting -------------------------------------------------------------------------------- */

/* A busy queue that the stream comes after (whole: any of the context) and that has not yet run all
 * up to the number; or NULL. An empty queue counts until its thread has left it. */
static const front_queue *find_earlier(CUstream stream, CUcontext context, bool whole,
                                       unsigned long long number)
{
    for (const front_queue *queue = busy; queue; queue = queue->next_busy) {
        if ((whole ? queue->context == context : comes_after(stream, context, queue)) &&
            (!queue->first || queue->first->number <= number))
            return queue;
    }
    return NULL;
}

static void wait_earlier(CUstream stream, CUcontext context, bool whole)
{
    pthread_mutex_lock(&lock);
    unsigned long long number = last_number;
    while (find_earlier(stream, context, whole, number))
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

bool queue_is_empty(CUstream stream, CUcontext context)
{
    pthread_mutex_lock(&lock);
    bool empty = !find_earlier(stream, context, false, last_number);
    pthread_mutex_unlock(&lock);
    return empty;
}

void queue_wait_stream(CUstream stream, CUcontext context)
{
    wait_earlier(stream, context, false);
}

void queue_wait_context(CUcontext context)
{
    wait_earlier(NULL, context, true);
}

/* ---- for libraries that stand on the emulator ----------------------------------------------- */

typedef struct waiting_work {
    void (*call)(void *arguments);
    cuEmulatorDescribe *describe;
    max_align_t arguments[];
} waiting_work;

static CUresult run_waiting(CUcontext context, const void *arguments)
{
    (void)context;
    const waiting_work *waiting = arguments;
    waiting->call((void *)waiting->arguments);
    return CUDA_SUCCESS;
}

static const char *describe_waiting(FILE *args, const void *arguments)
{
    const waiting_work *waiting = arguments;
    return waiting->describe(args, waiting->arguments);
}

static const graph_kind waiting_kind = {CU_GRAPH_NODE_TYPE_HOST, true, run_waiting, "collective",
                                        describe_waiting};

CUresult cuEmulatorLaunchWaiting(CUstream stream, void (*call)(void *arguments),
                                 cuEmulatorDescribe *describe, const void *arguments, size_t bytes)
{
    waiting_work *waiting = malloc(sizeof *waiting + bytes);
    if (!waiting)
        return CUDA_ERROR_OUT_OF_MEMORY;
    waiting->call = call;
    waiting->describe = describe;
    memcpy(waiting->arguments, arguments, bytes);
    CUresult result =
        graph_enqueue(stream, &(graph_work){&waiting_kind, waiting, sizeof *waiting + bytes});
    free(waiting);
    return result;
}
