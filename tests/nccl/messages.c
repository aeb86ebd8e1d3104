/* messages.c: send and receive, groups, splits, and several communicators and streams of a thread.
 */
#include "ranks.h"

#include <stdlib.h>
#include <unistd.h>

#include "driver/cu_emulator.h"

#define RING_COUNT 40000 /* three chunks of a message's window */

static CUdeviceptr upload_words(int first, size_t count)
{
    int *values = malloc(count * sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = first + (int)i;
    CUdeviceptr at = rank_upload(values, count * sizeof *values);
    free(values);
    return at;
}

static void expect_words(CUdeviceptr at, int first, size_t count)
{
    int *found = malloc(count * sizeof *found);
    rank_download(found, at, count * sizeof *found);
    for (size_t i = 0; i < count; i++)
        CHECK(found[i] == first + (int)i, "word %zu is %d, wanted %d", i, found[i], first + (int)i);
    free(found);
}

/* ---- rings ---------------------------------------------------------------------------------- */

static void ring(test_rank *own)
{
    int next = (own->rank + 1) % own->ranks, before = (own->rank + own->ranks - 1) % own->ranks;
    CUdeviceptr send = upload_words(1000 * own->rank, RING_COUNT);
    CUdeviceptr receive = upload_words(0, RING_COUNT);
    for (int turn = 0; turn < 3; turn++) {
        CHECK_NCCL(ncclSuccess, ncclGroupStart());
        CHECK_NCCL(ncclSuccess, ncclSend((void *)send, RING_COUNT, ncclInt32, next, own->comm,
                                         nccl_stream(own)));
        CHECK_NCCL(ncclSuccess, ncclRecv((void *)receive, RING_COUNT, ncclInt32, before, own->comm,
                                         nccl_stream(own)));
        CHECK_NCCL(ncclSuccess, ncclGroupEnd());
    }
    CHECK_CUDA(cuStreamSynchronize(own->stream));
    expect_words(receive, 1000 * before, RING_COUNT);
}

Test(nccl_messages, a_ring_of_four_processes, .timeout = 60)
{
    ranks_run(PROCESSES, 4, ring, NULL, 0);
}

Test(nccl_messages, a_ring_of_three_threads, .timeout = 60)
{
    ranks_run(THREADS, 3, ring, NULL, 0);
}

/* With itself: a group's messages go on side by side. */
Test(nccl_messages, a_ring_of_one, .timeout = 60)
{
    ranks_run(THREADS, 1, ring, NULL, 0);
}

/* Receives come before sends, of two messages each way, with a collective among them. */
static void mixed_group(test_rank *own)
{
    int peer = 1 - own->rank;
    CUdeviceptr a = upload_words(100 * own->rank, 10), b = upload_words(100 * own->rank + 50, 20);
    CUdeviceptr from_a = upload_words(0, 10), from_b = upload_words(0, 20);
    CUdeviceptr sum = upload_words(own->rank, 1);
    CHECK_NCCL(ncclSuccess, ncclGroupStart());
    CHECK_NCCL(ncclSuccess,
               ncclRecv((void *)from_a, 10, ncclInt32, peer, own->comm, nccl_stream(own)));
    CHECK_NCCL(ncclSuccess,
               ncclRecv((void *)from_b, 20, ncclInt32, peer, own->comm, nccl_stream(own)));
    CHECK_NCCL(ncclSuccess, ncclAllReduce((void *)sum, (void *)sum, 1, ncclInt32, ncclSum,
                                          own->comm, nccl_stream(own)));
    CHECK_NCCL(ncclSuccess, ncclSend((void *)a, 10, ncclInt32, peer, own->comm, nccl_stream(own)));
    CHECK_NCCL(ncclSuccess, ncclSend((void *)b, 20, ncclInt32, peer, own->comm, nccl_stream(own)));
    CHECK_NCCL(ncclSuccess, ncclGroupEnd());
    CHECK_CUDA(cuStreamSynchronize(own->stream));
    expect_words(from_a, 100 * peer, 10);
    expect_words(from_b, 100 * peer + 50, 20);
    expect_words(sum, 1, 1);
}

Test(nccl_messages, a_group_mixes_messages_and_collectives, .timeout = 60)
{
    ranks_run(PROCESSES, 2, mixed_group, NULL, 0);
}

/* ---- splits --------------------------------------------------------------------------------- */

/* Ranks 0, 2 and 4 in reverse order, 1 and 3 in order; rank 5 is left out. */
static void split(test_rank *own)
{
    int odd = own->rank % 2, found_rank, found_count;
    int color = own->rank == 5 ? NCCL_SPLIT_NOCOLOR : odd;
    ncclComm_t part = (ncclComm_t)1;
    CUdeviceptr at = upload_words(own->rank, 1);
    CHECK_NCCL(ncclSuccess,
               ncclCommSplit(own->comm, color, odd ? own->rank : -own->rank, &part, NULL));
    if (own->rank == 5) {
        CHECK(part == NULL);
        return;
    }
    CHECK_NCCL(ncclSuccess, ncclCommUserRank(part, &found_rank));
    CHECK_NCCL(ncclSuccess, ncclCommCount(part, &found_count));
    CHECK(found_count == (odd ? 2 : 3), "%d ranks", found_count);
    CHECK(found_rank == (odd ? own->rank / 2 : 2 - own->rank / 2), "rank %d", found_rank);
    CHECK_NCCL(ncclSuccess, ncclAllReduce((void *)at, (void *)at, 1, ncclInt32, ncclSum, part,
                                          nccl_stream(own)));
    CHECK_CUDA(cuStreamSynchronize(own->stream));
    expect_words(at, odd ? 1 + 3 : 0 + 2 + 4, 1);
    CHECK_NCCL(ncclSuccess, ncclCommDestroy(part));
}

Test(nccl_messages, a_split_orders_ranks_by_key, .timeout = 60)
{
    ranks_run(PROCESSES, 6, split, NULL, 0);
    ranks_run(THREADS, 6, split, NULL, 0);
}

/* ---- one thread, several ranks -------------------------------------------------------------- */

static void open_all(ncclComm_t *comms, CUcontext *contexts, int count)
{
    CHECK_CUDA(cuInit(0));
    CHECK_NCCL(ncclSuccess, ncclCommInitAll(comms, count, NULL));
    for (int i = 0; i < count; i++) {
        int device;
        CHECK_NCCL(ncclSuccess, ncclCommCuDevice(comms[i], &device));
        CHECK(device == i);
        CHECK_CUDA(cuDevicePrimaryCtxRetain(&contexts[i], i));
    }
}

Test(nccl_messages, a_thread_drives_several_devices_in_a_group, .timeout = 60)
{
    ncclComm_t comms[3];
    CUcontext contexts[3];
    CUdeviceptr at[3];
    open_all(comms, contexts, 3);
    for (int i = 0; i < 3; i++) {
        CHECK_CUDA(cuCtxSetCurrent(contexts[i]));
        at[i] = upload_words(10 * i, 5);
    }
    CHECK_NCCL(ncclSuccess, ncclGroupStart()); /* on the default streams of three contexts */
    for (int i = 0; i < 3; i++)
        CHECK_NCCL(ncclSuccess, ncclBcast((void *)at[i], 5, ncclInt32, 2, comms[i], NULL));
    CHECK_NCCL(ncclSuccess, ncclGroupEnd());
    for (int i = 0; i < 3; i++) {
        CHECK_CUDA(cuCtxSetCurrent(contexts[i]));
        CHECK_CUDA(cuCtxSynchronize());
        expect_words(at[i], 20, 5);
        CHECK_NCCL(ncclSuccess, ncclCommDestroy(comms[i]));
    }
}

/* Calls return before the operation is done, also those that enqueue what depends on it: without
 * that the first rank's would wait for ever. */
Test(nccl_messages, calls_return_before_the_operation_is_done, .timeout = 60)
{
    ncclComm_t comms[2];
    CUcontext contexts[2];
    CUdeviceptr at[2], copies[2];
    CUstream streams[2];
    open_all(comms, contexts, 2);
    for (int i = 0; i < 2; i++) {
        CHECK_CUDA(cuCtxSetCurrent(contexts[i]));
        at[i] = upload_words(10 * i, 5);
        copies[i] = upload_words(0, 5);
        CHECK_CUDA(cuStreamCreate(&streams[i], CU_STREAM_NON_BLOCKING));
        CHECK_NCCL(ncclSuccess,
                   ncclBcast((void *)at[i], 5, ncclInt32, 1, comms[i], (cudaStream_t)streams[i]));
        CHECK_CUDA(cuMemcpyDtoDAsync(copies[i], at[i], 20, streams[i]));
        if (i == 0)
            CHECK(cuStreamQuery(streams[i]) == CUDA_ERROR_NOT_READY);
    }
    for (int i = 0; i < 2; i++) {
        CHECK_CUDA(cuCtxSetCurrent(contexts[i]));
        CHECK_CUDA(cuStreamSynchronize(streams[i]));
        expect_words(copies[i], 10, 5);
        CHECK_NCCL(ncclSuccess, ncclCommDestroy(comms[i]));
    }
}

/* ---- several streams ------------------------------------------------------------------------ */

/* Operations of a communicator run in the order of their calls on all ranks, whatever the streams.
 */
static void two_streams(test_rank *own)
{
    CUstream other;
    CUdeviceptr at = upload_words(own->rank, 1);
    CHECK_CUDA(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    for (int turn = 0; turn < 20; turn++) {
        CUstream stream = (turn + own->rank) % 2 ? own->stream : other;
        CHECK_NCCL(ncclSuccess,
                   ncclAllReduce((void *)at, (void *)at, 1, ncclInt32, turn % 3 ? ncclMax : ncclSum,
                                 own->comm, (cudaStream_t)stream));
    }
    CHECK_CUDA(cuStreamSynchronize(other));
    CHECK_CUDA(cuStreamSynchronize(own->stream));
    expect_words(at, 64, 1); /* 1, and six sums after it */
}

Test(nccl_messages, a_communicator_keeps_its_order_over_streams, .timeout = 60)
{
    ranks_run(PROCESSES, 2, two_streams, NULL, 0);
}

static void take_a_while(void *unused)
{
    (void)unused;
    usleep(100000);
}

static const char *describe_while(FILE *args, const void *unused)
{
    (void)args, (void)unused;
    return "a while";
}

/* What is sent is written late in one stream, what is received is read there; the group's first
 * call is in the other. */
static void group_over_streams(test_rank *own)
{
    CUstream other;
    int peer = 1 - own->rank;
    CUdeviceptr at = upload_words(7 + own->rank, 1), sent = upload_words(0, 1);
    CUdeviceptr received = upload_words(0, 1), copy = upload_words(0, 1);
    CHECK_CUDA(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    CHECK_CUDA(cuEmulatorLaunchWaiting(other, take_a_while, describe_while, "", 1));
    CHECK_CUDA(cuMemcpyDtoDAsync(sent, at, 4, other));
    CHECK_NCCL(ncclSuccess, ncclGroupStart());
    CHECK_NCCL(ncclSuccess,
               ncclRecv((void *)received, 1, ncclInt32, peer, own->comm, nccl_stream(own)));
    CHECK_NCCL(ncclSuccess,
               ncclSend((void *)sent, 1, ncclInt32, peer, own->comm, (cudaStream_t)other));
    CHECK_NCCL(ncclSuccess, ncclGroupEnd());
    CHECK_CUDA(cuMemcpyDtoDAsync(copy, received, 4, other));
    CHECK_CUDA(cuStreamSynchronize(other));
    expect_words(copy, 7 + peer, 1);
}

Test(nccl_messages, a_group_is_tied_to_all_its_streams, .timeout = 60)
{
    ranks_run(PROCESSES, 2, group_over_streams, NULL, 0);
}

/* ---- graphs --------------------------------------------------------------------------------- */

/* Replayed with other values each time; a second stream of the capture has part of it. */
static void replay(test_rank *own)
{
    CUgraph graph;
    CUgraphExec exec;
    CUstream beside;
    CUevent fork, joined;
    CUdeviceptr at = upload_words(0, 4), sum = upload_words(0, 4), copy = upload_words(0, 4);
    CHECK_CUDA(cuStreamCreate(&beside, CU_STREAM_NON_BLOCKING));
    CHECK_CUDA(cuEventCreate(&fork, CU_EVENT_DISABLE_TIMING));
    CHECK_CUDA(cuEventCreate(&joined, CU_EVENT_DISABLE_TIMING));
    CHECK_CUDA(cuStreamBeginCapture(own->stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    CHECK_CUDA(cuEventRecord(fork, own->stream));
    CHECK_CUDA(cuStreamWaitEvent(beside, fork, 0));
    CHECK_NCCL(ncclSuccess, ncclAllReduce((void *)at, (void *)sum, 4, ncclInt32, ncclSum, own->comm,
                                          (cudaStream_t)beside));
    CHECK_CUDA(cuEventRecord(joined, beside));
    CHECK_CUDA(cuStreamWaitEvent(own->stream, joined, 0));
    CHECK_CUDA(cuMemcpyDtoDAsync(copy, sum, 16, own->stream));
    CHECK_CUDA(cuStreamEndCapture(own->stream, &graph));
    CHECK_CUDA(cuGraphInstantiate(&exec, graph, 0));
    CHECK_CUDA(cuGraphDestroy(graph));
    for (int turn = 1; turn <= 3; turn++) {
        int values[4] = {turn, turn, turn, own->rank};
        int found[4];
        CHECK_CUDA(cuMemcpyHtoD(at, values, sizeof values));
        CHECK_CUDA(cuGraphLaunch(exec, own->stream));
        CHECK_CUDA(cuStreamSynchronize(own->stream));
        rank_download(found, copy, sizeof found);
        CHECK(found[0] == 2 * turn && found[3] == 1, "turn %d: %d %d", turn, found[0], found[3]);
    }
    /* eager again, and a graph whose communicator is gone does nothing */
    CHECK_NCCL(ncclSuccess, ncclAllReduce((void *)at, (void *)at, 4, ncclInt32, ncclSum, own->comm,
                                          nccl_stream(own)));
    CHECK_NCCL(ncclSuccess, ncclCommDestroy(own->comm));
    own->comm = NULL;
    CHECK_CUDA(cuGraphLaunch(exec, own->stream));
    CHECK_CUDA(cuStreamSynchronize(own->stream));
    CHECK_CUDA(cuGraphExecDestroy(exec));
}

Test(nccl_messages, a_captured_all_reduce_replays, .timeout = 60)
{
    ranks_run(PROCESSES, 2, replay, NULL, 0);
    ranks_run(THREADS, 2, replay, NULL, 0);
}
