/*
 * expr_simplify.c: inlining and rewriting of programs. Rewrites are exact in real arithmetic; the
 * form they lead to has one constant factor outermost, and no difference that cancels for very
 * negative x.
 */
#include "expr.h"

#include <math.h>
#include <stdlib.h>

/* ---- inlining -------------------------------------------------------------------------------- */

mmlp_status expr_inline(int *out, program *into, const program *from, int result, const int *inputs)
{
    mmlp_status status = MMLP_OK;
    size_t bytes = (size_t)from->count * sizeof(int);
    int *places = malloc(bytes + 1);
    if (!places)
        return mmlp_fail_memory(bytes, "an expression");
    for (int i = 0; i <= result; i++) {
        const program_node *node = &from->nodes[i];
        int args[3] = {-1, -1, -1};
        if (node->op == PROGRAM_input) {
            places[i] = inputs[node->input];
            continue;
        }
        if (node->op == PROGRAM_constant) {
            MMLP_TRY_CLEANUP(program_constant(&places[i], into, node->value));
            continue;
        }
        for (int k = 0; k < program_op_arity(node->op); k++)
            args[k] = places[node->args[k]];
        MMLP_TRY_CLEANUP(program_add(&places[i], into, node->op, args[0], args[1], args[2]));
    }
    *out = places[result];

cleanup:
    free(places);
    return status;
}

/* ---- terms: coefficient * node --------------------------------------------------------------- */

/* node -1: the coefficient alone. */
typedef struct term {
    double coefficient;
    int node;
} term;

static term term_of(const program *p, int node)
{
    const program_node *n = &p->nodes[node];
    if (n->op == PROGRAM_constant)
        return (term){n->value, -1};
    if (n->op == PROGRAM_neg)
        return (term){-1, n->args[0]};
    if (n->op == PROGRAM_mul && p->nodes[n->args[0]].op == PROGRAM_constant)
        return (term){p->nodes[n->args[0]].value, n->args[1]};
    return (term){1, node};
}

static mmlp_status from_term(int *out, program *p, term t)
{
    int constant;
    if (t.node < 0)
        return program_constant(out, p, t.coefficient);
    if (t.coefficient == 1) {
        *out = t.node;
        return MMLP_OK;
    }
    if (t.coefficient == -1)
        return program_add(out, p, PROGRAM_neg, t.node, -1, -1);
    MMLP_TRY(program_constant(&constant, p, t.coefficient));
    return program_add(out, p, PROGRAM_mul, constant, t.node, -1);
}

/* coefficient * node, merged with the node's own coefficient. */
static mmlp_status scale(int *out, program *p, double coefficient, int node)
{
    term t = term_of(p, node);
    t.coefficient *= coefficient;
    return from_term(out, p, t);
}

static mmlp_status make_mul(int *out, program *p, int a, int b)
{
    term left = term_of(p, a), right = term_of(p, b);
    term product = {left.coefficient * right.coefficient, -1};
    if (left.node >= 0 && right.node >= 0)
        MMLP_TRY(program_add(&product.node, p, PROGRAM_mul, left.node, right.node, -1));
    else
        product.node = left.node >= 0 ? left.node : right.node;
    return from_term(out, p, product);
}

/* ---- a + a * tanh(u), a + a * erf(u) --------------------------------------------------------- */

/* node = others * function(argument), with others -1 when the node is the call alone. */
typedef struct saturating {
    program_op function; /* tanh or erf */
    int argument, others;
} saturating;

static bool is_saturating(const program *p, int node)
{
    return p->nodes[node].op == PROGRAM_tanh || p->nodes[node].op == PROGRAM_erf;
}

static bool find_saturating(saturating *out, const program *p, int node)
{
    if (node < 0)
        return false;
    int call = node, others = -1;
    const program_node *n = &p->nodes[node];
    if (n->op == PROGRAM_mul) {
        bool second = is_saturating(p, n->args[1]);
        call = n->args[second ? 1 : 0];
        others = n->args[second ? 0 : 1];
    }
    if (!is_saturating(p, call))
        return false;
    *out = (saturating){p->nodes[call].op, p->nodes[call].args[0], others};
    return true;
}

/*
 * constant + term where term is a multiple of a saturating function whose other factors are those
 * of `plain`, with a coefficient of equal size: sets *out and returns true in *found.
 */
static mmlp_status rewrite_saturating(int *out, bool *found, program *p, term plain, term call)
{
    saturating s;
    *found = false;
    if (!find_saturating(&s, p, call.node) || plain.node != s.others ||
        fabs(plain.coefficient) != fabs(call.coefficient) || plain.coefficient == 0)
        return MMLP_OK;
    *found = true;
    /* plain * (1 + sign * function(argument)) */
    double sign = plain.coefficient == call.coefficient ? 1 : -1;
    int argument, value;
    if (s.function == PROGRAM_tanh) {
        MMLP_TRY(scale(&argument, p, 2 * sign, s.argument));
        MMLP_TRY(program_add(&value, p, PROGRAM_sigmoid, argument, -1, -1));
        MMLP_TRY(scale(&value, p, 2, value));
    } else {
        MMLP_TRY(scale(&argument, p, -sign, s.argument));
        MMLP_TRY(program_add(&value, p, PROGRAM_erfc, argument, -1, -1));
    }
    if (plain.node >= 0)
        MMLP_TRY(make_mul(&value, p, plain.node, value));
    return scale(out, p, plain.coefficient, value);
}

/* ---- one operation --------------------------------------------------------------------------- */

static bool is_constant(const program *p, int node, double value)
{
    return p->nodes[node].op == PROGRAM_constant && p->nodes[node].value == value;
}

/* left + sign * right */
static mmlp_status make_sum(int *out, program *p, int a, int b, double sign)
{
    bool found;
    if (is_constant(p, b, 0)) {
        *out = a;
        return MMLP_OK;
    }
    if (is_constant(p, a, 0))
        return scale(out, p, sign, b);
    term left = term_of(p, a), right = term_of(p, b);
    right.coefficient *= sign;
    MMLP_TRY(rewrite_saturating(out, &found, p, left, right));
    if (found)
        return MMLP_OK;
    MMLP_TRY(rewrite_saturating(out, &found, p, right, left));
    if (found)
        return MMLP_OK;
    if (right.node >= 0 && right.coefficient < 0) {
        int positive;
        MMLP_TRY(scale(&positive, p, sign < 0 ? 1 : -1, b));
        return program_add(out, p, PROGRAM_sub, a, positive, -1);
    }
    if (right.node < 0) {
        int constant;
        MMLP_TRY(program_constant(&constant, p, right.coefficient));
        return program_add(out, p, PROGRAM_add, a, constant, -1);
    }
    int addend;
    MMLP_TRY(scale(&addend, p, sign, b));
    if (left.node < 0) /* the constant comes last */
        return program_add(out, p, PROGRAM_add, addend, a, -1);
    return program_add(out, p, PROGRAM_add, a, addend, -1);
}

/* Whether the node is exp(u) + 1, whose exp overflows for large u. */
static bool is_one_plus_exp(int *u, const program *p, int node)
{
    const program_node *n = &p->nodes[node];
    if (n->op != PROGRAM_add || !is_constant(p, n->args[1], 1) ||
        p->nodes[n->args[0]].op != PROGRAM_exp)
        return false;
    *u = p->nodes[n->args[0]].args[0];
    return true;
}

static mmlp_status make_div(int *out, program *p, int a, int b)
{
    const program_node *divisor = &p->nodes[b];
    int u, value;
    if (is_one_plus_exp(&u, p, b)) {
        MMLP_TRY(scale(&u, p, -1, u));
        MMLP_TRY(program_add(&value, p, PROGRAM_sigmoid, u, -1, -1));
        return make_mul(out, p, a, value);
    }
    double reciprocal = divisor->op == PROGRAM_constant ? 1 / divisor->value : 0;
    if (reciprocal != 0 && isfinite(reciprocal))
        return scale(out, p, reciprocal, a);
    return program_add(out, p, PROGRAM_div, a, b, -1);
}

/* When all arguments are constants: the constant, unless it is not finite. */
static mmlp_status fold_constants(int *out, bool *found, program *p, program_op op, const int *args)
{
    program_node nodes[4];
    double values[4];
    int arity = program_op_arity(op);
    *found = false;
    for (int i = 0; i < arity; i++) {
        if (p->nodes[args[i]].op != PROGRAM_constant)
            return MMLP_OK;
        nodes[i] = p->nodes[args[i]];
    }
    nodes[arity] = (program_node){op, {-1, -1, -1}, 0, -1};
    for (int i = 0; i < arity; i++)
        nodes[arity].args[i] = i;
    program alone = {.nodes = nodes, .count = arity + 1};
    program_evaluate(&alone, NULL, values);
    if (!isfinite(values[arity]))
        return MMLP_OK;
    *found = true;
    return program_constant(out, p, values[arity]);
}

static mmlp_status make(int *out, program *p, program_op op, const int *args)
{
    bool folded;
    int u;
    MMLP_TRY(fold_constants(out, &folded, p, op, args));
    if (folded)
        return MMLP_OK;
    switch (op) {
    case PROGRAM_add:
        return make_sum(out, p, args[0], args[1], 1);
    case PROGRAM_sub:
        return make_sum(out, p, args[0], args[1], -1);
    case PROGRAM_mul:
        return make_mul(out, p, args[0], args[1]);
    case PROGRAM_neg:
        return scale(out, p, -1, args[0]);
    case PROGRAM_div:
        return make_div(out, p, args[0], args[1]);
    case PROGRAM_log:
        if (is_one_plus_exp(&u, p, args[0]))
            return program_add(out, p, PROGRAM_softplus, u, -1, -1);
        break;
    case PROGRAM_where:
        if (args[1] == args[2]) {
            *out = args[1];
            return MMLP_OK;
        }
        if (p->nodes[args[0]].op == PROGRAM_constant) {
            *out = args[p->nodes[args[0]].value != 0 ? 1 : 2];
            return MMLP_OK;
        }
        break;
    default:
        break;
    }
    return program_add(out, p, op, args[0], args[1], args[2]);
}

/* ---- whole programs -------------------------------------------------------------------------- */

/* Rebuilds every node with make; places[i] is the new node of old node i. */
static mmlp_status rewrite(program *out, int *places, const program *in)
{
    for (int i = 0; i < in->count; i++) {
        const program_node *node = &in->nodes[i];
        int args[3] = {-1, -1, -1};
        if (node->op == PROGRAM_input) {
            MMLP_TRY(program_input(&places[i], out, in->inputs[node->input]));
            continue;
        }
        if (node->op == PROGRAM_constant) {
            MMLP_TRY(program_constant(&places[i], out, node->value));
            continue;
        }
        for (int k = 0; k < program_op_arity(node->op); k++)
            args[k] = places[node->args[k]];
        MMLP_TRY(make(&places[i], out, node->op, args));
    }
    return MMLP_OK;
}

/* Copies what the results need; places[i] becomes -1 for the others. */
static mmlp_status drop_unused(program *out, int *places, const program *in, const int *results,
                               int result_count)
{
    for (int i = 0; i < in->count; i++)
        places[i] = -1;
    for (int r = 0; r < result_count; r++)
        places[results[r]] = 0;
    for (int i = in->count - 1; i >= 0; i--)
        for (int k = 0; places[i] >= 0 && k < program_op_arity(in->nodes[i].op); k++)
            places[in->nodes[i].args[k]] = 0;
    for (int i = 0; i < in->count; i++) {
        const program_node *node = &in->nodes[i];
        int args[3] = {-1, -1, -1};
        if (places[i] < 0)
            continue;
        for (int k = 0; k < program_op_arity(node->op); k++)
            args[k] = places[node->args[k]];
        if (node->op == PROGRAM_input)
            MMLP_TRY(program_input(&places[i], out, in->inputs[node->input]));
        else if (node->op == PROGRAM_constant)
            MMLP_TRY(program_constant(&places[i], out, node->value));
        else
            MMLP_TRY(program_add(&places[i], out, node->op, args[0], args[1], args[2]));
    }
    return MMLP_OK;
}

mmlp_status expr_simplify(program *out, const program *in, int *results, int result_count,
                          int *places)
{
    *out = (program){0};
    mmlp_status status = MMLP_OK;
    program rewritten = {0}, kept = {0};
    int *rewritten_places = calloc((size_t)in->count + 1, sizeof(int));
    int *kept_places = NULL;
    if (!rewritten_places)
        return mmlp_fail_memory((size_t)in->count * sizeof(int), "an expression");
    MMLP_TRY_CLEANUP(rewrite(&rewritten, rewritten_places, in));
    kept_places = calloc((size_t)rewritten.count + 1, sizeof(int));
    if (!kept_places) {
        status = mmlp_fail_memory((size_t)rewritten.count * sizeof(int), "an expression");
        goto cleanup;
    }
    for (int r = 0; r < result_count; r++)
        results[r] = rewritten_places[results[r]];
    MMLP_TRY_CLEANUP(drop_unused(&kept, kept_places, &rewritten, results, result_count));
    for (int r = 0; r < result_count; r++)
        results[r] = kept_places[results[r]];
    for (int i = 0; places && i < in->count; i++)
        places[i] = kept_places[rewritten_places[i]];
    *out = kept;
    kept = (program){0};

cleanup:
    program_free(&rewritten);
    program_free(&kept);
    free(rewritten_places);
    free(kept_places);
    return status;
}

bool expr_has_kink(const program *p)
{
    for (int i = 0; i < p->count; i++) {
        switch (p->nodes[i].op) {
        case PROGRAM_abs:
        case PROGRAM_min:
        case PROGRAM_max:
        case PROGRAM_clamp:
        case PROGRAM_greater:
        case PROGRAM_less:
        case PROGRAM_where:
            return true;
        default:
            break;
        }
    }
    return false;
}
