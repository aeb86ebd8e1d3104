/*
 * expr_differentiate.c: gradients of a program, program in and program out, by reverse
 * accumulation: the adjoint of a node is the gradient of the result with respect to it. Each rule
 * is a form that stays exact in fp32 where the textbook's cancels: the slope of sigmoid(u) is
 * sigmoid(u) * sigmoid(-u), that of tanh(u) is 4 * sigmoid(2 u) * sigmoid(-2 u).
 *
 * At kinks the rules are those of Megatron and PyTorch: min and clamp pass the gradient at their
 * limits, max(x, 0) does not (relu'(0) = 0), and two variables that are equal share it.
 */
#include <assert.h>
#include <stdlib.h>

#include "expr.h"

typedef struct differentiation {
    program *program;
    int *adjoints; /* -1: none yet */
    bool *active;  /* the node depends on one of the inputs that are asked for */
} differentiation;

/* ---- building blocks ------------------------------------------------------------------------- */

static mmlp_status unary(int *out, differentiation *d, program_op op, int a)
{
    return program_add(out, d->program, op, a, -1, -1);
}

static mmlp_status binary(int *out, differentiation *d, program_op op, int a, int b)
{
    return program_add(out, d->program, op, a, b, -1);
}

static mmlp_status multiply(int *out, differentiation *d, int a, int b)
{
    return binary(out, d, PROGRAM_mul, a, b);
}

static mmlp_status scaled(int *out, differentiation *d, double factor, int a)
{
    int constant;
    MMLP_TRY(program_constant(&constant, d->program, factor));
    return multiply(out, d, constant, a);
}

/* greater(a, b) or less(a, b) ? yes : no */
static mmlp_status choose(int *out, differentiation *d, program_op comparison, int a, int b,
                          int yes, int no)
{
    int condition;
    MMLP_TRY(binary(&condition, d, comparison, a, b));
    return program_add(out, d->program, PROGRAM_where, condition, yes, no);
}

/* sigmoid(factor * u) * sigmoid(-factor * u) */
static mmlp_status sigmoid_slope(int *out, differentiation *d, double factor, int u)
{
    int left, right;
    MMLP_TRY(scaled(&left, d, factor, u));
    MMLP_TRY(unary(&left, d, PROGRAM_sigmoid, left));
    MMLP_TRY(scaled(&right, d, -factor, u));
    MMLP_TRY(unary(&right, d, PROGRAM_sigmoid, right));
    return multiply(out, d, left, right);
}

/* ---- one node -------------------------------------------------------------------------------- */

static mmlp_status give(differentiation *d, int node, int gradient)
{
    if (!d->active[node])
        return MMLP_OK;
    if (d->adjoints[node] < 0) {
        d->adjoints[node] = gradient;
        return MMLP_OK;
    }
    return binary(&d->adjoints[node], d, PROGRAM_add, d->adjoints[node], gradient);
}

/* What every function of one argument multiplies the adjoint with; y is the function's own value.
 */
static mmlp_status slope_of(int *out, differentiation *d, program_op op, int u, int y)
{
    static const double two_over_sqrt_pi = 1.1283791670955126;
    int t;
    switch (op) {
    case PROGRAM_exp:
        *out = y;
        return MMLP_OK;
    case PROGRAM_tanh:
        MMLP_TRY(sigmoid_slope(&t, d, 2, u));
        return scaled(out, d, 4, t);
    case PROGRAM_sigmoid:
        return sigmoid_slope(out, d, 1, u);
    case PROGRAM_softplus:
        return unary(out, d, PROGRAM_sigmoid, u);
    case PROGRAM_erf:
    case PROGRAM_erfc:
        MMLP_TRY(multiply(&t, d, u, u));
        MMLP_TRY(scaled(&t, d, -1, t));
        MMLP_TRY(unary(&t, d, PROGRAM_exp, t));
        return scaled(out, d, op == PROGRAM_erf ? two_over_sqrt_pi : -two_over_sqrt_pi, t);
    case PROGRAM_sqrt:
        MMLP_TRY(unary(&t, d, PROGRAM_rsqrt, u));
        return scaled(out, d, 0.5, t);
    default:
        assert(op == PROGRAM_rsqrt);
        MMLP_TRY(multiply(&t, d, y, y));
        MMLP_TRY(multiply(&t, d, t, y));
        return scaled(out, d, -0.5, t);
    }
}

/* min or max of two variables: the one that is chosen takes the gradient, equals share it. */
static mmlp_status divide_between(differentiation *d, const program_node *node, int adjoint)
{
    program_op first = node->op == PROGRAM_min ? PROGRAM_less : PROGRAM_greater;
    program_op second = node->op == PROGRAM_min ? PROGRAM_greater : PROGRAM_less;
    int a = node->args[0], b = node->args[1], half, zero, t;
    MMLP_TRY(scaled(&half, d, 0.5, adjoint));
    MMLP_TRY(program_constant(&zero, d->program, 0));
    MMLP_TRY(choose(&t, d, second, a, b, zero, half));
    MMLP_TRY(choose(&t, d, first, a, b, adjoint, t));
    MMLP_TRY(give(d, a, t));
    MMLP_TRY(choose(&t, d, first, a, b, zero, half));
    MMLP_TRY(choose(&t, d, second, a, b, adjoint, t));
    return give(d, b, t);
}

/* min or max of a variable and a limit. */
static mmlp_status through_limit(differentiation *d, const program_node *node, int adjoint)
{
    bool swapped = d->active[node->args[1]];
    int x = node->args[swapped ? 1 : 0], limit = node->args[swapped ? 0 : 1], zero, t;
    MMLP_TRY(program_constant(&zero, d->program, 0));
    if (node->op == PROGRAM_min) {
        MMLP_TRY(choose(&t, d, PROGRAM_greater, x, limit, zero, adjoint));
    } else {
        MMLP_TRY(scaled(&t, d, 0, x)); /* 0 at the limit, NaN for NaN */
        MMLP_TRY(choose(&t, d, PROGRAM_less, x, limit, zero, t));
        MMLP_TRY(choose(&t, d, PROGRAM_greater, x, limit, adjoint, t));
    }
    return give(d, x, t);
}

static mmlp_status through_clamp(differentiation *d, const program_node *node, int adjoint)
{
    int x = node->args[0], low = node->args[1], high = node->args[2], zero, t;
    MMLP_TRY(program_constant(&zero, d->program, 0));
    MMLP_TRY(choose(&t, d, PROGRAM_greater, x, high, zero, adjoint));
    MMLP_TRY(choose(&t, d, PROGRAM_less, x, low, zero, t));
    MMLP_TRY(give(d, x, t));
    MMLP_TRY(choose(&t, d, PROGRAM_less, x, low, adjoint, zero));
    MMLP_TRY(give(d, low, t));
    MMLP_TRY(choose(&t, d, PROGRAM_greater, x, high, adjoint, zero));
    return give(d, high, t);
}

static mmlp_status through_abs(differentiation *d, int x, int adjoint)
{
    int zero, negative, t;
    MMLP_TRY(program_constant(&zero, d->program, 0));
    MMLP_TRY(scaled(&negative, d, -1, adjoint));
    MMLP_TRY(scaled(&t, d, 0, x));
    MMLP_TRY(choose(&t, d, PROGRAM_less, x, zero, negative, t));
    MMLP_TRY(choose(&t, d, PROGRAM_greater, x, zero, adjoint, t));
    return give(d, x, t);
}

/* Hands the adjoint of a node to its arguments. */
static mmlp_status through(differentiation *d, int index)
{
    const program_node node = d->program->nodes[index]; /* a copy: the program grows */
    int adjoint = d->adjoints[index], a = node.args[0], b = node.args[1], zero, t;
    switch (node.op) {
    case PROGRAM_constant:
    case PROGRAM_input:
    case PROGRAM_greater:
    case PROGRAM_less:
    case PROGRAM_OP_COUNT:
        return MMLP_OK;
    case PROGRAM_add:
        MMLP_TRY(give(d, a, adjoint));
        return give(d, b, adjoint);
    case PROGRAM_sub:
        MMLP_TRY(give(d, a, adjoint));
        MMLP_TRY(scaled(&t, d, -1, adjoint));
        return give(d, b, t);
    case PROGRAM_neg:
        MMLP_TRY(scaled(&t, d, -1, adjoint));
        return give(d, a, t);
    case PROGRAM_mul:
        MMLP_TRY(multiply(&t, d, adjoint, b));
        MMLP_TRY(give(d, a, t));
        MMLP_TRY(multiply(&t, d, adjoint, a));
        return give(d, b, t);
    case PROGRAM_div: /* d(a / b) = da / b - (a / b) db / b */
        MMLP_TRY(binary(&t, d, PROGRAM_div, adjoint, b));
        MMLP_TRY(give(d, a, t));
        MMLP_TRY(multiply(&t, d, t, index));
        MMLP_TRY(scaled(&t, d, -1, t));
        return give(d, b, t);
    case PROGRAM_log:
        MMLP_TRY(binary(&t, d, PROGRAM_div, adjoint, a));
        return give(d, a, t);
    case PROGRAM_abs:
        return through_abs(d, a, adjoint);
    case PROGRAM_min:
    case PROGRAM_max:
        return d->active[a] && d->active[b] ? divide_between(d, &node, adjoint)
                                            : through_limit(d, &node, adjoint);
    case PROGRAM_clamp:
        return through_clamp(d, &node, adjoint);
    case PROGRAM_where:
        MMLP_TRY(program_constant(&zero, d->program, 0));
        MMLP_TRY(program_add(&t, d->program, PROGRAM_where, a, adjoint, zero));
        MMLP_TRY(give(d, b, t));
        MMLP_TRY(program_add(&t, d->program, PROGRAM_where, a, zero, adjoint));
        return give(d, node.args[2], t);
    case PROGRAM_exp:
    case PROGRAM_tanh:
    case PROGRAM_sigmoid:
    case PROGRAM_softplus:
    case PROGRAM_erf:
    case PROGRAM_erfc:
    case PROGRAM_sqrt:
    case PROGRAM_rsqrt:
        MMLP_TRY(slope_of(&t, d, node.op, a, index));
        MMLP_TRY(multiply(&t, d, adjoint, t));
        return give(d, a, t);
    }
    return MMLP_OK;
}

/* ---- whole programs -------------------------------------------------------------------------- */

static void mark_active(differentiation *d, int nodes, const int *inputs, int count)
{
    for (int i = 0; i < nodes; i++) {
        const program_node *node = &d->program->nodes[i];
        d->active[i] = false;
        for (int k = 0; k < program_op_arity(node->op); k++)
            d->active[i] = d->active[i] || d->active[node->args[k]];
        for (int k = 0; k < count; k++)
            d->active[i] = d->active[i] || i == inputs[k];
    }
}

mmlp_status expr_differentiate(int *adjoints, program *p, int result, int seed, const int *inputs,
                               int count)
{
    mmlp_status status = MMLP_OK;
    int nodes = p->count;
    differentiation d = {p, adjoints, malloc((size_t)nodes * sizeof *d.active)};
    if (!d.active)
        return mmlp_fail_memory((size_t)nodes, "the gradient of an expression");
    mark_active(&d, nodes, inputs, count);
    for (int i = 0; i < nodes; i++)
        adjoints[i] = -1;
    adjoints[result] = seed;
    for (int i = result; i >= 0; i--)
        if (adjoints[i] >= 0 && d.active[i])
            MMLP_TRY_CLEANUP(through(&d, i));
    for (int k = 0; k < count; k++)
        if (adjoints[inputs[k]] < 0)
            MMLP_TRY_CLEANUP(program_constant(&adjoints[inputs[k]], p, 0));

cleanup:
    free(d.active);
    return status;
}
