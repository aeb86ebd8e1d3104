/* run_check.h: compares the results of a forward pass with fp64 and with a file's expected values.
 */
#ifndef MMLP_TOOLS_RUN_CHECK_H
#define MMLP_TOOLS_RUN_CHECK_H

#include "compare.h"
#include "run_tensors.h"

/* The three stored results of a forward pass, on the host. */
enum { RESULT_FC1_OUTPUT, RESULT_ACTIVATION_OUTPUT, RESULT_OUTPUT, RESULT_COUNT };
extern const char *const run_result_names[RESULT_COUNT];

typedef struct run_results {
    run_tensor tensors[RESULT_COUNT];
} run_results;

/* 0, or the exit code after printing why. */
int run_results_download(run_results *out, const run_tensors *t, mmlp_mlp *handle);
void run_results_free(run_results *results);

/* Rows against the fp64 reference for `check_tokens` tokens spread evenly over all; errors[i]
 * receives the error of result i. Stage by stage: the output's reference starts from the stored
 * activation. */
int run_check_reference(compare_table *table, double errors[RESULT_COUNT], const run_tensors *t,
                        const run_results *results, const mmlp_bundle *bundle,
                        int64_t check_tokens);

/* Rows against the expected values that the file holds: the results, and output_bias. */
int run_check_file(compare_table *table, const run_tensors *t, const run_results *results,
                   const safetensors *file, const char *path);

#endif
