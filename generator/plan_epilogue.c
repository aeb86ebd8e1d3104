/*
 * plan_epilogue.c: what every combination of the config computes between the accumulators of a GEMM
 * and the stores, as an expression. The order of bias, clamp, activation, offset and scale is
 * Megatron's (megatron/core/transformer/mlp.py, MLP.forward, and megatron/core/fusions); backward
 * is the gradient of the same expression.
 */
#include <assert.h>
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
    assert(b->epilogue->input_count < PLAN_INPUTS_MAX);
    b->epilogue->inputs[b->epilogue->input_count++] = input;
    return program_input(out, &b->graph, input.name);
}

static mmlp_status add_accumulator(int *out, builder *b, const char *name)
{
    return add_input(out, b, (plan_input){.name = name, .kind = PLAN_INPUT_ACCUMULATOR});
}

static mmlp_status add_scale(int *out, builder *b)
{
    return add_input(
        out, b, (plan_input){.name = "scale", .tensor = "per_token_scale", .kind = PLAN_INPUT_ROW});
}

static mmlp_status add_column(int *out, builder *b, const char *name, const char *tensor,
                              int64_t offset)
{
    return add_input(
        out, b,
        (plan_input){
            .name = name, .tensor = tensor, .kind = PLAN_INPUT_COLUMN, .column_offset = offset});
}

static void add_output(builder *b, int node, plan_output output)
{
    assert(b->epilogue->output_count < PLAN_OUTPUTS_MAX);
    b->epilogue->results[b->epilogue->output_count] = node;
    b->epilogue->outputs[b->epilogue->output_count++] = output;
}

static void name_node(builder *b, int node, const char *name)
{
    assert(b->epilogue->name_count < PLAN_NAMES_MAX);
    b->epilogue->names[b->epilogue->name_count++] = (expr_name){node, name};
}

/* The same with a name that is made here: prefix and name. */
static mmlp_status name_node_made(builder *b, int node, const char *prefix, const char *name)
{
    char *made;
    if (asprintf(&made, "%s%s", prefix, name) < 0)
        return mmlp_fail_memory(strlen(prefix) + strlen(name) + 1, "the name of a variable");
    b->epilogue->owned_names[b->epilogue->name_count] = made;
    name_node(b, node, made);
    return MMLP_OK;
}

static mmlp_status apply(int *out, builder *b, program_op op, int left, int right, const char *name)
{
    MMLP_TRY(program_add(out, &b->graph, op, left, right, -1));
    name_node(b, *out, name);
    return MMLP_OK;
}

/* Simplifies the graph into the epilogue and renumbers the names. */
static mmlp_status finish(builder *b)
{
    mmlp_status status = MMLP_OK;
    plan_epilogue *e = b->epilogue;
    int *places = malloc(((size_t)b->graph.count + 1) * sizeof *places);
    if (!places)
        return mmlp_fail_memory((size_t)b->graph.count * sizeof *places, "an epilogue");
    MMLP_TRY_CLEANUP(expr_simplify(&e->graph, &b->graph, e->results, e->output_count, places));
    for (int i = 0; i < e->name_count; i++)
        e->names[i].node = places[e->names[i].node];

cleanup:
    free(places);
    return status;
}

static mmlp_status build(plan_epilogue *out, const plan *p,
                         mmlp_status (*fill)(builder *b, const plan *p))
{
    *out = (plan_epilogue){0};
    builder b = {.epilogue = out};
    mmlp_status status = fill(&b, p);
    if (status == MMLP_OK)
        status = finish(&b);
    program_free(&b.graph);
    return status;
}

static plan_output store(const plan *p, const char *name, const char *tensor, int64_t stride,
                         int64_t column_offset)
{
    return (plan_output){.kind = PLAN_STORE,
                         .name = name,
                         .tensor = tensor,
                         .stride = stride,
                         .column_offset = column_offset,
                         .dtype = p->spec->config.params_dtype};
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

/* The nodes of the activation's expression; -1 for what this MLP does not have. */
typedef struct activation_nodes {
    int gate, up, gate_bias, up_bias, scale;
    int value;
} activation_nodes;

static mmlp_status add_bias(int *value, int *bias, builder *b, const char *input, int64_t offset,
                            const char *name)
{
    MMLP_TRY(add_column(bias, b, input, "linear_fc1.bias", offset));
    return apply(value, b, PROGRAM_add, *value, *bias, name);
}

static mmlp_status add_fc1_bias(activation_nodes *nodes, builder *b, const plan *p, int *gate,
                                int *up)
{
    const spec_config *config = &p->spec->config;
    if (!config->add_bias_linear)
        return MMLP_OK;
    MMLP_TRY(add_bias(gate, &nodes->gate_bias, b, "gate_bias", 0, "biased_gate"));
    if (config->gated_linear_unit)
        MMLP_TRY(add_bias(up, &nodes->up_bias, b, "up_bias", p->ffn_hidden_size, "biased_up"));
    return MMLP_OK;
}

/* The formula of the activation on `gate`, or on both halves where it is a function of both. */
static mmlp_status add_activation(int *value, builder *b, const module_spec *spec, int gate, int up)
{
    MMLP_TRY(formula_inline(value, &b->graph, &spec->formula, spec->formula_result, gate, up));
    const char *name = spec->activation_name;
    if (strncmp(name, "F.", 2) == 0)
        name += 2;
    MMLP_TRY(name_node_made(b, *value, "act_", name));
    if (!spec->config.gated_linear_unit || spec->activation_takes_up)
        return MMLP_OK;
    return apply(value, b, PROGRAM_mul, *value, up, "gated");
}

/* activation_output from nodes->gate and nodes->up, the two halves of fc1_output. */
static mmlp_status build_activation(activation_nodes *nodes, builder *b, const plan *p)
{
    const module_spec *spec = p->spec;
    branch taken = branch_of(spec);
    int gate = nodes->gate, up = nodes->up;
    if (taken.clamp_before_bias)
        MMLP_TRY(clamp_halves(b, &spec->config, &gate, &up));
    MMLP_TRY(add_fc1_bias(nodes, b, p, &gate, &up));
    if (taken.clamp && !taken.clamp_before_bias)
        MMLP_TRY(clamp_halves(b, &spec->config, &gate, &up));
    if (taken.offset) {
        int offset;
        MMLP_TRY(program_constant(&offset, &b->graph, spec->config.glu_linear_offset));
        MMLP_TRY(apply(&up, b, PROGRAM_add, up, offset, "offset_up"));
    }
    MMLP_TRY(add_activation(&nodes->value, b, spec, gate, up));
    if (spec->mlp.per_token_scale) {
        MMLP_TRY(add_scale(&nodes->scale, b));
        MMLP_TRY(apply(&nodes->value, b, PROGRAM_mul, nodes->value, nodes->scale, "scaled"));
    }
    return MMLP_OK;
}

static const activation_nodes no_nodes = {-1, -1, -1, -1, -1, -1};

static mmlp_status fill_fc1(builder *b, const plan *p)
{
    activation_nodes nodes = no_nodes;
    plan_output raw = store(p, "raw_gate", "fc1_output", p->fc1_output_size, 0);
    raw.optional = true;
    MMLP_TRY(add_accumulator(&nodes.gate, b, "gate"));
    add_output(b, nodes.gate, raw);
    if (p->spec->config.gated_linear_unit) {
        MMLP_TRY(add_accumulator(&nodes.up, b, "up"));
        raw.name = "raw_up";
        raw.column_offset = p->ffn_hidden_size;
        add_output(b, nodes.up, raw);
    }
    MMLP_TRY(build_activation(&nodes, b, p));
    add_output(b, nodes.value, store(p, "activation", "activation_output", p->ffn_hidden_size, 0));
    return MMLP_OK;
}

mmlp_status plan_fc1_epilogue(plan_epilogue *out, const plan *p)
{
    return build(out, p, fill_fc1);
}

/* ---- fc2 dgrad: the gradient of the activation ----------------------------------------------- */

/* An input that stands for half of the stored fc1_output. */
static mmlp_status add_stored_half(int *out, builder *b, const plan *p, const char *name,
                                   int64_t offset)
{
    return add_input(out, b,
                     (plan_input){.name = name,
                                  .tensor = "fc1_output",
                                  .kind = PLAN_INPUT_ELEMENT,
                                  .column_offset = offset,
                                  .stride = p->fc1_output_size,
                                  .dtype = p->spec->config.params_dtype});
}

/* The names of forward's variables, with d_ before them, for their gradients. */
static mmlp_status name_gradients(builder *b, const int *adjoints, int value)
{
    int forward_names = b->epilogue->name_count;
    for (int i = 0; i < forward_names; i++) {
        expr_name name = b->epilogue->names[i];
        if (name.node < value && adjoints[name.node] >= 0)
            MMLP_TRY(name_node_made(b, adjoints[name.node], "d_", name.name));
    }
    return MMLP_OK;
}

/* Recomputes the activation from the stored fc1_output and differentiates it: the inputs that there
 * are, and the new node of each one's gradient in *gradients. */
static mmlp_status build_gradient(activation_nodes *nodes, activation_nodes *gradients, builder *b,
                                  const plan *p)
{
    mmlp_status status = MMLP_OK;
    int seed, wanted[5], count = 0;
    int *adjoints = NULL;
    *nodes = *gradients = no_nodes;
    MMLP_TRY(add_accumulator(&seed, b, "d_activation"));
    MMLP_TRY(add_stored_half(&nodes->gate, b, p, "gate", 0));
    if (p->spec->config.gated_linear_unit)
        MMLP_TRY(add_stored_half(&nodes->up, b, p, "up", p->ffn_hidden_size));
    MMLP_TRY(build_activation(nodes, b, p));

    const int inputs[5] = {nodes->gate, nodes->up, nodes->gate_bias, nodes->up_bias, nodes->scale};
    for (int i = 0; i < 5; i++)
        if (inputs[i] >= 0)
            wanted[count++] = inputs[i];
    adjoints = malloc((size_t)b->graph.count * sizeof *adjoints);
    if (!adjoints)
        return mmlp_fail_memory((size_t)b->graph.count * sizeof *adjoints, "a gradient");
    MMLP_TRY_CLEANUP(expr_differentiate(adjoints, &b->graph, nodes->value, seed, wanted, count));
    int *const places[5] = {&gradients->gate, &gradients->up, &gradients->gate_bias,
                            &gradients->up_bias, &gradients->scale};
    for (int i = 0; i < 5; i++)
        if (inputs[i] >= 0)
            *places[i] = adjoints[inputs[i]];
    MMLP_TRY_CLEANUP(name_gradients(b, adjoints, nodes->value));

cleanup:
    free(adjoints);
    return status;
}

static mmlp_status fill_fc2_dgrad(builder *b, const plan *p)
{
    activation_nodes nodes, gradients;
    int64_t width = p->fc1_output_size, ffn = p->ffn_hidden_size;
    MMLP_TRY(build_gradient(&nodes, &gradients, b, p));
    if (!p->spec->config.save_activation)
        add_output(b, nodes.value, store(p, "activation", "recomputed_activation", ffn, 0));
    add_output(b, gradients.gate, store(p, "grad_gate", "grad_fc1_output", width, 0));
    if (gradients.up >= 0)
        add_output(b, gradients.up, store(p, "grad_up", "grad_fc1_output", width, ffn));
    plan_output sums = {
        .kind = PLAN_COLUMN_SUMS, .name = "gate_bias", .tensor = "fc1_bias_sums", .stride = width};
    if (gradients.gate_bias >= 0)
        add_output(b, gradients.gate_bias, sums);
    sums.name = "up_bias";
    sums.column_offset = ffn;
    if (gradients.up_bias >= 0)
        add_output(b, gradients.up_bias, sums);
    if (gradients.scale >= 0)
        add_output(b, gradients.scale,
                   (plan_output){.kind = PLAN_ROW_SUMS,
                                 .name = "scale",
                                 .tensor = "scale_sums",
                                 .stride = (ffn + PLAN_SUMMED_COLUMNS - 1) / PLAN_SUMMED_COLUMNS});
    return MMLP_OK;
}

mmlp_status plan_fc2_dgrad_epilogue(plan_epilogue *out, const plan *p)
{
    return build(out, p, fill_fc2_dgrad);
}

static mmlp_status fill_backward_reference(builder *b, const plan *p)
{
    activation_nodes nodes, gradients;
    MMLP_TRY(build_gradient(&nodes, &gradients, b, p));
    const int results[] = {nodes.value,         gradients.gate,    gradients.up,
                           gradients.gate_bias, gradients.up_bias, gradients.scale};
    for (size_t i = 0; i < sizeof results / sizeof *results; i++)
        if (results[i] >= 0)
            add_output(b, results[i], (plan_output){.kind = PLAN_STORE});
    return MMLP_OK;
}

mmlp_status plan_backward_reference(plan_epilogue *out, const plan *p)
{
    return build(out, p, fill_backward_reference);
}

/* ---- the other GEMMs ------------------------------------------------------------------------- */

static mmlp_status fill_fc2(builder *b, const plan *p, bool with_bias)
{
    int value, bias, scale;
    MMLP_TRY(add_accumulator(&value, b, "accumulator"));
    if (with_bias && p->fc2_bias != PLAN_FC2_BIAS_NONE && p->fc2_bias != PLAN_FC2_BIAS_RETURNED) {
        MMLP_TRY(add_column(&bias, b, "bias", "linear_fc2.bias", 0));
        if (p->fc2_bias == PLAN_FC2_BIAS_FOLDED) {
            MMLP_TRY(add_scale(&scale, b));
            MMLP_TRY(program_add(&bias, &b->graph, PROGRAM_mul, bias, scale, -1));
        }
        MMLP_TRY(apply(&value, b, PROGRAM_add, value, bias, "biased"));
    }
    add_output(b, value, store(p, "output", "output", p->hidden_size, 0));
    return MMLP_OK;
}

static mmlp_status fill_fc2_with_bias(builder *b, const plan *p)
{
    return fill_fc2(b, p, true);
}

static mmlp_status fill_fc2_without_bias(builder *b, const plan *p)
{
    return fill_fc2(b, p, false);
}

mmlp_status plan_fc2_epilogue(plan_epilogue *out, const plan *p, bool with_bias)
{
    return build(out, p, with_bias ? fill_fc2_with_bias : fill_fc2_without_bias);
}

mmlp_status plan_store_epilogue(plan_epilogue *out, const plan *p, const char *tensor,
                                spec_dtype dtype, int64_t columns, bool accumulate)
{
    bool adds_in_memory = p->family->has_tensor_maps && dtype == SPEC_DTYPE_fp32 &&
                          p->spec->config.params_dtype != SPEC_DTYPE_fp32;
    *out = (plan_epilogue){0};
    builder b = {.epilogue = out};
    mmlp_status status = MMLP_OK;
    int value, before;
    MMLP_TRY_CLEANUP(add_accumulator(&value, &b, "accumulator"));
    if (accumulate && !adds_in_memory) {
        MMLP_TRY_CLEANUP(add_input(&before, &b,
                                   (plan_input){.name = "before",
                                                .tensor = tensor,
                                                .kind = PLAN_INPUT_ELEMENT,
                                                .stride = columns,
                                                .dtype = dtype,
                                                .where_beta_is_1 = true}));
        MMLP_TRY_CLEANUP(program_add(&value, &b.graph, PROGRAM_add, before, value, -1));
    }
    add_output(&b, value,
               (plan_output){.kind = PLAN_STORE,
                             .name = "gradient",
                             .tensor = tensor,
                             .stride = columns,
                             .dtype = dtype,
                             .adds_where_beta_is_1 = accumulate && adds_in_memory});
    MMLP_TRY_CLEANUP(finish(&b));

cleanup:
    program_free(&b.graph);
    return status;
}

static bool is_accumulator(const plan_epilogue *e, int node)
{
    if (e->graph.nodes[node].op != PROGRAM_input)
        return false;
    const char *name = e->graph.inputs[e->graph.nodes[node].input];
    for (int i = 0; i < e->input_count; i++)
        if (e->inputs[i].kind == PLAN_INPUT_ACCUMULATOR && strcmp(e->inputs[i].name, name) == 0)
            return true;
    return false;
}

plan_place plan_store_place(const plan_epilogue *e, int output)
{
    int inputs = 0, computed = 0;
    for (int i = 0; i < e->input_count; i++)
        inputs += e->inputs[i].kind == PLAN_INPUT_ELEMENT;
    for (int i = 0; i <= output; i++) {
        bool copied = is_accumulator(e, e->results[i]);
        if (i == output && copied)
            return PLAN_PLACE_COPIED;
        computed += e->outputs[i].kind == PLAN_STORE && !copied;
    }
    return computed <= inputs ? PLAN_PLACE_INPUT : PLAN_PLACE_STAGED;
}

void plan_epilogue_free(plan_epilogue *epilogue)
{
    program_free(&epilogue->graph);
    for (int i = 0; i < epilogue->name_count; i++)
        free(epilogue->owned_names[i]);
    *epilogue = (plan_epilogue){0};
}
