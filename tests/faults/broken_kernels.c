/*
 * broken_kernels.c: takes a kernel that the generator made, breaks it as a person might, runs it,
 * and expects the emulator to say what is wrong and where. Definitions: BUNDLE, a bundle of
 * specs/tokens_gated.lua (hidden 256, ffn 512, gated, no bias).
 */
#include <base/file.h>
#include <base/nvrtc.h>
#include <criterion/criterion.h>
#include <cuda.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../emulator/device.h"

/* The emulator's report of the last fault; an extension of its libcuda. */
const char *cuEmulatorLastReport(void);

enum { TOKENS = 128, HIDDEN = 256, FFN = 512, ELEMENT = 2 };

typedef struct launch_shape {
    char entry[128];
    unsigned threads, shared_bytes, blocks;
} launch_shape;

/* The source of linear_fc1's forward kernel, and how it is launched for TOKENS tokens. */
static char *read_kernel(launch_shape *shape)
{
    json_error_t error;
    json_t *manifest = json_load_file(BUNDLE "/manifest.json", 0, &error);
    cr_assert_not_null(manifest, "%s", error.text);
    json_t *kernel = json_array_get(json_object_get(manifest, "kernels"), 0);
    json_t *grid = json_object_get(kernel, "grid");
    cr_assert_str_eq(json_string_value(json_object_get(kernel, "step")), "linear_fc1");
    snprintf(shape->entry, sizeof shape->entry, "%s",
             json_string_value(json_object_get(kernel, "entry")));
    shape->threads = (unsigned)json_integer_value(json_object_get(kernel, "threads"));
    shape->shared_bytes =
        (unsigned)json_integer_value(json_object_get(kernel, "dynamic_shared_bytes"));
    unsigned tile_m = (unsigned)json_integer_value(json_object_get(grid, "tile_m"));
    unsigned tile_n = (unsigned)json_integer_value(json_object_get(grid, "tile_n"));
    shape->blocks = (TOKENS + tile_m - 1) / tile_m * ((FFN + tile_n - 1) / tile_n);

    char *path = NULL, *source;
    size_t bytes;
    cr_assert_gt(asprintf(&path, BUNDLE "/%s", json_string_value(json_object_get(kernel, "file"))),
                 0);
    cr_assert_eq(file_read(&source, &bytes, path), MMLP_OK, "%s", mmlp_last_error());
    free(path);
    json_decref(manifest);
    return source;
}

/* Replaces the nth `from` (0 is the first) by `to`; the test fails if there is none. */
static char *replace(char *source, const char *from, const char *to, int nth)
{
    char *found = strstr(source, from);
    for (; nth > 0 && found; --nth)
        found = strstr(found + 1, from);
    cr_assert_not_null(found, "the kernel has no \"%s\" to break", from);
    char *result = NULL;
    cr_assert_gt(
        asprintf(&result, "%.*s%s%s", (int)(found - source), source, to, found + strlen(from)), 0);
    free(source);
    return result;
}

static CUmodule compile(const char *source)
{
    nvrtc *compiler;
    nvrtc_image image = {0};
    cr_assert_eq(nvrtc_open(&compiler, NULL), MMLP_OK, "%s", mmlp_last_error());
    nvrtc_source what = {.name = "broken.cu", .text = source, .target = "sm_80"};
    cr_assert_eq(nvrtc_compile(&image, compiler, &what), MMLP_OK, "%s", mmlp_last_error());
    CUmodule module = device_load(image.ptx, "the broken kernel");
    nvrtc_image_free(&image);
    nvrtc_close(compiler);
    return module;
}

static CUdeviceptr zeros(size_t bytes)
{
    CUdeviceptr pointer = device_alloc(bytes);
    cr_assert_eq(cuMemsetD8(pointer, 0, bytes), CUDA_SUCCESS);
    return pointer;
}

/* Runs the kernel with `missing_rows` rows of fc1's weight not allocated; takes the source. */
static CUresult run(char *source, const launch_shape *shape, size_t missing_rows)
{
    device_open();
    CUmodule module = compile(source);
    free(source);
    CUdeviceptr hidden_states = zeros(TOKENS * HIDDEN * ELEMENT);
    CUdeviceptr weight = zeros((2 * FFN - missing_rows) * HIDDEN * ELEMENT);
    CUdeviceptr activation = zeros(TOKENS * FFN * ELEMENT),
                fc1_output = zeros(TOKENS * 2 * FFN * ELEMENT);
    long long tokens = TOKENS;
    void *arguments[] = {&hidden_states, &weight, &fc1_output, &activation, &tokens};
    CUresult result = device_try(module, shape->entry, shape->blocks, shape->threads,
                                 shape->shared_bytes, arguments);
    device_close();
    return result;
}

Test(broken_kernels, the_kernel_itself_runs_without_a_report)
{
    launch_shape shape;
    char *source = read_kernel(&shape);
    cr_assert_eq(run(source, &shape, 0), CUDA_SUCCESS, "%s", cuEmulatorLastReport());
}

Test(broken_kernels, a_removed_syncthreads_reads_what_other_warps_have_not_copied)
{
    launch_shape shape;
    char *source = replace(read_kernel(&shape), "__syncthreads();", "", 0);
    cr_assert_eq(run(source, &shape, 0), CUDA_ERROR_LAUNCH_FAILED);
    const char *report = cuEmulatorLastReport();
    cr_expect_not_null(strstr(report, "never written"), "%s", report);
    cr_expect_not_null(strstr(report, "shared"), "%s", report);
    cr_expect_not_null(strstr(report, "ldmatrix"), "%s", report);
    cr_expect_not_null(strstr(report, shape.entry), "%s", report);
}

Test(broken_kernels, an_unwritten_shared_tile_is_an_uninitialised_read)
{
    /* The copies of B are never started. */
    launch_shape shape;
    char *source = replace(read_kernel(&shape), "cp_async_16(to + stage_a_bytes",
                           "if (k < 0) cp_async_16(to + stage_a_bytes", 0);
    cr_assert_eq(run(source, &shape, 0), CUDA_ERROR_LAUNCH_FAILED);
    const char *report = cuEmulatorLastReport();
    cr_expect_not_null(strstr(report, "never written"), "%s", report);
    cr_expect_not_null(strstr(report, "ldmatrix"), "%s", report);
}

Test(broken_kernels, a_buffer_one_row_short_is_out_of_bounds)
{
    launch_shape shape;
    char *source = read_kernel(&shape);
    cr_assert_eq(run(source, &shape, 1), CUDA_ERROR_ILLEGAL_ADDRESS);
    const char *report = cuEmulatorLastReport();
    cr_expect_not_null(strstr(report, "cp.async"), "%s", report);
    cr_expect_not_null(strstr(report, shape.entry), "%s", report);
}

Test(broken_kernels, a_misaligned_store_is_caught)
{
    launch_shape shape;
    char *source = replace(read_kernel(&shape), "activation_output + token * columns + column",
                           "activation_output + token * columns + column + 1", 0);
    cr_assert_eq(run(source, &shape, 0), CUDA_ERROR_MISALIGNED_ADDRESS);
}
