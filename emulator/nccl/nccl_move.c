/* nccl_move.c: see nccl_move.h. */
#include "nccl/nccl_move.h"

#include <stdio.h>
#include <string.h>

#include "driver/cu_emulator.h"

/* ---- buffers -------------------------------------------------------------------------------- */

/* How many elements an operation reads and writes. */
static void extents(uint64_t *reads, uint64_t *writes, const op_shape *shape,
                    const struct ncclComm *comm)
{
    uint64_t count = shape->count, all = count * (uint64_t)comm->ranks;
    bool is_other = shape->other == comm->rank;
    *reads = *writes = count;
    switch ((op_kind)shape->kind) {
    case OP_REDUCE_SCATTER:
        *reads = all;
        break;
    case OP_ALL_GATHER:
        *writes = all;
        break;
    case OP_REDUCE:
        *writes = is_other ? count : 0;
        break;
    case OP_BROADCAST:
        *reads = is_other ? count : 0;
        break;
    case OP_SEND:
        *writes = 0;
        break;
    case OP_RECEIVE:
        *reads = 0;
        break;
    case OP_ALL_REDUCE:
        break;
    case OP_SPLIT: /* of the host */
        *reads = *writes = 0;
        break;
    }
}

static ncclResult_t check_range(const nccl_op *op, const struct ncclComm *comm, const char *what,
                                uint64_t address, uint64_t elements)
{
    char shape[128];
    CUdeviceptr base;
    size_t whole;
    CUdevice device;
    uint64_t bytes = elements * type_bytes((ncclDataType_t)op->shape.type);
    if (bytes == 0)
        return ncclSuccess;
    op_describe(shape, &op->shape);
    if (cuEmulatorFindAllocation(&base, &whole, &device, address) != CUDA_SUCCESS)
        return error_set(ncclInvalidArgument,
                         "rank %d: %s: the %s of %llu bytes at %#llx is in no allocation of a "
                         "device",
                         comm->rank, shape, what, (unsigned long long)bytes,
                         (unsigned long long)address);
    if (device != comm->device)
        return error_set(ncclInvalidArgument,
                         "rank %d: %s: the %s at %#llx is memory of device %d, the communicator's "
                         "is %d",
                         comm->rank, shape, what, (unsigned long long)address, device,
                         comm->device);
    if (bytes > base + whole - address)
        return error_set(ncclInvalidArgument,
                         "rank %d: %s: the %s of %llu bytes at %#llx leaves its allocation, %zu "
                         "bytes at %#llx",
                         comm->rank, shape, what, (unsigned long long)bytes,
                         (unsigned long long)address, whole, (unsigned long long)base);
    return ncclSuccess;
}

ncclResult_t op_check_buffers(const nccl_op *op, const struct ncclComm *comm)
{
    uint64_t reads, writes;
    extents(&reads, &writes, &op->shape, comm);
    NCCL_TRY(check_range(op, comm, "send buffer", op->send, reads));
    return check_range(op, comm, "receive buffer", op->receive, writes);
}

static void fail_copy(op_run *run, CUresult result)
{
    char text[SEGMENT_TEXT], shape[128];
    if (result == CUDA_SUCCESS)
        return;
    op_describe(shape, &run->shape);
    snprintf(text, sizeof text, "rank %d: %s: a buffer was freed while the operation ran",
             run->comm->rank, shape);
    comm_fail(run->comm, ncclInvalidArgument, text);
}

static void read_elements(op_run *run, void *to, uint64_t first, size_t count)
{
    size_t size = type_bytes((ncclDataType_t)run->shape.type);
    uint64_t from = run->op->send + first * size;
    if (run->shape.kind == OP_SPLIT)
        memcpy(to, (const void *)(uintptr_t)from, count * size);
    else
        fail_copy(run, cuEmulatorRead(to, from, count * size));
}

static void write_elements(op_run *run, const void *from, uint64_t first, size_t count)
{
    size_t size = type_bytes((ncclDataType_t)run->shape.type);
    uint64_t to = run->op->receive + first * size;
    if (run->shape.kind == OP_SPLIT)
        memcpy((void *)(uintptr_t)to, from, count * size);
    else
        fail_copy(run, cuEmulatorWrite(to, from, count * size));
}

/* ---- collectives ---------------------------------------------------------------------------- */

/* Elements of the chunk that comes next. */
static size_t chunk_elements(const op_run *run, size_t window)
{
    uint64_t most = window / type_bytes((ncclDataType_t)run->shape.type);
    uint64_t left = run->shape.count - run->offset;
    return (size_t)(left < most ? left : most);
}

/* The ranks whose counter has not come to `wanted`. */
static uint64_t behind(const struct ncclComm *comm, size_t counter, uint64_t wanted)
{
    uint64_t set = 0;
    for (int rank = 0; rank < comm->ranks; rank++) {
        const unsigned char *other = (const unsigned char *)&comm->shared->ranks[rank];
        if (atomic_load((const _Atomic uint64_t *)(const void *)(other + counter)) < wanted)
            set |= UINT64_C(1) << rank;
    }
    return set;
}

uint64_t move_waits_for(const op_run *run)
{
    const struct ncclComm *comm = run->comm;
    if (run->phase != RUN_MATCH && run->phase != RUN_MOVE)
        return 0;
    if (run->pair)
        return UINT64_C(1) << run->shape.other;
    if (run->phase == RUN_MATCH)
        return behind(comm, offsetof(segment_rank, posted), run->shape.number);
    return run->is_filled ? behind(comm, offsetof(segment_rank, filled), comm->chunks + 1)
                          : behind(comm, offsetof(segment_rank, drained), comm->chunks);
}

static void fill(op_run *run)
{
    const struct ncclComm *comm = run->comm;
    const op_shape *shape = &run->shape;
    if (shape->kind != OP_BROADCAST || shape->other == comm->rank)
        read_elements(run, comm->shared->windows[comm->rank],
                      (uint64_t)run->block * shape->count + run->offset,
                      chunk_elements(run, SEGMENT_WINDOW));
    atomic_store(&comm->shared->ranks[comm->rank].filled, comm->chunks + 1);
    run->is_filled = true;
}

static void reduce(op_run *run, void *scratch)
{
    const void *inputs[SEGMENT_MOST_RANKS];
    const struct ncclComm *comm = run->comm;
    size_t count = chunk_elements(run, SEGMENT_WINDOW);
    for (int rank = 0; rank < comm->ranks; rank++)
        inputs[rank] = comm->shared->windows[rank];
    reduce_elements(scratch, inputs, comm->ranks, count, (ncclDataType_t)run->shape.type,
                    (ncclRedOp_t)run->shape.op);
    write_elements(run, scratch, run->offset, count);
}

static void drain(op_run *run, void *scratch)
{
    const struct ncclComm *comm = run->comm;
    const op_shape *shape = &run->shape;
    size_t count = chunk_elements(run, SEGMENT_WINDOW);
    bool is_root = shape->other == comm->rank;
    switch ((op_kind)shape->kind) {
    case OP_ALL_REDUCE:
        reduce(run, scratch);
        break;
    case OP_REDUCE_SCATTER:
        if (run->block == comm->rank)
            reduce(run, scratch);
        break;
    case OP_REDUCE:
        if (is_root)
            reduce(run, scratch);
        break;
    case OP_BROADCAST:
        write_elements(run, comm->shared->windows[shape->other], run->offset, count);
        break;
    default: /* OP_ALL_GATHER, OP_SPLIT */
        for (int rank = 0; rank < comm->ranks; rank++)
            write_elements(run, comm->shared->windows[rank],
                           (uint64_t)rank * shape->count + run->offset, count);
        break;
    }
}

static void next_chunk(op_run *run)
{
    run->is_filled = false;
    run->offset += chunk_elements(run, SEGMENT_WINDOW);
    if (run->offset < run->shape.count)
        return;
    run->offset = 0;
    run->block++;
    int blocks = run->shape.kind == OP_REDUCE_SCATTER ? run->comm->ranks : 1;
    if (run->block == blocks)
        run->phase = RUN_DONE;
}

bool move_collective(op_run *run, void *scratch)
{
    if (move_waits_for(run))
        return false;
    if (!run->is_filled) {
        fill(run);
    } else {
        drain(run, scratch);
        next_chunk(run);
        run->comm->chunks++;
        atomic_store(&run->comm->shared->ranks[run->comm->rank].drained, run->comm->chunks);
    }
    segment_raise(run->comm->shared);
    return true;
}

/* ---- messages ------------------------------------------------------------------------------- */

/* The sender fills the window when it is empty, and is done when the last chunk has been taken. */
static bool send(op_run *run, unsigned char *window)
{
    uint64_t filled = atomic_load(&run->pair->filled);
    if (atomic_load(&run->pair->drained) < filled)
        return false;
    if (run->offset == run->shape.count) {
        run->phase = RUN_DONE;
        return true;
    }
    size_t count = chunk_elements(run, SEGMENT_PAIR_WINDOW);
    read_elements(run, window, run->offset, count);
    run->offset += count;
    atomic_store(&run->pair->filled, filled + 1);
    return true;
}

static bool receive(op_run *run, const unsigned char *window)
{
    uint64_t drained = atomic_load(&run->pair->drained);
    if (atomic_load(&run->pair->filled) == drained)
        return false;
    size_t count = chunk_elements(run, SEGMENT_PAIR_WINDOW);
    write_elements(run, window, run->offset, count);
    run->offset += count;
    if (run->offset == run->shape.count)
        run->phase = RUN_DONE;
    atomic_store(&run->pair->drained, drained + 1);
    return true;
}

bool move_message(op_run *run)
{
    int own = run->comm->rank, peer = run->shape.other;
    segment *shared = run->comm->shared;
    bool moved = run->shape.kind == OP_SEND ? send(run, shared->pair_windows[own][peer])
                                            : receive(run, shared->pair_windows[peer][own]);
    if (moved)
        segment_raise(shared);
    return moved;
}
