/* backward_arguments.c: what dgrad refuses, and with which words. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "made_step.h"

Test(dgrad, memory_is_told_for_each_pass)
{
    enum { DZ = MADE_TOKENS * 80 * 4, ACTIVATION = MADE_TOKENS * 40 * 4, PAIRS = 3 * 80 * 4 };
    static const struct {
        bool delayed;
        mmlp_pass pass;
        size_t saved, pending, scratch;
    } cases[] = {
        {false, MMLP_PASS_FORWARD, DZ, 0, ACTIVATION},
        {false, MMLP_PASS_DGRAD, DZ, 0, 1792 + 1024 + 1024 + PAIRS},
        {false, MMLP_PASS_BACKWARD_DW, 0, 0, 0},
        {true, MMLP_PASS_FORWARD, DZ, 0, ACTIVATION},
        {true, MMLP_PASS_DGRAD, DZ, 1792 + ACTIVATION, 1024 + PAIRS},
        {true, MMLP_PASS_BACKWARD_DW, 0, 1792 + ACTIVATION, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        made_step *s = step_start_backward(cases[i].delayed, 0);
        mmlp_memory memory = MMLP_MEMORY_INIT;
        cr_assert_eq(mmlp_mlp_memory(s->mlp, cases[i].pass, MADE_TOKENS, &memory), MMLP_OK);
        cr_expect_eq(memory.saved_bytes, cases[i].saved, "case %zu", i);
        cr_expect_eq(memory.pending_bytes, cases[i].pending, "case %zu", i);
        cr_expect_eq(memory.scratch_bytes, cases[i].scratch, "case %zu", i);
        for (int64_t tokens = 1, before = 0; tokens < 40; tokens++) {
            mmlp_mlp_memory(s->mlp, cases[i].pass, tokens, &memory);
            int64_t all =
                (int64_t)(memory.saved_bytes + memory.pending_bytes + memory.scratch_bytes);
            cr_expect_geq(all, before, "fewer tokens need more");
            before = all;
        }
        step_finish(s);
    }
    made_step *s = step_start_backward(true, 0);
    mmlp_memory memory = MMLP_MEMORY_INIT;
    cr_expect_eq(mmlp_mlp_memory(s->mlp, (mmlp_pass)3, 1, &memory), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(), "mmlp_mlp_memory: pass: found 3, wanted 0 to 2");
    mmlp_buffer_view view = MMLP_BUFFER_VIEW_INIT;
    cr_expect_eq(mmlp_mlp_buffer(s->mlp, "recomputed_activation", MADE_TOKENS, &view), MMLP_OK);
    cr_expect_eq(view.lifetime, MMLP_LIFETIME_PENDING);
    cr_expect_eq(view.offset, 1792);
    cr_expect_eq(mmlp_mlp_buffer(s->mlp, "bias_pairs", MADE_TOKENS, &view), MMLP_OK);
    cr_expect_eq(view.offset, 1024);
    cr_expect_eq(view.shape[0], 3);
    cr_expect_eq(view.bytes, PAIRS);
    step_finish(s);
}

Test(dgrad, a_bundle_without_its_kernels_says_so)
{
    made_step *s = step_start(made_start(), 0);
    char line[256];
    mmlp_device_properties device = MMLP_DEVICE_PROPERTIES_INIT;
    mmlp_context_properties(s->context, &device);
    snprintf(line, sizeof line,
             "made: it has no dgrad kernels for %s: only its forward pass can run", device.arch);
    step_forward(s);
    step_expect_dgrad(s, MMLP_ERROR_UNSUPPORTED, line);
    cr_expect_eq(mmlp_mlp_backward_dw(s->mlp, NULL), MMLP_OK);
    step_finish(s);
}

/* ---- tensors -------------------------------------------------------------------------------- */

Test(dgrad, a_missing_or_surplus_tensor_is_named)
{
    made_step *s = step_start_backward(false, 0);
    step_forward(s);
    static const struct {
        size_t member;
        const char *line;
    } missing[] = {
        {offsetof(mmlp_dgrad_args, grad_output),
         "grad_output: NULL was given, wanted fp32 [5, 24]"},
        {offsetof(mmlp_dgrad_args, hidden_states),
         "hidden_states: NULL was given, wanted fp32 [tokens, 24]"},
        {offsetof(mmlp_dgrad_args, linear_fc1_weight),
         "linear_fc1.weight: NULL was given, wanted fp32 [80, 24]"},
        {offsetof(mmlp_dgrad_args, linear_fc1_bias),
         "linear_fc1.bias: NULL was given, wanted fp32 [80]"},
        {offsetof(mmlp_dgrad_args, linear_fc2_weight),
         "linear_fc2.weight: NULL was given, wanted fp32 [24, 40]"},
        {offsetof(mmlp_dgrad_args, per_token_scale),
         "per_token_scale: NULL was given, wanted fp32 [5]"},
        {offsetof(mmlp_dgrad_args, grad_hidden_states),
         "grad.hidden_states: NULL was given, wanted fp32 [5, 24]"},
        {offsetof(mmlp_dgrad_args, grad_per_token_scale),
         "grad.per_token_scale: NULL was given, wanted fp32 [5]"},
        {offsetof(mmlp_dgrad_args, grad_linear_fc1_weight),
         "grad.linear_fc1.weight: NULL was given, wanted fp32 [80, 24]"},
        {offsetof(mmlp_dgrad_args, grad_linear_fc1_bias),
         "grad.linear_fc1.bias: NULL was given, wanted fp32 [80]"},
        {offsetof(mmlp_dgrad_args, grad_linear_fc2_weight),
         "grad.linear_fc2.weight: NULL was given, wanted fp32 [24, 40]"},
    };
    const mmlp_dgrad_args right = s->dgrad;
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++) {
        memset((char *)&s->dgrad + missing[i].member, 0, sizeof(void *));
        step_expect_dgrad(s, MMLP_ERROR_ARGUMENT, missing[i].line);
        s->dgrad = right;
    }
    s->dgrad.linear_fc2_bias = &s->tensors[DB2];
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT,
                      "linear_fc2.bias: a tensor was given, but made takes none: pass NULL");
    step_finish(s);
}

Test(dgrad, a_wrong_shape_type_device_or_layout_is_told)
{
    made_step *s = step_start_backward(false, 0);
    step_forward(s);
    s->shapes[DY][0] = 4;
    step_expect_dgrad(s, MMLP_ERROR_SHAPE, "grad_output: found the shape [4, 24], wanted [5, 24]");
    s->shapes[DY][0] = 5;
    s->shapes[X][0] = 1001;
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT,
                      "tokens: found 1001, this mlp was loaded for 0 to 1000 (max_tokens)");
    s->shapes[X][0] = 5;
    s->shapes[DW2][1] = 39;
    step_expect_dgrad(s, MMLP_ERROR_SHAPE,
                      "grad.linear_fc2.weight: found the shape [24, 39], wanted [24, 40]");
    s->shapes[DW2][1] = 40;
    s->tensors[DB1].dtype.bits = 16;
    step_expect_dgrad(s, MMLP_ERROR_SHAPE, "grad.linear_fc1.bias: found fp16, wanted fp32");
    s->tensors[DB1].dtype.bits = 32;
    s->tensors[DX].device.device_type = MMLP_DEVICE_CPU;
    step_expect_dgrad(s, MMLP_ERROR_SHAPE,
                      "grad.hidden_states: found it on the host, wanted it on CUDA device 0");
    s->tensors[DX].device.device_type = MMLP_DEVICE_CUDA;
    int64_t strides[2] = {1, 5};
    s->tensors[DX].strides = strides;
    step_expect_dgrad(s, MMLP_ERROR_SHAPE,
                      "grad.hidden_states: found the strides [1, 5], wanted a contiguous row-major "
                      "tensor");
    s->tensors[DX].strides = NULL;
    s->tensors[DX].byte_offset = 8;
    char line[128];
    snprintf(line, sizeof line,
             "grad.hidden_states: found it at address 0x%llx, wanted a multiple of 16 bytes",
             (unsigned long long)(uintptr_t)s->tensors[DX].data + 8);
    step_expect_dgrad(s, MMLP_ERROR_SHAPE, line);
    s->tensors[DX].byte_offset = 0;
    s->dgrad.beta = 2;
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT, "beta: found 2, wanted 0 or 1");
    s->dgrad.beta = -1;
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT, "beta: found -1, wanted 0 or 1");
    s->dgrad.beta = 0;
    step_dgrad(s);
    cr_expect_eq(mmlp_mlp_dgrad(s->mlp, NULL, NULL), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(), "mmlp_dgrad_args: NULL was given");
    cr_expect_eq(mmlp_mlp_dgrad(NULL, &s->dgrad, NULL), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(), "mmlp_mlp_dgrad: mlp is NULL");
    step_finish(s);
}

/* The gradients of a bf16 MLP: which types its weight and bias gradients may have. */
Test(dgrad, the_types_of_gradients_follow_the_fusion_and_the_tensor)
{
    for (int fusion = 0; fusion < 2; fusion++) {
        made_bundle made = made_start();
        made_add_backward(&made, false);
        json_t *mlp = json_object_get(made.manifest, "mlp");
        json_object_set_new(mlp, "params_dtype", json_string("bf16"));
        json_object_set_new(mlp, "gradient_accumulation_fusion", json_boolean(fusion));
        made_step *s = step_start(made, 0);
        for (int i = 0; i < MADE_TENSORS; i++) {
            if (i == SCALE || i == DSCALE || i == DB1)
                continue;
            s->tensors[i].dtype.code = MMLP_TYPE_BFLOAT;
            s->tensors[i].dtype.bits = 16;
        }
        step_forward(s);
        if (fusion) {
            step_expect_dgrad(s, MMLP_ERROR_SHAPE,
                              "grad.linear_fc1.weight: found bf16, wanted fp32");
            s->tensors[DW1].dtype = s->tensors[DW2].dtype = s->tensors[SCALE].dtype;
        }
        step_dgrad(s);
        s->tensors[DB2].dtype.code = MMLP_TYPE_FLOAT;
        step_expect_dgrad(s, MMLP_ERROR_SHAPE,
                          "grad.linear_fc2.bias: found fp16, wanted bf16 or fp32");
        s->tensors[DB2].dtype.bits = 32;
        if (!fusion) {
            s->tensors[DW1].dtype = s->tensors[SCALE].dtype;
            step_expect_dgrad(s, MMLP_ERROR_SHAPE,
                              "grad.linear_fc1.weight: found fp32, wanted bf16");
        }
        mmlp_stream_sync(s->context, NULL);
        step_finish(s);
    }
}

/* ---- buffers -------------------------------------------------------------------------------- */

Test(dgrad, memory_that_is_missing_small_or_misaligned_is_told)
{
    made_step *s = step_start_backward(true, 0);
    step_forward(s);
    const mmlp_dgrad_args right = s->dgrad;
    s->dgrad.scratch_bytes = 100;
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT,
                      "scratch: 100 bytes were given, wanted 1984 for 5 tokens");
    s->dgrad = right;
    s->dgrad.pending = NULL;
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT,
                      "pending: NULL was given, wanted 2592 bytes of device memory for 5 tokens");
    s->dgrad = right;
    s->dgrad.saved = NULL;
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT,
                      "saved: NULL was given, wanted 1600 bytes of device memory for 5 tokens");
    s->dgrad = right;
    char line[256];
    s->dgrad.pending = (char *)right.pending + 8;
    snprintf(line, sizeof line, "pending: found it at address %p, wanted a multiple of 16 bytes",
             s->dgrad.pending);
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT, line);
    s->dgrad = right;
    step_dgrad(s);
    step_finish(s);
}

Test(dgrad, memory_of_the_host_or_of_another_device_is_told)
{
    setenv("MMLP_EMULATOR_DEVICE", "a100:2", 1);
    made_step *s = step_start_backward(true, 0);
    step_forward(s);
    char line[256];
    s->dgrad.scratch = aligned_alloc(16, 4096);
    snprintf(line, sizeof line,
             "scratch: found address %p, which the device does not know, wanted memory of CUDA "
             "device 0",
             s->dgrad.scratch);
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT, line);
    free(s->dgrad.scratch);

    mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
    options.device = 1;
    options.cache_dir = "";
    mmlp_context *other = NULL;
    cr_assert_eq(mmlp_context_create(&other, &options), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(mmlp_buffer_alloc(&s->dgrad.scratch, other, 4096), MMLP_OK);
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT,
                      "scratch: found memory of CUDA device 1, wanted memory of CUDA device 0");
    s->forward.scratch = s->dgrad.scratch;
    step_expect_forward(s, MMLP_ERROR_ARGUMENT,
                        "scratch: found memory of CUDA device 1, wanted memory of CUDA device 0");
    mmlp_buffer_free(other, s->dgrad.scratch);
    mmlp_context_destroy(other);
    step_finish(s);
}

Test(dgrad, what_is_written_overlaps_nothing_else)
{
    made_step *s = step_start_backward(true, 0);
    step_forward(s);
    void *dx = s->tensors[DX].data, *dw1 = s->tensors[DW1].data;
    s->tensors[DX].data = s->tensors[DY].data;
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT,
                      "grad.hidden_states: found it overlapping grad_output, wanted memory of its "
                      "own");
    s->tensors[DX].data = dx;
    s->tensors[DW1].data = s->tensors[DB1].data;
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT,
                      "grad.linear_fc1.weight: found it overlapping grad.linear_fc1.bias, wanted "
                      "memory of its own");
    s->tensors[DW1].data = dw1;
    s->dgrad.pending = s->saved;
    s->dgrad.pending_bytes = 2592;
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT,
                      "pending: found it overlapping saved, wanted memory of its own");
    s->dgrad.pending = s->pending[0];
    s->dgrad.scratch = (char *)s->pending[0] + 2592 - 16;
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT,
                      "scratch: found it overlapping pending, wanted memory of its own");
    s->dgrad.scratch = s->dgrad_scratch;
    step_dgrad(s);
    step_finish(s);
}

/* ---- calls before ---------------------------------------------------------------------------- */

Test(dgrad, what_a_waiting_call_needs_may_not_be_written)
{
    made_step *s = step_start_backward(true, MADE_DEPTH);
    step_forward(s);
    step_dgrad(s);
    s->dgrad.pending = s->pending[1];
    step_dgrad(s);
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT,
                      "pending: found it overlapping pending of a dgrad call that waits for "
                      "mmlp_mlp_backward_dw (2 of 2), wanted memory of its own");
    s->dgrad.pending = s->pending[0];
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT,
                      "pending: found it overlapping pending of a dgrad call that waits for "
                      "mmlp_mlp_backward_dw (1 of 2), wanted memory of its own");
    s->dgrad.pending = s->pending[2];

    /* Other inputs, and the waiting ones as destinations. */
    mmlp_tensor x = s->tensors[X], dy = s->tensors[DY];
    void *fresh[2];
    for (int i = 0; i < 2; i++)
        cr_assert_eq(mmlp_buffer_alloc(&fresh[i], s->context, 480), MMLP_OK);
    x.data = fresh[0];
    dy.data = fresh[1];
    s->dgrad.hidden_states = &x;
    s->dgrad.grad_output = &dy;
    s->dgrad.grad_hidden_states = &s->tensors[X];
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT,
                      "grad.hidden_states: found it overlapping hidden_states of a dgrad call that "
                      "waits for mmlp_mlp_backward_dw (1 of 2), wanted memory of its own");
    s->dgrad.grad_hidden_states = &s->tensors[DY];
    step_expect_dgrad(s, MMLP_ERROR_ARGUMENT,
                      "grad.hidden_states: found it overlapping grad_output of a dgrad call that "
                      "waits for mmlp_mlp_backward_dw (1 of 2), wanted memory of its own");
    s->forward.output = &s->tensors[DY];
    step_expect_forward(s, MMLP_ERROR_ARGUMENT,
                        "output: found it overlapping grad_output of a dgrad call that waits for "
                        "mmlp_mlp_backward_dw (1 of 2), wanted memory of its own");
    step_backward_dw(s);
    step_backward_dw(s);
    cr_assert_eq(mmlp_mlp_fill_normal(s->mlp, &x, 1, 1, NULL), MMLP_OK);
    cr_assert_eq(mmlp_mlp_fill_normal(s->mlp, &dy, 1, 1, NULL), MMLP_OK);
    step_dgrad(s);
    for (int i = 0; i < 2; i++)
        mmlp_buffer_free(s->context, fresh[i]);
    step_finish(s);
}

Test(dgrad, saved_memory_that_no_forward_has_written_is_refused)
{
    made_step *s = step_start_backward(false, 0);
    char line[256];
    snprintf(
        line, sizeof line,
        "saved: no forward pass of this mlp has written to 0x%llx, or a later call has written "
        "over it: call mmlp_mlp_forward with this `saved` first",
        (unsigned long long)(uintptr_t)s->saved);
    step_expect_dgrad(s, MMLP_ERROR_ORDER, line);
    s->forward.saved = NULL; /* inference saves nothing */
    step_forward(s);
    step_expect_dgrad(s, MMLP_ERROR_ORDER, line);
    s->forward.saved = s->saved;
    step_forward(s);
    step_dgrad(s);
    step_dgrad(s);
    int tokens_of[] = {X, SCALE, DY, DX, DSCALE};
    for (int i = 0; i < 5; i++)
        s->shapes[tokens_of[i]][0] = 3;
    step_expect_dgrad(s, MMLP_ERROR_SHAPE,
                      "saved: the forward pass that wrote it had 5 tokens, found 3");
    s->shapes[OUTPUT][0] = 3;
    step_forward(s); /* writes over it */
    step_dgrad(s);
    step_finish(s);
}

Test(dgrad, saved_memory_that_a_later_call_has_written_over_is_refused)
{
    made_step *s = step_start_backward(true, 0);
    void *other = NULL;
    cr_assert_eq(mmlp_buffer_alloc(&other, s->context, 2048), MMLP_OK); /* saved, or scratch */
    step_forward(s);
    s->forward.scratch = s->saved;
    s->forward.saved = other;
    step_forward(s);
    cr_expect_eq(mmlp_mlp_dgrad(s->mlp, &s->dgrad, NULL), MMLP_ERROR_ORDER);
    s->forward.scratch = s->scratch;
    s->forward.saved = s->saved;
    step_forward(s);
    s->dgrad.scratch = other; /* saved by the second forward pass */
    step_dgrad(s);
    step_backward_dw(s);
    s->dgrad.scratch = s->dgrad_scratch;
    s->dgrad.saved = other;
    cr_expect_eq(mmlp_mlp_dgrad(s->mlp, &s->dgrad, NULL), MMLP_ERROR_ORDER);
    mmlp_buffer_free(s->context, other);
    step_finish(s);
}
