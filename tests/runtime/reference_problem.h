/*
 * reference_problem.h: small MLPs in memory with numbers for all of their tensors, for tests of the
 * fp64 references. The manifest's reader has tests of its own.
 */
#ifndef REFERENCE_PROBLEM_H
#define REFERENCE_PROBLEM_H

#include "bundle.h"

/* Gated: silu(gate) * up; not gated: tanh(gate); times the scale; the derivative by hand. */
typedef struct variant {
    bool gated, bias, scale;
    mmlp_fc2_bias fc2_bias;
    bool clamp_before_bias;
} variant;

enum { X, W1, B1, W2, B2, SCALE, DY, TENSORS };

typedef struct problem {
    variant variant;
    mmlp_bundle bundle;
    int64_t tokens;
    int64_t shapes[TENSORS][2];
    mmlp_tensor tensors[TENSORS];
    mmlp_reference_backward_args args;
} problem;

/* What a bundle is to the references; free it with problem_free_bundle. */
void problem_make_bundle(mmlp_bundle *b, const variant *v, int64_t hidden, int64_t ffn);
void problem_free_bundle(mmlp_bundle *b);
/* The index of an input of the program, added when new. */
int problem_input(program *p, const char *name);

/* Tensors of doubles in (-1, 1), and arguments that refer to all of them. */
void problem_start(problem *p, variant v, int64_t hidden, int64_t ffn, int64_t tokens);
void problem_finish(problem *p);
bool problem_has(const variant *v, int tensor);
double *problem_values(const problem *p, int tensor);
int64_t problem_elements(const mmlp_tensor *t);
/* Doubles that are NaN (malloc). */
double *problem_doubles(int64_t count);

/* The argument for the gradient of a tensor, room for all that this MLP has, and the pass. */
double **problem_gradient(problem *p, int tensor);
void problem_want_all(problem *p);
void problem_free_gradients(problem *p);
void problem_run(problem *p);

#endif
