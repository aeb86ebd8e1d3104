/*
 * graph.h: work as a stream takes it, the graphs that work is captured into (cu_graph.c), and the
 * rules of stream capture (cu_capture.c).
 *
 * A graph lists its nodes in the order of capture. That order is a topological one, so a launch
 * runs the list from front to back; the edges serve queries, and the check that every fork was
 * joined.
 */
#ifndef GRAPH_H
#define GRAPH_H

#include "driver/front.h"
#include "driver/trace.h"

/* ---- work ----------------------------------------------------------------------------------- */

typedef struct graph_kind {
    CUgraphNodeType type;
    bool waits; /* for other processes or threads: never runs inside the call (queue.h) */
    CUresult (*run)(CUcontext context, const void *arguments);
    const char *category; /* these two: in the trace (trace.h) */
    trace_describe *describe;
} graph_kind;

/* Something a stream can run later: `arguments` can be copied byte for byte. */
typedef struct graph_work {
    const graph_kind *kind;
    void *arguments;
    size_t bytes;
} graph_work;

/* Runs the work, or adds a copy of it to the graph that the stream captures (cu_stream.c). Work
 * behind a fault that nobody has seen yet does not run, and is no error. */
CUresult graph_enqueue(CUstream stream, const graph_work *work);

/* ---- graphs --------------------------------------------------------------------------------- */

struct CUgraphNode_st {
    front_object object;
    graph_work work; /* its arguments are `copy` */
    front_nodes after;
    bool reached; /* scratch of graph_is_joined */
    max_align_t copy[];
};

struct CUgraph_st {
    front_object object;
    bool capturing; /* a capture owns it: it can be looked at, not destroyed or instantiated */
    front_nodes nodes;
};

/* An empty graph that is a live handle; NULL when out of memory. */
CUgraph graph_create(CUcontext context, bool capturing);
void graph_destroy(CUgraph graph);
/* Appends a node with a copy of the work. OUT_OF_MEMORY leaves the graph as it was. */
CUresult graph_append(CUgraphNode *out, CUgraph graph, const graph_work *work,
                      const front_nodes *after);
/* Whether all nodes come before the frontier or are in it. */
bool graph_is_joined(CUgraph graph, const front_nodes *frontier);

/* Sets of nodes; add and unite leave out what is there. OUT_OF_MEMORY changes nothing. */
CUresult graph_nodes_add(front_nodes *set, CUgraphNode node);
CUresult graph_nodes_unite(front_nodes *set, const front_nodes *other);
void graph_nodes_clear(front_nodes *set);

/* ---- capture -------------------------------------------------------------------------------- */

/* *captured says whether the stream captures and the graph took the work; an invalidated capture
 * is an error, and so is the legacy stream while a stream that it waits for captures. */
CUresult capture_add(bool *captured, CUstream stream, CUcontext context, const graph_work *work);
/* The same for recording an event and for waiting for one, which tie streams together instead. */
CUresult capture_record(bool *captured, CUevent event, CUstream stream, CUcontext context);
CUresult capture_wait(bool *captured, CUstream stream, CUcontext context, CUevent event);

/* The following refuse a call and invalidate the captures that it is in conflict with. */

/* Calls that CUDA calls potentially unsafe: see cuThreadExchangeStreamCaptureMode. */
CUresult capture_check_unsafe(void);
/* front_enter for them. */
CUresult capture_enter_unsafe(CUcontext *out);
/* Calls that wait for the stream, or whose work no graph can hold. */
CUresult capture_refuse_stream(CUstream stream, CUcontext context);
/* Calls that ask when an event was reached. */
CUresult capture_refuse_event(CUevent event);
/* Calls that wait for all streams of the context. */
CUresult capture_refuse_context(CUcontext context);

/* The stream ends: it leaves its capture, which is lost. */
void capture_leave(CUstream stream);

#endif
