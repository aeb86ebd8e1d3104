/*
 * print_activations.c: prints, while the build runs, every shipped activation as a C function, with
 * its program as JSON: what sweep.c compiles and compares. Each is traced as a spec would.
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
    {"own_rational", "activation('a', function(x) return x / (1 + abs(x)) * rsqrt(1 + x * x) end)",
     ""},
};

static mmlp_status print_row(text *out, size_t i)
{
    char *content = NULL;
    module_spec spec = {0};
    text statements = TEXT_INIT, value = TEXT_INIT;
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
        expr_print(&statements, &value, &spec.formula, &spec.formula_result, 1, NULL, 0));
    char *json = NULL;
    json_t *object = program_to_json(&spec.formula);
    json = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    text_printf(out, "static float activation_%s(float x)\n{\n%s\nreturn %s;\n}\n", rows[i].name,
                text_string(&statements), text_string(&value));
    text_printf(out, "static const char program_%s[] = \"", rows[i].name);
    for (const char *at = json; *at; at++)
        text_printf(out, "%s%c", *at == '"' ? "\\" : "", *at);
    text_puts(out, "\";\n");
    text_printf(out, "enum { result_%s = %d };\n", rows[i].name, spec.formula_result);
    free(json);

cleanup:
    free(content);
    text_free(&statements);
    text_free(&value);
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
