/* derivatives.c: the gradient of every operation against slopes of its own program, at kinks
 * against PyTorch's rules, and of activations of two symbols. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "expr.h"
#include "spec_text.h"

/* The program of an activation's body with its gradients for a seed of 1, not simplified. */
typedef struct differentiated {
    program p;
    int value, gradients[2];
} differentiated;

static differentiated differentiate(const char *parameters, const char *body)
{
    differentiated d = {0};
    module_spec spec;
    char *fields = NULL;
    cr_assert(asprintf(&fields,
                       "hidden_size = 64, gated_linear_unit = true, activation_func = "
                       "activation(\"a\", function(%s) %s end)",
                       parameters, body) > 0);
    char *content = spec_text_config(fields, "");
    cr_assert_eq(spec_text_load(&spec, content), MMLP_OK, "%s", mmlp_last_error());
    int inputs[2], one, adjoints[256];
    program_input(&inputs[0], &d.p, "x");
    program_input(&inputs[1], &d.p, "up");
    program_constant(&one, &d.p, 1);
    cr_assert_eq(
        formula_inline(&d.value, &d.p, &spec.formula, spec.formula_result, inputs[0], inputs[1]),
        MMLP_OK);
    cr_assert_eq(expr_differentiate(adjoints, &d.p, d.value, one, inputs, 2), MMLP_OK);
    for (int i = 0; i < 2; i++)
        d.gradients[i] = adjoints[inputs[i]];
    spec_free(&spec);
    free(content);
    free(fields);
    return d;
}

static double evaluate(const differentiated *d, int node, double x, double up)
{
    double inputs[2] = {x, up}, values[256];
    cr_assert_lt(d->p.count, 256);
    program_evaluate(&d->p, inputs, values);
    return values[node];
}

/* Both gradients against central differences over a grid that hits no kink. */
static void agrees(const char *parameters, const char *body, double from, double to)
{
    differentiated d = differentiate(parameters, body);
    const double h = 1e-4;
    for (double x = from; x <= to; x += 0.0917) {
        for (double up = -1.03; up <= 1.1; up += 0.71) {
            double dx =
                (evaluate(&d, d.value, x + h, up) - evaluate(&d, d.value, x - h, up)) / (2 * h);
            double du =
                (evaluate(&d, d.value, x, up + h) - evaluate(&d, d.value, x, up - h)) / (2 * h);
            double x_gradient = evaluate(&d, d.gradients[0], x, up);
            double up_gradient = evaluate(&d, d.gradients[1], x, up);
            cr_assert(fabs(x_gradient - dx) <= 1e-6 * (1 + fabs(dx)),
                      "%s: d x at (%g, %g): %g, wanted %g", body, x, up, x_gradient, dx);
            cr_assert(fabs(up_gradient - du) <= 1e-6 * (1 + fabs(du)),
                      "%s: d up at (%g, %g): %g, wanted %g", body, x, up, up_gradient, du);
        }
    }
    program_free(&d.p);
}

Test(derivatives, every_operation_agrees_with_its_slope)
{
    static const struct {
        const char *body;
        double from, to;
    } cases[] = {
        {"return x + 3", -3, 3},
        {"return 2 - x * x", -3, 3},
        {"return -x * (x - 1)", -3, 3},
        {"return (x + 4) / (x * x + 2)", -3, 3},
        {"return exp(0.5 * x)", -3, 3},
        {"return log(x)", 0.1, 3},
        {"return tanh(x)", -3, 3},
        {"return sigmoid(2 * x)", -3, 3},
        {"return softplus(x)", -3, 3},
        {"return erf(x)", -3, 3},
        {"return erfc(-x)", -3, 3},
        {"return sqrt(x)", 0.1, 3},
        {"return rsqrt(x)", 0.1, 3},
        {"return abs(x)", -3, 3},
        {"return min(x, 0.4001)", -3, 3},
        {"return min(0.4001, x)", -3, 3},
        {"return max(x * x, 0.4001)", -3, 3},
        {"return clamp(x, -1.0001, 0.5001) * x", -3, 3},
        {"return clamp(0.2, x, 2)", -3, 1.9},
        {"return clamp(0.2, -2, x)", -1.9, 3},
        {"return where(greater(x, 0.3001), x * x, sigmoid(x))", -3, 3},
        {"return where(less(x, 0.3001), 1, x)", -3, 3},
        {"return greater(x, 0.3001) * x", -3, 3},
        {"return min(x, x * x * x) + max(x, -x * x)", 0.05, 0.9},
        {"local s = sigmoid(x) return s * s * x + s", -3, 3},
        {"return 3", -3, 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        agrees("x", cases[i].body, cases[i].from, cases[i].to);
}

Test(derivatives, an_activation_may_be_a_function_of_gate_and_up)
{
    agrees("gate, up", "return gate * sigmoid(gate) * up", -3, 3);
    agrees("gate, up", "return 4 * tanh(gate / 4) * sigmoid(gate) * 25 * tanh(up / 25)", -3, 3);
    agrees("gate, up", "return max(gate, up) * min(gate * gate, up + 3)", -0.95, 0.3);
    agrees("gate, up", "return gate / (2 + up * up)", -3, 3);
    agrees("gate, up", "return up", -3, 3);
    agrees("gate, up", "return gate", -3, 3);
    agrees("gate, up", "return 2", -3, 3);
}

static void slope_is(const char *body, double x, double wanted)
{
    differentiated d = differentiate("x", body);
    double computed = evaluate(&d, d.gradients[0], x, 0);
    if (isnan(wanted))
        cr_expect(isnan(computed), "%s at %g: %g, wanted NaN", body, x, computed);
    else
        cr_expect_eq(computed, wanted, "%s at %g: %g, wanted %g", body, x, computed, wanted);
    program_free(&d.p);
}

Test(derivatives, kinks_are_those_of_megatron)
{
    slope_is("return max(x, 0)", 0, 0);
    slope_is("return max(0, x)", 0, 0);
    slope_is("return min(x, 1)", 1, 1);
    slope_is("return min(1, x)", 1, 1);
    slope_is("return clamp(x, -1, 1)", 1, 1);
    slope_is("return clamp(x, -1, 1)", -1, 1);
    slope_is("return clamp(x, -1, 1)", 1.5, 0);
    slope_is("return abs(x)", 0, 0);
    slope_is("return max(x, -x)", 0, 0); /* equals share: (1 - 1) / 2 */
    slope_is("return max(x, 2 * x)", 0, 1.5);
    slope_is("return min(x, 2 * x)", 0, 1.5);
    slope_is("return where(greater(x, 0), x, 0)", 0, 0);
    slope_is("return where(less(x, 0), 0, x)", 0, 1);
}

Test(derivatives, nan_and_infinity_do_not_get_lost)
{
    slope_is("return max(x, 0)", NAN, NAN);
    slope_is("return abs(x)", NAN, NAN);
    slope_is("return max(x, 0)", -INFINITY, 0);
    slope_is("return max(x, 0)", INFINITY, 1);
    slope_is("return x * sigmoid(x)", NAN, NAN);
    slope_is("return tanh(x)", INFINITY, 0);
}

Test(derivatives, a_function_of_both_halves_needs_both)
{
    spec_text_fails(
        "local config = TransformerConfig {\n  hidden_size = 64,\n"
        "  activation_func = activation('a', function(gate, up) return gate * up end)\n}",
        "bad.lua:3:3: the activation is a function of gate and up; it needs "
        "gated_linear_unit = true");
    spec_text_fails("local a = activation('a', function(gate, up) return gate * up end)\n"
                    "local b = activation('b', function(x) return a(x) end)",
                    "bad.lua:2: a: expected expression or number, got no value");
}
