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

#define BUNDLE_FORMAT         1
#define BUNDLE_MAX_FILE_BYTES (1 << 28)
#define BUNDLE_MAX_FILES      1024
#define BUNDLE_MAX_SIZE       (1 << 24) /* hidden_size and its like */
#define BUNDLE_MAX_KERNELS    256
#define BUNDLE_MAX_BUFFERS    16
#define BUNDLE_MAX_ARGUMENTS  32
#define BUNDLE_MAX_THREADS    1024
#define BUNDLE_MAX_NODES      4096

typedef enum bundle_dtype { BUNDLE_BF16, BUNDLE_FP16, BUNDLE_FP32, BUNDLE_DTYPES } bundle_dtype;
/* "bf16", ... */
const char *bundle_dtype_name(bundle_dtype dtype);
size_t bundle_dtype_bytes(bundle_dtype dtype);

typedef struct bundle_file {
    const char *name;
    char *bytes; /* followed by a NUL */
    size_t count;
} bundle_file;

typedef struct bundle_buffer {
    const char *name;
    mmlp_lifetime lifetime;
    bundle_dtype dtype;
    int64_t columns;
} bundle_buffer;

typedef struct bundle_image {
    int target; /* 80 for sm_80 */
    bool is_cubin;
    const bundle_file *file;
} bundle_image;

/* Row i of a line map: from this line of the file on, lines come from the template. */
typedef struct bundle_line {
    int64_t first;
    const char *file;
    int64_t file_line;
} bundle_line;

typedef enum bundle_pass { BUNDLE_FORWARD, BUNDLE_INIT } bundle_pass;

typedef struct bundle_kernel {
    const char *entry;
    const bundle_file *source;
    bundle_pass pass;
    const char *pass_name, *step;
    int family; /* 80: runs on compute capability 8.0 and later */
    int64_t threads, dynamic_shared_bytes;
    int64_t tile_m, tile_n, columns; /* of a GEMM; tile_m is 0 for elementwise */
    int64_t elements_per_block;      /* of elementwise; 0 for a GEMM */
    int64_t reduction;
    double flops_per_token;
    const char *arguments[BUNDLE_MAX_ARGUMENTS];
    int argument_count;
    bundle_line *lines;
    int line_count;
    bundle_image *images;
    int image_count;
} bundle_kernel;

struct mmlp_bundle {
    char *path;
    json_t *manifest;
    const char *name;
    bundle_file *files;
    int file_count;
    int64_t hidden_size, ffn_hidden_size, fc1_output_size, tensor_model_parallel_size;
    bundle_dtype params_dtype;
    bool gated_linear_unit, add_bias_linear, per_token_scale, save_activation, has_clamp_or_relu;
    mmlp_fc2_bias fc2_bias;
    bundle_buffer buffers[BUNDLE_MAX_BUFFERS];
    int buffer_count;
    bundle_kernel *kernels;
    int kernel_count;
    program activation, output; /* of `reference` */
    int activation_result, output_result;
};

/* Fills the bundle from its manifest; files are already in place. ERROR_FORMAT names the key. */
mmlp_status manifest_read(mmlp_bundle *bundle, const json_t *manifest);
/* The names and hashes of `files`: called before the files are read. ERROR_FORMAT. */
mmlp_status manifest_read_files(mmlp_bundle *bundle, const json_t *manifest);

#endif
