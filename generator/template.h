/*
 * template.h: CUDA text with Lua in it. A line whose first non-blank characters are //% is Lua,
 * ${expression} in any other line is replaced by its value, and nothing else is special.
 */
#ifndef MMLP_GENERATOR_TEMPLATE_H
#define MMLP_GENERATOR_TEMPLATE_H

#include <lua.h>

#include "base/error.h"
#include "base/text.h"

/* A template that the build embedded. */
typedef struct template_file {
    const char *name; /* "templates/kernels/sm_80_gemm.cu" */
    const char *text;
    size_t bytes;
} template_file;

/* The embedded templates, sorted by name, ended by a NULL name (templates.c, made by the build). */
extern const template_file template_files[];

/* From output line `first_line` on, lines come from `name` at `line`, one for one. */
typedef struct template_run {
    int first_line;
    const char *name; /* of the template; borrowed from template_files */
    int line;
} template_run;

typedef struct template_output {
    text text;
    template_run *runs;
    int run_count;
} template_output;

/* Leaves the variables of the template as fields of the table at the top of the stack. */
typedef mmlp_status (*template_bind)(lua_State *lua, const void *user);

/*
 * Expands the template templates/NAME of `files`. A nil value or an unknown name is ERROR_FORMAT
 * with the template's file and line. Free with template_output_free, also on failure.
 */
mmlp_status template_expand(template_output *out, const template_file *files, const char *name,
                            template_bind bind, const void *user);
void template_output_free(template_output *output);
/* Where a line of the output came from; *name NULL when the output has no such line. */
void template_locate(const char **name, int *line, const template_output *output, int output_line);

#endif
