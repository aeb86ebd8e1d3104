/*
 * shard.h: what one rank has of the layers of an MLP, with numbers that say where they belong: an
 * element's bits depend on the parameter, the layer and its place in the whole, not on the ranks.
 */
#ifndef CHECKPOINT_SHARD_H
#define CHECKPOINT_SHARD_H

#include <megamlp/megamlp.h>
#include <stdbool.h>

enum { SHARD_LAYERS_MAX = 4, SHARD_TENSORS_MAX = 6 * SHARD_LAYERS_MAX };

typedef struct shard_model {
    int64_t hidden_size, ffn_hidden_size; /* of all ranks together */
    bool gated, bias, singleton;
    const char *dtype;
    int layers; /* prepended to every tensor; 0: none is */
} shard_model;

typedef struct shard {
    shard_model model;
    int ranks, rank;
    mmlp_context *context; /* of the device memory; NULL: host */
    char *parameters[SHARD_LAYERS_MAX][4];
    mmlp_sharded_tensor places[SHARD_TENSORS_MAX];
    mmlp_checkpoint_tensor tensors[SHARD_TENSORS_MAX];
    int count;
} shard;

/* Uninitialised memory for all parameters of the rank, and their entries. */
void shard_make(shard *s, const shard_model *model, int ranks, int rank, mmlp_context *context);
void shard_free(shard *s);
void shard_fill(shard *s);  /* with the numbers */
void shard_blank(shard *s); /* with a byte that no number begins with */
void shard_expect_filled(const shard *s);
void shard_expect_blank(const shard *s);
/* Saves all ranks of the model in one call, from host memory. */
void shard_save_all(const char *path, const shard_model *model, int ranks);
/* Loads each rank by itself, to host memory, and expects its numbers. */
void shard_load_all(const char *path, const shard_model *model, int ranks);
/* Whether the file is whole and of the model; one that is has the numbers. */
bool shard_is_file(const char *path, const shard_model *model);
/* The args for this rank alone. */
mmlp_checkpoint_args shard_args(const shard *s);

#endif
