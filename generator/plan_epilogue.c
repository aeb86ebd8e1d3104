/*
 * plan_epilogue.c: what every combination of the config computes between the accumulators of a GEMM
 * and the store, as an expression. The order of bias, clamp, activation, offset and scale is
 * Megatron's (megatron/core/transformer/mlp.py, MLP.forward, and megatron/core/fusions).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan.h"

/* An epilogue under construction: nodes of `graph`, which is simplified at the end. */
typedef struct builder {
    plan_epilogue *epilogue;
    program graph;
} builder;

static mmlp_status add_input(int *out, builder *b, plan_input input)
{
    b->epilogue->inputs[b->epilogue->input_count++] = input;
    return program_input(out, &b->graph, input.name);
}

static void name_node(builder *b, int node, const char *name)
{
    b->epilogue->names[b->epilogue->name_count++] = (expr_name){node, name};
}

static mmlp_status apply(int *out, builder *b, program_op op, int left, int right, const char *name)
{
    MMLP_TRY(program_add(out, &b->graph, op, left, right, -1));
    name_node(b, *out, name);
    return MMLP_OK;
}

static mmlp_status add_column(int *value, builder *b, const char *input, const char *tensor,
                              int64_t offset, const char *name)
{
    int bias;
    MMLP_TRY(add_input(&bias, b, (plan_input){input, tensor, PLAN_INPUT_COLUMN, offset}));
    return apply(value, b, PROGRAM_add, *value, bias, name);
}

/* Simplifies the graph into the epilogue and renumbers the names. */
static mmlp_status finish(builder *b, int result)
{
    mmlp_status status = MMLP_OK;
    plan_epilogue *e = b->epilogue;
    int *places = malloc(((size_t)b->graph.count + 1) * sizeof *places);
    if (!places)
        return mmlp_fail_memory((size_t)b->graph.count * sizeof *places, "an epilogue");
    e->result = result;
    MMLP_TRY_CLEANUP(expr_simplify(&e->graph, &b->graph, &e->result, 1, places));
    for (int i = 0; i < e->name_count; i++)
        e->names[i].node = places[e->names[i].node];

cleanup:
    free(places);
    return status;
}

/* ---- fc1: activation_output ------------------------------------------------------------------ */

/* Which of the config's fields the branch that Megatron takes looks at. */
typedef struct branch {
    bool clamp, clamp_before_bias, offset;
} branch;

static branch branch_of(const module_spec *spec)
{
    const spec_config *config = &spec->config;
    bool fused = config->bias_activation_fusion;
    bool ignores = !config->gated_linear_unit || config->use_te_activation_func ||
                   (fused && spec->activation == SPEC_ACTIVATION_gelu);
    branch b = {
        .clamp = config->activation_func_clamp_value.given && !ignores,
        .offset = config->glu_linear_offset != 0 && !ignores,
    };
    /* weighted_bias_quick_geglu_impl clamps before it adds the bias it was given. */
    b.clamp_before_bias = b.clamp && fused && spec->activation == SPEC_ACTIVATION_quick_gelu &&
                          spec->mlp.per_token_scale && spec->linear_fc1.skip_bias_add;
    return b;
}

static mmlp_status clamp_halves(builder *b, const spec_config *config, int *gate, int *up)
{
    int limit, below;
    double v = config->activation_func_clamp_value.value;
    MMLP_TRY(program_constant(&limit, &b->graph, v));
    MMLP_TRY(program_constant(&below, &b->graph, -v));
    MMLP_TRY(apply(gate, b, PROGRAM_min, *gate, limit, "clamped_gate"));
    MMLP_TRY(program_add(up, &b->graph, PROGRAM_clamp, *up, below, limit));
    name_node(b, *up, "clamped_up");
    return MMLP_OK;
}

static mmlp_status add_fc1_bias(builder *b, const plan *p, int *gate, int *up)
{
    const spec_config *config = &p->spec->config;
    if (!config->add_bias_linear)
        return MMLP_OK;
    MMLP_TRY(add_column(gate, b, "gate_bias", "linear_fc1.bias", 0, "biased_gate"));
    if (config->gated_linear_unit)
        MMLP_TRY(add_column(up, b, "up_bias", "linear_fc1.bias", p->ffn_hidden_size, "biased_up"));
    return MMLP_OK;
}

static mmlp_status build_fc1(builder *b, const plan *p)
{
    const module_spec *spec = p->spec;
    bool gated = spec->config.gated_linear_unit;
    branch taken = branch_of(spec);
    int gate, up = -1, value;
    MMLP_TRY(add_input(&gate, b, (plan_input){"gate", NULL, PLAN_INPUT_ACCUMULATOR, 0}));
    if (gated)
        MMLP_TRY(add_input(&up, b, (plan_input){"up", NULL, PLAN_INPUT_ACCUMULATOR, 0}));

    if (taken.clamp_before_bias)
        MMLP_TRY(clamp_halves(b, &spec->config, &gate, &up));
    MMLP_TRY(add_fc1_bias(b, p, &gate, &up));
    if (taken.clamp && !taken.clamp_before_bias)
        MMLP_TRY(clamp_halves(b, &spec->config, &gate, &up));

    MMLP_TRY(expr_inline(&value, &b->graph, &spec->formula, spec->formula_result, &gate));
    name_node(b, value, b->epilogue->activation_variable);
    if (taken.offset) {
        int offset;
        MMLP_TRY(program_constant(&offset, &b->graph, spec->config.glu_linear_offset));
        MMLP_TRY(apply(&up, b, PROGRAM_add, up, offset, "offset_up"));
    }
    if (gated)
        MMLP_TRY(apply(&value, b, PROGRAM_mul, value, up, "gated"));
    if (spec->mlp.per_token_scale) {
        int scale;
        MMLP_TRY(add_input(&scale, b, (plan_input){"scale", "per_token_scale", PLAN_INPUT_ROW, 0}));
        MMLP_TRY(apply(&value, b, PROGRAM_mul, value, scale, "scaled"));
    }
    return finish(b, value);
}

mmlp_status plan_fc1_epilogue(plan_epilogue *out, const plan *p)
{
    *out = (plan_epilogue){0};
    const char *name = p->spec->activation_name;
    if (strncmp(name, "F.", 2) == 0)
        name += 2;
    if (asprintf(&out->activation_variable, "gate_%s", name) < 0) {
        out->activation_variable = NULL;
        return mmlp_fail_memory(strlen(name), "the name of a variable");
    }
    builder b = {.epilogue = out};
    mmlp_status status = build_fc1(&b, p);
    program_free(&b.graph);
    return status;
}

/* ---- fc2: output ----------------------------------------------------------------------------- */

static mmlp_status build_fc2(builder *b, const plan *p, bool with_bias)
{
    int value, bias, scale;
    MMLP_TRY(add_input(&value, b, (plan_input){"accumulator", NULL, PLAN_INPUT_ACCUMULATOR, 0}));
    if (with_bias && p->fc2_bias != PLAN_FC2_BIAS_NONE && p->fc2_bias != PLAN_FC2_BIAS_RETURNED) {
        MMLP_TRY(
            add_input(&bias, b, (plan_input){"bias", "linear_fc2.bias", PLAN_INPUT_COLUMN, 0}));
        if (p->fc2_bias == PLAN_FC2_BIAS_FOLDED) {
            MMLP_TRY(
                add_input(&scale, b, (plan_input){"scale", "per_token_scale", PLAN_INPUT_ROW, 0}));
            MMLP_TRY(program_add(&bias, &b->graph, PROGRAM_mul, bias, scale, -1));
        }
        MMLP_TRY(apply(&value, b, PROGRAM_add, value, bias, "biased"));
    }
    return finish(b, value);
}

mmlp_status plan_fc2_epilogue(plan_epilogue *out, const plan *p, bool with_bias)
{
    *out = (plan_epilogue){0};
    builder b = {.epilogue = out};
    mmlp_status status = build_fc2(&b, p, with_bias);
    program_free(&b.graph);
    return status;
}

void plan_epilogue_free(plan_epilogue *epilogue)
{
    program_free(&epilogue->graph);
    free(epilogue->activation_variable);
    *epilogue = (plan_epilogue){0};
}
