/*
 * emit.h: the kernels of a plan: their names, launch shapes and CUDA text.
 */
#ifndef MMLP_GENERATOR_EMIT_H
#define MMLP_GENERATOR_EMIT_H

#include "plan.h"
#include "template.h"

enum { EMIT_ARGUMENTS_MAX = 16, EMIT_MAPS_MAX = 8, EMIT_MAP_NAME_BYTES = 48 };

/*
 * A tensor map, a kernel's parameter that the runtime makes for every launch: boxes of a matrix
 * [rows, columns] of a tensor whose rows are `stride` elements apart and that begins at column
 * `first_column`; planes > 1: so many such matrices, one behind the other. 128 bytes of a box are
 * one row in shared memory, swizzled.
 */
typedef struct emit_map {
    char name[EMIT_MAP_NAME_BYTES]; /* of the parameter: "map_a" */
    const char *tensor;
    spec_dtype dtype;
    int64_t first_column, rows, columns, stride; /* rows 0: the tokens */
    int planes, box_rows;
    bool optional; /* the tensor may be null */
} emit_map;

/* ceil(rows / tile_m) * ceil(columns / tile_n) blocks; rows 0: the tokens. */
typedef struct emit_grid {
    int64_t rows, columns, tile_m, tile_n;
} emit_grid;

typedef struct emit_kernel {
    const plan *plan;
    const plan_step *step;           /* NULL: fill */
    const plan_candidate *candidate; /* of a GEMM */
    int64_t most_tokens;             /* runs for at most so many tokens, or 0 */
    const char *pass, *step_name;
    const char *template_name;
    char *entry, *file; /* owned: "llama3_8b_linear_fc1_forward", "linear_fc1_forward.cu"; the step
                           of a family of one architecture ends in its name */
    int threads;
    int64_t shared_bytes;
    emit_grid grid;
    int cluster; /* 0: a block for each tile; else blocks of a cluster, which takes tiles in turn */
    bool waits_for_previous;      /* before it touches a tensor: griddepcontrol.wait */
    emit_map maps[EMIT_MAPS_MAX]; /* the first parameters */
    int map_count;
    int64_t elements_per_block;                /* fill; 0 for all others */
    const char *arguments[EMIT_ARGUMENTS_MAX]; /* names of the bundle format */
    int argument_count;
    template_output source;
} emit_kernel;

typedef struct emit_kernels {
    plan *plans; /* of each family that the spec has kernels of; the first runs everywhere */
    int plan_count;
    emit_kernel *kernels;
    int count;
} emit_kernels;

/* Every kernel that the MLP can ever need, on every architecture, in launch order, with its source.
 * A family of one architecture has GEMMs alone: it takes the others from the first.
 * ERROR_UNSUPPORTED names what has no kernels yet. The spec must outlive them. tile: of plan_build.
 */
mmlp_status emit_spec(emit_kernels *out, const module_spec *spec, const char *tile);
void emit_free(emit_kernels *kernels);
/* Whether a device of that architecture ("sm_90", "sm_90a") runs this kernel of its step. */
bool emit_runs_on(const emit_kernels *kernels, int index, const char *arch);
/* The kernel of a step: "linear_fc1_forward", "linear_fc2_wgrad"; appended. */
void emit_step_name(text *out, const plan_step *step);

/* ---- within emit's files --------------------------------------------------------------------- */

/* Fills maps, and arguments with what does not come by one. */
void emit_describe_maps(emit_kernel *kernel);
void emit_add_argument(emit_kernel *kernel, const char *name);

/* template_bind: fills the table `kernel` that the templates read; user is an emit_kernel. */
mmlp_status emit_bind(lua_State *lua, const void *user);

#endif
