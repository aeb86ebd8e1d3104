/* ckpt.h: the subcommands of megamlp-ckpt. Each prints and returns an exit code. */
#ifndef MMLP_TOOLS_CKPT_H
#define MMLP_TOOLS_CKPT_H

#include <megamlp/megamlp.h>

/* What a rank holds of the stored tensors of SPEC.lua or NAME.mlp. */
int ckpt_plan(const char *spec_or_bundle, const mmlp_sharded_options *options);
/* The tensors of a safetensors file. */
int ckpt_ls(const char *path);

#endif
