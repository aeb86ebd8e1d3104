/*
 * run_input.c: what megamlp-run says of bad input: one clear line and the right exit code, no
 * crash, no leak. Definitions: MEGAMLP_RUN (the program), SPECS (the folder of test specs).
 */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "program.h"
#include "temporary_folder.h"

/* Writes a file of an 8-byte length, a header, and `data_bytes` zeros. */
static char *write_file(const char *folder, uint64_t length, const char *header, size_t data_bytes)
{
    char *path = NULL;
    cr_assert_gt(asprintf(&path, "%s/in.safetensors", folder), 0);
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file);
    for (int i = 0; i < 8; ++i)
        fputc((int)(length >> (8 * i) & 255), file);
    fputs(header, file);
    for (size_t i = 0; i < data_bytes; ++i)
        fputc(0, file);
    fclose(file);
    return path;
}

static program_result run_on(const char *spec, const char *path)
{
    char *spec_path = NULL;
    cr_assert_gt(asprintf(&spec_path, "%s/%s", SPECS, spec), 0);
    const char *const arguments[] = {MEGAMLP_RUN, "--device", "emulator", "--check",
                                     spec_path,   path,       NULL};
    program_result result = program_run(arguments);
    free(spec_path);
    return result;
}

Test(run_input, a_malformed_file_is_named_with_what_is_wrong_in_it)
{
    static const struct {
        uint64_t length; /* 0: the header's own */
        const char *header;
        size_t data_bytes;
        const char *line;
    } cases[] = {
        {5000, "{", 0, "in.safetensors: header of 5000 bytes is longer than the file"},
        {1 << 30, "{}", 0,
         "in.safetensors: claims a header of 1073741824 bytes; at most 100000000 are allowed"},
        {UINT64_MAX, "{}", 0, "in.safetensors: claims a header of 18446744073709551615 bytes"},
        {0, "{\"a\": ", 0, "in.safetensors: header is not valid JSON"},
        {0, "[1, 2]", 0, "in.safetensors: header is not a JSON object"},
        {0, "{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 3,
         "tensor 'a': data_offsets [0, 4] lie outside the file's 3 bytes of data"},
        {0, "{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[4,0]}}", 8,
         "tensor 'a': data_offsets [4, 0] lie outside the file's 8 bytes of data"},
        {0, "{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[-4,0]}}", 8,
         "tensor 'a': data_offsets [-4, 0] lie outside the file's 8 bytes of data"},
        {0, "{\"a\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[0,4]}}", 8,
         "tensor 'a': data_offsets span 4 bytes, its shape and dtype need 6"},
        {0, "{\"a\":{\"dtype\":\"BF16\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}",
         8, "tensor 'a': its shape is larger than memory"},
        {0, "{\"a\":{\"dtype\":\"BF16\",\"shape\":[-2],\"data_offsets\":[0,4]}}", 8,
         "tensor 'a': shape[0] is not a size"},
        {0, "{\"a\":{\"dtype\":\"Q7\",\"shape\":[2],\"data_offsets\":[0,4]}}", 8,
         "tensor 'a': dtype \"Q7\" is not supported"},
        {0, "{\"a\":{\"dtype\":\"BF16\"}}", 8,
         "tensor 'a': needs a dtype, a shape and two data_offsets"},
        {0, "{\"a\":{\"dtype\":\"BF16\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,4]}}", 8,
         "tensor 'a': has 9 dimensions; at most 8 are supported"},
        {0,
         "{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},"
         "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[2,6]}}",
         8, "tensors 'a' and 'b' overlap"},
        {0,
         "{\"a\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[0,2]},"
         "\"a\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[2,4]}}",
         8, "header is not valid JSON: duplicate object key"},
        {0, "{}", 0, "in.safetensors: tensor 'hidden_states' is missing"},
    };
    char *folder = temporary_folder_make();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        uint64_t length = cases[i].length ? cases[i].length : strlen(cases[i].header);
        char *path = write_file(folder, length, cases[i].header, cases[i].data_bytes);
        program_result result = run_on("tokens_gated.lua", path);
        program_expect(&result, 3, cases[i].line);
        program_result_free(&result);
        free(path);
    }
    temporary_folder_remove(folder);
}

Test(run_input, tensors_that_do_not_fit_the_spec_are_named_with_both_shapes)
{
    static const struct {
        const char *spec, *header;
        size_t data_bytes;
        const char *line;
    } cases[] = {
        {"tokens_gated.lua",
         "{\"hidden_states\":{\"dtype\":\"BF16\",\"shape\":[2,4],\"data_offsets\":[0,16]}}", 16,
         "tensor 'hidden_states' has shape [2, 4], tokens_gated takes [2, 256]"},
        {"tokens_gated.lua",
         "{\"hidden_states\":{\"dtype\":\"BF16\",\"shape\":[256],\"data_offsets\":[0,512]}}", 512,
         "tensor 'hidden_states' has shape [256], tokens_gated takes [256, 256]"},
        {"tokens_gated.lua",
         "{\"hidden_states\":{\"dtype\":\"F32\",\"shape\":[1,256],\"data_offsets\":[0,1024]}}",
         1024, "tensor 'hidden_states' is F32, the MLP takes BF16"},
        {"tokens_gated.lua",
         "{\"hidden_states\":{\"dtype\":\"BF16\",\"shape\":[1,256],\"data_offsets\":[0,512]}}", 512,
         "tensor 'linear_fc1.weight' is missing"},
        {"tokens_gated.lua",
         "{\"hidden_states\":{\"dtype\":\"BF16\",\"shape\":[0,256],\"data_offsets\":[0,0]},"
         "\"linear_fc1.weight\":{\"dtype\":\"BF16\",\"shape\":[1024,256],\"data_offsets\":[0,"
         "524288]},"
         "\"linear_fc1.bias\":{\"dtype\":\"BF16\",\"shape\":[1024],\"data_offsets\":[524288,526336]"
         "}}",
         526336,
         "has a tensor 'linear_fc1.bias', but tokens_gated has none (add_bias_linear = false)"},
    };
    char *folder = temporary_folder_make();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        char *path =
            write_file(folder, strlen(cases[i].header), cases[i].header, cases[i].data_bytes);
        program_result result = run_on(cases[i].spec, path);
        program_expect(&result, 3, cases[i].line);
        program_result_free(&result);
        free(path);
    }
    temporary_folder_remove(folder);
}

Test(run_input, files_that_cannot_be_read_are_named)
{
    char *folder = temporary_folder_make();
    char *missing = NULL, *empty = NULL;
    cr_assert_gt(asprintf(&missing, "%s/none.safetensors", folder), 0);
    cr_assert_gt(asprintf(&empty, "%s/empty.safetensors", folder), 0);
    fclose(fopen(empty, "wb"));

    program_result result = run_on("tokens_gated.lua", missing);
    program_expect(&result, 3, "none.safetensors: cannot open: No such file or directory");
    program_result_free(&result);
    result = run_on("tokens_gated.lua", empty);
    program_expect(&result, 3, "empty.safetensors: 0 bytes are too few for a safetensors file");
    program_result_free(&result);
    result = run_on("tokens_gated.lua", folder);
    program_expect(&result, 3, "is not a regular file");
    program_result_free(&result);
    result = run_on("no_such_spec.lua", empty);
    program_expect(&result, 3, "no_such_spec.lua");
    program_result_free(&result);

    free(missing);
    free(empty);
    temporary_folder_remove(folder);
}

static void expect_usage(const char *const arguments[], const char *line)
{
    program_result result = program_run(arguments);
    program_expect(&result, 2, line);
    program_result_free(&result);
}

Test(run_input, wrong_usage_says_what_would_be_right)
{
    expect_usage((const char *const[]){MEGAMLP_RUN, NULL}, "needs a SPEC.lua or NAME.mlp");
    expect_usage((const char *const[]){MEGAMLP_RUN, "a.lua", NULL},
                 "needs a FILE.safetensors, or --random SEED --tokens N");
    expect_usage((const char *const[]){MEGAMLP_RUN, "a.lua", "--random", "1", NULL},
                 "--random SEED and --tokens N go together");
    expect_usage(
        (const char *const[]){MEGAMLP_RUN, "a.lua", "--random", "1", "--tokens", "-5", NULL},
        "--tokens -5: is not a whole number from 0 to 2147483647");
    expect_usage((const char *const[]){MEGAMLP_RUN, "a.lua", "b", "c", NULL},
                 "'c': one spec or bundle and one file are enough");
    expect_usage((const char *const[]){MEGAMLP_RUN, "--pass", "backward", "a.lua", "b", NULL},
                 "--pass backward: is not one of forward, train");
    expect_usage((const char *const[]){MEGAMLP_RUN, "--microbatches", "2", "a.lua", "b", NULL},
                 "--microbatches M goes with --random; those of a FILE are counted");
    expect_usage((const char *const[]){MEGAMLP_RUN, "--microbatches", "0", "a.lua", NULL},
                 "--microbatches 0: is not a whole number from 1 to 1024");
    expect_usage((const char *const[]){MEGAMLP_RUN, "--device", "tpu", SPECS "/tokens_gated.lua",
                                       "--random", "1", "--tokens", "1", NULL},
                 "--device tpu: is not one of auto, cuda, emulator");
    expect_usage((const char *const[]){MEGAMLP_RUN, "--device", "emulator", "--arch", "sm_42",
                                       SPECS "/tokens_gated.lua", "--random", "1", "--tokens", "1",
                                       NULL},
                 "sm_42");
}

Test(run_input, a_driver_that_is_not_there_is_a_device_error)
{
    setenv("MMLP_DRIVER", "/nowhere/libcuda.so.1", 1);
    const char *const arguments[] = {
        MEGAMLP_RUN, SPECS "/tokens_gated.lua", "--random", "1", "--tokens", "1", NULL};
    program_result result = program_run(arguments);
    program_expect(&result, 4, "/nowhere/libcuda.so.1");
    program_result_free(&result);
    unsetenv("MMLP_DRIVER");
}

Test(run_input, output_that_is_lost_is_an_error)
{
    const char *const arguments[] = {"/bin/sh", "-c", MEGAMLP_RUN " --usage >/dev/full", NULL};
    program_result result = program_run(arguments);
    program_expect(&result, 3, "megamlp-run: cannot write to stdout: No space left on device");
    program_result_free(&result);
}

Test(run_input, out_replaces_only_a_regular_file)
{
    char *folder = temporary_folder_make();
    char *pipe = NULL, *line = NULL;
    cr_assert_gt(asprintf(&pipe, "%s/pipe", folder), 0);
    cr_assert_gt(asprintf(&line, "%s: exists and is not a regular file; it is not replaced", pipe),
                 0);
    cr_assert_eq(mkfifo(pipe, 0600), 0);
    const char *const arguments[] = {
        MEGAMLP_RUN, "--device", "emulator", "--out", pipe, SPECS "/tokens_not_gated.lua",
        "--random",  "1",        "--tokens", "1",     NULL};
    program_result result = program_run(arguments);
    program_expect(&result, 3, line);
    program_result_free(&result);

    struct stat properties;
    cr_expect(stat(pipe, &properties) == 0 && S_ISFIFO(properties.st_mode));
    free(line);
    free(pipe);
    temporary_folder_remove(folder);
}

Test(run_input, out_writes_the_results_as_an_ordinary_file)
{
    char *folder = temporary_folder_make();
    char *out = NULL;
    cr_assert_gt(asprintf(&out, "%s/out.safetensors", folder), 0);
    const char *const arguments[] = {
        MEGAMLP_RUN, "--device", "emulator", "--arch",
        "sm_80",     "--out",    out,        SPECS "/tokens_not_gated.lua",
        "--random",  "1",        "--tokens", "3",
        NULL};
    program_result result = program_run(arguments);
    cr_expect(result.exit_code == 0, "%s", result.output);
    program_result_free(&result);

    /* Length, header, then fc1_output, activation_output [3, 512], output [3, 256], output_bias
     * [256]. */
    FILE *file = fopen(out, "rb");
    cr_assert_not_null(file);
    unsigned char length[8];
    cr_assert_eq(fread(length, 1, 8, file), 8);
    size_t header_bytes = length[0] | (size_t)length[1] << 8;
    char *header = calloc(header_bytes + 1, 1);
    cr_assert_eq(fread(header, 1, header_bytes, file), header_bytes);
    cr_expect_eq(header_bytes % 8, 0);
    cr_expect_not_null(strstr(
        header, "\"fc1_output\":{\"dtype\":\"BF16\",\"shape\":[3,512],\"data_offsets\":[0,3072]}"));
    cr_expect_not_null(strstr(
        header, "\"output\":{\"dtype\":\"BF16\",\"shape\":[3,256],\"data_offsets\":[6144,7680]}"));
    cr_expect_not_null(strstr(
        header,
        "\"output_bias\":{\"dtype\":\"BF16\",\"shape\":[256],\"data_offsets\":[7680,8192]}"));
    fseek(file, 0, SEEK_END);
    cr_expect_eq((size_t)ftell(file), 8 + header_bytes + 8192);
    fclose(file);
    free(header);
    free(out);
    temporary_folder_remove(folder);
}
