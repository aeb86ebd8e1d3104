/* ckpt.h: the subcommands of megamlp-ckpt. Each prints and returns an exit code. */
#ifndef MMLP_TOOLS_CKPT_H
#define MMLP_TOOLS_CKPT_H

#include <megamlp/megamlp.h>

/* What a rank holds of the stored tensors of SPEC.lua or NAME.mlp. */
int ckpt_plan(const char *spec_or_bundle, const mmlp_sharded_options *options);
/* Whether a file has the stored tensors of SPEC.lua or NAME.mlp: a line for each difference. */
int ckpt_verify(const char *path, const char *spec_or_bundle, const mmlp_sharded_options *options);
/* The tensors of a safetensors file. */
int ckpt_ls(const char *path);

/* The entries of a rank of SPEC.lua or NAME.mlp. Returns 0, or the exit code after printing why. */
int ckpt_dict(mmlp_sharded_dict **out, const char *spec_or_bundle,
              const mmlp_sharded_options *options);

#endif
