/* nccl_init.c: making, splitting and ending communicators. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nccl/nccl_group.h"

#define LOOK_MS 100 /* how often a waiting rank looks whether the others live */

/* ---- joining -------------------------------------------------------------------------------- */

/* How many ranks have joined; *missing: one that has not. */
static int count_joined(const segment *shared, int ranks, int *missing)
{
    int joined = 0;
    for (int rank = 0; rank < ranks; rank++) {
        if (atomic_load(&shared->ranks[rank].state) != RANK_ABSENT)
            joined++;
        else
            *missing = rank;
    }
    return joined;
}

static ncclResult_t check_maker(const struct ncclComm *comm)
{
    int missing = 0;
    if (segment_is_alive(comm->fd, SEGMENT_MAKER) ||
        count_joined(comm->shared, comm->ranks, &missing) == comm->ranks)
        return ncclSuccess;
    return error_set(ncclRemoteError,
                     "rank %d has not joined, and the process that made the unique id has ended",
                     missing);
}

static ncclResult_t check_refusal(const segment *shared)
{
    int refused = atomic_load(&shared->refused);
    return refused > 0 ? error_set((ncclResult_t)refused, "%s", shared->refusal) : ncclSuccess;
}

/* NCCL refuses that too: on a GPU the two would wait for each other's kernels. */
static ncclResult_t check_devices(const struct ncclComm *comm)
{
    const segment_rank *ranks = comm->shared->ranks;
    for (int a = 0; a < comm->ranks; a++) {
        for (int b = a + 1; b < comm->ranks; b++) {
            if (ranks[a].process == ranks[b].process && ranks[a].device == ranks[b].device)
                return error_set(ncclInvalidUsage,
                                 "rank %d and rank %d are both on device %d of the same process", a,
                                 b, ranks[a].device);
        }
    }
    return ncclSuccess;
}

static ncclResult_t wait_for_all(struct ncclComm *comm)
{
    int missing;
    for (;;) {
        uint32_t seen = atomic_load(&comm->shared->epoch);
        /* what the others have done since they all joined is no error of this call */
        if (count_joined(comm->shared, comm->ranks, &missing) == comm->ranks)
            return check_devices(comm);
        NCCL_TRY(check_refusal(comm->shared));
        NCCL_TRY(comm_error(comm));
        if (!segment_sleep(comm->shared, seen, LOOK_MS)) {
            comm_check_alive(comm);
            NCCL_TRY(comm_error(comm));
            NCCL_TRY(check_maker(comm));
        }
    }
}

static void set_state(struct ncclComm *comm, rank_state state)
{
    atomic_store(&comm->shared->ranks[comm->rank].state, (int)state);
    segment_raise(comm->shared);
}

static ncclResult_t make_events(struct ncclComm *comm)
{
    CUDA_TRY(cuCtxGetCurrent(&comm->context), "cuCtxGetCurrent");
    CUDA_TRY(cuCtxGetDevice(&comm->device), "cuCtxGetDevice");
    CUDA_TRY(cuEventCreate(&comm->chain, CU_EVENT_DISABLE_TIMING), "cuEventCreate");
    CUDA_TRY(cuEventCreate(&comm->joint, CU_EVENT_DISABLE_TIMING), "cuEventCreate");
    return ncclSuccess;
}

static void destroy_events(struct ncclComm *comm)
{
    if (comm->chain)
        cuEventDestroy(comm->chain);
    if (comm->joint)
        cuEventDestroy(comm->joint);
}

static void join(struct ncclComm *comm)
{
    segment_rank *own = &comm->shared->ranks[comm->rank];
    own->device = comm->device;
    own->process_id = (int32_t)getpid();
    own->process = segment_process();
    set_state(comm, RANK_JOINED);
}

/* The communicator of a rank that has taken its place; not yet a live handle. */
static ncclResult_t make_comm(struct ncclComm **out, const ncclUniqueId *id, int rank, int ranks)
{
    struct ncclComm *comm = calloc(1, sizeof *comm);
    *out = comm;
    if (!comm)
        return error_set(ncclSystemError, "out of memory");
    comm->rank = rank;
    comm->ranks = ranks;
    comm->fd = -1;
    comm->references = 1;
    pthread_mutex_init(&comm->turn, NULL);
    pthread_mutex_init(&comm->lock, NULL);
    NCCL_TRY(make_events(comm));
    NCCL_TRY(segment_join(&comm->shared, &comm->fd, id, rank, ranks));
    join(comm);
    return wait_for_all(comm);
}

static ncclResult_t init_rank(group_job *job)
{
    struct ncclComm *comm;
    ncclResult_t result = make_comm(&comm, &job->id, job->rank, job->ranks);
    segment_release_id(&job->id);
    if (result == ncclSuccess) {
        comm_add(comm);
        *job->out = comm;
    } else if (comm) {
        destroy_events(comm);
        if (comm->shared)
            set_state(comm, RANK_ABORTED);
        comm_drop(comm);
    }
    return result;
}

/* ---- the calls that make communicators ------------------------------------------------------ */

/* What tells this library from NVIDIA's. */
__attribute__((visibility("default"))) const char ncclEmulator[] = "the emulator's NCCL";

ncclResult_t ncclGetVersion(int *version)
{
    if (!version)
        return error_set(ncclInvalidArgument, "ncclGetVersion: version is NULL");
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *uniqueId)
{
    return uniqueId ? segment_make_id(uniqueId)
                    : error_set(ncclInvalidArgument, "ncclGetUniqueId: uniqueId is NULL");
}

static ncclResult_t check_config(const ncclConfig_t *config)
{
    const ncclConfig_t initial = NCCL_CONFIG_INITIALIZER;
    return !config || config->magic == initial.magic
               ? ncclSuccess
               : error_set(ncclInvalidArgument,
                           "the ncclConfig_t was not set to NCCL_CONFIG_INITIALIZER");
}

static ncclResult_t add_init(ncclComm_t *comm, int ranks, const ncclUniqueId *id, int rank,
                             const ncclConfig_t *config)
{
    if (!comm)
        return error_set(ncclInvalidArgument, "comm is NULL");
    *comm = NULL;
    NCCL_TRY(check_config(config));
    if (ranks < 1 || ranks > SEGMENT_MOST_RANKS)
        return error_set(ncclInvalidArgument, "a communicator of %d ranks: it can have 1 to %d",
                         ranks, SEGMENT_MOST_RANKS);
    if (rank < 0 || rank >= ranks)
        return error_set(ncclInvalidArgument, "rank %d: the communicator has the ranks 0 to %d",
                         rank, ranks - 1);
    return group_add_job(
        &(group_job){.run = init_rank, .out = comm, .id = *id, .rank = rank, .ranks = ranks});
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int nranks, ncclUniqueId commId, int rank,
                                    ncclConfig_t *config)
{
    group_begin();
    return group_end(add_init(comm, nranks, &commId, rank, config));
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int nranks, ncclUniqueId commId, int rank)
{
    return ncclCommInitRankConfig(comm, nranks, commId, rank, NULL);
}

/* In the primary contexts of the devices, as the CUDA runtime does. They stay retained. */
static ncclResult_t add_init_on(ncclComm_t *comm, int count, const ncclUniqueId *id, int rank,
                                int device)
{
    CUcontext context, popped;
    CUDA_TRY(cuDevicePrimaryCtxRetain(&context, device), "cuDevicePrimaryCtxRetain");
    CUDA_TRY(cuCtxPushCurrent(context), "cuCtxPushCurrent");
    ncclResult_t result = add_init(comm, count, id, rank, NULL);
    cuCtxPopCurrent(&popped);
    return result;
}

ncclResult_t ncclCommInitAll(ncclComm_t *comm, int ndev, const int *devlist)
{
    ncclUniqueId id;
    if (!comm || ndev < 1)
        return error_set(ncclInvalidArgument, "ncclCommInitAll: comm is NULL, or ndev is %d", ndev);
    NCCL_TRY(segment_make_id(&id));
    ncclResult_t result = ncclSuccess;
    group_begin();
    for (int rank = 0; rank < ndev && result == ncclSuccess; rank++)
        result = add_init_on(&comm[rank], ndev, &id, rank, devlist ? devlist[rank] : rank);
    return group_end(result);
}

/* ---- splitting ------------------------------------------------------------------------------ */

typedef struct split_choice {
    int color, key;
    ncclUniqueId id; /* made by every rank; that of a color's first rank is used */
} split_choice;

/* Every rank's choice. */
static ncclResult_t exchange(split_choice *all, const split_choice *own, ncclComm_t parent)
{
    nccl_op op = {.comm = parent,
                  .comm_id = parent->id,
                  .shape = {.kind = OP_SPLIT, .type = ncclInt8, .count = sizeof *own},
                  .send = (uintptr_t)own,
                  .receive = (uintptr_t)all};
    if (parent->is_chained)
        CUDA_TRY(cuEventSynchronize(parent->chain), "cuEventSynchronize");
    NCCL_TRY(comm_error(parent));
    op_run_all(&op, 1);
    return comm_error(parent);
}

/* The job that joins the ranks of the own color, in the order of key and rank. */
static void place(group_job *job, const split_choice *all, const struct ncclComm *parent)
{
    const split_choice *own = &all[parent->rank];
    int first = parent->rank;
    job->rank = job->ranks = 0;
    for (int rank = 0; rank < parent->ranks; rank++) {
        if (all[rank].color != own->color)
            continue;
        job->ranks++;
        if (all[rank].key < own->key || (all[rank].key == own->key && rank < parent->rank))
            job->rank++;
        if (all[rank].key < all[first].key || (all[rank].key == all[first].key && rank < first))
            first = rank;
    }
    job->id = all[first].id;
}

static ncclResult_t split(group_job *job)
{
    split_choice own = {.color = job->color, .key = job->key}, all[SEGMENT_MOST_RANKS];
    ncclComm_t parent = job->parent;
    NCCL_TRY(segment_make_id(&own.id));
    ncclResult_t result = exchange(all, &own, parent);
    if (result == ncclSuccess && job->color != NCCL_SPLIT_NOCOLOR) {
        place(job, all, parent);
        result = init_rank(job);
    }
    segment_release_id(&own.id);
    return result;
}

static ncclResult_t run_split(group_job *job)
{
    ncclComm_t parent = comm_hold(job->parent, 0);
    if (!parent)
        return error_set(ncclInvalidArgument, "ncclCommSplit: not a live communicator");
    ncclResult_t result = split(job);
    comm_drop(parent);
    return result;
}

static ncclResult_t add_split(ncclComm_t comm, int color, int key, ncclComm_t *newcomm,
                              const ncclConfig_t *config)
{
    if (!newcomm)
        return error_set(ncclInvalidArgument, "ncclCommSplit: newcomm is NULL");
    *newcomm = NULL;
    NCCL_TRY(check_config(config));
    if (color < 0 && color != NCCL_SPLIT_NOCOLOR)
        return error_set(ncclInvalidArgument,
                         "ncclCommSplit: color %d is neither 0 or more nor NCCL_SPLIT_NOCOLOR",
                         color);
    return group_add_job(
        &(group_job){.run = run_split, .parent = comm, .color = color, .key = key, .out = newcomm});
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t *newcomm,
                           ncclConfig_t *config)
{
    group_begin();
    return group_end(add_split(comm, color, key, newcomm, config));
}

/* ---- ending --------------------------------------------------------------------------------- */

/* Returns when all operations have ended that were enqueued (a context that is gone had ended
 * them). */
static void flush(struct ncclComm *comm)
{
    if (comm->is_chained)
        cuEventSynchronize(comm->chain);
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    ncclComm_t held = comm_hold(comm, 0);
    if (!held)
        return error_set(ncclInvalidArgument, "ncclCommFinalize: not a live communicator");
    flush(held);
    held->is_finalized = true;
    ncclResult_t result = comm_error(held);
    comm_drop(held);
    return result;
}

static ncclResult_t end(ncclComm_t handle, rank_state state, const char *call)
{
    if (!handle)
        return ncclSuccess;
    ncclComm_t comm = comm_hold(handle, 0);
    if (!comm)
        return error_set(ncclInvalidArgument, "%s: not a live communicator", call);
    if (state == RANK_ABORTED) {
        atomic_store(&comm->is_aborted, true);
        segment_raise(comm->shared);
    }
    flush(comm); /* while the handle lives: operations of dead ones do nothing */
    if (comm_remove(comm)) {
        pthread_mutex_lock(&comm->turn); /* a graph may be running an operation */
        set_state(comm, state);
        pthread_mutex_unlock(&comm->turn);
        destroy_events(comm);
        comm_drop(comm);
    }
    comm_drop(comm);
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    return end(comm, RANK_LEFT, "ncclCommDestroy");
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    return end(comm, RANK_ABORTED, "ncclCommAbort");
}
