/*
 * program.c: expressions as lists of operations: building with hash-consing by linear search
 * (programs have tens of nodes), fp64 evaluation, and the manifest's JSON. Used by the generator,
 * which traces and rewrites programs, and by the runtime, whose references evaluate them.
 */
#include "base/program.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int arity;
} operations[] = {
#define OPERATION(name, arity) {#name, arity},
    PROGRAM_OPS(OPERATION)
#undef OPERATION
};

const char *program_op_name(program_op op)
{
    return operations[op].name;
}

int program_op_arity(program_op op)
{
    return operations[op].arity;
}

/* Bits, so that 0.0 and -0.0 stay apart and a NaN equals itself. */
static bool same_value(double a, double b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

static bool same_node(const program_node *a, const program_node *b)
{
    return a->op == b->op && a->args[0] == b->args[0] && a->args[1] == b->args[1] &&
           a->args[2] == b->args[2] && a->input == b->input && same_value(a->value, b->value);
}

/* Adds the node, or finds its equal when `share`. */
static mmlp_status add_node(int *out, program *p, program_node node, bool share)
{
    *out = -1;
    for (int i = 0; share && i < p->count; i++) {
        if (same_node(&p->nodes[i], &node)) {
            *out = i;
            return MMLP_OK;
        }
    }
    if (p->count == p->capacity) {
        int capacity = p->capacity ? 2 * p->capacity : 32;
        program_node *grown = realloc(p->nodes, (size_t)capacity * sizeof *grown);
        if (!grown)
            return mmlp_fail_memory((size_t)capacity * sizeof *grown, "an expression");
        p->nodes = grown;
        p->capacity = capacity;
    }
    p->nodes[p->count] = node;
    *out = p->count++;
    return MMLP_OK;
}

mmlp_status program_constant(int *out, program *p, double value)
{
    return add_node(out, p, (program_node){PROGRAM_constant, {-1, -1, -1}, value, -1}, true);
}

/* The index of the input of that name, added when new. */
static mmlp_status find_input(int *out, program *p, const char *name)
{
    for (int i = 0; i < p->input_count; i++) {
        if (strcmp(p->inputs[i], name) == 0) {
            *out = i;
            return MMLP_OK;
        }
    }
    size_t bytes = ((size_t)p->input_count + 1) * sizeof *p->inputs;
    char **grown = realloc(p->inputs, bytes);
    if (!grown)
        return mmlp_fail_memory(bytes, "the inputs of an expression");
    p->inputs = grown;
    char *copy = strdup(name);
    if (!copy)
        return mmlp_fail_memory(strlen(name) + 1, "the name of an input");
    p->inputs[p->input_count] = copy;
    *out = p->input_count++;
    return MMLP_OK;
}

mmlp_status program_input(int *out, program *p, const char *name)
{
    int input;
    *out = -1;
    MMLP_TRY(find_input(&input, p, name));
    return add_node(out, p, (program_node){PROGRAM_input, {-1, -1, -1}, 0, input}, true);
}

mmlp_status program_add(int *out, program *p, program_op op, int a, int b, int c)
{
    int arity = operations[op].arity;
    program_node node = {op, {a, arity > 1 ? b : -1, arity > 2 ? c : -1}, 0, -1};
    return add_node(out, p, node, true);
}

void program_free(program *p)
{
    for (int i = 0; i < p->input_count; i++)
        free(p->inputs[i]);
    free(p->inputs);
    free(p->nodes);
    *p = (program){0};
}

/* ---- evaluation ------------------------------------------------------------------------------ */

static double sigmoid(double x)
{
    /* exp of a negative argument only: no overflow, and full precision in both tails. */
    double e = exp(-fabs(x));
    return (x >= 0 ? 1 : e) / (1 + e);
}

/* log(1 + e^x) */
static double softplus(double x)
{
    return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
}

static double minimum(double a, double b)
{
    if (isnan(a) || isnan(b))
        return a + b;
    return a < b ? a : b;
}

static double maximum(double a, double b)
{
    if (isnan(a) || isnan(b))
        return a + b;
    return a > b ? a : b;
}

static double evaluate_node(const program_node *node, const double *inputs, const double *values)
{
    double a = node->args[0] >= 0 ? values[node->args[0]] : 0;
    double b = node->args[1] >= 0 ? values[node->args[1]] : 0;
    double c = node->args[2] >= 0 ? values[node->args[2]] : 0;
    switch (node->op) {
    case PROGRAM_constant:
        return node->value;
    case PROGRAM_input:
        return inputs[node->input];
    case PROGRAM_add:
        return a + b;
    case PROGRAM_sub:
        return a - b;
    case PROGRAM_mul:
        return a * b;
    case PROGRAM_div:
        return a / b;
    case PROGRAM_neg:
        return -a;
    case PROGRAM_exp:
        return exp(a);
    case PROGRAM_log:
        return log(a);
    case PROGRAM_tanh:
        return tanh(a);
    case PROGRAM_sigmoid:
        return sigmoid(a);
    case PROGRAM_erf:
        return erf(a);
    case PROGRAM_erfc:
        return erfc(a);
    case PROGRAM_softplus:
        return softplus(a);
    case PROGRAM_sqrt:
        return sqrt(a);
    case PROGRAM_rsqrt:
        return 1 / sqrt(a);
    case PROGRAM_abs:
        return fabs(a);
    case PROGRAM_min:
        return minimum(a, b);
    case PROGRAM_max:
        return maximum(a, b);
    case PROGRAM_clamp:
        return minimum(maximum(a, b), c);
    case PROGRAM_greater:
        return a > b;
    case PROGRAM_less:
        return a < b;
    case PROGRAM_where:
        return a != 0 ? b : c;
    case PROGRAM_OP_COUNT:
        break;
    }
    return NAN;
}

void program_evaluate(const program *p, const double *inputs, double *values)
{
    for (int i = 0; i < p->count; i++)
        values[i] = evaluate_node(&p->nodes[i], inputs, values);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

json_t *program_to_json(const program *p)
{
    json_t *inputs = json_array();
    json_t *nodes = json_array();
    for (int i = 0; i < p->input_count; i++)
        json_array_append_new(inputs, json_string(p->inputs[i]));
    for (int i = 0; i < p->count; i++) {
        const program_node *node = &p->nodes[i];
        json_t *row = json_array();
        json_array_append_new(row, json_string(operations[node->op].name));
        if (node->op == PROGRAM_constant)
            json_array_append_new(row, json_real(node->value));
        if (node->op == PROGRAM_input)
            json_array_append_new(row, json_integer(node->input));
        for (int k = 0; k < operations[node->op].arity; k++)
            json_array_append_new(row, json_integer(node->args[k]));
        json_array_append_new(nodes, row);
    }
    json_t *object = json_pack("{s:o, s:o}", "inputs", inputs, "nodes", nodes);
    if (!object) {
        json_decref(inputs);
        json_decref(nodes);
    }
    return object;
}

static bool op_from_name(program_op *out, const char *name)
{
    for (int op = 0; op < PROGRAM_OP_COUNT; op++) {
        if (strcmp(operations[op].name, name) == 0) {
            *out = (program_op)op;
            return true;
        }
    }
    return false;
}

static mmlp_status node_from_json(program_node *out, const program *p, int index, const json_t *row)
{
    *out = (program_node){PROGRAM_constant, {-1, -1, -1}, 0, -1};
    const char *name = json_string_value(json_array_get(row, 0));
    if (!name)
        return mmlp_fail(MMLP_ERROR_FORMAT, "program: node %d is not [operation, ...]", index);
    if (!op_from_name(&out->op, name))
        return mmlp_fail(MMLP_ERROR_FORMAT, "program: node %d: unknown operation \"%s\"", index,
                         name);
    int arity = operations[out->op].arity;
    size_t wanted = arity > 0 ? (size_t)arity : 1;
    if (json_array_size(row) != wanted + 1)
        return mmlp_fail(MMLP_ERROR_FORMAT, "program: node %d: %s has %zu arguments, wanted %zu",
                         index, name, json_array_size(row) - 1, wanted);
    const json_t *first = json_array_get(row, 1);
    if (out->op == PROGRAM_constant) {
        if (!json_is_number(first))
            return mmlp_fail(MMLP_ERROR_FORMAT, "program: node %d: constant is not a number",
                             index);
        out->value = json_number_value(first);
        return MMLP_OK;
    }
    int limit = out->op == PROGRAM_input ? p->input_count : index;
    for (size_t k = 0; k < wanted; k++) {
        const json_t *argument = json_array_get(row, k + 1);
        json_int_t value = json_is_integer(argument) ? json_integer_value(argument) : -1;
        if (value < 0 || value >= limit)
            return mmlp_fail(
                MMLP_ERROR_FORMAT, "program: node %d: argument %zu of %s is not the index of an %s",
                index, k + 1, name, out->op == PROGRAM_input ? "input" : "earlier node");
        if (out->op == PROGRAM_input)
            out->input = (int)value;
        else
            out->args[k] = (int)value;
    }
    return MMLP_OK;
}

mmlp_status program_from_json(program *out, const json_t *json)
{
    *out = (program){0};
    program p = {0};
    mmlp_status status = MMLP_OK;
    const json_t *inputs = json_object_get(json, "inputs");
    const json_t *nodes = json_object_get(json, "nodes");
    if (!json_is_array(inputs) || !json_is_array(nodes)) {
        status = mmlp_fail(MMLP_ERROR_FORMAT, "program: wanted arrays \"inputs\" and \"nodes\"");
        goto cleanup;
    }
    for (size_t i = 0; i < json_array_size(inputs); i++) {
        const char *name = json_string_value(json_array_get(inputs, i));
        int index = -1;
        if (!name) {
            status = mmlp_fail(MMLP_ERROR_FORMAT, "program: input %zu is not a string", i);
            goto cleanup;
        }
        MMLP_TRY_CLEANUP(find_input(&index, &p, name));
        if ((size_t)index != i) {
            status = mmlp_fail(MMLP_ERROR_FORMAT, "program: input \"%s\" is given twice", name);
            goto cleanup;
        }
    }
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        program_node node;
        int index;
        MMLP_TRY_CLEANUP(node_from_json(&node, &p, (int)i, json_array_get(nodes, i)));
        MMLP_TRY_CLEANUP(add_node(&index, &p, node, false));
    }
    *out = p;
    p = (program){0};

cleanup:
    program_free(&p);
    return status;
}
