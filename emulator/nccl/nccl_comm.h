/*
 * nccl_comm.h: a rank's side of a communicator: its place in the shared memory, its counters, and
 * its error. A failed communicator stays failed; the first error is kept, is published to the other
 * ranks, who take it over, and goes to stderr once a rank.
 */
#ifndef NCCL_COMM_H
#define NCCL_COMM_H

#include <pthread.h>

#include <cuda.h>

#include "nccl/nccl_error.h"
#include "nccl/nccl_segment.h"

struct ncclComm {
    struct ncclComm *next; /* in the list of live ones */
    uint64_t id;           /* never used again, as the address may be */
    unsigned references;   /* of the list, and of those who work with it */

    segment *shared;
    int fd;
    int rank, ranks;
    CUdevice device;
    CUcontext context;

    /* Of the thread that holds `turn`: it runs operations, one after the other. */
    pthread_mutex_t turn;
    uint64_t collectives, chunks; /* chunks of collectives, in all */
    uint64_t sends[SEGMENT_MOST_RANKS], receives[SEGMENT_MOST_RANKS];

    /* Of the thread that enqueues (nccl_launch.c): operations come one after the other. */
    CUevent chain; /* behind the last operation */
    CUevent joint; /* for groups that use several streams */
    CUstream last;
    bool is_chained;

    pthread_mutex_t lock; /* of the rest */
    ncclResult_t failed;
    char text[SEGMENT_TEXT];
    bool is_finalized;
    _Atomic bool is_aborted;
};

/* Makes it a live handle; it has one reference. */
void comm_add(ncclComm_t comm);
/* The communicator with one more reference, or NULL when it is dead; id 0: any. */
ncclComm_t comm_hold(ncclComm_t handle, uint64_t id);
void comm_drop(ncclComm_t comm);
/* The handle is dead from now on; false: it was. */
bool comm_remove(ncclComm_t handle);

/* Keeps the error and tells the other ranks. `text` has what happened, with both sides. */
void comm_fail(ncclComm_t comm, ncclResult_t code, const char *text);
/* The communicator's error, its own or one that another rank has published. */
ncclResult_t comm_error(ncclComm_t comm);
/* Looks for ranks that have ended without leaving; they make the communicator fail. */
void comm_check_alive(ncclComm_t comm);

#endif
