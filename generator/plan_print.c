/* plan_print.c: the plan as text for a person, aligned, and compared as golden text by the tests.
 */
#include <math.h>
#include <string.h>

#include "plan.h"

/* 1234567 FLOP: "1.235 MFLOP". */
static void print_scaled(text *out, double value, const char *unit)
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

static mmlp_status print_expression(text *out, const plan_epilogue *e, const char *result)
{
    text statements = TEXT_INIT, value = TEXT_INIT;
    mmlp_status status =
        expr_print(&statements, &value, &e->graph, &e->result, 1, e->names, e->name_count);
    if (status == MMLP_OK) {
        static const char noise[] = "const float ";
        for (const char *line = text_string(&statements); *line;) {
            size_t length = strcspn(line, "\n");
            size_t skip = strncmp(line, noise, strlen(noise)) == 0 ? strlen(noise) : 0;
            text_printf(out, "                 %.*s\n", (int)(length - skip - 1), line + skip);
            line += length + (line[length] == '\n');
        }
        text_printf(out, "                 %s = %s\n", result, text_string(&value));
    }
    text_free(&statements);
    text_free(&value);
    return status;
}

static const char *input_kind(plan_input_kind kind)
{
    static const char *const names[] = {"accumulator", "per column", "per row"};
    return names[kind];
}

static mmlp_status print_epilogue(text *out, const plan_step *step)
{
    const plan_epilogue *e = &step->epilogue;
    text_puts(out, "    epilogue    ");
    for (int i = 0; i < e->input_count; i++) {
        const plan_input *input = &e->inputs[i];
        text_printf(out, "%s%s (%s", i ? ", " : " ", input->name, input_kind(input->kind));
        if (input->tensor)
            text_printf(out, ", %s", input->tensor);
        if (input->column_offset)
            text_printf(out, " + %lld", (long long)input->column_offset);
        text_puts(out, ")");
    }
    text_puts(out, "\n");
    return print_expression(out, e, step->output);
}

static void print_tiles(text *out, const plan_step *step)
{
    for (int i = 0; i < step->candidate_count; i++) {
        const plan_candidate *c = &step->candidates[i];
        const plan_tile *t = &c->tile;
        text_printf(
            out,
            "    %-12s %dx%dx%d, %d stages, warps %dx%d, %lld B shared: %lld tiles, %d on an SM, "
            "%lld wave%s, %.1f kclocks%s\n",
            i ? "" : "tiles", t->tile_m, t->tile_n, t->tile_k, t->stages, t->warps_m, t->warps_n,
            (long long)c->shared_bytes, (long long)c->tiles, c->resident, (long long)c->waves,
            c->waves == 1 ? "" : "s", c->kiloclocks, i == step->chosen ? "  <- least" : "");
    }
}

static mmlp_status print_gemm(text *out, const plan *p, const plan_step *step)
{
    double flops = step->flops_per_token * PLAN_NOMINAL_TOKENS;
    double bytes = step->weight_bytes + step->bytes_per_token * PLAN_NOMINAL_TOKENS;
    text_printf(out, "\n  %s  gemm, kernel %s_%s_forward\n", step->name, p->spec->name, step->name);
    text_printf(out, "    operands     %s [tokens, %lld] x %s [%lld, %lld] transposed\n",
                step->input, (long long)step->k, step->weight, (long long)step->n,
                (long long)step->k);
    if (step->halves == 2)
        text_printf(out, "    halves       gate is rows 0 to %lld of the weight, up the rest\n",
                    (long long)step->columns - 1);
    MMLP_TRY(print_epilogue(out, step));
    text_printf(out, "    stores       %s [tokens, %lld]", step->output, (long long)step->columns);
    if (step->raw_store)
        text_printf(out, "; %s [tokens, %lld], the accumulators, unless it is null",
                    step->raw_store, (long long)step->n);
    text_puts(out, "\n");
    print_tiles(out, step);
    text_puts(out, "    work         ");
    print_scaled(out, flops, "FLOP");
    text_puts(out, ", at least ");
    print_scaled(out, bytes, "B");
    text_printf(out, " moved, %.0f FLOP/B\n", flops / bytes);
    return MMLP_OK;
}

static void print_collective(text *out, const plan *p, const plan_step *step)
{
    text_printf(out, "\n  %s  collective over %lld tensor-parallel ranks\n", step->name,
                (long long)p->ranks);
    text_printf(out, "    tensor       %s [tokens, %lld]%s\n", step->input,
                (long long)step->columns,
                p->spec->config.sequence_parallel ? ", split along the tokens outside" : "");
}

static mmlp_status print_elementwise(text *out, const plan_step *step)
{
    text_printf(out, "\n  %s  elementwise, after the reduction\n", step->name);
    return print_epilogue(out, step);
}

static mmlp_status print_steps(text *out, const plan *p)
{
    text_printf(out, "\nforward (numbers for %d tokens)\n", PLAN_NOMINAL_TOKENS);
    for (int i = 0; i < p->step_count; i++) {
        const plan_step *step = &p->steps[i];
        if (step->kind == PLAN_GEMM)
            MMLP_TRY(print_gemm(out, p, step));
        else if (step->kind == PLAN_COLLECTIVE)
            print_collective(out, p, step);
        else
            MMLP_TRY(print_elementwise(out, step));
    }
    return MMLP_OK;
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void print_buffers(text *out, const plan *p)
{
    text_puts(out, "\nbuffers\n");
    for (int i = 0; i < p->buffer_count; i++) {
        const plan_buffer *b = &p->buffers[i];
        text_printf(out, "  %-18s %-8s %s [tokens, %lld], written by %s, read by %s\n", b->name,
                    plan_lifetime_name(b->lifetime), spec_dtype_name(b->dtype),
                    (long long)b->columns, b->written_by, b->read_by);
    }
}

static void print_kernels(text *out, const plan *p)
{
    text_puts(out, "\nkernels that can ever be needed\n");
    for (int i = 0; i < p->step_count; i++)
        if (p->steps[i].kind == PLAN_GEMM)
            text_printf(out, "  %s_%s_forward\n", p->spec->name, p->steps[i].name);
    text_printf(out, "  %s_fill_normal\n", p->spec->name);
}

static void print_guarantees(text *out, const plan *p)
{
    const char *storage = spec_dtype_name(p->spec->config.params_dtype);
    text_printf(
        out,
        "\nguarantees\n"
        "  deterministic: every sum has one fixed order; runs are bitwise repeatable\n"
        "  rounding: products accumulate in fp32; fc1_output, activation_output and output\n"
        "  are each rounded once, at the store, to %s; the activation reads the fp32\n"
        "  accumulator%s\n",
        storage,
        p->ranks > 1 ? "; partial outputs are rounded before the reduction over ranks" : "");
}

mmlp_status plan_print(text *out, const plan *p)
{
    print_config(out, p);
    print_initialisation(out, p);
    MMLP_TRY(print_steps(out, p));
    print_buffers(out, p);
    print_kernels(out, p);
    print_guarantees(out, p);
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
