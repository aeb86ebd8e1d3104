/*
 * spec.h: what a spec says, as plain C. spec_load runs the Lua text in a sandbox, checks
 * everything, and closes the Lua state: nothing of it is left in a module_spec.
 */
#ifndef MMLP_GENERATOR_SPEC_H
#define MMLP_GENERATOR_SPEC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/program.h"
#include "base/text.h"

typedef enum spec_dtype { SPEC_DTYPE_bf16, SPEC_DTYPE_fp16, SPEC_DTYPE_fp32 } spec_dtype;

typedef enum spec_activation {
#define ACTIVATION(identity, name, body) SPEC_ACTIVATION_##identity,
#include "activations.def"
    SPEC_ACTIVATION_custom
} spec_activation;

typedef struct spec_optional_integer {
    bool given;
    int64_t value;
} spec_optional_integer;

typedef struct spec_optional_number {
    bool given;
    double value;
} spec_optional_number;

typedef enum spec_init_kind {
    SPEC_INIT_OF_CONFIG,
    SPEC_INIT_NORMAL,
    SPEC_INIT_ZEROS,
    SPEC_INIT_UNIFORM
} spec_init_kind;

typedef struct spec_init {
    spec_init_kind kind;
    double a, b; /* normal: a is the standard deviation; uniform: [a, b) */
} spec_init;

/* What each type of field is stored as. Texts and objects are checked, not stored. */
#define SPEC_MEMBER(type)            SPEC_MEMBER_##type
#define SPEC_MEMBER_integer          int64_t
#define SPEC_MEMBER_number           double
#define SPEC_MEMBER_boolean          bool
#define SPEC_MEMBER_dtype            spec_dtype
#define SPEC_MEMBER_activation       int /* number in the loader's list */
#define SPEC_MEMBER_optional_integer spec_optional_integer
#define SPEC_MEMBER_optional_number  spec_optional_number
#define SPEC_MEMBER_init             spec_init
#define SPEC_MEMBER_string           char
#define SPEC_MEMBER_config           char

typedef struct spec_config {
#define CONFIG_FIELD(type, name, value, text, least, help) SPEC_MEMBER(type) name;
#include "spec_fields.def"
} spec_config;

typedef struct spec_mlp {
#define MLP_FIELD(type, name, value, text, least, help) SPEC_MEMBER(type) name;
#include "spec_fields.def"
} spec_mlp;

typedef struct spec_linear {
#define LINEAR_FIELD(type, name, value, text, least, help) SPEC_MEMBER(type) name;
#include "spec_fields.def"
} spec_linear;

/* One checked spec. Everything is owned by it. */
typedef struct module_spec {
    char *name; /* the file's name without folder and .lua; a C identifier */
    spec_config config;
    spec_mlp mlp;
    spec_linear linear_fc1, linear_fc2;
    spec_activation activation; /* identity of activation_func */
    char *activation_name;      /* "F.gelu", or what activation() was given */
    program formula; /* of the branch that runs, with the inputs "x" and maybe "up", simplified */
    int formula_result;
    bool activation_takes_up; /* activation(name, function(gate, up)): the gating is its own */
    text warnings;            /* one line each */
} module_spec;

typedef struct spec_options {
    bool traceback;            /* append Lua's traceback to an error */
    bool any_size;             /* no kernel is wanted, which needs multiples of 8 */
    long long fail_allocation; /* tests: the allocation from which on all fail; 0: none */
} spec_options;

/* options may be NULL. ERROR_SPEC: one line for each mistake; ERROR_IO; ERROR_MEMORY. */
mmlp_status spec_load(module_spec *out, const char *path, const spec_options *options);
void spec_free(module_spec *spec); /* a zeroed spec is valid */

const char *spec_dtype_name(spec_dtype dtype);
int64_t spec_dtype_bytes(spec_dtype dtype);
/* Ranks that share this MLP: of the experts' group for an expert. */
int64_t spec_tensor_parallel_size(const module_spec *spec);
/* An expert whose dispatcher communicates: its linears do not. */
bool spec_explicit_expert_comm(const module_spec *spec);
/* Of the whole MLP, over all ranks. */
int64_t spec_ffn_hidden_size(const module_spec *spec);
/* Adds an activation's formula to `into`, applied to the nodes x and, where it takes one, up. */
mmlp_status formula_inline(int *out, program *into, const program *formula, int result, int x,
                           int up);
/* The words and defaults of the language, for `megamlp-gen fields`. */
void spec_print_fields(text *out);

#endif
