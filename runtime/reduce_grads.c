/*
 * reduce_grads.c: the gradients of parameters over the data-parallel ranks, in buckets, on a stream
 * of the library's own. A bucket waits for the kernels that write it and for nothing else, so that
 * it travels while later gradients are computed.
 */
#include <string.h>

#include "arguments.h"
#include "collectives.h"

/* ---- the gradients --------------------------------------------------------------------------- */

/* In the order in which the passes finish them. */
static const struct {
    int slot;
    size_t member;
} gradients[GRADIENT_COUNT] = {
    {SLOT_GRAD_FC1_BIAS, offsetof(mmlp_reduce_grads_args, grad_linear_fc1_bias)},
    {SLOT_GRAD_FC2_BIAS, offsetof(mmlp_reduce_grads_args, grad_linear_fc2_bias)},
    {SLOT_GRAD_FC2_WEIGHT, offsetof(mmlp_reduce_grads_args, grad_linear_fc2_weight)},
    {SLOT_GRAD_FC1_WEIGHT, offsetof(mmlp_reduce_grads_args, grad_linear_fc1_weight)},
};

int gradient_of(const loaded_kernel *loaded)
{
    for (int i = 0; i < GRADIENT_COUNT; i++) {
        if (kernel_takes(loaded, gradients[i].slot))
            return i;
    }
    return -1;
}

/* ---- what it needs of an mlp ----------------------------------------------------------------- */

mmlp_status gradients_prepare(mmlp_mlp *mlp)
{
    const driver *d = &mlp->context->cuda;
    CUevent *events[GRADIENT_COUNT + 1] = {&mlp->reduced};
    for (int i = 0; i < GRADIENT_COUNT; i++)
        events[1 + i] = &mlp->written[i];
    for (int i = 0; i <= GRADIENT_COUNT; i++) {
        if (!*events[i])
            MMLP_TRY(driver_check(d, d->cuEventCreate(events[i], CU_EVENT_DISABLE_TIMING),
                                  "an event of a gradient"));
    }
    return mlp->grads_stream
               ? MMLP_OK
               : driver_check(d, d->cuStreamCreate(&mlp->grads_stream, CU_STREAM_NON_BLOCKING),
                              "the stream of gradients");
}

void gradients_release(mmlp_mlp *mlp)
{
    const driver *d = &mlp->context->cuda;
    for (int i = 0; i < GRADIENT_COUNT; i++) {
        if (mlp->written[i])
            d->cuEventDestroy(mlp->written[i]);
    }
    if (mlp->reduced)
        d->cuEventDestroy(mlp->reduced);
    if (mlp->grads_stream)
        d->cuStreamDestroy(mlp->grads_stream);
}

mmlp_status gradients_mark(mmlp_mlp *mlp, const loaded_kernel *loaded, void *stream)
{
    const driver *d = &mlp->context->cuda;
    if (!mlp->grads_stream || loaded->gradient < 0)
        return MMLP_OK;
    return driver_check(d, d->cuEventRecord(mlp->written[loaded->gradient], (CUstream)stream),
                        "after kernel %s", loaded->kernel->entry);
}

/* ---- pieces of a call ------------------------------------------------------------------------ */

/* A call, checked. */
typedef struct reduction {
    mmlp_reduce_grads_args args;
    const comm *group;
    pass_call call;                   /* the gradients' addresses */
    int64_t elements[GRADIENT_COUNT]; /* 0: not given */
    size_t element_bytes[GRADIENT_COUNT];
} reduction;

/* One stretch of one gradient. */
typedef struct piece {
    int gradient, bucket;
    int64_t first, elements;
} piece;

/* The piece that follows: small gradients share a bucket, large ones are cut. false: none does. */
static bool next_piece(piece *p, size_t *filled, const reduction *r)
{
    int64_t end = p->first + p->elements;
    while (p->gradient < GRADIENT_COUNT && end >= r->elements[p->gradient]) {
        p->gradient++;
        end = 0;
    }
    if (p->gradient == GRADIENT_COUNT)
        return false;
    size_t bytes = r->element_bytes[p->gradient];
    int64_t ranks = r->group->ranks, left = r->elements[p->gradient] - end;
    int64_t most = (int64_t)(r->args.bucket_bytes / bytes) / ranks * ranks;
    most = most > 0 ? most : ranks;
    int64_t room = most - (int64_t)(*filled / bytes);
    bool fits = *filled == 0 || left <= room;
    p->bucket += !fits;
    *filled = fits ? *filled : 0;
    p->first = end;
    p->elements = left < most ? left : most;
    *filled += (size_t)p->elements * bytes;
    return true;
}

static const piece no_piece = {0};

/* ---- arguments ------------------------------------------------------------------------------ */

static const comm *group_of(const mmlp_mlp *mlp)
{
    return mlp->groups[mlp->bundle->is_expert ? MMLP_GROUP_EXPERT_DP : MMLP_GROUP_DP];
}

static mmlp_status take_gradient(reduction *r, const mmlp_mlp *mlp, int index)
{
    const mmlp_tensor *tensor;
    int slot = gradients[index].slot;
    memcpy(&tensor, (const char *)&r->args + gradients[index].member, sizeof tensor);
    if (!tensor)
        return MMLP_OK;
    MMLP_TRY(arguments_take_gradient(&r->call, mlp, slot, tensor));
    r->element_bytes[index] = tensor->dtype.bits / 8u;
    r->elements[index] = (int64_t)(r->call.ranges[slot].bytes / r->element_bytes[index]);
    if (r->args.scatter && r->elements[index] % r->group->ranks != 0)
        return mmlp_fail(MMLP_ERROR_SHAPE,
                         "%s: found %lld elements, wanted a multiple of the %d data-parallel ranks "
                         "that each keep a part (scatter)",
                         slot_tensors[slot].name, (long long)r->elements[index], r->group->ranks);
    return MMLP_OK;
}

static mmlp_status take(reduction *out, const mmlp_mlp *mlp, const mmlp_reduce_grads_args *callers)
{
    enum { DEFAULT_BUCKET = 40 << 20 };
    *out = (reduction){.args = MMLP_REDUCE_GRADS_ARGS_INIT, .group = group_of(mlp)};
    MMLP_TRY(struct_read(&out->args, callers, sizeof out->args, "mmlp_reduce_grads_args"));
    if (!out->group)
        return mmlp_fail(MMLP_ERROR_ORDER,
                         "%s: its %s communicator is not bound: call mmlp_mlp_bind_comm first, "
                         "with one of one rank where there is no data parallelism",
                         mlp->bundle->name,
                         mlp->bundle->is_expert ? "expert data-parallel" : "data-parallel");
    if (out->args.bucket_bytes == 0)
        out->args.bucket_bytes = DEFAULT_BUCKET;
    for (int i = 0; i < GRADIENT_COUNT; i++)
        MMLP_TRY(take_gradient(out, mlp, i));
    return MMLP_OK;
}

/* ---- running -------------------------------------------------------------------------------- */

static ncclDataType_t type_of(const reduction *r, const mmlp_mlp *mlp, int gradient)
{
    return r->element_bytes[gradient] == 4            ? ncclFloat32
           : mlp->bundle->params_dtype == BUNDLE_BF16 ? ncclBfloat16
                                                      : ncclFloat16;
}

/* What each tensor-parallel rank has summed over its own tokens is added first. */
static mmlp_status reduce_partial(mmlp_mlp *mlp, const reduction *r, int gradient)
{
    const driver *d = &mlp->context->cuda;
    const nccl_library *library = &mlp->context->nccl;
    const comm *tp = mlp->groups[MMLP_GROUP_TP];
    void *address = (void *)(uintptr_t)r->call.values[gradients[gradient].slot].pointer;
    MMLP_TRY(driver_check(d, d->cuStreamWaitEvent(mlp->comm_stream, mlp->written[gradient], 0),
                          "before the partial gradient"));
    ncclResult_t result =
        library->ncclAllReduce(address, address, (size_t)r->elements[gradient],
                               type_of(r, mlp, gradient), ncclSum, tp->nccl, mlp->comm_stream);
    MMLP_TRY(nccl_check(library, tp->nccl, comm_begun(library, tp->nccl, result),
                        "all_reduce of the partial grad.linear_fc2.bias"));
    return driver_check(d, d->cuEventRecord(mlp->written[gradient], mlp->comm_stream),
                        "after the partial gradient");
}

static mmlp_status reduce_piece(mmlp_mlp *mlp, const reduction *r, const piece *p)
{
    const driver *d = &mlp->context->cuda;
    const nccl_library *library = &mlp->context->nccl;
    const comm *c = r->group;
    int slot = gradients[p->gradient].slot;
    ncclRedOp_t operation = r->args.average ? ncclAvg : ncclSum;
    ncclDataType_t type = type_of(r, mlp, p->gradient);
    char *address = (char *)(uintptr_t)r->call.values[slot].pointer +
                    (size_t)p->first * r->element_bytes[p->gradient];
    bool is_partial = mlp->bundle->sequence_parallel && slot == SLOT_GRAD_FC2_BIAS;
    if (is_partial && p->first == 0)
        MMLP_TRY(reduce_partial(mlp, r, p->gradient));
    MMLP_TRY(driver_check(d, d->cuStreamWaitEvent(mlp->grads_stream, mlp->written[p->gradient], 0),
                          "before %s", slot_tensors[slot].name));
    ncclResult_t result;
    if (r->args.scatter) {
        size_t part = (size_t)(p->elements / c->ranks);
        char *own = address + (size_t)c->rank * part * r->element_bytes[p->gradient];
        result = library->ncclReduceScatter(address, own, part, type, operation, c->nccl,
                                            mlp->grads_stream);
    } else {
        result = library->ncclAllReduce(address, address, (size_t)p->elements, type, operation,
                                        c->nccl, mlp->grads_stream);
    }
    return nccl_check(library, c->nccl, comm_begun(library, c->nccl, result), "reduction of %s",
                      slot_tensors[slot].name);
}

mmlp_status mmlp_mlp_reduce_grads(mmlp_mlp *mlp, const mmlp_reduce_grads_args *args, int bucket)
{
    MMLP_TRY(mlp_enter(mlp, "mmlp_mlp_reduce_grads"));
    mmlp_status status = MMLP_OK;
    reduction r;
    piece p = no_piece;
    size_t filled = 0;
    bool found = bucket < 0;
    MMLP_TRY_CLEANUP(take(&r, mlp, args));
    MMLP_TRY_CLEANUP(collectives_check(mlp));
    MMLP_TRY_CLEANUP(comm_check(mlp->context, r.group));
    while (next_piece(&p, &filled, &r)) {
        if (bucket >= 0 && p.bucket != bucket)
            continue;
        found = true;
        MMLP_TRY_CLEANUP(reduce_piece(mlp, &r, &p));
    }
    if (!found)
        status = mmlp_fail(MMLP_ERROR_ARGUMENT,
                           "mmlp_mlp_reduce_grads: bucket: found %d, wanted 0 to %d, or -1 for all",
                           bucket, p.bucket);

cleanup:
    mlp_leave(mlp);
    return status;
}

mmlp_status mmlp_mlp_wait_grads(mmlp_mlp *mlp, void *stream)
{
    MMLP_TRY(mlp_enter(mlp, "mmlp_mlp_wait_grads"));
    mmlp_status status = MMLP_OK;
    const driver *d = &mlp->context->cuda;
    if (mlp->grads_stream) {
        MMLP_TRY_CLEANUP(driver_check(d, d->cuEventRecord(mlp->reduced, mlp->grads_stream),
                                      "after the reduction of gradients"));
        MMLP_TRY_CLEANUP(driver_check(d, d->cuStreamWaitEvent((CUstream)stream, mlp->reduced, 0),
                                      "after the reduction of gradients"));
    }

cleanup:
    mlp_leave(mlp);
    return status;
}

mmlp_status mmlp_mlp_grad_piece(mmlp_mlp *mlp, const mmlp_reduce_grads_args *args, int index,
                                mmlp_grad_piece *out)
{
    MMLP_TRY(mlp_enter(mlp, "mmlp_mlp_grad_piece"));
    mmlp_status status = MMLP_OK;
    mmlp_grad_piece filled = MMLP_GRAD_PIECE_INIT;
    reduction r;
    piece p = no_piece;
    size_t bytes = 0;
    MMLP_TRY_CLEANUP(take(&r, mlp, args));
    for (int i = 0; i <= index && index >= 0; i++) {
        if (!next_piece(&p, &bytes, &r)) {
            index = -1; /* filled stays without a gradient */
            break;
        }
    }
    if (index >= 0) {
        int64_t part = r.args.scatter ? p.elements / r.group->ranks : p.elements;
        filled.gradient = slot_tensors[gradients[p.gradient].slot].name;
        filled.bucket = p.bucket;
        filled.first = p.first;
        filled.elements = p.elements;
        filled.own_first = p.first + (r.args.scatter ? part * r.group->rank : 0);
        filled.own_elements = part;
    }
    MMLP_TRY_CLEANUP(struct_fill(out, &filled, sizeof filled, "mmlp_grad_piece"));

cleanup:
    mlp_leave(mlp);
    return status;
}
