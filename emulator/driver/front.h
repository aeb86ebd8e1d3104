/*
 * front.h: what the files of the Driver API front share: handles, contexts, the thread's stack of
 * current contexts, and how a device fault travels to the calls that come after it.
 *
 * A context owns one machine (emu.h), so destroying it takes its memory with it. Work runs to its
 * end inside the call that enqueues it, unless the stream captures (graph.h) or has work that waits
 * for others (queue.h); streams therefore are mostly empty, and the order of work is that of calls.
 */
#ifndef FRONT_H
#define FRONT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <cuda.h>
#include <cudaProfiler.h>

#include "core/emu.h"
#include "driver/options.h"

#define FRONT_DRIVER_VERSION 13000 /* what cuDriverGetVersion answers: CUDA 13.0 */

/* ---- handles -------------------------------------------------------------------------------- */

typedef enum front_kind {
    FRONT_CONTEXT,
    FRONT_MODULE,
    FRONT_FUNCTION,
    FRONT_STREAM,
    FRONT_EVENT,
    FRONT_GRAPH,
    FRONT_GRAPH_NODE,
    FRONT_GRAPH_EXEC,
    FRONT_HOST_MEMORY
} front_kind;

/* The first member of everything a program holds a handle to. */
typedef struct front_object {
    struct front_object *next; /* in its bucket of the table of live handles */
    front_kind kind;
    CUcontext context;
    void (*release)(struct front_object *object); /* frees the object, already out of the table */
} front_object;

/* Makes the object a live handle. */
void front_add(front_object *object);
/* Whether the handle is alive and of that kind; any pointer value may be asked. */
bool front_is(const void *handle, front_kind kind);
/* Takes a live handle out of the table without releasing it; false when it is none. */
bool front_remove(void *handle, front_kind kind);
/* Removes and releases everything that belongs to the context. */
void front_release_all(CUcontext context);
/* The page-locked allocation or registration that holds the host address, or NULL. */
struct front_host_memory *front_find_host_memory(const void *address);

/* ---- devices and contexts ------------------------------------------------------------------- */

/* What a stream has still to run; the fields belong to cu_queue.c. */
typedef struct front_queue {
    struct queue_item *first, *last;
    struct front_queue *next_busy;
    CUcontext context;
    bool is_busy; /* it has a thread */
    bool is_tied; /* it is a default stream's or a blocking stream's */
} front_queue;

typedef struct front_device {
    CUcontext primary; /* NULL while nobody retains it */
    unsigned retained;
    unsigned flags;
} front_device;

struct CUctx_st {
    front_object object;
    CUcontext next; /* in the list of live contexts */
    CUdevice device;
    unsigned flags;
    unsigned long long id;
    emu_machine *machine;
    size_t limits[CU_LIMIT_MAX];
    front_queue queue;    /* of the default streams */
    pthread_mutex_t lock; /* of the two below */
    CUresult fault;       /* the device fault that ended this context, or CUDA_SUCCESS */
    bool fault_seen;      /* a synchronising call has returned it: every call does from now on */
};

struct CUmod_st {
    front_object object;
    emu_module *module;
    CUfunction *functions; /* one for each kernel, made at load */
    int function_count;
};

struct CUfunc_st {
    front_object object;
    CUmodule module;
    emu_function *function;
    emu_function_attributes attributes;
    int max_dynamic_shared; /* CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES */
    int carveout, cluster_policy;
    bool has_large_clusters; /* CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED */
};

/* A set of graph nodes (graph.h). */
typedef struct front_nodes {
    CUgraphNode *items;
    size_t count, capacity;
} front_nodes;

struct CUstream_st {
    front_object object;
    unsigned flags;
    int priority;
    unsigned long long id;
    front_queue queue;
    struct capture *capture;  /* what follows belongs to cu_capture.c; NULL: not capturing */
    CUstream next_in_capture; /* another stream of the same capture */
    front_nodes frontier;     /* the nodes that the next one comes after */
};

struct CUevent_st {
    front_object object;
    unsigned flags;
    unsigned long long id;
    bool recorded;
    unsigned long long record;   /* the number of its last recording in the trace, or 0 */
    double milliseconds;         /* of the monotonic clock when it was reached */
    struct queue_item *item;     /* it is reached when this is done (cu_queue.c); NULL: it is */
    unsigned long long captured; /* the capture it was last recorded in (cu_capture.c), or 0 */
    front_nodes frontier;        /* the nodes it stands for there */
};

typedef struct front_host_memory {
    front_object object;
    void *base;
    size_t bytes;
    unsigned flags;
    bool registered; /* the caller's own memory: not freed here */
} front_host_memory;

extern front_options front_settings;      /* read by cuInit */
extern pthread_mutex_t front_device_lock; /* of front_devices and of making and ending contexts */
extern front_device *front_devices;       /* front_settings.device_count of them */

/* cuInit was called, in this process. */
bool front_initialized(void);
/* This process was forked from one that had called cuInit: the threads that run blocks, and whoever
 * held a lock, are not in it. As with CUDA, no call works here. */
extern atomic_bool front_forked;
/* NOT_INITIALIZED, INVALID_DEVICE, or success. */
CUresult front_check_device(CUdevice device);
unsigned long long front_new_id(void);

/* Makes a context with its machine and puts it in the list of live contexts. */
CUresult front_context_create(CUcontext *out, unsigned flags, CUdevice device);
/* Releases all it owns; the handle is dead afterwards. */
void front_context_destroy(CUcontext context);
/* The live context whose memory holds the address, the current one first; or NULL. */
CUcontext front_find_memory(CUdeviceptr address);

/* The thread's stack of contexts. The top may be NULL, or a context that was destroyed. */
CUcontext front_top(void);
CUresult front_push(CUcontext context);
bool front_pop(CUcontext *out); /* false: the stack is empty */
CUresult front_set_top(CUcontext context);

/* The current context: NOT_INITIALIZED, INVALID_CONTEXT or CONTEXT_IS_DESTROYED when unusable. */
CUresult front_current(CUcontext *out);
/* front_current, and the context's fault when it has one: for calls that wait for the device. */
CUresult front_enter(CUcontext *out);
/* The same for a context that the caller found by a handle. */
CUresult front_check_fault(CUcontext context);
/* For calls that only enqueue: a fault nobody has seen yet is not returned, *skip is set instead
 * and the work must not run. */
CUresult front_check_enqueue(CUcontext context, bool *skip);
/* Remembers a fault and its report (printed to stderr here, once). */
void front_record_fault(CUcontext context, CUresult fault, const char *report);

/* The context of a stream; the default streams belong to the current one. INVALID_HANDLE. */
CUresult front_read_config(emu_launch *out, const CUlaunchConfig *config); /* cu_launch.c */
CUresult front_check_cluster(CUfunction function, const emu_launch *launch);
CUresult front_stream_context(CUcontext *out, CUstream stream);

/* Forms of the API that older headers declare; cuda.h has the newest only. */
CUresult CUDAAPI cuCtxCreate_v2(CUcontext *pctx, unsigned int flags, CUdevice dev);
CUresult CUDAAPI cuCtxCreate_v3(CUcontext *pctx, CUexecAffinityParam *paramsArray, int numParams,
                                unsigned int flags, CUdevice dev);
CUresult CUDAAPI cuGraphInstantiate_v2(CUgraphExec *phGraphExec, CUgraph hGraph,
                                       CUgraphNode *phErrorNode, char *logBuffer,
                                       size_t bufferSize);
CUresult CUDAAPI cuStreamGetCaptureInfo_v2(CUstream hStream,
                                           CUstreamCaptureStatus *captureStatus_out,
                                           cuuint64_t *id_out, CUgraph *graph_out,
                                           const CUgraphNode **dependencies_out,
                                           size_t *numDependencies_out);

/* Returns from the function unless the call succeeded. */
#define FRONT_TRY(call)                                                                            \
    do {                                                                                           \
        CUresult front_result_ = (call);                                                           \
        if (front_result_ != CUDA_SUCCESS)                                                         \
            return front_result_;                                                                  \
    } while (0)

#endif
