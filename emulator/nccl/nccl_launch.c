/*
 * nccl_launch.c: the calls that enqueue operations.
 *
 * How streams run in the emulator (emulator/driver, found out before this was written): work runs
 * inside the call that enqueues it, host functions included, and a stream is always empty, unless
 * it captures: then the call adds a node with a copy of the work's arguments to the graph, and a
 * launch of the graph enqueues the copies one by one. An operation that waited for other ranks
 * inside its call would block what its thread does next, which another rank may be waiting for, so
 * it goes through cuEmulatorLaunchWaiting: it runs on a thread of the stream's, and what is
 * enqueued behind it (also in other streams, by events) runs after it there. Arguments are copied,
 * so a captured operation replays for as long as its communicator lives; afterwards it does
 * nothing.
 *
 * As in NCCL, the operations of a communicator run in the order of their calls, whatever their
 * streams: an event ties a stream to the one before it. Those inside of graphs are ordered by their
 * launches alone.
 */
#include <stdlib.h>

#include "driver/cu_emulator.h"
#include "nccl/nccl_group.h"

/* ---- enqueueing ----------------------------------------------------------------------------- */

static void run_ops(void *arguments)
{
    const size_t *count = arguments;
    op_run_all((const nccl_op *)(const void *)(count + 1), *count);
}

static const char *describe_ops(FILE *args, const void *arguments)
{
    const size_t *count = arguments;
    const nccl_op *ops = (const nccl_op *)(const void *)(count + 1);
    for (size_t i = 0; i < *count; i++) {
        fputs(i ? "," : ",\"operations\":[", args);
        op_write(args, &ops[i].shape);
    }
    fputc(']', args);
    return *count == 1 ? op_name(&ops->shape) : "group";
}

/* The stream that the operations of the call's communicator share: the group's first. */
static CUstream shared_stream(const group_call *calls, const group_call *call)
{
    while (calls->op.comm != call->op.comm)
        calls++;
    return calls->stream;
}

/* Whether an earlier call of the group has the same communicator and the same stream. */
static bool is_repeated(const group_call *calls, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (calls[k].op.comm == calls[i].op.comm && calls[k].stream == calls[i].stream)
            return true;
    }
    return false;
}

static ncclResult_t is_capturing(bool *out, CUstream stream)
{
    CUstreamCaptureStatus status;
    CUDA_TRY(cuStreamIsCapturing(stream, &status), "cuStreamIsCapturing");
    *out = status != CU_STREAM_CAPTURE_STATUS_NONE;
    return ncclSuccess;
}

static ncclResult_t tie(CUstream later, CUstream earlier, CUevent event)
{
    CUDA_TRY(cuEventRecord(event, earlier), "cuEventRecord");
    CUDA_TRY(cuStreamWaitEvent(later, event, 0), "cuStreamWaitEvent");
    return ncclSuccess;
}

/* The group's stream of the call's communicator waits for the call's, and for the operation before
 * the group; after it the other way round. */
static ncclResult_t tie_call(const group_call *calls, size_t i, bool is_before)
{
    struct ncclComm *comm = calls[i].op.comm;
    CUstream stream = shared_stream(calls, &calls[i]), own = calls[i].stream;
    bool captures;
    if (is_repeated(calls, i))
        return ncclSuccess;
    if (own != stream)
        return is_before ? tie(stream, own, comm->joint) : tie(own, stream, comm->joint);
    NCCL_TRY(is_capturing(&captures, stream));
    if (captures)
        return ncclSuccess;
    if (is_before && comm->is_chained && comm->last != stream)
        CUDA_TRY(cuStreamWaitEvent(stream, comm->chain, 0), "cuStreamWaitEvent");
    if (!is_before) {
        CUDA_TRY(cuEventRecord(comm->chain, stream), "cuEventRecord");
        comm->last = stream;
        comm->is_chained = true;
    }
    return ncclSuccess;
}

/* Streams are compared by their value, so a default stream is that of the communicator's context.
 */
static bool same_stream(const group_call *calls, const group_call *a, const group_call *b)
{
    return shared_stream(calls, a) == shared_stream(calls, b) &&
           a->op.comm->context == b->op.comm->context;
}

/* Enqueues, as one piece of work, all operations that share the stream of calls[first]. */
static ncclResult_t launch_stream(const group_call *calls, size_t count, size_t first)
{
    size_t *arguments = malloc(sizeof(size_t) + count * sizeof(nccl_op));
    if (!arguments)
        return error_set(ncclSystemError, "out of memory");
    nccl_op *ops = (nccl_op *)(void *)(arguments + 1);
    size_t taken = 0;
    for (size_t i = first; i < count; i++) {
        if (same_stream(calls, &calls[i], &calls[first]))
            ops[taken++] = calls[i].op;
    }
    *arguments = taken;
    CUresult result =
        cuEmulatorLaunchWaiting(shared_stream(calls, &calls[first]), run_ops, describe_ops,
                                arguments, sizeof(size_t) + taken * sizeof(nccl_op));
    free(arguments);
    return error_of_cuda(result, "enqueueing the operation");
}

static bool is_first_of_stream(const group_call *calls, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (same_stream(calls, &calls[k], &calls[i]))
            return false;
    }
    return true;
}

typedef ncclResult_t for_call(const group_call *calls, size_t count, size_t i);

static ncclResult_t before_call(const group_call *calls, size_t count, size_t i)
{
    (void)count;
    return tie_call(calls, i, true);
}

static ncclResult_t launch_call(const group_call *calls, size_t count, size_t i)
{
    return is_first_of_stream(calls, i) ? launch_stream(calls, count, i) : ncclSuccess;
}

static ncclResult_t after_call(const group_call *calls, size_t count, size_t i)
{
    (void)count;
    return tie_call(calls, i, false);
}

/* Default streams are those of the communicator's context, which is current meanwhile. */
static ncclResult_t in_context(for_call *what, const group_call *calls, size_t count, size_t i)
{
    CUcontext popped;
    CUDA_TRY(cuCtxPushCurrent(calls[i].op.comm->context), "cuCtxPushCurrent");
    ncclResult_t result = what(calls, count, i);
    cuCtxPopCurrent(&popped);
    return result;
}

ncclResult_t launch_calls(const group_call *calls, size_t count)
{
    static for_call *const passes[] = {before_call, launch_call, after_call};
    static pthread_mutex_t enqueueing = PTHREAD_MUTEX_INITIALIZER;
    ncclResult_t result = ncclSuccess;
    size_t held = 0;
    while (held < count && comm_hold(calls[held].op.comm, calls[held].op.comm_id))
        held++;
    if (held < count)
        result = error_set(ncclInvalidUsage, "a communicator was destroyed inside of the group");
    pthread_mutex_lock(&enqueueing);
    for (size_t pass = 0; pass < 3; pass++) {
        for (size_t i = 0; i < count && result == ncclSuccess; i++)
            result = in_context(passes[pass], calls, count, i);
    }
    pthread_mutex_unlock(&enqueueing);
    for (size_t i = 0; i < held; i++)
        comm_drop(calls[i].op.comm);
    return result;
}

/* ---- the calls ------------------------------------------------------------------------------ */

static ncclResult_t check_shape(const struct ncclComm *comm, const op_shape *shape)
{
    char text[128];
    if ((unsigned)shape->type >= ncclNumTypes)
        return error_set(ncclInvalidArgument, "there is no data type %d", shape->type);
    if (shape->op >= ncclNumOps)
        return error_set(ncclInvalidUsage,
                         "reduction operation %d: operations of one's own (ncclRedOpCreate...) are "
                         "not supported; sum, prod, max, min, avg are",
                         shape->op);
    if (shape->op < 0)
        return error_set(ncclInvalidArgument, "there is no reduction operation %d", shape->op);
    op_describe(text, shape);
    if (shape->other < 0 || shape->other >= comm->ranks)
        return error_set(ncclInvalidArgument, "%s: the communicator has the ranks 0 to %d", text,
                         comm->ranks - 1);
    if (shape->count > UINT64_C(1) << 48)
        return error_set(ncclInvalidArgument, "%s: no device has so much memory", text);
    return ncclSuccess;
}

static ncclResult_t check_call(const struct ncclComm *comm, const group_call *call)
{
    NCCL_TRY(check_shape(comm, &call->op.shape));
    if (comm->is_finalized)
        return error_set(ncclInvalidUsage, "the communicator was finalized");
    NCCL_TRY(comm_error(call->op.comm));
    return op_check_buffers(&call->op, comm);
}

static ncclResult_t add_call(ncclComm_t handle, group_call *call)
{
    ncclComm_t comm = comm_hold(handle, 0);
    if (!comm)
        return error_set(ncclInvalidArgument, "not a live communicator");
    call->op.comm = comm;
    call->op.comm_id = comm->id;
    ncclResult_t result = check_call(comm, call);
    if (result == ncclSuccess)
        result = group_add_call(call);
    comm_drop(comm);
    return result;
}

static ncclResult_t enqueue(op_kind kind, const void *send, void *receive, size_t count,
                            ncclDataType_t type, int op, int other, ncclComm_t comm,
                            cudaStream_t stream)
{
    group_call call = {.op = {.shape = {.kind = (int32_t)kind,
                                        .type = (int32_t)type,
                                        .op = op,
                                        .other = other,
                                        .count = count},
                              .send = (uintptr_t)send,
                              .receive = (uintptr_t)receive},
                       .stream = (CUstream)stream};
    group_begin();
    return group_end(add_call(comm, &call));
}

ncclResult_t ncclAllReduce(const void *sendbuff, void *recvbuff, size_t count,
                           ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm,
                           cudaStream_t stream)
{
    return enqueue(OP_ALL_REDUCE, sendbuff, recvbuff, count, datatype, (int)op, 0, comm, stream);
}

ncclResult_t ncclReduceScatter(const void *sendbuff, void *recvbuff, size_t recvcount,
                               ncclDataType_t datatype, ncclRedOp_t op, ncclComm_t comm,
                               cudaStream_t stream)
{
    return enqueue(OP_REDUCE_SCATTER, sendbuff, recvbuff, recvcount, datatype, (int)op, 0, comm,
                   stream);
}

ncclResult_t ncclReduce(const void *sendbuff, void *recvbuff, size_t count, ncclDataType_t datatype,
                        ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream)
{
    return enqueue(OP_REDUCE, sendbuff, recvbuff, count, datatype, (int)op, root, comm, stream);
}

ncclResult_t ncclAllGather(const void *sendbuff, void *recvbuff, size_t sendcount,
                           ncclDataType_t datatype, ncclComm_t comm, cudaStream_t stream)
{
    return enqueue(OP_ALL_GATHER, sendbuff, recvbuff, sendcount, datatype, 0, 0, comm, stream);
}

ncclResult_t ncclBroadcast(const void *sendbuff, void *recvbuff, size_t count,
                           ncclDataType_t datatype, int root, ncclComm_t comm, cudaStream_t stream)
{
    return enqueue(OP_BROADCAST, sendbuff, recvbuff, count, datatype, 0, root, comm, stream);
}

ncclResult_t ncclBcast(void *buff, size_t count, ncclDataType_t datatype, int root, ncclComm_t comm,
                       cudaStream_t stream)
{
    return enqueue(OP_BROADCAST, buff, buff, count, datatype, 0, root, comm, stream);
}

ncclResult_t ncclSend(const void *sendbuff, size_t count, ncclDataType_t datatype, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    return enqueue(OP_SEND, sendbuff, NULL, count, datatype, 0, peer, comm, stream);
}

ncclResult_t ncclRecv(void *recvbuff, size_t count, ncclDataType_t datatype, int peer,
                      ncclComm_t comm, cudaStream_t stream)
{
    return enqueue(OP_RECEIVE, NULL, recvbuff, count, datatype, 0, peer, comm, stream);
}
