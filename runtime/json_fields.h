/*
 * json_fields.h: reads a JSON object into a struct by a table of its keys. Every key of the table
 * must be there, with the right type and within its bounds, and no other key may be.
 */
#ifndef MMLP_JSON_FIELDS_H
#define MMLP_JSON_FIELDS_H

#include <jansson.h>
#include <stddef.h>

#include "base/error.h"

typedef enum json_field_type {
    JSON_FIELD_INTEGER, /* int64_t, in [min, max] */
    JSON_FIELD_NUMBER,  /* double, finite, at least 0 */
    JSON_FIELD_REAL,    /* double, finite */
    JSON_FIELD_FLAG,    /* bool */
    JSON_FIELD_STRING,  /* const char *, not empty, borrowed */
    JSON_FIELD_WORD,    /* int, the index of the string in `words` */
    JSON_FIELD_OBJECT,  /* const json_t * */
    JSON_FIELD_ARRAY    /* const json_t *, of [min, max] elements */
} json_field_type;

typedef struct json_field {
    const char *key;
    json_field_type type;
    size_t offset; /* in the struct */
    int64_t min, max;
    const char *const *words; /* NULL-terminated */
} json_field;

/* Where an object stands: printed before the key, "NAME.mlp/manifest.json: kernels[2]". */
typedef struct json_place {
    const char *document;
    const char *array; /* "" at the top */
    int index;         /* -1: `array` is an object's name */
} json_place;

mmlp_status json_fields_read(void *out, const json_t *object, const json_field *fields,
                             size_t count, const json_place *place);
/* ERROR_FORMAT: "DOCUMENT: PLACE.KEY: found FOUND, wanted WANTED"; found is described. */
mmlp_status json_fail_field(const json_place *place, const char *key, const json_t *found,
                            const char *wanted);

#endif
