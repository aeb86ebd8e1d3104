/* plan_print.c: the plan as text for a person, aligned, and compared as golden text by the tests.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "emit.h"

void plan_print_scaled(text *out, double value, const char *unit)
{
    static const char prefixes[] = " kMGTP";
    int prefix = 0;
    while (value >= 1000 && prefix < 5) {
        value /= 1000;
        prefix++;
    }
    text_printf(out, "%.4g %.*s%s", value, prefix ? 1 : 0, &prefixes[prefix], unit);
}

static void print_config(text *out, const plan *p)
{
    const module_spec *spec = p->spec;
    const spec_config *config = &spec->config;
    text_printf(out, "%s: %s, %s, %s\n\n", spec->name, spec->mlp.is_expert ? "expert MLP" : "MLP",
                config->gated_linear_unit ? "gated" : "not gated",
                spec_dtype_name(config->params_dtype));
    text_printf(out, "  hidden_size        %lld\n", (long long)p->hidden_size);
    text_printf(out, "  ffn_hidden_size    %lld", (long long)p->ffn_hidden_size);
    if (p->ranks > 1)
        text_printf(out, " of %lld on each of %lld ranks",
                    (long long)(p->ffn_hidden_size * p->ranks), (long long)p->ranks);
    text_printf(out, "\n  activation         %s", spec->activation_name);
    if (spec->activation == SPEC_ACTIVATION_gelu)
        text_puts(out, config->bias_activation_fusion || config->use_te_activation_func
                           ? ", the tanh form"
                           : ", the erf form");
    text_printf(out, "\n  fc1 bias           %s\n", config->add_bias_linear ? "added" : "none");
    text_printf(out, "  fc2 bias           %s\n", plan_fc2_bias_name(p->fc2_bias));
    text_printf(out, "  per-token scale    %s\n", spec->mlp.per_token_scale ? "yes" : "no");
    text_printf(out, "  kernels            %s family, for %s\n", p->family->name, p->arch);
}

static void print_init(text *out, const char *name, const spec_init *init, double std,
                       const char *formula)
{
    text_printf(out, "  %-18s ", name);
    switch (init->kind) {
    case SPEC_INIT_OF_CONFIG:
        text_printf(out, "normal(%.6g)%s\n", std, formula);
        break;
    case SPEC_INIT_NORMAL:
        text_printf(out, "normal(%.6g)\n", init->a);
        break;
    case SPEC_INIT_ZEROS:
        text_puts(out, "zeros\n");
        break;
    case SPEC_INIT_UNIFORM:
        text_printf(out, "uniform(%.6g, %.6g)\n", init->a, init->b);
        break;
    }
}

static void print_initialisation(text *out, const plan *p)
{
    const spec_config *config = &p->spec->config;
    bool scaled = config->num_layers > 0;
    double divisor = scaled ? sqrt(2.0 * (double)config->num_layers) : 1;
    text_puts(out, "\ninitial weights\n");
    print_init(out, "linear_fc1", &p->spec->linear_fc1.init_method, config->init_method_std, "");
    print_init(out, "linear_fc2", &p->spec->linear_fc2.init_method,
               config->init_method_std / divisor,
               scaled ? ", init_method_std / sqrt(2 * num_layers)" : ", num_layers is not given");
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* "tokens", or the number. */
static void print_size(text *out, int64_t size)
{
    if (size)
        text_printf(out, "%lld", (long long)size);
    else
        text_puts(out, "tokens");
}

static void print_matrix(text *out, const char *name, int64_t rows, int64_t columns)
{
    text_printf(out, "%s [", name);
    print_size(out, rows);
    text_puts(out, ", ");
    print_size(out, columns);
    text_puts(out, "]");
}

/* The name of what a result goes to: "grad_fc1_output[., 14336 ..]". */
static void print_place(text *out, const plan_output *output)
{
    text_puts(out, output->tensor);
    if (output->column_offset)
        text_printf(out, "[., %lld ..]", (long long)output->column_offset);
}

static mmlp_status print_expression(text *out, const plan_epilogue *e)
{
    text statements = TEXT_INIT, values[PLAN_OUTPUTS_MAX] = {TEXT_INIT};
    mmlp_status status = expr_print(&statements, values, &e->graph, e->results, e->output_count,
                                    e->names, e->name_count);
    if (status == MMLP_OK) {
        static const char noise[] = "const float ";
        for (const char *line = text_string(&statements); *line;) {
            size_t length = strcspn(line, "\n");
            size_t skip = strncmp(line, noise, strlen(noise)) == 0 ? strlen(noise) : 0;
            text_printf(out, "                 %.*s\n", (int)(length - skip - 1), line + skip);
            line += length + (line[length] == '\n');
        }
        for (int i = 0; i < e->output_count; i++) {
            static const char *const verbs[] = {"", "sums of columns of ", "sums of rows of "};
            text_puts(out, "                 ");
            print_place(out, &e->outputs[i]);
            text_printf(out, " = %s%s%s\n", verbs[e->outputs[i].kind], text_string(&values[i]),
                        e->outputs[i].kind == PLAN_COLUMN_SUMS ? ", as stored"
                        : e->outputs[i].adds_where_beta_is_1   ? ", added in memory where beta is 1"
                                                               : "");
        }
    }
    text_free(&statements);
    for (int i = 0; i < e->output_count; i++)
        text_free(&values[i]);
    return status;
}

static mmlp_status print_epilogue(text *out, const plan_step *step)
{
    static const char *const kinds[] = {"accumulator", "per column", "per row", "per element"};
    const plan_epilogue *e = &step->epilogue;
    text_puts(out, "    epilogue    ");
    for (int i = 0; i < e->input_count; i++) {
        const plan_input *input = &e->inputs[i];
        text_printf(out, "%s%s (%s", i ? ", " : " ", input->name, kinds[input->kind]);
        if (input->tensor)
            text_printf(out, ", %s", input->tensor);
        if (input->column_offset)
            text_printf(out, " + %lld", (long long)input->column_offset);
        text_printf(out, "%s)", input->where_beta_is_1 ? ", 0 where beta is 0" : "");
    }
    text_puts(out, "\n");
    return print_expression(out, e);
}

/* "128x256x64 x 2": tiles of a cluster. */
static void print_tile(text *out, const plan_tile *t)
{
    char name[48], cluster[16] = "";
    if (t->cluster > 1)
        snprintf(cluster, sizeof cluster, " x %d", t->cluster);
    snprintf(name, sizeof name, "%dx%dx%d%s", t->tile_m, t->tile_n, t->tile_k, cluster);
    text_printf(out, "%-14s", name);
}

static const char *mark_of(const plan_step *step, int candidate)
{
    if (candidate == step->variants[step->variant_count - 1].candidate)
        return "  <- least";
    return candidate == step->variants[0].candidate ? "  <- few tokens" : "";
}

static void print_blocks(text *out, const plan_step *step)
{
    for (int i = 0; i < step->candidate_count; i++) {
        const plan_candidate *c = &step->candidates[i];
        const plan_tile *t = &c->tile;
        const plan_estimate *e = &c->estimate;
        text_printf(
            out,
            "    %-12s %dx%dx%d, %d stages, warps %dx%d, %lld B shared: %lld tiles, %d on an SM, "
            "%lld wave%s, %.1f kclocks%s\n",
            i ? "" : "tiles", t->tile_m, t->tile_n, t->tile_k, t->stages, t->warps_m, t->warps_n,
            (long long)c->shared_bytes, (long long)e->tiles, e->resident, (long long)e->waves,
            e->waves == 1 ? "" : "s", e->kiloclocks, mark_of(step, i));
    }
}

/* The estimates at each step of the ladder, and what follows from them. */
static void print_ladder(text *out, const plan *p, const plan_step *step)
{
    text_printf(out, "    %-12s %-14s", "kclocks at", "tokens");
    for (int64_t tokens = PLAN_LADDER_FIRST; tokens <= PLAN_LADDER_LAST; tokens *= 2)
        text_printf(out, " %8lld", (long long)tokens);
    text_puts(out, "\n");
    for (int i = 0; i < step->candidate_count; i++) {
        plan_candidate c = step->candidates[i];
        text_printf(out, "    %-12s ", "");
        print_tile(out, &c.tile);
        for (int64_t tokens = PLAN_LADDER_FIRST; tokens <= PLAN_LADDER_LAST; tokens *= 2) {
            plan_estimate_launch(&c, step, p->family, tokens);
            text_printf(out, " %8.1f", c.estimate.kiloclocks);
        }
        text_puts(out, "\n");
    }
    if (step->variant_count == 1) {
        text_puts(out, "    one kernel   no other tile is worth a kernel for few tokens\n");
        return;
    }
    text_printf(out,
                "    two kernels  to %lld tokens the one for few, %.2f times as fast there; then "
                "the least at %d\n",
                (long long)step->variants[0].most_tokens, step->few_gain, PLAN_NOMINAL_TOKENS);
}

static void print_waves(text *out, const plan *p, const plan_step *step)
{
    text_printf(out, "    %-12s %-14s %6s %6s %9s %6s %6s %10s %9s  %s\n", "tiles", "", "stages",
                "group", "shared B", "tiles", "waves", "waves' B", "kclocks", "limit");
    for (int i = 0; i < step->candidate_count; i++) {
        const plan_candidate *c = &step->candidates[i];
        const plan_estimate *e = &c->estimate;
        text bytes = TEXT_INIT;
        plan_print_scaled(&bytes, e->wave_bytes, "");
        text_printf(out, "    %-12s ", "");
        print_tile(out, &c->tile);
        text_printf(out, " %6d %6d %9lld %6lld %6lld %10s %9.1f  %s%s\n", c->tile.stages,
                    c->group_m, (long long)c->shared_bytes, (long long)e->tiles,
                    (long long)e->waves, text_string(&bytes), e->kiloclocks, e->limit,
                    mark_of(step, i));
        text_free(&bytes);
    }
    if (!step->m)
        print_ladder(out, p, step);
}

static void print_tiles(text *out, const plan *p, const plan_step *step)
{
    if (step->candidates[0].estimate.limit)
        print_waves(out, p, step);
    else
        print_blocks(out, step);
}

static void print_work(text *out, const plan_step *step)
{
    double flops = step->flops_per_token * PLAN_NOMINAL_TOKENS;
    double bytes = step->bytes + step->bytes_per_token * PLAN_NOMINAL_TOKENS;
    text_puts(out, "    work         ");
    if (flops > 0) {
        plan_print_scaled(out, flops, "FLOP");
        text_puts(out, ", ");
    }
    plan_print_scaled(out, bytes, "B");
    text_puts(out, " of memory touched");
    if (flops > 0)
        text_printf(out, ", %.0f FLOP/B", flops / bytes);
    text_puts(out, "\n");
}

static mmlp_status print_gemm(text *out, const plan *p, const plan_step *step)
{
    text_puts(out, "    operands     ");
    if (step->a.k_major) {
        print_matrix(out, step->a.tensor, step->m, step->k);
    } else {
        print_matrix(out, step->a.tensor, step->k, step->m);
        text_puts(out, " transposed");
    }
    text_puts(out, " x ");
    if (step->b.k_major) {
        print_matrix(out, step->b.tensor, step->n, step->k);
        text_puts(out, " transposed");
    } else {
        print_matrix(out, step->b.tensor, step->k, step->n);
    }
    text_puts(out, "\n");
    if (step->halves == 2)
        text_printf(out, "    halves       gate is rows 0 to %lld of the weight, up the rest\n",
                    (long long)step->columns - 1);
    MMLP_TRY(print_epilogue(out, step));
    for (int i = 0; i < step->epilogue.output_count; i++)
        if (step->epilogue.outputs[i].optional && step->epilogue.outputs[i].column_offset == 0)
            text_printf(out, "    optional     %s, not stored where it is null\n",
                        step->epilogue.outputs[i].tensor);
    print_tiles(out, p, step);
    return MMLP_OK;
}

/* The kernels that only add. */
static void print_sums(text *out, const plan_step *step)
{
    text_printf(out, "    sums         %s", step->input);
    if (step->second_input)
        text_printf(out, "%s%s", step->kind == PLAN_FINISH_ROWS ? " and " : " and, with ",
                    step->second_input);
    text_printf(out, " to %s%s\n", step->output,
                step->kind == PLAN_GRAD_OUTPUT_SUMS && step->second_input ? " and bias_scale_sums"
                                                                          : "");
    if (strcmp(step->when, "always") != 0)
        text_printf(out, "    when         %s is asked for\n", step->when);
}

static void print_heading(text *out, const plan *p, const plan_step *step)
{
    static const char *const kinds[] = {"gemm",         "first stage", "second stage",
                                        "second stage", "elementwise", "collective"};
    text_printf(out, "\n  %s  %s", step->name, kinds[step->kind]);
    if (step->kind == PLAN_COLLECTIVE) {
        text_printf(out, " over %lld tensor-parallel ranks", (long long)p->ranks);
    } else if (step->kind == PLAN_ADD_BIAS) {
        text_printf(out, ", after the reduction, kernel %s_", p->spec->name);
        emit_step_name(out, step);
    } else {
        text_printf(out, ", kernel %s_", p->spec->name);
        emit_step_name(out, step);
    }
    text_puts(out, "\n");
}

static mmlp_status print_step(text *out, const plan *p, const plan_step *step)
{
    print_heading(out, p, step);
    switch (step->kind) {
    case PLAN_GEMM:
        MMLP_TRY(print_gemm(out, p, step));
        break;
    case PLAN_GRAD_OUTPUT_SUMS:
    case PLAN_FINISH_COLUMNS:
    case PLAN_FINISH_ROWS:
        print_sums(out, step);
        break;
    case PLAN_ADD_BIAS:
        MMLP_TRY(print_epilogue(out, step));
        break;
    case PLAN_COLLECTIVE:
        plan_print_collective(out, p, step);
        return MMLP_OK;
    }
    print_work(out, step);
    return MMLP_OK;
}

static mmlp_status print_passes(text *out, const plan *p)
{
    for (plan_pass pass = PLAN_FORWARD; pass < PLAN_PASSES; pass++) {
        double flops = 0, bytes = 0;
        text_printf(out, "\n%s (numbers for %d tokens)\n", plan_pass_name(pass),
                    PLAN_NOMINAL_TOKENS);
        for (int i = 0; i < p->step_count; i++) {
            const plan_step *step = &p->steps[i];
            if (step->pass != pass)
                continue;
            MMLP_TRY(print_step(out, p, step));
            if (step->kind != PLAN_COLLECTIVE) {
                flops += step->flops_per_token * PLAN_NOMINAL_TOKENS;
                bytes += step->bytes + step->bytes_per_token * PLAN_NOMINAL_TOKENS;
            }
        }
        text_puts(out, "\n  in all  ");
        plan_print_scaled(out, flops, "FLOP");
        text_puts(out, ", ");
        plan_print_scaled(out, bytes, "B");
        text_puts(out, "\n");
    }
    return MMLP_OK;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void print_buffers(text *out, const plan *p)
{
    text_puts(out, "\nbuffers\n");
    for (int i = 0; i < p->buffer_count; i++) {
        const plan_buffer *b = &p->buffers[i];
        text_printf(out, "  %-22s %-8s %s [tokens", b->name, plan_lifetime_name(b->lifetime),
                    spec_dtype_name(b->dtype));
        if (b->tokens_per_row > 1)
            text_printf(out, " / %lld", (long long)b->tokens_per_row);
        text_printf(out, ", %lld], written by %s %s, read by %s\n", (long long)b->columns,
                    plan_pass_name(b->pass), b->written_by, b->read_by);
    }
}

/* Bytes for each token of the buffers with that lifetime. */
static int64_t kept_bytes(const plan *p, plan_lifetime lifetime)
{
    int64_t bytes = 0;
    for (int i = 0; i < p->buffer_count; i++)
        if (p->buffers[i].lifetime == lifetime)
            bytes += p->buffers[i].columns * spec_dtype_bytes(p->buffers[i].dtype);
    return bytes;
}

/* What waits between the passes, and what the other choice of save_activation would cost.
 * Megatron's fused path keeps fc1_output and the activation, and with delay_wgrad_compute the
 * gradient of fc1_output too (TransformerEngine's WeightGradStore). */
static void print_memory(text *out, const plan *p)
{
    const spec_config *config = &p->spec->config;
    int64_t element = spec_dtype_bytes(config->params_dtype);
    int64_t activation = p->ffn_hidden_size * element, output = p->fc1_output_size * element;
    int64_t saved = kept_bytes(p, PLAN_SAVED), pending = kept_bytes(p, PLAN_PENDING);
    text_puts(out, "\nmemory for each token between the passes, besides input and grad_output\n");
    text_printf(out, "  saved (forward to dgrad) %lld B, pending (dgrad to backward_dw) %lld B\n",
                (long long)saved, (long long)pending);
    text_printf(out, "  Megatron's fused path keeps %lld B\n",
                (long long)(output + activation + (config->delay_wgrad_compute ? output : 0)));
    if (p->sequence_parallel && config->delay_wgrad_compute)
        text_printf(out,
                    "  %lld B of the pending ones are the gathered input; with regather_input, an "
                    "option of loading,\n  backward_dw gathers it again, %lld B for each token, "
                    "into one buffer for all calls that wait\n",
                    (long long)(p->hidden_size * element), (long long)(p->hidden_size * element));
    if (config->save_activation)
        text_printf(out,
                    "  save_activation = false would save %lld B less and compute the "
                    "activation again in dgrad%s\n",
                    (long long)activation,
                    config->delay_wgrad_compute ? ", which then keeps it pending" : "");
    else
        text_printf(out,
                    "  save_activation = true would save %lld B more%s, and dgrad would not "
                    "store the activation\n",
                    (long long)activation,
                    config->delay_wgrad_compute ? " and keep as much less pending" : "");
}

static void print_kernels(text *out, const plan *p)
{
    text_puts(out, "\nkernels that can ever be needed\n");
    for (int i = 0; i < p->step_count; i++) {
        if (p->steps[i].kind == PLAN_COLLECTIVE)
            continue;
        text_printf(out, "  %s_", p->spec->name);
        emit_step_name(out, &p->steps[i]);
        text_puts(out, "\n");
    }
    text_printf(out, "  %s_fill\n", p->spec->name);
}

void plan_print_determinism(text *out, const plan *p)
{
    (void)p;
    text_puts(out, "every sum has one fixed order; runs are bitwise repeatable");
}

void plan_print_rounding(text *out, const plan *p)
{
    const char *storage = spec_dtype_name(p->spec->config.params_dtype);
    text_printf(out,
                "sums accumulate in fp32; each stored tensor is rounded once, at the store, to %s "
                "(weight gradients to %s); the activation reads the fp32 accumulator, its gradient "
                "the stored fc1_output; bias gradients sum the rounded gradient of fc1_output%s",
                storage, spec_dtype_name(plan_wgrad_dtype(p)),
                p->ranks > 1 ? "; partial outputs are rounded before the reduction over ranks"
                             : "");
}

mmlp_status plan_print(text *out, const plan *p)
{
    print_config(out, p);
    print_initialisation(out, p);
    MMLP_TRY(print_passes(out, p));
    print_buffers(out, p);
    print_memory(out, p);
    plan_print_reductions(out, p);
    print_kernels(out, p);
    text_puts(out, "\nguarantees\n  deterministic: ");
    plan_print_determinism(out, p);
    text_puts(out, "\n  rounding: ");
    plan_print_rounding(out, p);
    text_puts(out, "\n");
    const char *warnings = text_string(&p->spec->warnings);
    if (*warnings)
        text_puts(out, "\nwarnings\n");
    while (*warnings) {
        size_t length = strcspn(warnings, "\n");
        text_printf(out, "  %.*s\n", (int)length, warnings);
        warnings += length + (warnings[length] == '\n');
    }
    return out->failed ? mmlp_fail_memory(out->length, "the plan's text") : MMLP_OK;
}
