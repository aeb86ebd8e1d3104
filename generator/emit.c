/*
 * emit.c: from planned steps to kernels: name, template, arguments and launch shape of each. What a
 * kernel looks like is the templates' business; the table they read is filled by emit_bind.c.
 */
#include "emit.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PRODUCER_THREADS = 128, /* of templates/kernels/sm_90a_gemm.cu */
    FILL_THREADS = 256,
    FILL_ELEMENTS_PER_BLOCK = 4 * FILL_THREADS,
    SUMS_THREADS = 256,
    GRAD_OUTPUT_SUMS_COLUMNS = 256, /* of a block, four of each thread */
    FINISH_ROWS_OF_BLOCK = SUMS_THREADS / PLAN_THREADS_PER_WARP
};

void emit_add_argument(emit_kernel *kernel, const char *name)
{
    for (int i = 0; name && i < kernel->argument_count; i++)
        if (strcmp(kernel->arguments[i], name) == 0)
            return;
    if (!name)
        return;
    assert(kernel->argument_count < EMIT_ARGUMENTS_MAX);
    kernel->arguments[kernel->argument_count++] = name;
}

static void describe_gemm(emit_kernel *kernel, const plan_step *step)
{
    const plan_candidate *chosen = kernel->candidate;
    const plan_epilogue *e = &step->epilogue;
    bool fp32 = kernel->plan->spec->config.params_dtype == SPEC_DTYPE_fp32, accumulates = false;
    bool maps = plan_has_maps(kernel->plan);
    kernel->template_name = fp32   ? "kernels/sm_80_gemm_fp32.cu"
                            : maps ? "kernels/sm_90a_gemm.cu"
                                   : "kernels/sm_80_gemm.cu";
    kernel->threads = PLAN_THREADS_PER_WARP * chosen->tile.warps_m * chosen->tile.warps_n;
    kernel->shared_bytes = chosen->shared_bytes;
    kernel->grid = (emit_grid){step->m, step->columns, chosen->tile.tile_m,
                               chosen->tile.tile_n / step->halves};
    if (maps) {
        kernel->threads += PRODUCER_THREADS;
        kernel->cluster = chosen->tile.cluster;
        kernel->waits_for_previous = true;
        emit_describe_maps(kernel);
        return;
    }
    emit_add_argument(kernel, step->a.tensor);
    emit_add_argument(kernel, step->b.tensor);
    for (int i = 0; i < e->input_count; i++) {
        accumulates = accumulates || e->inputs[i].where_beta_is_1;
        if (!e->inputs[i].where_beta_is_1)
            emit_add_argument(kernel, e->inputs[i].tensor);
    }
    for (int i = 0; i < e->output_count; i++)
        emit_add_argument(kernel, e->outputs[i].tensor);
    if (accumulates)
        emit_add_argument(kernel, "beta");
    emit_add_argument(kernel, "tokens");
}

static void add_tokens(emit_kernel *kernel, const plan_step *step)
{
    emit_add_argument(kernel, step->local_tokens ? "local_tokens" : "tokens");
}

static void describe_grad_output_sums(emit_kernel *kernel, const plan_step *step)
{
    kernel->template_name = "kernels/grad_output_sums.cu";
    kernel->threads = SUMS_THREADS;
    kernel->grid = (emit_grid){0, step->columns, PLAN_SUMMED_ROWS, GRAD_OUTPUT_SUMS_COLUMNS};
    emit_add_argument(kernel, step->input);
    emit_add_argument(kernel, step->second_input);
    if (step->second_input)
        emit_add_argument(kernel, "per_token_scale");
    emit_add_argument(kernel, step->output);
    if (step->second_input)
        emit_add_argument(kernel, "bias_scale_sums");
    add_tokens(kernel, step);
}

static void describe_add_bias(emit_kernel *kernel, const plan_step *step)
{
    kernel->template_name = "kernels/add_bias.cu";
    kernel->threads = SUMS_THREADS;
    kernel->grid = (emit_grid){0, step->columns, 1, 4 * SUMS_THREADS};
    emit_add_argument(kernel, step->input);
    emit_add_argument(kernel, step->second_input);
    emit_add_argument(kernel, step->output);
    add_tokens(kernel, step);
}

static void describe_finish_columns(emit_kernel *kernel, const plan_step *step)
{
    kernel->template_name = "kernels/finish_columns.cu";
    kernel->threads = SUMS_THREADS;
    kernel->grid = (emit_grid){1, step->columns, 1, SUMS_THREADS};
    emit_add_argument(kernel, step->input);
    emit_add_argument(kernel, step->output);
    emit_add_argument(kernel, strcmp(step->output, "grad.linear_fc1.bias") == 0
                                  ? "grad.linear_fc1.bias.dtype"
                                  : "grad.linear_fc2.bias.dtype");
    emit_add_argument(kernel, "beta");
    add_tokens(kernel, step);
}

static void describe_finish_rows(emit_kernel *kernel, const plan_step *step)
{
    kernel->template_name = "kernels/finish_rows.cu";
    kernel->threads = SUMS_THREADS;
    kernel->grid = (emit_grid){0, 1, FINISH_ROWS_OF_BLOCK, 1};
    emit_add_argument(kernel, step->input);
    emit_add_argument(kernel, step->second_input);
    emit_add_argument(kernel, step->output);
    add_tokens(kernel, step);
}

static void describe_step(emit_kernel *kernel, const plan_step *step, int variant)
{
    kernel->step = step;
    kernel->pass = plan_pass_name(step->pass);
    kernel->step_name = step->name;
    switch (step->kind) {
    case PLAN_GEMM:
        kernel->candidate = &step->candidates[step->variants[variant].candidate];
        kernel->most_tokens = step->variants[variant].most_tokens;
        describe_gemm(kernel, step);
        break;
    case PLAN_GRAD_OUTPUT_SUMS:
        describe_grad_output_sums(kernel, step);
        break;
    case PLAN_FINISH_COLUMNS:
        describe_finish_columns(kernel, step);
        break;
    case PLAN_FINISH_ROWS:
        describe_finish_rows(kernel, step);
        break;
    case PLAN_ADD_BIAS:
        describe_add_bias(kernel, step);
        break;
    case PLAN_COLLECTIVE:
        break;
    }
}

static void describe_fill(emit_kernel *kernel)
{
    static const char *const arguments[] = {"destination",
                                            "elements",
                                            "columns",
                                            "first_column",
                                            "whole_columns",
                                            "half_rows",
                                            "first_row",
                                            "whole_half_rows",
                                            "a",
                                            "b",
                                            "seed",
                                            "distribution",
                                            "dtype"};
    kernel->pass = "init";
    kernel->step_name = "fill";
    kernel->template_name = "kernels/fill.cu";
    kernel->threads = FILL_THREADS;
    kernel->elements_per_block = FILL_ELEMENTS_PER_BLOCK;
    for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++)
        emit_add_argument(kernel, arguments[i]);
}

void emit_step_name(text *out, const plan_step *step)
{
    static const char *const suffixes[] = {"forward", "dgrad", "wgrad"};
    if (step->kind == PLAN_GEMM)
        text_printf(out, "%s_%s", step->name, suffixes[step->pass]);
    else if (step->kind == PLAN_GRAD_OUTPUT_SUMS)
        text_puts(out, step->name);
    else if (step->kind == PLAN_ADD_BIAS)
        text_printf(out, "%s_forward", step->name);
    else
        text_printf(out, "%s_grad", step->name);
}

static mmlp_status emit(emit_kernel *kernel)
{
    text name = TEXT_INIT;
    if (kernel->step)
        emit_step_name(&name, kernel->step);
    else
        text_puts(&name, kernel->step_name);
    text entry = TEXT_INIT;
    if (kernel->most_tokens)
        text_puts(&name, "_few_tokens");
    if (kernel->plan->family->is_exact)
        text_printf(&name, "_%s", kernel->plan->family->name);
    text_printf(&entry, "%s_%s", kernel->plan->spec->name, text_string(&name));
    text_puts(&name, ".cu");
    kernel->entry = text_take(&entry);
    kernel->file = text_take(&name);
    if (!kernel->entry || !kernel->file)
        return mmlp_fail_memory(128, "the names of a kernel");
    return template_expand(&kernel->source, template_files, kernel->template_name, emit_bind,
                           kernel);
}

/* The plan's kernel of step i, or the one that belongs to no step. */
static mmlp_status add_kernel(emit_kernels *out, const plan *p, int step, int variant)
{
    emit_kernel *kernel = &out->kernels[out->count++];
    kernel->plan = p;
    if (step < p->step_count)
        describe_step(kernel, &p->steps[step], variant);
    else
        describe_fill(kernel);
    return emit(kernel);
}

static mmlp_status build_plans(emit_kernels *out, const module_spec *spec, const char *tile)
{
    static const char *const families[] = {"sm_80", "sm_90a"};
    /* fp32 runs on FMA units, everywhere by the same kernels. */
    int count = spec->config.params_dtype == SPEC_DTYPE_fp32 ? 1 : 2;
    out->plans = calloc((size_t)count, sizeof *out->plans);
    if (!out->plans)
        return mmlp_fail_memory((size_t)count * sizeof *out->plans, "plans");
    for (int i = 0; i < count; i++)
        MMLP_TRY(plan_build(&out->plans[out->plan_count++], spec, families[i], tile));
    return MMLP_OK;
}

mmlp_status emit_spec(emit_kernels *out, const module_spec *spec, const char *tile)
{
    *out = (emit_kernels){0};
    mmlp_status status = MMLP_OK;
    emit_kernels made = {0};
    MMLP_TRY_CLEANUP(build_plans(&made, spec, tile));
    const plan *first = made.plans;
    size_t most = (size_t)(first->step_count + 1) * (size_t)made.plan_count * PLAN_VARIANTS_MAX;
    made.kernels = calloc(most, sizeof *made.kernels);
    if (!made.kernels) {
        status = mmlp_fail_memory(most * sizeof *made.kernels, "kernels");
        goto cleanup;
    }
    for (int i = 0; i <= first->step_count; i++) {
        if (i < first->step_count && first->steps[i].kind == PLAN_COLLECTIVE)
            continue;
        bool gemm = i < first->step_count && first->steps[i].kind == PLAN_GEMM;
        for (int f = 0; f < (gemm ? made.plan_count : 1); f++) {
            const plan *p = &made.plans[f];
            int variants = gemm ? p->steps[i].variant_count : 1;
            for (int variant = 0; variant < variants; variant++)
                MMLP_TRY_CLEANUP(add_kernel(&made, p, i, variant));
        }
    }
    *out = made;
    made = (emit_kernels){0};

cleanup:
    emit_free(&made);
    return status;
}

bool emit_runs_on(const emit_kernels *kernels, int index, const char *arch)
{
    const emit_kernel *kernel = &kernels->kernels[index];
    if (kernel->plan->family->is_exact)
        return strcmp(kernel->plan->family->name, arch) == 0;
    for (int i = 0; i < kernels->count; i++) {
        const emit_kernel *other = &kernels->kernels[i];
        if (strcmp(other->pass, kernel->pass) == 0 &&
            strcmp(other->step_name, kernel->step_name) == 0 && other->plan->family->is_exact &&
            strcmp(other->plan->family->name, arch) == 0)
            return false;
    }
    return true;
}

void emit_free(emit_kernels *kernels)
{
    for (int i = 0; i < kernels->count; i++) {
        free(kernels->kernels[i].entry);
        free(kernels->kernels[i].file);
        template_output_free(&kernels->kernels[i].source);
    }
    free(kernels->kernels);
    for (int i = 0; i < kernels->plan_count; i++)
        plan_free(&kernels->plans[i]);
    free(kernels->plans);
    *kernels = (emit_kernels){0};
}
