/* made_step.c: a hand-written bundle with the tensors of a training step. */
#include "made_step.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static const int64_t shapes[MADE_TENSORS][2] = {
    [X] = {MADE_TOKENS, MADE_HIDDEN},  [W1] = {2 * MADE_FFN, MADE_HIDDEN},
    [B1] = {2 * MADE_FFN, 0},          [W2] = {MADE_HIDDEN, MADE_FFN},
    [SCALE] = {MADE_TOKENS, 0},        [OUTPUT] = {MADE_TOKENS, MADE_HIDDEN},
    [DY] = {MADE_TOKENS, MADE_HIDDEN}, [DX] = {MADE_TOKENS, MADE_HIDDEN},
    [DSCALE] = {MADE_TOKENS, 0},       [DW1] = {2 * MADE_FFN, MADE_HIDDEN},
    [DB1] = {2 * MADE_FFN, 0},         [DW2] = {MADE_HIDDEN, MADE_FFN},
    [DB2] = {MADE_HIDDEN, 0},
};

int64_t made_elements(int tensor)
{
    return shapes[tensor][0] * (shapes[tensor][1] ? shapes[tensor][1] : 1);
}

static void upload(const made_step *s, int tensor, const float *values)
{
    cr_assert_eq(mmlp_buffer_upload(s->context, s->tensors[tensor].data, values,
                                    (size_t)made_elements(tensor) * sizeof *values, NULL),
                 MMLP_OK, "%s", mmlp_last_error());
}

static void make_tensor(made_step *s, int i)
{
    size_t bytes = (size_t)made_elements(i) * sizeof(float);
    s->host[i] = malloc(bytes);
    for (int64_t k = 0; k < made_elements(i); k++)
        s->host[i][k] = (float)((k * 37 + i * 11) % 23 - 11) / 16.0f;
    memcpy(s->shapes[i], shapes[i], sizeof shapes[i]);
    s->tensors[i] = (mmlp_tensor){.device = {MMLP_DEVICE_CUDA, 0},
                                  .ndim = shapes[i][1] ? 2 : 1,
                                  .dtype = {MMLP_TYPE_FLOAT, 32, 1},
                                  .shape = s->shapes[i]};
    cr_assert_eq(mmlp_buffer_alloc(&s->tensors[i].data, s->context, bytes), MMLP_OK);
    upload(s, i, s->host[i]);
}

static void *make_buffer(const made_step *s, size_t bytes)
{
    void *buffer = NULL;
    cr_assert_eq(mmlp_buffer_alloc(&buffer, s->context, bytes), MMLP_OK);
    return buffer;
}

static void make_buffers(made_step *s)
{
    s->forward_memory = s->dgrad_memory = (mmlp_memory)MMLP_MEMORY_INIT;
    cr_assert_eq(mmlp_mlp_memory(s->mlp, MMLP_PASS_FORWARD, MADE_TOKENS, &s->forward_memory),
                 MMLP_OK);
    cr_assert_eq(mmlp_mlp_memory(s->mlp, MMLP_PASS_DGRAD, MADE_TOKENS, &s->dgrad_memory), MMLP_OK);
    s->saved = make_buffer(s, s->forward_memory.saved_bytes);
    s->scratch = make_buffer(s, s->forward_memory.scratch_bytes);
    s->dgrad_scratch = make_buffer(s, s->dgrad_memory.scratch_bytes);
    for (int i = 0; i < MADE_DEPTH; i++)
        s->pending[i] = make_buffer(s, s->dgrad_memory.pending_bytes);
}

made_step *step_start(made_bundle made, int wgrad_depth)
{
    made_step *s = calloc(1, sizeof *s);
    s->made = made;
    made_write(&s->made);
    cr_assert_eq(mmlp_bundle_open(&s->bundle, s->made.folder), MMLP_OK, "%s", mmlp_last_error());
    s->context = open_context(NULL, MADE_CACHE, NULL);
    mmlp_mlp_options options = MMLP_MLP_OPTIONS_INIT;
    options.max_tokens = MADE_MAX_TOKENS;
    options.wgrad_depth = wgrad_depth;
    cr_assert_eq(mmlp_mlp_load(&s->mlp, s->context, s->bundle, &options), MMLP_OK, "%s",
                 mmlp_last_error());
    for (int i = 0; i < MADE_TENSORS; i++)
        make_tensor(s, i);
    make_buffers(s);

    const mmlp_tensor *t = s->tensors;
    s->forward = (mmlp_forward_args)MMLP_FORWARD_ARGS_INIT;
    s->forward.hidden_states = &t[X];
    s->forward.linear_fc1_weight = &t[W1];
    s->forward.linear_fc1_bias = &t[B1];
    s->forward.linear_fc2_weight = &t[W2];
    s->forward.per_token_scale = &t[SCALE];
    s->forward.output = &t[OUTPUT];
    s->forward.saved = s->saved;
    s->forward.scratch = s->scratch;
    s->forward.saved_bytes = s->forward_memory.saved_bytes;
    s->forward.scratch_bytes = s->forward_memory.scratch_bytes;

    s->dgrad = (mmlp_dgrad_args)MMLP_DGRAD_ARGS_INIT;
    s->dgrad.grad_output = &t[DY];
    s->dgrad.hidden_states = &t[X];
    s->dgrad.linear_fc1_weight = &t[W1];
    s->dgrad.linear_fc1_bias = &t[B1];
    s->dgrad.linear_fc2_weight = &t[W2];
    s->dgrad.per_token_scale = &t[SCALE];
    s->dgrad.grad_hidden_states = &t[DX];
    s->dgrad.grad_per_token_scale = &t[DSCALE];
    s->dgrad.grad_linear_fc1_weight = &t[DW1];
    s->dgrad.grad_linear_fc1_bias = &t[DB1];
    s->dgrad.grad_linear_fc2_weight = &t[DW2];
    s->dgrad.grad_linear_fc2_bias = &t[DB2];
    s->dgrad.saved = s->saved;
    s->dgrad.pending = s->pending[0];
    s->dgrad.scratch = s->dgrad_scratch;
    s->dgrad.saved_bytes = s->dgrad_memory.saved_bytes;
    s->dgrad.pending_bytes = s->dgrad_memory.pending_bytes;
    s->dgrad.scratch_bytes = s->dgrad_memory.scratch_bytes;
    return s;
}

made_step *step_start_backward(bool delayed, int wgrad_depth)
{
    made_bundle made = made_start();
    made_add_backward(&made, delayed);
    return step_start(made, wgrad_depth);
}

void step_finish(made_step *s)
{
    for (int i = 0; i < MADE_TENSORS; i++) {
        mmlp_buffer_free(s->context, s->tensors[i].data);
        free(s->host[i]);
    }
    mmlp_buffer_free(s->context, s->saved);
    mmlp_buffer_free(s->context, s->scratch);
    mmlp_buffer_free(s->context, s->dgrad_scratch);
    for (int i = 0; i < MADE_DEPTH; i++)
        mmlp_buffer_free(s->context, s->pending[i]);
    mmlp_mlp_unload(s->mlp);
    mmlp_context_destroy(s->context);
    mmlp_bundle_close(s->bundle);
    made_free(&s->made);
    free(s);
}

void step_download(const made_step *s, int tensor, float *out)
{
    cr_assert_eq(mmlp_buffer_download(s->context, out, s->tensors[tensor].data,
                                      (size_t)made_elements(tensor) * sizeof *out, NULL),
                 MMLP_OK, "%s", mmlp_last_error());
}

void step_fill(const made_step *s, int tensor, float value)
{
    float *values = malloc((size_t)made_elements(tensor) * sizeof *values);
    for (int64_t i = 0; i < made_elements(tensor); i++)
        values[i] = value;
    upload(s, tensor, values);
    free(values);
}

void step_fill_gradients(const made_step *s, float value)
{
    for (int i = DX; i < MADE_TENSORS; i++)
        step_fill(s, i, value);
}

void step_forward(made_step *s)
{
    cr_assert_eq(mmlp_mlp_forward(s->mlp, &s->forward, NULL), MMLP_OK, "%s", mmlp_last_error());
}

void step_dgrad(made_step *s)
{
    cr_assert_eq(mmlp_mlp_dgrad(s->mlp, &s->dgrad, NULL), MMLP_OK, "%s", mmlp_last_error());
}

void step_backward_dw(made_step *s)
{
    cr_assert_eq(mmlp_mlp_backward_dw(s->mlp, NULL), MMLP_OK, "%s", mmlp_last_error());
}

void step_expect_forward(made_step *s, mmlp_status status, const char *line)
{
    cr_expect_eq(mmlp_mlp_forward(s->mlp, &s->forward, NULL), status);
    cr_expect_str_eq(mmlp_last_error(), line);
}

void step_expect_dgrad(made_step *s, mmlp_status status, const char *line)
{
    cr_expect_eq(mmlp_mlp_dgrad(s->mlp, &s->dgrad, NULL), status);
    cr_expect_str_eq(mmlp_last_error(), line);
}
