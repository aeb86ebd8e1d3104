/*
 * ptxrun_json.h: values out of a JSON document, and one line about the first that is wrong: where
 * it stands, what was found there and what is wanted. Functions return 0, or EXIT_INPUT after
 * printing that line.
 */
#ifndef MMLP_TOOLS_PTXRUN_JSON_H
#define MMLP_TOOLS_PTXRUN_JSON_H

#include <jansson.h>
#include <stdint.h>

#include "ptxrun_number.h"

/* A way down from the document: its root has the file's name as its key. */
typedef struct json_path {
    const struct json_path *parent;
    const char *key; /* NULL: an element of an array */
    size_t index;
} json_path;

#define JSON_KEY(parent, key)     (&(const json_path){(parent), (key), 0})
#define JSON_INDEX(parent, index) (&(const json_path){(parent), NULL, (index)})

/* "FILE: runs[2].grid: found FOUND, wanted WANTED"; WANTED is a printf format. */
int json_path_fail(const json_path *at, const json_t *found, const char *wanted, ...)
    __attribute__((format(printf, 3, 4)));
/* "FILE: runs[2].grid: TEXT" */
int json_path_say(const json_path *at, const char *text, ...) __attribute__((format(printf, 2, 3)));

/* An object that has no other keys than these (NULL-terminated). */
int json_get_object(const json_path *at, const json_t *found, const char *const *keys);
/* An array of least to most elements. */
int json_get_array(const json_path *at, const json_t *found, size_t least, size_t most);
int json_get_integer(int64_t *out, const json_path *at, const json_t *found, int64_t least,
                     int64_t most);
int json_get_real(double *out, const json_path *at, const json_t *found);
/* A value that the type can hold; a real number is not rounded yet. */
int json_get_number(number *out, const json_path *at, const json_t *found, number_type type);
/* A string that is not empty, borrowed. */
int json_get_string(const char **out, const json_path *at, const json_t *found);
/* The index of a word of a NULL-terminated list. */
int json_get_word(int *out, const json_path *at, const json_t *found, const char *const *words);
/* The bytes that a string of hexadecimal digits stands for (malloc, *out NULL on failure). */
int json_get_hex(unsigned char **out, size_t *count, const json_path *at, const json_t *found);

#endif
