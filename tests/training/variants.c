/*
 * variants.c: a GEMM that has two kernels runs the one that its tokens ask for, and both give what
 * the reference gives.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "loaded_mlp.h"
#include "training_step.h"

enum { KERNELS_MOST = 64 };

/* Runs a step and counts the GEMMs that ran by the other kernel than their tokens ask for. */
static int wrong_kernels(mmlp_context *context, const loaded_mlp *loaded, int64_t tokens,
                         int *few_ran)
{
    double ms[KERNELS_MOST] = {0};
    int count = mmlp_mlp_kernel_count(loaded->mlp), wrong = 0;
    step_options options = {.tokens = tokens, .seed = 3};
    training_step step;
    char *lines = NULL;
    cr_assert_leq(count, KERNELS_MOST);
    step_start(&step, context, loaded->bundle, loaded->mlp, &options);
    cr_assert_eq(mmlp_mlp_time_kernels(loaded->mlp, ms, count), MMLP_OK);
    cr_assert_eq(step_run(&step, loaded->mlp), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(mmlp_mlp_time_kernels(loaded->mlp, NULL, 0), MMLP_OK);
    step_download(&step);
    cr_expect_eq(step_check(&step, loaded->mlp, &lines), 0, "%s", lines);
    step_finish(&step);
    free(lines);
    for (int i = 0; i < count; i++) {
        mmlp_kernel_properties kernel = MMLP_KERNEL_PROPERTIES_INIT;
        cr_assert_eq(mmlp_mlp_kernel(loaded->mlp, i, &kernel), MMLP_OK);
        if (strcmp(kernel.pass, "init") == 0)
            continue;
        bool wanted = tokens >= kernel.least_tokens && tokens <= kernel.most_tokens;
        wrong += wanted != (ms[i] > 0);
        *few_ran += ms[i] > 0 && strstr(kernel.name, "_few_tokens_") != NULL;
    }
    return wrong;
}

/* A gated MLP whose fc1 has two kernels, and the most tokens of the first. */
static int64_t open_pair(loaded_mlp *loaded, mmlp_context *context)
{
    char *content = loaded_spec(512, 640,
                                "gated_linear_unit = true, params_dtype = \"bf16\",\n"
                                "  add_bias_linear = false, activation_func = F.silu",
                                "");
    loaded_open(loaded, context, content, 0, 0, NULL);
    free(content);
    mmlp_kernel_properties kernel = MMLP_KERNEL_PROPERTIES_INIT;
    cr_assert_eq(mmlp_mlp_kernel(loaded->mlp, 0, &kernel), MMLP_OK);
    cr_assert(strstr(kernel.name, "_few_tokens_"), "%s", kernel.name);
    cr_expect_eq(kernel.least_tokens, 0);
    return kernel.most_tokens;
}

Test(variants, tokens_choose_the_kernel)
{
    mmlp_context *context = loaded_device();
    loaded_mlp loaded;
    int few_ran = 0;
    int64_t most = open_pair(&loaded, context);
    cr_expect_eq(wrong_kernels(context, &loaded, most, &few_ran), 0);
    cr_expect_gt(few_ran, 0);
    few_ran = 0;
    cr_expect_eq(wrong_kernels(context, &loaded, most + 1, &few_ran), 0);
    loaded_close(&loaded);
    mmlp_context_destroy(context);
}

Test(variants, inference_saves_nothing_and_gives_the_same)
{
    mmlp_context *context = loaded_device();
    loaded_mlp loaded;
    int64_t most = open_pair(&loaded, context);
    for (int64_t tokens = most; tokens <= most + 1; tokens++) {
        step_options options = {.tokens = tokens, .seed = 4};
        training_step step;
        step_start(&step, context, loaded.bundle, loaded.mlp, &options);
        cr_assert_eq(step_run(&step, loaded.mlp), MMLP_OK, "%s", mmlp_last_error());
        step_download(&step);
        size_t bytes = step.tensors[STEP_OUTPUT].bytes;
        const unsigned char *output = step.tensors[STEP_OUTPUT].host.data;
        unsigned char *trained = malloc(bytes);
        cr_assert_not_null(trained);
        memcpy(trained, output, bytes);
        step.forward.saved = NULL;
        step.forward.saved_bytes = 0;
        cr_assert_eq(mmlp_mlp_forward(loaded.mlp, &step.forward, NULL), MMLP_OK, "%s",
                     mmlp_last_error());
        step_download(&step);
        cr_expect_arr_eq(output, trained, bytes);
        step_finish(&step);
        free(trained);
    }
    loaded_close(&loaded);
    mmlp_context_destroy(context);
}
