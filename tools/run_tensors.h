/*
 * run_tensors.h: tensors on the host and on the device, and the table of all that take part in a
 * training step, by the names of Megatron's parameters.
 */
#ifndef MMLP_TOOLS_RUN_TENSORS_H
#define MMLP_TOOLS_RUN_TENSORS_H

#include <megamlp/megamlp.h>

typedef enum run_role {
    RUN_PARAMETER, /* of the MLP, the same for every microbatch */
    RUN_INPUT,     /* of a microbatch */
    RUN_BUFFER,    /* an intermediate of a microbatch, in the caller's saved, scratch or pending */
    RUN_RESULT,    /* of a microbatch */
    RUN_GRADIENT   /* of a parameter, summed over microbatches */
} run_role;

typedef enum run_extent {
    RUN_NONE,
    RUN_TOKENS,
    RUN_LOCAL,  /* tokens of this rank: all of them without sequence_parallel */
    RUN_HIDDEN, /* hidden_size */
    RUN_FFN,    /* ffn_hidden_size */
    RUN_FC1     /* fc1_output_size */
} run_extent;

typedef enum run_type {
    RUN_PARAMS, /* params_dtype */
    RUN_FP32,
    RUN_WEIGHT_GRADIENT /* fp32 with gradient_accumulation_fusion, else params_dtype */
} run_type;

/* X(SLOT, "name", role, rows, columns, type); a buffer's type is what the library says. */
#define RUN_SLOTS(X)                                                                               \
    X(HIDDEN_STATES, "hidden_states", INPUT, LOCAL, HIDDEN, PARAMS)                                \
    X(GRAD_OUTPUT, "grad_output", INPUT, LOCAL, HIDDEN, PARAMS)                                    \
    X(PER_TOKEN_SCALE, "per_token_scale", INPUT, TOKENS, NONE, FP32)                               \
    X(FC1_WEIGHT, "linear_fc1.weight", PARAMETER, FC1, HIDDEN, PARAMS)                             \
    X(FC1_BIAS, "linear_fc1.bias", PARAMETER, FC1, NONE, PARAMS)                                   \
    X(FC2_WEIGHT, "linear_fc2.weight", PARAMETER, HIDDEN, FFN, PARAMS)                             \
    X(FC2_BIAS, "linear_fc2.bias", PARAMETER, HIDDEN, NONE, PARAMS)                                \
    X(FC1_OUTPUT, "fc1_output", BUFFER, TOKENS, FC1, PARAMS)                                       \
    X(ACTIVATION_OUTPUT, "activation_output", BUFFER, TOKENS, FFN, PARAMS)                         \
    X(OUTPUT, "output", RESULT, LOCAL, HIDDEN, PARAMS)                                             \
    X(RECOMPUTED_ACTIVATION, "recomputed_activation", BUFFER, TOKENS, FFN, PARAMS)                 \
    X(GRAD_FC1_OUTPUT, "grad_fc1_output", BUFFER, TOKENS, FC1, PARAMS)                             \
    X(GRAD_HIDDEN_STATES, "grad.hidden_states", RESULT, LOCAL, HIDDEN, PARAMS)                     \
    X(GRAD_PER_TOKEN_SCALE, "grad.per_token_scale", RESULT, TOKENS, NONE, FP32)                    \
    X(GRAD_FC1_WEIGHT, "grad.linear_fc1.weight", GRADIENT, FC1, HIDDEN, WEIGHT_GRADIENT)           \
    X(GRAD_FC1_BIAS, "grad.linear_fc1.bias", GRADIENT, FC1, NONE, FP32)                            \
    X(GRAD_FC2_WEIGHT, "grad.linear_fc2.weight", GRADIENT, HIDDEN, FFN, WEIGHT_GRADIENT)           \
    X(GRAD_FC2_BIAS, "grad.linear_fc2.bias", GRADIENT, HIDDEN, NONE, FP32)

typedef enum run_slot {
#define RUN_SLOT_ENUM(slot, name, role, rows, columns, type) RUN_##slot,
    RUN_SLOTS(RUN_SLOT_ENUM)
#undef RUN_SLOT_ENUM
        RUN_SLOT_COUNT
} run_slot;

const char *run_slot_word(run_slot slot); /* its name in the table */
run_role run_slot_role(run_slot slot);
/* The axis along which tensor-parallel ranks split a tensor, or -1; *halves: 2 where gate and up
 * are split each by itself. */
int run_slot_split(int *halves, const mmlp_bundle_properties *mlp, run_slot slot);
/* Whether a rank has a part of a sum, which nobody adds up in a pass. */
int run_slot_is_partial(const mmlp_bundle_properties *mlp, run_slot slot);

/* An owned tensor; view.data is NULL while there is none. */
typedef struct run_tensor {
    mmlp_tensor view;
    int64_t shape[2];
    size_t bytes;
} run_tensor;

/* Gives `tensor` the shape and type of the slot; no memory yet. tokens: of all ranks. */
void run_tensor_describe(run_tensor *tensor, const mmlp_bundle_properties *mlp, run_slot slot,
                         int64_t tokens);
/* A matrix of a type that is given by its word ("bf16"). */
void run_tensor_describe_matrix(run_tensor *tensor, const int64_t shape[2], const char *dtype);
size_t run_tensor_elements(const run_tensor *tensor);

/* All of these return 0, or the exit code after printing why. The first two give memory to a
 * tensor that is described. */
int run_tensor_alloc_host(run_tensor *tensor);
int run_tensor_alloc_device(run_tensor *tensor, mmlp_context *context);
/* A new device tensor with what the host tensor holds, and the other way. */
int run_tensor_upload(run_tensor *device, const run_tensor *host, mmlp_context *context);
int run_tensor_download(run_tensor *host, const run_tensor *device, mmlp_context *context);
void run_tensor_free_host(run_tensor *tensor);

/* `samples` rows of a tensor (elements of a vector), spread evenly over all: a host tensor.
 * context: the tensor is on the device; NULL: on the host. */
int run_tensor_sample(run_tensor *out, const run_tensor *from, int64_t samples,
                      mmlp_context *context);

/* Elements of a host tensor as doubles; and bf16 values into one of any type. */
void run_tensor_to_double(double *out, const run_tensor *tensor, size_t first, size_t count);
void run_tensor_from_bf16(run_tensor *out, const void *values);

#endif
