/* forward_arguments.c: what a forward pass refuses, with which words, and what it computes. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "made_step.h"

static made_step *start(void)
{
    return step_start(made_start(), 0);
}

Test(forward, memory_is_told_exactly)
{
    made_step *s = start();
    mmlp_memory memory = MMLP_MEMORY_INIT;
    cr_expect_eq(mmlp_mlp_memory(s->mlp, MMLP_PASS_FORWARD, MADE_TOKENS, &memory), MMLP_OK);
    cr_expect_eq(memory.saved_bytes, MADE_TOKENS * 80 * 4);
    cr_expect_eq(memory.scratch_bytes, MADE_TOKENS * 40 * 4);
    cr_expect_eq(mmlp_mlp_memory(s->mlp, MMLP_PASS_FORWARD, 0, &memory), MMLP_OK);
    cr_expect_eq(memory.saved_bytes, 0);
    cr_expect_eq(mmlp_mlp_memory(s->mlp, MMLP_PASS_FORWARD, 1001, &memory), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(),
                     "tokens: found 1001, this mlp was loaded for 0 to 1000 (max_tokens)");
    mmlp_buffer_view view = MMLP_BUFFER_VIEW_INIT;
    cr_expect_eq(mmlp_mlp_buffer(s->mlp, "fc1_output", MADE_TOKENS, &view), MMLP_OK);
    cr_expect_eq(view.lifetime, MMLP_LIFETIME_SAVED);
    cr_expect_eq(view.offset, 0);
    cr_expect_eq(view.bytes, MADE_TOKENS * 80 * 4);
    cr_expect_eq(view.shape[0], MADE_TOKENS);
    cr_expect_eq(view.shape[1], 80);
    cr_expect_str_eq(view.dtype, "fp32");
    cr_expect_eq(mmlp_mlp_buffer(s->mlp, "other", MADE_TOKENS, &view), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(), "mmlp_mlp_buffer: made has no buffer \"other\"");
    step_finish(s);
}

Test(forward, a_missing_tensor_is_named_with_what_it_must_be)
{
    made_step *s = start();
    s->forward.linear_fc1_bias = NULL;
    step_expect_forward(s, MMLP_ERROR_ARGUMENT,
                        "linear_fc1.bias: NULL was given, wanted fp32 [80]");
    s->forward.hidden_states = NULL;
    step_expect_forward(s, MMLP_ERROR_ARGUMENT,
                        "hidden_states: NULL was given, wanted fp32 [tokens, 24]");
    step_finish(s);
}

Test(forward, a_tensor_that_the_mlp_does_not_take_is_refused)
{
    made_step *s = start();
    s->forward.linear_fc2_bias = &s->tensors[B1];
    step_expect_forward(s, MMLP_ERROR_ARGUMENT,
                        "linear_fc2.bias: a tensor was given, but made takes none: pass NULL");
    step_finish(s);
}

Test(forward, a_wrong_shape_is_told)
{
    made_step *s = start();
    s->shapes[W1][0] = 40;
    step_expect_forward(s, MMLP_ERROR_SHAPE,
                        "linear_fc1.weight: found the shape [40, 24], wanted [80, 24]");
    s->shapes[W1][0] = 80;
    s->tensors[SCALE].ndim = 2;
    s->shapes[SCALE][1] = 1;
    step_expect_forward(s, MMLP_ERROR_SHAPE, "per_token_scale: found the shape [5, 1], wanted [5]");
    s->tensors[SCALE].ndim = 1;
    s->tensors[X].ndim = 1000000;
    step_expect_forward(s, MMLP_ERROR_SHAPE,
                        "hidden_states: found the shape 1000000 dimensions, wanted [tokens, 24]");
    s->tensors[X].ndim = 2;
    s->shapes[X][0] = -3;
    step_expect_forward(s, MMLP_ERROR_SHAPE,
                        "hidden_states: found the shape [-3, 24], wanted [tokens, 24]");
    s->shapes[X][0] = INT64_MAX;
    step_expect_forward(s, MMLP_ERROR_ARGUMENT,
                        "tokens: found 9223372036854775807, this mlp was loaded for 0 to 1000 "
                        "(max_tokens)");
    step_finish(s);
}

Test(forward, a_wrong_type_device_or_layout_is_told)
{
    made_step *s = start();
    s->tensors[W2].dtype.code = MMLP_TYPE_BFLOAT;
    s->tensors[W2].dtype.bits = 16;
    step_expect_forward(s, MMLP_ERROR_SHAPE, "linear_fc2.weight: found bf16, wanted fp32");
    s->tensors[W2].dtype.lanes = 4;
    step_expect_forward(s, MMLP_ERROR_SHAPE,
                        "linear_fc2.weight: found DLPack type (code 4, 16 bits, 4 "
                        "lanes), wanted fp32");
    s->tensors[W2].dtype.lanes = 1;
    s->tensors[W2].dtype.code = MMLP_TYPE_FLOAT;
    s->tensors[W2].dtype.bits = 32;
    s->tensors[W2].device.device_type = MMLP_DEVICE_CPU;
    step_expect_forward(s, MMLP_ERROR_SHAPE,
                        "linear_fc2.weight: found it on the host, wanted it on CUDA device 0");
    s->tensors[W2].device.device_type = MMLP_DEVICE_CUDA;
    s->tensors[W2].device.device_id = 2;
    step_expect_forward(s, MMLP_ERROR_SHAPE,
                        "linear_fc2.weight: found it on CUDA device 2, wanted it on CUDA device 0");
    s->tensors[W2].device.device_id = 0;
    int64_t strides[2] = {1, MADE_HIDDEN};
    s->tensors[W2].strides = strides;
    step_expect_forward(s, MMLP_ERROR_SHAPE,
                        "linear_fc2.weight: found the strides [1, 24], wanted a "
                        "contiguous row-major tensor");
    strides[0] = MADE_FFN;
    strides[1] = 1;
    cr_expect_eq(mmlp_mlp_forward(s->mlp, &s->forward, NULL), MMLP_OK, "%s", mmlp_last_error());
    s->tensors[W2].byte_offset = 4;
    cr_expect_eq(mmlp_mlp_forward(s->mlp, &s->forward, NULL), MMLP_ERROR_SHAPE);
    cr_expect(strstr(mmlp_last_error(), "linear_fc2.weight: found it at address 0x"));
    cr_expect(strstr(mmlp_last_error(), ", wanted a multiple of 16 bytes"));
    step_finish(s);
}

Test(forward, a_saved_activation_cannot_be_left_out)
{
    made_bundle made = made_start();
    json_t *activation = json_array_get(json_object_get(made.manifest, "buffers"), 1);
    json_object_set_new(activation, "lifetime", json_string("saved"));
    made_step *s = step_start(made, 0);
    cr_expect_eq(mmlp_mlp_forward(s->mlp, &s->forward, NULL), MMLP_OK, "%s", mmlp_last_error());
    s->forward.saved = NULL;
    step_expect_forward(s, MMLP_ERROR_ARGUMENT,
                        "saved: NULL was given, wanted 2592 bytes of device memory for 5 tokens: "
                        "activation_output is kept there (save_activation)");
    cr_expect_eq(mmlp_stream_sync(s->context, NULL), MMLP_OK);
    step_finish(s);
}

Test(forward, memory_that_is_missing_or_too_small_is_told_with_its_size)
{
    made_step *s = start();
    s->forward.scratch_bytes = 100;
    step_expect_forward(s, MMLP_ERROR_ARGUMENT,
                        "scratch: 100 bytes were given, wanted 800 for 5 tokens");
    s->forward.saved_bytes = 1599;
    step_expect_forward(s, MMLP_ERROR_ARGUMENT,
                        "saved: 1599 bytes were given, wanted 1600 for 5 tokens");
    s->forward.saved_bytes = 1600;
    s->forward.scratch = NULL;
    step_expect_forward(s, MMLP_ERROR_ARGUMENT,
                        "scratch: NULL was given, wanted 800 bytes of device memory for 5 tokens");
    step_finish(s);
}

Test(forward, what_is_written_overlaps_nothing_else)
{
    made_step *s = start();
    void *output = s->tensors[OUTPUT].data, *arena = NULL;
    cr_assert_eq(mmlp_buffer_alloc(&arena, s->context, 4096), MMLP_OK);
    s->tensors[OUTPUT].data = s->tensors[X].data;
    step_expect_forward(s, MMLP_ERROR_ARGUMENT,
                        "output: found it overlapping hidden_states, wanted memory of its own");
    s->forward.scratch = arena;
    s->forward.scratch_bytes = 4096; /* of which 800 are used */
    s->tensors[OUTPUT].data = (char *)arena + 784;
    step_expect_forward(s, MMLP_ERROR_ARGUMENT,
                        "output: found it overlapping scratch, wanted memory of its own");
    s->tensors[OUTPUT].data = (char *)arena + 800;
    step_forward(s);
    s->forward.saved = s->tensors[W1].data;
    step_expect_forward(s, MMLP_ERROR_ARGUMENT,
                        "saved: found it overlapping linear_fc1.weight, wanted memory of its own");
    cr_expect_eq(mmlp_stream_sync(s->context, NULL), MMLP_OK, "%s", mmlp_last_error());
    mmlp_buffer_free(s->context, arena);
    s->tensors[OUTPUT].data = output;
    step_finish(s);
}

Test(forward, no_tokens_launch_nothing_and_need_no_memory)
{
    made_step *s = start();
    int tokens_of[] = {X, SCALE, OUTPUT};
    for (int i = 0; i < 3; i++) {
        s->shapes[tokens_of[i]][0] = 0;
        mmlp_buffer_free(s->context, s->tensors[tokens_of[i]].data);
        s->tensors[tokens_of[i]].data = NULL;
    }
    s->forward.saved = s->forward.scratch = NULL;
    cr_expect_eq(mmlp_mlp_forward(s->mlp, &s->forward, NULL), MMLP_OK, "%s", mmlp_last_error());
    cr_expect_eq(mmlp_stream_sync(s->context, NULL), MMLP_OK);
    step_finish(s);
}

static void expect_close(const float *found, const double *wanted, int64_t count, const char *what)
{
    for (int64_t i = 0; i < count; i++)
        cr_assert_float_eq(found[i], wanted[i], 1e-5 * (1 + fabs(wanted[i])), "%s[%d]", what,
                           (int)i);
}

/* Runs the reference on the fixture's host tensors. */
static void reference_of(made_step *s, double *fc1, double *activation, double *output)
{
    mmlp_tensor host[6];
    for (int i = 0; i < 6; i++) {
        host[i] = s->tensors[i];
        host[i].data = s->host[i];
        host[i].device.device_type = MMLP_DEVICE_CPU;
    }
    mmlp_reference_forward_args args = MMLP_REFERENCE_FORWARD_ARGS_INIT;
    args.hidden_states = &host[0];
    args.linear_fc1_weight = &host[1];
    args.linear_fc1_bias = &host[2];
    args.linear_fc2_weight = &host[3];
    args.per_token_scale = &host[4];
    args.fc1_output = fc1;
    args.activation_output = activation;
    args.output = output;
    cr_assert_eq(mmlp_bundle_reference_forward(s->bundle, &args), MMLP_OK, "%s", mmlp_last_error());
}

Test(forward, the_device_computes_what_the_reference_does)
{
    made_step *s = start();
    void *stream = NULL;
    cr_assert_eq(mmlp_stream_create(&stream, s->context), MMLP_OK);
    double fc1[MADE_TOKENS * 2 * MADE_FFN], activation[MADE_TOKENS * MADE_FFN],
        output[MADE_TOKENS * MADE_HIDDEN];
    reference_of(s, fc1, activation, output);
    float found[MADE_TOKENS * 2 * MADE_FFN];

    cr_assert_eq(mmlp_mlp_forward(s->mlp, &s->forward, stream), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(mmlp_stream_sync(s->context, stream), MMLP_OK, "%s", mmlp_last_error());
    mmlp_buffer_download(s->context, found, s->saved, sizeof fc1 / 2, stream);
    expect_close(found, fc1, MADE_TOKENS * 2 * MADE_FFN, "fc1_output");
    mmlp_buffer_download(s->context, found, s->scratch, sizeof activation / 2, stream);
    expect_close(found, activation, MADE_TOKENS * MADE_FFN, "activation_output");
    mmlp_buffer_download(s->context, found, s->tensors[OUTPUT].data, sizeof output / 2, stream);
    expect_close(found, output, MADE_TOKENS * MADE_HIDDEN, "output");

    s->forward.saved = NULL; /* inference */
    double ms[3] = {0};
    cr_assert_eq(mmlp_mlp_time_kernels(s->mlp, ms, 3), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(mmlp_mlp_forward(s->mlp, &s->forward, stream), MMLP_OK, "%s", mmlp_last_error());
    cr_expect(ms[0] > 0 && ms[1] > 0 && ms[2] == 0);
    mmlp_buffer_download(s->context, found, s->tensors[OUTPUT].data, sizeof output / 2, stream);
    expect_close(found, output, MADE_TOKENS * MADE_HIDDEN, "output of inference");
    cr_expect_eq(mmlp_mlp_time_kernels(s->mlp, ms, 1), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(),
                     "mmlp_mlp_time_kernels: room for 1 times was given, wanted 3");
    double once = ms[0];
    cr_assert_eq(mmlp_mlp_time_kernels(s->mlp, NULL, 0), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(mmlp_mlp_forward(s->mlp, &s->forward, stream), MMLP_OK, "%s", mmlp_last_error());
    cr_expect_eq(ms[0], once);
    mmlp_stream_destroy(s->context, stream);
    step_finish(s);
}

Test(forward, fill_normal_hands_over_its_numbers)
{
    made_step *s = start();
    float found[MADE_TOKENS * MADE_HIDDEN];
    cr_assert_eq(mmlp_mlp_fill_normal(s->mlp, &s->tensors[OUTPUT], 0.5, 100, NULL), MMLP_OK, "%s",
                 mmlp_last_error());
    cr_assert_eq(
        mmlp_buffer_download(s->context, found, s->tensors[OUTPUT].data, sizeof found, NULL),
        MMLP_OK, "%s", mmlp_last_error());
    for (int i = 0; i < MADE_TOKENS * MADE_HIDDEN; i++)
        cr_assert_float_eq(found[i], 0.5 * (100 + i), 1e-6);
    cr_expect_eq(mmlp_mlp_fill_normal(s->mlp, &s->tensors[OUTPUT], NAN, 1, NULL),
                 MMLP_ERROR_ARGUMENT);
    cr_expect_eq(mmlp_mlp_fill_normal(s->mlp, NULL, 1, 1, NULL), MMLP_ERROR_ARGUMENT);
    s->shapes[OUTPUT][0] = INT64_MAX;
    cr_expect_eq(mmlp_mlp_fill_normal(s->mlp, &s->tensors[OUTPUT], 1, 1, NULL), MMLP_ERROR_SHAPE);
    s->shapes[OUTPUT][0] = MADE_TOKENS;
    s->tensors[OUTPUT].dtype.bits = 64;
    cr_expect_eq(mmlp_mlp_fill_normal(s->mlp, &s->tensors[OUTPUT], 1, 1, NULL), MMLP_ERROR_SHAPE);
    cr_expect_str_eq(mmlp_last_error(), "destination: found fp64, wanted fp32");
    step_finish(s);
}

Test(forward, a_fault_is_told_by_the_next_sync_with_the_whole_report)
{
    made_step *s = start();
    s->tensors[OUTPUT].byte_offset = (uint64_t)1 << 30; /* far behind the tensor */
    cr_expect_eq(mmlp_mlp_forward(s->mlp, &s->forward, NULL), MMLP_OK);
    cr_expect_eq(mmlp_stream_sync(s->context, NULL), MMLP_ERROR_DEVICE);
    cr_expect(strstr(mmlp_last_error(), "cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS: an "
                                        "illegal memory access was encountered\n"),
              "%s", mmlp_last_error());
    cr_expect(strstr(mmlp_last_error(), "made_fc2"), "%s", mmlp_last_error());
    step_finish(s);
}
