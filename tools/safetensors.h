/*
 * safetensors.h: reads and writes safetensors files (8-byte little-endian header length, JSON
 * header, raw little-endian tensors). A file is mapped, never copied; everything in its header is
 * checked before any tensor is handed out.
 */
#ifndef MMLP_TOOLS_SAFETENSORS_H
#define MMLP_TOOLS_SAFETENSORS_H

#include <megamlp/megamlp.h>
#include <stddef.h>

typedef struct safetensor {
    char *name;
    mmlp_tensor view; /* a CPU tensor inside the mapping */
    size_t bytes;
    int64_t shape[8];
} safetensor;

typedef struct safetensors {
    safetensor *tensors; /* sorted by offset */
    size_t count;
    void *mapping;
    size_t mapping_bytes;
} safetensors;

/* On failure returns 0, and *error is one malloc'd line that names the file and what is wrong. */
int safetensors_open(safetensors *out, const char *path, char **error);
void safetensors_close(safetensors *file); /* a zeroed one is allowed */
const safetensor *safetensors_find(const safetensors *file, const char *name);

/* Writes CPU tensors to a temporary file beside `path`, then renames it. What stands
 * there and is no regular file (/dev/null) is not replaced. Errors as above. */
int safetensors_write(const char *path, const safetensor *tensors, size_t count, char **error);

/* "BF16", "F16", "F32", ... of a view's type; "?" when the format has no word for it. */
const char *safetensors_dtype(const mmlp_tensor *view);

#endif
