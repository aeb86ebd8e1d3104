/*
 * run_step.h: one pass, or one training step of one or more microbatches, of an MLP on a device:
 * its inputs, its memory, its results.
 */
#ifndef MMLP_TOOLS_RUN_STEP_H
#define MMLP_TOOLS_RUN_STEP_H

#include "run_tensors.h"

/* The copies of each tensor; what is not there is zero. */
typedef struct run_set {
    run_tensor host[RUN_SLOT_COUNT], device[RUN_SLOT_COUNT];
} run_set;

typedef struct run_microbatch {
    int64_t tokens; /* of all ranks */
    run_set set;
    void *saved, *pending; /* device memory */
} run_microbatch;

typedef struct run_step {
    mmlp_context *context;
    mmlp_mlp *mlp;
    int ranks, rank;       /* that share the MLP */
    struct ncclComm *comm; /* of them; NULL where there is one */
    mmlp_bundle_properties properties;
    int train; /* a training step; otherwise a forward pass */
    int infer; /* the forward pass saves nothing */
    int keep;  /* intermediates are copied to the host before the next pass overwrites them */
    int count; /* microbatches */
    run_microbatch *microbatches;
    run_set shared;                     /* parameters and their gradients */
    run_tensor initial[RUN_SLOT_COUNT]; /* host: what weight gradients start from, or nothing */
    int prefixed;                       /* tensors of microbatches are named "mbN.name" */
    mmlp_memory memory;
    void *scratch;
    double *kernel_ms; /* of each kernel, all of its launches together */
} run_step;

/* Whether the step has this tensor at all. */
int run_step_uses(const run_step *s, run_slot slot);
/* Where a slot's copies are; `microbatch` does not matter for parameters and gradients. */
run_tensor *run_step_host(run_step *s, int microbatch, run_slot slot);
run_tensor *run_step_device(run_step *s, int microbatch, run_slot slot);

/* "mb1.output", "main_grad.linear_fc1.weight": the name in a file. */
enum { RUN_NAME_SIZE = 64 };
void run_step_name(char name[RUN_NAME_SIZE], const run_step *s, int microbatch, run_slot slot);
/* "mb1." or "". */
void run_step_prefix(char prefix[16], const run_step *s, int microbatch);
/* Whether a weight gradient is fp32 and called main_grad. */
int run_step_is_main_grad(const run_step *s, run_slot slot);

/* All of these return 0, or the exit code after printing why. */
int run_step_start(run_step *s, int microbatches);
/* Kernels: compiled and loaded. */
int run_step_load(run_step *s, const mmlp_bundle *bundle);
/* The ranks' communicator, with the id that one of them has made: all call. */
int run_step_bind(run_step *s, const mmlp_comm_id *id);
int run_step_random_inputs(run_step *s, uint64_t seed);
int run_step_allocate(run_step *s);
int run_step_execute(run_step *s);
/* The host copy of a slot, made from the device's when there is none yet. */
int run_step_download(run_step *s, int microbatch, run_slot slot);
void run_step_free(run_step *s);

#endif
