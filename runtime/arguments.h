/*
 * arguments.h: a call of a pass: what its kernels are given, and which memory that is.
 */
#ifndef MMLP_ARGUMENTS_H
#define MMLP_ARGUMENTS_H

#include "slots.h"

/* Memory of the caller that a call uses. */
typedef struct memory_range {
    const char *name;
    uintptr_t begin;
    size_t bytes; /* 0: none */
    bool written;
    bool kept; /* read again by the backward_dw of this dgrad */
} memory_range;

enum {
    LIFETIME_COUNT = MMLP_LIFETIME_PENDING + 1,
    RANGE_BUFFER = TENSOR_COUNT, /* behind the tensors: one for each mmlp_lifetime */
    RANGE_COUNT = RANGE_BUFFER + LIFETIME_COUNT
};

typedef struct pass_call {
    slot_value values[SLOT_COUNT];
    bool given[TENSOR_COUNT];
    int64_t tokens;
    int64_t local_tokens; /* of this rank's part of hidden_states and the like */
    memory_range ranges[RANGE_COUNT];
} pass_call;

/* Checks all that can be seen in the arguments of a call and fills `out`. ERROR_SHAPE,
 * ERROR_ARGUMENT. Between mlp_enter and mlp_leave. */
mmlp_status arguments_take_forward(pass_call *out, const mmlp_mlp *mlp,
                                   const mmlp_forward_args *args);
mmlp_status arguments_take_dgrad(pass_call *out, const mmlp_mlp *mlp, const mmlp_dgrad_args *args);

/* One gradient of a parameter, by its slot. */
mmlp_status arguments_take_gradient(pass_call *out, const mmlp_mlp *mlp, int slot,
                                    const mmlp_tensor *tensor);

bool ranges_overlap(const memory_range *a, const memory_range *b);

#endif
