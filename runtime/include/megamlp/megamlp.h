/*
 * megamlp.h: the public interface of libmegamlp, the runtime of MegaMLP.
 *
 * A bundle (NAME.mlp, made by megamlp-gen) describes one MLP block and holds its kernels. A context
 * stands for one device, an mlp for a bundle loaded on it: all of its kernels are compiled and
 * loaded when mmlp_mlp_load returns, and the passes then only enqueue work on the caller's stream.
 *
 *     mmlp_context_create -> mmlp_bundle_open -> mmlp_mlp_load -> mmlp_mlp_init_weights
 *         -> mmlp_mlp_forward -> mmlp_mlp_dgrad -> mmlp_mlp_backward_dw ...
 *
 * Functions that can fail return mmlp_status; out parameters come first and are NULL or zero on
 * failure. mmlp_last_error() then gives one line for a person. The library never prints, never
 * exits, and leaves the calling thread's current CUDA context as it found it.
 *
 * Threads: mmlp_context may be used from any number of threads, mmlp_bundle is immutable, an
 * mmlp_mlp is used by one thread at a time, on any stream.
 */
#ifndef MEGAMLP_H
#define MEGAMLP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define MMLP_API __attribute__((visibility("default")))
#else
#define MMLP_API
#endif

#define MMLP_VERSION_MAJOR 0
#define MMLP_VERSION_MINOR 1
#define MMLP_VERSION_PATCH 0

/* ---- statuses and errors --------------------------------------------------------------------- */

/* X(NAME, value, text) */
#define MMLP_STATUS_TABLE(X)                                                                       \
    X(OK, 0, "no error")                                                                           \
    X(ERROR_ARGUMENT, 1, "a function was called with a wrong argument")                            \
    X(ERROR_MEMORY, 2, "out of host or device memory")                                             \
    X(ERROR_IO, 3, "a file could not be read or written")                                          \
    X(ERROR_SPEC, 4, "the spec is not valid")                                                      \
    X(ERROR_FORMAT, 5, "a bundle or tensor file is malformed or was changed")                      \
    X(ERROR_SHAPE, 6, "a tensor has the wrong shape, type or place")                               \
    X(ERROR_UNSUPPORTED, 7, "valid, but not supported yet, or not by this device")                 \
    X(ERROR_DRIVER, 8, "no usable CUDA driver, NVRTC or GPU was found")                            \
    X(ERROR_COMPILE, 9, "a kernel did not compile")                                                \
    X(ERROR_DEVICE, 10, "the device reported an error")                                            \
    X(ERROR_ORDER, 11, "a call that must come before this one is missing")                         \
    X(ERROR_RING_FULL, 12, "every place for delayed weight gradients is taken")                    \
    X(ERROR_RING_EMPTY, 13, "no weight gradient is delayed")                                       \
    X(ERROR_BUSY, 14, "another thread is inside a call with this handle")                          \
    X(ERROR_COMM, 15, "a rank failed, or ranks disagree")

typedef enum mmlp_status {
#define MMLP_STATUS_ENUM(name, value, text) MMLP_##name = value,
    MMLP_STATUS_TABLE(MMLP_STATUS_ENUM)
#undef MMLP_STATUS_ENUM
} mmlp_status;

/* "MMLP_ERROR_SHAPE"; a value that is no status gives "MMLP_ERROR_UNKNOWN". Never NULL. */
MMLP_API const char *mmlp_status_name(mmlp_status status);
/* The text of the table above. Never NULL. */
MMLP_API const char *mmlp_status_text(mmlp_status status);
/* One line about the last failure on the calling thread: the object, what was found, what was
 * wanted, the fix. Valid until the next failing call on this thread; "" when nothing failed. */
MMLP_API const char *mmlp_last_error(void);
/* "0.1.0" */
MMLP_API const char *mmlp_version(void);

/* An environment variable that the library or the emulator reads. */
typedef struct mmlp_environment_variable {
    const char *name;
    const char *fallback; /* what holds while it is not set */
    const char *meaning;
} mmlp_environment_variable;
/* The variables in the order of the documentation; NULL behind the last. Never freed. */
MMLP_API const mmlp_environment_variable *mmlp_environment(int index);

/* ---- tensors --------------------------------------------------------------------------------- */

/* DLPack's DLDataTypeCode and DLDeviceType, the values this library understands. */
enum { MMLP_TYPE_INT = 0, MMLP_TYPE_UINT = 1, MMLP_TYPE_FLOAT = 2, MMLP_TYPE_BFLOAT = 4 };
enum { MMLP_DEVICE_CPU = 1, MMLP_DEVICE_CUDA = 2 };

/*
 * A borrowed view of a tensor, laid out as DLPack's DLTensor: `(const mmlp_tensor *)&m->dl_tensor`
 * of a DLManagedTensor may be passed as it is. Tensors given to this library are row-major and
 * contiguous (strides NULL, or the strides that mean the same) and start on 16 bytes.
 */
typedef struct mmlp_tensor {
    void *data;
    struct {
        int32_t device_type;
        int32_t device_id;
    } device;
    int32_t ndim;
    struct {
        uint8_t code;
        uint8_t bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape;   /* ndim elements */
    int64_t *strides; /* NULL, or ndim elements, counted in elements */
    uint64_t byte_offset;
} mmlp_tensor;

/* ---- context --------------------------------------------------------------------------------- */

typedef struct mmlp_context mmlp_context;

typedef struct mmlp_context_options {
    size_t struct_size;
    /* "cuda", "emulator", or the path of a libcuda; NULL: $MMLP_DRIVER, else "cuda". The library
     * takes what is named and never another driver in its place. "emulator" is looked for beside
     * this library and in ../emulator/ and megamlp/ of the library's folder. */
    const char *driver;
    int device; /* ordinal, 0 is the first */
    /* Where compiled kernels are kept. NULL: $MMLP_CACHE_DIR, else $XDG_CACHE_HOME/megamlp, else
     * $HOME/.cache/megamlp. "": no cache. */
    const char *cache_dir;
    /* A second cache that is only read, e.g. of a container image. NULL: none. */
    const char *cache_readonly_dir;
    /* The NVRTC library. NULL: libnvrtc.so.13 in CUDA_HOME, the loader's path, /usr/local/cuda, and
     * the folder that the build knew. Opened only when a kernel must be compiled. */
    const char *nvrtc;
    int compile_threads; /* 0: one per core */
    /* Receives notices and, with verbose or $MMLP_VERBOSE, one line per decision (cache hits and
     * misses with the reason, compile times). May be called from several threads at once. */
    void (*log)(void *user, const char *line);
    void *log_user;
    int verbose;
    /* The NCCL library. NULL: libnccl.so.2 of the loader, with the emulator the one beside it.
     * Opened only for several ranks; 2.18 or newer. */
    const char *nccl;
} mmlp_context_options;
#define MMLP_CONTEXT_OPTIONS_INIT                                                                  \
    {                                                                                              \
        sizeof(mmlp_context_options), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0                                 \
    }

/*
 * Opens the driver and retains the primary context of the device: the one the CUDA runtime and
 * PyTorch use. options may be NULL. The context is owned by the caller.
 * ERROR_DRIVER: no driver, too old (the line says what was found and what is needed), no such
 * device; ERROR_UNSUPPORTED: a GPU below compute capability 8.0; ERROR_ARGUMENT; ERROR_MEMORY.
 */
MMLP_API mmlp_status mmlp_context_create(mmlp_context **out, const mmlp_context_options *options);
/* NULL allowed. Every mlp, buffer and stream of the context must be gone. */
MMLP_API void mmlp_context_destroy(mmlp_context *context);

typedef struct mmlp_device_properties {
    size_t struct_size;
    char name[128];
    char arch[16]; /* the NVRTC target for this device: "sm_80", "sm_90" */
    int is_emulator;
    int sm_count;
    int shared_per_block; /* bytes, with opt-in */
    uint64_t memory_bytes;
    int driver_version;      /* as cuDriverGetVersion: 13000 */
    const char *driver_path; /* what dlopen was given; owned by the context */
} mmlp_device_properties;
#define MMLP_DEVICE_PROPERTIES_INIT                                                                \
    {                                                                                              \
        sizeof(mmlp_device_properties), "", "", 0, 0, 0, 0, 0, 0                                   \
    }

/* properties->struct_size is set by the caller; that many bytes are filled. */
MMLP_API mmlp_status mmlp_context_properties(const mmlp_context *context,
                                             mmlp_device_properties *properties);

/* ---- buffers and streams, for programs that have no CUDA of their own ------------------------ */

/* Device memory, 256-byte aligned, uninitialised. bytes 0 gives NULL and OK. */
MMLP_API mmlp_status mmlp_buffer_alloc(void **out, mmlp_context *context, size_t bytes);
/* NULL allowed. Waits for the device, as cuMemFree does. */
MMLP_API mmlp_status mmlp_buffer_free(mmlp_context *context, void *buffer);
/* Blocking copies between host and device, after the work enqueued on `stream` (NULL: the default
 * stream). */
MMLP_API mmlp_status mmlp_buffer_upload(mmlp_context *context, void *device, const void *host,
                                        size_t bytes, void *stream);
MMLP_API mmlp_status mmlp_buffer_download(mmlp_context *context, void *host, const void *device,
                                          size_t bytes, void *stream);
/* A CUstream that does not wait for the default stream. */
MMLP_API mmlp_status mmlp_stream_create(void **out, mmlp_context *context);
MMLP_API mmlp_status mmlp_stream_destroy(mmlp_context *context, void *stream); /* NULL allowed */
/* Blocks until the stream is empty. ERROR_DEVICE carries the device's report, the emulator's whole.
 */
MMLP_API mmlp_status mmlp_stream_sync(mmlp_context *context, void *stream);

/* ---- communicators --------------------------------------------------------------------------- */

/*
 * An mlp borrows the trainer's NCCL communicators (struct ncclComm * is nccl.h's ncclComm_t). These
 * make them for programs that have none: one rank takes an id, gives its bytes to the others by
 * whatever means they have (a file, MPI), and all create.
 */
struct ncclComm;
typedef struct mmlp_comm_id {
    char bytes[128];
} mmlp_comm_id;

/* ERROR_DRIVER: no NCCL, or too old; ERROR_COMM: NCCL's own line. */
MMLP_API mmlp_status mmlp_comm_unique_id(mmlp_comm_id *out, mmlp_context *context);
/* Blocks until all `ranks` have called with the same id. ERROR_ARGUMENT, ERROR_DRIVER, ERROR_COMM.
 */
MMLP_API mmlp_status mmlp_comm_create(struct ncclComm **out, mmlp_context *context,
                                      const mmlp_comm_id *id, int ranks, int rank);
/* What NCCL has noticed: ERROR_COMM when a rank has failed, or ranks disagreed, or the communicator
 * has ended. Waits for nothing: the work of a failed communicator may never end. */
MMLP_API mmlp_status mmlp_comm_status(mmlp_context *context, struct ncclComm *comm);
/* Ends a communicator whose ranks may hang: calls with it then fail at once, on every mlp that it
 * is bound to. Of one that has ended, or NULL: nothing. */
MMLP_API mmlp_status mmlp_comm_abort(mmlp_context *context, struct ncclComm *comm);
/* The same for one whose ranks have all come to this call; its work ends first. */
MMLP_API mmlp_status mmlp_comm_destroy(mmlp_context *context, struct ncclComm *comm);

/* ---- bundle ---------------------------------------------------------------------------------- */

typedef struct mmlp_bundle mmlp_bundle;

/* Reads NAME.mlp whole and verifies every hash; keeps no file open. The caller owns the bundle; it
 * must outlive the mlps loaded from it.
 * ERROR_IO: not readable; ERROR_FORMAT: malformed, of another format version, or a byte changed. */
MMLP_API mmlp_status mmlp_bundle_open(mmlp_bundle **out, const char *path);
MMLP_API void mmlp_bundle_close(mmlp_bundle *bundle); /* NULL allowed */

/* What happens to the bias of linear_fc2 (megatron.core.transformer.mlp, MLP.forward). */
typedef enum mmlp_fc2_bias {
    MMLP_FC2_BIAS_NONE,     /* there is none */
    MMLP_FC2_BIAS_RETURNED, /* not added: the caller adds it (skip_bias_add) */
    MMLP_FC2_BIAS_FOLDED,   /* output += per_token_scale * bias */
    MMLP_FC2_BIAS_ADDED     /* output += bias (skip_bias_add = false) */
} mmlp_fc2_bias;

typedef struct mmlp_bundle_properties {
    size_t struct_size;
    const char *name; /* owned by the bundle */
    int64_t hidden_size;
    int64_t ffn_hidden_size;  /* per tensor-parallel rank */
    int64_t fc1_output_size;  /* 2 * ffn_hidden_size when gated */
    const char *params_dtype; /* "bf16", "fp16", "fp32" */
    int gated_linear_unit;
    int add_bias_linear;
    int per_token_scale;
    mmlp_fc2_bias fc2_bias;
    int tensor_model_parallel_size;
    int has_clamp_or_relu; /* the activation has a kink that rounding can move a value across */
    int gradient_accumulation_fusion; /* weight gradients are fp32 (main_grad), else params_dtype */
    int delay_wgrad_compute;          /* weight gradients wait for mmlp_mlp_backward_dw */
    int save_activation;              /* activation_output is kept from forward to backward */
    const char *determinism;          /* one line: what repeated runs give; owned by the bundle */
    const char *rounding;             /* one line: where values are rounded; owned by the bundle */
    int communicates;      /* its tensor-parallel ranks do in their passes: mmlp_mlp_bind_comm */
    int sequence_parallel; /* hidden_states, output and their gradients are a rank's part of the
                            * tokens, 1 / tensor_model_parallel_size of them */
} mmlp_bundle_properties;
#define MMLP_BUNDLE_PROPERTIES_INIT                                                                \
    {                                                                                              \
        sizeof(mmlp_bundle_properties), 0, 0, 0, 0, 0, 0, 0, 0, MMLP_FC2_BIAS_NONE, 0, 0, 0, 0, 0, \
            0, 0, 0, 0                                                                             \
    }

MMLP_API mmlp_status mmlp_bundle_get(const mmlp_bundle *bundle, mmlp_bundle_properties *properties);

/*
 * The forward pass in fp64 on the host, `tokens` tokens, from the expressions that the kernels were
 * generated from. Inputs are host tensors of the given type codes (bf16, fp16, fp32, fp64 each on
 * its own); outputs are arrays of doubles, each NULL when not wanted: fc1_output [tokens,
 * fc1_output_size], before the bias; activation_output [tokens, ffn_hidden_size], per-token scale
 * included; output [tokens, hidden_size]. With stored_activation (host, [tokens, ffn_hidden_size])
 * the output is computed from it, otherwise from the fp64 activation. Uses all cores. ERROR_SHAPE,
 * ERROR_ARGUMENT, ERROR_MEMORY.
 */
typedef struct mmlp_reference_forward_args {
    size_t struct_size;
    const mmlp_tensor *hidden_states;     /* [tokens, hidden_size] */
    const mmlp_tensor *linear_fc1_weight; /* [fc1_output_size, hidden_size], gated: [gate; up] */
    const mmlp_tensor *linear_fc1_bias;   /* [fc1_output_size], or NULL */
    const mmlp_tensor *linear_fc2_weight; /* [hidden_size, ffn_hidden_size] */
    const mmlp_tensor *linear_fc2_bias;   /* [hidden_size], or NULL */
    const mmlp_tensor *per_token_scale;   /* [tokens], or NULL */
    const mmlp_tensor *stored_activation; /* or NULL */
    double *fc1_output;
    double *activation_output;
    double *output;
} mmlp_reference_forward_args;
#define MMLP_REFERENCE_FORWARD_ARGS_INIT                                                           \
    {                                                                                              \
        sizeof(mmlp_reference_forward_args), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0                          \
    }

MMLP_API mmlp_status mmlp_bundle_reference_forward(const mmlp_bundle *bundle,
                                                   const mmlp_reference_forward_args *args);

/*
 * The backward pass in fp64 on the host, `tokens` tokens. Everything starts from the fc1_output
 * that is given, which a device has stored, or from hidden_states where it is NULL, so that a value
 * which rounding moved over the limit of a clamp is no error. Formulas: the manifest's expressions
 * and their derivatives; megatron.core.transformer.mlp. Inputs are host tensors as above; outputs
 * are arrays of doubles, each NULL when not wanted. Uses all cores. ERROR_SHAPE, ERROR_ARGUMENT,
 * ERROR_MEMORY.
 */
typedef struct mmlp_reference_backward_args {
    size_t struct_size;
    const mmlp_tensor *grad_output;       /* [tokens, hidden_size] */
    const mmlp_tensor *hidden_states;     /* [tokens, hidden_size] */
    const mmlp_tensor *linear_fc1_weight; /* [fc1_output_size, hidden_size] */
    const mmlp_tensor *linear_fc1_bias;   /* [fc1_output_size], or NULL */
    const mmlp_tensor *linear_fc2_weight; /* [hidden_size, ffn_hidden_size] */
    const mmlp_tensor *linear_fc2_bias;   /* [hidden_size], or NULL */
    const mmlp_tensor *per_token_scale;   /* [tokens], or NULL */
    const mmlp_tensor *stored_fc1_output; /* [tokens, fc1_output_size], or NULL */
    const mmlp_tensor *stored_activation; /* [tokens, ffn_hidden_size]: what the weight gradient of
                                           * fc2 read (save_activation); NULL: the activation of
                                           * fc1_output */
    /* Rows of the two weight gradients that are computed, spread evenly over all: row i is i *
     * (rows - 1) / (sampled_rows - 1); 1: row 0; 0: all rows. */
    int64_t sampled_rows;
    double *activation_output;      /* [tokens, ffn_hidden_size], per-token scale included */
    double *grad_fc1_output;        /* [tokens, fc1_output_size], before the bias */
    double *grad_hidden_states;     /* [tokens, hidden_size] */
    double *grad_per_token_scale;   /* [tokens] */
    double *scale_terms;            /* [tokens]: the norm of the terms that
                                     * grad_per_token_scale sums, which cancel */
    double *grad_linear_fc1_weight; /* [fc1_output_size or sampled_rows, hidden_size] */
    double *grad_linear_fc1_bias;   /* [fc1_output_size] */
    double *grad_linear_fc2_weight; /* [hidden_size or sampled_rows, ffn_hidden_size] */
    double *grad_linear_fc2_bias;   /* [hidden_size] */
} mmlp_reference_backward_args;
#define MMLP_REFERENCE_BACKWARD_ARGS_INIT                                                          \
    {                                                                                              \
        sizeof(mmlp_reference_backward_args), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,   \
            0, 0                                                                                   \
    }

MMLP_API mmlp_status mmlp_bundle_reference_backward(const mmlp_bundle *bundle,
                                                    const mmlp_reference_backward_args *args);

/* ---- mlp ------------------------------------------------------------------------------------- */

typedef struct mmlp_mlp mmlp_mlp;

typedef struct mmlp_mlp_options {
    size_t struct_size;
    int64_t max_tokens; /* the most tokens a call may have; 0: 65536 */
    int wgrad_depth;    /* with delay_wgrad_compute: how many dgrad calls may wait for their
                         * backward_dw, each with a pending buffer of its own; 0: 1 */
    /* 1, with sequence_parallel and delay_wgrad_compute: backward_dw gathers the input again, into
     * one buffer of max_tokens that the mlp owns, instead of keeping it in every `pending`; the
     * plan has both costs. Its calls must then run one after the other, as on one stream. */
    int regather_input;
} mmlp_mlp_options;
#define MMLP_MLP_OPTIONS_INIT                                                                      \
    {                                                                                              \
        sizeof(mmlp_mlp_options), 0, 0, 0                                                          \
    }

/*
 * Compiles (or takes from the bundle or a cache) and loads every kernel the MLP can ever need,
 * missing ones in parallel. Blocks. ERROR_COMPILE names the template's file:line; ERROR_DRIVER:
 * NVRTC is needed and not found; ERROR_UNSUPPORTED: no kernel family for this device.
 */
MMLP_API mmlp_status mmlp_mlp_load(mmlp_mlp **out, mmlp_context *context, const mmlp_bundle *bundle,
                                   const mmlp_mlp_options *options);
/* NULL allowed. No pass may be running. */
MMLP_API void mmlp_mlp_unload(mmlp_mlp *mlp);

/* Ranks that work together: see Megatron's parallel_state. */
typedef enum mmlp_group {
    MMLP_GROUP_TP,       /* share an MLP: tensor_model_parallel_size ranks */
    MMLP_GROUP_DP,       /* have the same weights and other tokens */
    MMLP_GROUP_EXPERT_DP /* the same for the weights of experts */
} mmlp_group;

/*
 * Borrows a communicator for as long as the mlp is loaded; one of each group. Blocks until all of
 * its ranks have bound theirs: they exchange once what must be the same (the MLP, max_tokens,
 * regather_input) and all refuse when it is not. The passes of an mlp with
 * tensor_model_parallel_size above 1 need MMLP_GROUP_TP, but for experts whose tokens travel
 * outside (explicit_expert_comm). Every pass must then be called by all ranks, in the same order,
 * with as many tokens. ERROR_ARGUMENT: NULL, another size or device; ERROR_ORDER: the group is
 * bound already; ERROR_COMM: ranks disagree, or one has failed; ERROR_DRIVER: no NCCL.
 */
MMLP_API mmlp_status mmlp_mlp_bind_comm(mmlp_mlp *mlp, mmlp_group group, struct ncclComm *comm);

typedef enum mmlp_pass { MMLP_PASS_FORWARD, MMLP_PASS_DGRAD, MMLP_PASS_BACKWARD_DW } mmlp_pass;

/* How long each buffer of the caller is needed: see mmlp_mlp_memory. */
typedef enum mmlp_lifetime {
    MMLP_LIFETIME_SAVED,   /* written by forward, read by dgrad (with save_activation by
                            * backward_dw too) */
    MMLP_LIFETIME_SCRATCH, /* dies with the call */
    MMLP_LIFETIME_PENDING  /* written by dgrad, read by backward_dw; none without
                            * delay_wgrad_compute */
} mmlp_lifetime;

typedef struct mmlp_memory {
    size_t struct_size;
    size_t saved_bytes;
    size_t scratch_bytes;
    size_t pending_bytes;
} mmlp_memory;
#define MMLP_MEMORY_INIT                                                                           \
    {                                                                                              \
        sizeof(mmlp_memory), 0, 0, 0                                                               \
    }

/* Exact bytes the caller must provide for a pass of at most `max_tokens` tokens: fewer tokens never
 * need more. 0 for what the pass does not touch. Device memory on 16 bytes. */
MMLP_API mmlp_status mmlp_mlp_memory(const mmlp_mlp *mlp, mmlp_pass pass, int64_t max_tokens,
                                     mmlp_memory *memory);

/* Where one intermediate lies for `tokens` tokens: "fc1_output" and "activation_output" of forward;
 * "grad_fc1_output" and "recomputed_activation" of dgrad (the latter not with save_activation). */
typedef struct mmlp_buffer_view {
    size_t struct_size;
    mmlp_lifetime lifetime; /* in which of the caller's buffers */
    size_t offset;          /* bytes from its start */
    size_t bytes;
    int64_t shape[2];
    const char *dtype;
} mmlp_buffer_view;
#define MMLP_BUFFER_VIEW_INIT                                                                      \
    {                                                                                              \
        sizeof(mmlp_buffer_view), MMLP_LIFETIME_SCRATCH, 0, 0, {0, 0}, 0                           \
    }

MMLP_API mmlp_status mmlp_mlp_buffer(const mmlp_mlp *mlp, const char *name, int64_t tokens,
                                     mmlp_buffer_view *view);

typedef struct mmlp_forward_args {
    size_t struct_size;
    const mmlp_tensor *hidden_states;     /* [tokens, hidden_size] */
    const mmlp_tensor *linear_fc1_weight; /* [fc1_output_size, hidden_size], gated: [gate; up] */
    const mmlp_tensor *linear_fc1_bias; /* [fc1_output_size]; NULL when add_bias_linear is false */
    const mmlp_tensor *linear_fc2_weight; /* [hidden_size, ffn_hidden_size] */
    const mmlp_tensor *linear_fc2_bias;   /* [hidden_size]; NULL unless folded or added */
    const mmlp_tensor *per_token_scale;   /* fp32 [tokens]; NULL unless the spec has one */
    const mmlp_tensor *output;            /* [tokens, hidden_size], written */
    void *saved;   /* device memory, kept until dgrad; NULL: inference, not stored (not for a spec
                    * with save_activation, whose activation lies there) */
    void *scratch; /* device memory; NULL when no bytes are needed */
    size_t saved_bytes, scratch_bytes; /* what there is, at least what mmlp_mlp_memory says */
} mmlp_forward_args;
#define MMLP_FORWARD_ARGS_INIT                                                                     \
    {                                                                                              \
        sizeof(mmlp_forward_args), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0                                 \
    }

/*
 * output = fc2(activation(fc1(hidden_states))), per megatron.core.transformer.mlp.MLP.forward.
 * Enqueues on `stream` (a CUstream, NULL: the default stream) and returns: no allocation, no
 * synchronisation, capturable. All tensors and both buffers must stay valid until the stream has
 * run; what is written overlaps nothing else. tokens == 0 launches nothing. ERROR_SHAPE names the
 * tensor; ERROR_ARGUMENT; ERROR_BUSY; ERROR_DEVICE.
 */
MMLP_API mmlp_status mmlp_mlp_forward(mmlp_mlp *mlp, const mmlp_forward_args *args, void *stream);

typedef struct mmlp_dgrad_args {
    size_t struct_size;
    const mmlp_tensor *grad_output; /* [tokens, hidden_size]: of the loss, with respect to output */
    const mmlp_tensor *hidden_states; /* the inputs of the forward pass, as there */
    const mmlp_tensor *linear_fc1_weight;
    const mmlp_tensor *linear_fc1_bias;
    const mmlp_tensor *linear_fc2_weight;
    const mmlp_tensor *linear_fc2_bias; /* NULL unless folded */
    const mmlp_tensor *per_token_scale;
    const mmlp_tensor *grad_hidden_states;   /* [tokens, hidden_size], written */
    const mmlp_tensor *grad_per_token_scale; /* fp32 [tokens], written; NULL without a scale */
    /* Weight gradients: fp32 with gradient_accumulation_fusion (main_grad), else params_dtype; bias
     * gradients: either, as the tensor says. The destination becomes beta * destination + gradient;
     * beta is 0 or 1, and with 0 it is never read. */
    const mmlp_tensor *grad_linear_fc1_weight; /* [fc1_output_size, hidden_size] */
    const mmlp_tensor *grad_linear_fc1_bias;   /* [fc1_output_size]; NULL without a bias */
    const mmlp_tensor *grad_linear_fc2_weight; /* [hidden_size, ffn_hidden_size] */
    const mmlp_tensor *grad_linear_fc2_bias;   /* [hidden_size]; NULL without a bias, and allowed to
                                                * be NULL where the bias is returned */
    int beta;
    void *saved;   /* what the forward pass has written */
    void *pending; /* kept until backward_dw; NULL when no bytes are needed */
    void *scratch; /* NULL when no bytes are needed */
    size_t saved_bytes, pending_bytes, scratch_bytes;
} mmlp_dgrad_args;
#define MMLP_DGRAD_ARGS_INIT                                                                       \
    {                                                                                              \
        sizeof(mmlp_dgrad_args), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0        \
    }

/*
 * Gradients of the input, the scale and the biases. Without delay_wgrad_compute also those of the
 * weights. Of several tensor-parallel ranks, each writes its own terms of the scale's gradient (its
 * part of the activation, and all of a folded bias) and, under sequence_parallel, of the gradient
 * of linear_fc2's bias (its tokens): no collective sums them. With delay_wgrad_compute, the call is
 * remembered (destinations, beta and operands are those given here), first in first out, until
 * mmlp_mlp_backward_dw; hidden_states, grad_output, `pending` and, with save_activation, `saved`
 * stay valid until that has run. Otherwise as mmlp_mlp_forward. tokens == 0 writes zeros to weight
 * and bias gradients when beta is 0. The memory of calls is host state: it changes when a call is
 * captured, not when its graph is launched. ERROR_ORDER: no forward pass of this mlp has written
 * `saved`, or a later call has written over it; ERROR_RING_FULL: wgrad_depth calls wait already;
 * ERROR_SHAPE; ERROR_ARGUMENT; ERROR_BUSY; ERROR_DEVICE.
 */
MMLP_API mmlp_status mmlp_mlp_dgrad(mmlp_mlp *mlp, const mmlp_dgrad_args *args, void *stream);

/*
 * The weight gradients of the oldest dgrad call that waits for them, fc2's and then fc1's (as
 * MLP.backward_dw): bit for bit what dgrad would have written without delay_wgrad_compute. `stream`
 * must run after that dgrad. Returns at once, with OK, without delay_wgrad_compute. A call whose
 * launch fails waits no longer: a second try would add to what the first has written.
 * ERROR_RING_EMPTY: no call waits; ERROR_BUSY; ERROR_DEVICE.
 */
MMLP_API mmlp_status mmlp_mlp_backward_dw(mmlp_mlp *mlp, void *stream);

/* ---- gradients over ranks -------------------------------------------------------------------- */

typedef struct mmlp_reduce_grads_args {
    size_t struct_size;
    /* As in mmlp_dgrad_args; NULL: not reduced by this call. */
    const mmlp_tensor *grad_linear_fc1_weight;
    const mmlp_tensor *grad_linear_fc1_bias;
    const mmlp_tensor *grad_linear_fc2_weight;
    const mmlp_tensor *grad_linear_fc2_bias;
    int scatter;         /* 1: each rank keeps the sum of its own part of every piece, in place, and
                          * the rest of the piece is undefined (distributed optimiser); 0: of all */
    int average;         /* 1: the mean over the data-parallel ranks; 0: the sum */
    size_t bucket_bytes; /* the most bytes of a bucket; 0: 40 MiB */
} mmlp_reduce_grads_args;
#define MMLP_REDUCE_GRADS_ARGS_INIT                                                                \
    {                                                                                              \
        sizeof(mmlp_reduce_grads_args), 0, 0, 0, 0, 0, 0, 0                                        \
    }

/*
 * Sums gradients over the ranks of MMLP_GROUP_DP, those of experts over MMLP_GROUP_EXPERT_DP; a
 * gradient of which the tensor-parallel ranks have parts (linear_fc2's bias with sequence_parallel)
 * over those first. In buckets, in the order in which the passes finish them: the biases of fc1 and
 * fc2, the weight of fc2, that of fc1. bucket: which one, or -1 for all. Enqueues on a stream of
 * the library's own, where each bucket waits for the kernels of this mlp that were enqueued before
 * and write it, and returns: it may be called as soon as the pass that writes the last of a
 * bucket's gradients has returned, and runs while what follows is computed. Nothing may touch the
 * gradients until mmlp_mlp_wait_grads. Of passes that are captured in a graph, the reduction
 * belongs into the same capture. All ranks call with the same arguments. ERROR_ORDER: the group is
 * not bound; ERROR_SHAPE: names the tensor, also one that cannot be split over the ranks (scatter);
 * ERROR_COMM: a rank has failed; ERROR_ARGUMENT; ERROR_BUSY; ERROR_DEVICE.
 */
MMLP_API mmlp_status mmlp_mlp_reduce_grads(mmlp_mlp *mlp, const mmlp_reduce_grads_args *args,
                                           int bucket);
/* `stream` waits for every reduction of this mlp that was enqueued before. */
MMLP_API mmlp_status mmlp_mlp_wait_grads(mmlp_mlp *mlp, void *stream);

/* A stretch of a gradient that is reduced as one. */
typedef struct mmlp_grad_piece {
    size_t struct_size;
    const char *gradient; /* "grad.linear_fc2.weight"; static; NULL: there is no such piece */
    int bucket;
    int64_t first, elements;         /* of the tensor */
    int64_t own_first, own_elements; /* what this rank has afterwards; all of it without scatter */
} mmlp_grad_piece;
#define MMLP_GRAD_PIECE_INIT                                                                       \
    {                                                                                              \
        sizeof(mmlp_grad_piece), 0, 0, 0, 0, 0, 0                                                  \
    }

/* Piece `index` of what mmlp_mlp_reduce_grads does with these arguments. */
MMLP_API mmlp_status mmlp_mlp_grad_piece(mmlp_mlp *mlp, const mmlp_reduce_grads_args *args,
                                         int index, mmlp_grad_piece *piece);

typedef struct mmlp_init_args {
    size_t struct_size;
    const mmlp_tensor *linear_fc1_weight; /* params_dtype or fp32, each */
    const mmlp_tensor *linear_fc1_bias;   /* NULL without a bias */
    const mmlp_tensor *linear_fc2_weight;
    const mmlp_tensor *linear_fc2_bias; /* NULL without a bias */
    uint64_t seed;
} mmlp_init_args;
#define MMLP_INIT_ARGS_INIT                                                                        \
    {                                                                                              \
        sizeof(mmlp_init_args), 0, 0, 0, 0, 0                                                      \
    }

/*
 * Initial weights as the spec says: each linear's init_method, else N(0, init_method_std) for fc1
 * and N(0, init_method_std / sqrt(2 * num_layers)) for fc2; biases are zero. An element depends on
 * the seed and on its index in the whole weight alone (Philox4x32-10), so that every
 * tensor-parallel size starts from the same numbers; fc1 takes the seed as its key, fc2 another one
 * made of it. Enqueues on stream. ERROR_ARGUMENT: fc2's deviation is asked for and the spec gave no
 * num_layers; ERROR_SHAPE.
 */
MMLP_API mmlp_status mmlp_mlp_init_weights(mmlp_mlp *mlp, const mmlp_init_args *args, void *stream);

/*
 * Fills a device tensor of params_dtype or fp32 with N(0, std) from the counter-based generator
 * Philox4x32-10 keyed by seed; element i depends on (seed, i) alone. Enqueues on stream.
 */
MMLP_API mmlp_status mmlp_mlp_fill_normal(mmlp_mlp *mlp, const mmlp_tensor *tensor, double std,
                                          uint64_t seed, void *stream);

/* One kernel of a loaded mlp, in launch order. */
typedef struct mmlp_kernel_properties {
    size_t struct_size;
    const char *name;       /* owned by the mlp */
    const char *pass;       /* "forward", "dgrad", "backward_dw", "init" */
    const char *step;       /* "linear_fc1", "linear_fc2", "linear_fc1_bias", ..., "fill" */
    const char *origin;     /* "bundle", "cache", "compiled" */
    double compile_ms;      /* 0 unless compiled by this load */
    double load_ms;         /* read and handed to the driver */
    int64_t tile_m, tile_n; /* rows and output columns a block computes; 0 for elementwise */
    int64_t columns;        /* output columns in all */
    int64_t reduction;      /* length of the sum, K */
    int threads;
    int shared_bytes;
    double flops_per_token;
    int64_t rows;                      /* output rows in all; 0: the tokens */
    double bytes, bytes_per_token;     /* distinct global bytes it touches: bytes + tokens *
                                        * bytes_per_token */
    int64_t least_tokens, most_tokens; /* it runs for; kernels of one step share them out */
} mmlp_kernel_properties;
#define MMLP_KERNEL_PROPERTIES_INIT                                                                \
    {                                                                                              \
        sizeof(mmlp_kernel_properties), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0       \
    }

MMLP_API int mmlp_mlp_kernel_count(const mmlp_mlp *mlp);
MMLP_API mmlp_status mmlp_mlp_kernel(const mmlp_mlp *mlp, int index,
                                     mmlp_kernel_properties *properties);

/*
 * For tools: from now on every pass synchronises its stream around each kernel and adds its
 * milliseconds to ms[i], i as in mmlp_mlp_kernel, count = mmlp_mlp_kernel_count. The array must
 * stay valid. ms NULL ends it. Slow, blocking, not capturable.
 */
MMLP_API mmlp_status mmlp_mlp_time_kernels(mmlp_mlp *mlp, double *ms, int count);

/* ---- sharded state dict ---------------------------------------------------------------------- */

/*
 * What each rank holds of the parameters, in the terms of Megatron's distributed checkpoints
 * (megatron.core.transformer.mlp, MLP.sharded_state_dict, after apply_factories): the stored tensor
 * is that of one rank, [gate; up] when gated, whatever the number of tensor-parallel ranks. No
 * device is needed, and the kernels' rules about sizes do not apply.
 */
enum { MMLP_SHARDED_AXES = 8, MMLP_SHARDED_KEY_BYTES = 256 };

/* The MLP, as far as its shards depend on it; mmlp_bundle_sharded_module fills it. */
typedef struct mmlp_sharded_module {
    size_t struct_size;
    int64_t hidden_size;
    int64_t ffn_hidden_size; /* per tensor-parallel rank */
    int64_t tensor_model_parallel_size;
    int gated_linear_unit;
    int add_bias_linear;
    const char *params_dtype; /* "bf16", "fp16", "fp32" */
} mmlp_sharded_module;
#define MMLP_SHARDED_MODULE_INIT                                                                   \
    {                                                                                              \
        sizeof(mmlp_sharded_module), 0, 0, 1, 0, 0, "bf16"                                         \
    }

MMLP_API mmlp_status mmlp_bundle_sharded_module(const mmlp_bundle *bundle,
                                                mmlp_sharded_module *module);

/* An axis before those of the parameters: this is number `index` of `count` layers, or experts. */
typedef struct mmlp_sharded_offset {
    int axis;
    int64_t index, count;
} mmlp_sharded_offset;

typedef struct mmlp_sharded_options {
    size_t struct_size;
    const char *prefix;                 /* of every key; NULL: none */
    const mmlp_sharded_offset *offsets; /* each axis from 0 to offset_count - 1 once */
    int offset_count;
    int singleton_local_shards; /* gate and up have keys of their own: KEY_w, KEY_v */
    int64_t tp_rank;
    int64_t dp_rank; /* of experts: in their own data-parallel group */
} mmlp_sharded_options;
#define MMLP_SHARDED_OPTIONS_INIT                                                                  \
    {                                                                                              \
        sizeof(mmlp_sharded_options), 0, 0, 0, 0, 0, 0                                             \
    }

/* One piece of a stored tensor. */
typedef struct mmlp_sharded_tensor {
    size_t struct_size;
    char key[MMLP_SHARDED_KEY_BYTES];
    const char *parameter; /* "linear_fc1.weight", ...: of which it is a part; static */
    const char *dtype;     /* static */
    int ndim;              /* of the parameter: 1 or 2 */
    int prepend_axis_num;  /* axes before those, of size 1 here */
    int64_t local_shape[MMLP_SHARDED_AXES]; /* ndim sizes */
    /* prepend_axis_num + ndim of each; offsets in elements. */
    int64_t global_shape[MMLP_SHARDED_AXES];
    int64_t global_offset[MMLP_SHARDED_AXES];
    int64_t axis_fragmentations[MMLP_SHARDED_AXES];
    int64_t replica_id[3]; /* who has all zeros writes it */
    int64_t first_row;     /* of the rank's parameter; local_shape[0] rows from there, contiguous */
} mmlp_sharded_tensor;
#define MMLP_SHARDED_TENSOR_INIT                                                                   \
    {                                                                                              \
        sizeof(mmlp_sharded_tensor), "", 0, 0, 0, 0, {0}, {0}, {0}, {0}, {0}, 0                    \
    }

/* An entry without a tensor: the extra state of a linear, empty for those of this library. */
typedef struct mmlp_sharded_object {
    size_t struct_size;
    char key[MMLP_SHARDED_KEY_BYTES];
    int ndim;
    int64_t global_shape[MMLP_SHARDED_AXES];
    int64_t global_offset[MMLP_SHARDED_AXES];
    int64_t replica_id[3];
} mmlp_sharded_object;
#define MMLP_SHARDED_OBJECT_INIT                                                                   \
    {                                                                                              \
        sizeof(mmlp_sharded_object), "", 0, {0}, {0},                                              \
        {                                                                                          \
            0                                                                                      \
        }                                                                                          \
    }

typedef struct mmlp_sharded_dict mmlp_sharded_dict;

/*
 * The entries of one rank, in Megatron's order. The dict is the caller's and changes no more: any
 * thread may read it. options may be NULL. ERROR_ARGUMENT: a rank, offset, size or key that cannot
 * be; ERROR_MEMORY.
 */
MMLP_API mmlp_status mmlp_sharded_state_dict(mmlp_sharded_dict **out,
                                             const mmlp_sharded_module *module,
                                             const mmlp_sharded_options *options);
MMLP_API void mmlp_sharded_dict_free(mmlp_sharded_dict *dict); /* NULL allowed */
MMLP_API int mmlp_sharded_tensor_count(const mmlp_sharded_dict *dict);
MMLP_API mmlp_status mmlp_sharded_tensor_get(const mmlp_sharded_dict *dict, int index,
                                             mmlp_sharded_tensor *tensor);
MMLP_API int mmlp_sharded_object_count(const mmlp_sharded_dict *dict);
MMLP_API mmlp_status mmlp_sharded_object_get(const mmlp_sharded_dict *dict, int index,
                                             mmlp_sharded_object *object);

/*
 * apply_swiglu_sharded_factory: the two stored pieces of a tensor that holds the gate's rows and
 * then up's, as linear_fc1 of a gated MLP and its optimiser moments do. Rows count after the
 * prepended axes. gate or up may be whole itself. ERROR_ARGUMENT: an odd number of rows, a piece
 * that is not one of equal fragments, a key that becomes too long.
 */
MMLP_API mmlp_status mmlp_swiglu_sharded_factory(mmlp_sharded_tensor *gate, mmlp_sharded_tensor *up,
                                                 const mmlp_sharded_tensor *whole,
                                                 int singleton_local_shards);

/* ---- checkpoints ----------------------------------------------------------------------------- */

/*
 * A checkpoint is one safetensors file of whole tensors under the keys of their entries, row-major,
 * prepended axes (layers, experts) first. Where a piece lies follows from keys, dtypes and global
 * shapes alone, so every rank writes and reads its own pieces at their places, at the same time as
 * the others: what some ranks have saved any other number of ranks loads. docs/checkpoints.md.
 */

/* A piece of a stored tensor. All elements of an array have the same struct_size. */
typedef struct mmlp_checkpoint_tensor {
    size_t struct_size;
    const mmlp_sharded_tensor *tensor; /* its place */
    void *data; /* its first element: local_shape, row-major and contiguous, of its dtype; for an
                 * entry of a sharded dict, row first_row of the rank's parameter */
} mmlp_checkpoint_tensor;
#define MMLP_CHECKPOINT_TENSOR_INIT                                                                \
    {                                                                                              \
        sizeof(mmlp_checkpoint_tensor), 0, 0                                                       \
    }

typedef struct mmlp_checkpoint_args {
    size_t struct_size;
    const mmlp_checkpoint_tensor *tensors; /* what this rank has, of every tensor of the file */
    int count;
    mmlp_context *context; /* the data lies on its device; NULL: in host memory */
    struct ncclComm *comm; /* the ranks that share the file, borrowed; needs a context. NULL: this
                            * call has all pieces */
    void *stream;          /* a CUstream of the context, NULL: the default stream */
} mmlp_checkpoint_args;
#define MMLP_CHECKPOINT_ARGS_INIT                                                                  \
    {                                                                                              \
        sizeof(mmlp_checkpoint_args), 0, 0, 0, 0, 0                                                \
    }

/*
 * Writes the file `path`, whole or not at all: into PATH.saving beside it, which is flushed and
 * then renamed. Entries whose replica_id is all zeros are written; together they must be every
 * element of every tensor once. Every rank of comm must call: what they give is compared before a
 * byte is written, and what one of them cannot do fails on all. Blocks; runs after what the stream
 * holds. Takes 24 MiB besides, pinned, and none for host memory. The folder must be one file system
 * to all ranks, with writes that others see (not NFS).
 * ERROR_ARGUMENT: an entry that cannot be, or two that do not agree; ERROR_SHAPE: pieces that
 * overlap or leave holes, ranks with other tensors; ERROR_IO; ERROR_MEMORY; ERROR_DEVICE; on the
 * other ranks the status of the first that failed; ERROR_COMM: a rank died.
 */
MMLP_API mmlp_status mmlp_checkpoint_save(const char *path, const mmlp_checkpoint_args *args);

/*
 * Reads the pieces from a file that has exactly the tensors of the entries, in any order, each of
 * its global shape and dtype. All that is checked on all ranks before anything is written to
 * `data`; only a device or the file itself failing later leaves it half read. Otherwise as
 * mmlp_checkpoint_save. ERROR_FORMAT: no safetensors file, or a malformed one; ERROR_SHAPE: the
 * line names the first tensor that is missing, too much, or of another shape or dtype.
 */
MMLP_API mmlp_status mmlp_checkpoint_load(const char *path, const mmlp_checkpoint_args *args);

/*
 * What mmlp_checkpoint_load checks of the file, of which nothing else is read: `report` (NULL
 * allowed) gets one line for each difference. Of args only the entries count, also of one rank
 * alone; data may be NULL. ERROR_SHAPE: there are differences; otherwise as mmlp_checkpoint_load.
 */
MMLP_API mmlp_status mmlp_checkpoint_verify(const char *path, const mmlp_checkpoint_args *args,
                                            void (*report)(void *user, const char *line),
                                            void *user);

#ifdef __cplusplus
}
#endif
#endif
