/* ckpt_verify.c: what megamlp-ckpt verify says of files. Definitions: MEGAMLP_CKPT, SPECS. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "program.h"
#include "saved.h"
#include "shard.h"

#define SPEC SPECS "/swiglu_nobias_tp2.lua"

static const shard_model model = {32, 64, true, false, false, "bf16", 0};

TestSuite(ckpt_verify, .init = saved_begin, .fini = saved_end);

/* The output, in which FILE stands for the path. */
static void expect(const char *option, const char *value, int exit_code, const char *wanted)
{
    char text[8192] = "";
    program_result result =
        program_run((const char *const[]){MEGAMLP_CKPT, "verify", path, SPEC, "--prefix",
                                          "decoder.layers.mlp.", option, value, NULL});
    const char *from = result.output, *found;
    while ((found = strstr(from, path))) {
        strncat(text, from, (size_t)(found - from));
        strcat(text, "FILE");
        from = found + strlen(path);
    }
    strcat(text, from);
    cr_expect_str_eq(text, wanted);
    cr_expect_eq(result.exit_code, exit_code);
    program_result_free(&result);
}

Test(ckpt_verify, a_file_that_holds_what_the_spec_needs_is_ok)
{
    shard_model other = model;
    shard_save_all(path, &model, 4);
    expect(NULL, NULL, 0, "FILE: ok\n");
    other.singleton = true;
    shard_save_all(path, &other, 1);
    expect("--singleton", NULL, 0, "FILE: ok\n");
    other = model;
    other.layers = 3;
    shard_save_all(path, &other, 2);
    expect("--offset", "0,2,3", 0, "FILE: ok\n");
}

Test(ckpt_verify, every_difference_is_a_line)
{
    shard_model other = model;
    shard_save_all(path, &model, 1);
    expect(
        "--singleton", NULL, 1,
        "FILE: tensor 'decoder.layers.mlp.linear_fc1.weight_v' is missing; the file has gate and "
        "up in one tensor (no singleton_local_shards)\n"
        "FILE: tensor 'decoder.layers.mlp.linear_fc1.weight_w' is missing; the file has gate and "
        "up in one tensor (no singleton_local_shards)\n"
        "FILE: tensor 'decoder.layers.mlp.linear_fc1.weight' is not wanted\n");
    other.gated = false;
    other.dtype = "fp32";
    shard_save_all(path, &other, 1);
    expect(NULL, NULL, 1,
           "FILE: tensor 'decoder.layers.mlp.linear_fc1.weight' is F32; wanted BF16\n"
           "FILE: tensor 'decoder.layers.mlp.linear_fc1.weight' has the shape [64, 32]; wanted "
           "[128, 32]\n"
           "FILE: tensor 'decoder.layers.mlp.linear_fc2.weight' is F32; wanted BF16\n");
}

Test(ckpt_verify, a_file_that_is_none_is_an_error)
{
    expect(NULL, NULL, 3, "megamlp-ckpt: FILE: cannot open: No such file or directory\n");
    shard_save_all(path, &model, 1);
    cr_assert_eq(truncate(path, 1024), 0);
    expect(NULL, NULL, 3,
           "megamlp-ckpt: FILE: tensor 'decoder.layers.mlp.linear_fc1.weight': data_offsets [0, "
           "8192] lie outside the file's 768 bytes of data\n");
}

static void expect_usage(const char *const arguments[], const char *line)
{
    program_result result = program_run(arguments);
    program_expect(&result, 2, line);
    program_result_free(&result);
}

Test(ckpt_verify, a_rank_or_a_missing_argument_is_a_usage_error)
{
    expect_usage((const char *const[]){MEGAMLP_CKPT, "verify", "a.safetensors", NULL},
                 "megamlp-ckpt: verify needs a FILE.safetensors, and a SPEC.lua or NAME.mlp");
    expect_usage((const char *const[]){MEGAMLP_CKPT, "verify", "a.safetensors", SPEC, "--tp-rank",
                                       "0", NULL},
                 "megamlp-ckpt: verify takes no rank: a file is that of all ranks");
    expect_usage((const char *const[]){MEGAMLP_CKPT, "verify", "a.safetensors", SPEC, "x", NULL},
                 "megamlp-ckpt: 'x': too many arguments");
    expect_usage((const char *const[]){MEGAMLP_CKPT, "plan", SPEC, "x", "--tp-rank", "0", NULL},
                 "megamlp-ckpt: plan takes one file, not 'x' as well");
}
