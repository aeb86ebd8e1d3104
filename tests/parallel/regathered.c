/* regathered.c: weight gradients that wait, with the input kept or gathered again for them. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "parallel_step.h"

#define REQUIRE(call) cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())

enum { RANKS = 2, CALLS = 3, TOKENS = 34, MOST_TOKENS = 50 };

static mmlp_mlp *bind(const thread_rank *rank, int regathers)
{
    mmlp_mlp_options options = MMLP_MLP_OPTIONS_INIT;
    options.max_tokens = MOST_TOKENS;
    options.wgrad_depth = CALLS;
    options.regather_input = regathers;
    return parallel_bind(rank, rank->what, &options);
}

/* Three steps whose weight gradients all wait: the outputs of all, one after the other. */
static unsigned char *run_waiting(const thread_rank *rank, mmlp_mlp *mlp, size_t *bytes)
{
    training_step steps[CALLS];
    unsigned char *all = NULL;
    *bytes = 0;
    for (int i = 0; i < CALLS; i++) {
        /* Fewer tokens every time: what an older call has gathered must not be what is read. */
        step_options options = {.tokens = TOKENS - 2 * i,
                                .seed = (uint64_t)(10 * i + rank->rank),
                                .device = rank->rank};
        step_start(&steps[i], rank->context, rank->what, mlp, &options);
        REQUIRE(mmlp_mlp_forward(mlp, &steps[i].forward, NULL));
        REQUIRE(mmlp_mlp_dgrad(mlp, &steps[i].dgrad, NULL));
    }
    for (int i = 0; i < CALLS; i++)
        REQUIRE(mmlp_mlp_backward_dw(mlp, NULL));
    REQUIRE(mmlp_stream_sync(rank->context, NULL));
    for (int i = 0; i < CALLS; i++) {
        size_t own;
        unsigned char *outputs = step_outputs(&steps[i], &own);
        cr_assert((all = realloc(all, *bytes + own)) != NULL);
        memcpy(all + *bytes, outputs, own);
        *bytes += own;
        free(outputs);
        step_finish(&steps[i]);
    }
    return all;
}

static void compare_bits(thread_rank *rank)
{
    size_t kept_bytes, bytes;
    mmlp_mlp *keeps = bind(rank, 0), *regathers = bind(rank, 1);
    unsigned char *kept = run_waiting(rank, keeps, &kept_bytes);
    unsigned char *regathered = run_waiting(rank, regathers, &bytes);
    cr_assert_eq(bytes, kept_bytes);
    cr_expect_eq(memcmp(regathered, kept, bytes), 0);
    free(kept);
    free(regathered);
    mmlp_mlp_unload(keeps);
    mmlp_mlp_unload(regathers);
}

Test(regathered, inputs_give_the_weight_gradients_of_kept_ones, .timeout = 60)
{
    mmlp_bundle *bundle = parallel_bundle(PARALLEL_DELAYED, RANKS, true);
    with_thread_ranks(RANKS, compare_bits, bundle);
    mmlp_bundle_close(bundle);
}

static void compare_memory(thread_rank *rank)
{
    mmlp_mlp *keeps = bind(rank, 0), *regathers = bind(rank, 1);
    for (int64_t tokens = 0; tokens <= MOST_TOKENS; tokens += RANKS) {
        mmlp_memory kept = MMLP_MEMORY_INIT, less = MMLP_MEMORY_INIT;
        REQUIRE(mmlp_mlp_memory(keeps, MMLP_PASS_DGRAD, tokens, &kept));
        REQUIRE(mmlp_mlp_memory(regathers, MMLP_PASS_DGRAD, tokens, &less));
        cr_expect_eq(kept.pending_bytes - less.pending_bytes,
                     (size_t)tokens * PARALLEL_HIDDEN * sizeof(uint16_t));
        cr_expect_eq(kept.saved_bytes, less.saved_bytes);
        cr_expect_eq(kept.scratch_bytes, less.scratch_bytes);
    }
    mmlp_mlp_unload(keeps);
    mmlp_mlp_unload(regathers);
}

Test(regathered, inputs_are_not_in_the_memory_of_waiting_calls, .timeout = 60)
{
    mmlp_bundle *bundle = parallel_bundle(PARALLEL_DELAYED, RANKS, true);
    with_thread_ranks(RANKS, compare_memory, bundle);
    mmlp_bundle_close(bundle);
}

Test(regathered, inputs_need_sequence_parallel_and_delayed_weight_gradients)
{
    static const struct {
        parallel_kind kind;
        bool sequence_parallel;
    } cases[] = {{PARALLEL_DELAYED, false}, {PARALLEL_FP32, true}};
    mmlp_context *context = loaded_device();
    mmlp_mlp_options options = MMLP_MLP_OPTIONS_INIT;
    options.regather_input = 1;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mmlp_bundle *bundle = parallel_bundle(cases[i].kind, RANKS, cases[i].sequence_parallel);
        mmlp_mlp *mlp;
        cr_expect_eq(mmlp_mlp_load(&mlp, context, bundle, &options), MMLP_ERROR_ARGUMENT);
        cr_expect_null(mlp);
        cr_expect_str_eq(mmlp_last_error(),
                         "regather_input: mlp has no gathered input that waits for backward_dw: it "
                         "needs sequence_parallel and delay_wgrad_compute");
        mmlp_bundle_close(bundle);
    }
    mmlp_context_destroy(context);
}
