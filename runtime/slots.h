/*
 * slots.h: what kernels can be given, as places in a table of values that every call fills
 * (arguments.def). A kernel's parameters point into that table.
 */
#ifndef MMLP_SLOTS_H
#define MMLP_SLOTS_H

#include "bundle.h"

enum {
#define TENSOR_ARGUMENT(id, name, dtype, rank, dim0, dim1, forward, dgrad) SLOT_##id,
#define SCALAR_ARGUMENT(id, name, bytes, passes)
#include "arguments.def"
#undef TENSOR_ARGUMENT
#undef SCALAR_ARGUMENT
    TENSOR_COUNT,
    SLOT_LAST_TENSOR = TENSOR_COUNT - 1, /* the numbers begin behind it */
#define TENSOR_ARGUMENT(id, name, dtype, rank, dim0, dim1, forward, dgrad)
#define SCALAR_ARGUMENT(id, name, bytes, passes) SLOT_##id,
#include "arguments.def"
#undef TENSOR_ARGUMENT
#undef SCALAR_ARGUMENT
    SLOT_BUFFER, /* the bundle's buffers, in their order */
    SLOT_COUNT = SLOT_BUFFER + BUNDLE_MAX_BUFFERS
};

/* One value. A pointer, an integer or a float begins where its slot begins. */
typedef union slot_value {
    uint64_t pointer;
    int64_t integer;
    uint64_t bits;
    float real;
    int32_t word;
} slot_value;

/* The slot of a manifest's argument for kernels of that pass; -1: such kernels cannot have it. */
int slot_find(const mmlp_bundle *bundle, const char *name, bundle_pass pass);
/* The bytes of a kernel's parameter. */
size_t slot_bytes(int slot);

/* ---- the caller's tensors ------------------------------------------------------------------- */

typedef enum slot_presence {
    PRESENT_ALWAYS,
    PRESENT_WITH_BIAS,               /* add_bias_linear */
    PRESENT_WITH_FC2_BIAS_IN_OUTPUT, /* folded or added */
    PRESENT_WITH_FC2_BIAS_FOLDED,
    PRESENT_WITH_FC2_BIAS_GRADIENT, /* add_bias_linear; may be left out where the bias is returned
                                     */
    PRESENT_WITH_SCALE
} slot_presence;

typedef enum slot_access {
    ACCESS_NONE, /* the pass has no such tensor */
    ACCESS_READ,
    ACCESS_KEEP, /* read by dgrad and again by its backward_dw */
    ACCESS_WRITE
} slot_access;

typedef enum slot_dtype { DTYPE_PARAMS, DTYPE_FP32, DTYPE_WGRAD, DTYPE_EITHER } slot_dtype;
typedef enum slot_dim {
    DIM_NONE,
    DIM_TOKENS,
    DIM_LOCAL_TOKENS,
    DIM_HIDDEN,
    DIM_FFN,
    DIM_FC1
} slot_dim;

/* A tensor's part in one pass: the member of mmlp_forward_args or mmlp_dgrad_args. */
typedef struct slot_part {
    slot_access access;
    size_t member;
    slot_presence when;
} slot_part;

typedef struct slot_tensor {
    const char *name;
    slot_dtype dtype;
    int rank;
    slot_dim dims[2];
    slot_part parts[2]; /* of BUNDLE_FORWARD, of BUNDLE_DGRAD */
} slot_tensor;

extern const slot_tensor slot_tensors[TENSOR_COUNT];

#endif
