/* loaded_mlp.h: specs from text, made bundles and loaded on the emulated device. The test fails
 * when anything fails. */
#ifndef LOADED_MLP_H
#define LOADED_MLP_H

#include <megamlp/megamlp.h>

#include "spec.h"

/* The device of $MMLP_DRIVER. */
mmlp_context *loaded_device(void);

/* A bundle of a text; nothing stays on the disk. */
mmlp_bundle *loaded_bundle(const char *spec, const char *tile);

typedef struct loaded_mlp {
    mmlp_context *context; /* borrowed */
    mmlp_bundle *bundle;
    mmlp_mlp *mlp;
} loaded_mlp;

/* spec_load, from a text. */
mmlp_status loaded_spec_load(module_spec *out, const char *content);

/* `spec` is a text. wgrad_depth 0: 1. */
void loaded_open(loaded_mlp *out, mmlp_context *context, const char *spec, int64_t max_tokens,
                 int wgrad_depth, const char *tile);
void loaded_close(loaded_mlp *loaded);

/* The text of a spec: fields of TransformerConfig besides hidden_size and ffn_hidden_size, and of
 * the module's params besides config (malloc). */
char *loaded_spec(int hidden_size, int ffn_hidden_size, const char *fields, const char *params);

#endif
