/* nccl_comm.c: see nccl_comm.h, and the parts of the API that ask about one communicator. */
#include "nccl/nccl_comm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the list and of references */
static ncclComm_t live;
static uint64_t last_id;

/* ---- handles -------------------------------------------------------------------------------- */

void comm_add(ncclComm_t comm)
{
    pthread_mutex_lock(&lock);
    comm->id = ++last_id;
    comm->references = 1;
    comm->next = live;
    live = comm;
    pthread_mutex_unlock(&lock);
}

static ncclComm_t *find_link(ncclComm_t handle)
{
    ncclComm_t *link = &live;
    while (*link && *link != handle)
        link = &(*link)->next;
    return link;
}

ncclComm_t comm_hold(ncclComm_t handle, uint64_t id)
{
    pthread_mutex_lock(&lock);
    ncclComm_t found = *find_link(handle);
    if (found && id && found->id != id)
        found = NULL;
    if (found)
        found->references++;
    pthread_mutex_unlock(&lock);
    return found;
}

bool comm_remove(ncclComm_t handle)
{
    pthread_mutex_lock(&lock);
    ncclComm_t *link = find_link(handle);
    bool found = *link != NULL;
    if (found)
        *link = handle->next;
    pthread_mutex_unlock(&lock);
    return found;
}

void comm_drop(ncclComm_t comm)
{
    pthread_mutex_lock(&lock);
    bool last = --comm->references == 0;
    pthread_mutex_unlock(&lock);
    if (!last)
        return;
    if (comm->shared)
        segment_leave(comm->shared, comm->fd);
    pthread_mutex_destroy(&comm->turn);
    pthread_mutex_destroy(&comm->lock);
    free(comm);
}

/* ---- errors --------------------------------------------------------------------------------- */

void comm_fail(ncclComm_t comm, ncclResult_t code, const char *text)
{
    pthread_mutex_lock(&comm->lock);
    bool first = comm->failed == ncclSuccess;
    if (first) {
        snprintf(comm->text, sizeof comm->text, "%s", text);
        comm->failed = code;
    }
    pthread_mutex_unlock(&comm->lock);
    if (!first || atomic_load(&comm->is_aborted))
        return;
    fprintf(stderr, "libnccl (emulator): rank %d of %d: %s: %s\n", comm->rank, comm->ranks,
            ncclGetErrorString(code), text);
    segment_rank *own = &comm->shared->ranks[comm->rank];
    memcpy(own->text, comm->text, sizeof own->text);
    atomic_store(&own->failed, (int)code);
    segment_raise(comm->shared);
}

static ncclResult_t own_error(ncclComm_t comm)
{
    pthread_mutex_lock(&comm->lock);
    ncclResult_t failed = comm->failed;
    if (failed != ncclSuccess)
        error_set(failed, "%s", comm->text);
    pthread_mutex_unlock(&comm->lock);
    return failed;
}

ncclResult_t comm_error(ncclComm_t comm)
{
    char text[SEGMENT_TEXT];
    for (int rank = 0; rank < comm->ranks && own_error(comm) == ncclSuccess; rank++) {
        const segment_rank *other = &comm->shared->ranks[rank];
        int failed = atomic_load(&other->failed);
        if (failed != ncclSuccess) {
            comm_fail(comm, (ncclResult_t)failed, other->text);
        } else if (rank != comm->rank && atomic_load(&other->state) == RANK_ABORTED) {
            snprintf(text, sizeof text, "rank %d has aborted the communicator", rank);
            comm_fail(comm, ncclRemoteError, text);
        }
    }
    return own_error(comm);
}

void comm_check_alive(ncclComm_t comm)
{
    char text[SEGMENT_TEXT];
    for (int rank = 0; rank < comm->ranks; rank++) {
        const segment_rank *other = &comm->shared->ranks[rank];
        /* asked before the state: a rank leaves first, and lets go of its lock then */
        if (rank == comm->rank || segment_is_alive(comm->fd, rank) ||
            atomic_load(&other->state) != RANK_JOINED)
            continue;
        snprintf(text, sizeof text, "rank %d (process %d) has ended without leaving", rank,
                 (int)other->process_id);
        comm_fail(comm, ncclRemoteError, text);
    }
}

/* ---- the API -------------------------------------------------------------------------------- */

static ncclResult_t bad_handle(const char *call)
{
    return error_set(ncclInvalidArgument, "%s: not a live communicator, or a NULL argument", call);
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *asyncError)
{
    ncclComm_t held = asyncError ? comm_hold(comm, 0) : NULL;
    if (!held)
        return bad_handle("ncclCommGetAsyncError");
    comm_check_alive(held);
    *asyncError = comm_error(held);
    comm_drop(held);
    return ncclSuccess;
}

const char *ncclGetLastError(ncclComm_t comm)
{
    ncclComm_t held = comm_hold(comm, 0);
    if (held) {
        comm_error(held);
        comm_drop(held);
    }
    return error_text();
}

#define GETTER(name, type, value)                                                                  \
    ncclResult_t name(const ncclComm_t comm, type *out)                                            \
    {                                                                                              \
        ncclComm_t held = out ? comm_hold(comm, 0) : NULL;                                         \
        if (!held)                                                                                 \
            return bad_handle(#name);                                                              \
        *out = value;                                                                              \
        comm_drop(held);                                                                           \
        return ncclSuccess;                                                                        \
    }

GETTER(ncclCommCount, int, held->ranks)
GETTER(ncclCommCuDevice, int, held->device)
GETTER(ncclCommUserRank, int, held->rank)
