/*
 * bundle.h: a bundle in memory, checked. Strings are borrowed from the manifest's JSON, which the
 * bundle keeps. Immutable after mmlp_bundle_open.
 */
#ifndef MMLP_BUNDLE_H
#define MMLP_BUNDLE_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"
#include "base/program.h"

/* ---- bounds of a manifest's numbers --------------------------------------------------------- */

#define BUNDLE_FORMAT          5
#define BUNDLE_MAX_FILE_BYTES  (1 << 28)
#define BUNDLE_MAX_FILES       1024
#define BUNDLE_MAX_SIZE        (1 << 24) /* hidden_size and its like */
#define BUNDLE_MAX_KERNELS     256
#define BUNDLE_MAX_BUFFERS     16
#define BUNDLE_MAX_ARGUMENTS   32
#define BUNDLE_MAX_MAPS        8
#define BUNDLE_MAX_COLLECTIVES 8
#define BUNDLE_MAX_THREADS     1024
#define BUNDLE_MAX_NODES       65536

typedef enum bundle_dtype { BUNDLE_BF16, BUNDLE_FP16, BUNDLE_FP32, BUNDLE_DTYPES } bundle_dtype;
/* "bf16", ... */
const char *bundle_dtype_name(bundle_dtype dtype);
size_t bundle_dtype_bytes(bundle_dtype dtype);

typedef struct bundle_file {
    const char *name;
    char *bytes; /* followed by a NUL */
    size_t count;
} bundle_file;

typedef enum bundle_pass {
    BUNDLE_FORWARD,
    BUNDLE_DGRAD,
    BUNDLE_BACKWARD_DW,
    BUNDLE_INIT
} bundle_pass;

typedef struct bundle_buffer {
    const char *name;
    bundle_pass pass; /* that writes it */
    mmlp_lifetime lifetime;
    bundle_dtype dtype;
    int64_t columns;
    int64_t tokens_per_row;
} bundle_buffer;

/* "sm_80": runs there and on everything later; "sm_90a", exact: on that architecture alone. */
typedef struct bundle_arch {
    const char *name;
    int number; /* 80 for sm_80 */
    bool is_exact;
} bundle_arch;
bool bundle_arch_runs_on(const bundle_arch *arch, int compute_capability);

/*
 * A tensor map that is made for every launch: of a matrix [rows, columns] whose rows are `stride`
 * elements apart, `planes` of them one behind the other, in a tensor from element `first_column`
 * on. Boxes are box_rows rows of 128 bytes, swizzled as a whole.
 */
typedef struct bundle_map {
    const char *tensor;
    bundle_dtype dtype;
    int64_t first_column, rows, columns, stride; /* rows 0: the tokens */
    int planes, box_rows;
} bundle_map;

typedef struct bundle_image {
    bundle_arch target;
    bool is_cubin;
    const bundle_file *file;
} bundle_image;

/* Row i of a line map: from this line of the file on, lines come from the template. */
typedef struct bundle_line {
    int64_t first;
    const char *file;
    int64_t file_line;
} bundle_line;

typedef struct bundle_kernel {
    const char *entry;
    const bundle_file *source;
    bundle_pass pass;
    const char *pass_name, *step;
    const char *when; /* "always", or the tensor without which it is left out */
    bundle_arch family;
    int64_t most_tokens; /* runs for at most so many; 0: for all that the ones before it leave */
    int64_t threads, dynamic_shared_bytes;
    int64_t rows, columns, tile_m, tile_n; /* rows 0: the tokens */
    int cluster; /* 0: a block for each tile; else blocks of a cluster, which takes tiles in turn */
    bool
        waits_for_previous; /* griddepcontrol.wait: it may begin before the kernel before it ends */
    int64_t elements_per_block; /* of init; 0 for all others */
    int64_t reduction;
    double flops_per_token;
    double bytes, bytes_per_token;
    bundle_map maps[BUNDLE_MAX_MAPS]; /* the first parameters */
    int map_count;
    const char *arguments[BUNDLE_MAX_ARGUMENTS]; /* those behind them */
    int argument_count;
    bundle_line *lines;
    int line_count;
    bundle_image *images;
    int image_count;
} bundle_kernel;

typedef enum bundle_operation {
    BUNDLE_ALL_REDUCE,
    BUNDLE_ALL_GATHER,
    BUNDLE_REDUCE_SCATTER
} bundle_operation;

/* Between the tensor-parallel ranks, of [tokens, hidden_size] of params_dtype. */
typedef struct bundle_collective {
    bundle_pass pass;
    const char *pass_name;
    bundle_operation operation;
    const char *operation_name;
    const char *input, *output; /* tensors or buffers; the same: in place */
    const char *before;         /* the step of the pass that it is enqueued before, or "end" */
} bundle_collective;

/* How a weight begins; unknown: the spec gave no num_layers. */
typedef enum bundle_init_kind {
    BUNDLE_INIT_ZEROS,
    BUNDLE_INIT_NORMAL,
    BUNDLE_INIT_UNIFORM,
    BUNDLE_INIT_UNKNOWN
} bundle_init_kind;

typedef struct bundle_init {
    bundle_init_kind kind;
    double a, b; /* normal: a is the standard deviation; uniform: [a, b) */
} bundle_init;

/* The results of the program `backward`, and -1 for those this MLP does not have. */
typedef struct bundle_backward_results {
    int activation, gate, up, gate_bias, up_bias, scale;
} bundle_backward_results;

struct mmlp_bundle {
    char *path;
    json_t *manifest;
    const char *name;
    bundle_file *files;
    int file_count;
    uint64_t identity; /* of all that ranks must have in common */
    int64_t hidden_size, ffn_hidden_size, fc1_output_size, tensor_model_parallel_size;
    bool is_expert;
    bool sequence_parallel; /* hidden_states, output and their gradients are a rank's part */
    bundle_dtype params_dtype;
    bool gated_linear_unit, add_bias_linear, per_token_scale, save_activation, has_clamp_or_relu;
    bool gradient_accumulation_fusion, delay_wgrad_compute;
    mmlp_fc2_bias fc2_bias;
    bundle_init fc1_init, fc2_init;
    const char *determinism, *rounding;
    bundle_buffer buffers[BUNDLE_MAX_BUFFERS];
    int buffer_count;
    bundle_collective collectives[BUNDLE_MAX_COLLECTIVES];
    int collective_count;
    bundle_kernel *kernels;
    int kernel_count;
    program activation, output, backward; /* of `reference` */
    int activation_result, output_result;
    bundle_backward_results backward_results;
};

/* Fills the bundle from its manifest; files are already in place. ERROR_FORMAT names the key. */
mmlp_status manifest_read(mmlp_bundle *bundle, const json_t *manifest);
/* The names and hashes of `files`: called before the files are read. ERROR_FORMAT. */
mmlp_status manifest_read_files(mmlp_bundle *bundle, const json_t *manifest);

#endif
