/* bad_arguments.c: what the public functions say of NULL and of numbers out of their range. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "made_step.h"

static void expect_line(mmlp_status status, const char *line)
{
    cr_expect_eq(status, MMLP_ERROR_ARGUMENT, "%s", mmlp_status_name(status));
    cr_expect_str_eq(mmlp_last_error(), line);
}

Test(arguments, null_is_named_by_context_buffers_and_streams)
{
    char bytes[4] = "";
    void *out = bytes;
    mmlp_context *context = open_context(NULL, "", NULL);
    mmlp_device_properties properties = MMLP_DEVICE_PROPERTIES_INIT;
    expect_line(mmlp_context_create(NULL, NULL), "mmlp_context_create: out is NULL");
    expect_line(mmlp_context_properties(NULL, &properties),
                "mmlp_context_properties: context is NULL");
    expect_line(mmlp_context_properties(context, NULL), "mmlp_device_properties: NULL was given");
    expect_line(mmlp_buffer_alloc(NULL, context, 1), "mmlp_buffer_alloc: out is NULL");
    expect_line(mmlp_buffer_alloc(&out, NULL, 1), "mmlp_buffer_alloc: context is NULL");
    cr_expect_null(out);
    expect_line(mmlp_buffer_free(NULL, bytes), "mmlp_buffer_free: context is NULL");
    expect_line(mmlp_buffer_upload(NULL, bytes, bytes, 4, NULL),
                "mmlp_buffer_upload: context is NULL");
    expect_line(mmlp_buffer_upload(context, NULL, bytes, 4, NULL),
                "mmlp_buffer_upload: device is NULL");
    expect_line(mmlp_buffer_upload(context, bytes, NULL, 4, NULL),
                "mmlp_buffer_upload: host is NULL");
    expect_line(mmlp_buffer_download(NULL, bytes, bytes, 4, NULL),
                "mmlp_buffer_download: context is NULL");
    expect_line(mmlp_buffer_download(context, NULL, bytes, 4, NULL),
                "mmlp_buffer_download: host is NULL");
    expect_line(mmlp_buffer_download(context, bytes, NULL, 4, NULL),
                "mmlp_buffer_download: device is NULL");
    expect_line(mmlp_stream_create(NULL, context), "mmlp_stream_create: out is NULL");
    out = bytes;
    expect_line(mmlp_stream_create(&out, NULL), "mmlp_stream_create: context is NULL");
    cr_expect_null(out);
    expect_line(mmlp_stream_destroy(NULL, bytes), "mmlp_stream_destroy: context is NULL");
    expect_line(mmlp_stream_sync(NULL, NULL), "mmlp_stream_sync: context is NULL");
    cr_expect_eq(mmlp_buffer_free(context, NULL), MMLP_OK);
    cr_expect_eq(mmlp_buffer_upload(context, NULL, NULL, 0, NULL), MMLP_OK);
    cr_expect_eq(mmlp_buffer_download(context, NULL, NULL, 0, NULL), MMLP_OK);
    cr_expect_eq(mmlp_stream_destroy(context, NULL), MMLP_OK);
    mmlp_context_destroy(context);
    mmlp_context_destroy(NULL);
}

Test(arguments, null_is_named_by_bundles_and_references)
{
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made), *none = bundle;
    mmlp_bundle_properties properties = MMLP_BUNDLE_PROPERTIES_INIT;
    mmlp_reference_forward_args forward = MMLP_REFERENCE_FORWARD_ARGS_INIT;
    mmlp_reference_backward_args backward = MMLP_REFERENCE_BACKWARD_ARGS_INIT;
    expect_line(mmlp_bundle_open(NULL, made.folder), "mmlp_bundle_open: out is NULL");
    expect_line(mmlp_bundle_open(&none, NULL), "mmlp_bundle_open: path is NULL");
    cr_expect_null(none);
    expect_line(mmlp_bundle_get(NULL, &properties), "mmlp_bundle_get: bundle is NULL");
    expect_line(mmlp_bundle_get(bundle, NULL), "mmlp_bundle_properties: NULL was given");
    expect_line(mmlp_bundle_reference_forward(NULL, &forward),
                "mmlp_bundle_reference_forward: bundle is NULL");
    expect_line(mmlp_bundle_reference_forward(bundle, NULL),
                "mmlp_reference_forward_args: NULL was given");
    expect_line(mmlp_bundle_reference_backward(NULL, &backward),
                "mmlp_bundle_reference_backward: bundle is NULL");
    expect_line(mmlp_bundle_reference_backward(bundle, NULL),
                "mmlp_reference_backward_args: NULL was given");
    mmlp_bundle_close(bundle);
    mmlp_bundle_close(NULL);
    made_free(&made);
}

Test(arguments, null_and_bad_numbers_are_named_by_an_mlp)
{
    made_step *s = step_start_backward(true, 0);
    mmlp_mlp *none = s->mlp;
    mmlp_memory memory = MMLP_MEMORY_INIT;
    mmlp_buffer_view view = MMLP_BUFFER_VIEW_INIT;
    mmlp_kernel_properties kernel = MMLP_KERNEL_PROPERTIES_INIT;
    mmlp_init_args init = MMLP_INIT_ARGS_INIT;
    double ms[11];
    expect_line(mmlp_mlp_load(NULL, s->context, s->bundle, NULL), "mmlp_mlp_load: out is NULL");
    expect_line(mmlp_mlp_load(&none, NULL, s->bundle, NULL), "mmlp_mlp_load: context is NULL");
    cr_expect_null(none);
    expect_line(mmlp_mlp_load(&none, s->context, NULL, NULL), "mmlp_mlp_load: bundle is NULL");
    expect_line(mmlp_mlp_memory(NULL, MMLP_PASS_FORWARD, 1, &memory),
                "mmlp_mlp_memory: mlp is NULL");
    expect_line(mmlp_mlp_memory(s->mlp, MMLP_PASS_FORWARD, 1, NULL), "mmlp_memory: NULL was given");
    expect_line(mmlp_mlp_memory(s->mlp, MMLP_PASS_FORWARD, -1, &memory),
                "tokens: found -1, this mlp was loaded for 0 to 1000 (max_tokens)");
    expect_line(mmlp_mlp_buffer(NULL, "fc1_output", 1, &view), "mmlp_mlp_buffer: mlp is NULL");
    expect_line(mmlp_mlp_buffer(s->mlp, NULL, 1, &view), "mmlp_mlp_buffer: name is NULL");
    expect_line(mmlp_mlp_buffer(s->mlp, "fc1_output", 1, NULL), "mmlp_buffer_view: NULL was given");
    expect_line(mmlp_mlp_buffer(s->mlp, "fc3_output", 1, &view),
                "mmlp_mlp_buffer: made has no buffer \"fc3_output\"");
    expect_line(mmlp_mlp_forward(NULL, &s->forward, NULL), "mmlp_mlp_forward: mlp is NULL");
    expect_line(mmlp_mlp_forward(s->mlp, NULL, NULL), "mmlp_forward_args: NULL was given");
    expect_line(mmlp_mlp_dgrad(NULL, &s->dgrad, NULL), "mmlp_mlp_dgrad: mlp is NULL");
    expect_line(mmlp_mlp_dgrad(s->mlp, NULL, NULL), "mmlp_dgrad_args: NULL was given");
    expect_line(mmlp_mlp_backward_dw(NULL, NULL), "mmlp_mlp_backward_dw: mlp is NULL");
    expect_line(mmlp_mlp_init_weights(NULL, &init, NULL), "mmlp_mlp_init_weights: mlp is NULL");
    expect_line(mmlp_mlp_init_weights(s->mlp, NULL, NULL), "mmlp_init_args: NULL was given");
    expect_line(mmlp_mlp_fill_normal(NULL, &s->tensors[X], 1, 1, NULL),
                "mmlp_mlp_fill_normal: mlp is NULL");
    expect_line(mmlp_mlp_fill_normal(s->mlp, NULL, 1, 1, NULL), "destination: NULL was given");
    expect_line(mmlp_mlp_fill_normal(s->mlp, &s->tensors[X], -1, 1, NULL),
                "std: found -1, wanted a number from 0 to 3.40282e+38");
    expect_line(mmlp_mlp_fill_normal(s->mlp, &s->tensors[X], 1e300, 1, NULL),
                "std: found 1e+300, wanted a number from 0 to 3.40282e+38");
    expect_line(mmlp_mlp_fill_normal(s->mlp, &s->tensors[X], (double)NAN, 1, NULL),
                "std: found nan, wanted a number from 0 to 3.40282e+38");
    s->shapes[X][0] = (int64_t)1 << 34;
    cr_expect_eq(mmlp_mlp_fill_normal(s->mlp, &s->tensors[X], 1, 1, NULL), MMLP_ERROR_SHAPE);
    cr_expect_str_eq(mmlp_last_error(), "destination: found 412316860416 elements, one launch "
                                        "fills at most 274877906816");
    s->shapes[X][0] = MADE_TOKENS;
    cr_expect_eq(mmlp_mlp_kernel_count(NULL), 0);
    expect_line(mmlp_mlp_kernel(NULL, 0, &kernel), "mmlp_mlp_kernel: mlp is NULL");
    expect_line(mmlp_mlp_kernel(s->mlp, 0, NULL), "mmlp_kernel_properties: NULL was given");
    expect_line(mmlp_mlp_kernel(s->mlp, 11, &kernel),
                "mmlp_mlp_kernel: index: found 11, wanted 0 to 10");
    expect_line(mmlp_mlp_kernel(s->mlp, -1, &kernel),
                "mmlp_mlp_kernel: index: found -1, wanted 0 to 10");
    expect_line(mmlp_mlp_time_kernels(NULL, ms, 11), "mmlp_mlp_time_kernels: mlp is NULL");
    expect_line(mmlp_mlp_time_kernels(s->mlp, ms, 10),
                "mmlp_mlp_time_kernels: room for 10 times was given, wanted 11");
    mmlp_mlp_unload(NULL);
    step_forward(s); /* nothing of this has hurt it */
    step_dgrad(s);
    step_backward_dw(s);
    step_finish(s);
}

Test(arguments, a_status_that_is_none_has_a_name_and_a_text)
{
    cr_expect_str_eq(mmlp_status_name(MMLP_ERROR_RING_FULL), "MMLP_ERROR_RING_FULL");
    cr_expect_str_eq(mmlp_status_name((mmlp_status)99), "MMLP_ERROR_UNKNOWN");
    cr_expect_not_null(mmlp_status_text((mmlp_status)-1));
    cr_expect_str_eq(mmlp_status_text(MMLP_OK), "no error");
    cr_expect_str_eq(mmlp_version(), "0.1.0");
}
