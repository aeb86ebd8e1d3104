/* describe.h: an MLP's sizes as JSON, for programs that read specs and need no kernels. */
#ifndef MMLP_GENERATOR_DESCRIBE_H
#define MMLP_GENERATOR_DESCRIBE_H

#include <stdio.h>

#include "spec.h"

/* Prints an object and a newline: of a manifest's `mlp` (docs/bundle-format.md) what the shards of
 * a checkpoint depend on. ERROR_MEMORY. */
mmlp_status describe_print(FILE *out, const module_spec *spec);

#endif
