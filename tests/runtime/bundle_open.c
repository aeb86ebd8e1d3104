/* bundle_open.c: bundles that are whole, changed, or malformed. */
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bundle.h"
#include "made_bundle.h"

static mmlp_status open_it(const made_bundle *made)
{
    mmlp_bundle *bundle = (mmlp_bundle *)1;
    mmlp_status status = mmlp_bundle_open(&bundle, made->folder);
    if (status != MMLP_OK)
        cr_expect_null(bundle);
    else
        mmlp_bundle_close(bundle);
    return status;
}

Test(bundle, a_whole_one_opens_and_tells_its_properties)
{
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    mmlp_bundle_properties properties = MMLP_BUNDLE_PROPERTIES_INIT;
    cr_assert_eq(mmlp_bundle_get(bundle, &properties), MMLP_OK);
    cr_expect_str_eq(properties.name, "made");
    cr_expect_str_eq(properties.params_dtype, "fp32");
    cr_expect_eq(properties.hidden_size, MADE_HIDDEN);
    cr_expect_eq(properties.ffn_hidden_size, MADE_FFN);
    cr_expect_eq(properties.fc1_output_size, 2 * MADE_FFN);
    cr_expect_eq(properties.gated_linear_unit, 1);
    cr_expect_eq(properties.fc2_bias, MMLP_FC2_BIAS_RETURNED);
    cr_expect_eq(properties.gradient_accumulation_fusion, 1);
    cr_expect_eq(properties.delay_wgrad_compute, 0);
    cr_expect_eq(properties.save_activation, 0);
    cr_expect_str_eq(properties.determinism, "runs repeat bit for bit");
    cr_expect_str_eq(properties.rounding, "nowhere");
    mmlp_bundle_close(bundle);
    made_free(&made);
}

/* Results that an MLP does not have are -1, and the others keep their order. */
Test(bundle, the_results_of_the_backward_program_are_told_apart)
{
    made_bundle made = made_start();
    made_write(&made);
    mmlp_bundle *bundle = NULL;
    cr_assert_eq(mmlp_bundle_open(&bundle, made.folder), MMLP_OK, "%s", mmlp_last_error());
    const bundle_backward_results *r = &bundle->backward_results;
    cr_expect(r->activation == 10 && r->gate == 20 && r->up == 13 && r->gate_bias == 20 &&
              r->up_bias == 13 && r->scale == 21);
    mmlp_bundle_close(bundle);

    json_t *mlp = json_object_get(made.manifest, "mlp");
    json_t *reference = json_object_get(made.manifest, "reference");
    json_object_set_new(mlp, "gated_linear_unit", json_false());
    json_object_set_new(mlp, "fc1_output_size", json_integer(MADE_FFN));
    json_object_set_new(mlp, "add_bias_linear", json_false());
    json_object_set_new(mlp, "fc2_bias", json_string("none"));
    json_t *plain = json_pack("{s:{s:[s,s,s],s:[[s,i],[s,i],[s,i,i]]},s:[i,i,i]}", "program",
                              "inputs", "gate", "scale", "d_activation", "nodes", "input", 0,
                              "input", 1, "mul", 0, 1, "results", 2, 1, 0);
    json_object_set_new(reference, "backward", plain);
    json_object_set_new(reference, "activation",
                        json_pack("{s:{s:[s],s:[[s,i]]},s:[i]}", "program", "inputs", "gate",
                                  "nodes", "input", 0, "results", 0));
    made_write(&made);
    cr_assert_eq(mmlp_bundle_open(&bundle, made.folder), MMLP_OK, "%s", mmlp_last_error());
    r = &bundle->backward_results;
    cr_expect(r->activation == 2 && r->gate == 1 && r->up == -1 && r->gate_bias == -1 &&
              r->up_bias == -1 && r->scale == 0);
    mmlp_bundle_close(bundle);
    made_free(&made);
}

Test(bundle, a_missing_folder_is_named)
{
    mmlp_bundle *bundle;
    cr_assert_eq(mmlp_bundle_open(&bundle, "/nowhere/x.mlp/"), MMLP_ERROR_IO);
    cr_expect_str_eq(mmlp_last_error(),
                     "/nowhere/x.mlp/manifest.json: cannot open: No such file or directory");
}

Test(bundle, a_missing_file_is_named)
{
    made_bundle made = made_start();
    made_write(&made);
    char path[4096];
    snprintf(path, sizeof path, "%s/made_fc2.cu", made.folder);
    unlink(path);
    cr_expect_eq(open_it(&made), MMLP_ERROR_IO);
    cr_expect(strstr(mmlp_last_error(), "made.mlp/made_fc2.cu: cannot open"));
    made_free(&made);
}

Test(bundle, another_format_says_to_generate_again)
{
    made_bundle made = made_start();
    json_object_set_new(made.manifest, "format", json_integer(1));
    made_write(&made);
    cr_expect_eq(open_it(&made), MMLP_ERROR_FORMAT);
    cr_expect(strstr(mmlp_last_error(), "format: found 1, this library reads format 5: generate "
                                        "the bundle again"),
              "%s", mmlp_last_error());
    made_free(&made);
}

Test(bundle, no_byte_of_any_file_can_change_unnoticed)
{
    static const char *const names[] = {"manifest.json", "made_fc1.cu", "made_fc2.cu",
                                        "made_fill.cu"};
    made_bundle made = made_start();
    made_write(&made);
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        size_t count;
        char *bytes = read_whole_file(made.folder, names[n], &count);
        for (size_t i = 0; i < count; i++) {
            bytes[i] ^= (char)(1 << i % 8);
            write_file(made.folder, names[n], bytes, count);
            cr_expect_eq(open_it(&made), MMLP_ERROR_FORMAT, "%s, byte %zu: %s", names[n], i,
                         mmlp_last_error());
            bytes[i] ^= (char)(1 << i % 8);
        }
        write_file(made.folder, names[n], bytes, count);
        write_file(made.folder, names[n], bytes, count / 2);
        cr_expect_eq(open_it(&made), MMLP_ERROR_FORMAT, "%s cut short", names[n]);
        write_file(made.folder, names[n], bytes, count);
        free(bytes);
    }
    cr_expect_eq(open_it(&made), MMLP_OK);
    made_free(&made);
}

/* ---- well-formed JSON that is no manifest --------------------------------------------------- */

/* Sets the value at a path ("kernels.0.threads") to a JSON text; "-" removes it. */
static const struct {
    const char *path, *value, *message;
} wrong[] = {
    {"name", "7", "name: found 7, wanted a string that is not empty"},
    {"name", "\"\"", "name: found \"\", wanted a string that is not empty"},
    {"name", "-", "name: found nothing, wanted a string that is not empty"},
    {"surplus", "1", "surplus: found 1, wanted no such key"},
    {"mlp", "[]", "mlp: found an array of 0, wanted an object"},
    {"mlp.hidden_size", "\"x\"",
     "mlp.hidden_size: found \"x\", wanted an integer from 1 to 16777216"},
    {"mlp.hidden_size", "0", "mlp.hidden_size: found 0, wanted an integer from 1 to 16777216"},
    {"mlp.hidden_size", "-5", "mlp.hidden_size: found -5, wanted an integer from 1 to 16777216"},
    {"mlp.hidden_size", "1e3", "mlp.hidden_size: found 1000, wanted an integer"},
    {"mlp.hidden_size", "9223372036854775807", "mlp.hidden_size: found 9223372036854775807"},
    {"mlp.hidden_size", "null", "mlp.hidden_size: found null"},
    {"mlp.fc1_output_size", "81", "mlp.fc1_output_size: found 81, wanted 80"},
    {"mlp.gated_linear_unit", "1", "mlp.gated_linear_unit: found 1, wanted true or false"},
    {"mlp.params_dtype", "\"fp8\"",
     "mlp.params_dtype: found \"fp8\", wanted \"bf16\" or \"fp16\" or \"fp32\""},
    {"mlp.fc2_bias", "\"none\"",
     "mlp.fc2_bias: found \"none\", wanted \"returned\", \"folded\" or \"added\" where "
     "add_bias_linear is true"},
    {"mlp.add_bias_linear", "false",
     "mlp.fc2_bias: found \"returned\", wanted \"none\" where add_bias_linear is false"},
    {"mlp.delay_wgrad_compute", "-", "mlp.delay_wgrad_compute: found nothing"},
    {"mlp.gradient_accumulation_fusion", "0",
     "mlp.gradient_accumulation_fusion: found 0, wanted true or false"},
    {"initialisation", "-", "initialisation: found nothing, wanted an object"},
    {"initialisation.linear_fc1", "7", "initialisation.linear_fc1: found 7, wanted an object"},
    {"initialisation.linear_fc1.kind", "\"unknown\"",
     "initialisation.linear_fc1.kind: found \"unknown\", wanted \"zeros\" or \"normal\" or "
     "\"uniform\""},
    {"initialisation.linear_fc1.a", "-0.5",
     "initialisation.linear_fc1.a: found -0.5, wanted a standard deviation of at least 0"},
    {"initialisation.linear_fc1.b", "\"x\"",
     "initialisation.linear_fc1.b: found \"x\", wanted a finite number"},
    {"initialisation.linear_fc2.b", "-4",
     "initialisation.linear_fc2.b: found -4, wanted a number of at least a"},
    {"guarantees.rounding", "\"\"",
     "guarantees.rounding: found \"\", wanted a string that is not empty"},
    {"files", "{}", "kernels[0].file: found \"made_fc1.cu\", wanted a key of files"},
    {"files.made_fc1", "3", "files.made_fc1: found 3, wanted 32 hexadecimal digits"},
    {"files.made_fc1", "\"abc\"", "files.made_fc1: found \"abc\", wanted 32 hexadecimal digits"},
    {"files.a/b", "\"00000000000000000000000000000000\"",
     "files: found \"a/b\", wanted a file name without '/'"},
    {"files...", "\"00000000000000000000000000000000\"",
     "files: found \"..\", wanted a file name without '/'"},
    {"collectives", "7", "collectives: found 7, wanted an array of 0 to 8"},
    {"collectives",
     "[{\"pass\": \"init\", \"operation\": \"all_reduce\", \"input\": \"output\", \"output\": "
     "\"output\", \"before\": \"end\"}]",
     "collectives[0].pass: found \"init\""},
    {"collectives",
     "[{\"pass\": \"forward\", \"operation\": \"broadcast\", \"input\": \"output\", \"output\": "
     "\"output\", \"before\": \"end\"}]",
     "collectives[0].operation: found \"broadcast\""},
    {"collectives", "[{}]", "collectives[0]."},
    {"mlp.sequence_parallel", "1", "mlp.sequence_parallel: found 1"},
    {"buffers", "{}", "buffers: found an object, wanted an array of 0 to 16"},
    {"buffers.0", "7", "buffers[0].name: found nothing"},
    {"buffers.0.name", "\"activation_output\"",
     "buffers[1].name: found \"activation_output\", wanted a name of its own"},
    {"buffers.0.lifetime", "\"ever\"", "buffers[0].lifetime: found \"ever\""},
    {"buffers.0.lifetime", "\"pending\"",
     "buffers[0].lifetime: found \"pending\", wanted \"saved\" or \"scratch\" in a forward pass"},
    {"buffers.0.pass", "\"dgrad\"",
     "buffers[0].lifetime: found \"saved\", wanted \"pending\" or \"scratch\" in dgrad"},
    {"buffers.0.pass", "\"backward_dw\"",
     "buffers[0].pass: found \"backward_dw\", wanted \"forward\" or \"dgrad\""},
    {"buffers.0.tokens_per_row", "0",
     "buffers[0].tokens_per_row: found 0, wanted an integer from 1 to 16777216"},
    {"buffers.0.columns", "16777217", "buffers[0].columns: found 16777217"},
    {"kernels", "[]", "kernels: found an array of 0, wanted an array of 1 to 256"},
    {"kernels.0", "null", "kernels[0].entry: found nothing"},
    {"kernels.0.threads", "2048",
     "kernels[0].threads: found 2048, wanted an integer from 1 to 1024"},
    {"kernels.0.waits_for_previous", "1",
     "kernels[0].waits_for_previous: found 1, wanted true or false"},
    {"kernels.0.pass", "\"sideways\"", "kernels[0].pass: found \"sideways\""},
    {"kernels.0.when", "\"sometimes\"",
     "kernels[0].when: found \"sometimes\", wanted \"always\" or \"hidden_states\" or "},
    {"kernels.0.bytes_per_token", "-2", "kernels[0].bytes_per_token: found -2"},
    {"kernels.0.family", "\"ampere\"",
     "kernels[0].family: found \"ampere\", wanted an architecture such as \"sm_80\""},
    {"kernels.0.most_tokens", "-1", "kernels[0].most_tokens: found -1"},
    {"kernels.0.family", "\"sm_99999999999\"", "kernels[0].family: found \"sm_99999999999\""},
    {"kernels.0.grid", "{}", "kernels[0].grid.rows: found nothing"},
    {"kernels.0.grid.tile_m", "0", "kernels[0].grid.tile_m: found 0"},
    {"kernels.2.grid.elements_per_block", "0", "kernels[2].grid.elements_per_block: found 0"},
    {"kernels.0.grid", "{\"elements_per_block\":128}", "kernels[0].grid.rows: found nothing"},
    {"kernels.0.grid",
     "{\"rows\":16777216,\"columns\":128,\"tile_m\":1,\"tile_n\":1,\"cluster\":0}",
     "kernels[0].grid.rows: found 16777216, wanted a grid of at most 2147483647 blocks"},
    {"kernels.0.family", "\"sm_90b\"", "kernels[0].family: found \"sm_90b\""},
    {"kernels.0.grid.cluster", "9",
     "kernels[0].grid.cluster: found 9, wanted an integer from 0 to 8"},
    {"kernels.0.maps", "[{}]", "kernels[0].maps[0].tensor: found nothing"},
    {"kernels.0.maps",
     "[{\"tensor\":\"output\",\"dtype\":\"int8\",\"first_column\":0,\"rows\":0,\"columns\":8,"
     "\"stride\":8,\"planes\":1,\"box_rows\":64}]",
     "kernels[0].maps[0].dtype: found \"int8\", wanted \"bf16\" or \"fp16\" or \"fp32\""},
    {"kernels.0.maps",
     "[{\"tensor\":\"output\",\"dtype\":\"bf16\",\"first_column\":0,\"rows\":0,\"columns\":8,"
     "\"stride\":8,\"planes\":3,\"box_rows\":64}]",
     "kernels[0].maps[0].planes: found 3, wanted an integer from 1 to 2"},
    {"kernels.0.arguments", "[]", "kernels[0].arguments: found an array of 0"},
    {"kernels.0.arguments.0", "5", "kernels[0].arguments: found 5, wanted names of arguments"},
    {"kernels.0.flops_per_token", "-1", "kernels[0].flops_per_token: found -1"},
    {"kernels.0.lines", "[[1,\"a\"]]", "kernels[0].lines: found an array of 2"},
    {"kernels.0.lines", "[[5,\"a\",1],[5,\"a\",2]]", "kernels[0].lines: found an array of 3"},
    {"kernels.0.lines", "[7]", "kernels[0].lines: found 7"},
    {"kernels.0.images", "[{\"target\":\"sm_80\",\"kind\":\"sass\",\"file\":\"made_fc1.cu\"}]",
     "kernels[0].images[0].kind: found \"sass\", wanted \"cubin\" or \"ptx\""},
    {"kernels.0.images", "[{\"target\":\"x\",\"kind\":\"ptx\",\"file\":\"made_fc1.cu\"}]",
     "kernels[0].images[0].target: found \"x\""},
    {"kernels.0.images", "[{\"target\":\"sm_80\",\"kind\":\"ptx\",\"file\":\"other\"}]",
     "kernels[0].images[0].file: found \"other\", wanted a key of files"},
    {"reference.activation", "[]", "reference.activation: found an array of 0, wanted an object"},
    {"reference.activation.results", "[11]",
     "reference.activation.results: found 11, wanted the index of a node"},
    {"reference.activation.results", "[-1]", "reference.activation.results: found -1"},
    {"reference.activation.program.nodes.2", "[\"add\",0,9]", "reference.activation: program: "},
    {"reference.activation.program.nodes.2", "[\"evil\",0]", "unknown operation \"evil\""},
    {"reference.activation.program.inputs.0", "\"weather\"",
     "reference.activation: unknown input \"weather\""},
    {"reference.activation.program.inputs.4", "\"d_activation\"",
     "reference.activation: unknown input \"d_activation\""},
    {"reference.output.program.inputs.0", "\"bias\"", "reference.output: unknown input \"bias\""},
    {"reference.backward", "-", "reference.backward: found nothing, wanted an object"},
    {"reference.backward.results", "[10,20,13,20,13]",
     "reference.backward.results: found an array of 5, wanted an array of 6 to 6"},
    {"reference.backward.results.5", "22",
     "reference.backward.results: found 22, wanted the index of a node"},
    {"reference.backward.program.inputs.5", "\"weather\"",
     "reference.backward: unknown input \"weather\""},
};

static json_t *step_into(json_t *at, const char *key)
{
    return json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
}

static void set_at(json_t *manifest, const char *path, const char *value)
{
    json_t *at = manifest;
    char copy[256];
    snprintf(copy, sizeof copy, "%s", path);
    char *key = copy;
    for (char *dot; (dot = strchr(key, '.')) != NULL && at != json_object_get(manifest, "files");) {
        *dot = '\0';
        at = step_into(at, key);
        key = dot + 1;
    }
    cr_assert_not_null(at);
    if (strcmp(value, "-") == 0) {
        json_object_del(at, key);
        return;
    }
    json_t *parsed = json_loads(value, JSON_DECODE_ANY, NULL);
    cr_assert_not_null(parsed, "%s", value);
    if (json_is_array(at))
        json_array_set_new(at, (size_t)atoi(key), parsed);
    else
        json_object_set_new(at, key, parsed);
}

Test(bundle, a_wrong_value_is_named_with_what_was_wanted)
{
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        made_bundle made = made_start();
        set_at(made.manifest, wrong[i].path, wrong[i].value);
        made_write(&made);
        cr_expect_eq(open_it(&made), MMLP_ERROR_FORMAT, "%s = %s", wrong[i].path, wrong[i].value);
        cr_expect(strstr(mmlp_last_error(), wrong[i].message), "%s = %s gave: %s", wrong[i].path,
                  wrong[i].value, mmlp_last_error());
        made_free(&made);
    }
}

/* ---- text that is no manifest --------------------------------------------------------------- */

static const char *const texts[] = {
    "",
    "\n",
    "{",
    "[]",
    "null",
    "7",
    "\"manifest\"",
    "{\"format\": 4}",
    "{\"format\": 4, \"hash\": \"",
    "{\"format\": 4, \"hash\": \"00000000000000000000000000000000\"}",
    "{\"format\": 4, \"hash\": \"00000000000000000000000000000000\", \"mlp\": 1e999}",
    "{\"format\": 99999999999999999999999999}",
    "{\"format\": 4, \"format\": 1}",
    "{\"format\": 4} trailing",
    "{\"format\": 4, \"name\": \"\\ud800\"}",
    "\xff\xfe{\"format\": 4}",
};

Test(bundle, text_that_is_no_manifest_is_refused)
{
    made_bundle made = made_start();
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        made_write_manifest_text(&made, texts[i]);
        cr_expect_eq(open_it(&made), MMLP_ERROR_FORMAT, "text %zu", i);
    }
    made_free(&made);
}

Test(bundle, deep_nesting_is_refused)
{
    made_bundle made = made_start();
    size_t depth = 1000000;
    char *text = malloc(depth + 1);
    memset(text, '[', depth);
    text[depth] = '\0';
    made_write_manifest_text(&made, text);
    cr_expect_eq(open_it(&made), MMLP_ERROR_FORMAT);
    for (size_t i = 0; i + 5 <= depth; i += 5)
        memcpy(text + i, "{\"a\":", 5);
    made_write_manifest_text(&made, text);
    cr_expect_eq(open_it(&made), MMLP_ERROR_FORMAT);
    free(text);
    made_free(&made);
}

Test(bundle, a_folder_in_place_of_a_file_is_refused)
{
    made_bundle made = made_start();
    json_object_set_new(json_object_get(made.manifest, "files"), "sub",
                        json_string("00000000000000000000000000000000"));
    made_write(&made);
    char command[4200];
    snprintf(command, sizeof command, "mkdir %s/sub", made.folder);
    cr_assert_eq(system(command), 0);
    cr_expect_eq(open_it(&made), MMLP_ERROR_IO);
    cr_expect(strstr(mmlp_last_error(), "made.mlp/sub: not a regular file"));
    made_free(&made);
}
