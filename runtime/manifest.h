/*
 * manifest.h: what the two files that read a manifest share.
 */
#ifndef MMLP_MANIFEST_H
#define MMLP_MANIFEST_H

#include "bundle.h"
#include "json_fields.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])

/* The file of that name; ERROR_FORMAT when `files` has none. */
mmlp_status manifest_find_file(const bundle_file **out, const mmlp_bundle *bundle, const char *name,
                               const json_place *place);
/* Fills bundle->kernels. The names in bundle->files are sorted. ERROR_FORMAT names the key. */
mmlp_status manifest_read_kernels(mmlp_bundle *bundle, const json_t *array);

#endif
