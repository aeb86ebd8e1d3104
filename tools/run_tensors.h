/*
 * run_tensors.h: the tensors of a forward pass, on the host and on the device, by the names of
 * Megatron's parameters.
 */
#ifndef MMLP_TOOLS_RUN_TENSORS_H
#define MMLP_TOOLS_RUN_TENSORS_H

#include <megamlp/megamlp.h>

#include "safetensors.h"

/* X(SLOT, "name"): the inputs of a forward pass. */
#define RUN_INPUTS(X)                                                                              \
    X(HIDDEN_STATES, "hidden_states")                                                              \
    X(FC1_WEIGHT, "linear_fc1.weight")                                                             \
    X(FC1_BIAS, "linear_fc1.bias")                                                                 \
    X(FC2_WEIGHT, "linear_fc2.weight")                                                             \
    X(FC2_BIAS, "linear_fc2.bias")                                                                 \
    X(PER_TOKEN_SCALE, "per_token_scale")

typedef enum run_input {
#define RUN_INPUT_ENUM(slot, name) RUN_##slot,
    RUN_INPUTS(RUN_INPUT_ENUM)
#undef RUN_INPUT_ENUM
        RUN_INPUT_COUNT
} run_input;

/* An owned tensor; view.data is NULL while there is none. */
typedef struct run_tensor {
    mmlp_tensor view;
    int64_t shape[2];
    size_t bytes;
} run_tensor;

typedef struct run_tensors {
    mmlp_context *context;
    mmlp_bundle_properties mlp;
    int64_t tokens;
    run_tensor host[RUN_INPUT_COUNT];
    run_tensor device[RUN_INPUT_COUNT];
    run_tensor output; /* device [tokens, hidden_size] */
    void *saved, *scratch;
} run_tensors;

const char *run_input_name(run_input input);
/* Whether the MLP has this input at all. */
int run_input_used(const mmlp_bundle_properties *mlp, run_input input);

/* All of these return 0, or the exit code after printing why. `t` starts with context, mlp and, for
 * random inputs, tokens set. */
int run_tensors_from_file(run_tensors *t, const safetensors *file, const char *path);
int run_tensors_random(run_tensors *t, mmlp_mlp *handle, uint64_t seed);
int run_tensors_allocate_results(run_tensors *t, mmlp_mlp *handle);
/* Host copies of device inputs that have none yet. */
int run_tensors_download_inputs(run_tensors *t);
void run_tensors_free(run_tensors *t);

/* The forward arguments that refer to t. */
mmlp_forward_args run_tensors_forward_args(const run_tensors *t);

/* A result ("fc1_output", "activation_output", "output") on the host, in its own type. */
int run_tensors_result(run_tensor *out, const run_tensors *t, mmlp_mlp *handle, const char *name);
void run_tensor_free_host(run_tensor *tensor);

/* Elements first .. first + count - 1 as doubles. */
void run_tensor_to_double(double *out, const run_tensor *tensor, size_t first, size_t count);

#endif
