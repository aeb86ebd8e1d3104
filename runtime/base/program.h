/*
 * program.h: an expression as a list of operations in which each reads earlier ones. The generator
 * traces, simplifies and prints such programs; a bundle's manifest holds them; fp64 references
 * evaluate them. Node indices are positions in the list.
 */
#ifndef MMLP_BASE_PROGRAM_H
#define MMLP_BASE_PROGRAM_H

#include <jansson.h>
#include <stddef.h>

#include "base/error.h"

/* X(name, arity): the words of the manifest. Semantics are IEEE; min, max and clamp propagate NaN
 * as PyTorch does; where(c, a, b) is a when c is not 0; greater and less give 1 or 0 (NaN: 0). */
#define PROGRAM_OPS(X)                                                                             \
    X(constant, 0)                                                                                 \
    X(input, 0)                                                                                    \
    X(add, 2)                                                                                      \
    X(sub, 2)                                                                                      \
    X(mul, 2)                                                                                      \
    X(div, 2)                                                                                      \
    X(neg, 1)                                                                                      \
    X(exp, 1)                                                                                      \
    X(log, 1)                                                                                      \
    X(tanh, 1)                                                                                     \
    X(sigmoid, 1)                                                                                  \
    X(erf, 1)                                                                                      \
    X(erfc, 1)                                                                                     \
    X(softplus, 1)                                                                                 \
    X(sqrt, 1)                                                                                     \
    X(rsqrt, 1)                                                                                    \
    X(abs, 1)                                                                                      \
    X(min, 2)                                                                                      \
    X(max, 2)                                                                                      \
    X(clamp, 3)                                                                                    \
    X(greater, 2)                                                                                  \
    X(less, 2)                                                                                     \
    X(where, 3)

typedef enum program_op {
#define PROGRAM_ENUM(name, arity) PROGRAM_##name,
    PROGRAM_OPS(PROGRAM_ENUM)
#undef PROGRAM_ENUM
        PROGRAM_OP_COUNT
} program_op;

typedef struct program_node {
    program_op op;
    int args[3];  /* indices of earlier nodes; unused ones are -1 */
    double value; /* constant: its value; input: unused */
    int input;    /* input: index into program.inputs; else -1 */
} program_node;

typedef struct program {
    program_node *nodes;
    int count, capacity;
    char **inputs; /* owned names: "gate", "up", "gate_bias", ... */
    int input_count;
} program;

const char *program_op_name(program_op op);
int program_op_arity(program_op op);

/* A node for an operation already in the program is returned, not added again. */
mmlp_status program_constant(int *out, program *p, double value);
mmlp_status program_input(int *out, program *p, const char *name);
mmlp_status program_add(int *out, program *p, program_op op, int a, int b, int c);
void program_free(program *p); /* empties it; a zeroed program is valid and empty */

/* values[i] = value of node i, for all i < p->count; inputs[j] is the value of p->inputs[j]. */
void program_evaluate(const program *p, const double *inputs, double *values);

/* {"inputs": [...], "nodes": [["input", 0], ["constant", 0.5], ["mul", 0, 1], ...]} */
json_t *program_to_json(const program *p);
/* ERROR_FORMAT names what is wrong (unknown operation, an index that is not earlier, ...). */
mmlp_status program_from_json(program *out, const json_t *json);

#endif
