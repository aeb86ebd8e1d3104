/*
 * mlp.h: a bundle loaded on a device, to the files that load it and run it.
 */
#ifndef MMLP_MLP_H
#define MMLP_MLP_H

#include <stdatomic.h>

#include "bundle.h"
#include "comm.h"
#include "context.h"
#include "saved_passes.h"
#include "wgrad_ring.h"

enum {
    PASS_COUNT = MMLP_PASS_BACKWARD_DW + 1,
    GROUP_COUNT = MMLP_GROUP_EXPERT_DP + 1,
    GRADIENT_COUNT = 4
};

typedef struct loaded_kernel {
    const bundle_kernel *kernel;
    CUmodule module;
    CUfunction function;
    const char *origin; /* "bundle", "cache", "compiled" */
    double compile_ms, load_ms;
    int map_slots[BUNDLE_MAX_MAPS];    /* where the tensor of each map comes from */
    int slots[BUNDLE_MAX_ARGUMENTS];   /* where each parameter comes from */
    int when;                          /* the tensor without which it is left out, or -1 */
    int64_t least_tokens, most_tokens; /* it runs for */
    int gradient;                      /* of a parameter that it writes: see gradient_of; or -1 */
} loaded_kernel;

typedef struct loaded_collective {
    const bundle_collective *collective;
    bundle_pass pass;    /* that enqueues it */
    int position;        /* the kernel it is enqueued before; -1: at the end of the pass */
    int input, output;   /* slots */
    CUevent ready, done; /* its input is there; its output is */
    bool under_way;      /* enqueued in this call, and nobody waits for it yet */
} loaded_collective;

struct mmlp_mlp {
    mmlp_context *context;
    const mmlp_bundle *bundle;
    int64_t max_tokens;
    loaded_kernel *kernels; /* those for this device, in launch order */
    int kernel_count;
    bool has_dgrad;
    /* Whether the kernels of a pass touch the caller's memory of a lifetime. */
    bool touches[PASS_COUNT][LIFETIME_COUNT];
    /* A saved buffer that one forward kernel hands to another: it cannot be left out; or NULL. */
    const char *handed_on;
    loaded_collective collectives[BUNDLE_MAX_COLLECTIVES];
    int collective_count;
    CUstream comm_stream;   /* of the collectives; NULL without any */
    int regathered_buffer;  /* which backward_dw gathers into memory of the mlp; -1: none */
    CUdeviceptr regathered; /* that memory, for max_tokens */
    const comm *groups[GROUP_COUNT]; /* of mmlp_mlp_bind_comm */
    /* With a data-parallel group: */
    CUstream grads_stream;           /* of mmlp_mlp_reduce_grads */
    CUevent written[GRADIENT_COUNT]; /* after the last kernel that has written a gradient */
    CUevent reduced;                 /* of mmlp_mlp_wait_grads */

    /* What follows changes between mlp_enter and mlp_leave. */
    _Atomic(const char *) inside; /* the function that a thread is in, or NULL */
    saved_passes saved;
    wgrad_ring ring;
    double *kernel_ms; /* see mmlp_mlp_time_kernels; NULL: nothing is timed */
    CUevent events[2]; /* while kernel_ms is not NULL */
};

/* ---- enter.c: one thread at a time ---------------------------------------------------------- */

/* Takes the handle for `function` and makes its context current; mlp_leave ends both.
 * ERROR_ARGUMENT: mlp is NULL; ERROR_BUSY: a thread is inside already. */
mmlp_status mlp_enter(mmlp_mlp *mlp, const char *function);
void mlp_leave(mmlp_mlp *mlp);

/* ---- memory.c: sizes ------------------------------------------------------------------------ */

/* Fills touches and handed_on; the kernels' arguments are bound. */
void memory_examine(mmlp_mlp *mlp);
/* Where buffer `index` begins in the memory of its lifetime. Nothing overflows: tokens is at most
 * INT32_MAX, columns and buffers are bounded (bundle.h). */
size_t memory_offset(const mmlp_mlp *mlp, int index, int64_t tokens);
/* What a caller must provide for a pass; 0 for what the pass does not touch. */
size_t memory_bytes(const mmlp_mlp *mlp, mmlp_pass pass, mmlp_lifetime lifetime, int64_t tokens);
/* Into how many parts ranks split the tokens of the caller's tensors. */
int64_t memory_split(const mmlp_bundle *bundle);
/* tokens is in [0, max_tokens] and can be split, or ERROR_ARGUMENT. */
mmlp_status memory_check_tokens(const mmlp_mlp *mlp, int64_t tokens);

/* ---- launch.c ------------------------------------------------------------------------------- */

/* Whether a tensor, number or buffer is one of its parameters. */
bool kernel_takes(const loaded_kernel *loaded, int slot);
/* The tiles of a launch, those of a cluster as one; at most INT32_MAX after mmlp_mlp_load. */
int64_t kernel_tiles(const bundle_kernel *kernel, int64_t tokens_or_elements);
/* reduce_grads.c: which gradient of a parameter the kernel writes, in the order in which the passes
 * finish them; -1: none. */
int gradient_of(const loaded_kernel *loaded);
/* The stream and events of mmlp_mlp_reduce_grads, at the first data-parallel group; and their end.
 * The context is current. */
mmlp_status gradients_prepare(mmlp_mlp *mlp);
void gradients_release(mmlp_mlp *mlp);
/* The kernel was enqueued: who reduces the gradient that it writes waits for it. */
mmlp_status gradients_mark(mmlp_mlp *mlp, const loaded_kernel *loaded, void *stream);
/* Enqueues one kernel. follows: another one of this call is before it in the stream, which a kernel
 * that waits for it need not see ended. Between mlp_enter and mlp_leave. */
mmlp_status launch_kernel(mmlp_mlp *mlp, const loaded_kernel *loaded, slot_value *values,
                          int64_t tokens_or_elements, bool follows, void *stream);
/* Enqueues the kernels of a pass that have something to do, in order. */
mmlp_status launch_pass(mmlp_mlp *mlp, bundle_pass pass, pass_call *call, void *stream);
/* Nothing is timed from now on. The context is current. */
void launch_end_timing(mmlp_mlp *mlp);

#endif
