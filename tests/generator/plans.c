/*
 * plans.c: what a person sees of a plan, as golden text, and what holds of every plan. After a
 * wanted change: cmake --build BUILD --target update-plans
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/file.h"
#include "plan.h"
#include "spec_text.h"

static void print_plan(text *out, const char *path, const char *arch)
{
    module_spec spec;
    plan p;
    cr_assert_eq(spec_load(&spec, path, NULL), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(plan_build(&p, &spec, arch, NULL), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(plan_print(out, &p), MMLP_OK, "%s", mmlp_last_error());
    plan_free(&p);
    spec_free(&spec);
}

static void is_golden(const char *spec, const char *arch, const char *name)
{
    char path[512], golden[512];
    text printed = TEXT_INIT;
    snprintf(path, sizeof path, "%s/%s", MMLP_SOURCE_DIR, spec);
    snprintf(golden, sizeof golden, "%s/tests/generator/golden/%s.txt", MMLP_SOURCE_DIR, name);
    print_plan(&printed, path, arch);
    if (getenv("MMLP_UPDATE_PLANS")) {
        cr_assert_eq(file_write_atomic(golden, text_string(&printed), printed.length), MMLP_OK);
    } else {
        char *wanted;
        size_t bytes;
        cr_assert_eq(file_read(&wanted, &bytes, golden), MMLP_OK, "%s", mmlp_last_error());
        cr_assert_str_eq(text_string(&printed), wanted,
                         "%s differs; wanted: cmake --build BUILD --target update-plans", golden);
        free(wanted);
    }
    text_free(&printed);
}

Test(plan_text, llama3_8b)
{
    is_golden("specs/llama3_8b.lua", NULL, "llama3_8b");
}

Test(plan_text, llama3_8b_on_hopper)
{
    is_golden("specs/llama3_8b.lua", "sm_90a", "llama3_8b_sm_90a");
}

Test(plan_text, gpt3_175b_with_tensor_and_sequence_parallelism)
{
    is_golden("specs/gpt3_175b.lua", NULL, "gpt3_175b");
}

Test(plan_text, mixtral_expert_with_scale)
{
    is_golden("specs/mixtral_expert.lua", NULL, "mixtral_expert");
}

Test(plan_text, squared_relu_of_ones_own)
{
    is_golden("specs/squared_relu.lua", NULL, "squared_relu");
}

Test(plan_text, fused_quick_geglu_clamps_before_the_bias)
{
    is_golden("tests/specs/quick_geglu_bias_scale_fused_clamp_offset.lua", NULL,
              "quick_geglu_bias_scale_fused_clamp_offset");
}

Test(plan_text, bias_is_added_after_the_reduction)
{
    is_golden("tests/generator/golden/everything.lua", NULL, "everything");
}

/* ---- facts ----------------------------------------------------------------------------------- */

static void build(plan *p, module_spec *spec, const char *fields, const char *params)
{
    char *content = spec_text_config(fields, params);
    cr_assert_eq(spec_text_load(spec, content), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(plan_build(p, spec, NULL, NULL), MMLP_OK, "%s", mmlp_last_error());
    free(content);
}

/* The names of a pass's steps. */
static void steps_are(const char *fields, const char *params, plan_pass pass, const char *wanted)
{
    module_spec spec;
    plan p;
    text steps = TEXT_INIT;
    build(&p, &spec, fields, params);
    for (int i = 0; i < p.step_count; i++)
        if (p.steps[i].pass == pass)
            text_printf(&steps, "%s%s", steps.length ? " " : "", p.steps[i].name);
    cr_assert_str_eq(text_string(&steps), wanted);
    text_free(&steps);
    plan_free(&p);
    spec_free(&spec);
}

Test(plan, collectives_stand_where_megatron_has_them)
{
#define TP2 "hidden_size = 64, tensor_model_parallel_size = 2"
    steps_are("hidden_size = 64", "", PLAN_FORWARD, "linear_fc1 linear_fc2");
    steps_are(TP2, "", PLAN_FORWARD, "linear_fc1 linear_fc2 all_reduce");
    steps_are(TP2 ", sequence_parallel = true", "", PLAN_FORWARD,
              "all_gather linear_fc1 linear_fc2 reduce_scatter");
    steps_are(TP2, "per_token_scale = true", PLAN_FORWARD,
              "linear_fc1 linear_fc2 all_reduce linear_fc2_bias");
    steps_are(TP2 ", add_bias_linear = false", "", PLAN_DGRAD, "linear_fc2 linear_fc1 all_reduce");
    steps_are(TP2 ", add_bias_linear = false, sequence_parallel = true", "", PLAN_DGRAD,
              "all_gather linear_fc2 all_gather linear_fc1 reduce_scatter");
    steps_are(TP2 ", sequence_parallel = true", "", PLAN_BACKWARD_DW, "linear_fc2 linear_fc1");
}

/* Of each collective of dgrad, the step that waits for it: "backward_dw linear_fc1". */
static void joins_are(const char *fields, const char *wanted)
{
    module_spec spec;
    plan p;
    text joins = TEXT_INIT;
    build(&p, &spec, fields, "");
    for (int i = 0; i < p.step_count; i++) {
        if (p.steps[i].kind != PLAN_COLLECTIVE || p.steps[i].pass != PLAN_DGRAD)
            continue;
        bool at_end;
        int join = plan_collective_join(&p, i, &at_end);
        text_printf(&joins, "%s%s: %s %s", joins.length ? ", " : "", p.steps[i].output,
                    at_end ? "the" : plan_pass_name(p.steps[join].pass),
                    at_end ? "end" : p.steps[join].name);
    }
    cr_assert_str_eq(text_string(&joins), wanted);
    text_free(&joins);
    plan_free(&p);
    spec_free(&spec);
}

Test(plan, collectives_are_waited_for_where_their_output_is_read)
{
#define SP2 TP2 ", sequence_parallel = true"
    joins_are(TP2, "grad.hidden_states: the end");
    joins_are(SP2, "gathered_grad_output: dgrad linear_fc2, regathered_hidden_states: backward_dw "
                   "linear_fc1, grad.hidden_states: the end");
    joins_are(SP2 ", delay_wgrad_compute = true",
              "gathered_grad_output: dgrad linear_fc2, regathered_hidden_states: the end, "
              "grad.hidden_states: the end");
}

Test(plan, an_expert_leaves_communication_to_its_dispatcher)
{
    steps_are(TP2 ", num_moe_experts = 4, add_bias_linear = false", "is_expert = true",
              PLAN_FORWARD, "linear_fc1 linear_fc2");
    steps_are(TP2 ", num_moe_experts = 4, add_bias_linear = false", "is_expert = true", PLAN_DGRAD,
              "linear_fc2 linear_fc1");
    steps_are(TP2 ", num_moe_experts = 4, expert_tensor_parallel_size = 1", "is_expert = true",
              PLAN_FORWARD, "linear_fc1 linear_fc2");
}

Test(plan, sums_stand_where_a_bias_or_a_scale_needs_them)
{
    steps_are("hidden_size = 64, add_bias_linear = false", "", PLAN_DGRAD, "linear_fc2 linear_fc1");
    steps_are("hidden_size = 64", "", PLAN_DGRAD,
              "grad_output_sums linear_fc2 linear_fc1 linear_fc1_bias linear_fc2_bias");
    steps_are("hidden_size = 64, add_bias_linear = false", "per_token_scale = true", PLAN_DGRAD,
              "linear_fc2 linear_fc1 per_token_scale");
    steps_are("hidden_size = 64", "per_token_scale = true", PLAN_DGRAD,
              "grad_output_sums linear_fc2 linear_fc1 linear_fc1_bias linear_fc2_bias "
              "per_token_scale");
    steps_are("hidden_size = 64", "", PLAN_BACKWARD_DW, "linear_fc2 linear_fc1");
}

Test(plan, sizes_are_those_of_a_rank)
{
    module_spec spec;
    plan p;
    build(&p, &spec, "hidden_size = 64, tensor_model_parallel_size = 4, gated_linear_unit = true",
          "");
    cr_assert_eq(p.ffn_hidden_size, 64);
    cr_assert_eq(p.fc1_output_size, 128);
    plan_free(&p);
    spec_free(&spec);
    build(&p, &spec, "hidden_size = 64, num_moe_experts = 2, moe_ffn_hidden_size = 96",
          "is_expert = true");
    cr_assert_eq(p.ffn_hidden_size, 96);
    plan_free(&p);
    spec_free(&spec);
}

static const plan_buffer *find_buffer(const plan *p, const char *name)
{
    for (int i = 0; i < p->buffer_count; i++)
        if (strcmp(p->buffers[i].name, name) == 0)
            return &p->buffers[i];
    return NULL;
}

/* Bytes of a token between the passes: of the buffers with these two lifetimes. */
static int64_t kept(const plan *p)
{
    int64_t bytes = 0;
    for (int i = 0; i < p->buffer_count; i++)
        if (p->buffers[i].lifetime != PLAN_SCRATCH)
            bytes += p->buffers[i].columns * spec_dtype_bytes(p->buffers[i].dtype);
    return bytes;
}

Test(plan, lifetimes_follow_save_activation_and_delay_wgrad_compute)
{
    for (int bits = 0; bits < 4; bits++) {
        module_spec spec;
        plan p;
        char fields[256];
        bool saves = bits & 1, delays = bits & 2;
        snprintf(fields, sizeof fields,
                 "hidden_size = 64, gated_linear_unit = true, params_dtype = \"bf16\", "
                 "save_activation = %s, delay_wgrad_compute = %s",
                 saves ? "true" : "false", delays ? "true" : "false");
        build(&p, &spec, fields, "");
        cr_expect_eq(find_buffer(&p, "fc1_output")->lifetime, PLAN_SAVED);
        cr_expect_eq(find_buffer(&p, "activation_output")->lifetime,
                     saves ? PLAN_SAVED : PLAN_SCRATCH);
        cr_expect_eq(find_buffer(&p, "grad_fc1_output")->lifetime,
                     delays ? PLAN_PENDING : PLAN_SCRATCH);
        cr_expect_eq(find_buffer(&p, "recomputed_activation") == NULL, saves);
        /* Megatron's fused path: fc1_output and the activation, and its gradient until wgrad. */
        int64_t output = p.fc1_output_size * 2, activation = p.ffn_hidden_size * 2;
        cr_expect_leq(kept(&p), output + activation + (delays ? output : 0));
        plan_free(&p);
        spec_free(&spec);
    }
}

/* A tensor or buffer of the plan, [rows, columns]; rows 0: the tokens. */
static double bytes_of(const plan *p, const char *name, double tokens)
{
    double h = (double)p->hidden_size, f = (double)p->ffn_hidden_size,
           c = (double)p->fc1_output_size;
    double element = (double)spec_dtype_bytes(p->spec->config.params_dtype);
    double wgrad = (double)spec_dtype_bytes(plan_wgrad_dtype(p));
    const struct {
        const char *name;
        double bytes;
    } rows[] = {
        {"hidden_states", tokens * h * element},   {"linear_fc1.weight", c * h * element},
        {"linear_fc2.weight", h * f * element},    {"output", tokens * h * element},
        {"grad_output", tokens * h * element},     {"grad.hidden_states", tokens * h * element},
        {"grad.linear_fc1.weight", c * h * wgrad}, {"grad.linear_fc2.weight", h * f * wgrad},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].name, name) == 0)
            return rows[i].bytes;
    const plan_buffer *buffer = find_buffer(p, name);
    cr_assert(buffer, "%s", name);
    return tokens / (double)buffer->tokens_per_row * (double)buffer->columns *
           (double)spec_dtype_bytes(buffer->dtype);
}

Test(plan, a_kernel_touches_what_its_arguments_hold)
{
    module_spec spec;
    plan p;
    char path[512];
    double sums = 0, dgrad = 0;
    snprintf(path, sizeof path, "%s/specs/llama3_8b.lua", MMLP_SOURCE_DIR);
    cr_assert_eq(spec_load(&spec, path, NULL), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(plan_build(&p, &spec, NULL, NULL), MMLP_OK, "%s", mmlp_last_error());
    for (int i = 0; i < p.step_count; i++) {
        const plan_step *step = &p.steps[i];
        const char *seen[PLAN_OUTPUTS_MAX + PLAN_INPUTS_MAX + 2] = {step->a.tensor, step->b.tensor};
        int count = 2;
        for (int k = 0; k < step->epilogue.input_count; k++)
            if (step->epilogue.inputs[k].tensor)
                seen[count++] = step->epilogue.inputs[k].tensor;
        for (int k = 0; k < step->epilogue.output_count; k++)
            seen[count++] = step->epilogue.outputs[k].tensor;
        double wanted = 0, planned = step->bytes + step->bytes_per_token * PLAN_NOMINAL_TOKENS;
        for (int k = 0; k < count; k++) {
            bool first = true;
            for (int before = 0; before < k; before++)
                first = first && strcmp(seen[before], seen[k]) != 0;
            if (first)
                wanted += bytes_of(&p, seen[k], PLAN_NOMINAL_TOKENS);
        }
        cr_expect(fabs(planned - wanted) <= 0.02 * wanted, "%s of %s: %g, wanted %g", step->name,
                  plan_pass_name(step->pass), planned, wanted);
    }
    plan_free(&p);
    spec_free(&spec);

    /* Second stages, where there are most: bias and scale. */
    build(&p, &spec,
          "hidden_size = 4096, ffn_hidden_size = 14336, gated_linear_unit = true, "
          "params_dtype = \"bf16\", num_moe_experts = 2",
          "per_token_scale = true, is_expert = true");
    for (int i = 0; i < p.step_count; i++) {
        double bytes = p.steps[i].bytes + p.steps[i].bytes_per_token * PLAN_NOMINAL_TOKENS;
        dgrad += p.steps[i].pass == PLAN_DGRAD ? bytes : 0;
        sums += p.steps[i].kind == PLAN_FINISH_COLUMNS || p.steps[i].kind == PLAN_FINISH_ROWS
                    ? bytes
                    : 0;
    }
    cr_expect_leq(sums, 0.04 * dgrad, "%g of %g", sums, dgrad);
    plan_free(&p);
    spec_free(&spec);
}

Test(plan, an_unknown_architecture_is_refused)
{
    module_spec spec;
    plan p;
    build(&p, &spec, "hidden_size = 64", "");
    plan_free(&p);
    cr_assert_eq(plan_build(&p, &spec, "sm_70", NULL), MMLP_ERROR_UNSUPPORTED);
    cr_assert_str_eq(mmlp_last_error(),
                     "sm_70: no kernels for this architecture; there are for sm_80, sm_86, sm_89, "
                     "sm_90, sm_90a, sm_100, sm_120");
    spec_free(&spec);
}

Test(plan, every_tile_fits_the_smallest_device_of_the_family)
{
    static const char *const shapes[] = {"hidden_size = 8", "hidden_size = 4096",
                                         "hidden_size = 136, gated_linear_unit = true"};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        module_spec spec;
        plan p;
        build(&p, &spec, shapes[i], "");
        for (int s = 0; s < p.step_count; s++)
            for (int c = 0; c < p.steps[s].candidate_count; c++)
                cr_assert_leq(p.steps[s].candidates[c].shared_bytes, 99 << 10);
        plan_free(&p);
        spec_free(&spec);
    }
}

/* ---- tiles of sm_90a ------------------------------------------------------------------------- */

static void build_hopper(plan *p, module_spec *spec, const char *name, const char *tile)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", MMLP_SOURCE_DIR, name);
    cr_assert_eq(spec_load(spec, path, NULL), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(plan_build(p, spec, "sm_90a", tile), MMLP_OK, "%s", mmlp_last_error());
}

static const plan_candidate *taken(const plan_step *step, int variant)
{
    return &step->candidates[step->variants[variant].candidate];
}

/* The bytes of the operands by waves, counted tile by tile in the order of
 * templates/device/persistent_tiles.cuh. */
static double count_wave_bytes(const plan_step *step, const plan_candidate *c, int sms,
                               int64_t tokens)
{
    const plan_tile *t = &c->tile;
    int64_t rows = step->m ? step->m : tokens, k = step->k ? step->k : tokens;
    int64_t height = t->tile_m * t->cluster, width = t->tile_n / step->halves;
    int64_t tiles_m = (rows + height - 1) / height, tiles_n = (step->columns + width - 1) / width;
    int64_t group_rows = c->group_m / t->cluster, clusters = sms / t->cluster;
    int64_t *row_seen = calloc((size_t)tiles_m, sizeof *row_seen);
    int64_t *column_seen = calloc((size_t)tiles_n, sizeof *column_seen);
    double bytes = 0;
    for (int64_t index = 0; index < tiles_m * tiles_n; index++) {
        int64_t wave = index / clusters + 1, group = index / (group_rows * tiles_n);
        int64_t in_group = index % (group_rows * tiles_n);
        int64_t left = tiles_m - group * group_rows;
        int64_t of_group = left < group_rows ? left : group_rows;
        int64_t row = group * group_rows + in_group % of_group, column = in_group / of_group;
        bytes += row_seen[row] == wave ? 0 : 2.0 * (double)(height * k);
        bytes += column_seen[column] == wave ? 0 : 2.0 * (double)(t->tile_n * k);
        row_seen[row] = column_seen[column] = wave;
    }
    free(row_seen);
    free(column_seen);
    return bytes;
}

Test(tiles, the_bytes_of_waves_are_those_of_the_tile_order)
{
    static const char *const specs[] = {"specs/llama3_8b.lua", "specs/gpt3_175b.lua",
                                        "specs/mixtral_expert.lua", "tests/specs/ragged_gated.lua"};
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++) {
        module_spec spec;
        plan p;
        build_hopper(&p, &spec, specs[s], NULL);
        for (int i = 0; i < p.step_count; i++)
            for (int k = 0; k < p.steps[i].candidate_count; k++)
                for (int64_t tokens = 1; tokens <= 5000; tokens = tokens * 3 + 1) {
                    plan_candidate c = p.steps[i].candidates[k];
                    plan_estimate_launch(&c, &p.steps[i], p.family, tokens);
                    cr_assert_eq(c.estimate.wave_bytes,
                                 count_wave_bytes(&p.steps[i], &c, p.family->sm_count, tokens),
                                 "%s %s, %lld tokens", specs[s], p.steps[i].name,
                                 (long long)tokens);
                }
        plan_free(&p);
        spec_free(&spec);
    }
}

Test(tiles, waves_of_the_largest_gemm_read_at_most_1_1_GB)
{
    module_spec spec;
    plan p;
    build_hopper(&p, &spec, "specs/llama3_8b.lua", NULL);
    cr_assert_str_eq(p.steps[0].name, "linear_fc1");
    const plan_candidate *c = taken(&p.steps[0], p.steps[0].variant_count - 1);
    cr_expect_leq(c->estimate.wave_bytes, 1.1e9);
    cr_expect_eq(c->tile.tile_m, 128);
    cr_expect_eq(c->tile.tile_n, 256);
    plan_free(&p);
    spec_free(&spec);
}

Test(tiles, a_kernel_for_few_tokens_is_estimated_faster_there_and_slower_beyond)
{
    static const char *const specs[] = {"specs/llama3_8b.lua", "specs/mixtral_expert.lua",
                                        "specs/gpt3_175b.lua"};
    int pairs = 0;
    for (size_t s = 0; s < sizeof specs / sizeof *specs; s++) {
        module_spec spec;
        plan p;
        build_hopper(&p, &spec, specs[s], NULL);
        for (int i = 0; i < p.step_count; i++) {
            const plan_step *step = &p.steps[i];
            if (step->kind != PLAN_GEMM || step->variant_count == 1)
                continue;
            cr_expect_eq(step->m, 0);
            cr_expect_eq(step->variants[1].most_tokens, 0);
            int64_t most = step->variants[0].most_tokens;
            double beyond = 1; /* waves come in whole numbers: not slower at each step */
            for (int64_t tokens = most; tokens <= PLAN_NOMINAL_TOKENS; tokens *= 2) {
                plan_candidate few = *taken(step, 0), many = *taken(step, 1);
                plan_estimate_launch(&few, step, p.family, tokens);
                plan_estimate_launch(&many, step, p.family, tokens);
                double gain = many.estimate.kiloclocks / few.estimate.kiloclocks;
                beyond *= tokens == most ? 1 : gain;
                cr_expect(tokens == most ? gain > 1 : beyond <= 1, "%s %s: %lld tokens, %g",
                          specs[s], step->name, (long long)tokens, gain);
            }
            pairs++;
        }
        plan_free(&p);
        spec_free(&spec);
    }
    cr_expect_geq(pairs, 4);
}

Test(tiles, a_tile_that_is_asked_for_is_the_only_one_where_it_fits)
{
    module_spec spec;
    plan p;
    cr_expect(plan_tile_exists("64x64") && !plan_tile_exists("64x640") && !plan_tile_exists(""));
    build_hopper(&p, &spec, "specs/llama3_8b.lua", "64x64");
    for (int i = 0; i < p.step_count; i++) {
        const plan_step *step = &p.steps[i];
        cr_expect_eq(step->candidate_count == 1, step->halves == 1, "%s", step->name);
        cr_expect_eq(taken(step, 0)->tile.tile_n == 64, step->halves == 1, "%s", step->name);
    }
    plan_free(&p);
    spec_free(&spec);
}
