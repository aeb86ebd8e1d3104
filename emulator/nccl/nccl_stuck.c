/* nccl_stuck.c: see nccl_stuck.h. */
#include "nccl/nccl_stuck.h"

#include <stdio.h>

void stuck_publish(struct ncclComm *comm, const op_run *runs, size_t count, uint32_t seen)
{
    segment_rank *own = &comm->shared->ranks[comm->rank];
    const op_run *first = NULL;
    uint64_t set = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t waits = runs[i].comm == comm && runs[i].is_next ? move_waits_for(&runs[i]) : 0;
        if (waits && !first)
            first = &runs[i];
        set |= waits;
    }
    atomic_store(&own->waits_at, seen - 1); /* what follows is not to be read */
    if (first)
        own->waits_in = first->shape;
    atomic_store(&own->waits_for, set);
    atomic_store(&own->waits_at, seen);
}

/* What a rank waits for at this epoch, if it sleeps. */
static uint64_t waits_of(const struct ncclComm *comm, int rank, uint32_t epoch, op_shape *in)
{
    const segment_rank *other = &comm->shared->ranks[rank];
    if (atomic_load(&other->waits_at) != epoch)
        return 0;
    uint64_t set = atomic_load(&other->waits_for);
    *in = other->waits_in;
    return atomic_load(&other->waits_at) == epoch ? set : 0;
}

/* The ranks that the set waits for, directly or through others. */
static uint64_t reach(const struct ncclComm *comm, uint64_t set, uint32_t epoch)
{
    op_shape in;
    for (uint64_t before = 0; before != set;) {
        before = set;
        for (int rank = 0; rank < comm->ranks; rank++) {
            if (set >> rank & 1)
                set |= waits_of(comm, rank, epoch, &in);
        }
    }
    return set;
}

static void fail_stuck(struct ncclComm *comm, const op_shape *own, int other, const char *what,
                       const char *why)
{
    char text[SEGMENT_TEXT], mine[128];
    op_describe(mine, own);
    snprintf(text, sizeof text, "rank %d: %s; rank %d: %s; %s %llu of rank %d %s", comm->rank, mine,
             other, what, own->kind == OP_SEND || own->kind == OP_RECEIVE ? "message" : "operation",
             (unsigned long long)own->number, comm->rank, why);
    comm_fail(comm, ncclInvalidUsage, text);
}

void stuck_check(struct ncclComm *comm, uint32_t seen)
{
    op_shape own, theirs;
    uint64_t set = waits_of(comm, comm->rank, seen, &own);
    uint64_t self = UINT64_C(1) << comm->rank;
    for (int rank = 0; rank < comm->ranks; rank++) {
        if (!(set >> rank & 1))
            continue;
        bool has_left = atomic_load(&comm->shared->ranks[rank].state) == RANK_LEFT;
        bool circle = rank == comm->rank || (reach(comm, UINT64_C(1) << rank, seen) & self);
        uint64_t waits = waits_of(comm, rank, seen, &theirs);
        /* what the rank did before it left, or slept, was seen at this epoch if it still is it */
        if (atomic_load(&comm->shared->epoch) != seen)
            return;
        if (has_left) {
            fail_stuck(comm, &own, rank, "has destroyed its communicator", "waits for it");
            return;
        }
        if (circle && waits) {
            char text[128];
            op_describe(text, &theirs);
            fail_stuck(comm, &own, rank, text, "and that one wait for each other");
            return;
        }
    }
}
