/* steps.c: training steps of tensor-parallel ranks, against those of one rank and each other. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parallel_step.h"
#include "scheduled.h"

#define REQUIRE(call) cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())

static mmlp_bundle_properties properties_of(const mmlp_bundle *bundle)
{
    mmlp_bundle_properties properties = MMLP_BUNDLE_PROPERTIES_INIT;
    REQUIRE(mmlp_bundle_get(bundle, &properties));
    return properties;
}

/* ---- against one rank ----------------------------------------------------------------------- */

typedef struct comparison {
    const mmlp_bundle *bundle;
    const training_step *whole;
    parallel_results results;
    pthread_mutex_t lock; /* of results */
} comparison;

static void run_part(thread_rank *rank)
{
    comparison *c = rank->what;
    training_step step;
    mmlp_mlp *mlp = parallel_bind(rank, c->bundle, NULL);
    parallel_start_part(&step, rank, c->bundle, mlp, c->whole);
    REQUIRE(step_run(&step, mlp));
    pthread_mutex_lock(&c->lock);
    parallel_put(&c->results, rank, &step);
    pthread_mutex_unlock(&c->lock);
    step_finish(&step);
    mmlp_mlp_unload(mlp);
}

static void compare_with_one(parallel_kind kind, int ranks, bool sequence_parallel, int64_t tokens,
                             int beta)
{
    mmlp_context *context = loaded_device();
    training_step whole;
    step_options options = {.tokens = tokens, .seed = 5, .beta = beta};
    parallel_run_whole(&whole, context, kind, &options);
    mmlp_bundle *bundle = parallel_bundle(kind, ranks, sequence_parallel);
    mmlp_bundle_properties properties = properties_of(bundle);
    comparison c = {bundle, &whole, {{0}}, PTHREAD_MUTEX_INITIALIZER};
    char what[96];
    snprintf(what, sizeof what, "%s, %d ranks, sequence_parallel %d, %d tokens",
             properties.params_dtype, ranks, sequence_parallel, (int)tokens);
    parallel_results_start(&c.results, &whole);
    with_thread_ranks(ranks, run_part, &c);
    parallel_compare(&c.results, &whole, &properties, what);
    parallel_results_free(&c.results);
    mmlp_bundle_close(bundle);
    step_finish(&whole);
    mmlp_context_destroy(context);
}

Test(steps, of_several_ranks_differ_from_those_of_one_by_the_rounding_of_partial_sums,
     .timeout = 120)
{
    compare_with_one(PARALLEL_ADDED_BIAS, 2, false, 40, 0);
    compare_with_one(PARALLEL_ADDED_BIAS, 2, true, 40, 0);
    compare_with_one(PARALLEL_ADDED_BIAS, 4, false, 40, 0);
    compare_with_one(PARALLEL_ADDED_BIAS, 4, true, 40, 0);
    compare_with_one(PARALLEL_FOLDED_BIAS, 2, false, 40, 0);
    compare_with_one(PARALLEL_DELAYED, 2, true, 40, 1);
    compare_with_one(PARALLEL_FP32, 2, true, 40, 0);
}

Test(steps, of_one_token_a_rank_are_steps, .timeout = 60)
{
    compare_with_one(PARALLEL_ADDED_BIAS, 4, true, 4, 0);
    compare_with_one(PARALLEL_DELAYED, 2, true, 2, 1);
}

Test(steps, of_no_tokens_write_zeros_as_one_rank_does, .timeout = 60)
{
    compare_with_one(PARALLEL_ADDED_BIAS, 2, true, 0, 0);
    compare_with_one(PARALLEL_DELAYED, 2, true, 0, 1);
}

/* ---- repeated ------------------------------------------------------------------------------- */

typedef struct repetition {
    const mmlp_bundle *bundle;
    const training_step *whole;
    unsigned char *outputs[THREAD_RANKS_MAX];
    size_t bytes[THREAD_RANKS_MAX];
} repetition;

static void keep_outputs(thread_rank *rank)
{
    repetition *r = rank->what;
    training_step step;
    mmlp_mlp *mlp = parallel_bind(rank, r->bundle, NULL);
    parallel_start_part(&step, rank, r->bundle, mlp, r->whole);
    REQUIRE(step_run(&step, mlp));
    r->outputs[rank->rank] = step_outputs(&step, &r->bytes[rank->rank]);
    step_finish(&step);
    mmlp_mlp_unload(mlp);
}

/* The outputs of all four ranks, one after the other. */
static unsigned char *four_ranks(const void *what, size_t *bytes)
{
    const mmlp_bundle *bundle = what;
    mmlp_context *context = loaded_device();
    training_step whole;
    step_options options = {.tokens = 40, .seed = 5};
    unsigned char *all = NULL;
    parallel_run_whole(&whole, context, PARALLEL_ADDED_BIAS, &options);
    repetition r = {.bundle = bundle, .whole = &whole};
    with_thread_ranks(4, keep_outputs, &r);
    *bytes = 0;
    for (int i = 0; i < 4; i++) {
        cr_assert((all = realloc(all, *bytes + r.bytes[i])) != NULL);
        memcpy(all + *bytes, r.outputs[i], r.bytes[i]);
        *bytes += r.bytes[i];
        free(r.outputs[i]);
    }
    step_finish(&whole);
    mmlp_context_destroy(context);
    return all;
}

Test(steps, are_the_same_bits_under_every_schedule, .timeout = 120)
{
    static const char *const schedules[][2] = {{"0", "1"}, {"0", "1"}, {"1", "1"}, {"7", "2"}};
    mmlp_bundle *bundle = parallel_bundle(PARALLEL_ADDED_BIAS, 4, true);
    size_t bytes, wanted_bytes;
    unsigned char *wanted = scheduled_run(four_ranks, bundle, "0", "2", &wanted_bytes);
    for (size_t i = 0; i < sizeof schedules / sizeof schedules[0]; i++) {
        unsigned char *found =
            scheduled_run(four_ranks, bundle, schedules[i][0], schedules[i][1], &bytes);
        cr_assert_eq(bytes, wanted_bytes);
        cr_expect_eq(memcmp(found, wanted, bytes), 0, "schedule %s, %s threads", schedules[i][0],
                     schedules[i][1]);
        free(found);
    }
    free(wanted);
    mmlp_bundle_close(bundle);
}
