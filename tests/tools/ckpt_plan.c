/* ckpt_plan.c: what megamlp-ckpt plan prints. Definitions: MEGAMLP_CKPT, SPECS (a folder). */
#include <criterion/criterion.h>
#include <jansson.h>
#include <string.h>

#include "program.h"

static const json_t *entry(const json_t *plan, const char *list, size_t index, const char *key)
{
    return json_object_get(json_array_get(json_object_get(plan, list), index), key);
}

static void expect_list(const json_t *list, const json_int_t *wanted, size_t count)
{
    cr_assert_eq(json_array_size(list), count);
    for (size_t i = 0; i < count; i++)
        cr_expect_eq(json_integer_value(json_array_get(list, i)), wanted[i], "element %zu", i);
}

Test(ckpt_plan, a_rank_of_a_layer_is_described_as_json)
{
    program_result result = program_run((const char *const[]){
        MEGAMLP_CKPT, "plan", SPECS "/swiglu_nobias_tp2.lua", "--tp-rank", "1", "--dp-rank", "5",
        "--offset", "0,3,8", "--prefix", "decoder.layers.mlp.", NULL});
    cr_assert_eq(result.exit_code, 0, "%s", result.output);
    json_t *plan = json_loads(result.output, 0, NULL);
    cr_assert(plan, "%s", result.output);
    cr_assert_eq(json_array_size(json_object_get(plan, "tensors")), 3);
    cr_assert_eq(json_array_size(json_object_get(plan, "objects")), 2);
    cr_expect_str_eq(json_string_value(entry(plan, "tensors", 1, "key")),
                     "decoder.layers.mlp.linear_fc1.weight");
    cr_expect_str_eq(json_string_value(entry(plan, "tensors", 1, "dtype")), "bf16");
    expect_list(entry(plan, "tensors", 1, "local_shape"), (json_int_t[]){32, 32}, 2);
    expect_list(entry(plan, "tensors", 1, "global_shape"), (json_int_t[]){8, 128, 32}, 3);
    expect_list(entry(plan, "tensors", 1, "global_offset"), (json_int_t[]){3, 96, 0}, 3);
    expect_list(entry(plan, "tensors", 1, "axis_fragmentations"), (json_int_t[]){8, 4, 1}, 3);
    expect_list(entry(plan, "tensors", 1, "replica_id"), (json_int_t[]){0, 0, 5}, 3);
    cr_expect_eq(json_integer_value(entry(plan, "tensors", 1, "prepend_axis_num")), 1);
    expect_list(entry(plan, "objects", 0, "global_offset"), (json_int_t[]){3}, 1);
    expect_list(entry(plan, "objects", 0, "replica_id"), (json_int_t[]){0, 1, 5}, 3);
    json_decref(plan);
    program_result_free(&result);
}

static void expect_refused(const char *const arguments[], int exit_code, const char *said)
{
    program_result result = program_run(arguments);
    cr_expect_eq(result.exit_code, exit_code, "%s", result.output);
    cr_expect(strstr(result.output, said), "'%s' is not in\n%s", said, result.output);
    program_result_free(&result);
}

Test(ckpt_plan, what_makes_no_sense_is_refused)
{
    const char *spec = SPECS "/swiglu_nobias_tp2.lua";
    expect_refused((const char *const[]){MEGAMLP_CKPT, "plan", spec, NULL}, 2, "--tp-rank R");
    expect_refused((const char *const[]){MEGAMLP_CKPT, "show", spec, NULL}, 2,
                   "'show': is not plan");
    expect_refused((const char *const[]){MEGAMLP_CKPT, "plan", spec, "--tp-rank", "2", NULL}, 2,
                   "tp_rank is 2; wanted 0 to 1");
    expect_refused((const char *const[]){MEGAMLP_CKPT, "plan", spec, "--tp-rank", "0", "--offset",
                                         "0,3", NULL},
                   2, "--offset 0,3: is not AXIS,INDEX,COUNT");
    expect_refused(
        (const char *const[]){MEGAMLP_CKPT, "plan", SPECS "/none.lua", "--tp-rank", "0", NULL}, 3,
        "none.lua");
}
