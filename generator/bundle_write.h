/*
 * bundle_write.h: writing NAME.mlp as docs/bundle-format.md says.
 */
#ifndef MMLP_GENERATOR_BUNDLE_WRITE_H
#define MMLP_GENERATOR_BUNDLE_WRITE_H

#include <jansson.h>
#include <stdbool.h>

#include "emit.h"

typedef struct bundle_options {
    const char *const *archs; /* targets of prebuilt images; NULL: "sm_80" */
    int arch_count;
    bool ptx, cubin;  /* which images to build */
    bool force;       /* replace an existing bundle */
    const char *tile; /* of plan_build; NULL: the best */
} bundle_options;

/*
 * Plans, emits and writes. The bundle is made in a folder beside `path` and renamed: `path` is the
 * old bundle, or nothing, or the whole new one. ERROR_IO: exists and no force, or the file system;
 * ERROR_UNSUPPORTED; ERROR_COMPILE and ERROR_DRIVER only with images.
 */
mmlp_status bundle_write(const module_spec *spec, const char *path, const bundle_options *options);

/* ---- bundle_manifest.c ---- */

/* One file of the bundle besides the manifest. */
typedef struct bundle_content {
    char *name, *bytes; /* owned */
    size_t count;
    int kernel;         /* whose image it is; -1: a source */
    const char *target; /* of an image */
    const char *kind;   /* "cubin", "ptx" */
} bundle_content;

/* manifest.json, its hash filled in (malloc). */
mmlp_status manifest_print(char **out, size_t *bytes, const emit_kernels *kernels,
                           const bundle_content *files, int file_count);

#endif
