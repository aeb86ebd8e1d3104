/*
 * spec_loader.h: the state of one spec_load, shared by the files that make up the spec language:
 * sandbox (what Lua may do), tables (constructors), trace (activations), rules (what fits
 * together). A Lua error unwinds past C frames, so everything that must be freed belongs to the
 * loader.
 */
#ifndef MMLP_GENERATOR_SPEC_LOADER_H
#define MMLP_GENERATOR_SPEC_LOADER_H

#include <lua.h>
#include <time.h>

#include "spec.h"

enum {
    SPEC_MEMORY_LIMIT = 64 << 20,
    SPEC_INSTRUCTION_LIMIT = 10000000,
    SPEC_SECONDS_LIMIT = 10,
    SPEC_FIELDS_MAX = 32, /* of one table */
};

/* file is an index into the loader's files, -1 when unknown; line and column count from 1, 0 is
 * unknown. */
typedef struct spec_place {
    int file, line, column;
} spec_place;

typedef struct spec_file {
    char *path, *text;
    bool running;
} spec_file;

typedef struct spec_mistake {
    spec_place place;
    char *text;
} spec_mistake;

typedef struct spec_traced {
    char *name;
    spec_activation identity;
    bool takes_up;   /* a function of gate and up, which it joins itself */
    program formula; /* inputs "x" and, where takes_up, "up"; simplified */
    int result;
} spec_traced;

typedef struct spec_loader {
    const spec_options *options;
    lua_State *lua;
    size_t bytes; /* allocated by Lua now */
    long long allocations;
    bool limit_hit, memory_failed;
    long long instructions;
    clock_t started;
    spec_file *files;
    int file_count;
    spec_mistake *mistakes;
    int mistake_count;
    spec_traced *activations;
    int activation_count;
    program trace; /* of the activation that is being traced */
    bool tracing;
    int trace_serial;
    text traceback;
    const struct spec_object *returned; /* by the spec; kept on Lua's stack */
} spec_loader;

/* ---- loader (spec.c) ------------------------------------------------------------------------- */

spec_loader *loader_of(lua_State *lua);
/* Where the Lua function that called the running C function stands. */
spec_place loader_caller(lua_State *lua);
/* Records a mistake; loader_raise then ends the spec when there is any. */
void loader_mistake(lua_State *lua, spec_place place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void loader_raise(lua_State *lua);
/* Raises Lua's own out-of-memory error for memory that is not Lua's. */
int loader_raise_memory(lua_State *lua);
/* Reads a file (beside the spec: `path` is whole), runs it, leaves its results on the stack. */
int loader_run_file(lua_State *lua, const char *path);

/* ---- sandbox (spec_sandbox.c) ---------------------------------------------------------------- */

/* A state whose memory and instructions are counted; NULL when even that did not fit. */
lua_State *sandbox_open(spec_loader *loader);
/* Fills the globals with what a spec may use of Lua itself. */
void sandbox_add_lua(lua_State *lua);
/* Makes reading an unknown global and writing any an error. Call when all globals are there. */
void sandbox_seal(lua_State *lua);

/* ---- tables (spec_tables.c) ------------------------------------------------------------------ */

typedef enum spec_module {
    SPEC_MODULE_MLP,
    SPEC_MODULE_ColumnParallelLinear,
    SPEC_MODULE_RowParallelLinear
} spec_module;

typedef enum spec_object_kind {
    SPEC_OBJECT_MODULE,
    SPEC_OBJECT_LINEAR, /* ModuleSpec of a linear */
    SPEC_OBJECT_CONFIG,
    SPEC_OBJECT_SUBMODULES,
    SPEC_OBJECT_MLP, /* ModuleSpec of an MLP */
    SPEC_OBJECT_ACTIVATION,
    SPEC_OBJECT_INIT
} spec_object_kind;

typedef struct spec_linear_object {
    spec_module module;
    spec_linear linear;
    spec_place call, places[SPEC_FIELDS_MAX];
} spec_linear_object;

typedef struct spec_config_object {
    spec_config config;
    spec_place call, places[SPEC_FIELDS_MAX];
} spec_config_object;

typedef struct spec_submodules_object {
    spec_linear_object linear_fc1, linear_fc2;
    int activation; /* -1: none */
    spec_place call, places[SPEC_FIELDS_MAX];
} spec_submodules_object;

typedef struct spec_mlp_object {
    spec_config_object config;
    spec_submodules_object submodules;
    spec_mlp mlp;
    spec_place call, places[SPEC_FIELDS_MAX]; /* places: of the params */
} spec_mlp_object;

/* Every value that a constructor returns is one of these as userdata. */
typedef struct spec_object {
    spec_object_kind kind;
    union {
        spec_module module;
        spec_linear_object linear;
        spec_config_object config;
        spec_submodules_object submodules;
        spec_mlp_object mlp;
        int activation;
        spec_init init;
    } as;
} spec_object;

/* Field numbers, for places[]. */
enum {
#define CONFIG_FIELD(type, name, value, text, least, help) CONFIG_##name,
#include "spec_fields.def"
};
enum {
#define MLP_FIELD(type, name, value, text, least, help) MLP_##name,
#include "spec_fields.def"
};
enum {
#define LINEAR_FIELD(type, name, value, text, least, help) LINEAR_##name,
#include "spec_fields.def"
};

void tables_add_constructors(lua_State *lua);
/* The object at a stack index, or NULL when it is none of that kind. */
spec_object *tables_object(lua_State *lua, int index, spec_object_kind kind);
spec_object *tables_push_object(lua_State *lua, spec_object_kind kind);
/* "TransformerConfig" for an object, else Lua's word for the type. */
const char *tables_type_name(lua_State *lua, int index);

/* ---- activations (spec_trace.c) -------------------------------------------------------------- */

void trace_add_functions(lua_State *lua);
/* Traces and adds the activations of activations.def, F among them. */
void trace_add_activations(lua_State *lua);

/* ---- rules (spec_rules.c) -------------------------------------------------------------------- */

/* Mistakes that a TransformerConfig makes by itself. */
void rules_check_config(lua_State *lua, const spec_config_object *config);
/* Mistakes of the whole; and, when there are none, warnings. */
void rules_check_mlp(lua_State *lua, const spec_mlp_object *mlp);
void rules_warn(text *warnings, const module_spec *spec, bool activation_submodule);

#endif
