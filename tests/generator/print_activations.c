/*
 * print_activations.c: prints, while the build runs, every shipped activation and its slope as C
 * functions, with their programs as JSON: what sweep.c compiles and compares. Each is traced as a
 * spec would.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "expr.h"
#include "spec.h"

static const struct {
    const char *name, *expression, *extra;
} rows[] = {
    {"gelu", "F.gelu", ""},
    {"fused_gelu", "F.gelu", "bias_activation_fusion = true,"},
    {"silu", "F.silu", ""},
    {"relu", "F.relu", ""},
    {"quick_gelu", "quick_gelu", ""},
    {"squared_relu", "squared_relu", ""},
    {"fast_gelu", "fast_gelu", ""},
    {"gelu_tanh", "gelu_tanh", ""},
    {"own_squared_relu", "activation('a', function(x) return where(greater(x, 0), x * x, 0) end)",
     ""},
    {"own_commuted", "activation('a', function(x) return (erf(x) + 1) * x - x * 0 end)", ""},
    {"own_scaled", "activation('a', function(x) return 0.5 * x + x * tanh(x) / 2 end)", ""},
    {"own_opposite", "activation('a', function(x) return x * (1 - tanh(-x)) end)", ""},
    {"own_softplus", "activation('a', function(x) return max(x, 0) + log(1 + exp(-abs(x))) end)",
     ""},
    {"own_clamped", "activation('a', function(x) return clamp(x, -3, 3) * min(x, 1) end)", ""},
    {"own_naive_softplus", "activation('a', function(x) return log(1 + exp(x)) end)", ""},
    {"own_swish", "activation('a', function(x) return x / (1 + exp(-1.5 * x)) end)", ""},
    {"own_mish", "activation('a', function(x) return x * tanh(softplus(x)) end)", ""},
    {"own_tanh", "activation('a', function(x) return tanh(x) end)", ""},
    {"own_sigmoid", "activation('a', function(x) return sigmoid(x) end)", ""},
    {"own_erf", "activation('a', function(x) return erf(x) end)", ""},
    {"own_situ", "activation('a', function(x) return 4 * tanh(x / 4) * sigmoid(x) end)", ""},
    {"own_bounded",
     "activation('a', function(x) local t = 6 * tanh(max(x, 0) / 6) return t * t end)", ""},
    {"own_rational", "activation('a', function(x) return x / (1 + abs(x)) * rsqrt(1 + x * x) end)",
     ""},
};

/* A function, its program, and where in it the result is. */
static mmlp_status print_function(text *out, const char *kind, const char *name, const program *p,
                                  int result)
{
    text statements = TEXT_INIT, value = TEXT_INIT;
    mmlp_status status = expr_print(&statements, &value, p, &result, 1, NULL, 0);
    json_t *object = program_to_json(p);
    char *json = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    text_printf(out, "static float %s_%s(float x)\n{\n(void)x;\n%s\nreturn %s;\n}\n", kind, name,
                text_string(&statements), text_string(&value));
    text_printf(out, "static const char %s_program_%s[] = \"", kind, name);
    for (const char *at = json; *at; at++)
        text_printf(out, "%s%c", *at == '"' ? "\\" : "", *at);
    text_puts(out, "\";\n");
    text_printf(out, "enum { %s_result_%s = %d };\n", kind, name, result);
    free(json);
    text_free(&statements);
    text_free(&value);
    return status;
}

/* The simplified program of the formula's slope. */
static mmlp_status make_slope(program *out, int *result, const module_spec *spec)
{
    program whole = {0};
    mmlp_status status = MMLP_OK;
    int x, value, one, adjoints[256];
    MMLP_TRY_CLEANUP(program_input(&x, &whole, "x"));
    MMLP_TRY_CLEANUP(program_constant(&one, &whole, 1));
    MMLP_TRY_CLEANUP(expr_inline(&value, &whole, &spec->formula, spec->formula_result, &x));
    MMLP_TRY_CLEANUP(expr_differentiate(adjoints, &whole, value, one, &x, 1));
    *result = adjoints[x];
    MMLP_TRY_CLEANUP(expr_simplify(out, &whole, result, 1, NULL));

cleanup:
    program_free(&whole);
    return status;
}

static mmlp_status print_row(text *out, size_t i)
{
    char *content = NULL;
    module_spec spec = {0};
    program slope = {0};
    int slope_result;
    mmlp_status status = MMLP_OK;
    if (asprintf(&content,
                 "return ModuleSpec { module = MLP, params = { config = TransformerConfig { "
                 "hidden_size = 64, %s activation_func = %s } },\nsubmodules = MLPSubmodules { "
                 "linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear } }\n",
                 rows[i].extra, rows[i].expression) < 0)
        return mmlp_fail_memory(64, "a spec");
    MMLP_TRY_CLEANUP(file_write_atomic("activation_row.lua", content, strlen(content)));
    MMLP_TRY_CLEANUP(spec_load(&spec, "activation_row.lua", NULL));
    MMLP_TRY_CLEANUP(
        print_function(out, "activation", rows[i].name, &spec.formula, spec.formula_result));
    MMLP_TRY_CLEANUP(make_slope(&slope, &slope_result, &spec));
    MMLP_TRY_CLEANUP(print_function(out, "slope", rows[i].name, &slope, slope_result));

cleanup:
    free(content);
    program_free(&slope);
    spec_free(&spec);
    return status;
}

int main(int argc, char **argv)
{
    text out = TEXT_INIT;
    mmlp_status status = MMLP_OK;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && status == MMLP_OK; i++)
        status = print_row(&out, i);
    text_puts(&out, "#define ACTIVATIONS(X)");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        text_printf(&out, " X(%s)", rows[i].name);
    text_puts(&out, "\n");
    if (status == MMLP_OK && argc == 2)
        status = file_write_atomic(argv[1], text_string(&out), out.length);
    if (status != MMLP_OK)
        fprintf(stderr, "%s\n", mmlp_last_error());
    text_free(&out);
    return status != MMLP_OK;
}
