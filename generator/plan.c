/*
 * plan.c: the forward pass as steps: GEMMs with their epilogues, collectives between
 * tensor-parallel ranks, and the buffers that lie between them.
 */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

const char *plan_fc2_bias_name(plan_fc2_bias bias)
{
    static const char *const names[] = {"none", "returned", "folded", "added"};
    return names[bias];
}

const char *plan_lifetime_name(plan_lifetime lifetime)
{
    return lifetime == PLAN_SAVED ? "saved" : "scratch";
}

static plan_fc2_bias fc2_bias_of(const module_spec *spec)
{
    if (!spec->config.add_bias_linear)
        return PLAN_FC2_BIAS_NONE;
    if (!spec->linear_fc2.skip_bias_add)
        return PLAN_FC2_BIAS_ADDED;
    return spec->mlp.per_token_scale ? PLAN_FC2_BIAS_FOLDED : PLAN_FC2_BIAS_RETURNED;
}

static plan_step *add_step(plan *p, plan_step_kind kind, const char *name)
{
    plan_step *step = &p->steps[p->step_count++];
    *step = (plan_step){.kind = kind, .pass = "forward", .name = name};
    return step;
}

static void add_collective(plan *p, const char *name, const char *tensor)
{
    plan_step *step = add_step(p, PLAN_COLLECTIVE, name);
    step->input = step->output = tensor;
    step->columns = p->hidden_size;
    step->bytes_per_token =
        (double)(p->hidden_size * spec_dtype_bytes(p->spec->config.params_dtype));
}

/* The sizes of a GEMM: k columns of `input` against n rows of `weight`. */
static plan_step *add_gemm(plan *p, const char *name, const char *input, const char *weight,
                           const char *output, int halves, int64_t n, int64_t k)
{
    double element = (double)spec_dtype_bytes(p->spec->config.params_dtype);
    plan_step *step = add_step(p, PLAN_GEMM, name);
    step->input = input;
    step->weight = weight;
    step->output = output;
    step->halves = halves;
    step->n = n;
    step->k = k;
    step->columns = n / halves;
    step->flops_per_token = 2.0 * (double)n * (double)k;
    step->weight_bytes = element * (double)n * (double)k;
    step->bytes_per_token = element * (double)(k + step->columns);
    plan_choose_tile(step, p->family);
    return step;
}

/* Bytes of what an epilogue reads besides the accumulators. */
static void count_epilogue(plan_step *step, spec_dtype dtype)
{
    for (int i = 0; i < step->epilogue.input_count; i++) {
        if (step->epilogue.inputs[i].kind == PLAN_INPUT_COLUMN)
            step->weight_bytes += (double)(step->columns * spec_dtype_bytes(dtype));
        else if (step->epilogue.inputs[i].kind == PLAN_INPUT_ROW)
            step->bytes_per_token += 4;
    }
}

static mmlp_status add_steps(plan *p)
{
    const module_spec *spec = p->spec;
    spec_dtype dtype = spec->config.params_dtype;
    bool communicates = p->ranks > 1 && !spec_explicit_expert_comm(spec);
    bool sequence_parallel = communicates && spec->config.sequence_parallel;
    bool bias_after_reduction =
        communicates && (p->fc2_bias == PLAN_FC2_BIAS_FOLDED || p->fc2_bias == PLAN_FC2_BIAS_ADDED);

    if (sequence_parallel)
        add_collective(p, "all_gather", "hidden_states");

    plan_step *fc1 =
        add_gemm(p, "linear_fc1", "hidden_states", "linear_fc1.weight", "activation_output",
                 spec->config.gated_linear_unit ? 2 : 1, p->fc1_output_size, p->hidden_size);
    fc1->raw_store = "fc1_output";
    fc1->bytes_per_token += (double)(p->fc1_output_size * spec_dtype_bytes(dtype));
    MMLP_TRY(plan_fc1_epilogue(&fc1->epilogue, p));
    count_epilogue(fc1, dtype);

    plan_step *fc2 = add_gemm(p, "linear_fc2", "activation_output", "linear_fc2.weight", "output",
                              1, p->hidden_size, p->ffn_hidden_size);
    MMLP_TRY(plan_fc2_epilogue(&fc2->epilogue, p, !bias_after_reduction));
    count_epilogue(fc2, dtype);

    if (communicates)
        add_collective(p, sequence_parallel ? "reduce_scatter" : "all_reduce", "output");
    if (bias_after_reduction) {
        plan_step *bias = add_step(p, PLAN_ELEMENTWISE, "linear_fc2_bias");
        bias->input = bias->output = "output";
        bias->columns = p->hidden_size;
        bias->bytes_per_token = (double)(2 * p->hidden_size * spec_dtype_bytes(dtype));
        MMLP_TRY(plan_fc2_epilogue(&bias->epilogue, p, true));
        count_epilogue(bias, dtype);
    }
    return MMLP_OK;
}

static void add_buffer(plan *p, const char *name, plan_lifetime lifetime, int64_t columns,
                       const char *written_by, const char *read_by)
{
    p->buffers[p->buffer_count++] =
        (plan_buffer){name, lifetime, p->spec->config.params_dtype, columns, written_by, read_by};
}

mmlp_status plan_build(plan *out, const module_spec *spec, const char *arch)
{
    *out = (plan){.spec = spec, .arch = arch ? arch : "sm_80"};
    out->family = plan_family_of(out->arch);
    if (!out->family)
        return mmlp_fail(MMLP_ERROR_UNSUPPORTED,
                         "%s: no kernels for this architecture; there are for sm_80, sm_86, sm_89, "
                         "sm_90, sm_100, sm_120",
                         out->arch);
    out->ranks = spec_tensor_parallel_size(spec);
    out->hidden_size = spec->config.hidden_size;
    out->ffn_hidden_size = spec_ffn_hidden_size(spec) / out->ranks;
    out->fc1_output_size = out->ffn_hidden_size * (spec->config.gated_linear_unit ? 2 : 1);
    out->fc2_bias = fc2_bias_of(spec);

    mmlp_status status = MMLP_OK;
    plan built = *out;
    *out = (plan){0};
    MMLP_TRY_CLEANUP(add_steps(&built));
    MMLP_TRY_CLEANUP(plan_fc1_epilogue(&built.reference_activation, &built));
    MMLP_TRY_CLEANUP(plan_fc2_epilogue(&built.reference_output, &built, true));
    built.has_clamp_or_relu = expr_has_kink(&built.reference_activation.graph);
    add_buffer(&built, "fc1_output", PLAN_SAVED, built.fc1_output_size, "linear_fc1", "dgrad");
    add_buffer(&built, "activation_output",
               spec->config.save_activation ? PLAN_SAVED : PLAN_SCRATCH, built.ffn_hidden_size,
               "linear_fc1", spec->config.save_activation ? "linear_fc2, dgrad" : "linear_fc2");
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
    *p = (plan){0};
}
