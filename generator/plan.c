/*
 * plan.c: a training step as steps: GEMMs with their epilogues, the two stages of sums, collectives
 * between tensor-parallel ranks, and the buffers that lie between them. The order within a pass is
 * the order of launches.
 */
#include "plan.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

const char *plan_fc2_bias_name(plan_fc2_bias bias)
{
    static const char *const names[] = {"none", "returned", "folded", "added"};
    return names[bias];
}

const char *plan_lifetime_name(plan_lifetime lifetime)
{
    static const char *const names[] = {"saved", "scratch", "pending"};
    return names[lifetime];
}

const char *plan_pass_name(plan_pass pass)
{
    static const char *const names[] = {"forward", "dgrad", "backward_dw"};
    return names[pass];
}

spec_dtype plan_wgrad_dtype(const plan *p)
{
    const spec_config *config = &p->spec->config;
    return config->gradient_accumulation_fusion ? SPEC_DTYPE_fp32 : config->params_dtype;
}

static plan_fc2_bias fc2_bias_of(const module_spec *spec)
{
    if (!spec->config.add_bias_linear)
        return PLAN_FC2_BIAS_NONE;
    if (!spec->linear_fc2.skip_bias_add)
        return PLAN_FC2_BIAS_ADDED;
    return spec->mlp.per_token_scale ? PLAN_FC2_BIAS_FOLDED : PLAN_FC2_BIAS_RETURNED;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

/* Distinct bytes of a matrix; rows or columns 0: the tokens. */
static void add_bytes(plan_step *step, int64_t rows, int64_t columns, int64_t element)
{
    if (rows && columns)
        step->bytes += (double)rows * (double)columns * (double)element;
    else
        step->bytes_per_token += (double)(rows + columns) * (double)element;
}

/* What an epilogue reads besides the accumulators, and writes. */
static void add_epilogue_bytes(plan_step *step, spec_dtype storage)
{
    const plan_epilogue *e = &step->epilogue;
    for (int i = 0; i < e->input_count; i++) {
        const plan_input *input = &e->inputs[i];
        if (input->kind == PLAN_INPUT_COLUMN)
            add_bytes(step, 1, step->columns, spec_dtype_bytes(storage));
        else if (input->kind == PLAN_INPUT_ROW)
            add_bytes(step, step->m, 1, 4);
        else if (input->kind == PLAN_INPUT_ELEMENT && !input->where_beta_is_1)
            add_bytes(step, step->m, step->columns, spec_dtype_bytes(input->dtype));
    }
    for (int i = 0; i < e->output_count; i++) {
        const plan_output *output = &e->outputs[i];
        if (output->kind == PLAN_STORE)
            add_bytes(step, step->m, step->columns, spec_dtype_bytes(output->dtype));
        else if (output->kind == PLAN_ROW_SUMS)
            add_bytes(step, step->m, plan_ceil_div(step->columns, PLAN_SUMMED_COLUMNS), 4);
        else
            step->bytes_per_token += (double)step->columns * 4 / PLAN_SUMMED_ROWS;
    }
}

/* ---- steps ----------------------------------------------------------------------------------- */

static plan_step *add_step(plan *p, plan_step_kind kind, plan_pass pass, const char *name)
{
    assert(p->step_count < PLAN_STEPS_MAX);
    plan_step *step = &p->steps[p->step_count++];
    *step = (plan_step){.kind = kind, .pass = pass, .name = name, .when = "always"};
    return step;
}

static void add_collective(plan *p, plan_pass pass, const char *name, const char *input,
                           const char *output)
{
    plan_step *step = add_step(p, PLAN_COLLECTIVE, pass, name);
    step->input = input;
    step->output = output;
    step->columns = p->hidden_size;
    add_bytes(step, 0, p->hidden_size, spec_dtype_bytes(p->spec->config.params_dtype));
}

/* What a rank has made from its part of the sums, [all tokens, hidden_size], to the tensor of the
 * caller. */
static void add_reduction(plan *p, plan_pass pass, const char *partial, const char *tensor)
{
    if (p->sequence_parallel)
        add_collective(p, pass, "reduce_scatter", partial, tensor);
    else if (p->communicates)
        add_collective(p, pass, "all_reduce", tensor, tensor);
}

/* The sizes of a GEMM, a [m, k] times b [n, k] transposed; 0: the tokens. The epilogue follows. */
static plan_step *add_gemm(plan *p, plan_pass pass, const char *name, plan_operand a, int64_t m,
                           plan_operand b, int64_t n, int64_t k, int halves)
{
    int64_t element = spec_dtype_bytes(p->spec->config.params_dtype);
    plan_step *step = add_step(p, PLAN_GEMM, pass, name);
    step->a = a;
    step->b = b;
    step->halves = halves;
    step->m = m;
    step->n = n;
    step->k = k;
    step->columns = n / halves;
    step->flops_per_token = 2.0 * (double)(m ? m : 1) * (double)n * (double)(k ? k : 1);
    add_bytes(step, m, k, element);
    add_bytes(step, n, k, element);
    return step;
}

/* The epilogue is there: what it needs decides about the tile. */
static void finish_gemm(plan_step *step, const plan *p)
{
    plan_choose_tile(step, p);
    add_epilogue_bytes(step, p->spec->config.params_dtype);
}

static mmlp_status add_forward(plan *p)
{
    const module_spec *spec = p->spec;
    spec_dtype storage = spec->config.params_dtype;
    bool bias_after_reduction = p->communicates && (p->fc2_bias == PLAN_FC2_BIAS_FOLDED ||
                                                    p->fc2_bias == PLAN_FC2_BIAS_ADDED);
    const char *input = p->sequence_parallel ? "gathered_hidden_states" : "hidden_states";
    if (p->sequence_parallel)
        add_collective(p, PLAN_FORWARD, "all_gather", "hidden_states", input);

    plan_step *fc1 = add_gemm(p, PLAN_FORWARD, "linear_fc1", (plan_operand){input, true}, 0,
                              (plan_operand){"linear_fc1.weight", true}, p->fc1_output_size,
                              p->hidden_size, spec->config.gated_linear_unit ? 2 : 1);
    MMLP_TRY(plan_fc1_epilogue(&fc1->epilogue, p));
    finish_gemm(fc1, p);

    plan_step *fc2 =
        add_gemm(p, PLAN_FORWARD, "linear_fc2", (plan_operand){"activation_output", true}, 0,
                 (plan_operand){"linear_fc2.weight", true}, p->hidden_size, p->ffn_hidden_size, 1);
    MMLP_TRY(plan_fc2_epilogue(&fc2->epilogue, p, !bias_after_reduction));
    if (p->sequence_parallel)
        fc2->epilogue.outputs[0].tensor = "partial_output";
    finish_gemm(fc2, p);

    add_reduction(p, PLAN_FORWARD, "partial_output", "output");
    if (bias_after_reduction) {
        plan_step *bias = add_step(p, PLAN_ADD_BIAS, PLAN_FORWARD, "linear_fc2_bias");
        bias->input = "linear_fc2.bias";
        bias->output = "output";
        bias->second_input = p->fc2_bias == PLAN_FC2_BIAS_FOLDED ? "per_token_scale" : NULL;
        bias->local_tokens = p->sequence_parallel;
        bias->columns = p->hidden_size;
        MMLP_TRY(plan_fc2_epilogue(&bias->epilogue, p, true));
        add_bytes(bias, 0, p->hidden_size, spec_dtype_bytes(storage));
        add_epilogue_bytes(bias, storage);
    }
    return MMLP_OK;
}

/* Partial sums of columns, a row for every PLAN_SUMMED_ROWS tokens, to a bias gradient. */
static plan_step *add_finish_columns(plan *p, const char *name, const char *when,
                                     const char *partial, const char *output, int64_t columns)
{
    plan_step *step = add_step(p, PLAN_FINISH_COLUMNS, PLAN_DGRAD, name);
    step->when = when;
    step->input = partial;
    step->output = output;
    step->columns = columns;
    step->bytes_per_token = (double)columns * 4 / PLAN_SUMMED_ROWS;
    add_bytes(step, 1, columns, 4);
    return step;
}

/* What needs a pass over grad_output of its own: the gradient of the fc2 bias, and that of the
 * scale through a folded one. */
static void add_grad_output_sums(plan *p)
{
    bool folded = p->fc2_bias == PLAN_FC2_BIAS_FOLDED;
    int64_t element = spec_dtype_bytes(p->spec->config.params_dtype);
    plan_step *step = add_step(p, PLAN_GRAD_OUTPUT_SUMS, PLAN_DGRAD, "grad_output_sums");
    if (p->fc2_bias == PLAN_FC2_BIAS_RETURNED)
        step->when = "grad.linear_fc2.bias";
    step->input = "grad_output";
    step->output = "fc2_bias_sums";
    step->local_tokens = p->sequence_parallel;
    step->columns = p->hidden_size;
    add_bytes(step, 0, p->hidden_size, element);
    step->bytes_per_token += (double)p->hidden_size * 4 / PLAN_SUMMED_ROWS;
    if (folded) {
        step->second_input = "linear_fc2.bias";
        add_bytes(step, 1, p->hidden_size, element);
        add_bytes(step, 0, 1 + plan_ceil_div(p->hidden_size, PLAN_SUMMED_COLUMNS), 4);
    }
}

/* All tokens of it. */
static const char *grad_output_of(const plan *p)
{
    return p->sequence_parallel ? "gathered_grad_output" : "grad_output";
}

static mmlp_status add_dgrad(plan *p)
{
    const module_spec *spec = p->spec;
    spec_dtype storage = spec->config.params_dtype;
    bool gathers = p->sequence_parallel;
    const char *gradient = gathers ? "partial_grad_hidden_states" : "grad.hidden_states";
    if (gathers)
        add_collective(p, PLAN_DGRAD, "all_gather", "grad_output", grad_output_of(p));
    if (p->fc2_bias != PLAN_FC2_BIAS_NONE)
        add_grad_output_sums(p);

    plan_step *fc2 =
        add_gemm(p, PLAN_DGRAD, "linear_fc2", (plan_operand){grad_output_of(p), true}, 0,
                 (plan_operand){"linear_fc2.weight", false}, p->ffn_hidden_size, p->hidden_size, 1);
    MMLP_TRY(plan_fc2_dgrad_epilogue(&fc2->epilogue, p));
    finish_gemm(fc2, p);

    /* Megatron's order: the input comes while dgrad runs, its gradient goes while weight gradients
     * do. */
    if (gathers)
        add_collective(p, PLAN_DGRAD, "all_gather", "hidden_states", "regathered_hidden_states");
    plan_step *fc1 =
        add_gemm(p, PLAN_DGRAD, "linear_fc1", (plan_operand){"grad_fc1_output", true}, 0,
                 (plan_operand){"linear_fc1.weight", false}, p->hidden_size, p->fc1_output_size, 1);
    MMLP_TRY(plan_store_epilogue(&fc1->epilogue, p, gradient, storage, p->hidden_size, false));
    finish_gemm(fc1, p);
    add_reduction(p, PLAN_DGRAD, gradient, "grad.hidden_states");

    if (spec->config.add_bias_linear) {
        add_finish_columns(p, "linear_fc1_bias", "always", "fc1_bias_sums", "grad.linear_fc1.bias",
                           p->fc1_output_size);
        add_finish_columns(p, "linear_fc2_bias",
                           p->fc2_bias == PLAN_FC2_BIAS_RETURNED ? "grad.linear_fc2.bias"
                                                                 : "always",
                           "fc2_bias_sums", "grad.linear_fc2.bias", p->hidden_size)
            ->local_tokens = p->sequence_parallel;
    }
    if (spec->mlp.per_token_scale) {
        plan_step *scale = add_step(p, PLAN_FINISH_ROWS, PLAN_DGRAD, "per_token_scale");
        scale->input = "scale_sums";
        scale->output = "grad.per_token_scale";
        scale->columns = plan_ceil_div(p->ffn_hidden_size, PLAN_SUMMED_COLUMNS);
        add_bytes(scale, 0, 1 + scale->columns, 4);
        if (p->fc2_bias == PLAN_FC2_BIAS_FOLDED) {
            scale->second_input = "bias_scale_sums";
            add_bytes(scale, 0, plan_ceil_div(p->hidden_size, PLAN_SUMMED_COLUMNS), 4);
        }
    }
    return MMLP_OK;
}

/* The gradient of a weight: rows of `a` times columns of `b`, summed over the tokens. */
static mmlp_status add_wgrad(plan *p, const char *name, const char *a, int64_t rows, const char *b,
                             int64_t columns, const char *gradient)
{
    plan_step *step = add_gemm(p, PLAN_BACKWARD_DW, name, (plan_operand){a, false}, rows,
                               (plan_operand){b, false}, columns, 0, 1);
    MMLP_TRY(plan_store_epilogue(&step->epilogue, p, gradient, plan_wgrad_dtype(p), columns, true));
    finish_gemm(step, p);
    return MMLP_OK;
}

static mmlp_status add_backward_dw(plan *p)
{
    const char *activation =
        p->spec->config.save_activation ? "activation_output" : "recomputed_activation";
    MMLP_TRY(add_wgrad(p, "linear_fc2", grad_output_of(p), p->hidden_size, activation,
                       p->ffn_hidden_size, "grad.linear_fc2.weight"));
    return add_wgrad(p, "linear_fc1", "grad_fc1_output", p->fc1_output_size,
                     p->sequence_parallel ? "regathered_hidden_states" : "hidden_states",
                     p->hidden_size, "grad.linear_fc1.weight");
}

/* ---- buffers --------------------------------------------------------------------------------- */

static plan_buffer *add_buffer(plan *p, const char *name, plan_pass pass, plan_lifetime lifetime,
                               int64_t columns, const char *written_by, const char *read_by)
{
    assert(p->buffer_count < PLAN_BUFFERS_MAX);
    plan_buffer *buffer = &p->buffers[p->buffer_count++];
    *buffer = (plan_buffer){.name = name,
                            .pass = pass,
                            .lifetime = lifetime,
                            .dtype = p->spec->config.params_dtype,
                            .columns = columns,
                            .tokens_per_row = 1,
                            .written_by = written_by,
                            .read_by = read_by};
    return buffer;
}

static void add_sums(plan *p, const char *name, int64_t columns, int64_t tokens_per_row,
                     const char *written_by, const char *read_by)
{
    plan_buffer *buffer =
        add_buffer(p, name, PLAN_DGRAD, PLAN_SCRATCH, columns, written_by, read_by);
    buffer->dtype = SPEC_DTYPE_fp32;
    buffer->tokens_per_row = tokens_per_row;
}

static void add_buffers(plan *p)
{
    const spec_config *config = &p->spec->config;
    bool kept = config->save_activation;
    plan_lifetime pending = config->delay_wgrad_compute ? PLAN_PENDING : PLAN_SCRATCH;
    add_buffer(p, "fc1_output", PLAN_FORWARD, PLAN_SAVED, p->fc1_output_size, "linear_fc1",
               "dgrad linear_fc2");
    add_buffer(p, "activation_output", PLAN_FORWARD, kept ? PLAN_SAVED : PLAN_SCRATCH,
               p->ffn_hidden_size, "linear_fc1",
               kept ? "linear_fc2, backward_dw linear_fc2" : "linear_fc2");
    add_buffer(p, "grad_fc1_output", PLAN_DGRAD, pending, p->fc1_output_size, "linear_fc2",
               "linear_fc1, backward_dw linear_fc1");
    if (!kept)
        add_buffer(p, "recomputed_activation", PLAN_DGRAD, pending, p->ffn_hidden_size,
                   "linear_fc2", "backward_dw linear_fc2");
    if (p->sequence_parallel) {
        add_buffer(p, "gathered_hidden_states", PLAN_FORWARD, PLAN_SCRATCH, p->hidden_size,
                   "all_gather", "linear_fc1");
        add_buffer(p, "partial_output", PLAN_FORWARD, PLAN_SCRATCH, p->hidden_size, "linear_fc2",
                   "reduce_scatter");
        add_buffer(p, "gathered_grad_output", PLAN_DGRAD, pending, p->hidden_size, "all_gather",
                   "linear_fc2, backward_dw linear_fc2");
        add_buffer(p, "regathered_hidden_states", PLAN_DGRAD, pending, p->hidden_size, "all_gather",
                   "backward_dw linear_fc1");
        add_buffer(p, "partial_grad_hidden_states", PLAN_DGRAD, PLAN_SCRATCH, p->hidden_size,
                   "linear_fc1", "reduce_scatter");
    }
    if (config->add_bias_linear) {
        add_sums(p, "fc1_bias_sums", p->fc1_output_size, PLAN_SUMMED_ROWS, "linear_fc2",
                 "linear_fc1_bias");
        add_sums(p, "fc2_bias_sums", p->hidden_size, PLAN_SUMMED_ROWS, "grad_output_sums",
                 "linear_fc2_bias");
    }
    if (p->spec->mlp.per_token_scale)
        add_sums(p, "scale_sums", plan_ceil_div(p->ffn_hidden_size, PLAN_SUMMED_COLUMNS), 1,
                 "linear_fc2", "per_token_scale");
    if (p->fc2_bias == PLAN_FC2_BIAS_FOLDED)
        add_sums(p, "bias_scale_sums", plan_ceil_div(p->hidden_size, PLAN_SUMMED_COLUMNS), 1,
                 "grad_output_sums", "per_token_scale");
}

static bool reads(const plan_step *step, const char *tensor)
{
    bool found = (step->a.tensor && strcmp(step->a.tensor, tensor) == 0) ||
                 (step->b.tensor && strcmp(step->b.tensor, tensor) == 0);
    /* The bias is added in place. */
    return found || (step->kind == PLAN_ADD_BIAS && strcmp(step->output, tensor) == 0);
}

int plan_collective_join(const plan *p, int step, bool *at_end)
{
    plan_pass last = p->steps[step].pass;
    if (last == PLAN_DGRAD && !p->spec->config.delay_wgrad_compute)
        last = PLAN_BACKWARD_DW; /* one call */
    int i = step + 1;
    while (i < p->step_count && p->steps[i].pass <= last &&
           !reads(&p->steps[i], p->steps[step].output))
        i++;
    *at_end = i == p->step_count || p->steps[i].pass > last;
    return i;
}

/* ---- the whole ------------------------------------------------------------------------------- */

mmlp_status plan_build(plan *out, const module_spec *spec, const char *arch, const char *tile)
{
    plan built = {.spec = spec, .arch = arch ? arch : "sm_80"};
    *out = (plan){0};
    built.tile = tile;
    built.family = plan_family_of(built.arch);
    if (!built.family) {
        text known = TEXT_INIT;
        plan_print_architectures(&known);
        mmlp_status refused = mmlp_fail(MMLP_ERROR_UNSUPPORTED,
                                        "%s: no kernels for this architecture; there are for %s",
                                        built.arch, text_string(&known));
        text_free(&known);
        return refused;
    }
    built.ranks = spec_tensor_parallel_size(spec);
    built.communicates = built.ranks > 1 && !spec_explicit_expert_comm(spec);
    built.sequence_parallel = built.communicates && spec->config.sequence_parallel;
    built.hidden_size = spec->config.hidden_size;
    built.ffn_hidden_size = spec_ffn_hidden_size(spec) / built.ranks;
    built.fc1_output_size = built.ffn_hidden_size * (spec->config.gated_linear_unit ? 2 : 1);
    built.fc2_bias = fc2_bias_of(spec);

    mmlp_status status = MMLP_OK;
    MMLP_TRY_CLEANUP(add_forward(&built));
    MMLP_TRY_CLEANUP(add_dgrad(&built));
    MMLP_TRY_CLEANUP(add_backward_dw(&built));
    for (int i = 0; i < built.step_count; i++)
        if (built.steps[i].local_tokens)
            built.steps[i].bytes_per_token /= (double)built.ranks;
    add_buffers(&built);
    MMLP_TRY_CLEANUP(plan_fc1_epilogue(&built.reference_activation, &built));
    MMLP_TRY_CLEANUP(plan_fc2_epilogue(&built.reference_output, &built, true));
    MMLP_TRY_CLEANUP(plan_backward_reference(&built.reference_backward, &built));
    built.has_clamp_or_relu = expr_has_kink(&built.reference_activation.graph);
    *out = built;
    built = (plan){0};

cleanup:
    plan_free(&built);
    return status;
}

void plan_free(plan *p)
{
    for (int i = 0; i < p->step_count; i++)
        plan_epilogue_free(&p->steps[i].epilogue);
    plan_epilogue_free(&p->reference_activation);
    plan_epilogue_free(&p->reference_output);
    plan_epilogue_free(&p->reference_backward);
    *p = (plan){0};
}
