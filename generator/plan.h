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
    PLAN_STEPS_MAX = 20,
    PLAN_BUFFERS_MAX = 16,
    PLAN_INPUTS_MAX = 8,
    PLAN_OUTPUTS_MAX = 8,
    PLAN_NAMES_MAX = 24,
    PLAN_TILES_MAX = 8,
    PLAN_VARIANTS_MAX = 2,
    PLAN_THREADS_PER_WARP = 32,
    PLAN_SUMMED_COLUMNS = 128, /* of one partial sum of a row: four of each lane of a warp */
    PLAN_SUMMED_ROWS = 128     /* of one partial sum of a column: tokens */
};

/* What the kernels of one family were written and tuned for. */
typedef struct plan_family {
    const char *name; /* "sm_80" */
    const char *device;
    int sm_count;
    int64_t shared_per_sm,
        shared_per_block;     /* the latter the least of all architectures it runs on */
    int fma_per_clock;        /* of one SM's tensor cores, 16-bit operands */
    int fp32_fma_per_clock;   /* of one SM's FMA units */
    int load_bytes_per_clock; /* of one SM from L2 */
    bool is_exact;            /* runs on this architecture alone, "sm_90a" */
    bool has_tensor_maps;     /* TMA and wgmma; blocks take one tile after the other */
} plan_family;

/* The family that runs on "sm_90", ..., or NULL. */
const plan_family *plan_family_of(const char *arch);
/* Every architecture `megamlp-gen check` builds by default, NULL at the end. */
extern const char *const plan_architectures[];
/* "sm_80, sm_86, ..."; appended. */
void plan_print_architectures(text *out);

typedef struct plan_tile {
    int tile_m, tile_n, tile_k; /* tile_n counts accumulator columns */
    int stages, warps_m, warps_n;
    int cluster; /* blocks that share the columns of their tiles; families with tensor maps */
} plan_tile;

/* How long a launch takes, by a model, and why. */
typedef struct plan_estimate {
    int64_t tiles, waves;
    int resident;      /* blocks on one SM */
    double wave_bytes; /* distinct bytes of the operands, summed over waves; with tensor maps */
    double kiloclocks;
    const char *limit; /* what takes longest: "tensor cores"; with tensor maps */
} plan_estimate;

typedef struct plan_candidate {
    plan_tile tile;
    int64_t shared_bytes;
    int staged_panels, input_panels; /* of a warpgroup; families with tensor maps */
    int group_m;                     /* row tiles that share a column of tiles while it is in L2 */
    plan_estimate estimate;          /* at the nominal number of tokens */
} plan_candidate;

/* One kernel of a GEMM: runs where the tokens are at most `most_tokens`, or all that are left
 * where that is 0. */
typedef struct plan_variant {
    int candidate;
    int64_t most_tokens;
} plan_variant;

typedef enum plan_input_kind {
    PLAN_INPUT_ACCUMULATOR,
    PLAN_INPUT_COLUMN, /* of the storage type, one for each output column */
    PLAN_INPUT_ROW,    /* fp32, one for each output row */
    PLAN_INPUT_ELEMENT /* one for each output */
} plan_input_kind;

typedef struct plan_input {
    const char *name;   /* in the expression: "gate_bias" */
    const char *tensor; /* "linear_fc1.bias"; NULL for accumulators */
    plan_input_kind kind;
    int64_t column_offset;
    int64_t stride;       /* ELEMENT: columns of the tensor */
    spec_dtype dtype;     /* ELEMENT */
    bool where_beta_is_1; /* ELEMENT: the destination itself; otherwise 0, and not read */
} plan_input;

typedef enum plan_output_kind {
    PLAN_STORE,
    PLAN_COLUMN_SUMS, /* fp32, over the rows of a tile, of the values as they are stored */
    PLAN_ROW_SUMS     /* fp32, over PLAN_SUMMED_COLUMNS columns */
} plan_output_kind;

typedef struct plan_output {
    plan_output_kind kind;
    const char *name; /* in the kernel: "grad_gate" */
    const char *tensor;
    int64_t column_offset, stride; /* columns of the tensor */
    spec_dtype dtype;              /* STORE */
    bool optional;                 /* STORE: the pointer may be null */
    bool adds_where_beta_is_1;     /* STORE: to the destination, in memory */
} plan_output;

/* What happens between the accumulators and the stores: one expression with a result for each
 * output. */
typedef struct plan_epilogue {
    program graph; /* simplified */
    int results[PLAN_OUTPUTS_MAX];
    plan_output outputs[PLAN_OUTPUTS_MAX];
    int output_count;
    plan_input inputs[PLAN_INPUTS_MAX];
    int input_count;
    expr_name names[PLAN_NAMES_MAX];   /* variables of the printed expression */
    char *owned_names[PLAN_NAMES_MAX]; /* those of the names that are made here */
    int name_count;
} plan_epilogue;

/* Where a store's panel lies in shared memory before a bulk copy takes it away. */
typedef enum plan_place {
    PLAN_PLACE_COPIED, /* staged; the value is an accumulator as it is */
    PLAN_PLACE_STAGED, /* staged; computed */
    PLAN_PLACE_INPUT   /* over the panel of an element input: the n-th such store, the n-th input */
} plan_place;
plan_place plan_store_place(const plan_epilogue *e, int output);

typedef enum plan_pass { PLAN_FORWARD, PLAN_DGRAD, PLAN_BACKWARD_DW, PLAN_PASSES } plan_pass;

typedef enum plan_step_kind {
    PLAN_GEMM,
    PLAN_GRAD_OUTPUT_SUMS, /* first stage: sums over rows and columns of grad_output */
    PLAN_FINISH_COLUMNS,   /* second stage: partial sums of columns to a bias gradient */
    PLAN_FINISH_ROWS,      /* second stage: partial sums of rows to grad.per_token_scale */
    PLAN_ADD_BIAS,         /* the fc2 bias, to an output that was reduced over ranks */
    PLAN_COLLECTIVE
} plan_step_kind;

/* An operand of a GEMM. K-major: the reduction is contiguous in memory; else the other index. */
typedef struct plan_operand {
    const char *tensor;
    bool k_major;
} plan_operand;

typedef struct plan_step {
    plan_step_kind kind;
    plan_pass pass;
    const char *name;           /* "linear_fc1" */
    const char *when;           /* "always", or a tensor: left out in calls without it */
    const char *input, *output; /* all but GEMM: tensors */
    bool local_tokens;        /* its rows are this rank's part of the tokens (sequence_parallel) */
    const char *second_input; /* FINISH_ROWS: more partial sums; GRAD_OUTPUT_SUMS: the folded
                               * bias; or NULL */
    plan_operand a, b;        /* GEMM: [m, k] and [n, k] */
    int halves;               /* GEMM: 2 when gate and up share a tile */
    int64_t m, n, k;          /* GEMM: rows, accumulator columns, reduction; 0: the tokens */
    int64_t columns;          /* of the output; of the partial sums */
    double flops_per_token;   /* GEMM */
    double bytes;             /* distinct bytes of global memory: bytes + */
    double bytes_per_token;   /* tokens * bytes_per_token */
    plan_epilogue epilogue;   /* GEMM and ADD_BIAS */
    plan_candidate candidates[PLAN_TILES_MAX]; /* GEMM */
    int candidate_count;
    plan_variant variants[PLAN_VARIANTS_MAX]; /* GEMM: by rising tokens; the last takes all */
    int variant_count;
    double few_gain; /* how much faster the first of two is, on average, where it runs */
} plan_step;

typedef enum plan_lifetime { PLAN_SAVED, PLAN_SCRATCH, PLAN_PENDING } plan_lifetime;

typedef struct plan_buffer {
    const char *name;
    plan_pass pass; /* that writes it */
    plan_lifetime lifetime;
    spec_dtype dtype;
    int64_t columns;
    int64_t tokens_per_row;
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
    const char *tile; /* borrowed; NULL: the estimates decide */
    int64_t hidden_size;
    int64_t ffn_hidden_size; /* of a rank */
    int64_t fc1_output_size; /* of a rank */
    int64_t ranks;
    bool communicates;      /* the linears do, between the ranks */
    bool sequence_parallel; /* the ranks split the tokens outside */
    plan_fc2_bias fc2_bias;
    bool has_clamp_or_relu;
    plan_step steps[PLAN_STEPS_MAX];
    int step_count;
    plan_buffer buffers[PLAN_BUFFERS_MAX];
    int buffer_count;
    plan_epilogue reference_activation, reference_output, reference_backward;
} plan;

/* arch NULL: "sm_80". tile: "128x256", tile_m by tile_n, or "128x256:2", with its cluster, the
 * only one of each GEMM that can have it, or NULL. The spec must outlive the plan.
 * ERROR_UNSUPPORTED: no kernels for arch. */
mmlp_status plan_build(plan *out, const module_spec *spec, const char *arch, const char *tile);
/* Whether a family has such a tile. */
bool plan_tile_exists(const char *tile);
/* Whether its GEMMs read and write through tensor maps. */
bool plan_has_maps(const plan *p);
void plan_free(plan *p); /* a zeroed plan is valid */

/* The step that waits for a collective, the first that reads its output, or the one behind the last
 * of the call (*at_end). */
int plan_collective_join(const plan *p, int step, bool *at_end);
/* Readable, aligned text; the same for the same spec and architecture. */
mmlp_status plan_print(text *out, const plan *p);
/* What is promised of repeated runs, and where values are rounded: a line each, appended. */
void plan_print_determinism(text *out, const plan *p);
void plan_print_rounding(text *out, const plan *p);

const char *plan_pass_name(plan_pass pass);
const char *plan_fc2_bias_name(plan_fc2_bias bias);
const char *plan_lifetime_name(plan_lifetime lifetime);
/* Of each parameter and gradient: what weight gradients are stored as. */
spec_dtype plan_wgrad_dtype(const plan *p);

/* ---- within the plan's files ----------------------------------------------------------------- */

static inline int64_t plan_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

/* 1234567 FLOP: "1.235 MFLOP". */
void plan_print_scaled(text *out, double value, const char *unit);
void plan_print_collective(text *out, const plan *p, const plan_step *step);
/* What mmlp_mlp_reduce_grads sums, in its order: that in which the passes finish. */
void plan_print_reductions(text *out, const plan *p);
/* What each GEMM's epilogue computes. with_bias: the fc2 bias, where it is not returned. */
mmlp_status plan_fc1_epilogue(plan_epilogue *out, const plan *p);
mmlp_status plan_fc2_epilogue(plan_epilogue *out, const plan *p, bool with_bias);
mmlp_status plan_fc2_dgrad_epilogue(plan_epilogue *out, const plan *p);
/* The accumulators to `tensor` [., columns]; with `accumulate` beta times the destination is added.
 */
mmlp_status plan_store_epilogue(plan_epilogue *out, const plan *p, const char *tensor,
                                spec_dtype dtype, int64_t columns, bool accumulate);
/* The program `backward` of the bundle format, all of its results as outputs. */
mmlp_status plan_backward_reference(plan_epilogue *out, const plan *p);
void plan_epilogue_free(plan_epilogue *epilogue);
/* Fills the step's candidates and chooses its variants by the estimates. */
void plan_choose_tile(plan_step *step, const plan *p);
/* plan_estimate.c: of a launch for so many tokens; fills the best group_m too. */
void plan_estimate_launch(plan_candidate *c, const plan_step *step, const plan_family *family,
                          int64_t tokens);
/* The tokens that variants are compared at. */
enum { PLAN_LADDER_FIRST = 64, PLAN_LADDER_LAST = 16384 };

#endif
