/*
 * parallel_step.h: one training step that tensor-parallel ranks share. The whole step is that of
 * one rank; the ranks take their parts of its tensors, and their results are put together again.
 */
#ifndef PARALLEL_STEP_H
#define PARALLEL_STEP_H

#include <stdbool.h>

#include "loaded_mlp.h"
#include "thread_ranks.h"
#include "training_step.h"

/* Kinds of MLPs, of hidden_size 64 and ffn_hidden_size 128. */
enum { PARALLEL_HIDDEN = 64, PARALLEL_FFN = 128 };
typedef enum parallel_kind {
    PARALLEL_ADDED_BIAS,  /* bf16, not gated, a bias that linear_fc2 adds */
    PARALLEL_FOLDED_BIAS, /* fp16, gated, a bias times the per-token scale, main_grad; no
                           * sequence_parallel */
    PARALLEL_DELAYED, /* bf16, gated, no bias, per-token scale, main_grad, delay_wgrad_compute */
    PARALLEL_FP32     /* gated, no bias */
} parallel_kind;

/* The bundle of the kind for so many ranks; the caller's. */
mmlp_bundle *parallel_bundle(parallel_kind kind, int ranks, bool sequence_parallel);

/* Loads the bundle on the rank's device; options may be NULL. */
mmlp_mlp *parallel_load(const thread_rank *rank, const mmlp_bundle *bundle,
                        const mmlp_mlp_options *options);
/* The same, bound to the communicator of all ranks. */
mmlp_mlp *parallel_bind(const thread_rank *rank, const mmlp_bundle *bundle,
                        const mmlp_mlp_options *options);

/* A step of one rank that has run and been fetched, of the bundle of that many tokens. */
void parallel_run_whole(training_step *whole, mmlp_context *context, parallel_kind kind,
                        const step_options *options);

/* Starts the rank's part of the whole step: a step with its parts of all inputs, and of what
 * gradients start from. */
void parallel_start_part(training_step *part, const thread_rank *rank, const mmlp_bundle *bundle,
                         const mmlp_mlp *mlp, const training_step *whole);

typedef struct parallel_results {
    double *values[STEP_TENSORS]; /* of the whole step; NaN until a rank has put it there */
} parallel_results;
void parallel_results_start(parallel_results *out, const training_step *whole);
void parallel_results_free(parallel_results *results);
/* Fetches a rank's results; one rank at a time. The test fails where copies of ranks differ. */
void parallel_put(parallel_results *out, const thread_rank *rank, training_step *part);
/* What ranks have not summed is the whole step's bit for bit, the rest within the contract. parts:
 * of the ranks' bundle. */
void parallel_compare(const parallel_results *found, const training_step *whole,
                      const mmlp_bundle_properties *parts, const char *what);

#endif
