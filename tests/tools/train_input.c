/*
 * train_input.c: what megamlp-run --pass train reads and writes, and what it says of files that
 * lack something or hold too much. Definitions: MEGAMLP_RUN (the program), SPECS (the folder of
 * test specs).
 */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"
#include "temporary_folder.h"

/* ---- files of one byte -------------------------------------------------------------------------
 */

enum { TOKENS = 4, HIDDEN = 64, FFN = 128, MOST_TENSORS = 12 };

typedef struct entry {
    const char *name;
    const char *dtype;
    int shape[2]; /* {n, 0}: a vector */
    int fill;     /* every byte */
} entry;

/* What every file below has: hidden_states and the weights of swiglu_nobias. */
/* clang-format off */
#define INPUT(prefix, name) {prefix name, "BF16", {TOKENS, HIDDEN}, 0}
#define WEIGHTS {"linear_fc1.weight", "BF16", {2 * FFN, HIDDEN}, 0},                               \
                {"linear_fc2.weight", "BF16", {HIDDEN, FFN}, 0}
/* clang-format on */

static size_t bytes_of(const entry *e)
{
    return (strcmp(e->dtype, "F32") == 0 ? 4u : 2u) * (size_t)e->shape[0] *
           (e->shape[1] ? (size_t)e->shape[1] : 1);
}

/* Writes the tensors to a new file in the folder. */
static char *write_tensors(const char *folder, const entry *entries)
{
    char *path = NULL, header[4096] = "{";
    size_t length = 1, offset = 0;
    cr_assert_gt(asprintf(&path, "%s/in.safetensors", folder), 0);
    for (const entry *e = entries; e->name; ++e) {
        size_t bytes = bytes_of(e);
        char shape[32];
        snprintf(shape, sizeof shape, e->shape[1] ? "%d,%d" : "%d", e->shape[0], e->shape[1]);
        length += (size_t)snprintf(
            header + length, sizeof header - length,
            "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}",
            length > 1 ? "," : "", e->name, e->dtype, shape, offset, offset + bytes);
        offset += bytes;
    }
    length += (size_t)snprintf(header + length, sizeof header - length, "}");
    cr_assert_lt(length, sizeof header);
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file);
    for (int i = 0; i < 8; ++i)
        fputc((int)((uint64_t)length >> (8 * i) & 255), file);
    fputs(header, file);
    for (const entry *e = entries; e->name; ++e)
        for (size_t i = 0; i < bytes_of(e); ++i)
            fputc(e->fill, file);
    fclose(file);
    return path;
}

static program_result train(const char *spec, const char *path, const char *out)
{
    char *spec_path = NULL;
    cr_assert_gt(asprintf(&spec_path, "%s/%s", SPECS, spec), 0);
    const char *arguments[] = {MEGAMLP_RUN,          "--pass", "train", "--check", "--device",
                               "emulator",           "--arch", "sm_80", spec_path, path,
                               out ? "--out" : NULL, out,      NULL};
    program_result result = program_run(arguments);
    free(spec_path);
    return result;
}

typedef struct bad_file {
    const char *spec;
    entry entries[MOST_TENSORS];
    const char *line;
} bad_file;

static void expect_all_refused(const bad_file *files, size_t count)
{
    char *folder = temporary_folder_make();
    for (size_t i = 0; i < count; ++i) {
        char *path = write_tensors(folder, files[i].entries);
        program_result result = train(files[i].spec, path, NULL);
        program_expect(&result, 3, files[i].line);
        program_result_free(&result);
        free(path);
    }
    temporary_folder_remove(folder);
}

/* ---- tests ---------------------------------------------------------------------------------- */

Test(train_input, grad_output_must_be_there_and_as_large_as_hidden_states)
{
    static const bad_file files[] = {
        {"swiglu_nobias.lua",
         {INPUT("", "hidden_states"), WEIGHTS},
         "in.safetensors: tensor 'grad_output' is missing; --pass train reads it"},
        {"swiglu_nobias.lua",
         {INPUT("", "hidden_states"), {"grad_output", "BF16", {TOKENS + 1, HIDDEN}, 0}, WEIGHTS},
         "tensor 'grad_output' has shape [5, 64], swiglu_nobias takes [4, 64]"},
        {"swiglu_nobias.lua",
         {INPUT("", "hidden_states"), {"grad_output", "F32", {TOKENS, HIDDEN}, 0}, WEIGHTS},
         "tensor 'grad_output' is F32, the MLP takes BF16"},
    };
    expect_all_refused(files, sizeof files / sizeof files[0]);
}

Test(train_input, microbatches_are_named_one_way_and_without_gaps)
{
    static const bad_file files[] = {
        {"swiglu_nobias.lua",
         {INPUT("mb0.", "hidden_states"), INPUT("mb0.", "grad_output"),
          INPUT("mb1.", "grad_output"), WEIGHTS},
         "in.safetensors: tensor 'mb1.hidden_states' is missing"},
        {"swiglu_nobias.lua",
         {INPUT("mb0.", "hidden_states"), INPUT("mb0.", "grad_output"),
          INPUT("mb1.", "hidden_states"), WEIGHTS},
         "tensor 'mb1.grad_output' is missing; --pass train reads it"},
        {"swiglu_nobias.lua",
         {INPUT("mb1.", "hidden_states"), INPUT("mb1.", "grad_output"), WEIGHTS},
         "tensor 'mb0.hidden_states' is missing"},
        {"swiglu_nobias.lua",
         {INPUT("", "hidden_states"), INPUT("mb0.", "grad_output"), WEIGHTS},
         "has both 'hidden_states' and 'mb0.grad_output': either all microbatches are named mb0, "
         "mb1, ..., or there is one without a name"},
        {"swiglu_nobias.lua",
         {INPUT("mb99999999999.", "hidden_states"), WEIGHTS},
         "tensor 'mb99999999999.hidden_states': microbatches are mb0 to mb1023"},
    };
    expect_all_refused(files, sizeof files / sizeof files[0]);
}

Test(train_input, what_main_grads_start_from_fits_the_spec)
{
    static const bad_file files[] = {
        {"swiglu_nobias.lua",
         {INPUT("", "hidden_states"),
          INPUT("", "grad_output"),
          WEIGHTS,
          {"main_grad_init.linear_fc1.weight", "F32", {2 * FFN, HIDDEN}, 0},
          {"main_grad_init.linear_fc2.weight", "F32", {HIDDEN, FFN}, 0}},
         "has 'main_grad_init.linear_fc1.weight', but swiglu_nobias has no main_grad "
         "(gradient_accumulation_fusion = false)"},
        {"swiglu_accumulate.lua",
         {INPUT("", "hidden_states"),
          INPUT("", "grad_output"),
          WEIGHTS,
          {"main_grad_init.linear_fc2.weight", "F32", {HIDDEN, FFN}, 0}},
         "has 'main_grad_init.linear_fc2.weight', but 'main_grad_init.linear_fc1.weight' is "
         "missing: both or none"},
        {"swiglu_accumulate.lua",
         {INPUT("", "hidden_states"),
          INPUT("", "grad_output"),
          WEIGHTS,
          {"main_grad_init.linear_fc1.weight", "F32", {FFN, HIDDEN}, 0},
          {"main_grad_init.linear_fc2.weight", "F32", {HIDDEN, FFN}, 0}},
         "tensor 'main_grad_init.linear_fc1.weight' has shape [128, 64], swiglu_accumulate takes "
         "[256, 64]"},
        {"swiglu_accumulate.lua",
         {INPUT("", "hidden_states"),
          INPUT("", "grad_output"),
          WEIGHTS,
          {"main_grad_init.linear_fc1.weight", "F32", {2 * FFN, HIDDEN}, 0},
          {"main_grad_init.linear_fc2.weight", "BF16", {HIDDEN, FFN}, 0}},
         "tensor 'main_grad_init.linear_fc2.weight' is BF16, a main_grad is F32"},
    };
    expect_all_refused(files, sizeof files / sizeof files[0]);
}

Test(train_input, expected_values_that_the_mlp_does_not_give_are_named)
{
    static const bad_file files[] = {
        {"swiglu_nobias.lua",
         {INPUT("", "hidden_states"),
          INPUT("", "grad_output"),
          WEIGHTS,
          {"grad.linear_fc1.bias", "F32", {2 * FFN, 0}, 0}},
         "expects 'grad.linear_fc1.bias', which swiglu_nobias does not give"},
        {"swiglu_nobias.lua",
         {INPUT("", "hidden_states"),
          INPUT("", "grad_output"),
          WEIGHTS,
          {"main_grad.linear_fc1.weight", "F32", {2 * FFN, HIDDEN}, 0}},
         "expects 'main_grad.linear_fc1.weight', which swiglu_nobias does not give "
         "(gradient_accumulation_fusion = false)"},
        {"swiglu_nobias.lua",
         {INPUT("", "hidden_states"),
          INPUT("", "grad_output"),
          WEIGHTS,
          {"grad.linear_fc2.weight", "F32", {HIDDEN, FFN / 2}, 0}},
         "expected tensor 'grad.linear_fc2.weight' is not F32 of the result's shape"},
    };
    expect_all_refused(files, sizeof files / sizeof files[0]);
}

/* The header of a safetensors file (malloc). */
static char *read_header(const char *path)
{
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file);
    unsigned char length[8];
    cr_assert_eq(fread(length, 1, 8, file), 8);
    size_t bytes = length[0] | (size_t)length[1] << 8;
    char *header = calloc(bytes + 1, 1);
    cr_assert_eq(fread(header, 1, bytes, file), bytes);
    fclose(file);
    return header;
}

Test(train_input, a_step_of_two_microbatches_writes_every_result)
{
    static const char *const names[] = {
        "\"mb0.fc1_output\":{\"dtype\":\"BF16\",\"shape\":[4,256]",
        "\"mb1.activation_output\":{\"dtype\":\"BF16\",\"shape\":[4,128]",
        "\"mb0.output\":{\"dtype\":\"BF16\",\"shape\":[4,64]",
        "\"mb1.grad_fc1_output\":{\"dtype\":\"BF16\",\"shape\":[4,256]",
        "\"mb1.grad.hidden_states\":{\"dtype\":\"BF16\",\"shape\":[4,64]",
        "\"main_grad.linear_fc1.weight\":{\"dtype\":\"F32\",\"shape\":[256,64]",
        "\"main_grad.linear_fc2.weight\":{\"dtype\":\"F32\",\"shape\":[64,128]",
    };
    static const entry entries[] = {INPUT("mb0.", "hidden_states"),
                                    INPUT("mb0.", "grad_output"),
                                    INPUT("mb1.", "hidden_states"),
                                    INPUT("mb1.", "grad_output"),
                                    WEIGHTS,
                                    {NULL, NULL, {0, 0}, 0}};
    char *folder = temporary_folder_make();
    char *out = NULL, *path = write_tensors(folder, entries);
    cr_assert_gt(asprintf(&out, "%s/out.safetensors", folder), 0);
    program_result result = train("swiglu_accumulate.lua", path, out);
    program_expect(&result, 0, "main_grad.linear_fc1.weight");
    program_expect(&result, 0, "swiglu_accumulate_linear_fc1_wgrad");
    program_result_free(&result);
    char *header = read_header(out);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i)
        cr_expect(strstr(header, names[i]), "expected %s in %s", names[i], header);
    free(header);
    free(out);
    free(path);
    temporary_folder_remove(folder);
}

Test(train_input, a_gradient_far_from_the_files_fails_the_check)
{
    static const entry entries[] = {INPUT("", "hidden_states"),
                                    INPUT("", "grad_output"),
                                    WEIGHTS,
                                    {"grad.linear_fc2.weight", "F32", {HIDDEN, FFN}, 0x3f},
                                    {NULL, NULL, {0, 0}, 0}};
    char *folder = temporary_folder_make();
    char *path = write_tensors(folder, entries);
    program_result result = train("swiglu_nobias.lua", path, NULL);
    program_expect(&result, 1, "1.00e+00   6.00e-03  FAIL");
    program_expect(&result, 1, "megamlp-run: 1 of 9 checks failed");
    program_result_free(&result);
    free(path);
    temporary_folder_remove(folder);
}
