/*
 * broken_kernels.c: takes kernels that the generator made, breaks each as a person might, runs it,
 * and expects the emulator to say what is wrong and where. Definitions: BUNDLE, a bundle of
 * specs/tokens_gated.lua (hidden 256, ffn 512, gated, no bias), and BIAS_BUNDLE, one of
 * specs/swiglu_bias.lua (smaller, so that the tensors here are large enough).
 */
#include <base/file.h>
#include <base/nvrtc.h>
#include <criterion/criterion.h>
#include <cuda.h>
#include <driver/cu_emulator.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../emulator/device.h"

enum { TOKENS = 100, HIDDEN = 256, FFN = 512, ELEMENT = 2 };

/* The kernels that are broken: one of each kind of operand. */
typedef enum victim {
    FC1_FORWARD,
    FC2_DGRAD,
    FC1_WGRAD,
    BIAS_FC2_DGRAD, /* sums the columns of its output, too */
    BIAS_SUMS,
    VICTIMS
} victim;
static const struct {
    const char *bundle, *pass, *step;
} victims[VICTIMS] = {{BUNDLE, "forward", "linear_fc1"},
                      {BUNDLE, "dgrad", "linear_fc2"},
                      {BUNDLE, "backward_dw", "linear_fc1"},
                      {BIAS_BUNDLE, "dgrad", "linear_fc2"},
                      {BIAS_BUNDLE, "dgrad", "grad_output_sums"}};

typedef struct mistake {
    victim kernel;
    const char *from, *to;    /* what is written instead; NULL: the kernel is as it was */
    const char *short_tensor; /* has a row too few, or NULL */
    CUresult result;
    const char *said[3]; /* parts of the report, which names the kernel too */
} mistake;

/* What a kernel can be given; zeros, but for what only kernels write. */
static const struct {
    const char *name;
    size_t rows, columns;
    bool output;
} tensors[] = {
    {"hidden_states", TOKENS, HIDDEN, false},
    {"grad_output", TOKENS, HIDDEN, false},
    {"linear_fc1.weight", 2 * FFN, HIDDEN, false},
    {"linear_fc2.weight", HIDDEN, FFN, false},
    {"fc1_output", TOKENS, 2 * FFN, false},
    {"activation_output", TOKENS, FFN, true},
    {"recomputed_activation", TOKENS, FFN, true},
    {"grad_fc1_output", TOKENS, 2 * FFN, false},
    {"grad.linear_fc1.weight", 2 * FFN, HIDDEN, true},
    {"linear_fc1.bias", 1, 2 * FFN, false},
    {"fc1_bias_sums", 2, 2 * FFN, true}, /* of fp32 */
    {"fc2_bias_sums", 2, HIDDEN, true},
};

/* ---- the kernel ------------------------------------------------------------------------------ */

typedef struct kernel {
    json_t *manifest, *entry; /* entry: borrowed from the manifest */
    char *source;
} kernel;

static const char *string_of(const kernel *k, const char *key)
{
    return json_string_value(json_object_get(k->entry, key));
}

static unsigned number_of(const json_t *object, const char *key)
{
    return (unsigned)json_integer_value(json_object_get(object, key));
}

static kernel read_kernel(victim which)
{
    kernel k = {0};
    json_error_t error;
    size_t i, bytes;
    json_t *entry;
    char *path = NULL;
    cr_assert_gt(asprintf(&path, "%s/manifest.json", victims[which].bundle), 0);
    k.manifest = json_load_file(path, 0, &error);
    cr_assert_not_null(k.manifest, "%s", error.text);
    free(path);
    json_array_foreach(json_object_get(k.manifest, "kernels"), i, entry)
    {
        if (strcmp(json_string_value(json_object_get(entry, "pass")), victims[which].pass) == 0 &&
            strcmp(json_string_value(json_object_get(entry, "step")), victims[which].step) == 0)
            k.entry = entry;
    }
    cr_assert_not_null(k.entry);
    cr_assert_gt(asprintf(&path, "%s/%s", victims[which].bundle, string_of(&k, "file")), 0);
    cr_assert_eq(file_read(&k.source, &bytes, path), MMLP_OK, "%s", mmlp_last_error());
    free(path);
    return k;
}

static void free_kernel(kernel *k)
{
    json_decref(k->manifest);
    free(k->source);
}

/* Replaces the last `from`; the test fails if there is none. */
static void replace(kernel *k, const char *from, const char *to)
{
    char *found = NULL, *result = NULL;
    for (char *at = k->source; (at = strstr(at, from)) != NULL; at++)
        found = at;
    cr_assert_not_null(found, "%s has no \"%s\" to break", string_of(k, "entry"), from);
    cr_assert_gt(asprintf(&result, "%.*s%s%s", (int)(found - k->source), k->source, to,
                          found + strlen(from)),
                 0);
    free(k->source);
    k->source = result;
}

/* ---- running it ------------------------------------------------------------------------------ */

static CUmodule compile(const kernel *k)
{
    nvrtc *compiler;
    nvrtc_image image = {0};
    cr_assert_eq(nvrtc_open(&compiler, NULL), MMLP_OK, "%s", mmlp_last_error());
    nvrtc_source what = {.name = "broken.cu", .text = k->source, .target = "sm_80"};
    cr_assert_eq(nvrtc_compile(&image, compiler, &what), MMLP_OK, "%s", mmlp_last_error());
    CUmodule module = device_load(image.ptx, "the broken kernel");
    nvrtc_image_free(&image);
    nvrtc_close(compiler);
    return module;
}

static CUdeviceptr make_tensor(const char *name, const char *short_tensor)
{
    size_t i = 0;
    while (i < sizeof tensors / sizeof *tensors && strcmp(tensors[i].name, name) != 0)
        i++;
    cr_assert_lt(i, sizeof tensors / sizeof *tensors, "%s", name);
    size_t missing = short_tensor && strcmp(short_tensor, name) == 0;
    size_t bytes = (tensors[i].rows - missing) * tensors[i].columns * ELEMENT;
    CUdeviceptr pointer = device_alloc(bytes);
    if (!tensors[i].output)
        cr_assert_eq(cuMemsetD8(pointer, 0, bytes), CUDA_SUCCESS);
    return pointer;
}

static unsigned tiles(const json_t *grid, const char *sizes, const char *tile, unsigned if_zero)
{
    unsigned size = number_of(grid, sizes);
    return ((size ? size : if_zero) + number_of(grid, tile) - 1) / number_of(grid, tile);
}

/* For TOKENS tokens and beta 0. */
static CUresult run(const kernel *k, const char *short_tensor)
{
    enum { ARGUMENTS = 16 };
    CUdeviceptr pointers[ARGUMENTS];
    void *arguments[ARGUMENTS];
    long long tokens = TOKENS;
    int beta = 0;
    size_t i;
    json_t *name, *grid = json_object_get(k->entry, "grid");
    device_open();
    CUmodule module = compile(k);
    json_array_foreach(json_object_get(k->entry, "arguments"), i, name)
    {
        cr_assert_lt(i, ARGUMENTS);
        arguments[i] = &pointers[i];
        if (strcmp(json_string_value(name), "tokens") == 0)
            arguments[i] = &tokens;
        else if (strcmp(json_string_value(name), "beta") == 0)
            arguments[i] = &beta;
        else
            pointers[i] = make_tensor(json_string_value(name), short_tensor);
    }
    CUresult result = device_try(
        module, string_of(k, "entry"),
        tiles(grid, "rows", "tile_m", TOKENS) * tiles(grid, "columns", "tile_n", 0),
        number_of(k->entry, "threads"), number_of(k->entry, "dynamic_shared_bytes"), arguments);
    device_close();
    return result;
}

static void check_mistakes(const mistake *mistakes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const mistake *m = &mistakes[i];
        kernel k = read_kernel(m->kernel);
        if (m->from)
            replace(&k, m->from, m->to);
        CUresult result = run(&k, m->short_tensor);
        const char *report = cuEmulatorLastReport(), *entry = string_of(&k, "entry");
        cr_expect_eq(result, m->result, "%s, '%s': %d, expected %d\n%s", entry,
                     m->from ? m->to : "", (int)result, (int)m->result, report);
        cr_expect(result == CUDA_SUCCESS || strstr(report, entry), "no %s in\n%s", entry, report);
        for (size_t s = 0; s < sizeof m->said / sizeof *m->said && m->said[s]; s++)
            cr_expect(strstr(report, m->said[s]), "%s, '%s': '%s' is not in\n%s", entry,
                      m->from ? m->to : "", m->said[s], report);
        free_kernel(&k);
    }
}
#define CHECK_MISTAKES(table) check_mistakes(table, sizeof(table) / sizeof(table)[0])

/* ---- the mistakes ---------------------------------------------------------------------------- */

Test(broken_kernels, the_kernels_themselves_run_without_a_report)
{
    static const mistake none[] = {
        {FC1_FORWARD, NULL, NULL, NULL, CUDA_SUCCESS, {NULL}},
        {FC2_DGRAD, NULL, NULL, NULL, CUDA_SUCCESS, {NULL}},
        {FC1_WGRAD, NULL, NULL, NULL, CUDA_SUCCESS, {NULL}},
        {BIAS_FC2_DGRAD, NULL, NULL, NULL, CUDA_SUCCESS, {NULL}},
        {BIAS_SUMS, NULL, NULL, NULL, CUDA_SUCCESS, {NULL}},
    };
    setenv("MMLP_EMULATOR_CHECK", "race", 1);
    CHECK_MISTAKES(none);
}

#define NEVER_WRITTEN                                                                              \
    NULL, CUDA_ERROR_LAUNCH_FAILED,                                                                \
    {                                                                                              \
        "never written", "at a shared address", "ldmatrix"                                         \
    }

Test(broken_kernels, a_removed_syncthreads_reads_what_other_warps_have_not_copied)
{
    static const char first[] = "cp_async_wait<stages - 2>();\n    __syncthreads();",
                      in_loop[] = "cp_async_wait<stages - 2>();\n                __syncthreads();",
                      without[] = "cp_async_wait<stages - 2>();";
    static const mistake mistakes[] = {
        {FC1_FORWARD, first, without, NEVER_WRITTEN}, {FC2_DGRAD, first, without, NEVER_WRITTEN},
        {FC2_DGRAD, in_loop, without, NEVER_WRITTEN}, {FC1_WGRAD, first, without, NEVER_WRITTEN},
        {FC1_WGRAD, in_loop, without, NEVER_WRITTEN},
    };
    CHECK_MISTAKES(mistakes);
}

Test(broken_kernels, an_unwritten_stage_is_an_uninitialised_read)
{
    static const mistake mistakes[] = {
        /* The first copies of B are never started. */
        {FC1_FORWARD, "b.load(stage, stage);", "", NEVER_WRITTEN},
        {FC2_DGRAD, "b.load(stage, stage);", "", NEVER_WRITTEN},
        /* The last stage is filled in the loop alone. */
        {FC1_WGRAD, "a.load(free_stage, k_tile + stages - 1);", "", NEVER_WRITTEN},
        /* One group too many may be unfinished. */
        {FC1_WGRAD, "cp_async_wait<stages - 2>();\n    __syncthreads();",
         "cp_async_wait<stages - 1>();\n    __syncthreads();", NEVER_WRITTEN},
    };
    CHECK_MISTAKES(mistakes);
}

#define PAST_THE_END                                                                               \
    CUDA_ERROR_ILLEGAL_ADDRESS,                                                                    \
    {                                                                                              \
        "out of bounds: 16 bytes at a global", "cp.async"                                          \
    }

Test(broken_kernels, a_k_row_past_the_end_is_out_of_bounds)
{
    static const mistake mistakes[] = {
        {FC1_FORWARD, "const int k = k_tile * tile_k;", "const int k = k_tile * tile_k + 8;", NULL,
         PAST_THE_END},
        {FC2_DGRAD, "const long long k = (long long)k_tile * tile_k;",
         "const long long k = (long long)k_tile * tile_k + 1;", NULL, PAST_THE_END},
        {FC1_WGRAD, "k + pass * rows_per_pass < left", "k + pass * rows_per_pass <= left", NULL,
         PAST_THE_END},
    };
    CHECK_MISTAKES(mistakes);
}

Test(broken_kernels, a_buffer_one_row_short_is_out_of_bounds)
{
    static const mistake mistakes[] = {
        {FC1_FORWARD, NULL, NULL, "linear_fc1.weight", PAST_THE_END},
        {FC2_DGRAD, NULL, NULL, "linear_fc2.weight", PAST_THE_END},
        {FC1_WGRAD, NULL, NULL, "hidden_states", PAST_THE_END},
    };
    CHECK_MISTAKES(mistakes);
}

Test(broken_kernels, a_store_is_checked)
{
    static const mistake mistakes[] = {
        {FC2_DGRAD,
         "if (output_row < rows)",
         "if (output_row <= rows)",
         NULL,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"out of bounds", "global"}},
        {FC1_FORWARD,
         "+ column, activation_out",
         "+ column + 1, activation_out",
         NULL,
         CUDA_ERROR_MISALIGNED_ADDRESS,
         {"misaligned", "st.global"}},
        {FC1_WGRAD,
         "+ column, gradient_out",
         "+ column + 1, gradient_out",
         NULL,
         CUDA_ERROR_MISALIGNED_ADDRESS,
         {"misaligned", "st.global"}},
    };
    CHECK_MISTAKES(mistakes);
}

Test(broken_kernels, a_destination_that_is_read_with_beta_0_was_never_written)
{
    static const mistake mistakes[] = {
        {FC1_WGRAD,
         "if (beta != 0)",
         "",
         NULL,
         CUDA_ERROR_LAUNCH_FAILED,
         {"never written", "at a global address", "ld.global"}},
    };
    CHECK_MISTAKES(mistakes);
}

/* ---- races: only the race check finds them, so it is on ----------------------------------------
 */

#define NO_BARRIER                                                                                 \
    NULL, CUDA_ERROR_LAUNCH_FAILED,                                                                \
    {                                                                                              \
        "race: ", "(shared)", "missing     no barrier between them"                                \
    }

Test(broken_kernels, a_removed_syncthreads_of_the_epilogue_is_a_race)
{
    static const char before[] =
        "        __syncthreads();\n#pragma unroll 1\n        for (int row = threadIdx.x",
                      not_before[] = "#pragma unroll 1\n        for (int row = threadIdx.x",
                      after[] = "output_row);\n        }\n        __syncthreads();",
                      not_after[] = "output_row);\n        }";
    static const mistake mistakes[] = {
        {FC1_FORWARD, before, not_before, NO_BARRIER}, {FC1_FORWARD, after, not_after, NO_BARRIER},
        {FC2_DGRAD, before, not_before, NO_BARRIER},   {FC2_DGRAD, after, not_after, NO_BARRIER},
        {FC1_WGRAD, before, not_before, NO_BARRIER},   {FC1_WGRAD, after, not_after, NO_BARRIER},
    };
    setenv("MMLP_EMULATOR_CHECK", "race", 1);
    CHECK_MISTAKES(mistakes);
}

Test(broken_kernels, a_removed_syncthreads_of_column_sums_is_a_race)
{
    static const mistake mistakes[] = {
        {BIAS_FC2_DGRAD, "_sum);\n        __syncthreads();", "_sum);", NO_BARRIER},
        /* A race, or a read of what was never written, when the reader comes first. */
        {BIAS_SUMS,
         "sums);\n    __syncthreads();",
         "sums);",
         NULL,
         CUDA_ERROR_LAUNCH_FAILED,
         {"(shared)", "ld.shared"}},
    };
    setenv("MMLP_EMULATOR_CHECK", "race", 1);
    CHECK_MISTAKES(mistakes);
}

Test(broken_kernels, copies_that_are_waited_for_too_late_are_a_race)
{
    static const char in_loop[] = "cp_async_wait<stages - 2>();\n                __syncthreads();";
    static const mistake mistakes[] = {
        /* A stage is refilled while other warps read it. */
        {FC1_FORWARD,
         in_loop,
         "cp_async_wait<stages - 2>();",
         NULL,
         CUDA_ERROR_LAUNCH_FAILED,
         {"race: ", "cp.async", "ldmatrix"}},
        {FC1_FORWARD,
         in_loop,
         "cp_async_wait<stages - 1>();\n                __syncthreads();",
         NULL,
         CUDA_ERROR_LAUNCH_FAILED,
         {"race: read after cp.async's write", "missing     cp.async not waited for", "ldmatrix"}},
    };
    setenv("MMLP_EMULATOR_CHECK", "race", 1);
    CHECK_MISTAKES(mistakes);
}
