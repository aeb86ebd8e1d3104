/* backward_numbers.c: what dgrad and backward_dw compute, at once and delayed. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "made_step.h"

/* Every gradient in fp64, straight from the definition; fc1_output as the device stored it. */
typedef struct gradients {
    double of[MADE_TENSORS][2 * MADE_FFN * MADE_HIDDEN]; /* DX and later */
} gradients;

static void sum_gradients(gradients *g, const made_step *s, const float *fc1, int tokens)
{
    const float *x = s->host[X], *w1 = s->host[W1], *b1 = s->host[B1], *w2 = s->host[W2];
    const float *scale = s->host[SCALE], *dy = s->host[DY];
    memset(g, 0, sizeof *g);
    for (int t = 0; t < tokens; t++) {
        for (int f = 0; f < MADE_FFN; f++) {
            double d = 0, dz[2];
            for (int h = 0; h < MADE_HIDDEN; h++)
                d += (double)dy[t * MADE_HIDDEN + h] * (double)w2[h * MADE_FFN + f];
            double gate = (double)fc1[t * 2 * MADE_FFN + f] + (double)b1[f];
            double up = (double)fc1[t * 2 * MADE_FFN + MADE_FFN + f] + (double)b1[MADE_FFN + f];
            double sigmoid = 1 / (1 + exp(-gate));
            double activation = gate * sigmoid * up * (double)scale[t];
            dz[0] = d * (double)scale[t] * up * sigmoid * (1 + gate * (1 - sigmoid));
            dz[1] = d * (double)scale[t] * gate * sigmoid;
            g->of[DSCALE][t] += d * gate * sigmoid * up;
            for (int half = 0; half < 2; half++) {
                int c = half * MADE_FFN + f;
                g->of[DB1][c] += dz[half];
                for (int h = 0; h < MADE_HIDDEN; h++) {
                    g->of[DX][t * MADE_HIDDEN + h] += dz[half] * (double)w1[c * MADE_HIDDEN + h];
                    g->of[DW1][c * MADE_HIDDEN + h] += dz[half] * (double)x[t * MADE_HIDDEN + h];
                }
            }
            for (int h = 0; h < MADE_HIDDEN; h++)
                g->of[DW2][h * MADE_FFN + f] += (double)dy[t * MADE_HIDDEN + h] * activation;
        }
        for (int h = 0; h < MADE_HIDDEN; h++)
            g->of[DB2][h] += (double)dy[t * MADE_HIDDEN + h];
    }
}

static gradients *wanted_gradients(const made_step *s)
{
    float fc1[MADE_TOKENS * 2 * MADE_FFN];
    gradients *g = malloc(sizeof *g);
    cr_assert_eq(mmlp_buffer_download(s->context, fc1, s->saved, sizeof fc1, NULL), MMLP_OK);
    sum_gradients(g, s, fc1, MADE_TOKENS);
    return g;
}

/* The device's gradients are `offset` more than the wanted ones; DX and DSCALE never add. */
static void expect_gradients(const made_step *s, const gradients *g, double offset)
{
    static const char *const names[MADE_TENSORS] = {
        [DX] = "hidden_states", [DSCALE] = "scale",   [DW1] = "fc1 weight",
        [DB1] = "fc1 bias",     [DW2] = "fc2 weight", [DB2] = "fc2 bias"};
    float found[2 * MADE_FFN * MADE_HIDDEN];
    for (int i = DX; i < MADE_TENSORS; i++) {
        step_download(s, i, found);
        for (int64_t k = 0; k < made_elements(i); k++) {
            double wanted = g->of[i][k] + (i >= DW1 ? offset : 0);
            cr_assert_float_eq(found[k], wanted, 1e-5 * (1 + fabs(wanted)), "%s[%d]: %g, not %g",
                               names[i], (int)k, (double)found[k], wanted);
        }
    }
}

Test(backward, gradients_are_those_of_the_definition_and_beta_0_never_reads)
{
    made_step *s = step_start_backward(false, 0);
    step_forward(s);
    step_fill_gradients(s, NAN);
    step_dgrad(s);
    gradients *g = wanted_gradients(s);
    expect_gradients(s, g, 0);
    cr_expect_eq(mmlp_mlp_backward_dw(s->mlp, NULL), MMLP_OK);
    expect_gradients(s, g, 0);
    free(g);
    step_finish(s);
}

Test(backward, beta_1_adds_to_the_weight_and_bias_gradients)
{
    made_step *s = step_start_backward(false, 0);
    step_forward(s);
    step_fill_gradients(s, 3);
    s->dgrad.beta = 1;
    step_dgrad(s);
    gradients *g = wanted_gradients(s);
    expect_gradients(s, g, 3);
    free(g);
    step_finish(s);
}

/* The bits of all gradients after a step. */
static float *bits_of_a_step(bool delayed, int beta)
{
    float *bits = calloc(MADE_TENSORS * 2 * MADE_FFN * MADE_HIDDEN, sizeof *bits);
    made_step *s = step_start_backward(delayed, 0);
    step_forward(s);
    step_fill_gradients(s, 1);
    s->dgrad.beta = beta;
    step_dgrad(s);
    if (delayed) {
        float found[2 * MADE_FFN * MADE_HIDDEN];
        step_download(s, DW1, found);
        cr_expect_eq(found[0], 1, "a weight gradient was written before its time");
        step_fill(s, DX, 7); /* the caller may go on with these */
        memset(&s->dgrad, 0, sizeof s->dgrad);
        step_backward_dw(s);
    }
    for (int i = DSCALE; i < MADE_TENSORS; i++)
        step_download(s, i, bits + i * 2 * MADE_FFN * MADE_HIDDEN);
    step_finish(s);
    return bits;
}

Test(backward, a_delayed_gradient_is_bit_for_bit_the_immediate_one)
{
    for (int beta = 0; beta < 2; beta++) {
        float *immediate = bits_of_a_step(false, beta), *delayed = bits_of_a_step(true, beta);
        cr_expect_eq(memcmp(immediate, delayed,
                            MADE_TENSORS * 2 * MADE_FFN * MADE_HIDDEN * sizeof *immediate),
                     0);
        free(immediate);
        free(delayed);
    }
}

Test(backward, the_gradient_of_a_returned_bias_may_be_left_out)
{
    made_step *s = step_start_backward(false, 0);
    step_forward(s);
    step_fill_gradients(s, NAN);
    s->dgrad.grad_linear_fc2_bias = NULL;
    step_dgrad(s);
    float found[MADE_TOKENS * MADE_HIDDEN];
    step_download(s, DB2, found);
    cr_expect(isnan(found[0]));
    step_download(s, DX, found);
    cr_expect_not(isnan(found[0]));
    step_finish(s);
}

Test(backward, a_saved_activation_is_kept_until_backward_dw)
{
    made_bundle made = made_start();
    made_add_backward(&made, true);
    made_save_activation(&made);
    made_step *s = step_start(made, 0);
    cr_expect_eq(s->dgrad_memory.saved_bytes, s->forward_memory.saved_bytes);
    mmlp_memory memory = MMLP_MEMORY_INIT;
    cr_assert_eq(mmlp_mlp_memory(s->mlp, MMLP_PASS_BACKWARD_DW, MADE_TOKENS, &memory), MMLP_OK);
    cr_expect_eq(memory.saved_bytes, s->forward_memory.saved_bytes);
    cr_expect_eq(memory.pending_bytes, s->dgrad_memory.pending_bytes);
    cr_expect_eq(memory.scratch_bytes, 0);
    step_forward(s);
    step_fill_gradients(s, NAN);
    step_dgrad(s);
    step_expect_forward(s, MMLP_ERROR_ARGUMENT,
                        "saved: found it overlapping saved of a dgrad call that waits for "
                        "mmlp_mlp_backward_dw (1 of 1), wanted memory of its own");
    step_backward_dw(s);
    gradients *g = wanted_gradients(s);
    expect_gradients(s, g, 0);
    step_forward(s);
    free(g);
    step_finish(s);
}

/* ---- no tokens ------------------------------------------------------------------------------ */

static void take_all_tokens(made_step *s)
{
    int tokens_of[] = {X, SCALE, OUTPUT, DY, DX, DSCALE};
    for (int i = 0; i < 6; i++) {
        s->shapes[tokens_of[i]][0] = 0;
        mmlp_buffer_free(s->context, s->tensors[tokens_of[i]].data);
        s->tensors[tokens_of[i]].data = NULL;
    }
    s->forward.saved = s->forward.scratch = NULL;
    s->dgrad.saved = s->dgrad.scratch = s->dgrad.pending = NULL;
    s->dgrad.saved_bytes = s->dgrad.scratch_bytes = s->dgrad.pending_bytes = 0;
}

static void expect_all(const made_step *s, int first, int last, float wanted)
{
    float found[2 * MADE_FFN * MADE_HIDDEN];
    for (int i = first; i <= last; i++) {
        step_download(s, i, found);
        for (int64_t k = 0; k < made_elements(i); k++)
            cr_assert_eq(found[k], wanted, "tensor %d, element %d: %g", i, (int)k,
                         (double)found[k]);
    }
}

Test(backward, no_tokens_give_zeros_with_beta_0_and_nothing_with_beta_1)
{
    for (int delayed = 0; delayed < 2; delayed++) {
        made_step *s = step_start_backward(delayed, 0);
        take_all_tokens(s);
        step_forward(s);
        for (int i = DW1; i <= DB2; i++)
            step_fill(s, i, 2);
        s->dgrad.beta = 1;
        step_dgrad(s);
        if (delayed)
            step_backward_dw(s);
        expect_all(s, DW1, DB2, 2);
        for (int i = DW1; i <= DB2; i++)
            step_fill(s, i, NAN);
        s->dgrad.beta = 0;
        step_dgrad(s);
        if (delayed)
            step_backward_dw(s);
        expect_all(s, DW1, DB2, 0);
        cr_expect_eq(mmlp_mlp_backward_dw(s->mlp, NULL), delayed ? MMLP_ERROR_RING_EMPTY : MMLP_OK);
        step_finish(s);
    }
}

/* ---- the ring ------------------------------------------------------------------------------- */

Test(backward, delayed_calls_run_in_their_order_each_into_its_own_destination)
{
    made_step *s = step_start_backward(true, MADE_DEPTH);
    step_forward(s);
    gradients *g = wanted_gradients(s);
    step_fill_gradients(s, NAN);

    /* Three calls to one destination: the first overwrites, the others add. */
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < MADE_DEPTH; i++) {
            s->dgrad.pending = s->pending[i];
            s->dgrad.beta = i > 0;
            step_dgrad(s);
        }
        step_expect_dgrad(s, MMLP_ERROR_RING_FULL,
                          "mmlp_mlp_dgrad: 3 dgrad calls wait for their weight gradients, and "
                          "there is room for 3 (wgrad_depth): call mmlp_mlp_backward_dw first, or "
                          "load with a larger wgrad_depth");
        float found[MADE_HIDDEN * MADE_FFN];
        for (int i = 0; i < MADE_DEPTH; i++) {
            step_backward_dw(s);
            step_download(s, DW2, found);
            cr_expect_float_eq(found[7], (i + 1) * g->of[DW2][7], 1e-4, "call %d", i);
        }
        cr_expect_eq(mmlp_mlp_backward_dw(s->mlp, NULL), MMLP_ERROR_RING_EMPTY);
        cr_expect_str_eq(mmlp_last_error(),
                         "mmlp_mlp_backward_dw: no dgrad call waits for its weight gradients (of "
                         "wgrad_depth 3): call mmlp_mlp_dgrad first");
        step_dgrad(s); /* the ring turns by one */
        step_backward_dw(s);
    }
    free(g);
    step_finish(s);
}

Test(backward, a_waiting_call_keeps_its_own_destination_and_beta)
{
    made_step *s = step_start_backward(true, 2);
    step_forward(s);
    gradients *g = wanted_gradients(s);
    step_fill_gradients(s, 1);
    step_dgrad(s);
    mmlp_tensor other = s->tensors[DW2];
    cr_assert_eq(mmlp_buffer_alloc(&other.data, s->context, MADE_HIDDEN * MADE_FFN * 4), MMLP_OK);
    cr_assert_eq(mmlp_mlp_fill_normal(s->mlp, &other, 0, 0, NULL), MMLP_OK);
    s->dgrad.grad_linear_fc2_weight = &other;
    s->dgrad.pending = s->pending[1];
    s->dgrad.beta = 1;
    step_dgrad(s);
    step_backward_dw(s);
    float found[MADE_HIDDEN * MADE_FFN];
    step_download(s, DW2, found);
    cr_expect_float_eq(found[9], g->of[DW2][9], 1e-4);
    cr_assert_eq(mmlp_buffer_download(s->context, found, other.data, sizeof found, NULL), MMLP_OK);
    cr_expect_eq(found[9], 0);
    step_backward_dw(s);
    cr_assert_eq(mmlp_buffer_download(s->context, found, other.data, sizeof found, NULL), MMLP_OK);
    cr_expect_float_eq(found[9], g->of[DW2][9], 1e-4);
    mmlp_buffer_free(s->context, other.data);
    free(g);
    step_finish(s);
}

/* ---- times and kernels ---------------------------------------------------------------------- */

Test(backward, the_kernels_of_every_pass_are_timed_and_described)
{
    made_step *s = step_start_backward(true, 0);
    double ms[11] = {0};
    cr_assert_eq(mmlp_mlp_kernel_count(s->mlp), 11);
    cr_assert_eq(mmlp_mlp_time_kernels(s->mlp, ms, 11), MMLP_OK, "%s", mmlp_last_error());
    step_forward(s);
    step_dgrad(s);
    for (int i = 0; i < 11; i++)
        cr_expect_eq(ms[i] > 0, i != 2 && i < 9, "kernel %d before backward_dw: %g", i, ms[i]);
    step_backward_dw(s);
    cr_expect(ms[9] > 0 && ms[10] > 0);
    double once = ms[0];
    step_forward(s);
    cr_expect_gt(ms[0], once);
    mmlp_kernel_properties kernel = MMLP_KERNEL_PROPERTIES_INIT;
    cr_assert_eq(mmlp_mlp_kernel(s->mlp, 9, &kernel), MMLP_OK);
    cr_expect_str_eq(kernel.name, "made_fc2_wgrad");
    cr_expect_str_eq(kernel.pass, "backward_dw");
    cr_expect_str_eq(kernel.step, "linear_fc2");
    cr_expect_eq(kernel.rows, 24);
    cr_expect_eq(kernel.bytes, 8);
    cr_expect_eq(kernel.bytes_per_token, 2);
    step_finish(s);
}
