/* run_shard.h: the part of a whole tensor that one tensor-parallel rank has. */
#ifndef MMLP_TOOLS_RUN_SHARD_H
#define MMLP_TOOLS_RUN_SHARD_H

#include "run_step.h"
#include "safetensors.h"

/*
 * The tensor of a file that belongs to a slot: rank{r}.NAME of this rank, or its part of NAME,
 * which `out` then owns (run_shard_free). A tensor that cannot be split so is given as it is: its
 * shape tells the reader. *found: whether there is one. Returns 0, or the exit code after printing
 * why.
 */
typedef struct run_shard {
    safetensor tensor;
    void *owned;
} run_shard;
int run_shard_find(run_shard *out, int *found, const run_step *s, const safetensors *file,
                   const char *name, run_slot slot);
void run_shard_free(run_shard *shard);

#endif
