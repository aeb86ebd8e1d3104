/*
 * bench_counters.c: what megamlp-bench counters prints, and what it says of arguments that make no
 * sense. Definitions: MEGAMLP_BENCH (the program), SPECS (the folder of test specs).
 */
#include <core/counters.h>
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

#define SPEC SPECS "/swiglu_nobias.lua" /* hidden 64, ffn 128, gated, bf16 */

static const char *const kernels[] = {
    "swiglu_nobias_linear_fc1_forward", "swiglu_nobias_linear_fc2_forward",
    "swiglu_nobias_linear_fc2_dgrad",   "swiglu_nobias_linear_fc1_dgrad",
    "swiglu_nobias_linear_fc2_wgrad",   "swiglu_nobias_linear_fc1_wgrad",
};
enum { KERNELS = sizeof kernels / sizeof kernels[0], TOKENS = 256 };

Test(bench_counters, a_table_has_every_kernel_of_a_training_step)
{
    program_result result = program_run((const char *const[]){
        MEGAMLP_BENCH, "counters", SPEC, "--arch", "sm_80", "--tokens", "256", NULL});
    program_expect(&result, 0,
                   "one training step of 256 tokens on the Emulated A100: sm_80, 108 "
                   "multiprocessors\n");
    for (int i = 0; i < KERNELS; ++i) {
        char row[80];
        snprintf(row, sizeof row, "\n%s ", kernels[i]);
        const char *first = strstr(result.output, row);
        cr_assert_not_null(first, "%s: %s", kernels[i], result.output);
        cr_expect_not_null(strstr(first + 1, row), "%s is not among the classes", kernels[i]);
    }
    cr_expect_null(strstr(result.output, "swiglu_nobias_fill"), "%s", result.output);
    program_result_free(&result);
}

static json_t *number(const json_t *kernel, const char *name)
{
    json_t *value = json_object_get(kernel, name);
    cr_assert(json_is_number(value), "%s is no number", name);
    return value;
}

/* Of the family of sm_90a. */
static void expect_kernel(const json_t *kernel, const char *step)
{
    char name[80];
    snprintf(name, sizeof name, "%s_sm_90a", step);
#define IS_THERE(field, unit, meaning) number(kernel, #field);
    EMU_COUNTERS(IS_THERE)
#undef IS_THERE
#define CLASS_IS_THERE(id, field, meaning)                                                         \
    number(json_object_get(kernel, "warp_instructions"), #field);                                  \
    number(json_object_get(kernel, "lane_instructions"), #field);
    EMU_CLASSES(CLASS_IS_THERE)
#undef CLASS_IS_THERE
    cr_expect_str_eq(json_string_value(json_object_get(kernel, "name")), name);
    cr_expect_eq(json_integer_value(number(kernel, "launches")), 1);
    cr_expect_geq(json_integer_value(number(kernel, "tensor_flops")),
                  (json_int_t)json_number_value(number(kernel, "plan_flops")));
    cr_expect_float_eq(json_number_value(number(kernel, "plan_bytes")),
                       json_number_value(number(kernel, "bytes_touched")),
                       0.02 * json_number_value(number(kernel, "plan_bytes")));
    cr_expect_eq(json_integer_value(number(kernel, "shared_excess")), 0);
    cr_expect_eq(json_integer_value(number(kernel, "spill_store_bytes")), 0);
    cr_expect_eq(json_integer_value(number(kernel, "spill_load_bytes")), 0);
    cr_expect_gt(json_integer_value(number(kernel, "registers")), 100);
}

Test(bench_counters, json_has_every_counter_by_its_name)
{
    program_result result = program_run((const char *const[]){
        "/bin/sh", "-c",
        MEGAMLP_BENCH " counters " SPEC " --arch sm_90 --tile 128x128 --tokens 256 --json "
                      "2>/dev/null",
        NULL});
    json_error_t error;
    json_t *root = json_loads(result.output, 0, &error);
    cr_assert_not_null(root, "line %d: %s: %s", error.line, error.text, result.output);
    cr_expect_eq(result.exit_code, 0);
    cr_expect_eq(json_integer_value(number(root, "tokens")), TOKENS);
    cr_expect_eq(json_integer_value(number(root, "multiprocessors")), 132);
    cr_expect_str_eq(json_string_value(json_object_get(root, "arch")), "sm_90");
    cr_expect_str_eq(json_string_value(json_object_get(root, "device")), "Emulated H100");
    json_t *list = json_object_get(root, "kernels");
    cr_assert_eq(json_array_size(list), KERNELS);
    for (int i = 0; i < KERNELS; ++i)
        expect_kernel(json_array_get(list, (size_t)i), kernels[i]);
    json_decref(root);
    program_result_free(&result);
}

/* ---- arguments ------------------------------------------------------------------------------ */

static const struct argument_case {
    const char *arguments[6];
    int exit_code;
    const char *line;
} argument_cases[] = {
    {{NULL}, 2, "needs one of: jit, counters, emulator, checkpoint"},
    {{"counts"}, 2, "'counts': is not one of jit, counters, emulator, checkpoint"},
    {{"counters"}, 2, "counters needs a SPEC.lua"},
    {{"counters", SPEC}, 2, "counters needs --tokens N"},
    {{"counters", SPEC, "--tokens", "0"},
     2,
     "--tokens 0: is not a whole number from 1 to 2147483647"},
    {{"counters", SPEC, "--tokens", "8k"}, 2, "--tokens 8k: is not a whole number"},
    {{"counters", SPEC, SPEC, "--tokens=8"}, 2, "too many arguments"},
    {{"counters", SPEC, "--tokens=8", "--arch=sm_75"}, 2, "--arch sm_75: the emulator knows sm_80"},
    {{"counters", SPECS "/missing.lua", "--tokens=8"}, 3, "missing.lua"},
    {{"emulator", "--json"}, 2, "--tokens and --json go with counters"},
    {{"jit", SPEC, "--tokens=8"}, 2, "--tokens and --json go with counters"},
};

Test(bench_counters, bad_arguments_get_one_line_and_an_exit_code)
{
    for (size_t i = 0; i < sizeof argument_cases / sizeof argument_cases[0]; ++i) {
        const struct argument_case *c = &argument_cases[i];
        const char *arguments[8] = {MEGAMLP_BENCH};
        memcpy(&arguments[1], c->arguments, sizeof c->arguments);
        program_result result = program_run(arguments);
        program_expect(&result, c->exit_code, c->line);
        program_result_free(&result);
    }
}

Test(bench_counters, without_arch_the_emulated_device_decides)
{
    setenv("MMLP_EMULATOR_DEVICE", "l40s", 1);
    program_result result =
        program_run((const char *const[]){MEGAMLP_BENCH, "counters", SPEC, "--tokens=1", NULL});
    program_expect(&result, 0, "one training step of 1 tokens on the Emulated L40S: sm_89, 142");
    program_result_free(&result);
    result = program_run(
        (const char *const[]){MEGAMLP_BENCH, "counters", SPEC, "--tokens=1", "--arch=sm_80", NULL});
    program_expect(&result, 4, "--arch sm_80: the device (Emulated L40S) is sm_89");
    program_result_free(&result);
}
