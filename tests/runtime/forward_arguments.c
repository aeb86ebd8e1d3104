/* forward_arguments.c: what a forward pass refuses, with which words, and what it computes. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "made_bundle.h"

enum { TOKENS = 5, TENSORS = 6 };

/* A loaded mlp with device tensors for TOKENS tokens. */
typedef struct fixture {
    made_bundle made;
    char *cache;
    mmlp_bundle *bundle;
    mmlp_context *context;
    mmlp_mlp *mlp;
    int64_t shapes[TENSORS][2];
    mmlp_tensor tensors[TENSORS]; /* hidden_states, fc1 weight, bias, fc2 weight, scale, output */
    float *host[TENSORS];
    void *saved, *scratch;
    mmlp_forward_args args;
} fixture;

static const int64_t shapes[TENSORS][2] = {{TOKENS, MADE_HIDDEN}, {2 * MADE_FFN, MADE_HIDDEN},
                                           {2 * MADE_FFN, 0},     {MADE_HIDDEN, MADE_FFN},
                                           {TOKENS, 0},           {TOKENS, MADE_HIDDEN}};

static int64_t elements_of(int tensor)
{
    return shapes[tensor][0] * (shapes[tensor][1] ? shapes[tensor][1] : 1);
}

/* A fixture whose activation_output has this lifetime. */
static fixture *start_with(const char *lifetime)
{
    fixture *f = calloc(1, sizeof *f);
    f->made = made_start();
    json_t *activation = json_array_get(json_object_get(f->made.manifest, "buffers"), 1);
    json_object_set_new(activation, "lifetime", json_string(lifetime));
    made_write(&f->made);
    cr_assert_eq(mmlp_bundle_open(&f->bundle, f->made.folder), MMLP_OK, "%s", mmlp_last_error());
    f->cache = make_temporary_folder();
    f->context = open_context(NULL, f->cache, NULL);
    mmlp_mlp_options options = MMLP_MLP_OPTIONS_INIT;
    options.max_tokens = 1000;
    cr_assert_eq(mmlp_mlp_load(&f->mlp, f->context, f->bundle, &options), MMLP_OK, "%s",
                 mmlp_last_error());
    for (int i = 0; i < TENSORS; i++) {
        size_t bytes = (size_t)elements_of(i) * sizeof(float);
        f->host[i] = malloc(bytes);
        for (int64_t k = 0; k < elements_of(i); k++)
            f->host[i][k] = (float)((k * 37 + i * 11) % 23 - 11) / 16.0f;
        memcpy(f->shapes[i], shapes[i], sizeof shapes[i]);
        f->tensors[i] = (mmlp_tensor){.device = {MMLP_DEVICE_CUDA, 0},
                                      .ndim = shapes[i][1] ? 2 : 1,
                                      .dtype = {MMLP_TYPE_FLOAT, 32, 1},
                                      .shape = f->shapes[i]};
        cr_assert_eq(mmlp_buffer_alloc(&f->tensors[i].data, f->context, bytes), MMLP_OK);
        cr_assert_eq(mmlp_buffer_upload(f->context, f->tensors[i].data, f->host[i], bytes, NULL),
                     MMLP_OK);
    }
    mmlp_memory memory = MMLP_MEMORY_INIT;
    cr_assert_eq(mmlp_mlp_forward_memory(f->mlp, TOKENS, &memory), MMLP_OK);
    cr_assert_eq(mmlp_buffer_alloc(&f->saved, f->context, memory.saved_bytes), MMLP_OK);
    cr_assert_eq(mmlp_buffer_alloc(&f->scratch, f->context, memory.scratch_bytes), MMLP_OK);
    f->args = (mmlp_forward_args)MMLP_FORWARD_ARGS_INIT;
    f->args.hidden_states = &f->tensors[0];
    f->args.linear_fc1_weight = &f->tensors[1];
    f->args.linear_fc1_bias = &f->tensors[2];
    f->args.linear_fc2_weight = &f->tensors[3];
    f->args.per_token_scale = &f->tensors[4];
    f->args.output = &f->tensors[5];
    f->args.saved = f->saved;
    f->args.scratch = f->scratch;
    return f;
}

static fixture *start(void)
{
    return start_with("scratch");
}

static void finish(fixture *f)
{
    for (int i = 0; i < TENSORS; i++) {
        mmlp_buffer_free(f->context, f->tensors[i].data);
        free(f->host[i]);
    }
    mmlp_buffer_free(f->context, f->saved);
    mmlp_buffer_free(f->context, f->scratch);
    mmlp_mlp_unload(f->mlp);
    mmlp_context_destroy(f->context);
    mmlp_bundle_close(f->bundle);
    made_free(&f->made);
    remove_folder(f->cache);
    free(f->cache);
    free(f);
}

static void expect_refused(fixture *f, mmlp_status status, const char *line)
{
    cr_expect_eq(mmlp_mlp_forward(f->mlp, &f->args, NULL), status);
    cr_expect_str_eq(mmlp_last_error(), line);
}

Test(forward, memory_is_told_exactly)
{
    fixture *f = start();
    mmlp_memory memory = MMLP_MEMORY_INIT;
    cr_expect_eq(mmlp_mlp_forward_memory(f->mlp, TOKENS, &memory), MMLP_OK);
    cr_expect_eq(memory.saved_bytes, TOKENS * 80 * 4);
    cr_expect_eq(memory.scratch_bytes, TOKENS * 40 * 4);
    cr_expect_eq(mmlp_mlp_forward_memory(f->mlp, 0, &memory), MMLP_OK);
    cr_expect_eq(memory.saved_bytes, 0);
    cr_expect_eq(mmlp_mlp_forward_memory(f->mlp, 1001, &memory), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(),
                     "tokens: found 1001, this mlp was loaded for 0 to 1000 (max_tokens)");
    mmlp_buffer_view view = MMLP_BUFFER_VIEW_INIT;
    cr_expect_eq(mmlp_mlp_buffer(f->mlp, "fc1_output", TOKENS, &view), MMLP_OK);
    cr_expect_eq(view.lifetime, MMLP_LIFETIME_SAVED);
    cr_expect_eq(view.offset, 0);
    cr_expect_eq(view.bytes, TOKENS * 80 * 4);
    cr_expect_eq(view.shape[0], TOKENS);
    cr_expect_eq(view.shape[1], 80);
    cr_expect_str_eq(view.dtype, "fp32");
    cr_expect_eq(mmlp_mlp_buffer(f->mlp, "other", TOKENS, &view), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(), "mmlp_mlp_buffer: made has no buffer \"other\"");
    finish(f);
}

Test(forward, a_missing_tensor_is_named_with_what_it_must_be)
{
    fixture *f = start();
    f->args.linear_fc1_bias = NULL;
    expect_refused(f, MMLP_ERROR_ARGUMENT, "linear_fc1.bias: NULL was given, wanted fp32 [80]");
    f->args.hidden_states = NULL;
    expect_refused(f, MMLP_ERROR_ARGUMENT,
                   "hidden_states: NULL was given, wanted fp32 [tokens, 24]");
    finish(f);
}

Test(forward, a_tensor_that_the_mlp_does_not_take_is_refused)
{
    fixture *f = start();
    f->args.linear_fc2_bias = &f->tensors[2];
    expect_refused(f, MMLP_ERROR_ARGUMENT,
                   "linear_fc2.bias: a tensor was given, but made takes none: pass NULL");
    finish(f);
}

Test(forward, a_wrong_shape_is_told)
{
    fixture *f = start();
    f->shapes[1][0] = 40;
    expect_refused(f, MMLP_ERROR_SHAPE,
                   "linear_fc1.weight: found the shape [40, 24], wanted [80, 24]");
    f->shapes[1][0] = 80;
    f->tensors[4].ndim = 2;
    f->shapes[4][1] = 1;
    expect_refused(f, MMLP_ERROR_SHAPE, "per_token_scale: found the shape [5, 1], wanted [5]");
    f->tensors[4].ndim = 1;
    f->tensors[0].ndim = 1000000;
    expect_refused(f, MMLP_ERROR_SHAPE,
                   "hidden_states: found the shape 1000000 dimensions, wanted [tokens, 24]");
    f->tensors[0].ndim = 2;
    f->shapes[0][0] = -3;
    expect_refused(f, MMLP_ERROR_SHAPE,
                   "hidden_states: found the shape [-3, 24], wanted [tokens, 24]");
    f->shapes[0][0] = INT64_MAX;
    expect_refused(f, MMLP_ERROR_ARGUMENT,
                   "tokens: found 9223372036854775807, this mlp was loaded for 0 to 1000 "
                   "(max_tokens)");
    finish(f);
}

Test(forward, a_wrong_type_device_or_layout_is_told)
{
    fixture *f = start();
    f->tensors[3].dtype.code = MMLP_TYPE_BFLOAT;
    f->tensors[3].dtype.bits = 16;
    expect_refused(f, MMLP_ERROR_SHAPE, "linear_fc2.weight: found bf16, wanted fp32");
    f->tensors[3].dtype.lanes = 4;
    expect_refused(f, MMLP_ERROR_SHAPE,
                   "linear_fc2.weight: found DLPack type (code 4, 16 bits, 4 "
                   "lanes), wanted fp32");
    f->tensors[3].dtype.lanes = 1;
    f->tensors[3].dtype.code = MMLP_TYPE_FLOAT;
    f->tensors[3].dtype.bits = 32;
    f->tensors[3].device.device_type = MMLP_DEVICE_CPU;
    expect_refused(f, MMLP_ERROR_SHAPE,
                   "linear_fc2.weight: found it on the host, wanted it on CUDA device 0");
    f->tensors[3].device.device_type = MMLP_DEVICE_CUDA;
    f->tensors[3].device.device_id = 2;
    expect_refused(f, MMLP_ERROR_SHAPE,
                   "linear_fc2.weight: found it on CUDA device 2, wanted it on CUDA device 0");
    f->tensors[3].device.device_id = 0;
    int64_t strides[2] = {1, MADE_HIDDEN};
    f->tensors[3].strides = strides;
    expect_refused(f, MMLP_ERROR_SHAPE,
                   "linear_fc2.weight: found the strides [1, 24], wanted a "
                   "contiguous row-major tensor");
    strides[0] = MADE_FFN;
    strides[1] = 1;
    cr_expect_eq(mmlp_mlp_forward(f->mlp, &f->args, NULL), MMLP_OK, "%s", mmlp_last_error());
    f->tensors[3].byte_offset = 4;
    cr_expect_eq(mmlp_mlp_forward(f->mlp, &f->args, NULL), MMLP_ERROR_SHAPE);
    cr_expect(strstr(mmlp_last_error(), "linear_fc2.weight: found it at address 0x"));
    cr_expect(strstr(mmlp_last_error(), ", wanted a multiple of 16 bytes"));
    finish(f);
}

Test(forward, a_saved_activation_cannot_be_left_out)
{
    fixture *f = start_with("saved");
    cr_expect_eq(mmlp_mlp_forward(f->mlp, &f->args, NULL), MMLP_OK, "%s", mmlp_last_error());
    f->args.saved = NULL;
    expect_refused(f, MMLP_ERROR_ARGUMENT,
                   "saved: NULL was given, wanted 2592 bytes of device memory for 5 tokens: "
                   "activation_output is kept there (save_activation)");
    cr_expect_eq(mmlp_stream_sync(f->context, NULL), MMLP_OK);
    finish(f);
}

Test(forward, memory_that_is_missing_is_told_with_its_size)
{
    fixture *f = start();
    f->args.scratch = NULL;
    expect_refused(f, MMLP_ERROR_ARGUMENT,
                   "scratch: NULL was given, wanted 800 bytes of device memory for 5 tokens");
    finish(f);
}

Test(forward, no_tokens_launch_nothing_and_need_no_memory)
{
    fixture *f = start();
    int tokens_of[] = {0, 4, 5};
    for (int i = 0; i < 3; i++) {
        f->shapes[tokens_of[i]][0] = 0;
        mmlp_buffer_free(f->context, f->tensors[tokens_of[i]].data);
        f->tensors[tokens_of[i]].data = NULL;
    }
    f->args.saved = f->args.scratch = NULL;
    cr_expect_eq(mmlp_mlp_forward(f->mlp, &f->args, NULL), MMLP_OK, "%s", mmlp_last_error());
    cr_expect_eq(mmlp_stream_sync(f->context, NULL), MMLP_OK);
    finish(f);
}

static void expect_close(const float *found, const double *wanted, int64_t count, const char *what)
{
    for (int64_t i = 0; i < count; i++)
        cr_assert_float_eq(found[i], wanted[i], 1e-5 * (1 + fabs(wanted[i])), "%s[%d]", what,
                           (int)i);
}

/* Runs the reference on the fixture's host tensors. */
static void reference_of(fixture *f, double *fc1, double *activation, double *output)
{
    mmlp_tensor host[TENSORS];
    for (int i = 0; i < TENSORS; i++) {
        host[i] = f->tensors[i];
        host[i].data = f->host[i];
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
    cr_assert_eq(mmlp_bundle_reference_forward(f->bundle, &args), MMLP_OK, "%s", mmlp_last_error());
}

Test(forward, the_device_computes_what_the_reference_does)
{
    fixture *f = start();
    void *stream = NULL;
    cr_assert_eq(mmlp_stream_create(&stream, f->context), MMLP_OK);
    double fc1[TOKENS * 2 * MADE_FFN], activation[TOKENS * MADE_FFN], output[TOKENS * MADE_HIDDEN];
    reference_of(f, fc1, activation, output);
    float found[TOKENS * 2 * MADE_FFN];

    cr_assert_eq(mmlp_mlp_forward(f->mlp, &f->args, stream), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(mmlp_stream_sync(f->context, stream), MMLP_OK, "%s", mmlp_last_error());
    mmlp_buffer_download(f->context, found, f->saved, sizeof fc1 / 2, stream);
    expect_close(found, fc1, TOKENS * 2 * MADE_FFN, "fc1_output");
    mmlp_buffer_download(f->context, found, f->scratch, sizeof activation / 2, stream);
    expect_close(found, activation, TOKENS * MADE_FFN, "activation_output");
    mmlp_buffer_download(f->context, found, f->tensors[5].data, sizeof output / 2, stream);
    expect_close(found, output, TOKENS * MADE_HIDDEN, "output");

    f->args.saved = NULL; /* inference */
    double ms[2];
    cr_assert_eq(mmlp_mlp_forward_timed(f->mlp, &f->args, stream, ms, 2), MMLP_OK, "%s",
                 mmlp_last_error());
    cr_expect(ms[0] > 0 && ms[1] > 0);
    mmlp_buffer_download(f->context, found, f->tensors[5].data, sizeof output / 2, stream);
    expect_close(found, output, TOKENS * MADE_HIDDEN, "output of inference");
    cr_expect_eq(mmlp_mlp_forward_timed(f->mlp, &f->args, stream, ms, 1), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(),
                     "mmlp_mlp_forward_timed: room for 1 times was given, wanted 2");
    mmlp_stream_destroy(f->context, stream);
    finish(f);
}

Test(forward, fill_normal_hands_over_its_five_numbers)
{
    fixture *f = start();
    float found[TOKENS * MADE_HIDDEN];
    cr_assert_eq(mmlp_mlp_fill_normal(f->mlp, &f->tensors[5], 0.5, 100, NULL), MMLP_OK, "%s",
                 mmlp_last_error());
    cr_assert_eq(mmlp_buffer_download(f->context, found, f->tensors[5].data, sizeof found, NULL),
                 MMLP_OK, "%s", mmlp_last_error());
    for (int i = 0; i < TOKENS * MADE_HIDDEN; i++)
        cr_assert_float_eq(found[i], 0.5 * (100 + i), 1e-6);
    cr_expect_eq(mmlp_mlp_fill_normal(f->mlp, &f->tensors[5], NAN, 1, NULL), MMLP_ERROR_ARGUMENT);
    cr_expect_eq(mmlp_mlp_fill_normal(f->mlp, NULL, 1, 1, NULL), MMLP_ERROR_ARGUMENT);
    f->shapes[5][0] = INT64_MAX;
    cr_expect_eq(mmlp_mlp_fill_normal(f->mlp, &f->tensors[5], 1, 1, NULL), MMLP_ERROR_SHAPE);
    f->shapes[5][0] = TOKENS;
    f->tensors[5].dtype.bits = 64;
    cr_expect_eq(mmlp_mlp_fill_normal(f->mlp, &f->tensors[5], 1, 1, NULL), MMLP_ERROR_SHAPE);
    cr_expect_str_eq(mmlp_last_error(), "destination: its type is neither fp32 nor fp32");
    finish(f);
}

Test(forward, a_fault_is_told_by_the_next_sync_with_the_whole_report)
{
    fixture *f = start();
    f->tensors[5].byte_offset = (uint64_t)1 << 30; /* far behind the tensor */
    cr_expect_eq(mmlp_mlp_forward(f->mlp, &f->args, NULL), MMLP_OK);
    cr_expect_eq(mmlp_stream_sync(f->context, NULL), MMLP_ERROR_DEVICE);
    cr_expect(strstr(mmlp_last_error(), "cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS: an "
                                        "illegal memory access was encountered\n"),
              "%s", mmlp_last_error());
    cr_expect(strstr(mmlp_last_error(), "made_fc2"), "%s", mmlp_last_error());
    finish(f);
}
