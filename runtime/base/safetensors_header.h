/*
 * safetensors_header.h: the header of a safetensors file: 8 bytes that say how long its JSON is,
 * little-endian, and the JSON, which names the tensors that follow. Used by the runtime and by the
 * tools; nothing here opens a file.
 */
#ifndef MMLP_BASE_SAFETENSORS_HEADER_H
#define MMLP_BASE_SAFETENSORS_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/text.h"

enum { SAFETENSORS_AXES = 8, SAFETENSORS_LENGTH_BYTES = 8 };

typedef struct safetensors_type {
    const char *word;   /* "BF16" */
    uint8_t code, bits; /* as in mmlp_tensor.dtype */
} safetensors_type;

/* The type of that word, or of that code and bits; NULL: the library knows none. */
const safetensors_type *safetensors_type_named(const char *word);
const safetensors_type *safetensors_type_of(uint8_t code, uint8_t bits);

typedef struct safetensors_entry {
    char *name; /* owned by the header */
    const safetensors_type *type;
    int ndim;
    int64_t shape[SAFETENSORS_AXES];
    uint64_t begin, end; /* in bytes, from the first behind the header */
} safetensors_entry;

typedef struct safetensors_header {
    safetensors_entry *entries; /* in the order in which they lie in the file */
    size_t count;
} safetensors_header;
#define SAFETENSORS_HEADER_INIT                                                                    \
    {                                                                                              \
        NULL, 0                                                                                    \
    }

void safetensors_header_free(safetensors_header *header); /* empties it */
const safetensors_entry *safetensors_header_find(const safetensors_header *header,
                                                 const char *name);

/* The number of bytes that a shape needs; false: more than memory. */
bool safetensors_bytes(uint64_t *out, const safetensors_type *type, const int64_t *shape, int ndim);

/* How long the JSON is, from the first 8 bytes of a file of file_bytes. On failure `problem` says
 * what is wrong with the file. */
bool safetensors_header_length(size_t *out, const unsigned char *first, uint64_t file_bytes,
                               text *problem);
/* Reads the JSON. The tensors fill the data_bytes behind it without overlapping and without holes,
 * as the format wants; else `problem` says which does not. */
bool safetensors_header_parse(safetensors_header *out, const char *json, size_t length,
                              uint64_t data_bytes, text *problem);
/* The file up to its data: length, JSON, spaces until its size is a multiple of 64. NULL: out of
 * memory, or a name is not UTF-8. */
char *safetensors_header_make(size_t *bytes, const safetensors_header *header);

#endif
