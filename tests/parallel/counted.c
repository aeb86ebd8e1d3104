/* counted.c: which driver calls the passes of ranks make. */
#include <criterion/criterion.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "counting_driver.h"
#include "parallel_step.h"

#define REQUIRE(call) cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())

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
