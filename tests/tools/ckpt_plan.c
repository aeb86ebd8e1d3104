/* ckpt_plan.c: what megamlp-ckpt plan prints. Definitions: MEGAMLP_CKPT and MEGAMLP_GEN (programs),
 * SPECS (a folder), GOLDEN (Megatron's entries). */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"
#include "temporary_folder.h"

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

/* ---- Megatron's own entries ------------------------------------------------------------------ */

enum { PATH_BYTES = 512, OFFSET_BYTES = 64, OFFSETS_MAX = 2 };

static long long number(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static const char *flag(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key)) ? "true" : "false";
}

/* The spec of a case: kernels would refuse its hidden size of 12. */
static void write_spec(const char *path, const json_t *golden, const json_t *one)
{
    FILE *file = fopen(path, "w");
    cr_assert(file);
    fprintf(file,
            "local config = TransformerConfig {\n"
            "  hidden_size = %lld, ffn_hidden_size = %lld, tensor_model_parallel_size = %lld,\n"
            "  gated_linear_unit = %s, activation_func = F.silu, add_bias_linear = %s,\n"
            "  params_dtype = 'bf16',\n"
            "}\n"
            "return ModuleSpec { module = MLP, params = { config = config }, submodules =\n"
            "  MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear } "
            "}\n",
            number(golden, "hidden_size"), number(golden, "ffn_hidden_size"),
            number(one, "tensor_model_parallel_size"), flag(one, "gated_linear_unit"),
            flag(one, "add_bias_linear"));
    cr_assert_eq(fclose(file), 0);
}

static json_t *plan_of(const char *const arguments[])
{
    program_result result = program_run(arguments);
    cr_assert_eq(result.exit_code, 0, "%s", result.output);
    json_t *plan = json_loads(result.output, JSON_REJECT_DUPLICATES, NULL);
    cr_assert(plan, "%s", result.output);
    program_result_free(&result);
    return plan;
}

static json_t *plan_of_rank(const char *spec, const json_t *one, size_t rank)
{
    char ranks[OFFSET_BYTES], offsets[OFFSETS_MAX][OFFSET_BYTES];
    const json_t *listed = json_object_get(one, "sharded_offsets");
    const char *arguments[16] = {MEGAMLP_CKPT, "plan", spec, "--tp-rank", ranks, "--prefix"};
    size_t count = 6;
    snprintf(ranks, sizeof ranks, "%zu", rank);
    arguments[count++] = json_string_value(json_object_get(one, "prefix"));
    cr_assert_leq(json_array_size(listed), OFFSETS_MAX);
    for (size_t i = 0; i < json_array_size(listed); i++) {
        const json_t *offset = json_array_get(listed, i);
        snprintf(offsets[i], sizeof offsets[i], "%lld,%lld,%lld",
                 (long long)json_integer_value(json_array_get(offset, 0)),
                 (long long)json_integer_value(json_array_get(offset, 1)),
                 (long long)json_integer_value(json_array_get(offset, 2)));
        arguments[count++] = "--offset";
        arguments[count++] = offsets[i];
    }
    if (json_is_true(json_object_get(one, "singleton_local_shards")))
        arguments[count++] = "--singleton";
    return plan_of(arguments);
}

/* The golden file's form has no dtype: it is taken out of the plan, and must be the spec's. */
static void take_dtypes(json_t *plan)
{
    size_t i;
    json_t *tensor;
    json_array_foreach(json_object_get(plan, "tensors"), i, tensor)
    {
        cr_expect_str_eq(json_string_value(json_object_get(tensor, "dtype")), "bf16");
        json_object_del(tensor, "dtype");
    }
}

Test(ckpt_plan, every_rank_of_megatrons_cases_is_printed_as_megatron_has_it)
{
    char *folder = temporary_folder_make(), path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/mlp.lua", folder);
    json_t *golden = json_load_file(GOLDEN, 0, NULL);
    const json_t *cases = json_object_get(golden, "cases");
    size_t plans = 0;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *one = json_array_get(cases, i), *ranks = json_object_get(one, "ranks");
        write_spec(path, golden, one);
        for (size_t rank = 0; rank < json_array_size(ranks); rank++, plans++) {
            json_t *plan = plan_of_rank(path, one, rank);
            take_dtypes(plan);
            char *printed = json_dumps(plan, 0);
            cr_expect(json_equal(plan, json_array_get(ranks, rank)), "case %zu, rank %zu: %s", i,
                      rank, printed);
            free(printed);
            json_decref(plan);
        }
    }
    cr_expect_eq(plans, 32 * (1 + 2 + 4));
    json_decref(golden);
    temporary_folder_remove(folder);
}

Test(ckpt_plan, a_spec_and_its_bundle_have_one_plan)
{
    static const char *const specs[] = {"gelu_tanh_fused_bias_tp2", "swiglu_nobias_tp4",
                                        "swiglu_bias_scale_expert", "tokens_fp16"};
    char *folder = temporary_folder_make(), spec[PATH_BYTES], bundle[PATH_BYTES];
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        snprintf(spec, sizeof spec, "%s/%s.lua", SPECS, specs[i]);
        snprintf(bundle, sizeof bundle, "%s/%s.mlp", folder, specs[i]);
        program_result made =
            program_run((const char *const[]){MEGAMLP_GEN, "bundle", spec, "-o", bundle, NULL});
        cr_assert_eq(made.exit_code, 0, "%s", made.output);
        program_result_free(&made);
        json_t *of_spec =
            plan_of((const char *const[]){MEGAMLP_CKPT, "plan", spec, "--tp-rank", "0", NULL});
        json_t *of_bundle =
            plan_of((const char *const[]){MEGAMLP_CKPT, "plan", bundle, "--tp-rank", "0", NULL});
        cr_expect(json_equal(of_spec, of_bundle), "%s", specs[i]);
        json_decref(of_spec);
        json_decref(of_bundle);
    }
    temporary_folder_remove(folder);
}

/* ---- what is refused ------------------------------------------------------------------------- */

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
                   "'show': is not one of plan, verify, ls");
    expect_refused((const char *const[]){MEGAMLP_CKPT, "plan", spec, "--tp-rank", "2", NULL}, 2,
                   "tp_rank is 2; wanted 0 to 1");
    expect_refused((const char *const[]){MEGAMLP_CKPT, "plan", spec, "--tp-rank", "0", "--offset",
                                         "0,3", NULL},
                   2, "--offset 0,3: is not AXIS,INDEX,COUNT");
    expect_refused((const char *const[]){MEGAMLP_CKPT, "plan", spec, "--tp-rank", "0", "--offset",
                                         "0,3,8x", NULL},
                   2, "--offset AXIS,INDEX,COUNT: 8x: is not a whole number");
    expect_refused((const char *const[]){MEGAMLP_CKPT, "plan", spec, "--tp-rank", "0", "--offset",
                                         "0,8,8", NULL},
                   2, "sharded_offsets: index 8 of 8 on axis 0; wanted 0 to 7");
    expect_refused((const char *const[]){MEGAMLP_CKPT, "plan", spec, "--tp-rank", "0", "--offset",
                                         "0,3,8", "--offset", "0,3,8", NULL},
                   2, "sharded_offsets: axis 0 of offset 1; wanted each of 0 to 1 once");
    expect_refused(
        (const char *const[]){MEGAMLP_CKPT, "plan", SPECS "/none.lua", "--tp-rank", "0", NULL}, 3,
        "none.lua");
}
