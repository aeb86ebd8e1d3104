/*
 * expr.h: what the generator does with programs beyond building them: inlining, differentiating,
 * simplifying and printing as CUDA C.
 */
#ifndef MMLP_GENERATOR_EXPR_H
#define MMLP_GENERATOR_EXPR_H

#include <stdbool.h>

#include "base/program.h"
#include "base/text.h"

/* Adds `from`'s node `result` to `into`, where inputs[j] is the node for input j of `from`. */
mmlp_status expr_inline(int *out, program *into, const program *from, int result,
                        const int *inputs);

/*
 * Adds the gradients of node `result` times `seed`, a node too, with respect to `inputs`, `count`
 * nodes. adjoints, an array of as many places as the program has nodes before the call, gets for
 * each node between an input and the result the gradient with respect to it, a new node, and -1 for
 * the others; every input's is set, to a constant 0 where the result does not depend on it.
 */
mmlp_status expr_differentiate(int *adjoints, program *p, int result, int seed, const int *inputs,
                               int count);

/*
 * Rebuilds `in` keeping only what results need: constants folded, constant factors merged and moved
 * outwards, neutral operations dropped, and the forms that cancel for very negative x rewritten:
 * a + a * tanh(u) to 2 * a * sigmoid(2 * u), a + a * erf(u) to a * erfc(-u); or overflow: a / (1 +
 * exp(u)) to a * sigmoid(-u), log(1 + exp(u)) to softplus(u). places[i], when not
 * NULL, gets the new node of old node i, or -1; results are renumbered. Inputs that
 * no result needs are dropped.
 */
mmlp_status expr_simplify(program *out, const program *in, int *results, int result_count,
                          int *places);

/* A node that gets the variable `name` when it is printed. */
typedef struct expr_name {
    int node;
    const char *name;
} expr_name;

/*
 * Appends C statements ("const float t0 = ...;", one a line) that compute the results from floats
 * named as the inputs. values[i] gets a C expression for result i: a variable, or an input's name.
 * The functions called are those of templates/device/math.cuh.
 */
mmlp_status expr_print(text *statements, text *values, const program *p, const int *results,
                       int result_count, const expr_name *names, int name_count);

/* Whether rounding can move a value across a kink on the way to the result: min, max, clamp, where.
 */
bool expr_has_kink(const program *p);

#endif
