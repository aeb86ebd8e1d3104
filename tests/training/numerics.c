/*
 * numerics.c: a training step with each way the emulator can round in its tensor cores: every one
 * is within the limits against fp64, and how far they are apart is printed: it is what a real GPU
 * may differ by.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "compare.h"
#include "loaded_mlp.h"
#include "training_step.h"

#define REQUIRE(call) cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())

enum { TOKENS = 192, HIDDEN = 256, FFN = 520 };

static const char *const modes[] = {"fast", "exact:a100", "exact:ada", "exact:h100", "exact:b200"};
enum { FAST, A100, ADA, H100, B200, MODES };

/* The outputs of a step, as numbers; values NULL: the MLP has no such tensor. */
typedef struct outputs {
    size_t counts[STEP_TENSORS];
    double *values[STEP_TENSORS];
} outputs;

static void write_outputs(const training_step *step, FILE *file)
{
    for (step_tensor i = STEP_OUTPUT; i < STEP_TENSORS; i++) {
        size_t count = step_count(step, i);
        cr_assert(fwrite(&count, sizeof count, 1, file) == 1);
        for (size_t k = 0; k < count; k++) {
            double value = step_element(&step->tensors[i].host, k);
            cr_assert(fwrite(&value, sizeof value, 1, file) == 1);
        }
    }
    cr_assert_eq(fflush(file), 0);
}

static void read_outputs(outputs *out, FILE *file)
{
    *out = (outputs){0};
    rewind(file);
    for (step_tensor i = STEP_OUTPUT; i < STEP_TENSORS; i++) {
        size_t *count = &out->counts[i];
        cr_assert(fread(count, sizeof *count, 1, file) == 1);
        out->values[i] = malloc((*count + 1) * sizeof(double));
        cr_assert(out->values[i] && fread(out->values[i], sizeof(double), *count, file) == *count);
    }
}

/* Runs a step and checks it against fp64; the lines of what fails go to stderr. */
static int run_checked(const char *dtype, FILE *file)
{
    char fields[256], *lines = NULL;
    snprintf(fields, sizeof fields,
             "activation_func = F.silu, gated_linear_unit = true, add_bias_linear = true, "
             "params_dtype = '%s'",
             dtype);
    char *content = loaded_spec(HIDDEN, FFN, fields, "");
    loaded_mlp loaded;
    training_step step;
    step_options options = {.tokens = TOKENS, .seed = 11};
    mmlp_context *context = loaded_device();
    loaded_open(&loaded, context, content, TOKENS, 0, NULL);
    step_start(&step, context, loaded.bundle, loaded.mlp, &options);
    REQUIRE(step_run(&step, loaded.mlp));
    step_download(&step);
    int failed = step_check(&step, loaded.mlp, &lines);
    if (lines)
        fputs(lines, stderr);
    write_outputs(&step, file);
    step_finish(&step);
    loaded_close(&loaded);
    mmlp_context_destroy(context);
    free(lines);
    free(content);
    return failed;
}

/* In a process of its own: the driver reads its environment once. */
static void run_mode(outputs *out, const char *dtype, const char *mode)
{
    FILE *file = tmpfile();
    cr_assert(file);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        setenv("MMLP_EMULATOR_NUMERICS", mode, 1);
        _exit(run_checked(dtype, file) == 0 ? 0 : 1);
    }
    int status;
    cr_assert(waitpid(child, &status, 0) == child && status == 0, "%s with %s: %s", dtype, mode,
              WIFEXITED(status) && WEXITSTATUS(status) == 1 ? "over the limits against fp64"
                                                            : "the run itself failed");
    read_outputs(out, file);
    fclose(file);
}

/* The largest norm-wise difference between two of the modes. */
static double spread_of(const outputs all[MODES], step_tensor which)
{
    double spread = 0;
    for (int i = 0; i < MODES; i++)
        for (int k = 0; k < i; k++)
            spread = fmax(spread, compare_error(all[i].values[which], all[k].values[which], NULL,
                                                all[i].counts[which]));
    return spread;
}

static void print_spread(const outputs all[MODES], const char *dtype)
{
    printf("%-4s %-24s", dtype, "against fast:");
    for (int i = A100; i < MODES; i++)
        printf(" %11s", modes[i]);
    printf("\n");
    for (step_tensor t = STEP_OUTPUT; t < STEP_TENSORS; t++) {
        if (all[FAST].counts[t] == 0)
            continue;
        printf("     %-24s", step_tensor_name(t));
        for (int i = A100; i < MODES; i++)
            printf(" %11.2e",
                   compare_error(all[i].values[t], all[FAST].values[t], NULL, all[i].counts[t]));
        printf("  spread %.2e\n", spread_of(all, t));
    }
    fflush(stdout);
}

static bool is_same(const outputs *a, const outputs *b)
{
    bool same = true;
    for (step_tensor t = STEP_OUTPUT; t < STEP_TENSORS; t++)
        same = same && memcmp(a->values[t], b->values[t], a->counts[t] * sizeof(double)) == 0;
    return same;
}

static void check_dtype(const char *dtype)
{
    outputs all[MODES];
    for (int i = 0; i < MODES; i++)
        run_mode(&all[i], dtype, modes[i]);
    print_spread(all, dtype);
    cr_expect(!is_same(&all[FAST], &all[A100]), "%s: exact:a100 changes nothing", dtype);
    cr_expect(!is_same(&all[A100], &all[H100]), "%s: exact:h100 is exact:a100", dtype);
    /* 16-bit products alone: these differ in 8-bit ones */
    cr_expect(is_same(&all[A100], &all[ADA]), "%s: exact:ada is not exact:a100", dtype);
    cr_expect(is_same(&all[H100], &all[B200]), "%s: exact:b200 is not exact:h100", dtype);
    for (int i = 0; i < MODES; i++)
        for (step_tensor t = STEP_OUTPUT; t < STEP_TENSORS; t++)
            free(all[i].values[t]);
}

Test(numerics, a_bf16_step_is_within_its_limits_on_every_tensor_core)
{
    check_dtype("bf16");
}

Test(numerics, an_fp16_step_is_within_its_limits_on_every_tensor_core)
{
    check_dtype("fp16");
}
