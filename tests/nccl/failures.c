/* failures.c: ranks that disagree, die, leave or never come: an error that says so, and no hang
 * (the tests' time limits end them). */
#include "ranks.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- disagreement --------------------------------------------------------------------------- */

typedef enum what_kind {
    ALL_REDUCE,
    REDUCE_SCATTER,
    REDUCE,
    ALL_GATHER,
    BROADCAST,
    SEND,
    RECEIVE,
    SPLIT,
    DESTROY
} what_kind;

typedef struct what {
    what_kind kind;
    size_t count;
    ncclDataType_t type;
    ncclRedOp_t op;
    int other;
} what;

typedef struct disagreement {
    what sides[2];
    const char *texts[2]; /* one of them, or two parts that both ranks' texts have */
} disagreement;

static ncclResult_t call(const test_rank *own, const what *w, void *at, void *to)
{
    ncclComm_t part;
    cudaStream_t stream = nccl_stream(own);
    switch (w->kind) {
    case ALL_REDUCE:
        return ncclAllReduce(at, to, w->count, w->type, w->op, own->comm, stream);
    case REDUCE_SCATTER:
        return ncclReduceScatter(at, to, w->count, w->type, w->op, own->comm, stream);
    case REDUCE:
        return ncclReduce(at, to, w->count, w->type, w->op, w->other, own->comm, stream);
    case ALL_GATHER:
        return ncclAllGather(at, to, w->count, w->type, own->comm, stream);
    case BROADCAST:
        return ncclBroadcast(at, to, w->count, w->type, w->other, own->comm, stream);
    case SEND:
        return ncclSend(at, w->count, w->type, w->other, own->comm, stream);
    case RECEIVE:
        return ncclRecv(to, w->count, w->type, w->other, own->comm, stream);
    case SPLIT:
        ncclCommSplit(own->comm, 0, 0, &part, NULL); /* tells its error by itself */
        return ncclSuccess;
    case DESTROY:
        break;
    }
    return ncclSuccess;
}

/* Two all-reduces that agree, then the one that does not. */
static void disagree(test_rank *own)
{
    static const char zeros[65536];
    const disagreement *d = own->what;
    const what agreed = {ALL_REDUCE, 4, ncclFloat32, ncclSum, 0}, *w = &d->sides[own->rank];
    CUdeviceptr at = rank_upload(zeros, sizeof zeros), to = rank_upload(zeros, sizeof zeros);
    for (int i = 0; i < 2; i++)
        CHECK_NCCL(ncclSuccess, call(own, &agreed, (void *)at, (void *)to));
    if (w->kind == DESTROY)
        return;
    CHECK_NCCL(ncclSuccess, call(own, w, (void *)at, (void *)to));
    rank_expect_error(own, ncclInvalidUsage, d->texts[0]);
    CHECK_TEXT(d->texts[1], ncclGetLastError(own->comm));
    CHECK_NCCL(ncclInvalidUsage, call(own, &agreed, (void *)at, (void *)to));
    CHECK_TEXT(d->texts[0], ncclGetLastError(own->comm));
}

static const disagreement disagreements[] = {
    {{{ALL_REDUCE, 1024, ncclBfloat16, ncclSum, 0},
      {REDUCE_SCATTER, 512, ncclBfloat16, ncclSum, 0}},
     {"rank 0: all-reduce of 1024 bf16, sum; rank 1: reduce-scatter of 512 bf16, sum; operation 3 "
      "of the communicator",
      ""}},
    {{{ALL_REDUCE, 1024, ncclFloat32, ncclSum, 0}, {ALL_REDUCE, 1023, ncclFloat32, ncclSum, 0}},
     {"rank 0: all-reduce of 1024 fp32, sum; rank 1: all-reduce of 1023 fp32, sum; operation 3",
      ""}},
    {{{ALL_REDUCE, 8, ncclFloat16, ncclSum, 0}, {ALL_REDUCE, 8, ncclBfloat16, ncclSum, 0}},
     {"rank 0: all-reduce of 8 fp16, sum; rank 1: all-reduce of 8 bf16, sum; operation 3", ""}},
    {{{ALL_REDUCE, 8, ncclFloat16, ncclAvg, 0}, {ALL_REDUCE, 8, ncclFloat16, ncclMax, 0}},
     {"rank 0: all-reduce of 8 fp16, avg; rank 1: all-reduce of 8 fp16, max; operation 3", ""}},
    {{{BROADCAST, 8, ncclInt8, ncclSum, 0}, {BROADCAST, 8, ncclInt8, ncclSum, 1}},
     {"rank 0: broadcast of 8 int8 from rank 0; rank 1: broadcast of 8 int8 from rank 1; "
      "operation 3",
      ""}},
    {{{REDUCE, 8, ncclInt8, ncclSum, 0}, {ALL_GATHER, 8, ncclInt8, ncclSum, 0}},
     {"rank 0: reduce of 8 int8, sum to rank 0; rank 1: all-gather of 8 int8; operation 3", ""}},
    {{{SPLIT, 0, ncclInt8, ncclSum, 0}, {ALL_GATHER, 8, ncclInt8, ncclSum, 0}},
     {"rank 0: split; rank 1: all-gather of 8 int8; operation 3", ""}},
    {{{SEND, 8, ncclInt32, ncclSum, 1}, {RECEIVE, 9, ncclInt32, ncclSum, 0}},
     {"rank 0: send of 8 int32 to rank 1; rank 1: receive of 9 int32 from rank 0; message 1", ""}},
    {{{SEND, 8, ncclFloat8e4m3, ncclSum, 1}, {RECEIVE, 8, ncclFloat8e5m2, ncclSum, 0}},
     {"rank 0: send of 8 e4m3 to rank 1; rank 1: receive of 8 e5m2 from rank 0; message 1", ""}},
    /* each waits for what the other does not do; which rank finds it out first is open */
    {{{ALL_REDUCE, 8, ncclInt32, ncclSum, 0}, {SEND, 8, ncclInt32, ncclSum, 0}},
     {"rank 0: all-reduce of 8 int32, sum", "rank 1: send of 8 int32 to rank 0"}},
    {{{SEND, 8, ncclInt32, ncclSum, 1}, {SEND, 8, ncclInt32, ncclSum, 0}},
     {"rank 0: send of 8 int32 to rank 1", "rank 1: send of 8 int32 to rank 0"}},
    {{{ALL_REDUCE, 8, ncclInt32, ncclSum, 0}, {DESTROY, 0, ncclInt8, ncclSum, 0}},
     {"rank 0: all-reduce of 8 int32, sum; rank 1: has destroyed its communicator; operation 3 "
      "of rank 0 waits for it",
      ""}},
};

Test(nccl_failures, ranks_that_disagree_are_both_told_both_sides, .timeout = 120)
{
    size_t count = sizeof disagreements / sizeof disagreements[0];
    for (size_t i = 0; i < count; i++)
        ranks_run(PROCESSES, 2, disagree, &disagreements[i], 0);
    for (size_t i = 0; i < count; i++)
        ranks_run(THREADS, 2, disagree, &disagreements[i], 0);
}

/* Two of four disagree on a message: the others, who wait in a collective, hear of it. */
static void bystanders(test_rank *own)
{
    static const char zeros[64];
    CUdeviceptr at = rank_upload(zeros, sizeof zeros);
    what w = {ALL_REDUCE, 4, ncclFloat32, ncclSum, 0};
    if (own->rank == 1)
        w = (what){SEND, 4, ncclFloat32, ncclSum, 2};
    if (own->rank == 2)
        w = (what){RECEIVE, 5, ncclFloat32, ncclSum, 1};
    if (own->rank == 1 || own->rank == 2) { /* after the others' calls, which would tell it */
        rank_await(own, 0);
        rank_await(own, 3);
    }
    CHECK_NCCL(ncclSuccess, call(own, &w, (void *)at, (void *)at));
    rank_signal(own, own->rank);
    rank_expect_error(own, ncclInvalidUsage,
                      "rank 1: send of 4 fp32 to rank 2; rank 2: receive of 5 fp32 from rank 1");
}

Test(nccl_failures, all_ranks_hear_of_a_disagreement_of_two, .timeout = 60)
{
    ranks_run(PROCESSES, 4, bystanders, NULL, 0);
}

/* ---- ranks that end ------------------------------------------------------------------------- */

/* Rank 1 is killed between operations, while rank 0 waits in one, and rank 2 asks. */
static void killed(test_rank *own)
{
    ncclResult_t error = ncclSuccess;
    static const char zeros[64];
    CUdeviceptr at = rank_upload(zeros, sizeof zeros);
    const what w = {ALL_REDUCE, 4, ncclFloat32, ncclSum, 0};
    CHECK_NCCL(ncclSuccess, call(own, &w, (void *)at, (void *)at));
    CHECK_CUDA(cuStreamSynchronize(own->stream));
    if (own->rank == 1) {
        rank_await(own, 0);
        raise(SIGKILL);
    }
    if (own->rank == 0) {
        CHECK_NCCL(ncclSuccess, call(own, &w, (void *)at, (void *)at));
        rank_signal(own, 0);
        rank_expect_error(own, ncclRemoteError, "rank 1 (process ");
    } else {
        while (error == ncclSuccess)
            CHECK_NCCL(ncclSuccess, ncclCommGetAsyncError(own->comm, &error));
        rank_expect_error(own, ncclRemoteError, "has ended without leaving");
    }
    CHECK_NCCL(ncclRemoteError, call(own, &w, (void *)at, (void *)at));
    if (own->rank == 0) {
        CHECK_NCCL(ncclSuccess, ncclCommAbort(own->comm));
        own->comm = NULL;
    }
}

Test(nccl_failures, a_killed_rank_makes_the_others_fail, .timeout = 60)
{
    ranks_run(PROCESSES, 3, killed, NULL, 1u << 1);
}

/* In the middle of a large operation: rank 0 dies when rank 1 has seen the first elements change.
 */
static void killed_inside(test_rank *own)
{
    size_t bytes = (size_t)64 << 20;
    CUdeviceptr at;
    CHECK_CUDA(cuMemAlloc(&at, bytes));
    CHECK_CUDA(cuMemsetD32(at, 1, bytes / 4));
    if (own->rank == 0) {
        CHECK_NCCL(ncclSuccess, ncclAllReduce((void *)at, (void *)at, bytes / 4, ncclInt32, ncclSum,
                                              own->comm, nccl_stream(own)));
        rank_await(own, 0);
        raise(SIGKILL);
    }
    CHECK_NCCL(ncclSuccess, ncclAllReduce((void *)at, (void *)at, bytes / 4, ncclInt32, ncclSum,
                                          own->comm, nccl_stream(own)));
    while (*(volatile int *)at == 1) /* an emulated device's memory can be looked at */
        usleep(100);
    rank_signal(own, 0);
    rank_expect_error(own, ncclRemoteError, "rank 0 (process ");
}

Test(nccl_failures, a_rank_killed_inside_of_an_operation_makes_the_other_fail, .timeout = 60)
{
    ranks_run(PROCESSES, 2, killed_inside, NULL, 1u << 0);
}

static void aborts(test_rank *own)
{
    static const char zeros[64];
    CUdeviceptr at = rank_upload(zeros, sizeof zeros);
    const what w = {ALL_REDUCE, 4, ncclFloat32, ncclSum, 0};
    if (own->rank == 0) {
        CHECK_NCCL(ncclSuccess, call(own, &w, (void *)at, (void *)at));
        rank_signal(own, 0);
        rank_expect_error(own, ncclRemoteError, "rank 1 has aborted the communicator");
        return;
    }
    rank_await(own, 0);
    CHECK_NCCL(ncclSuccess, ncclCommAbort(own->comm));
    CHECK_NCCL(ncclInvalidArgument, call(own, &w, (void *)at, (void *)at));
    own->comm = NULL;
}

Test(nccl_failures, an_abort_makes_the_others_fail, .timeout = 60)
{
    ranks_run(PROCESSES, 2, aborts, NULL, 0);
    ranks_run(THREADS, 2, aborts, NULL, 0);
}

/* The rank aborts its own operation, for which nobody else comes. */
static void aborts_own(test_rank *own)
{
    static const char zeros[64];
    CUdeviceptr at = rank_upload(zeros, sizeof zeros);
    const what w = {ALL_REDUCE, 4, ncclFloat32, ncclSum, 0};
    if (own->rank == 0) {
        CHECK_NCCL(ncclSuccess, call(own, &w, (void *)at, (void *)at));
        CHECK_NCCL(ncclSuccess, ncclCommAbort(own->comm));
        own->comm = NULL;
        CHECK_CUDA(cuStreamSynchronize(own->stream));
        rank_signal(own, 0);
    }
    rank_await(own, 0);
}

Test(nccl_failures, an_abort_ends_ones_own_operation, .timeout = 60)
{
    ranks_run(PROCESSES, 2, aborts_own, NULL, 0);
    ranks_run(THREADS, 2, aborts_own, NULL, 0);
}

/* ---- initialisation ------------------------------------------------------------------------- */

/* Kills the process when it has taken rank 1's place in the segment. */
static void kill_when_joined(pid_t process, const ncclUniqueId *id)
{
    char path[160];
    snprintf(path, sizeof path, "/dev/shm/%s", id->internal);
    int fd = open(path, O_RDWR);
    struct flock place;
    do {
        usleep(50000);
        place = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 1};
        CHECK(fcntl(fd, F_OFD_GETLK, &place) == 0);
    } while (place.l_type == F_UNLCK);
    usleep(50000);
    kill(process, SIGKILL);
    _exit(0);
}

/* Rank 1 waits for rank 2, which never comes, and is killed while it does. */
static void killed_in_init(test_rank *own)
{
    pid_t self = getpid();
    if (own->rank == 2) {
        rank_await(own, 0);
        return;
    }
    if (own->rank == 1 && fork() == 0)
        kill_when_joined(self, &own->id);
    CHECK_NCCL(ncclRemoteError, ncclCommInitRank(&own->comm, own->ranks, own->id, own->rank));
    CHECK(own->comm == NULL);
    CHECK_TEXT("rank 1 (process ", ncclGetLastError(NULL));
    rank_signal(own, 0);
}

Test(nccl_failures, a_rank_killed_in_init_ends_the_others_wait, .timeout = 60)
{
    ranks_run_bare(PROCESSES, 3, killed_in_init, NULL, 1u << 1);
}

/* Rank 1 makes the id, and is killed before it joins. */
static void maker_dies(test_rank *own)
{
    ncclUniqueId id;
    volatile char *shared = (volatile char *)(own->flags + 8);
    if (own->rank == 1) {
        CHECK_NCCL(ncclSuccess, ncclGetUniqueId(&id));
        for (size_t i = 0; i < sizeof id; i++)
            shared[i] = id.internal[i];
        rank_signal(own, 0);
        rank_await(own, 1);
        usleep(200000); /* rank 0 waits, or will find nobody alive */
        raise(SIGKILL);
    }
    rank_await(own, 0);
    for (size_t i = 0; i < sizeof id; i++)
        id.internal[i] = shared[i];
    rank_signal(own, 1);
    CHECK_NCCL(ncclRemoteError, ncclCommInitRank(&own->comm, own->ranks, id, own->rank));
    CHECK_TEXT("rank 1 has not joined, and the process that made the unique id has ended",
               ncclGetLastError(NULL));
}

Test(nccl_failures, init_ends_when_the_maker_of_the_id_dies_and_never_joins, .timeout = 60)
{
    ranks_run_bare(PROCESSES, 2, maker_dies, NULL, 1u << 1);
}

static void wrong_size(test_rank *own)
{
    ncclResult_t result = ncclCommInitRank(&own->comm, 2 + own->rank, own->id, own->rank);
    CHECK_NCCL(ncclInvalidUsage, result);
    CHECK_TEXT("ranks; ranks that came before it have one of ", ncclGetLastError(NULL));
}

Test(nccl_failures, ranks_that_disagree_on_the_size_are_told, .timeout = 60)
{
    ranks_run_bare(PROCESSES, 2, wrong_size, NULL, 0);
}

/* Whoever comes second as rank 0 is refused, and so is who waits. */
static void same_rank(test_rank *own)
{
    CHECK_NCCL(ncclInvalidUsage, ncclCommInitRank(&own->comm, 2, own->id, 0));
    CHECK_TEXT("two ranks join the communicator as rank 0", ncclGetLastError(NULL));
}

Test(nccl_failures, two_ranks_of_the_same_number_are_refused, .timeout = 60)
{
    ranks_run_bare(PROCESSES, 2, same_rank, NULL, 0);
}

static void same_device(test_rank *own)
{
    CUcontext context;
    CHECK_CUDA(cuCtxCreate(&context, NULL, 0, 3));
    CHECK_NCCL(ncclInvalidUsage, ncclCommInitRank(&own->comm, 2, own->id, own->rank));
    CHECK_TEXT("rank 0 and rank 1 are both on device 3 of the same process",
               ncclGetLastError(NULL));
    CHECK_CUDA(cuCtxDestroy(context));
}

Test(nccl_failures, two_ranks_on_one_device_of_a_process_are_refused, .timeout = 60)
{
    ranks_run_bare(THREADS, 2, same_device, NULL, 0);
}

/* ---- what killed jobs leave ----------------------------------------------------------------- */

static bool has_segment(const ncclUniqueId *id)
{
    char path[160];
    snprintf(path, sizeof path, "/dev/shm/%s", id->internal);
    return access(path, F_OK) == 0;
}

static void makes_id_and_dies(test_rank *own)
{
    ncclUniqueId *const *shared = own->what;
    CHECK_NCCL(ncclSuccess, ncclGetUniqueId(*shared));
    raise(SIGKILL);
}

Test(nccl_failures, what_a_killed_job_left_is_removed_by_the_next, .timeout = 60)
{
    ncclUniqueId id,
        *left = mmap(NULL, sizeof *left, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(left, MAP_FAILED);
    ranks_run_bare(PROCESSES, 1, makes_id_and_dies, &left, 1u << 0);
    cr_assert(has_segment(left));
    CHECK_NCCL(ncclSuccess, ncclGetUniqueId(&id));
    cr_assert_not(has_segment(left));
    cr_assert(has_segment(&id)); /* of a process that lives */
    munmap(left, sizeof *left);
}

static void has_joined(test_rank *own)
{
    CHECK(!has_segment(&own->id));
}

Test(nccl_failures, a_segment_has_no_name_when_all_have_joined, .timeout = 60)
{
    ranks_run(PROCESSES, 2, has_joined, NULL, 0);
}
