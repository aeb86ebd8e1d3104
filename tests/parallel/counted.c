/* counted.c: which driver calls the passes of ranks make, and calls that fail. */
#include <criterion/criterion.h>
#include <cuda.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "counting_driver.h"
#include "parallel_step.h"

#define REQUIRE(call)      cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())
#define REQUIRE_CUDA(call) cr_assert_eq(call, CUDA_SUCCESS, "%s", #call)

enum { RANKS = 2, PASSES = 3 };

typedef struct subject {
    mmlp_bundle *bundle;
    const counting_driver *driver;
    int regathers, collectives; /* of a step of one rank */
} subject;

static const counting_driver *open_driver(void)
{
    void *library = dlopen(getenv("MMLP_DRIVER"), RTLD_NOW | RTLD_LOCAL);
    cr_assert_not_null(library, "%s", dlerror());
    void *address = dlsym(library, "counting_driver_get");
    const counting_driver *(*get)(void);
    memcpy(&get, &address, sizeof get);
    return get();
}

static void expect_counts(const subject *s)
{
    static const char *const allowed[] = {"cuCtxPushCurrent",      "cuCtxPopCurrent",
                                          "cuPointerGetAttribute", "cuLaunchKernel",
                                          "cuEventRecord",         "cuStreamWaitEvent"};
    int sum = 0;
    for (size_t i = 0; i < sizeof allowed / sizeof allowed[0]; i++)
        sum += s->driver->count(allowed[i]);
    cr_expect_eq(s->driver->total(), sum);
    cr_expect_eq(s->driver->count("cuCtxPushCurrent"), RANKS * PASSES);
    cr_expect_eq(s->driver->count("cuCtxPopCurrent"), RANKS * PASSES);
    /* Both ways: when its input is there, and when its output is. */
    cr_expect_eq(s->driver->count("cuEventRecord"), RANKS * 2 * s->collectives);
    cr_expect_eq(s->driver->count("cuStreamWaitEvent"), RANKS * 2 * s->collectives);
}

static void count(thread_rank *rank)
{
    const subject *s = rank->what;
    mmlp_mlp_options load = MMLP_MLP_OPTIONS_INIT;
    load.regather_input = s->regathers;
    mmlp_mlp *mlp = parallel_bind(rank, s->bundle, &load);
    step_options options = {.tokens = 40, .seed = 1, .device = rank->rank};
    training_step step;
    step_start(&step, rank->context, s->bundle, mlp, &options);
    thread_barrier(rank);
    if (rank->rank == 0)
        s->driver->reset();
    thread_barrier(rank);
    REQUIRE(step_enqueue(&step, mlp, NULL));
    thread_barrier(rank);
    if (rank->rank == 0)
        expect_counts(s);
    thread_barrier(rank);
    REQUIRE(mmlp_stream_sync(rank->context, NULL));
    step_finish(&step);
    mmlp_mlp_unload(mlp);
}

static void check(bool sequence_parallel, int regathers, int collectives)
{
    subject s = {parallel_bundle(PARALLEL_DELAYED, RANKS, sequence_parallel), open_driver(),
                 regathers, collectives};
    with_thread_ranks(RANKS, count, &s);
    mmlp_bundle_close(s.bundle);
}

Test(counted, passes_of_ranks_neither_allocate_nor_synchronise, .timeout = 60)
{
    check(false, 0, 2); /* the sums of output and of grad.hidden_states */
    check(true, 0, 5);  /* and three gathers: the input twice, grad_output */
    check(true, 1, 5);
}

/* ---- passes that fail in the middle --------------------------------------------------------- */

/* Rank 0 captures a dgrad of which any of the first kernels fails, when gathers may have begun: the
 * capture ends as it can, and what they left behind is not waited for by the calls that follow. */
static void capture_failing(const counting_driver *driver, mmlp_mlp *mlp, training_step *step,
                            void *stream, int launches)
{
    CUcontext primary;
    CUgraph graph;
    REQUIRE_CUDA(cuDevicePrimaryCtxRetain(&primary, 0));
    REQUIRE_CUDA(cuCtxSetCurrent(primary));
    REQUIRE_CUDA(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    driver->fail_launch(launches);
    cr_expect_eq(mmlp_mlp_dgrad(mlp, &step->dgrad, stream), MMLP_ERROR_DEVICE);
    cr_expect(strstr(mmlp_last_error(), "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"), "%s",
              mmlp_last_error());
    REQUIRE_CUDA(cuStreamEndCapture(stream, &graph));
    REQUIRE_CUDA(cuGraphDestroy(graph));
    REQUIRE_CUDA(cuCtxSetCurrent(NULL));
    REQUIRE_CUDA(cuDevicePrimaryCtxRelease(0));
}

static void fail_in_a_capture(thread_rank *rank)
{
    const subject *s = rank->what;
    mmlp_mlp *mlp = parallel_bind(rank, s->bundle, NULL);
    step_options options = {.tokens = 40, .seed = 1, .device = rank->rank};
    training_step step;
    void *stream;
    step_start(&step, rank->context, s->bundle, mlp, &options);
    REQUIRE(mmlp_stream_create(&stream, rank->context));
    REQUIRE(step_enqueue(&step, mlp, stream));
    REQUIRE(mmlp_stream_sync(rank->context, stream));
    thread_barrier(rank);
    if (rank->rank == 0) {
        for (int launches = 0; launches < 5; launches++)
            capture_failing(s->driver, mlp, &step, stream, launches);
    }
    thread_barrier(rank);
    for (int i = 0; i < 2; i++)
        REQUIRE(step_enqueue(&step, mlp, stream));
    REQUIRE(mmlp_stream_sync(rank->context, stream));
    REQUIRE(mmlp_stream_destroy(rank->context, stream));
    step_finish(&step);
    mmlp_mlp_unload(mlp);
}

Test(counted, a_capture_that_failed_in_a_pass_leaves_nothing_to_wait_for, .timeout = 60)
{
    subject s = {parallel_bundle(PARALLEL_ADDED_BIAS, RANKS, true), open_driver(), 0, 0};
    with_thread_ranks(RANKS, fail_in_a_capture, &s);
    mmlp_bundle_close(s.bundle);
}
