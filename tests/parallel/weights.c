/* weights.c: initial weights of tensor-parallel ranks, put together, are those of one rank. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "parallel_step.h"

#define REQUIRE(call) cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())

enum { SEED = 77 };
static const step_tensor weights[] = {STEP_FC1_WEIGHT, STEP_FC1_BIAS, STEP_FC2_WEIGHT,
                                      STEP_FC2_BIAS};
enum { WEIGHTS = sizeof weights / sizeof weights[0] };

static void initialise(training_step *step, mmlp_mlp *mlp)
{
    mmlp_init_args args = MMLP_INIT_ARGS_INIT;
    args.seed = SEED;
    args.linear_fc1_weight = step->forward.linear_fc1_weight;
    args.linear_fc1_bias = step->forward.linear_fc1_bias;
    args.linear_fc2_weight = step->forward.linear_fc2_weight;
    args.linear_fc2_bias = step->forward.linear_fc2_bias;
    REQUIRE(mmlp_mlp_init_weights(mlp, &args, NULL));
    for (int i = 0; i < WEIGHTS; i++) {
        step_values *v = &step->tensors[weights[i]];
        if (v->host.data)
            REQUIRE(
                mmlp_buffer_download(step->context, v->host.data, v->device.data, v->bytes, NULL));
    }
}

typedef struct subject {
    mmlp_bundle *bundle;
    training_step whole;
} subject;

/* The rank's part of the whole weights, bit for bit what the rank has made itself. */
static void compare(thread_rank *rank)
{
    subject *s = rank->what;
    training_step step, wanted;
    step_options options = {.tokens = 0, .seed = 1, .device = rank->rank};
    mmlp_mlp *mlp = parallel_bind(rank, s->bundle, NULL);
    step_start(&step, rank->context, s->bundle, mlp, &options);
    parallel_start_part(&wanted, rank, s->bundle, mlp, &s->whole);
    initialise(&step, mlp);
    for (int i = 0; i < WEIGHTS; i++) {
        const step_values *v = &step.tensors[weights[i]], *w = &wanted.tensors[weights[i]];
        if (v->host.data)
            cr_expect_eq(memcmp(v->host.data, w->host.data, v->bytes), 0, "%s of rank %d of %d",
                         step_tensor_name(weights[i]), rank->rank, rank->ranks);
    }
    step_finish(&step);
    step_finish(&wanted);
    mmlp_mlp_unload(mlp);
}

static void check_kind(parallel_kind kind)
{
    subject s;
    mmlp_context *context = loaded_device();
    mmlp_bundle *bundle = parallel_bundle(kind, 1, false);
    mmlp_mlp *mlp;
    step_options options = {.tokens = 0, .seed = 1};
    REQUIRE(mmlp_mlp_load(&mlp, context, bundle, NULL));
    step_start(&s.whole, context, bundle, mlp, &options);
    initialise(&s.whole, mlp);
    for (int ranks = 2; ranks <= 8; ranks *= 2) {
        s.bundle = parallel_bundle(kind, ranks, false);
        with_thread_ranks(ranks, compare, &s);
        mmlp_bundle_close(s.bundle);
    }
    step_finish(&s.whole);
    mmlp_mlp_unload(mlp);
    mmlp_bundle_close(bundle);
    mmlp_context_destroy(context);
}

Test(weights, of_ranks_are_the_parts_of_those_of_one, .timeout = 120)
{
    check_kind(PARALLEL_ADDED_BIAS);
}

Test(weights, of_gated_ranks_are_the_parts_of_those_of_one, .timeout = 120)
{
    check_kind(PARALLEL_FP32);
}
