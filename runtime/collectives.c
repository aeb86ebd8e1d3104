/*
 * collectives.c: what ranks do together inside of a pass, on a stream of the library's own that is
 * joined to the caller's by events: nothing waits on the host, nothing depends on the order in
 * which a device starts its kernels, and all of it can be captured.
 */
#include "collectives.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

/* ---- loading -------------------------------------------------------------------------------- */

/* The kernel that it is enqueued before; -1: none, at the end of its pass. */
static int find_position(const mmlp_mlp *mlp, bundle_pass pass, const char *before)
{
    for (int i = 0; i < mlp->kernel_count; i++) {
        const bundle_kernel *kernel = mlp->kernels[i].kernel;
        if (kernel->pass == pass && (!before || strcmp(kernel->step, before) == 0))
            return i;
    }
    return -1;
}

/* Where its tensors come from. What backward_dw alone reads may be gathered there. */
static mmlp_status bind_collective(loaded_collective *out, mmlp_mlp *mlp,
                                   const bundle_collective *c, bool regather_input)
{
    const char *const names[] = {c->input, c->output};
    int slots[2];
    for (int i = 0; i < 2; i++) {
        slots[i] = slot_find(mlp->bundle, names[i], c->pass);
        if (slots[i] < 0 || (slots[i] >= TENSOR_COUNT && slots[i] < SLOT_BUFFER))
            return mmlp_fail(MMLP_ERROR_FORMAT,
                             "%s: collective %s: found \"%.64s\", wanted a tensor or buffer of a "
                             "%s pass",
                             mlp->bundle->path, c->operation_name, names[i], c->pass_name);
    }
    *out = (loaded_collective){.collective = c,
                               .pass = c->pass,
                               .input = slots[0],
                               .output = slots[1],
                               .position = find_position(mlp, c->pass, c->before)};
    if (strcmp(c->before, "end") != 0 && out->position < 0)
        return mmlp_fail(MMLP_ERROR_FORMAT,
                         "%s: collective %s: found before \"%.64s\", wanted a step of the %s "
                         "pass, or \"end\"",
                         mlp->bundle->path, c->operation_name, c->before, c->pass_name);
    bool of_dgrad = false;
    for (int i = 0; i < mlp->kernel_count; i++)
        of_dgrad |= mlp->kernels[i].kernel->pass == BUNDLE_DGRAD &&
                    kernel_takes(&mlp->kernels[i], out->output);
    if (regather_input && c->pass == BUNDLE_DGRAD && out->output >= SLOT_BUFFER && !of_dgrad) {
        out->pass = BUNDLE_BACKWARD_DW;
        out->position = find_position(mlp, BUNDLE_BACKWARD_DW, NULL);
        mlp->regathered_buffer = out->output - SLOT_BUFFER;
    }
    return MMLP_OK;
}

mmlp_status collectives_load(mmlp_mlp *mlp, bool regather_input)
{
    const mmlp_bundle *bundle = mlp->bundle;
    const driver *d = &mlp->context->cuda;
    mlp->regathered_buffer = -1;
    if (regather_input && !(bundle->sequence_parallel && bundle->delay_wgrad_compute))
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "regather_input: %s has no gathered input that waits for backward_dw: it "
                         "needs sequence_parallel and delay_wgrad_compute",
                         bundle->name);
    for (int i = 0; i < bundle->collective_count; i++)
        MMLP_TRY(bind_collective(&mlp->collectives[mlp->collective_count++], mlp,
                                 &bundle->collectives[i], regather_input));
    for (int i = 0; i < mlp->collective_count; i++) {
        loaded_collective *c = &mlp->collectives[i];
        MMLP_TRY(driver_check(d, d->cuEventCreate(&c->ready, CU_EVENT_DISABLE_TIMING),
                              "an event of %s", c->collective->operation_name));
        MMLP_TRY(driver_check(d, d->cuEventCreate(&c->done, CU_EVENT_DISABLE_TIMING),
                              "an event of %s", c->collective->operation_name));
    }
    if (mlp->collective_count > 0)
        MMLP_TRY(driver_check(d, d->cuStreamCreate(&mlp->comm_stream, CU_STREAM_NON_BLOCKING),
                              "the communication stream"));
    if (mlp->regathered_buffer >= 0) {
        const bundle_buffer *buffer = &bundle->buffers[mlp->regathered_buffer];
        size_t bytes =
            (size_t)mlp->max_tokens * (size_t)buffer->columns * bundle_dtype_bytes(buffer->dtype);
        MMLP_TRY(driver_check(d, d->cuMemAlloc(&mlp->regathered, bytes),
                              "%zu bytes for the input that backward_dw gathers again", bytes));
    }
    return MMLP_OK;
}

void collectives_unload(mmlp_mlp *mlp)
{
    const driver *d = &mlp->context->cuda;
    for (int i = 0; i < mlp->collective_count; i++) {
        if (mlp->collectives[i].ready)
            d->cuEventDestroy(mlp->collectives[i].ready);
        if (mlp->collectives[i].done)
            d->cuEventDestroy(mlp->collectives[i].done);
    }
    if (mlp->comm_stream)
        d->cuStreamDestroy(mlp->comm_stream);
    if (mlp->regathered)
        d->cuMemFree(mlp->regathered);
}

/* ---- binding -------------------------------------------------------------------------------- */

static const char *const group_names[GROUP_COUNT] = {
    [MMLP_GROUP_TP] = "tensor-parallel",
    [MMLP_GROUP_DP] = "data-parallel",
    [MMLP_GROUP_EXPERT_DP] = "expert data-parallel",
};

/* What must be the same on every rank. */
enum { WORD_MLP, WORD_MAX_TOKENS, WORD_OPTIONS, WORD_GROUP };

/* Rank r and rank 0 differ: what this rank says of it. */
static mmlp_status fail_differs(const mmlp_mlp *mlp, mmlp_group group, int word, int rank,
                                uint64_t found, uint64_t wanted)
{
    const char *name = mlp->bundle->name, *of = group_names[group];
    if (word == WORD_MLP)
        return mmlp_fail(MMLP_ERROR_COMM,
                         "%s: %s rank %d has loaded another MLP (%016llx) than rank 0 (%016llx): "
                         "load bundles of the same spec",
                         name, of, rank, (unsigned long long)found, (unsigned long long)wanted);
    if (word == WORD_MAX_TOKENS)
        return mmlp_fail(MMLP_ERROR_COMM,
                         "%s: %s rank %d is loaded for %llu tokens (max_tokens), rank 0 for %llu",
                         name, of, rank, (unsigned long long)found, (unsigned long long)wanted);
    if (word == WORD_OPTIONS)
        return mmlp_fail(MMLP_ERROR_COMM,
                         "%s: %s rank %d is loaded with regather_input %llu, rank 0 with %llu",
                         name, of, rank, (unsigned long long)found, (unsigned long long)wanted);
    return mmlp_fail(MMLP_ERROR_COMM, "%s: rank %d binds it as %s, rank 0 as %s", name, rank,
                     found < GROUP_COUNT ? group_names[found] : "something else",
                     wanted < GROUP_COUNT ? group_names[wanted] : "something else");
}

/* Every rank sees the same first difference, so that all of them refuse. */
static mmlp_status check_agreement(const mmlp_mlp *mlp, mmlp_group group, const comm *c)
{
    const uint64_t own[COMM_WORDS] = {
        [WORD_MLP] = mlp->bundle->identity,
        [WORD_MAX_TOKENS] = (uint64_t)mlp->max_tokens,
        [WORD_OPTIONS] = mlp->regathered_buffer >= 0,
        [WORD_GROUP] = (uint64_t)group,
    };
    uint64_t *all = calloc((size_t)c->ranks, sizeof own);
    if (!all)
        return mmlp_fail_memory((size_t)c->ranks * sizeof own, "words of ranks");
    mmlp_status status = comm_exchange(all, mlp->context, c, own);
    for (int word = 0; word < COMM_WORDS && status == MMLP_OK; word++) {
        for (int rank = 1; rank < c->ranks && status == MMLP_OK; rank++) {
            uint64_t found = all[rank * COMM_WORDS + word], wanted = all[word];
            if (found != wanted)
                status = fail_differs(mlp, group, word, rank, found, wanted);
        }
    }
    free(all);
    return status;
}

mmlp_status mmlp_mlp_bind_comm(mmlp_mlp *mlp, mmlp_group group, struct ncclComm *nccl)
{
    MMLP_TRY(mlp_enter(mlp, "mmlp_mlp_bind_comm"));
    mmlp_status status = MMLP_OK;
    const int64_t wanted = mlp->bundle->tensor_model_parallel_size;
    comm *c;
    if ((int)group < 0 || (int)group >= GROUP_COUNT) {
        status =
            mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_mlp_bind_comm: group: found %d, wanted 0 to %d",
                      (int)group, GROUP_COUNT - 1);
        goto cleanup;
    }
    if (mlp->groups[group]) {
        status = mmlp_fail(MMLP_ERROR_ORDER,
                           "%s: its %s communicator is bound already: load the mlp again to bind "
                           "another one",
                           mlp->bundle->name, group_names[group]);
        goto cleanup;
    }
    MMLP_TRY_CLEANUP(comm_find(&c, mlp->context, nccl));
    /* First, so that a rank for which the size is right does not wait for one that has refused. */
    MMLP_TRY_CLEANUP(check_agreement(mlp, group, c));
    if (group == MMLP_GROUP_TP && c->ranks != wanted) {
        status =
            mmlp_fail(MMLP_ERROR_ARGUMENT,
                      "%s: found a tensor-parallel communicator of %d rank%s, wanted %lld "
                      "(tensor_model_parallel_size)",
                      mlp->bundle->name, c->ranks, c->ranks == 1 ? "" : "s", (long long)wanted);
        goto cleanup;
    }
    if (group != MMLP_GROUP_TP)
        MMLP_TRY_CLEANUP(gradients_prepare(mlp));
    mlp->groups[group] = c;

cleanup:
    mlp_leave(mlp);
    return status;
}

mmlp_status collectives_check(const mmlp_mlp *mlp)
{
    const comm *c = mlp->groups[MMLP_GROUP_TP];
    if (mlp->collective_count == 0)
        return MMLP_OK;
    if (!c)
        return mmlp_fail(MMLP_ERROR_ORDER,
                         "%s: its %lld tensor-parallel ranks have no communicator: call "
                         "mmlp_mlp_bind_comm first",
                         mlp->bundle->name, (long long)mlp->bundle->tensor_model_parallel_size);
    return comm_check(mlp->context, c);
}

/* ---- running -------------------------------------------------------------------------------- */

static ncclDataType_t nccl_type(bundle_dtype dtype)
{
    static const ncclDataType_t types[BUNDLE_DTYPES] = {
        [BUNDLE_BF16] = ncclBfloat16, [BUNDLE_FP16] = ncclFloat16, [BUNDLE_FP32] = ncclFloat32};
    return types[dtype];
}

static ncclResult_t call_nccl(const mmlp_mlp *mlp, const loaded_collective *c,
                              const pass_call *call)
{
    const nccl_library *library = &mlp->context->nccl;
    ncclComm_t nccl = mlp->groups[MMLP_GROUP_TP]->nccl;
    ncclDataType_t type = nccl_type(mlp->bundle->params_dtype);
    const void *input = (const void *)(uintptr_t)call->values[c->input].pointer;
    void *output = (void *)(uintptr_t)call->values[c->output].pointer;
    size_t columns = (size_t)mlp->bundle->hidden_size;
    size_t all = (size_t)call->tokens * columns, part = (size_t)call->local_tokens * columns;
    switch (c->collective->operation) {
    case BUNDLE_ALL_REDUCE:
        return library->ncclAllReduce(input, output, all, type, ncclSum, nccl, mlp->comm_stream);
    case BUNDLE_ALL_GATHER:
        return library->ncclAllGather(input, output, part, type, nccl, mlp->comm_stream);
    case BUNDLE_REDUCE_SCATTER:
        return library->ncclReduceScatter(input, output, part, type, ncclSum, nccl,
                                          mlp->comm_stream);
    }
    return ncclInvalidArgument;
}

mmlp_status collectives_begin(mmlp_mlp *mlp, bundle_pass pass, int position, const pass_call *call,
                              void *stream)
{
    const driver *d = &mlp->context->cuda;
    for (int i = 0; i < mlp->collective_count && call->tokens > 0; i++) {
        loaded_collective *c = &mlp->collectives[i];
        const char *name = c->collective->operation_name;
        if (c->pass != pass || c->position != position)
            continue;
        MMLP_TRY(driver_check(d, d->cuEventRecord(c->ready, (CUstream)stream), "before %s", name));
        MMLP_TRY(driver_check(d, d->cuStreamWaitEvent(mlp->comm_stream, c->ready, 0), "before %s",
                              name));
        const nccl_library *library = &mlp->context->nccl;
        ncclComm_t nccl = mlp->groups[MMLP_GROUP_TP]->nccl;
        ncclResult_t result = comm_begun(library, nccl, call_nccl(mlp, c, call));
        MMLP_TRY(nccl_check(library, nccl, result, "%s of %s", name, c->collective->input));
        MMLP_TRY(driver_check(d, d->cuEventRecord(c->done, mlp->comm_stream), "after %s", name));
        c->under_way = true;
    }
    return MMLP_OK;
}

mmlp_status collectives_join(bool *joined, mmlp_mlp *mlp, const loaded_kernel *reader, void *stream)
{
    const driver *d = &mlp->context->cuda;
    *joined = false;
    for (int i = 0; i < mlp->collective_count; i++) {
        loaded_collective *c = &mlp->collectives[i];
        if (!c->under_way || (reader && !kernel_takes(reader, c->output)))
            continue;
        MMLP_TRY(driver_check(d, d->cuStreamWaitEvent((CUstream)stream, c->done, 0), "after %s",
                              c->collective->operation_name));
        c->under_way = false;
        *joined = true;
    }
    return MMLP_OK;
}

void collectives_abandon(mmlp_mlp *mlp, void *stream)
{
    for (int i = 0; i < mlp->collective_count; i++) {
        loaded_collective *c = &mlp->collectives[i];
        if (c->under_way)
            mlp->context->cuda.cuStreamWaitEvent((CUstream)stream, c->done, 0);
        c->under_way = false;
    }
}
