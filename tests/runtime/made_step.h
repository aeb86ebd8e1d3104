/*
 * made_step.h: a bundle written by hand, loaded, with every tensor and buffer of a training step of
 * MADE_TOKENS tokens on the device.
 */
#ifndef MADE_STEP_H
#define MADE_STEP_H

#include "made_bundle.h"

enum { MADE_TOKENS = 5, MADE_MAX_TOKENS = 1000, MADE_DEPTH = 3 };

/* The inputs, the outputs of forward, and those of dgrad. */
enum { X, W1, B1, W2, SCALE, OUTPUT, DY, DX, DSCALE, DW1, DB1, DW2, DB2, MADE_TENSORS };

typedef struct made_step {
    made_bundle made;
    mmlp_bundle *bundle;
    mmlp_context *context;
    mmlp_mlp *mlp;
    int64_t shapes[MADE_TENSORS][2];
    mmlp_tensor tensors[MADE_TENSORS];
    float *host[MADE_TENSORS];
    mmlp_memory forward_memory, dgrad_memory;
    void *saved, *scratch, *dgrad_scratch, *pending[MADE_DEPTH];
    mmlp_forward_args forward;
    mmlp_dgrad_args dgrad; /* pending[0], beta 0 */
} made_step;

int64_t made_elements(int tensor);
/* Opens and loads what `made` holds, which is the step's from then on. */
made_step *step_start(made_bundle made, int wgrad_depth);
/* A bundle with a backward pass. */
made_step *step_start_backward(bool delayed, int wgrad_depth);
void step_finish(made_step *s);

/* Copies of a device tensor: into `out`, or from a number that all elements become. */
void step_download(const made_step *s, int tensor, float *out);
void step_fill(const made_step *s, int tensor, float value);
void step_fill_gradients(const made_step *s, float value);

/* The call succeeds. */
void step_forward(made_step *s);
void step_dgrad(made_step *s);
void step_backward_dw(made_step *s);

/* The call is refused with this status and exactly this line. */
void step_expect_forward(made_step *s, mmlp_status status, const char *line);
void step_expect_dgrad(made_step *s, mmlp_status status, const char *line);

#endif
