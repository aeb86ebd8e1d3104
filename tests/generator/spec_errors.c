/* spec_errors.c: what a person reads who made a mistake in a spec: whole messages. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdlib.h>

#include "spec_text.h"

static void config_fails(const char *fields, const char *params, const char *message)
{
    char *content = spec_text_config(fields, params);
    spec_text_fails(content, message);
    free(content);
}

Test(spec, unknown_field_suggests_the_nearest)
{
    config_fails("  hidden_size = 64, ffn_hiden_size = 256", "",
                 "bad.lua:2:21: unknown field 'ffn_hiden_size' in TransformerConfig (did you mean "
                 "'ffn_hidden_size'?)");
}

Test(spec, unknown_field_far_from_all_suggests_nothing)
{
    config_fails("  hidden_size = 64,\n  zebra = 1", "",
                 "bad.lua:3:3: unknown field 'zebra' in TransformerConfig");
}

Test(spec, wrong_choice_suggests_the_nearest)
{
    config_fails("  hidden_size = 64,\n  params_dtype = \"bf61\"", "",
                 "bad.lua:3:3: TransformerConfig.params_dtype: \"bf61\" is not one of \"bf16\", "
                 "\"fp16\", \"fp32\" (did you mean \"bf16\"?)");
}

Test(spec, wrong_type_names_both_types)
{
    config_fails("  hidden_size = \"64\"", "",
                 "bad.lua:2:3: TransformerConfig.hidden_size: expected integer, got string");
    config_fails("  hidden_size = 64.5", "",
                 "bad.lua:2:3: TransformerConfig.hidden_size: expected integer, got 64.5");
    config_fails("  hidden_size = 64, gated_linear_unit = 1", "",
                 "bad.lua:2:21: TransformerConfig.gated_linear_unit: expected boolean, got 1");
    config_fails(
        "  hidden_size = 64, activation_func = \"gelu\"", "",
        "bad.lua:2:21: TransformerConfig.activation_func: expected activation, got string; "
        "write F.gelu, without quotes");
    config_fails("  hidden_size = 64, activation_func = function(x) return x end", "",
                 "bad.lua:2:21: TransformerConfig.activation_func: expected activation, got "
                 "function; write activation(\"name\", function)");
}

Test(spec, an_integral_float_is_an_integer)
{
    module_spec spec;
    char *content = spec_text_config("hidden_size = 64.0", "");
    cr_assert_eq(spec_text_load(&spec, content), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(spec.config.hidden_size, 64);
    spec_free(&spec);
    free(content);
}

Test(spec, all_errors_of_one_table_come_together_in_the_order_of_the_text)
{
    config_fails("  params_dtype = 3,\n  hidden_sise = 64,\n  add_bias_linear = \"no\"", "",
                 "bad.lua:1: TransformerConfig.hidden_size is missing\n"
                 "bad.lua:2:3: TransformerConfig.params_dtype: expected string, got 3\n"
                 "bad.lua:3:3: unknown field 'hidden_sise' in TransformerConfig (did you mean "
                 "'hidden_size'?)\n"
                 "bad.lua:4:3: TransformerConfig.add_bias_linear: expected boolean, got string");
}

Test(spec, keys_in_comments_strings_and_inner_tables_are_not_positions)
{
    config_fails("  --[[ ffn_hiden_size = 1 ]] -- ffn_hiden_size = 2\n"
                 "  hidden_size = #\"ffn_hiden_size = 3\" * 8, [ [[fp8_margin_]] ] = "
                 "({ffn_hiden_size = 4})[1],\n"
                 "  [\"ffn_hiden_size\"] = 5",
                 "",
                 "bad.lua:4:3: unknown field 'ffn_hiden_size' in TransformerConfig (did you mean "
                 "'ffn_hidden_size'?)");
}

Test(spec, a_key_that_is_not_literal_has_the_line_alone)
{
    spec_text_fails("local key = \"ffn_hiden_size\"\n"
                    "local t = { hidden_size = 64 }\nt[key] = 1\n"
                    "return TransformerConfig(t)",
                    "bad.lua:4: unknown field 'ffn_hiden_size' in TransformerConfig (did you mean "
                    "'ffn_hidden_size'?)");
}

Test(spec, a_field_that_megatron_has_and_we_do_not_is_named)
{
    config_fails("  hidden_size = 64,\n  fp8 = \"e4m3\"", "",
                 "bad.lua:3:3: not supported yet: TransformerConfig.fp8 (fp8 GEMM operands)");
    config_fails("  hidden_size = 64,\n  moe_latent_size = 32", "",
                 "bad.lua:3:3: not supported yet: TransformerConfig.moe_latent_size (the latent "
                 "width of experts)");
    config_fails("  hidden_size = 64, gated_linear_unit = true, activation_func = F.silu,\n"
                 "  activation_func_fp8_input_store = true",
                 "",
                 "bad.lua:3:3: not supported yet: "
                 "TransformerConfig.activation_func_fp8_input_store (fc1_output saved in fp8)");
}

Test(spec, unsupported_fields_that_are_off_and_unrelated_fields_are_accepted)
{
    module_spec spec;
    char *content =
        spec_text_config("hidden_size = 64, use_kitchen = false, num_attention_heads = 8,"
                         " hidden_dropout = 0.1, expert_model_parallel_size = 4",
                         "");
    cr_assert_eq(spec_text_load(&spec, content), MMLP_OK, "%s", mmlp_last_error());
    spec_free(&spec);
    free(content);
}

Test(spec, sizes_say_the_nearest_that_works)
{
    config_fails(
        "  hidden_size = 12288,\n  ffn_hidden_size = 49172,\n"
        "  tensor_model_parallel_size = 8",
        "",
        "bad.lua:3:3: ffn_hidden_size 49172 / tensor_model_parallel_size 8 = 6146.5 is not "
        "a multiple of 8; nearest that works: 49152");
    config_fails("  hidden_size = 63", "",
                 "bad.lua:2:3: hidden_size 63 is not a multiple of 8; nearest that works: 64");
    config_fails("  hidden_size = 4", "",
                 "bad.lua:2:3: hidden_size 4 is not a multiple of 8; nearest that works: 8");
    config_fails("  hidden_size = 0", "",
                 "bad.lua:2:3: TransformerConfig.hidden_size: 0 is less than 1");
    config_fails("  hidden_size = 1 << 40", "",
                 "bad.lua:2:3: TransformerConfig.hidden_size: 1099511627776 is more than 16777216");
}

static mmlp_status load_any_size(module_spec *out, const char *fields)
{
    char *content = spec_text_config(fields, "");
    spec_text_file("bad.lua", content);
    free(content);
    return spec_load(out, "bad.lua", &(spec_options){.any_size = true});
}

Test(spec, without_kernels_sizes_need_only_be_shared_evenly)
{
    module_spec spec;
    cr_assert_eq(load_any_size(&spec, "  hidden_size = 12, ffn_hidden_size = 6,\n"
                                      "  tensor_model_parallel_size = 2"),
                 MMLP_OK, "%s", mmlp_last_error());
    cr_expect_eq(spec.config.hidden_size, 12);
    spec_free(&spec);
    cr_assert_eq(load_any_size(&spec, "  hidden_size = 3,\n  tensor_model_parallel_size = 8"),
                 MMLP_ERROR_SPEC);
    cr_expect_str_eq(mmlp_last_error(),
                     "bad.lua:1: ffn_hidden_size 12 / tensor_model_parallel_size 8 = 1.5 is not "
                     "a whole number; nearest that works: 8");
}

Test(spec, unknown_names_suggest_the_nearest)
{
    spec_text_fails("\n\n\n\nlocal a = F.gleu",
                    "bad.lua:5: unknown activation 'F.gleu' (did you mean 'F.gelu'?)");
    spec_text_fails("local c = TransfomerConfig {}",
                    "bad.lua:1: unknown name 'TransfomerConfig' (did you mean "
                    "'TransformerConfig'?)");
    spec_text_fails("local c = os.time()", "bad.lua:1: unknown name 'os'");
    spec_text_fails("local c = io_open", "bad.lua:1: unknown name 'io_open'");
}

Test(spec, assignment_to_a_global_is_refused)
{
    spec_text_fails("-- comment\nconfig = 1",
                    "bad.lua:2: assignment to global 'config'; write 'local config'");
}

Test(spec, a_spec_must_return_one_module_spec)
{
    spec_text_fails("", "bad.lua: spec returned nothing, wanted return ModuleSpec { ... }");
    spec_text_fails("return 1, 2", "bad.lua: spec returned 2 values, wanted one ModuleSpec");
    spec_text_fails("return {}", "bad.lua: spec returned table, wanted a ModuleSpec of MLP");
    spec_text_fails("return TransformerConfig { hidden_size = 64 }",
                    "bad.lua: spec returned TransformerConfig, wanted a ModuleSpec of MLP");
    spec_text_fails(
        "return ModuleSpec { module = ColumnParallelLinear }",
        "bad.lua: spec returned the ModuleSpec of a linear, wanted a ModuleSpec of MLP");
}

Test(spec, syntax_errors_have_the_line)
{
    spec_text_fails("local a =\n\n= 3", "bad.lua:3: unexpected symbol near '='");
}

Test(spec, a_byte_order_mark_is_no_part_of_the_text)
{
    spec_text_fails(
        "\xef\xbb\xbfreturn MLPSubmodules { linear_fc1 = ColumnParallelLinear, fc2 = 1,\n"
        "  linear_fc2 = RowParallelLinear }",
        "bad.lua:1:59: unknown field 'fc2' in MLPSubmodules");
    spec_text_file("part.lua", "\xef\xbb\xbfreturn = 1");
    spec_text_fails("include \"part.lua\"", "part.lua:1: unexpected symbol near '='");
}

Test(spec, errors_of_the_spec_itself_have_the_line)
{
    spec_text_fails("\nerror(\"no such model\")", "bad.lua:2: no such model");
    spec_text_fails("error({})", "bad.lua: error was called with a table, wanted a string");
    spec_text_fails("error()", "bad.lua: error was called with a nil, wanted a string");
    spec_text_fails("assert(1 == 2, \"sizes differ\")", "bad.lua:1: sizes differ");
}

Test(spec, a_tail_call_keeps_the_line)
{
    spec_text_fails("local x = 1\nreturn ModuleSpec {\n  module = MLP,\n  parms = {} }",
                    "bad.lua:4:3: unknown field 'parms' in ModuleSpec (did you mean 'params'?)");
}

Test(spec, required_parts_of_a_module_spec)
{
    spec_text_fails("return ModuleSpec { module = MLP }",
                    "bad.lua:1: ModuleSpec.params is missing\n"
                    "bad.lua:1: ModuleSpec.submodules is "
                    "missing");
    spec_text_fails("return ModuleSpec {}", "bad.lua:1: ModuleSpec.module is missing");
    spec_text_fails("return MLPSubmodules { linear_fc1 = RowParallelLinear }",
                    "bad.lua:1: MLPSubmodules.linear_fc2 is missing\n"
                    "bad.lua:1:24: MLPSubmodules.linear_fc1: expected ColumnParallelLinear, got "
                    "RowParallelLinear");
    spec_text_fails("return ModuleSpec(3)",
                    "bad.lua:1: ModuleSpec: expected a table, as in ModuleSpec { ... }");
    spec_text_fails("return TransformerConfig { 64 }",
                    "bad.lua:1: TransformerConfig.hidden_size is missing\n"
                    "bad.lua:1: TransformerConfig: a value without a name (write name = value)");
}

Test(spec, arguments_of_linears_are_checked)
{
    static const char *const cases[][2] = {
        {"ModuleSpec { module = ColumnParallelLinear,\n  params = { bias = true } }",
         "bad.lua:2:14: ModuleSpec.params.bias comes from the MLP; remove it here"},
        {"ModuleSpec { module = RowParallelLinear,\n  params = { stride = 2 } }",
         "bad.lua:2:14: unknown field 'stride' in the params of RowParallelLinear "
         "(ColumnParallelLinear has it)"},
        {"ModuleSpec { module = ColumnParallelLinear,\n  params = { skip_bias = true } }",
         "bad.lua:2:14: unknown field 'skip_bias' in ModuleSpec.params (did you mean "
         "'skip_bias_add'?)"},
        {"ModuleSpec { module = ColumnParallelLinear,\n  params = { init_method = 0.02 } }",
         "bad.lua:2:14: ModuleSpec.params.init_method: expected init.normal, init.zeros or "
         "init.uniform, got 0.02"},
        {"init.uniform(1, 0)", "bad.lua:1: init: expected normal(std >= 0) or uniform(a, b) with a "
                               "<= b"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *content = NULL;
        cr_assert(asprintf(&content, "local l = %s", cases[i][0]) > 0);
        spec_text_fails(content, cases[i][1]);
        free(content);
    }
}

Test(spec, arguments_of_linears_must_be_those_of_the_mlp)
{
    spec_text_fails(
        "local config = TransformerConfig { hidden_size = 64, gated_linear_unit = true }\n"
        "return ModuleSpec { module = MLP, params = { config = config }, submodules = "
        "MLPSubmodules {\n"
        "  linear_fc1 = ModuleSpec { module = ColumnParallelLinear,\n"
        "    params = { stride = 1, gather_output = true } },\n"
        "  linear_fc2 = ModuleSpec { module = RowParallelLinear,\n"
        "    params = { input_is_parallel = false } } } }",
        "bad.lua:4:16: ModuleSpec.params.stride: must be 2 when gated_linear_unit, else 1\n"
        "bad.lua:4:28: ModuleSpec.params.gather_output: the MLP needs the columns of a rank to "
        "stay "
        "there; false is what it passes\n"
        "bad.lua:6:16: ModuleSpec.params.input_is_parallel: the activation is split over ranks; "
        "true "
        "is what the MLP passes");
}

Test(spec, sizes_given_twice_must_agree)
{
    config_fails(
        "hidden_size = 64", "input_size = 32, ffn_hidden_size = 512",
        "bad.lua:4:63: ModuleSpec.params.input_size differs from the config's hidden_size\n"
        "bad.lua:4:80: ModuleSpec.params.ffn_hidden_size differs from the config's: fc2 "
        "always takes its input size from the config");
}

Test(spec, the_file_name_must_be_an_identifier)
{
    module_spec spec;
    spec_text_file("my-mlp.lua", "return 1");
    cr_assert_eq(spec_load(&spec, "my-mlp.lua", NULL), MMLP_ERROR_SPEC);
    cr_assert_str_eq(mmlp_last_error(),
                     "my-mlp.lua: the file's name names the kernels: wanted letters, digits and _ "
                     "(at most 63, no digit first)");
}

Test(spec, a_missing_file_is_an_io_error)
{
    module_spec spec;
    cr_assert_eq(spec_load(&spec, "/nowhere/x.lua", NULL), MMLP_ERROR_IO);
    cr_assert_str_eq(mmlp_last_error(), "/nowhere/x.lua: cannot open: No such file or directory");
}

Test(spec, a_traceback_comes_only_when_asked_for)
{
    module_spec spec;
    spec_text_file("bad.lua", "local function f() error(\"no\") end\nf()");
    cr_assert_eq(spec_load(&spec, "bad.lua", &(spec_options){.traceback = true}), MMLP_ERROR_SPEC);
    cr_assert(strncmp(mmlp_last_error(), "bad.lua:1: no\nstack traceback:\n", 31) == 0, "%s",
              mmlp_last_error());
    cr_assert(strstr(mmlp_last_error(), "bad.lua:2: in main chunk"), "%s", mmlp_last_error());
}
