/* run_check.h: compares the results of a step with fp64 and with a file's expected values. */
#ifndef MMLP_TOOLS_RUN_CHECK_H
#define MMLP_TOOLS_RUN_CHECK_H

#include "compare.h"
#include "ranks.h"
#include "run_step.h"
#include "safetensors.h"

/* All of these return 0, or the exit code after printing why. */

/*
 * Rows against the fp64 references, stage by stage from what the device has stored: results of
 * tokens for `check_tokens` of them, spread evenly over all; gradients of the weights for all of
 * their rows, or for some when they are large. errors[slot] receives the largest error of each
 * slot, and -1 for those that are not compared.
 */
int run_check_reference(compare_table *table, double errors[RUN_SLOT_COUNT], run_step *s,
                        const mmlp_bundle *bundle, int64_t check_tokens, const ranks *r);

/* Rows against the expected values that the file holds: the results, and output_bias. */
int run_check_file(compare_table *table, run_step *s, const mmlp_bundle *bundle,
                   const safetensors *file, const char *path);

/* What ranks do together here: where tokens are split between them, the host copies of the inputs
 * become those of all tokens. To be called first. */
int run_check_gather(run_step *s, const ranks *r);

/* "rank1.output": a row's name, of `name`, on one of several ranks. */
void run_check_name(char out[RUN_NAME_SIZE + 16], const run_step *s, const char *name);

/* One row of a host tensor, whose values and shape it adds to the case, and the row's error. */
int run_check_row(double *error, compare_table *table, const compare_case *c,
                  const run_tensor *actual);
compare_kind run_check_kind(run_slot slot);

/* The inputs of the reference that belong to the step, as host tensors: the parameters. */
mmlp_reference_backward_args run_check_backward_args(run_step *s);

#endif
