/*
 * run_ranks.c: megamlp-run under mpirun: how many ranks, what each takes from a file, and what they
 * say of what is wrong. Definitions: MPIRUN, MEGAMLP_RUN (the programs), SPECS, GOLDEN (folders of
 * test specs and of what Megatron computes for them).
 */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "program.h"
#include "temporary_folder.h"

enum { MOST_ARGUMENTS = 24 };

/* By `ranks` processes, "" for one without mpirun; arguments end with NULL. */
static program_result run(const char *ranks, const char *const arguments[])
{
    const char *all[MOST_ARGUMENTS] = {MPIRUN, "-np", ranks};
    size_t count = ranks[0] ? 3 : 0;
    all[count++] = MEGAMLP_RUN;
    for (size_t i = 0; arguments[i]; ++i)
        all[count++] = arguments[i];
    all[count] = NULL;
    return program_run(all);
}

static size_t count_of(const char *text, const char *part)
{
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part))
        ++count;
    return count;
}

static void expect(const char *ranks, const char *const arguments[], int code, const char *line,
                   size_t times)
{
    program_result result = run(ranks, arguments);
    program_expect(&result, code, line);
    cr_expect_eq(count_of(result.output, line), times, "it printed: %s", result.output);
    program_result_free(&result);
}

#define RANDOM "--device", "emulator", "--random", "1", "--tokens"

/* ---- how many ------------------------------------------------------------------------------- */

Test(run_ranks, another_number_of_ranks_is_told_the_right_one, .timeout = 60)
{
    static const char alone[] =
        "megamlp-run: swiglu_nobias_tp2 has tensor_model_parallel_size 2, and there is 1 rank: "
        "mpirun -np 2 megamlp-run ...\n";
    expect("", (const char *const[]){RANDOM, "4", SPECS "/swiglu_nobias_tp2.lua", NULL}, 2, alone,
           1);
    expect("1", (const char *const[]){RANDOM, "4", SPECS "/swiglu_nobias_tp2.lua", NULL}, 2, alone,
           1);
    expect("3", (const char *const[]){RANDOM, "4", SPECS "/swiglu_nobias_tp2.lua", NULL}, 2,
           "megamlp-run: swiglu_nobias_tp2 has tensor_model_parallel_size 2, and there are 3 "
           "ranks: mpirun -np 2 megamlp-run ...\n",
           3);
    expect("2", (const char *const[]){RANDOM, "4", SPECS "/swiglu_nobias.lua", NULL}, 2,
           "megamlp-run: swiglu_nobias has tensor_model_parallel_size 1, and there are 2 ranks: "
           "mpirun -np 1 megamlp-run ...\n",
           2);
}

Test(run_ranks, what_is_wrong_for_all_is_a_line_of_each, .timeout = 60)
{
    char *folder = temporary_folder_make(), *spec = NULL;
    cr_assert_gt(asprintf(&spec, "%s/bad.lua", folder), 0);
    FILE *file = fopen(spec, "w");
    cr_assert(file && fputs("return ModuleSpec { module = MLP, modul = MLP }\n", file) >= 0);
    fclose(file);
    expect("2", (const char *const[]){RANDOM, "4", spec, NULL}, 3,
           "bad.lua:1:35: unknown field 'modul'", 2);
    free(spec);
    temporary_folder_remove(folder);
}

Test(run_ranks, each_rank_writes_its_results_to_a_file_of_its_own, .timeout = 60)
{
    char *folder = temporary_folder_make(), *out = NULL;
    cr_assert_gt(asprintf(&out, "%s/a.b.safetensors", folder), 0);
    program_result result = run("2", (const char *const[]){RANDOM, "4", "--out", out,
                                                           SPECS "/swiglu_nobias_tp2.lua", NULL});
    cr_expect_eq(result.exit_code, 0, "%s", result.output);
    for (int rank = 0; rank < 2; rank++) {
        char *own = NULL;
        cr_assert_gt(asprintf(&own, "%s/a.b.rank%d.safetensors", folder, rank), 0);
        cr_expect_eq(access(own, R_OK), 0, "%s", own);
        free(own);
    }
    program_result_free(&result);
    free(out);
    temporary_folder_remove(folder);
}

/* Found when all are bound: the first that says so ends the others. */
Test(run_ranks, tokens_that_ranks_cannot_split_are_refused, .timeout = 60)
{
    program_result result =
        run("2", (const char *const[]){RANDOM, "5", SPECS "/swiglu_nobias_tp2_sp.lua", NULL});
    program_expect(&result, 2,
                   "megamlp-run: tokens: found 5, wanted a multiple of the 2 ranks that split them "
                   "(sequence_parallel)\n");
    program_result_free(&result);
}

/* ---- files ---------------------------------------------------------------------------------- */

/* What the file below has for swiglu_nobias_tp2 (hidden_size 32, ffn_hidden_size 64). */
enum { TOKENS = 4, HIDDEN = 32, FC1 = 128, FFN = 64 };
typedef struct entry {
    const char *name;
    int shape[2];
} entry;

/* A bf16 of about +-2^-4, from where it is in which tensor. */
static uint16_t number(size_t tensor, size_t index)
{
    uint32_t word = (uint32_t)(index * 2654435761u + tensor * 40503u);
    word ^= word >> 15;
    return (uint16_t)((word & 0x8000) | 0x3d00 | (word & 0xff));
}

/* Writes the tensors, bf16, to a new file in the folder. */
static char *write_tensors(const char *folder, const entry *entries)
{
    char *path = NULL, header[4096] = "{";
    size_t length = 1, offset = 0;
    cr_assert_gt(asprintf(&path, "%s/in.safetensors", folder), 0);
    for (const entry *e = entries; e->name; ++e) {
        size_t bytes = 2 * (size_t)e->shape[0] * (size_t)e->shape[1];
        length += (size_t)snprintf(
            header + length, sizeof header - length,
            "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%d,%d],\"data_offsets\":[%zu,%zu]}",
            length > 1 ? "," : "", e->name, e->shape[0], e->shape[1], offset, offset + bytes);
        offset += bytes;
    }
    length += (size_t)snprintf(header + length, sizeof header - length, "}");
    cr_assert_lt(length, sizeof header);
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file);
    for (int i = 0; i < 8; ++i)
        fputc((int)((uint64_t)length >> (8 * i) & 255), file);
    fputs(header, file);
    for (const entry *e = entries; e->name; ++e) {
        for (size_t i = 0; i < (size_t)e->shape[0] * (size_t)e->shape[1]; ++i) {
            uint16_t word = number((size_t)(e - entries), i);
            fwrite(&word, sizeof word, 1, file);
        }
    }
    fclose(file);
    return path;
}

static program_result run_on(const char *ranks, const char *spec, const entry *entries)
{
    char *folder = temporary_folder_make(), *path = write_tensors(folder, entries);
    program_result result =
        run(ranks, (const char *const[]){"--device", "emulator", "--check", "--check-tokens", "4",
                                         "--pass", "train", spec, path, NULL});
    free(path);
    temporary_folder_remove(folder);
    return result;
}

/* Whole tensors, as a single rank's file has them. */
/* clang-format off */
#define TOKEN_TENSORS {"hidden_states", {TOKENS, HIDDEN}}, {"grad_output", {TOKENS, HIDDEN}}
#define WHOLE_FC1     {"linear_fc1.weight", {FC1, HIDDEN}}
#define WHOLE_FC2     {"linear_fc2.weight", {HIDDEN, FFN}}
/* clang-format on */

Test(run_ranks, whole_tensors_are_split_over_the_ranks, .timeout = 60)
{
    static const entry whole[] = {TOKEN_TENSORS, WHOLE_FC1, WHOLE_FC2, {0}};
    static const char *const specs[] = {SPECS "/swiglu_nobias_tp2.lua",
                                        SPECS "/swiglu_nobias_tp2_sp.lua"};
    for (size_t i = 0; i < 2; ++i) {
        program_result result = run_on("2", specs[i], whole);
        program_expect(&result, 0, "grad.linear_fc1.weight");
        program_result_free(&result);
    }
}

/* A copy of a golden file in which no rank has a tensor of that name of its own. */
static char *copy_without(const char *folder, const char *golden, const char *name)
{
    enum { MOST_BYTES = 1 << 20 };
    char *path = NULL, *bytes = malloc(MOST_BYTES);
    cr_assert_gt(asprintf(&path, "%s/in.safetensors", folder), 0);
    FILE *from = fopen(golden, "rb"), *to = fopen(path, "wb");
    cr_assert(bytes && from && to, "%s", golden);
    size_t count = fread(bytes, 1, MOST_BYTES, from);
    cr_assert(feof(from));
    for (int rank = 0; rank < 2; ++rank) {
        char own[64];
        int length = snprintf(own, sizeof own, "\"rank%d.%s\"", rank, name);
        char *place = memmem(bytes, count, own, (size_t)length);
        cr_assert_not_null(place, "%s in %s", own, golden);
        memcpy(place, "\"none", 5);
    }
    cr_assert_eq(fwrite(bytes, 1, count, to), count);
    fclose(from);
    fclose(to);
    free(bytes);
    return path;
}

/* The parts must be those that Megatron gives the ranks, whose other tensors are the file's. */
Test(run_ranks, the_part_of_a_rank_is_megatrons, .timeout = 120)
{
    static const struct {
        const char *name, *without;
    } cases[] = {{"swiglu_nobias_tp2", "linear_fc1.weight"},
                 {"swiglu_nobias_tp2", "linear_fc2.weight"},
                 {"gelu_tanh_fused_bias_tp2_sp", "linear_fc1.bias"},
                 {"gelu_tanh_fused_bias_tp2_sp", "hidden_states"},
                 {"gelu_tanh_fused_bias_tp2_sp", "grad_output"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        char *folder = temporary_folder_make(), *spec = NULL, *golden = NULL;
        cr_assert(asprintf(&spec, SPECS "/%s.lua", cases[i].name) > 0 &&
                  asprintf(&golden, GOLDEN "/%s.safetensors", cases[i].name) > 0);
        char *path = copy_without(folder, golden, cases[i].without);
        program_result result =
            run("2", (const char *const[]){"--device", "emulator", "--check", "--pass", "train",
                                           spec, path, NULL});
        program_expect(&result, 0, "grad.linear_fc2.weight");
        program_result_free(&result);
        free(path);
        free(golden);
        free(spec);
        temporary_folder_remove(folder);
    }
}

Test(run_ranks, tensors_that_no_rank_can_take_are_named_by_the_rank_that_cannot, .timeout = 120)
{
    static const struct {
        entry entries[8];
        const char *spec, *line;
        size_t times;
    } cases[] = {
        {{TOKEN_TENSORS,
          WHOLE_FC2,
          {"rank0.linear_fc1.weight", {FC1 / 2, HIDDEN}},
          {"rank1.linear_fc1.weight", {FC1 / 2 - 1, HIDDEN}},
          {0}},
         SPECS "/swiglu_nobias_tp2.lua",
         "tensor 'rank1.linear_fc1.weight' has shape [63, 32], swiglu_nobias_tp2 takes [64, 32]\n",
         1},
        {{TOKEN_TENSORS, WHOLE_FC2, {"rank1.linear_fc1.weight", {FC1 / 2, HIDDEN}}, {0}},
         SPECS "/swiglu_nobias_tp2.lua",
         "tensor 'linear_fc1.weight' is missing\n",
         1},
        /* 64 rows of one rank cannot be halved twice: whole, they would be a rank's of another */
        {{TOKEN_TENSORS, WHOLE_FC2, {"linear_fc1.weight", {FC1 - 2, HIDDEN}}, {0}},
         SPECS "/swiglu_nobias_tp2.lua",
         "tensor 'linear_fc1.weight' has shape [126, 32], swiglu_nobias_tp2 takes [64, 32]\n",
         2},
        {{{"hidden_states", {TOKENS, HIDDEN}},
          {"rank0.grad_output", {TOKENS, HIDDEN}},
          {"rank1.grad_output", {TOKENS / 2, HIDDEN}},
          WHOLE_FC1,
          WHOLE_FC2,
          {0}},
         SPECS "/swiglu_nobias_tp2_sp.lua",
         "tensor 'rank0.grad_output' has shape [4, 32], swiglu_nobias_tp2_sp takes [2, 32]\n",
         1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        program_result result = run_on("2", cases[i].spec, cases[i].entries);
        program_expect(&result, 3, cases[i].line);
        cr_expect_eq(count_of(result.output, cases[i].line), cases[i].times, "it printed: %s",
                     result.output);
        program_result_free(&result);
    }
}
