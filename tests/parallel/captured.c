/* captured.c: steps of two ranks captured into CUDA graphs, collectives included. */
#include <criterion/criterion.h>
#include <cuda.h>
#include <stdlib.h>
#include <string.h>

#include "parallel_step.h"

#define REQUIRE(call)      cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())
#define REQUIRE_CUDA(call) cr_assert_eq(call, CUDA_SUCCESS, "%s", #call)

enum { RANKS = 2, TOKENS = 40, LAUNCHES = 2 };

typedef struct subject {
    mmlp_bundle *bundle;
    int regathers, beta;
} subject;

static CUgraphExec capture(training_step *step, mmlp_mlp *mlp, void *stream)
{
    CUgraph graph;
    CUgraphExec executable;
    REQUIRE_CUDA(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    REQUIRE(step_enqueue(step, mlp, stream));
    REQUIRE_CUDA(cuStreamEndCapture(stream, &graph));
    REQUIRE_CUDA(cuGraphInstantiateWithFlags(&executable, graph, 0));
    REQUIRE_CUDA(cuGraphDestroy(graph));
    return executable;
}

static void expect_outputs(training_step *step, const unsigned char *wanted, size_t wanted_bytes,
                           const char *what)
{
    size_t bytes;
    unsigned char *found = step_outputs(step, &bytes);
    cr_assert_eq(bytes, wanted_bytes);
    cr_expect_eq(memcmp(found, wanted, bytes), 0, "%s", what);
    free(found);
}

static void replay(thread_rank *rank)
{
    const subject *s = rank->what;
    mmlp_mlp_options load = MMLP_MLP_OPTIONS_INIT;
    load.regather_input = s->regathers;
    mmlp_mlp *mlp = parallel_bind(rank, s->bundle, &load);
    step_options options = {
        .tokens = TOKENS, .seed = (uint64_t)rank->rank, .beta = s->beta, .device = rank->rank};
    training_step step;
    void *stream;
    size_t bytes, before_bytes;
    CUcontext primary;
    step_start(&step, rank->context, s->bundle, mlp, &options);
    REQUIRE(mmlp_stream_create(&stream, rank->context));
    REQUIRE_CUDA(cuDevicePrimaryCtxRetain(&primary, rank->rank));
    REQUIRE_CUDA(cuCtxSetCurrent(primary));

    for (int i = 0; i < LAUNCHES; i++)
        REQUIRE(step_enqueue(&step, mlp, stream));
    REQUIRE(mmlp_stream_sync(rank->context, stream));
    unsigned char *plain = step_outputs(&step, &bytes);
    step_refill(&step, options.seed);
    unsigned char *before = step_outputs(&step, &before_bytes);
    cr_expect_neq(memcmp(plain, before, bytes), 0);

    CUgraphExec graph = capture(&step, mlp, stream);
    REQUIRE(mmlp_stream_sync(rank->context, stream));
    expect_outputs(&step, before, before_bytes, "a capture runs nothing");
    for (int i = 0; i < LAUNCHES; i++)
        REQUIRE_CUDA(cuGraphLaunch(graph, stream));
    REQUIRE(mmlp_stream_sync(rank->context, stream));
    expect_outputs(&step, plain, bytes, "a graph is not what plain calls are");

    free(plain);
    free(before);
    REQUIRE_CUDA(cuGraphExecDestroy(graph));
    REQUIRE_CUDA(cuCtxSetCurrent(NULL));
    REQUIRE_CUDA(cuDevicePrimaryCtxRelease(rank->rank));
    REQUIRE(mmlp_stream_destroy(rank->context, stream));
    step_finish(&step);
    mmlp_mlp_unload(mlp);
}

static void check_replay(parallel_kind kind, bool sequence_parallel, int regathers, int beta)
{
    subject s = {parallel_bundle(kind, RANKS, sequence_parallel), regathers, beta};
    with_thread_ranks(RANKS, replay, &s);
    mmlp_bundle_close(s.bundle);
}

Test(captured, steps_of_ranks_are_those_of_plain_calls, .timeout = 60)
{
    check_replay(PARALLEL_ADDED_BIAS, true, 0, 0);
    check_replay(PARALLEL_ADDED_BIAS, false, 0, 1);
    check_replay(PARALLEL_DELAYED, true, 0, 1);
    check_replay(PARALLEL_DELAYED, true, 1, 1);
}
