/*
 * plan.h: what runs when. plan_build turns a checked spec into steps, buffers and tile choices; the
 * bundle writer prints kernels from it, and plan_print shows it to a person. Nothing here knows
 * Lua.
 */
#ifndef MMLP_GENERATOR_PLAN_H
#define MMLP_GENERATOR_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#include "expr.h"
#include "spec.h"

enum {
    PLAN_NOMINAL_TOKENS = 4096, /* tiles are chosen for this many */
    PLAN_STEPS_MAX = 8,
    PLAN_BUFFERS_MAX = 4,
    PLAN_INPUTS_MAX = 8,
    PLAN_NAMES_MAX = 12,
    PLAN_TILES_MAX = 4,
    PLAN_THREADS_PER_WARP = 32
};

/* What the kernels of one family were written and tuned for. */
typedef struct plan_family {
    const char *name; /* "sm_80" */
    const char *device;
    int sm_count;
    int64_t shared_per_sm,
        shared_per_block;     /* the latter the least of all architectures it runs on */
    int fma_per_clock;        /* of one SM's tensor cores, 16-bit operands */
    int load_bytes_per_clock; /* of one SM from L2 */
} plan_family;

/* The family that runs on "sm_90", ..., or NULL. */
const plan_family *plan_family_of(const char *arch);
/* Every architecture `megamlp-gen check` builds by default, NULL at the end. */
extern const char *const plan_architectures[];

typedef struct plan_tile {
    int tile_m, tile_n, tile_k; /* tile_n counts accumulator columns */
    int stages, warps_m, warps_n;
} plan_tile;

typedef struct plan_candidate {
    plan_tile tile;
    int64_t shared_bytes, tiles;
    int resident; /* blocks on one SM */
    int64_t waves;
    double kiloclocks; /* estimated, at the nominal number of tokens */
} plan_candidate;

typedef enum plan_input_kind {
    PLAN_INPUT_ACCUMULATOR,
    PLAN_INPUT_COLUMN, /* of the storage type, one for each output column */
    PLAN_INPUT_ROW     /* fp32, one for each token */
} plan_input_kind;

typedef struct plan_input {
    const char *name;   /* in the expression: "gate_bias" */
    const char *tensor; /* "linear_fc1.bias"; NULL for accumulators */
    plan_input_kind kind;
    int64_t column_offset;
} plan_input;

/* What happens between the accumulators and the store: one expression with one result. */
typedef struct plan_epilogue {
    program graph; /* simplified */
    int result;
    plan_input inputs[PLAN_INPUTS_MAX];
    int input_count;
    expr_name names[PLAN_NAMES_MAX]; /* variables of the printed expression */
    int name_count;
    char *activation_variable; /* owned; one of the names */
} plan_epilogue;

typedef enum plan_step_kind { PLAN_GEMM, PLAN_ELEMENTWISE, PLAN_COLLECTIVE } plan_step_kind;

typedef struct plan_step {
    plan_step_kind kind;
    const char *pass, *name;    /* "forward", "linear_fc1" */
    const char *input, *output; /* tensors */
    const char *weight;         /* GEMM */
    const char *raw_store;      /* GEMM: the tensor that gets the accumulators, or NULL */
    int halves;                 /* GEMM: 2 when gate and up share a tile */
    int64_t n, k, columns;      /* GEMM: accumulator columns, reduction, output columns */
    double flops_per_token;     /* GEMM */
    double weight_bytes;        /* read once a call */
    double bytes_per_token;     /* read and written once a token */
    plan_epilogue epilogue;     /* GEMM and elementwise */
    plan_candidate candidates[PLAN_TILES_MAX];
    int candidate_count, chosen; /* GEMM */
} plan_step;

typedef enum plan_lifetime { PLAN_SAVED, PLAN_SCRATCH } plan_lifetime;

typedef struct plan_buffer {
    const char *name;
    plan_lifetime lifetime;
    spec_dtype dtype;
    int64_t columns;
    const char *written_by, *read_by;
} plan_buffer;

typedef enum plan_fc2_bias {
    PLAN_FC2_BIAS_NONE,
    PLAN_FC2_BIAS_RETURNED,
    PLAN_FC2_BIAS_FOLDED,
    PLAN_FC2_BIAS_ADDED
} plan_fc2_bias;

typedef struct plan {
    const module_spec *spec; /* borrowed */
    const plan_family *family;
    const char *arch; /* borrowed */
    int64_t hidden_size;
    int64_t ffn_hidden_size; /* of a rank */
    int64_t fc1_output_size; /* of a rank */
    int64_t ranks;
    plan_fc2_bias fc2_bias;
    bool has_clamp_or_relu;
    plan_step steps[PLAN_STEPS_MAX];
    int step_count;
    plan_buffer buffers[PLAN_BUFFERS_MAX];
    int buffer_count;
    plan_epilogue reference_activation, reference_output;
} plan;

/* arch NULL: "sm_80". The spec must outlive the plan. ERROR_UNSUPPORTED: no kernels for arch. */
mmlp_status plan_build(plan *out, const module_spec *spec, const char *arch);
void plan_free(plan *p); /* a zeroed plan is valid */

/* Readable, aligned text; the same for the same spec and architecture. */
mmlp_status plan_print(text *out, const plan *p);

const char *plan_fc2_bias_name(plan_fc2_bias bias);
const char *plan_lifetime_name(plan_lifetime lifetime);

/* ---- within the plan's files ----------------------------------------------------------------- */

/* What the fc1 and fc2 epilogues compute. with_bias: the fc2 bias, where it is not returned. */
mmlp_status plan_fc1_epilogue(plan_epilogue *out, const plan *p);
mmlp_status plan_fc2_epilogue(plan_epilogue *out, const plan *p, bool with_bias);
void plan_epilogue_free(plan_epilogue *epilogue);
/* Fills the step's candidates and chooses the one with the least estimate. */
void plan_choose_tile(plan_step *step, const plan_family *family);

#endif
