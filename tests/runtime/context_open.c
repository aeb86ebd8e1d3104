/* context_open.c: drivers that are not there, options, devices, buffers and streams. */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "made_bundle.h"

static mmlp_status open_driver(const char *driver, int device)
{
    mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
    options.driver = driver;
    options.device = device;
    mmlp_context *context = (mmlp_context *)1;
    mmlp_status status = mmlp_context_create(&context, &options);
    if (status != MMLP_OK)
        cr_expect_null(context);
    else
        mmlp_context_destroy(context);
    return status;
}

Test(context, an_unknown_word_for_the_driver_lists_the_known_ones)
{
    cr_expect_eq(open_driver("gpu", 0), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(),
                     "driver \"gpu\": wanted \"cuda\", \"emulator\", or a path with a '/'");
}

Test(context, a_path_that_is_no_driver_is_named)
{
    cr_expect_eq(open_driver("/nowhere/libcuda.so.1", 0), MMLP_ERROR_DRIVER);
    cr_expect(strstr(mmlp_last_error(), "driver \"/nowhere/libcuda.so.1\": "), "%s",
              mmlp_last_error());
}

Test(context, a_library_without_the_functions_is_refused)
{
    cr_expect_eq(open_driver(MMLP_TEST_OTHER_LIBRARY, 0), MMLP_ERROR_DRIVER);
    cr_expect(strstr(mmlp_last_error(), " has no function cuInit: CUDA 13.0 or newer is needed"),
              "%s", mmlp_last_error());
}

Test(context, an_old_driver_is_told_its_version_and_what_is_needed)
{
    cr_expect_eq(open_driver(MMLP_TEST_OLD_DRIVER, 0), MMLP_ERROR_DRIVER);
    cr_expect(strstr(mmlp_last_error(), " is of CUDA 12.4; 13.0 or newer is needed: update it"),
              "%s", mmlp_last_error());
}

Test(context, a_device_that_is_not_there_is_told_the_range)
{
    cr_expect_eq(open_driver(NULL, 3), MMLP_ERROR_DRIVER);
    cr_expect(strstr(mmlp_last_error(), " has 1 device, 0 to 0"), "%s", mmlp_last_error());
    cr_expect_eq(open_driver(NULL, -1), MMLP_ERROR_DRIVER);
}

Test(context, options_of_size_zero_are_refused)
{
    mmlp_context_options options = {0};
    mmlp_context *context;
    cr_expect_eq(mmlp_context_create(&context, &options), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(), "mmlp_context_options: struct_size is 0; start from the "
                                        "struct's _INIT macro");
}

Test(context, a_newer_header_may_be_used_as_long_as_its_new_options_are_not)
{
    struct {
        mmlp_context_options options;
        int64_t future;
    } newer = {MMLP_CONTEXT_OPTIONS_INIT, 0};
    newer.options.struct_size = sizeof newer;
    mmlp_context *context = NULL;
    cr_expect_eq(mmlp_context_create(&context, &newer.options), MMLP_OK, "%s", mmlp_last_error());
    mmlp_context_destroy(context);
    newer.future = 1;
    cr_expect_eq(mmlp_context_create(&context, &newer.options), MMLP_ERROR_ARGUMENT);
    cr_expect(strstr(mmlp_last_error(), "the header is newer than the library"), "%s",
              mmlp_last_error());
}

Test(context, properties_describe_the_device)
{
    mmlp_context *context = open_context(NULL, "", NULL);
    mmlp_device_properties properties = MMLP_DEVICE_PROPERTIES_INIT;
    cr_assert_eq(mmlp_context_properties(context, &properties), MMLP_OK);
    cr_expect_str_eq(properties.arch, "sm_80");
    cr_expect_eq(properties.is_emulator, 1);
    cr_expect_eq(properties.sm_count, 108);
    cr_expect_geq(properties.driver_version, 13000);
    cr_expect(strstr(properties.driver_path, "/libcuda.so.1"), "%s", properties.driver_path);
    mmlp_context_destroy(context);
}

Test(context, buffers_carry_bytes_there_and_back)
{
    mmlp_context *context = open_context(NULL, "", NULL);
    void *buffer = NULL, *stream = NULL;
    char in[1000], out[1000] = {0};
    for (int i = 0; i < 1000; i++)
        in[i] = (char)i;
    cr_assert_eq(mmlp_buffer_alloc(&buffer, context, sizeof in), MMLP_OK);
    cr_expect_eq((uintptr_t)buffer % 256, 0);
    cr_assert_eq(mmlp_stream_create(&stream, context), MMLP_OK);
    cr_expect_eq(mmlp_buffer_upload(context, buffer, in, sizeof in, stream), MMLP_OK);
    cr_expect_eq(mmlp_buffer_download(context, out, buffer, sizeof out, stream), MMLP_OK);
    cr_expect_arr_eq(in, out, sizeof in);
    cr_expect_eq(mmlp_stream_sync(context, stream), MMLP_OK);
    cr_expect_eq(mmlp_stream_destroy(context, stream), MMLP_OK);
    cr_expect_eq(mmlp_buffer_free(context, buffer), MMLP_OK);
    mmlp_context_destroy(context);
}

Test(context, a_buffer_of_no_bytes_is_null)
{
    mmlp_context *context = open_context(NULL, "", NULL);
    void *buffer = (void *)1;
    cr_expect_eq(mmlp_buffer_alloc(&buffer, context, 0), MMLP_OK);
    cr_expect_null(buffer);
    cr_expect_eq(mmlp_buffer_free(context, NULL), MMLP_OK);
    mmlp_context_destroy(context);
}

Test(context, a_buffer_larger_than_the_device_is_a_memory_error)
{
    mmlp_context *context = open_context(NULL, "", NULL);
    void *buffer = (void *)1;
    cr_expect_eq(mmlp_buffer_alloc(&buffer, context, (size_t)1 << 50), MMLP_ERROR_MEMORY);
    cr_expect_null(buffer);
    cr_expect_str_eq(mmlp_last_error(), "a buffer of 1125899906842624 bytes: "
                                        "CUDA_ERROR_OUT_OF_MEMORY: out of memory");
    mmlp_context_destroy(context);
}

Test(context, every_environment_variable_has_a_meaning)
{
    int count = 0;
    for (const mmlp_environment_variable *v; (v = mmlp_environment(count)) != NULL; count++) {
        cr_expect_eq(strncmp(v->name, "MMLP_", 5), 0);
        cr_expect_gt(strlen(v->meaning), 0);
    }
    cr_expect_geq(count, 6);
    cr_expect_null(mmlp_environment(-1));
}
