/* calls.c: what calls refuse, and what the library answers about itself. */
#include "ranks.h"

#include <dlfcn.h>
#include <string.h>

static const char zeros[64];

static void bad_arguments(test_rank *own)
{
    CUdeviceptr at = rank_upload(zeros, sizeof zeros), freed = rank_upload(zeros, sizeof zeros);
    cudaStream_t stream = nccl_stream(own);
    void *p = (void *)at;
    CHECK_CUDA(cuMemFree(freed));
#define REFUSES(wanted, text, call)                                                                \
    CHECK_NCCL(wanted, call);                                                                      \
    CHECK_TEXT(text, ncclGetLastError(own->comm))
    REFUSES(ncclInvalidArgument,
            "rank 0: all-reduce of 17 fp32, sum: the send buffer of 68 bytes at ",
            ncclAllReduce(p, p, 17, ncclFloat32, ncclSum, own->comm, stream));
    REFUSES(ncclInvalidArgument, "leaves its allocation, 64 bytes at ",
            ncclAllReduce(p, p, 17, ncclFloat32, ncclSum, own->comm, stream));
    REFUSES(ncclInvalidArgument, "the receive buffer of 4 bytes at ",
            ncclAllReduce(p, (void *)freed, 1, ncclFloat32, ncclSum, own->comm, stream));
    REFUSES(ncclInvalidArgument, "is in no allocation of a device",
            ncclAllReduce(NULL, p, 1, ncclFloat32, ncclSum, own->comm, stream));
    REFUSES(ncclInvalidArgument, "broadcast of 1 fp32 from rank 1: the communicator has the ranks",
            ncclBroadcast(p, p, 1, ncclFloat32, 1, own->comm, stream));
    REFUSES(ncclInvalidArgument, "there is no data type 12",
            ncclAllReduce(p, p, 1, ncclNumTypes, ncclSum, own->comm, stream));
    REFUSES(ncclInvalidUsage, "operations of one's own (ncclRedOpCreate...) are not supported",
            ncclAllReduce(p, p, 1, ncclFloat32, ncclNumOps, own->comm, stream));
    REFUSES(ncclInvalidArgument, "not a live communicator",
            ncclAllReduce(p, p, 1, ncclFloat32, ncclSum, NULL, stream));
    REFUSES(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart", ncclGroupEnd());
    /* none of them has harmed the communicator */
    CHECK_NCCL(ncclSuccess, ncclAllReduce(p, p, 1, ncclFloat32, ncclSum, own->comm, stream));
    CHECK_NCCL(ncclSuccess, ncclCommFinalize(own->comm));
    REFUSES(ncclInvalidUsage, "the communicator was finalized",
            ncclAllReduce(p, p, 1, ncclFloat32, ncclSum, own->comm, stream));
}

Test(nccl_calls, bad_arguments_are_named, .timeout = 60)
{
    ranks_run(PROCESSES, 1, bad_arguments, NULL, 0);
}

/* An error inside of a group is what its end gives, and nothing of the group runs. */
static void bad_group(test_rank *own)
{
    CUdeviceptr at = rank_upload(zeros, sizeof zeros);
    int word = 5, found;
    CHECK_CUDA(cuMemcpyHtoD(at, &word, 4));
    CHECK_NCCL(ncclSuccess, ncclGroupStart());
    CHECK_NCCL(ncclSuccess, ncclAllReduce((void *)at, (void *)(at + 4), 1, ncclInt32, ncclSum,
                                          own->comm, nccl_stream(own)));
    CHECK_NCCL(ncclInvalidArgument,
               ncclSend((void *)at, 99, ncclInt32, 0, own->comm, nccl_stream(own)));
    CHECK_NCCL(ncclInvalidArgument, ncclGroupEnd());
    CHECK_CUDA(cuStreamSynchronize(own->stream));
    rank_download(&found, at + 4, 4);
    CHECK(found == 0);
}

Test(nccl_calls, a_group_with_an_error_runs_nothing, .timeout = 60)
{
    ranks_run(PROCESSES, 1, bad_group, NULL, 0);
}

/* A graph may be launched when its buffer is gone: the communicator fails. */
static void freed_in_graph(test_rank *own)
{
    CUgraph graph;
    CUgraphExec exec;
    CUdeviceptr at = rank_upload(zeros, sizeof zeros);
    CHECK_CUDA(cuStreamBeginCapture(own->stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    CHECK_NCCL(ncclSuccess, ncclAllReduce((void *)at, (void *)at, 1, ncclInt32, ncclSum, own->comm,
                                          nccl_stream(own)));
    CHECK_CUDA(cuStreamEndCapture(own->stream, &graph));
    CHECK_CUDA(cuGraphInstantiate(&exec, graph, 0));
    rank_signal(own, own->rank);
    rank_await(own, 1 - own->rank);
    if (own->rank == 1)
        CHECK_CUDA(cuMemFree(at));
    CHECK_CUDA(cuGraphLaunch(exec, own->stream));
    rank_expect_error(own, ncclInvalidArgument,
                      "rank 1: all-reduce of 1 int32, sum: the send buffer of 4 bytes at ");
}

Test(nccl_calls, buffers_are_checked_when_a_graph_runs, .timeout = 60)
{
    ranks_run(PROCESSES, 2, freed_in_graph, NULL, 0);
}

Test(nccl_calls, init_names_what_is_wrong)
{
    ncclComm_t comm;
    ncclUniqueId id, foreign = {{0}};
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    CUcontext context;
    CHECK_NCCL(ncclSuccess, ncclGetUniqueId(&id));
    CHECK_NCCL(ncclUnhandledCudaError, ncclCommInitRank(&comm, 1, id, 0));
    CHECK_CUDA(cuInit(0));
    CHECK_CUDA(cuCtxCreate(&context, NULL, 0, 0));
    CHECK_NCCL(ncclInvalidArgument, ncclCommInitRank(&comm, 65, id, 0));
    CHECK_TEXT("a communicator of 65 ranks: it can have 1 to 64", ncclGetLastError(NULL));
    CHECK_NCCL(ncclInvalidArgument, ncclCommInitRank(&comm, 2, id, 2));
    CHECK_TEXT("rank 2: the communicator has the ranks 0 to 1", ncclGetLastError(NULL));
    CHECK_NCCL(ncclInvalidArgument, ncclCommInitRank(&comm, 1, foreign, 0));
    CHECK_TEXT("was not made by ncclGetUniqueId", ncclGetLastError(NULL));
    CHECK_NCCL(ncclSuccess, ncclCommInitRankConfig(&comm, 1, id, 0, &config));
    CHECK_NCCL(ncclSuccess, ncclCommDestroy(comm));
    CHECK_NCCL(ncclInvalidArgument, ncclCommDestroy(comm));
    CHECK_NCCL(ncclRemoteError, ncclCommInitRank(&comm, 1, id, 0)); /* an id is used once */
    CHECK_TEXT("the id has made a communicator before", ncclGetLastError(NULL));
    config.magic = 0;
    CHECK_NCCL(ncclInvalidArgument, ncclCommInitRankConfig(&comm, 1, id, 0, &config));
}

Test(nccl_calls, it_says_what_it_is)
{
    int version;
    CHECK_NCCL(ncclSuccess, ncclGetVersion(&version));
    cr_assert_eq(version, NCCL_VERSION_CODE);
    cr_assert_str_eq(ncclGetErrorString(ncclInvalidUsage), "invalid usage");
    cr_assert_str_eq(ncclGetErrorString(ncclNumResults), "unknown result code");
    void *library = dlopen(MMLP_TEST_LIBNCCL, RTLD_NOW | RTLD_NOLOAD);
    cr_assert_not_null(library);
    cr_assert_not_null(dlsym(library, "ncclCommInitRankConfig"));
    cr_assert_null(dlsym(library, "op_run_all"));
}
