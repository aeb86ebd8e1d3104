/*
 * combinations.c: every combination of activation, gating, fusion, bias, scale, clamp and offset:
 * which are refused, and what the others compute. The formulas here are written out again, from
 * Megatron's sources.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "plan.h"
#include "spec_text.h"

typedef enum act { GELU, SILU, QUICK_GELU, RELU, SQUARED_RELU, GELU_TANH, ACT_COUNT } act;
static const char *const act_names[] = {"F.gelu", "F.silu",       "quick_gelu",
                                        "F.relu", "squared_relu", "gelu_tanh"};

typedef struct combination {
    act act;
    bool gated, fused, bias, scale, clamp, offset, te, bias_in_linear;
} combination;

static const double LIMIT = 0.75, OFFSET = 0.5;

static char *write_spec(const combination *c)
{
    char *content = NULL;
    int length = asprintf(
        &content,
        "local config = TransformerConfig { hidden_size = 64, num_moe_experts = 2,\n"
        "  activation_func = %s, gated_linear_unit = %s, bias_activation_fusion = %s,\n"
        "  add_bias_linear = %s, use_te_activation_func = %s, %s %s params_dtype = \"bf16\" }\n"
        "local fc1 = ModuleSpec { module = ColumnParallelLinear, params = { skip_bias_add = %s } "
        "}\n"
        "return ModuleSpec { module = MLP, params = { config = config, is_expert = true,\n"
        "  per_token_scale = %s }, submodules = MLPSubmodules { linear_fc1 = fc1,\n"
        "  linear_fc2 = RowParallelLinear, activation_func = %s } }\n",
        act_names[c->act], c->gated ? "true" : "false", c->fused ? "true" : "false",
        c->bias ? "true" : "false", c->te ? "true" : "false",
        c->clamp ? "activation_func_clamp_value = 0.75," : "",
        c->offset ? "glu_linear_offset = 0.5," : "", c->bias_in_linear ? "false" : "true",
        c->scale ? "true" : "false", act_names[c->act]);
    cr_assert(length > 0);
    return content;
}

static mmlp_status load(module_spec *spec, const combination *c)
{
    char *content = write_spec(c);
    mmlp_status status = spec_text_load(spec, content);
    free(content);
    return status;
}

/* ---- the reference --------------------------------------------------------------------------- */

static double logistic(double x)
{
    return 1 / (1 + exp(-x));
}

static double activate(const combination *c, double x)
{
    switch (c->act) {
    case GELU:
        if (c->fused || c->te)
            return 0.5 * x * (1 + tanh(0.79788456 * x * (1 + 0.044715 * x * x)));
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case SILU:
        return x * logistic(x);
    case QUICK_GELU:
        return x * logistic(1.702 * x);
    case RELU:
        return fmax(x, 0);
    case SQUARED_RELU:
        return fmax(x, 0) * fmax(x, 0);
    default:
        return 0.5 * x * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
    }
}

static double reference(const combination *c, double gate, double up, double gate_bias,
                        double up_bias, double scale)
{
    bool ignores = !c->gated || c->te || (c->fused && c->act == GELU);
    bool clamps = c->clamp && !ignores;
    bool before = clamps && c->fused && c->act == QUICK_GELU && c->scale && !c->bias_in_linear;
    for (int round = 0; round < 2; round++) {
        if (clamps && before == (round == 0)) {
            gate = fmin(gate, LIMIT);
            up = fmax(fmin(up, LIMIT), -LIMIT);
        }
        if (round == 0 && c->bias) {
            gate += gate_bias;
            up += up_bias;
        }
    }
    double value = activate(c, gate);
    if (c->gated)
        value *= up + (c->offset && !ignores ? OFFSET : 0);
    return c->scale ? value * scale : value;
}

enum { GATE, UP, GATE_BIAS, UP_BIAS, SCALE, D_ACTIVATION, INPUTS };
static const char *const names[INPUTS] = {"gate",    "up",    "gate_bias",
                                          "up_bias", "scale", "d_activation"};

/* Evaluates the graph's nodes for inputs in the order of `names`. */
static void evaluate(double *nodes, const program *graph, const double values[INPUTS])
{
    double inputs[INPUTS] = {0};
    for (int i = 0; i < graph->input_count; i++)
        for (int n = 0; n < INPUTS; n++)
            if (strcmp(graph->inputs[i], names[n]) == 0)
                inputs[i] = values[n];
    cr_assert_lt(graph->count, 128);
    program_evaluate(graph, inputs, nodes);
}

static double reference_of(const combination *c, const double v[INPUTS])
{
    return reference(c, v[GATE], v[UP], v[GATE_BIAS], v[UP_BIAS], v[SCALE]);
}

/* The slope along one input, with an error of the order of h^4; NAN where a kink lies between the
 * points, which shows in slopes of both sides that differ. */
static double slope_of(const combination *c, const double values[INPUTS], int input)
{
    const double h = 1e-3;
    double at[5], v[INPUTS];
    for (int i = 0; i < 5; i++) {
        memcpy(v, values, sizeof v);
        v[input] += h * (i - 2);
        at[i] = reference_of(c, v);
    }
    double left = (at[2] - at[0]) / (2 * h), right = (at[4] - at[2]) / (2 * h);
    if (fabs(left - right) > 0.05)
        return NAN;
    return (8 * (at[3] - at[1]) - (at[4] - at[0])) / (12 * h);
}

/* Every result of `backward` against slopes of the formula. Returns how many were compared. */
static int compare_gradients(const combination *c, const plan *p, const double values[INPUTS])
{
    const plan_epilogue *e = &p->reference_backward;
    const bool there[] = {true, c->gated, c->bias, c->bias && c->gated, c->scale};
    double nodes[128];
    int result = 1, compared = 0;
    evaluate(nodes, &e->graph, values);
    cr_assert_float_eq(nodes[e->results[0]], reference_of(c, values), 1e-12);
    for (int input = GATE; input <= SCALE; input++) {
        if (!there[input])
            continue;
        double slope = slope_of(c, values, input) * values[D_ACTIVATION];
        double computed = nodes[e->results[result++]];
        if (isnan(slope))
            continue;
        compared++;
        cr_assert(fabs(computed - slope) <= 1e-8 * (1 + fabs(slope)),
                  "d %s of %s gated %d fused %d bias %d scale %d clamp %d offset %d te %d: %.12g, "
                  "wanted %.12g",
                  names[input], act_names[c->act], c->gated, c->fused, c->bias, c->scale, c->clamp,
                  c->offset, c->te, computed, slope);
    }
    cr_assert_eq(result, e->output_count);
    return compared;
}

static void compare(const combination *c, const module_spec *spec)
{
    plan p;
    cr_assert_eq(plan_build(&p, spec, NULL, NULL), MMLP_OK, "%s", mmlp_last_error());
    const program *graph = &p.reference_activation.graph;
    unsigned seed = 1;
    int compared = 0;
    for (int sample = 0; sample < 50; sample++) {
        double values[INPUTS], nodes[128];
        for (int i = 0; i < INPUTS; i++) {
            seed = seed * 1664525u + 1013904223u;
            values[i] = (double)(int)(seed >> 8) / (1 << 22) - 2; /* [-2, 2) */
        }
        evaluate(nodes, graph, values);
        double wanted = reference_of(c, values);
        double computed =
            nodes[p.reference_activation.results[p.reference_activation.output_count - 1]];
        cr_assert(
            fabs(computed - wanted) <= 1e-12 * (1 + fabs(wanted)),
            "%s gated %d fused %d bias %d scale %d clamp %d offset %d te %d: %.17g, wanted %.17g",
            act_names[c->act], c->gated, c->fused, c->bias, c->scale, c->clamp, c->offset, c->te,
            computed, wanted);
        compared += compare_gradients(c, &p, values);
    }
    cr_assert_gt(compared, 45); /* few lie at a kink */
    plan_free(&p);
}

/* What Megatron's __post_init__ raises, by section 1 and 2.3 of its config. */
static bool is_refused(const combination *c)
{
    bool fusable = c->act == GELU || c->act == SILU || c->act == QUICK_GELU;
    if (c->fused && (!fusable || c->te))
        return true;
    if (c->fused && c->act == GELU && !c->gated && !c->bias)
        return true;
    if (c->fused && c->act == QUICK_GELU && !c->gated)
        return true;
    if (c->fused && c->offset && c->act != QUICK_GELU)
        return true;
    if (c->te && c->act != GELU && c->act != SILU && c->act != RELU)
        return true;
    return c->clamp && c->act == SILU && c->gated && (c->offset || c->te);
}

Test(combinations, every_one_is_refused_or_computes_megatrons_formula)
{
    int legal = 0, refused = 0;
    for (unsigned bits = 0; bits < (unsigned)ACT_COUNT << 8; bits++) {
        combination c = {(act)(bits >> 8), bits & 1,  bits & 2,  bits & 4,  bits & 8,
                         bits & 16,        bits & 32, bits & 64, bits & 128};
        module_spec spec;
        mmlp_status status = load(&spec, &c);
        cr_assert_eq(status == MMLP_OK, !is_refused(&c),
                     "%s gated %d fused %d bias %d scale %d clamp %d offset %d te %d: %s",
                     act_names[c.act], c.gated, c.fused, c.bias, c.scale, c.clamp, c.offset, c.te,
                     status == MMLP_OK ? "accepted" : mmlp_last_error());
        if (status == MMLP_OK) {
            legal++;
            compare(&c, &spec);
        } else {
            refused++;
        }
        spec_free(&spec);
    }
    cr_assert_gt(legal, 500);
    cr_assert_gt(refused, 500);
}

/* ---- gradients at kinks ---------------------------------------------------------------------- */

/* Gradients of gate and of the next input that there is, for d_activation 1. */
static void gradients_are(combination c, double gate, double up, double d_gate, double d_next)
{
    module_spec spec;
    plan p;
    double values[INPUTS] = {gate, up, 0, 0, 1, 1}, nodes[128];
    cr_assert_eq(load(&spec, &c), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(plan_build(&p, &spec, NULL, NULL), MMLP_OK, "%s", mmlp_last_error());
    evaluate(nodes, &p.reference_backward.graph, values);
    cr_expect_float_eq(nodes[p.reference_backward.results[1]], d_gate, 1e-12, "%s at (%g, %g)",
                       act_names[c.act], gate, up);
    if (!isnan(d_next))
        cr_expect_float_eq(nodes[p.reference_backward.results[2]], d_next, 1e-12, "%s at (%g, %g)",
                           act_names[c.act], gate, up);
    plan_free(&p);
    spec_free(&spec);
}

Test(combinations, clamps_pass_gradients_at_their_limits_and_relu_does_not_at_zero)
{
    double s = logistic(LIMIT), slope = s * (1 + LIMIT * (1 - s));
    combination clamped = {SILU, .gated = true, .clamp = true};
    gradients_are(clamped, LIMIT, LIMIT, slope * LIMIT, LIMIT * s);
    gradients_are(clamped, LIMIT, -LIMIT, -slope * LIMIT, LIMIT * s);
    gradients_are(clamped, LIMIT + 1, LIMIT, 0, LIMIT * s);
    gradients_are(clamped, LIMIT, LIMIT + 1, slope * LIMIT, 0);
    gradients_are(clamped, LIMIT, -LIMIT - 1, -slope * LIMIT, 0);
    gradients_are((combination){.act = RELU}, 0, 0, 0, NAN);
    gradients_are((combination){.act = RELU}, 0x1p-1074, 0, 1, NAN);
    gradients_are((combination){RELU, .gated = true}, 0, 3, 0, 0);
    gradients_are((combination){.act = SQUARED_RELU}, 0, 0, 0, NAN);
}

Test(combinations, fused_quick_geglu_does_not_mask_the_gradient_of_its_bias)
{
    combination c = {QUICK_GELU,   .gated = true, .fused = true,
                     .bias = true, .scale = true, .clamp = true};
    module_spec spec;
    plan p;
    double values[INPUTS] = {LIMIT + 1, LIMIT + 1, 0.25, 0.5, 1, 1}, nodes[128];
    cr_assert_eq(load(&spec, &c), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(plan_build(&p, &spec, NULL, NULL), MMLP_OK, "%s", mmlp_last_error());
    evaluate(nodes, &p.reference_backward.graph, values);
    const int *results = p.reference_backward.results;
    double gate = LIMIT + 0.25, up = LIMIT + 0.5, s = logistic(1.702 * gate);
    cr_expect_eq(nodes[results[1]], 0);
    cr_expect_eq(nodes[results[2]], 0);
    cr_expect_float_eq(nodes[results[3]], s * (1 + 1.702 * gate * (1 - s)) * up, 1e-12);
    cr_expect_float_eq(nodes[results[4]], gate * s, 1e-12);
    plan_free(&p);
    spec_free(&spec);
}

/* ---- the bias of fc2 ------------------------------------------------------------------------- */

static void fc2_bias_is(bool bias, bool scale, bool skip, plan_fc2_bias wanted, double output)
{
    char *content = NULL;
    cr_assert(
        asprintf(&content,
                 "local config = TransformerConfig { hidden_size = 64, add_bias_linear = %s }\n"
                 "return ModuleSpec { module = MLP, params = { config = config, "
                 "per_token_scale = %s }, submodules = MLPSubmodules {\n"
                 "linear_fc1 = ColumnParallelLinear, linear_fc2 = ModuleSpec { module = "
                 "RowParallelLinear, params = { skip_bias_add = %s } } } }",
                 bias ? "true" : "false", scale ? "true" : "false", skip ? "true" : "false") > 0);
    module_spec spec;
    plan p;
    cr_assert_eq(spec_text_load(&spec, content), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(plan_build(&p, &spec, NULL, NULL), MMLP_OK);
    cr_assert_eq(p.fc2_bias, wanted);
    const program *graph = &p.reference_output.graph;
    double inputs[3] = {0}, nodes[16];
    for (int i = 0; i < graph->input_count; i++)
        inputs[i] = strcmp(graph->inputs[i], "bias") == 0    ? 10
                    : strcmp(graph->inputs[i], "scale") == 0 ? 3
                                                             : 1;
    program_evaluate(graph, inputs, nodes);
    cr_assert_eq(nodes[p.reference_output.results[0]], output);
    plan_free(&p);
    spec_free(&spec);
    free(content);
}

Test(combinations, the_fc2_bias_is_returned_folded_or_added_as_in_megatron)
{
    fc2_bias_is(false, false, true, PLAN_FC2_BIAS_NONE, 1);
    fc2_bias_is(false, true, false, PLAN_FC2_BIAS_NONE, 1);
    fc2_bias_is(true, false, true, PLAN_FC2_BIAS_RETURNED, 1);
    fc2_bias_is(true, true, true, PLAN_FC2_BIAS_FOLDED, 31);
    fc2_bias_is(true, false, false, PLAN_FC2_BIAS_ADDED, 11);
    fc2_bias_is(true, true, false, PLAN_FC2_BIAS_ADDED, 11);
}

/* ---- messages and warnings ------------------------------------------------------------------- */

static void refused_with(const char *fields, const char *message)
{
    char *content = spec_text_config(fields, "");
    spec_text_fails(content, message);
    free(content);
}

Test(combinations, refusals_are_in_megatrons_words)
{
    refused_with("  hidden_size = 64,\n  activation_func = F.relu, bias_activation_fusion = true",
                 "bad.lua:3:3: When bias_activation_fusion is True, activation function should be "
                 "either gelu, swiglu, or quick_geglu");
    refused_with(
        "  hidden_size = 64, bias_activation_fusion = true,\n  add_bias_linear = false",
        "bad.lua:3:3: When bias_activation_fusion is True, gated_linear_unit is False, and "
        "activation function is gelu, add_bias_linear must also be True.");
    refused_with("  hidden_size = 64,\n  sequence_parallel = true",
                 "bad.lua:3:3: Can not use sequence parallelism without tensor parallelism");
    refused_with("  hidden_size = 64, num_moe_experts = 2,\n  activation_func_clamp_value = -1",
                 "bad.lua:3:3: activation_func_clamp_value must be a finite positive number");
    refused_with("  hidden_size = 64, num_moe_experts = 2,\n  activation_func_clamp_value = 0/0",
                 "bad.lua:3:3: activation_func_clamp_value must be a finite positive number");
    refused_with("  hidden_size = 64, gated_linear_unit = true, activation_func = F.silu,\n"
                 "  activation_func_clamp_value = 1",
                 "bad.lua:3:3: activation_func_clamp_value with SwiGLU needs num_moe_experts");
    refused_with(
        "  hidden_size = 64, num_moe_experts = 2, tensor_model_parallel_size = 2,\n"
        "  add_bias_linear = true",
        "bad.lua:3:3: Bias in Moe is only supported when expert_tensor_parallel_size is 1");
    char *content = spec_text_config("hidden_size = 64, tensor_model_parallel_size = 2, "
                                     "sequence_parallel = true",
                                     "per_token_scale = true");
    spec_text_fails(content,
                    "bad.lua:4:63: ModuleSpec.params.per_token_scale: its fc2 bias is added "
                    "to a rank's part of the tokens (sequence_parallel), and the scale is "
                    "of all of them; add_bias_linear = false, or skip_bias_add = false of "
                    "fc2");
    free(content);
}

static void warns(combination c, const char *warnings)
{
    module_spec spec;
    cr_assert_eq(load(&spec, &c), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_str_eq(text_string(&spec.warnings), warnings);
    spec_free(&spec);
}

Test(combinations, what_megatron_ignores_gives_a_warning)
{
#define NO_TE                                                                                      \
    "MLPSubmodules.activation_func is ignored, as in Megatron: use_te_activation_func is false\n"
    warns(
        (combination){GELU, .gated = true, .fused = true, .clamp = true},
        "activation_func_clamp_value is ignored, as in Megatron: the fused GEGLU has none\n" NO_TE);
    warns((combination){RELU, .clamp = true, .offset = true},
          "activation_func_clamp_value is ignored, as in Megatron: gated_linear_unit is false\n"
          "glu_linear_offset is ignored, as in Megatron: gated_linear_unit is false\n" NO_TE);
    warns((combination){RELU, .gated = true, .offset = true, .te = true},
          "glu_linear_offset is ignored, as in Megatron: use_te_activation_func is true\n");
}
