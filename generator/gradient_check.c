/*
 * gradient_check.c: compares an activation's gradients, as expr_differentiate makes them, with
 * central differences of the activation. Called by `megamlp-gen check`.
 *
 * Slope: Richardson's extrapolation of two central differences, (4 D(h / 2) - D(h)) / 3, whose
 * error is of the order of h^4. A point is left out where a comparison (of greater, less, min, max,
 * clamp, abs) has another outcome at one of the five places than at another: a kink lies between
 * them.
 */
#include "gradient_check.h"

#include <math.h>
#include <stdlib.h>

#include "expr.h"

const double gradient_error_limit = 1e-6;

enum { PLACES = 4, SWEEP = 4001, BOTH_SWEEP = 101 };
static const double SWEEP_END = 20, STEP = 1e-3;

typedef struct checked {
    program p;
    int value, inputs[2], gradients[2], input_count;
    double *nodes, *others; /* values of the nodes at two places */
} checked;

/* Outcomes of the node's comparisons as bits. */
static int outcome(const program_node *node, const double *values)
{
    double a = node->args[0] >= 0 ? values[node->args[0]] : 0;
    double b = node->args[1] >= 0 ? values[node->args[1]] : 0;
    double c = node->args[2] >= 0 ? values[node->args[2]] : 0;
    switch (node->op) {
    case PROGRAM_abs:
        return a > 0 ? 1 : a < 0 ? 2 : 0;
    case PROGRAM_min:
    case PROGRAM_max:
    case PROGRAM_greater:
    case PROGRAM_less:
        return a > b ? 1 : a < b ? 2 : 0;
    case PROGRAM_clamp:
        return (a > b ? 1 : a < b ? 2 : 0) + 4 * (a > c ? 1 : a < c ? 2 : 0);
    case PROGRAM_where:
        return a != 0;
    default:
        return 0;
    }
}

/* The value at `at`; *kink is set when an outcome differs from those in c->nodes. */
static double value_at(const checked *c, const double at[2], bool *kink)
{
    program_evaluate(&c->p, at, c->others);
    for (int i = 0; i <= c->value; i++)
        *kink = *kink || outcome(&c->p.nodes[i], c->others) != outcome(&c->p.nodes[i], c->nodes);
    return c->others[c->value];
}

/* The slope along one input, NAN where there is none. */
static double slope_at(const checked *c, const double at[2], int input)
{
    static const double offsets[PLACES] = {-1, -0.5, 0.5, 1};
    double values[PLACES], place[2] = {at[0], at[1]};
    bool kink = false;
    for (int i = 0; i < PLACES; i++) {
        place[input] = at[input] + offsets[i] * STEP;
        values[i] = value_at(c, place, &kink);
    }
    double wide = (values[3] - values[0]) / (2 * STEP), narrow = (values[2] - values[1]) / STEP;
    return kink ? NAN : (4 * narrow - wide) / 3;
}

static void check_point(gradient_report *out, const checked *c, double x, double up)
{
    const double at[2] = {x, up};
    program_evaluate(&c->p, at, c->nodes);
    for (int i = 0; i < c->input_count; i++) {
        double slope = slope_at(c, at, i), gradient = c->nodes[c->gradients[i]];
        if (!isfinite(slope)) {
            out->left_out++;
            continue;
        }
        double error = fabs(gradient - slope) / fmax(1, fabs(slope));
        out->points++;
        if (error > out->worst || isnan(error)) {
            out->worst = isnan(error) ? INFINITY : error;
            out->x = x;
            out->up = up;
        }
    }
}

static mmlp_status prepare(checked *c, const module_spec *spec)
{
    int one;
    c->input_count = spec->activation_takes_up ? 2 : 1;
    MMLP_TRY(program_input(&c->inputs[0], &c->p, "x"));
    MMLP_TRY(program_input(&c->inputs[1], &c->p, "up"));
    MMLP_TRY(program_constant(&one, &c->p, 1));
    MMLP_TRY(formula_inline(&c->value, &c->p, &spec->formula, spec->formula_result, c->inputs[0],
                            c->inputs[1]));
    int *adjoints = malloc((size_t)c->p.count * sizeof *adjoints);
    if (!adjoints)
        return mmlp_fail_memory((size_t)c->p.count * sizeof *adjoints, "a gradient");
    mmlp_status status =
        expr_differentiate(adjoints, &c->p, c->value, one, c->inputs, c->input_count);
    for (int i = 0; status == MMLP_OK && i < c->input_count; i++)
        c->gradients[i] = adjoints[c->inputs[i]];
    free(adjoints);
    MMLP_TRY(status);
    c->nodes = calloc((size_t)c->p.count, sizeof *c->nodes);
    c->others = calloc((size_t)c->p.count, sizeof *c->others);
    return c->nodes && c->others
               ? MMLP_OK
               : mmlp_fail_memory((size_t)c->p.count * sizeof *c->nodes, "a gradient");
}

mmlp_status gradient_check(gradient_report *out, const module_spec *spec)
{
    *out = (gradient_report){0};
    checked c = {0};
    mmlp_status status = prepare(&c, spec);
    int count = c.input_count == 2 ? BOTH_SWEEP : SWEEP;
    for (int i = 0; status == MMLP_OK && i < count; i++) {
        double x = SWEEP_END * (2.0 * i / (count - 1) - 1);
        if (c.input_count == 1)
            check_point(out, &c, x, 0);
        for (int k = 0; c.input_count == 2 && k < count; k++)
            check_point(out, &c, x, SWEEP_END * (2.0 * k / (count - 1) - 1));
    }
    free(c.nodes);
    free(c.others);
    program_free(&c.p);
    return status;
}
