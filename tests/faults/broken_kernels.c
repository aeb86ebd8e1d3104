/*
 * broken_kernels.c: breaks kernels that the generator made, runs each, and expects the emulator to
 * say what is wrong and where.
 */
#include <criterion/criterion.h>
#include <driver/cu_emulator.h>
#include <stdlib.h>
#include <string.h>

#include "generated.h"

typedef struct mistake {
    victim kernel;
    const char *from, *to;    /* what is written instead; NULL: the kernel is as it was */
    const char *short_tensor; /* has a row too few, or NULL */
    CUresult result;
    const char *said[3]; /* parts of the report, which names the kernel too */
} mistake;

static void check_mistakes(const mistake *mistakes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const mistake *m = &mistakes[i];
        generated k = generated_read(m->kernel);
        if (m->from)
            generated_replace(&k, m->from, m->to);
        CUresult result = generated_run(&k, m->short_tensor, NULL, NULL);
        const char *report = cuEmulatorLastReport(), *entry = generated_string(&k, "entry");
        cr_expect_eq(result, m->result, "%s, '%s': %d, expected %d\n%s", entry,
                     m->from ? m->to : "", (int)result, (int)m->result, report);
        cr_expect(result == CUDA_SUCCESS || strstr(report, entry), "no %s in\n%s", entry, report);
        for (size_t s = 0; s < sizeof m->said / sizeof *m->said && m->said[s]; s++)
            cr_expect(strstr(report, m->said[s]), "%s, '%s': '%s' is not in\n%s", entry,
                      m->from ? m->to : "", m->said[s], report);
        generated_free(&k);
    }
}
#define CHECK_MISTAKES(table) check_mistakes(table, sizeof(table) / sizeof(table)[0])

/* ---- the mistakes ---------------------------------------------------------------------------- */

Test(broken_kernels, the_kernels_themselves_run_without_a_report)
{
    static const mistake none[] = {
        {FC1_FORWARD, NULL, NULL, NULL, CUDA_SUCCESS, {NULL}},
        {FC2_DGRAD, NULL, NULL, NULL, CUDA_SUCCESS, {NULL}},
        {FC1_WGRAD, NULL, NULL, NULL, CUDA_SUCCESS, {NULL}},
        {BIAS_FC2_DGRAD, NULL, NULL, NULL, CUDA_SUCCESS, {NULL}},
        {BIAS_SUMS, NULL, NULL, NULL, CUDA_SUCCESS, {NULL}},
    };
    setenv("MMLP_EMULATOR_CHECK", "race", 1);
    CHECK_MISTAKES(none);
}

#define NEVER_WRITTEN                                                                              \
    NULL, CUDA_ERROR_LAUNCH_FAILED,                                                                \
    {                                                                                              \
        "never written", "at a shared address", "ldmatrix"                                         \
    }

Test(broken_kernels, a_removed_syncthreads_reads_what_other_warps_have_not_copied)
{
    static const char first[] = "cp_async_wait<stages - 2>();\n    __syncthreads();",
                      in_loop[] = "cp_async_wait<stages - 2>();\n                __syncthreads();",
                      without[] = "cp_async_wait<stages - 2>();";
    static const mistake mistakes[] = {
        {FC1_FORWARD, first, without, NEVER_WRITTEN}, {FC2_DGRAD, first, without, NEVER_WRITTEN},
        {FC2_DGRAD, in_loop, without, NEVER_WRITTEN}, {FC1_WGRAD, first, without, NEVER_WRITTEN},
        {FC1_WGRAD, in_loop, without, NEVER_WRITTEN},
    };
    CHECK_MISTAKES(mistakes);
}

Test(broken_kernels, an_unwritten_stage_is_an_uninitialised_read)
{
    static const mistake mistakes[] = {
        /* The first copies of B are never started. */
        {FC1_FORWARD, "b.load(stage, stage);", "", NEVER_WRITTEN},
        {FC2_DGRAD, "b.load(stage, stage);", "", NEVER_WRITTEN},
        /* The last stage is filled in the loop alone. */
        {FC1_WGRAD, "a.load(free_stage, k_tile + stages - 1);", "", NEVER_WRITTEN},
        /* One stage fewer in the ring than the copies fill. */
        {FC1_DGRAD, "stage + 1 == stages ? 0", "stage + 1 == stages - 1 ? 0", NEVER_WRITTEN},
        /* One group too many may be unfinished. */
        {FC1_WGRAD, "cp_async_wait<stages - 2>();\n    __syncthreads();",
         "cp_async_wait<stages - 1>();\n    __syncthreads();", NEVER_WRITTEN},
    };
    CHECK_MISTAKES(mistakes);
}

#define PAST_THE_END                                                                               \
    CUDA_ERROR_ILLEGAL_ADDRESS,                                                                    \
    {                                                                                              \
        "out of bounds: 16 bytes at a global", "cp.async"                                          \
    }

Test(broken_kernels, a_k_row_past_the_end_is_out_of_bounds)
{
    static const mistake mistakes[] = {
        {FC1_FORWARD, "const int k = k_tile * tile_k;", "const int k = k_tile * tile_k + 8;", NULL,
         PAST_THE_END},
        {FC2_DGRAD, "const long long k = (long long)k_tile * tile_k;",
         "const long long k = (long long)k_tile * tile_k + 1;", NULL, PAST_THE_END},
        {FC1_WGRAD, "k + pass * rows_per_pass < left", "k + pass * rows_per_pass <= left", NULL,
         PAST_THE_END},
    };
    CHECK_MISTAKES(mistakes);
}

Test(broken_kernels, a_buffer_one_row_short_is_out_of_bounds)
{
    static const mistake mistakes[] = {
        {FC1_FORWARD, NULL, NULL, "linear_fc1.weight", PAST_THE_END},
        {FC2_DGRAD, NULL, NULL, "linear_fc2.weight", PAST_THE_END},
        {FC1_WGRAD, NULL, NULL, "hidden_states", PAST_THE_END},
    };
    CHECK_MISTAKES(mistakes);
}

Test(broken_kernels, a_store_is_checked)
{
    static const mistake mistakes[] = {
        {FC2_DGRAD,
         "if (output_row < rows)",
         "if (output_row <= rows)",
         NULL,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"out of bounds", "global"}},
        {FC1_FORWARD,
         "+ column, activation_out",
         "+ column + 1, activation_out",
         NULL,
         CUDA_ERROR_MISALIGNED_ADDRESS,
         {"misaligned", "st.global"}},
        {FC1_WGRAD,
         "+ column, gradient_out",
         "+ column + 1, gradient_out",
         NULL,
         CUDA_ERROR_MISALIGNED_ADDRESS,
         {"misaligned", "st.global"}},
    };
    CHECK_MISTAKES(mistakes);
}

Test(broken_kernels, a_destination_that_is_read_with_beta_0_was_never_written)
{
    static const mistake mistakes[] = {
        {FC1_WGRAD,
         "if (beta != 0)",
         "",
         NULL,
         CUDA_ERROR_LAUNCH_FAILED,
         {"never written", "at a global address", "ld.global"}},
    };
    CHECK_MISTAKES(mistakes);
}

/* ---- races: only the race check finds them, so it is on ----------------------------------------
 */

#define NO_BARRIER                                                                                 \
    NULL, CUDA_ERROR_LAUNCH_FAILED,                                                                \
    {                                                                                              \
        "race: ", "(shared)", "missing     no barrier between them"                                \
    }

Test(broken_kernels, a_removed_syncthreads_of_the_epilogue_is_a_race)
{
    static const char before[] =
        "        __syncthreads();\n#pragma unroll 1\n        for (int row = threadIdx.x",
                      not_before[] = "#pragma unroll 1\n        for (int row = threadIdx.x",
                      after[] = "output_row);\n        }\n        __syncthreads();",
                      not_after[] = "output_row);\n        }";
    static const mistake mistakes[] = {
        {FC1_FORWARD, before, not_before, NO_BARRIER}, {FC1_FORWARD, after, not_after, NO_BARRIER},
        {FC2_DGRAD, before, not_before, NO_BARRIER},   {FC2_DGRAD, after, not_after, NO_BARRIER},
        {FC1_WGRAD, before, not_before, NO_BARRIER},   {FC1_WGRAD, after, not_after, NO_BARRIER},
    };
    setenv("MMLP_EMULATOR_CHECK", "race", 1);
    CHECK_MISTAKES(mistakes);
}

Test(broken_kernels, a_removed_syncthreads_of_column_sums_is_a_race)
{
    static const mistake mistakes[] = {
        {BIAS_FC2_DGRAD, "_sum);\n        __syncthreads();", "_sum);", NO_BARRIER},
        {BIAS_FC2_DGRAD, "__syncthreads();\n        store4(mine,", "store4(mine,", NO_BARRIER},
        /* A race, or a read of what was never written, when the reader comes first. */
        {BIAS_SUMS,
         "sums);\n    __syncthreads();",
         "sums);",
         NULL,
         CUDA_ERROR_LAUNCH_FAILED,
         {"(shared)", "ld.shared"}},
    };
    setenv("MMLP_EMULATOR_CHECK", "race", 1);
    CHECK_MISTAKES(mistakes);
}

Test(broken_kernels, copies_that_are_waited_for_too_late_are_a_race)
{
    static const char in_loop[] = "cp_async_wait<stages - 2>();\n                __syncthreads();";
    static const mistake mistakes[] = {
        /* A stage is refilled while other warps read it. */
        {FC1_FORWARD,
         in_loop,
         "cp_async_wait<stages - 2>();",
         NULL,
         CUDA_ERROR_LAUNCH_FAILED,
         {"race: ", "cp.async", "ldmatrix"}},
        {FC1_FORWARD,
         in_loop,
         "cp_async_wait<stages - 1>();\n                __syncthreads();",
         NULL,
         CUDA_ERROR_LAUNCH_FAILED,
         {"race: read after cp.async's write", "missing     cp.async not waited for", "ldmatrix"}},
    };
    setenv("MMLP_EMULATOR_CHECK", "race", 1);
    CHECK_MISTAKES(mistakes);
}
