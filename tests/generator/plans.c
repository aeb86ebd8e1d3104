/*
 * plans.c: what a person sees of a plan, as golden text, and what holds of every plan. After a
 * wanted change: cmake --build BUILD --target update-plans
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "plan.h"
#include "spec_text.h"

static void print_plan(text *out, const char *path)
{
    module_spec spec;
    plan p;
    cr_assert_eq(spec_load(&spec, path, NULL), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(plan_build(&p, &spec, NULL), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(plan_print(out, &p), MMLP_OK, "%s", mmlp_last_error());
    plan_free(&p);
    spec_free(&spec);
}

static void is_golden(const char *spec, const char *name)
{
    char path[512], golden[512];
    text printed = TEXT_INIT;
    snprintf(path, sizeof path, "%s/%s", MMLP_SOURCE_DIR, spec);
    snprintf(golden, sizeof golden, "%s/tests/generator/golden/%s.txt", MMLP_SOURCE_DIR, name);
    print_plan(&printed, path);
    if (getenv("MMLP_UPDATE_PLANS")) {
        cr_assert_eq(file_write_atomic(golden, text_string(&printed), printed.length), MMLP_OK);
    } else {
        char *wanted;
        size_t bytes;
        cr_assert_eq(file_read(&wanted, &bytes, golden), MMLP_OK, "%s", mmlp_last_error());
        cr_assert_str_eq(text_string(&printed), wanted,
                         "%s differs; wanted: cmake --build BUILD --target update-plans", golden);
        free(wanted);
    }
    text_free(&printed);
}

Test(plan_text, llama3_8b)
{
    is_golden("specs/llama3_8b.lua", "llama3_8b");
}

Test(plan_text, gpt3_175b_with_tensor_and_sequence_parallelism)
{
    is_golden("specs/gpt3_175b.lua", "gpt3_175b");
}

Test(plan_text, mixtral_expert_with_scale)
{
    is_golden("specs/mixtral_expert.lua", "mixtral_expert");
}

Test(plan_text, squared_relu_of_ones_own)
{
    is_golden("specs/squared_relu.lua", "squared_relu");
}

Test(plan_text, fused_quick_geglu_clamps_before_the_bias)
{
    is_golden("tests/specs/quick_geglu_bias_scale_fused_clamp_offset.lua",
              "quick_geglu_bias_scale_fused_clamp_offset");
}

Test(plan_text, bias_is_added_after_the_reduction)
{
    is_golden("tests/generator/golden/everything.lua", "everything");
}

/* ---- facts ----------------------------------------------------------------------------------- */

static void build(plan *p, module_spec *spec, const char *fields, const char *params)
{
    char *content = spec_text_config(fields, params);
    cr_assert_eq(spec_text_load(spec, content), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(plan_build(p, spec, NULL), MMLP_OK, "%s", mmlp_last_error());
    free(content);
}

/* The names of the steps, with commas. */
static void steps_are(const char *fields, const char *params, const char *wanted)
{
    module_spec spec;
    plan p;
    text steps = TEXT_INIT;
    build(&p, &spec, fields, params);
    for (int i = 0; i < p.step_count; i++)
        text_printf(&steps, "%s%s", i ? " " : "", p.steps[i].name);
    cr_assert_str_eq(text_string(&steps), wanted);
    text_free(&steps);
    plan_free(&p);
    spec_free(&spec);
}

Test(plan, collectives_stand_where_megatron_has_them)
{
    steps_are("hidden_size = 64", "", "linear_fc1 linear_fc2");
    steps_are("hidden_size = 64, tensor_model_parallel_size = 2", "",
              "linear_fc1 linear_fc2 all_reduce");
    steps_are("hidden_size = 64, tensor_model_parallel_size = 2, sequence_parallel = true", "",
              "all_gather linear_fc1 linear_fc2 reduce_scatter");
    steps_are("hidden_size = 64, tensor_model_parallel_size = 2", "per_token_scale = true",
              "linear_fc1 linear_fc2 all_reduce linear_fc2_bias");
}

Test(plan, an_expert_leaves_communication_to_its_dispatcher)
{
    steps_are("hidden_size = 64, tensor_model_parallel_size = 2, num_moe_experts = 4, "
              "add_bias_linear = false",
              "is_expert = true", "linear_fc1 linear_fc2");
    steps_are("hidden_size = 64, tensor_model_parallel_size = 2, num_moe_experts = 4, "
              "expert_tensor_parallel_size = 1",
              "is_expert = true", "linear_fc1 linear_fc2");
}

Test(plan, sizes_are_those_of_a_rank)
{
    module_spec spec;
    plan p;
    build(&p, &spec, "hidden_size = 64, tensor_model_parallel_size = 4, gated_linear_unit = true",
          "");
    cr_assert_eq(p.ffn_hidden_size, 64);
    cr_assert_eq(p.fc1_output_size, 128);
    plan_free(&p);
    spec_free(&spec);
    build(&p, &spec, "hidden_size = 64, num_moe_experts = 2, moe_ffn_hidden_size = 96",
          "is_expert = true");
    cr_assert_eq(p.ffn_hidden_size, 96);
    plan_free(&p);
    spec_free(&spec);
}

Test(plan, save_activation_moves_its_buffer)
{
    module_spec spec;
    plan p;
    build(&p, &spec, "hidden_size = 64, save_activation = true", "");
    cr_assert_eq(p.buffers[1].lifetime, PLAN_SAVED);
    plan_free(&p);
    spec_free(&spec);
}

Test(plan, an_unknown_architecture_is_refused)
{
    module_spec spec;
    plan p;
    build(&p, &spec, "hidden_size = 64", "");
    plan_free(&p);
    cr_assert_eq(plan_build(&p, &spec, "sm_70"), MMLP_ERROR_UNSUPPORTED);
    cr_assert_str_eq(mmlp_last_error(),
                     "sm_70: no kernels for this architecture; there are for sm_80, sm_86, sm_89, "
                     "sm_90, sm_100, sm_120");
    spec_free(&spec);
}

Test(plan, every_tile_fits_the_smallest_device_of_the_family)
{
    static const char *const shapes[] = {"hidden_size = 8", "hidden_size = 4096",
                                         "hidden_size = 136, gated_linear_unit = true"};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        module_spec spec;
        plan p;
        build(&p, &spec, shapes[i], "");
        for (int s = 0; s < p.step_count; s++)
            for (int c = 0; c < p.steps[s].candidate_count; c++)
                cr_assert_leq(p.steps[s].candidates[c].shared_bytes, 99 << 10);
        plan_free(&p);
        spec_free(&spec);
    }
}
