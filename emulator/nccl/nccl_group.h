/*
 * nccl_group.h: calls of a thread between ncclGroupStart and ncclGroupEnd. A call outside of a
 * group is a group of its own.
 */
#ifndef NCCL_GROUP_H
#define NCCL_GROUP_H

#include "nccl/nccl_op.h"

/* An operation and the stream it was called with. */
typedef struct group_call {
    nccl_op op;
    CUstream stream;
} group_call;

/* A call that waits for other ranks in the calling process: making a communicator. Its thread runs
 * `run`; the context is current there. */
typedef struct group_job {
    ncclResult_t (*run)(struct group_job *job);
    CUcontext context;
    ncclComm_t *out;
    ncclUniqueId id;
    int rank, ranks;
    ncclComm_t parent; /* of a split */
    int color, key;
    ncclResult_t result;
    char text[SEGMENT_TEXT];
} group_job;

/* These two begin and end a call: the call's result goes through group_end. */
void group_begin(void);
ncclResult_t group_end(ncclResult_t result);
/* Inside: added to the group. */
ncclResult_t group_add_call(const group_call *call);
ncclResult_t group_add_job(const group_job *job);

/* Enqueues the operations on their streams (nccl_launch.c). */
ncclResult_t launch_calls(const group_call *calls, size_t count);

#endif
