/* binding.c: communicators that do not fit, ranks that do not agree, and calls before the bind. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "parallel_step.h"

#define REQUIRE(call) cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())

/* The call's status, and its whole text. */
#define EXPECT(wanted, text, call)                                                                 \
    do {                                                                                           \
        cr_expect_eq(call, wanted);                                                                \
        cr_expect_str_eq(mmlp_last_error(), text);                                                 \
    } while (0)
/* ... and a part of it. */
#define EXPECT_PART(wanted, part, call)                                                            \
    do {                                                                                           \
        cr_expect_eq(call, wanted);                                                                \
        cr_expect(strstr(mmlp_last_error(), part), "%s", mmlp_last_error());                       \
    } while (0)

/* ---- one rank's mistakes -------------------------------------------------------------------- */

static void bind_another_size(thread_rank *rank)
{
    mmlp_mlp *mlp = parallel_load(rank, rank->what, NULL);
    EXPECT(MMLP_ERROR_ARGUMENT,
           rank->ranks == 1 ? "mlp: found a tensor-parallel communicator of 1 rank, wanted 2 "
                              "(tensor_model_parallel_size)"
                            : "mlp: found a tensor-parallel communicator of 3 ranks, wanted 2 "
                              "(tensor_model_parallel_size)",
           mmlp_mlp_bind_comm(mlp, MMLP_GROUP_TP, rank->comm));
    /* Those who have other tokens may be any number. */
    cr_expect_eq(mmlp_mlp_bind_comm(mlp, MMLP_GROUP_DP, rank->comm), MMLP_OK);
    mmlp_mlp_unload(mlp);
}

Test(binding, a_communicator_of_another_size_is_refused_by_all_ranks, .timeout = 60)
{
    mmlp_bundle *bundle = parallel_bundle(PARALLEL_ADDED_BIAS, 2, false);
    with_thread_ranks(1, bind_another_size, bundle);
    with_thread_ranks(3, bind_another_size, bundle);
    mmlp_bundle_close(bundle);
}

/* Rank 1 has loaded the MLP on a device that is not its communicator's, and gives up. */
static void bind_that_of_another_device(thread_rank *rank)
{
    if (rank->rank == 0) {
        mmlp_mlp *mlp = parallel_load(rank, rank->what, NULL);
        EXPECT_PART(MMLP_ERROR_COMM, "rank 1", mmlp_mlp_bind_comm(mlp, MMLP_GROUP_TP, rank->comm));
        mmlp_mlp_unload(mlp);
    } else {
        thread_rank other = *rank;
        mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
        options.device = 3;
        REQUIRE(mmlp_context_create(&other.context, &options));
        mmlp_mlp *mlp = parallel_load(&other, rank->what, NULL);
        EXPECT(MMLP_ERROR_ARGUMENT,
               "communicator: found one of CUDA device 1, wanted one of CUDA device 3",
               mmlp_mlp_bind_comm(mlp, MMLP_GROUP_TP, rank->comm));
        mmlp_mlp_unload(mlp);
        mmlp_context_destroy(other.context);
    }
    REQUIRE(mmlp_comm_abort(rank->context, rank->comm));
}

Test(binding, a_communicator_of_another_device_is_refused_and_the_other_rank_hears_of_it,
     .timeout = 60)
{
    mmlp_bundle *bundle = parallel_bundle(PARALLEL_ADDED_BIAS, 2, false);
    with_thread_ranks(2, bind_that_of_another_device, bundle);
    mmlp_bundle_close(bundle);
}

static void bind_wrongly(thread_rank *rank)
{
    mmlp_mlp *mlp = parallel_load(rank, rank->what, NULL);
    EXPECT(MMLP_ERROR_ARGUMENT, "communicator: NULL was given",
           mmlp_mlp_bind_comm(mlp, MMLP_GROUP_TP, NULL));
    EXPECT(MMLP_ERROR_ARGUMENT, "mmlp_mlp_bind_comm: group: found 3, wanted 0 to 2",
           mmlp_mlp_bind_comm(mlp, (mmlp_group)3, rank->comm));
    EXPECT(MMLP_ERROR_ARGUMENT, "mmlp_mlp_bind_comm: group: found -1, wanted 0 to 2",
           mmlp_mlp_bind_comm(mlp, (mmlp_group)-1, rank->comm));
    EXPECT_PART(MMLP_ERROR_ARGUMENT, "mlp is NULL",
                mmlp_mlp_bind_comm(NULL, MMLP_GROUP_TP, rank->comm));
    /* What was refused was not bound. */
    REQUIRE(mmlp_mlp_bind_comm(mlp, MMLP_GROUP_TP, rank->comm));
    EXPECT(MMLP_ERROR_ORDER,
           "mlp: its tensor-parallel communicator is bound already: load the mlp again to bind "
           "another one",
           mmlp_mlp_bind_comm(mlp, MMLP_GROUP_TP, rank->comm));
    REQUIRE(mmlp_mlp_bind_comm(mlp, MMLP_GROUP_EXPERT_DP, rank->comm));
    EXPECT_PART(MMLP_ERROR_ORDER, "its expert data-parallel communicator is bound already",
                mmlp_mlp_bind_comm(mlp, MMLP_GROUP_EXPERT_DP, rank->comm));
    mmlp_mlp_unload(mlp);
}

Test(binding, nothing_no_group_and_a_second_time_are_refused, .timeout = 60)
{
    mmlp_bundle *bundle = parallel_bundle(PARALLEL_ADDED_BIAS, 2, false);
    with_thread_ranks(2, bind_wrongly, bundle);
    mmlp_bundle_close(bundle);
}

/* ---- ranks that do not agree ---------------------------------------------------------------- */

typedef struct side {
    const mmlp_bundle *bundle;
    int64_t max_tokens;
    int regathers;
    mmlp_group group;
} side;

typedef struct disagreement {
    side sides[2];
    mmlp_status status;
    const char *part; /* of the text that both ranks get */
} disagreement;

static void disagree(thread_rank *rank)
{
    const disagreement *d = rank->what;
    const side *own = &d->sides[rank->rank];
    mmlp_mlp_options options = MMLP_MLP_OPTIONS_INIT;
    options.max_tokens = own->max_tokens;
    options.regather_input = own->regathers;
    mmlp_mlp *mlp = parallel_load(rank, own->bundle, &options);
    EXPECT_PART(d->status, d->part, mmlp_mlp_bind_comm(mlp, own->group, rank->comm));
    mmlp_mlp_unload(mlp);
}

Test(binding, ranks_that_disagree_all_refuse_and_say_on_what, .timeout = 120)
{
    mmlp_bundle *bundle = parallel_bundle(PARALLEL_DELAYED, 2, true);
    mmlp_bundle *split = parallel_bundle(PARALLEL_ADDED_BIAS, 2, true);
    mmlp_bundle *whole = parallel_bundle(PARALLEL_ADDED_BIAS, 2, false);
    mmlp_bundle *of_four = parallel_bundle(PARALLEL_ADDED_BIAS, 4, false);
    const disagreement disagreements[] = {
        {{{bundle, 40, 0, MMLP_GROUP_TP}, {split, 40, 0, MMLP_GROUP_TP}},
         MMLP_ERROR_COMM,
         "mlp: tensor-parallel rank 1 has loaded another MLP ("},
        {{{split, 40, 0, MMLP_GROUP_TP}, {whole, 40, 0, MMLP_GROUP_TP}},
         MMLP_ERROR_COMM,
         "): load bundles of the same spec"},
        /* One of them finds the communicator's size wrong too. */
        {{{whole, 40, 0, MMLP_GROUP_TP}, {of_four, 40, 0, MMLP_GROUP_TP}},
         MMLP_ERROR_COMM,
         "mlp: tensor-parallel rank 1 has loaded another MLP ("},
        {{{bundle, 40, 0, MMLP_GROUP_TP}, {bundle, 42, 0, MMLP_GROUP_TP}},
         MMLP_ERROR_COMM,
         "mlp: tensor-parallel rank 1 is loaded for 42 tokens (max_tokens), rank 0 for 40"},
        {{{bundle, 40, 1, MMLP_GROUP_TP}, {bundle, 40, 0, MMLP_GROUP_TP}},
         MMLP_ERROR_COMM,
         "mlp: tensor-parallel rank 1 is loaded with regather_input 0, rank 0 with 1"},
        {{{bundle, 40, 0, MMLP_GROUP_TP}, {bundle, 40, 0, MMLP_GROUP_DP}},
         MMLP_ERROR_COMM,
         "mlp: rank 1 binds it as data-parallel, rank 0 as tensor-parallel"},
        {{{bundle, 40, 0, MMLP_GROUP_EXPERT_DP}, {bundle, 40, 0, MMLP_GROUP_DP}},
         MMLP_ERROR_COMM,
         "mlp: rank 1 binds it as data-parallel, rank 0 as expert data-parallel"},
    };
    for (size_t i = 0; i < sizeof disagreements / sizeof disagreements[0]; i++)
        with_thread_ranks(2, disagree, (void *)&disagreements[i]);
    mmlp_bundle_close(bundle);
    mmlp_bundle_close(split);
    mmlp_bundle_close(whole);
    mmlp_bundle_close(of_four);
}

/* Only the last of four differs: all name it. */
static void last_differs(thread_rank *rank)
{
    mmlp_mlp_options options = MMLP_MLP_OPTIONS_INIT;
    options.max_tokens = rank->rank == 3 ? 8 : 16;
    mmlp_mlp *mlp = parallel_load(rank, rank->what, &options);
    EXPECT(MMLP_ERROR_COMM,
           "mlp: tensor-parallel rank 3 is loaded for 8 tokens (max_tokens), rank 0 for 16",
           mmlp_mlp_bind_comm(mlp, MMLP_GROUP_TP, rank->comm));
    mmlp_mlp_unload(mlp);
}

Test(binding, the_rank_that_differs_is_named_to_all, .timeout = 60)
{
    mmlp_bundle *bundle = parallel_bundle(PARALLEL_ADDED_BIAS, 4, false);
    with_thread_ranks(4, last_differs, bundle);
    mmlp_bundle_close(bundle);
}

/* ---- before the bind, and without ----------------------------------------------------------- */

static mmlp_status initialise(mmlp_mlp *mlp, const training_step *step)
{
    mmlp_init_args args = MMLP_INIT_ARGS_INIT;
    args.linear_fc1_weight = step->forward.linear_fc1_weight;
    args.linear_fc1_bias = step->forward.linear_fc1_bias;
    args.linear_fc2_weight = step->forward.linear_fc2_weight;
    args.linear_fc2_bias = step->forward.linear_fc2_bias;
    return mmlp_mlp_init_weights(mlp, &args, NULL);
}

Test(binding, passes_and_initial_weights_wait_for_it)
{
    static const char needed[] = "mlp: its 2 tensor-parallel ranks have no communicator: call "
                                 "mmlp_mlp_bind_comm first";
    mmlp_context *context = loaded_device();
    mmlp_bundle *bundle = parallel_bundle(PARALLEL_DELAYED, 2, true);
    mmlp_mlp *mlp;
    training_step step;
    step_options options = {.tokens = 8, .seed = 1};
    REQUIRE(mmlp_mlp_load(&mlp, context, bundle, NULL));
    step_start(&step, context, bundle, mlp, &options);
    EXPECT(MMLP_ERROR_ORDER, needed, mmlp_mlp_forward(mlp, &step.forward, NULL));
    EXPECT(MMLP_ERROR_ORDER, needed, mmlp_mlp_dgrad(mlp, &step.dgrad, NULL));
    EXPECT(MMLP_ERROR_ORDER, needed, mmlp_mlp_backward_dw(mlp, NULL));
    EXPECT(MMLP_ERROR_ORDER,
           "mlp: the weights of which of 2 tensor-parallel ranks is not known: call "
           "mmlp_mlp_bind_comm first",
           initialise(mlp, &step));
    step_finish(&step);
    mmlp_mlp_unload(mlp);
    mmlp_bundle_close(bundle);
    mmlp_context_destroy(context);
}

Test(binding, tokens_that_ranks_cannot_split_are_refused)
{
    mmlp_context *context = loaded_device();
    mmlp_bundle *bundle = parallel_bundle(PARALLEL_DELAYED, 2, true);
    mmlp_mlp *mlp;
    mmlp_memory memory = MMLP_MEMORY_INIT;
    mmlp_buffer_view view = MMLP_BUFFER_VIEW_INIT;
    static const char split[] = "tokens: found 41, wanted a multiple of the 2 ranks that split "
                                "them (sequence_parallel)";
    REQUIRE(mmlp_mlp_load(&mlp, context, bundle, NULL));
    EXPECT(MMLP_ERROR_ARGUMENT, split, mmlp_mlp_memory(mlp, MMLP_PASS_FORWARD, 41, &memory));
    EXPECT(MMLP_ERROR_ARGUMENT, split, mmlp_mlp_buffer(mlp, "fc1_output", 41, &view));
    REQUIRE(mmlp_mlp_memory(mlp, MMLP_PASS_FORWARD, 42, &memory));
    mmlp_mlp_unload(mlp);
    mmlp_bundle_close(bundle);
    mmlp_context_destroy(context);
}

/* A rank's rows, of which there are too many, or so many that their number times the ranks wraps.
 */
static void give_many_rows(thread_rank *rank)
{
    static const struct {
        int64_t rows;
        const char *part;
    } cases[] = {
        {3, "tokens: found 12, this mlp was loaded for 0 to 9 (max_tokens)"},
        {INT64_C(1) << 62, "this mlp was loaded for 0 to 9 (max_tokens)"},
        {INT64_MAX, "this mlp was loaded for 0 to 9 (max_tokens)"},
    };
    mmlp_mlp_options load = MMLP_MLP_OPTIONS_INIT;
    load.max_tokens = 9;
    mmlp_mlp *mlp = parallel_bind(rank, rank->what, &load);
    step_options options = {.tokens = 8, .seed = 1, .device = rank->rank};
    training_step step;
    step_start(&step, rank->context, rank->what, mlp, &options);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        step.tensors[STEP_HIDDEN_STATES].shape[0] = cases[i].rows;
        cr_expect_eq(mmlp_mlp_forward(mlp, &step.forward, NULL), MMLP_ERROR_ARGUMENT);
        cr_expect(strstr(mmlp_last_error(), cases[i].part), "%s", mmlp_last_error());
    }
    step.tensors[STEP_HIDDEN_STATES].shape[0] = 2;
    REQUIRE(step_run(&step, mlp));
    step_finish(&step);
    mmlp_mlp_unload(mlp);
}

Test(binding, rows_of_a_rank_count_for_all_ranks, .timeout = 60)
{
    mmlp_bundle *bundle = parallel_bundle(PARALLEL_ADDED_BIAS, 4, true);
    with_thread_ranks(4, give_many_rows, bundle);
    mmlp_bundle_close(bundle);
}

/* ---- without NCCL --------------------------------------------------------------------------- */

Test(binding, without_nccl_only_ranks_cannot_work)
{
    mmlp_context_options nowhere = MMLP_CONTEXT_OPTIONS_INIT;
    nowhere.nccl = "/nowhere/libnccl.so.2";
    mmlp_context *context;
    mmlp_bundle *alone = parallel_bundle(PARALLEL_ADDED_BIAS, 1, false);
    mmlp_bundle *shared = parallel_bundle(PARALLEL_ADDED_BIAS, 2, false);
    mmlp_mlp *mlp;
    training_step step;
    step_options options = {.tokens = 8, .seed = 1};
    REQUIRE(mmlp_context_create(&context, &nowhere));
    REQUIRE(mmlp_mlp_load(&mlp, context, alone, NULL));
    step_start(&step, context, alone, mlp, &options);
    REQUIRE(initialise(mlp, &step));
    REQUIRE(step_run(&step, mlp));
    step_finish(&step);
    mmlp_mlp_unload(mlp);

    REQUIRE(mmlp_mlp_load(&mlp, context, shared, NULL));
    struct ncclComm *some = (struct ncclComm *)&options; /* nobody can look into it */
    EXPECT_PART(MMLP_ERROR_DRIVER,
                "NCCL: /nowhere/libnccl.so.2: ", mmlp_mlp_bind_comm(mlp, MMLP_GROUP_TP, some));
    mmlp_mlp_unload(mlp);
    mmlp_bundle_close(shared);
    mmlp_bundle_close(alone);
    mmlp_context_destroy(context);
}
