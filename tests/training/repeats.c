/*
 * repeats.c: what must not change a bit of a training step: running it again, other orders of warps
 * and numbers of host threads, delayed weight gradients.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loaded_mlp.h"
#include "scheduled.h"
#include "training_step.h"

#define REQUIRE(call) cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())

enum { TOKENS = 300, HIDDEN = 136, FFN = 264 };

/* With bias and scale: every kernel there is. */
static void open_mlp(loaded_mlp *out, mmlp_context *context, const char *dtype, bool delay,
                     int wgrad_depth)
{
    char fields[512];
    snprintf(fields, sizeof fields,
             "activation_func = F.silu, gated_linear_unit = true, add_bias_linear = true, "
             "num_moe_experts = 2, params_dtype = '%s', delay_wgrad_compute = %s",
             dtype, delay ? "true" : "false");
    char *content = loaded_spec(HIDDEN, FFN, fields, "is_expert = true, per_token_scale = true");
    loaded_open(out, context, content, TOKENS, wgrad_depth, NULL);
    free(content);
}

/* The outputs of a step, on a device that is opened for it. */
static unsigned char *run_once(const char *dtype, bool delay, int beta, size_t *bytes)
{
    loaded_mlp loaded;
    training_step step;
    step_options options = {.tokens = TOKENS, .seed = 5, .beta = beta};
    mmlp_context *context = loaded_device();
    open_mlp(&loaded, context, dtype, delay, 0);
    step_start(&step, context, loaded.bundle, loaded.mlp, &options);
    REQUIRE(step_run(&step, loaded.mlp));
    unsigned char *outputs = step_outputs(&step, bytes);
    step_finish(&step);
    loaded_close(&loaded);
    mmlp_context_destroy(context);
    return outputs;
}

static unsigned char *run_dtype(const void *dtype, size_t *bytes)
{
    return run_once(dtype, false, 0, bytes);
}

static const char *const dtypes[] = {"bf16", "fp32"};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

Test(repeats, a_step_gives_the_same_bits_again)
{
    for (int i = 0; i < DTYPES; i++) {
        size_t bytes, again_bytes;
        unsigned char *first = run_once(dtypes[i], false, 0, &bytes),
                      *again = run_once(dtypes[i], false, 0, &again_bytes);
        cr_assert_eq(bytes, again_bytes);
        cr_expect_eq(memcmp(first, again, bytes), 0, "%s", dtypes[i]);
        free(first);
        free(again);
    }
}

Test(repeats, neither_the_order_of_warps_nor_the_threads_change_a_bit)
{
    static const char *const schedules[][2] = {{"0", "1"}, {"1", "1"}, {"77", "3"}};
    for (int i = 0; i < DTYPES; i++) {
        size_t bytes[3];
        unsigned char *outputs[3];
        for (int k = 0; k < 3; k++)
            outputs[k] =
                scheduled_run(run_dtype, dtypes[i], schedules[k][0], schedules[k][1], &bytes[k]);
        for (int k = 1; k < 3; k++) {
            cr_assert_eq(bytes[k], bytes[0]);
            cr_expect_eq(memcmp(outputs[k], outputs[0], bytes[0]), 0, "%s, seed %s", dtypes[i],
                         schedules[k][0]);
        }
        cr_assert_gt(bytes[0], TOKENS * HIDDEN);
        for (int k = 0; k < 3; k++)
            free(outputs[k]);
    }
}

Test(repeats, delayed_weight_gradients_are_the_immediate_ones)
{
    for (int i = 0; i < DTYPES; i++) {
        for (int beta = 0; beta < 2; beta++) {
            size_t bytes, delayed_bytes;
            unsigned char *immediate = run_once(dtypes[i], false, beta, &bytes),
                          *delayed = run_once(dtypes[i], true, beta, &delayed_bytes);
            cr_assert_eq(bytes, delayed_bytes);
            cr_expect_eq(memcmp(immediate, delayed, bytes), 0, "%s, beta %d", dtypes[i], beta);
            free(immediate);
            free(delayed);
        }
    }
}

/* ---- microbatches ---------------------------------------------------------------------------- */

enum { MICROBATCHES = 5, DEPTH = 3 };

/* The gradients of all steps go where those of the first do; it clears them. */
static void share_gradients(training_step steps[MICROBATCHES])
{
    for (int i = 0; i < MICROBATCHES; i++) {
        mmlp_dgrad_args *args = &steps[i].dgrad, *first = &steps[0].dgrad;
        args->grad_linear_fc1_weight = first->grad_linear_fc1_weight;
        args->grad_linear_fc1_bias = first->grad_linear_fc1_bias;
        args->grad_linear_fc2_weight = first->grad_linear_fc2_weight;
        args->grad_linear_fc2_bias = first->grad_linear_fc2_bias;
        args->beta = i > 0;
    }
}

/* Weight gradients wait until the ring is full; without delay each comes at once. */
static unsigned char *run_microbatches(bool delay, size_t *bytes)
{
    loaded_mlp loaded;
    training_step steps[MICROBATCHES];
    mmlp_context *context = loaded_device();
    open_mlp(&loaded, context, "bf16", delay, delay ? DEPTH : 0);
    for (int i = 0; i < MICROBATCHES; i++) {
        step_options options = {.tokens = TOKENS - 50 * i, .seed = 10 + (uint64_t)i};
        step_start(&steps[i], context, loaded.bundle, loaded.mlp, &options);
    }
    share_gradients(steps);
    for (int i = 0; i < MICROBATCHES; i++) {
        REQUIRE(mmlp_mlp_forward(loaded.mlp, &steps[i].forward, NULL));
        REQUIRE(mmlp_mlp_dgrad(loaded.mlp, &steps[i].dgrad, NULL));
        if (i + 1 >= DEPTH)
            REQUIRE(mmlp_mlp_backward_dw(loaded.mlp, NULL));
    }
    for (int i = 1; i < DEPTH; i++)
        REQUIRE(mmlp_mlp_backward_dw(loaded.mlp, NULL));
    cr_expect_eq(mmlp_mlp_backward_dw(loaded.mlp, NULL), delay ? MMLP_ERROR_RING_EMPTY : MMLP_OK);
    REQUIRE(mmlp_stream_sync(context, NULL));
    unsigned char *outputs = step_outputs(&steps[0], bytes);
    for (int i = 0; i < MICROBATCHES; i++)
        step_finish(&steps[i]);
    loaded_close(&loaded);
    mmlp_context_destroy(context);
    return outputs;
}

Test(repeats, a_ring_of_three_accumulates_microbatches_in_their_order)
{
    /* The first clears the destination and the sums are rounded: another order has other bits. */
    size_t bytes, delayed_bytes;
    unsigned char *immediate = run_microbatches(false, &bytes),
                  *delayed = run_microbatches(true, &delayed_bytes);
    cr_assert_eq(bytes, delayed_bytes);
    cr_expect_eq(memcmp(immediate, delayed, bytes), 0);
    free(immediate);
    free(delayed);
}
