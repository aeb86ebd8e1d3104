/*
 * queue.h: streams that wait. Work runs inside the call that enqueues it as long as nothing before
 * it waits; work that waits for other processes or threads (cuEmulatorLaunchWaiting), and all that
 * comes after it in stream order, runs on a thread of the stream's own, so that the call returns.
 */
#ifndef QUEUE_H
#define QUEUE_H

#include "driver/graph.h"

/* Runs the work, or adds a copy of it behind what the stream waits for: an error of its own is then
 * a fault of the context. */
CUresult queue_run(CUstream stream, CUcontext context, const graph_work *work);
/* Runs the work in this thread when all before it has run; gives its own error. */
CUresult queue_run_now(CUstream stream, CUcontext context, const graph_work *work);
/* The event is reached when all before it in the stream has run. */
CUresult queue_record(CUevent event, CUstream stream, CUcontext context);
/* What comes next in the stream runs when the event has been reached. */
CUresult queue_after(CUstream stream, CUcontext context, CUevent event);

/* Describe works whose argument is an event, and waiting for it. */
trace_describe queue_describe_record, queue_describe_wait;
/* The event is reached now. */
void queue_reach(CUevent event);
bool queue_is_reached(CUevent event);
/* Returns when the event is reached. */
void queue_wait_event(CUevent event);
/* The event is recorded elsewhere, or ends. */
void queue_forget(CUevent event);

/* Whether the stream has nothing left to run; a default stream stands for all that it waits for. */
bool queue_is_empty(CUstream stream, CUcontext context);
/* These two return when all work has run that was enqueued before the call. */
void queue_wait_stream(CUstream stream, CUcontext context);
void queue_wait_context(CUcontext context);

#endif
