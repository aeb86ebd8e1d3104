/*
 * comm.c: communicators: made for programs that have none, borrowed from those that do, watched for
 * ranks that fail, and used for the few words that ranks must agree on before they work together.
 */
#include "comm.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

_Static_assert(sizeof(mmlp_comm_id) == sizeof(ncclUniqueId), "an id of NCCL");

static void pause_briefly(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
}

/* ---- the library ---------------------------------------------------------------------------- */

mmlp_status comm_library(const nccl_library **out, mmlp_context *context)
{
    mmlp_status status = MMLP_OK;
    *out = NULL;
    pthread_mutex_lock(&context->lock);
    if (!context->nccl.path)
        status = nccl_library_open(&context->nccl, &context->cuda, context->nccl_wanted);
    pthread_mutex_unlock(&context->lock);
    if (status == MMLP_OK)
        *out = &context->nccl;
    return status;
}

ncclResult_t comm_begun(const nccl_library *library, ncclComm_t nccl, ncclResult_t result)
{
    while (result == ncclInProgress) {
        pause_briefly();
        ncclResult_t asked = library->ncclCommGetAsyncError(nccl, &result);
        result = asked == ncclSuccess ? result : asked;
    }
    return result;
}

/* ---- records -------------------------------------------------------------------------------- */

static comm *look_up(mmlp_context *context, ncclComm_t nccl)
{
    comm *c = context->comms;
    while (c && (c->nccl != nccl || atomic_load(&c->gone)))
        c = c->next;
    return c;
}

/* Now, or before it ended. */
static bool was_seen(const mmlp_context *context, ncclComm_t nccl)
{
    const comm *c = context->comms;
    while (c && c->nccl != nccl)
        c = c->next;
    return c != NULL;
}

static mmlp_status ask(comm *c, const mmlp_context *context)
{
    const nccl_library *library = &context->nccl;
    int device = -1;
    MMLP_TRY(comm_check(context, c));
    MMLP_TRY(nccl_check(library, c->nccl, library->ncclCommCount(c->nccl, &c->ranks),
                        "communicator: its size"));
    MMLP_TRY(nccl_check(library, c->nccl, library->ncclCommUserRank(c->nccl, &c->rank),
                        "communicator: its rank"));
    MMLP_TRY(nccl_check(library, c->nccl, library->ncclCommCuDevice(c->nccl, &device),
                        "communicator: its device"));
    if (device != context->device)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "communicator: found one of CUDA device %d, wanted one of CUDA device %d",
                         device, context->device);
    return MMLP_OK;
}

mmlp_status comm_find(comm **out, mmlp_context *context, ncclComm_t nccl)
{
    const nccl_library *library;
    *out = NULL;
    if (!nccl)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "communicator: NULL was given");
    MMLP_TRY(comm_library(&library, context));
    mmlp_status status = MMLP_OK;
    pthread_mutex_lock(&context->lock);
    comm *c = look_up(context, nccl), *made = NULL;
    if (!c) {
        c = made = calloc(1, sizeof *made);
        if (!made) {
            status = mmlp_fail_memory(sizeof *made, "a communicator");
            goto cleanup;
        }
        made->nccl = nccl;
    }
    MMLP_TRY_CLEANUP(ask(c, context));
    if (made) {
        made->next = context->comms;
        context->comms = made;
        made = NULL;
    }
    *out = c;

cleanup:
    free(made);
    pthread_mutex_unlock(&context->lock);
    return status;
}

mmlp_status comm_check(const mmlp_context *context, const comm *c)
{
    const nccl_library *library = &context->nccl;
    const char *gone = atomic_load(&c->gone);
    ncclResult_t noticed = ncclSuccess;
    if (gone)
        return mmlp_fail(MMLP_ERROR_COMM, "communicator: it has ended (%s); make another one",
                         gone);
    MMLP_TRY(nccl_check(library, c->nccl, library->ncclCommGetAsyncError(c->nccl, &noticed),
                        "communicator"));
    return nccl_check(library, c->nccl, noticed == ncclInProgress ? ncclSuccess : noticed,
                      "communicator");
}

void comm_free_all(mmlp_context *context)
{
    while (context->comms) {
        comm *c = context->comms;
        context->comms = c->next;
        free(c);
    }
}

/* ---- words ---------------------------------------------------------------------------------- */

/* Until the stream is empty or the communicator has failed, which may leave the stream as it is. */
static mmlp_status wait_watching(const mmlp_context *context, const comm *c, CUstream stream)
{
    const driver *d = &context->cuda;
    CUresult result;
    while ((result = d->cuStreamQuery(stream)) == CUDA_ERROR_NOT_READY) {
        MMLP_TRY(comm_check(context, c));
        pause_briefly();
    }
    MMLP_TRY(comm_check(context, c));
    return driver_check(d, result, "words between ranks");
}

static mmlp_status gather(uint64_t *all, const mmlp_context *context, const comm *c,
                          const uint64_t own[COMM_WORDS], CUdeviceptr words, CUstream stream)
{
    enum { BYTES = COMM_WORDS * sizeof *own };
    const driver *d = &context->cuda;
    const nccl_library *library = &context->nccl;
    MMLP_TRY(driver_check(d, d->cuMemcpyHtoDAsync(words, own, BYTES, stream), "words to ranks"));
    ncclResult_t result =
        library->ncclAllGather((void *)(uintptr_t)words, (void *)(uintptr_t)(words + BYTES),
                               COMM_WORDS, ncclUint64, c->nccl, stream);
    MMLP_TRY(nccl_check(library, c->nccl, comm_begun(library, c->nccl, result),
                        "words between ranks: all_gather"));
    MMLP_TRY(wait_watching(context, c, stream));
    MMLP_TRY(
        driver_check(d, d->cuMemcpyDtoHAsync(all, words + BYTES, (size_t)c->ranks * BYTES, stream),
                     "words of ranks"));
    return driver_check(d, d->cuStreamSynchronize(stream), "words of ranks");
}

mmlp_status comm_exchange(uint64_t *all, mmlp_context *context, const comm *c,
                          const uint64_t own[COMM_WORDS])
{
    const driver *d = &context->cuda;
    const size_t bytes = (size_t)(c->ranks + 1) * COMM_WORDS * sizeof *own;
    mmlp_status status = MMLP_OK;
    CUdeviceptr words = 0;
    CUstream stream = NULL;
    MMLP_TRY(comm_check(context, c));
    MMLP_TRY(context_enter(context));
    MMLP_TRY_CLEANUP(driver_check(d, d->cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING),
                                  "a stream for words between ranks"));
    MMLP_TRY_CLEANUP(
        driver_check(d, d->cuMemAlloc(&words, bytes), "%zu bytes for words between ranks", bytes));
    MMLP_TRY_CLEANUP(gather(all, context, c, own, words, stream));

cleanup:
    /* cuMemFree would wait for a collective that hangs: then the memory goes with the device. */
    if (words && status == MMLP_OK)
        d->cuMemFree(words);
    if (stream)
        d->cuStreamDestroy(stream);
    context_leave(context);
    return status;
}

/* ---- public --------------------------------------------------------------------------------- */

mmlp_status mmlp_comm_unique_id(mmlp_comm_id *out, mmlp_context *context)
{
    if (!out || !context)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_comm_unique_id: %s is NULL",
                         out ? "context" : "out");
    const nccl_library *library;
    ncclUniqueId id;
    memset(out, 0, sizeof *out);
    MMLP_TRY(comm_library(&library, context));
    MMLP_TRY(nccl_check(library, NULL, library->ncclGetUniqueId(&id), "ncclGetUniqueId"));
    memcpy(out, &id, sizeof *out);
    return MMLP_OK;
}

mmlp_status mmlp_comm_create(struct ncclComm **out, mmlp_context *context, const mmlp_comm_id *id,
                             int ranks, int rank)
{
    if (!out)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_comm_create: out is NULL");
    *out = NULL;
    if (!context || !id)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_comm_create: %s is NULL",
                         context ? "id" : "context");
    if (ranks < 1 || rank < 0 || rank >= ranks)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "mmlp_comm_create: found rank %d of %d, wanted 0 to ranks - 1", rank,
                         ranks);
    const nccl_library *library;
    ncclUniqueId taken;
    ncclComm_t made = NULL;
    MMLP_TRY(comm_library(&library, context));
    memcpy(&taken, id, sizeof taken);
    MMLP_TRY(context_enter(context));
    mmlp_status status =
        nccl_check(library, NULL, library->ncclCommInitRank(&made, ranks, taken, rank),
                   "communicator: rank %d of %d", rank, ranks);
    context_leave(context);
    comm *c;
    if (status == MMLP_OK)
        status = comm_find(&c, context, made);
    if (status == MMLP_OK)
        *out = made;
    else if (made)
        library->ncclCommAbort(made);
    return status;
}

mmlp_status mmlp_comm_status(mmlp_context *context, struct ncclComm *nccl)
{
    if (!context)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_comm_status: context is NULL");
    pthread_mutex_lock(&context->lock);
    bool ended = was_seen(context, nccl) && !look_up(context, nccl);
    pthread_mutex_unlock(&context->lock);
    if (ended) /* NCCL has freed it; another one may have its address once it is bound */
        return mmlp_fail(MMLP_ERROR_COMM, "communicator: it has ended; make another one");
    comm *c;
    return comm_find(&c, context, nccl);
}

/* Abort or destroy: either frees it, and neither may come twice. */
static mmlp_status end_comm(mmlp_context *context, ncclComm_t nccl, const char *function,
                            bool aborts)
{
    if (!context)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "%s: context is NULL", function);
    if (!nccl)
        return MMLP_OK;
    pthread_mutex_lock(&context->lock);
    bool known = was_seen(context, nccl);
    comm *c = look_up(context, nccl);
    if (c)
        atomic_store(&c->gone, function);
    pthread_mutex_unlock(&context->lock);
    if (!known)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "%s: this context has neither made nor bound the communicator", function);
    if (!c)
        return MMLP_OK;
    const nccl_library *library = &context->nccl;
    MMLP_TRY(context_enter(context));
    ncclResult_t result = aborts ? library->ncclCommAbort(nccl) : library->ncclCommDestroy(nccl);
    mmlp_status status = nccl_check(library, NULL, result, "%s", function);
    context_leave(context);
    return status;
}

mmlp_status mmlp_comm_abort(mmlp_context *context, struct ncclComm *nccl)
{
    return end_comm(context, nccl, "mmlp_comm_abort", true);
}

mmlp_status mmlp_comm_destroy(mmlp_context *context, struct ncclComm *nccl)
{
    return end_comm(context, nccl, "mmlp_comm_destroy", false);
}
