/* spec_source.h: where a key stands in the text of a spec. */
#ifndef MMLP_GENERATOR_SPEC_SOURCE_H
#define MMLP_GENERATOR_SPEC_SOURCE_H

#include <stdbool.h>

/*
 * Finds `key` standing literally inside the braces of the only call `callee { ... }` that begins on
 * `call_line` of the Lua text, or, with `inside`, inside the braces of that key of the call:
 * ModuleSpec { params = { key = ... } }. False when there is no such place, or more than one call.
 */
bool source_find_key(int *line, int *column, const char *text, int call_line, const char *callee,
                     const char *inside, const char *key);

#endif
