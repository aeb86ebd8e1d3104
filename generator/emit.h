/*
 * emit.h: the kernels of a plan: their names, launch shapes and CUDA text.
 */
#ifndef MMLP_GENERATOR_EMIT_H
#define MMLP_GENERATOR_EMIT_H

#include "plan.h"
#include "template.h"

enum { EMIT_ARGUMENTS_MAX = 10 };

typedef struct emit_kernel {
    const plan *plan;
    const plan_step *step; /* NULL: fill_normal */
    const char *pass, *step_name;
    const char *template_name;
    char *entry, *file; /* owned: "llama3_8b_linear_fc1_forward", "linear_fc1_forward.cu" */
    int threads;
    int64_t shared_bytes, elements_per_block;
    const char *arguments[EMIT_ARGUMENTS_MAX]; /* names of the bundle format */
    int argument_count;
    template_output source;
} emit_kernel;

typedef struct emit_kernels {
    emit_kernel *kernels;
    int count;
} emit_kernels;

/* Every kernel that the planned MLP can ever need, in launch order, with its source.
 * ERROR_UNSUPPORTED names what has no kernels yet. The plan must outlive them. */
mmlp_status emit_plan(emit_kernels *out, const plan *p);
void emit_free(emit_kernels *kernels);

#endif
