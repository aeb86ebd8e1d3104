/*
 * emit.h: the kernels of a plan: their names, launch shapes and CUDA text.
 */
#ifndef MMLP_GENERATOR_EMIT_H
#define MMLP_GENERATOR_EMIT_H

#include "plan.h"
#include "template.h"

enum { EMIT_ARGUMENTS_MAX = 16 };

/* ceil(rows / tile_m) * ceil(columns / tile_n) blocks; rows 0: the tokens. */
typedef struct emit_grid {
    int64_t rows, columns, tile_m, tile_n;
} emit_grid;

typedef struct emit_kernel {
    const plan *plan;
    const plan_step *step; /* NULL: fill */
    const char *pass, *step_name;
    const char *template_name;
    char *entry, *file; /* owned: "llama3_8b_linear_fc1_forward", "linear_fc1_forward.cu" */
    int threads;
    int64_t shared_bytes;
    emit_grid grid;
    int64_t elements_per_block;                /* fill; 0 for all others */
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
/* The kernel of a step: "linear_fc1_forward", "linear_fc2_wgrad"; appended. */
void emit_step_name(text *out, const plan_step *step);

/* ---- within emit's files --------------------------------------------------------------------- */

/* template_bind: fills the table `kernel` that the templates read; user is an emit_kernel. */
mmlp_status emit_bind(lua_State *lua, const void *user);

#endif
