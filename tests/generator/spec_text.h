/* spec_text.h: specs from text, for tests. Loading happens in a temporary folder as "bad.lua", so
 * that messages can be compared whole. */
#ifndef SPEC_TEXT_H
#define SPEC_TEXT_H

#include "spec.h"

/* Writes a file into the temporary folder (made on first use, the current folder from then on). */
void spec_text_file(const char *name, const char *content);
/* Loads the text as bad.lua. */
mmlp_status spec_text_load(module_spec *out, const char *content);
/* The text must fail with exactly this message. */
void spec_text_fails(const char *content, const char *message);
/* TransformerConfig's fields between "{" and "}", wrapped into a whole spec: the config starts on
 * line 1, its fields on line 2. params are appended to those of the MLP. */
char *spec_text_config(const char *fields, const char *params);

#endif
