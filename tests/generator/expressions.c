/* expressions.c: tracing, simplifying and printing. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "expr.h"
#include "spec_text.h"

/* The printed C of an activation's body. */
static void prints(const char *body, const char *wanted)
{
    module_spec spec;
    char *fields = NULL;
    cr_assert(asprintf(&fields,
                       "hidden_size = 64, activation_func = activation(\"a\", function(x) %s end)",
                       body) > 0);
    char *content = spec_text_config(fields, "");
    cr_assert_eq(spec_text_load(&spec, content), MMLP_OK, "%s", mmlp_last_error());
    text statements = TEXT_INIT, value = TEXT_INIT;
    cr_assert_eq(expr_print(&statements, &value, &spec.formula, &spec.formula_result, 1, NULL, 0),
                 MMLP_OK);
    if (statements.length > 0)
        text_puts(&statements, "\n");
    text_puts(&statements, text_string(&value));
    cr_assert_str_eq(text_string(&statements), wanted);
    text_free(&statements);
    text_free(&value);
    spec_free(&spec);
    free(content);
    free(fields);
}

Test(simplify, constants_fold)
{
    prints("return x * (2 * 3 + sqrt(4))", "8.0f * x");
    prints("return x + exp(0) - 1", "x + 1.0f + -1.0f");
    prints("return 3", "3.0f");
    prints("return where(greater(2, 1), x, 0)", "x");
}

Test(simplify, neutral_operations_go)
{
    prints("return 1 * x + 0", "x");
    prints("return (x - 0) / 1", "x");
    prints("return -(-x)", "x");
    prints("return 0 - x", "-x");
    prints("return x * 0", "0.0f * x"); /* NaN stays NaN */
}

Test(simplify, constant_factors_merge_and_signs_move_out)
{
    prints("return 2 * (x * 3)", "6.0f * x");
    prints("return x / 4", "0.25f * x");
    prints("return x + (-exp(x))", "x - mlp_exp(x)");
    prints("return x - (-2 * exp(x))", "x + 2.0f * mlp_exp(x)");
    prints("return (-x) * (-exp(x))", "x * mlp_exp(x)");
}

Test(simplify, one_plus_tanh_becomes_sigmoid)
{
    prints("return 1 + tanh(x)", "2.0f * mlp_sigmoid(2.0f * x)");
    prints("return tanh(x) + 1", "2.0f * mlp_sigmoid(2.0f * x)");
    prints("return 1 - tanh(x)", "2.0f * mlp_sigmoid(-2.0f * x)");
    prints("return 0.5 * (1 + tanh(x))", "mlp_sigmoid(2.0f * x)");
    prints("return 0.5 + 0.5 * tanh(x / 2)", "mlp_sigmoid(x)");
    prints("return 0.5 * x * (1 + tanh(x))", "x * mlp_sigmoid(2.0f * x)");
    prints("return 0.5 * x + 0.5 * x * tanh(x)", "x * mlp_sigmoid(2.0f * x)");
    prints("return tanh(x) - 1", "-2.0f * mlp_sigmoid(-2.0f * x)");
}

Test(simplify, one_plus_erf_becomes_erfc)
{
    prints("return 1 + erf(x)", "mlp_erfc(-x)");
    prints("return 1 - erf(x)", "mlp_erfc(x)");
    prints("return x * (erf(2 * x) + 1) / 2", "0.5f * (x * mlp_erfc(-2.0f * x))");
}

Test(simplify, what_overflows_is_rewritten)
{
    prints("return 1 / (1 + exp(-x))", "mlp_sigmoid(x)");
    prints("return x / (1 + exp(-1.5 * x))", "x * mlp_sigmoid(1.5f * x)");
    prints("return log(1 + exp(x))", "mlp_softplus(x)");
    prints("return log(exp(2 * x) + 1)", "mlp_softplus(2.0f * x)");
    prints("return log(2 + exp(x))", "mlp_log(mlp_exp(x) + 2.0f)");
}

Test(simplify, other_sums_of_tanh_stay)
{
    prints("return 2 + tanh(x)", "mlp_tanh(x) + 2.0f");
    prints("return x + tanh(x)", "x + mlp_tanh(x)");
}

Test(print, operators_bind_as_in_c)
{
    prints("return x - (exp(x) - log(x))", "x - (mlp_exp(x) - mlp_log(x))");
    prints("return (x - exp(x)) - log(x)", "x - mlp_exp(x) - mlp_log(x)");
    prints("return x / (exp(x) / log(x))", "x / (mlp_exp(x) / mlp_log(x))");
    prints("return (x + exp(x)) * log(x)", "(x + mlp_exp(x)) * mlp_log(x)");
    prints("return -(x + 1) / exp(x)", "-(x + 1.0f) / mlp_exp(x)");
}

Test(print, what_is_read_twice_gets_a_name)
{
    prints("local e = exp(x) return e / (2 + e)", "const float t0 = mlp_exp(x);\nt0 / (t0 + 2.0f)");
    prints("return exp(x) * exp(x)", "const float t0 = mlp_exp(x);\nt0 * t0");
}

Test(print, comparisons_become_conditions)
{
    prints("return where(greater(x, 0), x, 0)", "x > 0.0f ? x : 0.0f");
    prints("return 2 * where(less(x, 0), x, exp(x))", "2.0f * (x < 0.0f ? x : mlp_exp(x))");
    prints("return greater(x, 1) + x", "(x > 1.0f ? 1.0f : 0.0f) + x");
    prints("return where(x, x, 1)", "x != 0.0f ? x : 1.0f");
    prints("return abs(clamp(x, -1, 2)) + max(x, 0)",
           "fabsf(mlp_clamp(x, -1.0f, 2.0f)) + mlp_max(x, 0.0f)");
}

Test(trace, an_activation_may_call_another)
{
    prints("return F.silu(2 * x)", "2.0f * (x * mlp_sigmoid(2.0f * x))");
}

Test(trace, mistakes_have_the_line_and_the_way_out)
{
    static const char *const cases[][2] = {
        {"if x > 0 then return x end",
         "a comparison of expressions: use where(greater(a, b), yes, no)"},
        {"return x <= x * 2 and x or 0",
         "a comparison of expressions: use where(greater(a, b), yes, no)"},
        {"return x == x * 2", "a comparison of expressions: use where(greater(a, b), yes, no)"},
        {"return x ^ 2", "'^' on an expression: write x * x"},
        {"return x .. \"a\"", "'..' on an expression is not supported"},
        {"return x.y", "an expression has no fields"},
        {"return math.exp(x)", "bad argument #1 to 'exp' (number expected, got expression)"},
        {"return x + \"1\"", "+: expected expression or number, got string"},
        {"return x + nil", "+: expected expression or number, got nil"},
        {"return exp()", "exp: expected 1 argument, got 0"},
        {"return min(x)", "min: expected 2 arguments, got 1"},
        {"return x * math.huge", "*: the constant inf is not a finite fp32 number"},
        {"return x * 1e300", NULL},
        {"return nil", "activation \"a\": the function returned nil, wanted an expression of x"},
        {"return activation(\"b\", function(y) return y end)",
         "activation \"b\" is made inside an activation"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *content = NULL;
        module_spec spec;
        cr_assert(asprintf(&content, "local a = activation(\"a\", function(x)\n%s\nend)",
                           cases[i][0]) > 0);
        cr_assert_eq(spec_text_load(&spec, content), MMLP_ERROR_SPEC, "%s", cases[i][0]);
        if (cases[i][1])
            cr_expect(strstr(mmlp_last_error(), cases[i][1]), "%s: %s", cases[i][0],
                      mmlp_last_error());
        cr_expect(strncmp(mmlp_last_error(), "bad.lua:", 8) == 0, "%s", mmlp_last_error());
        free(content);
    }
}

Test(trace, a_symbol_does_not_outlive_its_activation)
{
    spec_text_fails("local kept\nlocal a = activation(\"a\", function(x) kept = x return x end)\n"
                    "local b = activation(\"b\", function(x) return x + kept end)",
                    "bad.lua:3: +: the symbol of another activation");
    spec_text_fails(
        "local a = F.silu(2)",
        "bad.lua:1: an activation can be called only inside activation(name, function)");
    spec_text_fails("local a = activation(\"a b\", function(x) return x end)",
                    "bad.lua:1: activation: the name \"a b\" is not made of letters, digits and _");
}

Test(program, json_round_trip)
{
    program p = {0}, back;
    int x, half, product, result;
    cr_assert_eq(program_input(&x, &p, "x"), MMLP_OK);
    cr_assert_eq(program_constant(&half, &p, 0.1), MMLP_OK);
    cr_assert_eq(program_add(&product, &p, PROGRAM_mul, half, x, -1), MMLP_OK);
    cr_assert_eq(program_add(&result, &p, PROGRAM_clamp, product, half, x), MMLP_OK);
    json_t *json = program_to_json(&p);
    cr_assert_eq(program_from_json(&back, json), MMLP_OK, "%s", mmlp_last_error());
    json_decref(json);
    double input = 7, a[8], b[8];
    program_evaluate(&p, &input, a);
    program_evaluate(&back, &input, b);
    cr_assert_eq(p.count, back.count);
    for (int i = 0; i < p.count; i++)
        cr_assert_eq(a[i], b[i]);
    program_free(&p);
    program_free(&back);
}

Test(program, equal_nodes_are_shared)
{
    program p = {0};
    int x, a, b;
    program_input(&x, &p, "x");
    program_add(&a, &p, PROGRAM_mul, x, x, -1);
    program_add(&b, &p, PROGRAM_mul, x, x, -1);
    cr_assert_eq(a, b);
    program_constant(&a, &p, 0.0);
    program_constant(&b, &p, -0.0);
    cr_assert_neq(a, b);
    program_free(&p);
}

Test(program, malformed_json_is_refused)
{
    static const char *const cases[][2] = {
        {"{}", "program: wanted arrays \"inputs\" and \"nodes\""},
        {"{\"inputs\": [1], \"nodes\": []}", "program: input 0 is not a string"},
        {"{\"inputs\": [\"x\", \"x\"], \"nodes\": []}", "program: input \"x\" is given twice"},
        {"{\"inputs\": [], \"nodes\": [3]}", "program: node 0 is not [operation, ...]"},
        {"{\"inputs\": [], \"nodes\": [[\"pow\", 0]]}",
         "program: node 0: unknown operation \"pow\""},
        {"{\"inputs\": [], \"nodes\": [[\"input\", 0]]}",
         "program: node 0: argument 1 of input is not the index of an input"},
        {"{\"inputs\": [\"x\"], \"nodes\": [[\"input\", 0], [\"exp\", 1]]}",
         "program: node 1: argument 1 of exp is not the index of an earlier node"},
        {"{\"inputs\": [\"x\"], \"nodes\": [[\"input\", 0], [\"add\", 0]]}",
         "program: node 1: add has 1 arguments, wanted 2"},
        {"{\"inputs\": [], \"nodes\": [[\"constant\", \"1\"]]}",
         "program: node 0: constant is not a number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        program p;
        json_t *json = json_loads(cases[i][0], 0, NULL);
        cr_assert_eq(program_from_json(&p, json), MMLP_ERROR_FORMAT);
        cr_assert_str_eq(mmlp_last_error(), cases[i][1]);
        json_decref(json);
    }
}

Test(program, operations_are_ieee_with_nan_through_min_max_clamp)
{
    program p = {0};
    int a, b, c, node;
    program_input(&a, &p, "a");
    program_input(&b, &p, "b");
    program_input(&c, &p, "c");
    double values[32], nan_first[3] = {NAN, 1, 2}, nan_second[3] = {1, NAN, 2};
    static const program_op ops[] = {PROGRAM_min, PROGRAM_max, PROGRAM_clamp};
    for (int i = 0; i < 3; i++) {
        program_add(&node, &p, ops[i], a, b, c);
        program_evaluate(&p, nan_first, values);
        cr_assert(isnan(values[node]), "%s", program_op_name(ops[i]));
        program_evaluate(&p, nan_second, values);
        cr_assert(isnan(values[node]), "%s", program_op_name(ops[i]));
    }
    program_add(&node, &p, PROGRAM_greater, a, b, -1);
    program_evaluate(&p, nan_first, values);
    cr_assert_eq(values[node], 0);
    program_free(&p);
}
