/*
 * mlp.h: a bundle loaded on a device, to the files that load it and run it.
 */
#ifndef MMLP_MLP_H
#define MMLP_MLP_H

#include "bundle.h"
#include "context.h"

/* One place in the table of values of a call; a kernel's parameters point into that table. */
enum {
#define TENSOR_ARGUMENT(id, name, member, when, dtype, rank, dim0, dim1) SLOT_##id,
#define SCALAR_ARGUMENT(id, name, bytes, pass)                           SLOT_##id,
#include "arguments.def"
#undef TENSOR_ARGUMENT
#undef SCALAR_ARGUMENT
    SLOT_BUFFER, /* the bundle's buffers, in their order */
    SLOT_COUNT = SLOT_BUFFER + BUNDLE_MAX_BUFFERS
};

typedef struct loaded_kernel {
    const bundle_kernel *kernel;
    CUmodule module;
    CUfunction function;
    const char *origin; /* "bundle", "cache", "compiled" */
    double compile_ms, load_ms;
    int slots[BUNDLE_MAX_ARGUMENTS]; /* where each parameter comes from */
} loaded_kernel;

struct mmlp_mlp {
    mmlp_context *context;
    const mmlp_bundle *bundle;
    int64_t max_tokens;
    loaded_kernel *kernels; /* those for this device, in launch order */
    int kernel_count;
};

/* The blocks of a launch; 64 bits, at most INT32_MAX after mmlp_mlp_load. */
int64_t kernel_blocks(const bundle_kernel *kernel, int64_t tokens_or_elements);

/* Where buffer `index` begins in the memory of its lifetime, and how many bytes it has. Nothing
 * overflows: tokens is at most INT32_MAX, columns and buffers are bounded (bundle.h). */
size_t buffer_offset(const mmlp_bundle *bundle, int index, int64_t tokens);
size_t buffer_bytes(const bundle_buffer *buffer, int64_t tokens);
size_t lifetime_bytes(const mmlp_bundle *bundle, mmlp_lifetime lifetime, int64_t tokens);

/* tokens is in [0, max_tokens], or ERROR_ARGUMENT. */
mmlp_status check_tokens(const mmlp_mlp *mlp, int64_t tokens);

#endif
