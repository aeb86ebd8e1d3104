/*
 * adversarial.c: a training step under schedules that a GPU may choose but seldom does: orders of
 * warps and blocks, short and long turns, copies that land at the last moment. None may change a
 * bit. Approximate instructions with the largest errors that PTX allows may, within the limits of
 * fp64.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loaded_mlp.h"
#include "scheduled.h"
#include "training_step.h"

#define REQUIRE(call) cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())

/* No size is a multiple of a tile. */
enum { TOKENS = 93, HIDDEN = 72, FFN = 136, SCHEDULES = 50, ADVERSE_SEEDS = 8 };

typedef struct trained_spec {
    const char *name, *fields, *params;
} trained_spec;

/* With bias and scale every kernel runs. */
#define BF16  "params_dtype = 'bf16', add_bias_linear = true, num_moe_experts = 2, "
#define FP32  "params_dtype = 'fp32', add_bias_linear = true, num_moe_experts = 2, "
#define SCALE "is_expert = true, per_token_scale = true"
static const trained_spec specs[] = {
    {"bf16 swiglu", BF16 "activation_func = F.silu, gated_linear_unit = true", SCALE},
    {"fp32 gelu", FP32 "activation_func = F.gelu", SCALE},
};
enum { SPECS = sizeof specs / sizeof *specs };

/* What a step leaves: its outputs, or the lines of results that are over their limits. */
typedef enum wanted { OUTPUTS, LINES } wanted;

typedef struct run {
    const trained_spec *spec;
    wanted what;
} run;

static unsigned char *run_here(const void *argument, size_t *bytes)
{
    const run *r = argument;
    loaded_mlp loaded;
    training_step step;
    step_options options = {.tokens = TOKENS, .seed = 5};
    mmlp_context *context = loaded_device();
    char *content = loaded_spec(HIDDEN, FFN, r->spec->fields, r->spec->params), *lines = NULL;
    loaded_open(&loaded, context, content, TOKENS, 0, "128x128");
    free(content);
    step_start(&step, context, loaded.bundle, loaded.mlp, &options);
    REQUIRE(step_run(&step, loaded.mlp));
    unsigned char *left;
    if (r->what == OUTPUTS) {
        left = step_outputs(&step, bytes);
    } else {
        step_download(&step);
        int over = step_check(&step, loaded.mlp, &lines);
        left = (unsigned char *)(lines ? lines : strdup(""));
        *bytes = strlen((char *)left);
        cr_assert((over > 0) == (*bytes > 0));
    }
    step_finish(&step);
    loaded_close(&loaded);
    mmlp_context_destroy(context);
    return left;
}

static unsigned char *run_under(const trained_spec *spec, wanted what, const char *schedule,
                                const char *threads, size_t *bytes)
{
    return scheduled_run(run_here, &(run){spec, what}, schedule, threads, bytes);
}

/* All pairings of quanta, copies and elected lanes, each with several seeds. */
static void schedule_word(char word[128], int number)
{
    static const char *const quanta[] = {"", ",quantum=1", ",quantum=7", ",quantum=64",
                                         ",quantum=block"};
    snprintf(word, 128, "%d%s,copies=%s,elect=%s", number, quanta[number % 5],
             number / 5 % 2 ? "late" : "issue", number / 10 % 2 ? "high" : "low");
}

Test(adversarial, no_schedule_changes_a_bit)
{
    for (int i = 0; i < SPECS; i++) {
        size_t bytes, other_bytes;
        unsigned char *usual = run_under(&specs[i], OUTPUTS, "0", "1", &bytes);
        cr_assert_gt(bytes, TOKENS * HIDDEN);
        for (int k = 0; k < SCHEDULES; k++) {
            char word[128];
            schedule_word(word, k);
            unsigned char *other =
                run_under(&specs[i], OUTPUTS, word, k % 2 ? "1" : "2", &other_bytes);
            cr_assert_eq(other_bytes, bytes);
            cr_expect_eq(memcmp(other, usual, bytes), 0, "%s, MMLP_EMULATOR_SCHEDULE=%s",
                         specs[i].name, word);
            free(other);
        }
        free(usual);
    }
}

Test(adversarial, the_largest_errors_of_approximations_stay_within_the_limits)
{
    for (int i = 0; i < SPECS; i++) {
        size_t bytes, exact_bytes;
        unsigned char *exact = run_under(&specs[i], OUTPUTS, "0", "1", &exact_bytes);
        int changed = 0;
        for (int seed = 0; seed < ADVERSE_SEEDS; seed++) {
            char word[64];
            snprintf(word, sizeof word, "%d,approx=adverse", seed);
            unsigned char *lines = run_under(&specs[i], LINES, word, "1", &bytes),
                          *outputs = run_under(&specs[i], OUTPUTS, word, "1", &bytes);
            cr_expect_eq(lines[0], '\0', "%s, MMLP_EMULATOR_SCHEDULE=%s:\n%s", specs[i].name, word,
                         (char *)lines);
            changed += bytes != exact_bytes || memcmp(outputs, exact, bytes) != 0;
            free(lines);
            free(outputs);
        }
        cr_expect_gt(changed, 0, "%s: no error reached the results", specs[i].name);
        free(exact);
    }
}
