/*
 * training_step.h: one training step of a bundle on random numbers, checked stage by stage against
 * the fp64 references as the numerics contract says.
 */
#ifndef TRAINING_STEP_H
#define TRAINING_STEP_H

#include <megamlp/megamlp.h>

typedef struct step_options {
    int64_t tokens; /* of all ranks */
    uint64_t seed;
    int beta;                /* of weight and bias gradients */
    int bias_gradients_fp32; /* else params_dtype */
    int device;              /* the context's */
} step_options;

/* What the tensors of a step are, for tests that look at them; names are those of the golden data.
 */
typedef enum step_tensor {
    STEP_HIDDEN_STATES,
    STEP_FC1_WEIGHT,
    STEP_FC1_BIAS,
    STEP_FC2_WEIGHT,
    STEP_FC2_BIAS,
    STEP_SCALE,
    STEP_GRAD_OUTPUT,
    STEP_OUTPUT,
    STEP_GRAD_HIDDEN_STATES,
    STEP_GRAD_SCALE,
    STEP_GRAD_FC1_WEIGHT,
    STEP_GRAD_FC1_BIAS,
    STEP_GRAD_FC2_WEIGHT,
    STEP_GRAD_FC2_BIAS,
    STEP_TENSORS
} step_tensor;

typedef struct step_values {
    mmlp_tensor host, device; /* data NULL: the MLP has none */
    int64_t shape[2];
    size_t bytes;
    double *before; /* gradients with beta 1: what the destination held */
} step_values;

typedef struct training_step {
    mmlp_context *context;
    const mmlp_bundle *bundle;
    mmlp_bundle_properties properties;
    step_options options;
    step_values tensors[STEP_TENSORS];
    void *saved, *pending, *forward_scratch, *dgrad_scratch; /* device */
    mmlp_forward_args forward;
    mmlp_dgrad_args dgrad;
} training_step;

/* Random inputs on host and device; outputs filled with NaN, or with random numbers for beta 1. The
 * test fails when anything fails. mlp tells the memory that is needed. */
void step_start(training_step *step, mmlp_context *context, const mmlp_bundle *bundle,
                const mmlp_mlp *mlp, const step_options *options);
void step_finish(training_step *step);
/* Other numbers in the same memory, outputs included. */
void step_refill(training_step *step, uint64_t seed);
/* Host to device; for tests that changed what the host has. */
void step_upload(training_step *step, step_tensor which);

/* forward, dgrad and, with delay_wgrad_compute, backward_dw. */
mmlp_status step_enqueue(training_step *step, mmlp_mlp *mlp, void *stream);
/* The same on the default stream, waited for. */
mmlp_status step_run(training_step *step, mmlp_mlp *mlp);
/* Fetches the outputs to the host. */
void step_download(training_step *step);
/* The same, and a copy of all of them, one after the other (malloc): what runs are compared by. */
unsigned char *step_outputs(training_step *step, size_t *bytes);

/* Points the fp64 passes at the step's inputs; results and what is stored are left alone. */
void step_reference_inputs(const training_step *step, mmlp_reference_forward_args *forward,
                           mmlp_reference_backward_args *backward);

/* Everything the step has stored against fp64. Returns the number of results over their limit and
 * appends a line for each to `lines` (a malloc'd string, NULL at first). */
int step_check(training_step *step, const mmlp_mlp *mlp, char **lines);

/* How many elements; 0 when the MLP has no such tensor. */
size_t step_count(const training_step *step, step_tensor which);
/* "hidden_states", "grad.linear_fc1.weight" */
const char *step_tensor_name(step_tensor which);
/* Element i of a host tensor. */
double step_element(const mmlp_tensor *host, size_t i);
/* The value is a normal number that the type holds exactly, 0, an infinity or a NaN. */
void step_set_element(const mmlp_tensor *host, size_t i, double value);

#endif
