/* ckpt_ls.c: what megamlp-ckpt ls prints. Definitions: MEGAMLP_CKPT, GOLDEN (a folder of files). */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"
#include "temporary_folder.h"

/* A file of that header and so many zeros is listed so, or refused so. */
static void expect(const char *header, size_t zeros, int exit_code, const char *wanted)
{
    char *folder = temporary_folder_make(), path[512];
    snprintf(path, sizeof path, "%s/a.safetensors", folder);
    FILE *file = fopen(path, "wb");
    cr_assert(file);
    for (int i = 0; i < 8; i++)
        fputc((int)(strlen(header) >> (8 * i) & 255), file);
    fputs(header, file);
    for (size_t i = 0; i < zeros; i++)
        fputc(0, file);
    cr_assert_eq(fclose(file), 0);
    program_result result = program_run((const char *const[]){MEGAMLP_CKPT, "ls", path, NULL});
    cr_expect_eq(result.exit_code, exit_code, "%s", result.output);
    if (exit_code == 0)
        cr_expect_str_eq(result.output, wanted);
    else
        cr_expect(strstr(result.output, wanted), "'%s' is not in\n%s", wanted, result.output);
    program_result_free(&result);
    temporary_folder_remove(folder);
}

Test(ckpt_ls, tensors_are_listed_in_the_order_in_which_they_lie)
{
    expect("{\"__metadata__\":{\"format\":\"pt\"},"
           "\"step\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[20,28]},"
           "\"a\":{\"dtype\":\"BF16\",\"shape\":[5,1,2],\"data_offsets\":[0,20]},"
           "\"linear_fc1.weight\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[28,28]}}",
           28, 0,
           "tensor             type            bytes  shape\n"
           "a                  BF16               20  [5, 1, 2]\n"
           "step               I64                 8  []\n"
           "linear_fc1.weight  F32                 0  [0, 7]\n"
           "3 tensors, 28 bytes\n");
}

Test(ckpt_ls, a_file_without_tensors_has_none)
{
    expect("{}", 0, 0,
           "tensor  type            bytes  shape\n"
           "0 tensors, 0 bytes\n");
}

Test(ckpt_ls, a_malformed_file_is_named_with_what_is_wrong_in_it)
{
    expect("{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 3, 3,
           "a.safetensors: tensor 'a': data_offsets [0, 4] lie outside the file's 3 bytes of data");
    expect("[]", 0, 3, "a.safetensors: header is not a JSON object");
}

Test(ckpt_ls, megatrons_own_file_is_listed)
{
    program_result result = program_run(
        (const char *const[]){MEGAMLP_CKPT, "ls", GOLDEN "/swiglu_nobias_tp2.safetensors", NULL});
    program_expect(&result, 0, "rank1.linear_fc1.weight       BF16             4096  [64, 32]");
    program_expect(&result, 0, "20 tensors, 109568 bytes");
    program_result_free(&result);
}

static void expect_refused(const char *const arguments[], int exit_code, const char *line)
{
    program_result result = program_run(arguments);
    program_expect(&result, exit_code, line);
    program_result_free(&result);
}

Test(ckpt_ls, what_makes_no_sense_is_refused)
{
    expect_refused((const char *const[]){MEGAMLP_CKPT, NULL}, 2,
                   "megamlp-ckpt: needs one of: plan, verify, ls");
    expect_refused((const char *const[]){MEGAMLP_CKPT, "ls", NULL}, 2,
                   "megamlp-ckpt: ls needs a FILE.safetensors");
    expect_refused((const char *const[]){MEGAMLP_CKPT, "ls", "x", "--singleton", NULL}, 2,
                   "megamlp-ckpt: ls takes no options: those are for plan and verify");
    expect_refused((const char *const[]){MEGAMLP_CKPT, "ls", "x", "y", NULL}, 2,
                   "megamlp-ckpt: ls takes one file, not 'y' as well");
    expect_refused((const char *const[]){MEGAMLP_CKPT, "ls", "/no/such/file", NULL}, 3,
                   "megamlp-ckpt: /no/such/file: cannot open: No such file or directory");
    expect_refused((const char *const[]){MEGAMLP_CKPT, "ls", "/", NULL}, 3,
                   "megamlp-ckpt: /: is not a regular file");
}
