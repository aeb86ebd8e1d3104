/*
 * nccl_op.c: the engine. An operation goes through posting (the rank says what it does), matching
 * (all others say the same) and moving (chunks through the windows); step() does what can be done
 * without waiting, and when no operation of the group can do anything the thread sleeps.
 */
#include "nccl/nccl_op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nccl/nccl_move.h"
#include "nccl/nccl_stuck.h"

#define LOOK_MS 100 /* how often a sleeper looks whether the others live */

static bool is_message(const op_run *run)
{
    return run->shape.kind == OP_SEND || run->shape.kind == OP_RECEIVE;
}

/* ---- posting and matching ------------------------------------------------------------------- */

static void post_collective(op_run *run)
{
    segment_rank *own = &run->comm->shared->ranks[run->comm->rank];
    run->shape.number = ++run->comm->collectives;
    own->shapes[run->shape.number % 2] = run->shape;
    atomic_store(&own->posted, run->shape.number);
}

static void post_message(op_run *run)
{
    int peer = run->shape.other;
    if (run->shape.kind == OP_SEND) {
        run->shape.number = ++run->comm->sends[peer];
        run->pair->sent[run->shape.number % 2] = run->shape;
        atomic_store(&run->pair->sends, run->shape.number);
    } else {
        run->shape.number = ++run->comm->receives[peer];
        run->pair->received[run->shape.number % 2] = run->shape;
        atomic_store(&run->pair->receives, run->shape.number);
    }
}

static bool post(op_run *run)
{
    ncclResult_t result = op_check_buffers(run->op, run->comm);
    if (result != ncclSuccess) {
        comm_fail(run->comm, result, error_text());
        return true;
    }
    if (is_message(run))
        post_message(run);
    else
        post_collective(run);
    run->phase = RUN_MATCH;
    segment_raise(run->comm->shared);
    return true;
}

static void fail_mismatch(op_run *run, int a, const op_shape *of_a, int b, const op_shape *of_b)
{
    char text[SEGMENT_TEXT], left[128], right[128], where[96];
    op_describe(left, of_a);
    op_describe(right, of_b);
    if (is_message(run))
        snprintf(where, sizeof where, "message %llu between them",
                 (unsigned long long)run->shape.number);
    else
        snprintf(where, sizeof where, "operation %llu of the communicator",
                 (unsigned long long)run->shape.number);
    snprintf(text, sizeof text, "rank %d: %s; rank %d: %s; %s", a, left, b, right, where);
    comm_fail(run->comm, ncclInvalidUsage, text);
}

static bool same(const op_shape *a, const op_shape *b)
{
    return a->kind == b->kind && a->type == b->type && a->op == b->op && a->other == b->other &&
           a->count == b->count;
}

/* True: all have posted the same; or they have not, and the communicator failed. */
static bool match_collective(op_run *run)
{
    segment *shared = run->comm->shared;
    uint64_t number = run->shape.number;
    int first = -1;
    bool all = true;
    for (int rank = 0; rank < run->comm->ranks; rank++) {
        const segment_rank *other = &shared->ranks[rank];
        if (atomic_load(&other->posted) < number) {
            all = false;
            continue;
        }
        first = first < 0 ? rank : first;
        const op_shape *one = &shared->ranks[first].shapes[number % 2];
        const op_shape *two = &other->shapes[number % 2];
        if (!same(one, two)) {
            fail_mismatch(run, first, one, rank, two);
            return true;
        }
    }
    return all;
}

static bool match_message(op_run *run)
{
    const segment_pair *pair = run->pair;
    uint64_t number = run->shape.number;
    if (atomic_load(&pair->sends) < number || atomic_load(&pair->receives) < number)
        return false;
    const op_shape *sent = &pair->sent[number % 2], *received = &pair->received[number % 2];
    if (sent->type != received->type || sent->count != received->count)
        fail_mismatch(run, received->other, sent, sent->other, received);
    return true;
}

static bool step(op_run *run, void *scratch)
{
    switch (run->phase) {
    case RUN_NEW:
        return post(run);
    case RUN_MATCH:
        if (!(is_message(run) ? match_message(run) : match_collective(run)))
            return false;
        run->phase = run->shape.count ? RUN_MOVE : RUN_DONE;
        return true;
    case RUN_MOVE:
        return is_message(run) ? move_message(run) : move_collective(run, scratch);
    case RUN_DONE:
        break;
    }
    return false;
}

/* ---- a group -------------------------------------------------------------------------------- */

/* Operations of a communicator come one after the other; messages only those to the same rank in
 * the same direction, and beside the others. */
static bool comes_after(const op_run *run, const op_run *before)
{
    if (run->comm != before->comm || is_message(run) != is_message(before))
        return false;
    return !is_message(run) ||
           (run->shape.kind == before->shape.kind && run->shape.other == before->shape.other);
}

static bool is_next(const op_run *runs, size_t i)
{
    for (size_t k = 0; k < i; k++) {
        if (runs[k].phase != RUN_DONE && comes_after(&runs[i], &runs[k]))
            return false;
    }
    return runs[i].phase != RUN_DONE;
}

/* One pass; false: nothing could be done. *left: operations that have not ended. */
static bool pass(op_run *runs, size_t count, void *scratch, size_t *left)
{
    bool moved = false;
    *left = 0;
    for (size_t i = 0; i < count; i++) {
        op_run *run = &runs[i];
        run->is_next = is_next(runs, i);
        if (run->phase == RUN_DONE)
            continue;
        if (atomic_load(&run->comm->is_aborted) || comm_error(run->comm) != ncclSuccess)
            run->phase = RUN_DONE;
        else if (run->is_next)
            moved |= step(run, scratch);
        *left += run->phase != RUN_DONE;
    }
    return moved;
}

static void run_group(op_run *runs, size_t count, struct ncclComm *const *comms, size_t comm_count,
                      void *scratch)
{
    uint32_t seen[SEGMENT_MOST_RANKS];
    size_t left = count;
    while (left) {
        for (size_t i = 0; i < comm_count; i++)
            seen[i] = atomic_load(&comms[i]->shared->epoch);
        if (pass(runs, count, scratch, &left) || !left)
            continue;
        for (size_t i = 0; i < comm_count; i++)
            stuck_publish(comms[i], runs, count, seen[i]);
        /* only one epoch can be slept on; the others are looked at often */
        int most = comm_count == 1 ? LOOK_MS : 1;
        if (segment_sleep(comms[0]->shared, seen[0], most))
            continue;
        for (size_t i = 0; i < comm_count; i++) {
            comm_check_alive(comms[i]);
            stuck_check(comms[i], seen[i]);
        }
    }
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = (uintptr_t) * (struct ncclComm *const *)a;
    uintptr_t y = (uintptr_t) * (struct ncclComm *const *)b;
    return x < y ? -1 : x > y;
}

/* The different communicators of the runs, in the order in which everybody takes their turns. */
static size_t list_comms(struct ncclComm **comms, const op_run *runs, size_t count)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        bool known = false;
        for (size_t k = 0; k < found && !known; k++)
            known = comms[k] == runs[i].comm;
        if (!known)
            comms[found++] = runs[i].comm;
    }
    qsort(comms, found, sizeof comms[0], by_address);
    return found;
}

/* The operations whose communicators live, each with a reference. */
static size_t begin_runs(op_run *runs, const nccl_op *ops, size_t count)
{
    size_t begun = 0;
    for (size_t i = 0; i < count; i++) {
        ncclComm_t comm = comm_hold(ops[i].comm, ops[i].comm_id);
        if (!comm)
            continue;
        op_run *run = &runs[begun++];
        *run = (op_run){.op = &ops[i], .comm = comm, .shape = ops[i].shape};
        int peer = run->shape.other;
        if (run->shape.kind == OP_SEND)
            run->pair = &comm->shared->pairs[comm->rank][peer];
        else if (run->shape.kind == OP_RECEIVE)
            run->pair = &comm->shared->pairs[peer][comm->rank];
    }
    return begun;
}

void op_run_all(const nccl_op *ops, size_t count)
{
    op_run *runs = calloc(count, sizeof *runs);
    struct ncclComm **comms = calloc(count, sizeof(struct ncclComm *));
    void *scratch = malloc(SEGMENT_WINDOW);
    if (!runs || !comms || !scratch)
        abort(); /* the other ranks would wait for ever */
    size_t begun = begin_runs(runs, ops, count);
    size_t comm_count = list_comms(comms, runs, begun);
    for (size_t i = 0; i < comm_count; i++)
        pthread_mutex_lock(&comms[i]->turn);
    run_group(runs, begun, comms, comm_count, scratch);
    for (size_t i = comm_count; i-- > 0;)
        pthread_mutex_unlock(&comms[i]->turn);
    for (size_t i = 0; i < begun; i++)
        comm_drop(runs[i].comm);
    free(scratch);
    free(comms);
    free(runs);
}
