/*
 * property.c: draws legal specs, storage types and shapes, runs a training step of each and checks
 * it stage by stage. MMLP_PROPERTY_DRAWS: how many (60); MMLP_PROPERTY_FIRST: the first draw's
 * number (0), which with 1 draw repeats one.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "loaded_mlp.h"
#include "training_step.h"

enum { DRAWS = 60, MOST_TOKENS = 700, MOST_UNITS = 80 /* of 8 columns */, TRIES = 1000 };

/* ---- drawing --------------------------------------------------------------------------------- */

typedef struct drawing {
    uint64_t state;
} drawing;

static int64_t draw(drawing *d, int64_t count)
{
    d->state ^= d->state << 13;
    d->state ^= d->state >> 7;
    d->state ^= d->state << 17;
    return (int64_t)((d->state >> 11) % (uint64_t)count);
}

static bool one_in(drawing *d, int64_t count)
{
    return draw(d, count) == 0;
}

static const char *flag(drawing *d, int64_t in)
{
    return one_in(d, in) ? "true" : "false";
}

static const char *const activations[] = {
    "F.gelu",
    "F.gelu",
    "F.silu",
    "F.silu",
    "F.relu",
    "quick_gelu",
    "quick_gelu",
    "squared_relu",
    "fast_gelu",
    "gelu_tanh",
    "activation('mish', function(x) return x * tanh(log(1 + exp(x))) end)",
    "activation('swish_beta', function(x) return x / (1 + exp(-1.5 * x)) end)",
    "activation('situ_glu', function(gate, up) return 4 * tanh(gate / 4) * sigmoid(gate) * 25 * "
    "tanh(up / 25) end)",
    "activation('gate_alone', function(gate, up) return gate end)",
    "activation('odd', function(x) return where(greater(x, 0.5), sqrt(1 + x * x), "
    "abs(clamp(x, -2, 0.25)) * erf(x) + max(x, -1)) end)",
};

/* The text of a spec that may not be legal. */
static char *draw_spec(drawing *d)
{
    static const char *const dtypes[] = {"bf16", "bf16", "fp16", "fp32"};
    const char *activation = activations[draw(d, sizeof activations / sizeof *activations)];
    bool clamp = one_in(d, 3), expert = one_in(d, 3), te = one_in(d, 8);
    char limit[64] = "", *content = NULL;
    if (clamp)
        snprintf(limit, sizeof limit, "activation_func_clamp_value = %g, ",
                 0.5 + 0.25 * (double)draw(d, 8));
    cr_assert(
        asprintf(&content,
                 "local act = %s\n"
                 "local config = TransformerConfig { hidden_size = %d, ffn_hidden_size = %d,\n"
                 "  activation_func = act, gated_linear_unit = %s, add_bias_linear = %s,\n"
                 "  bias_activation_fusion = %s, use_te_activation_func = %s, %s\n"
                 "  glu_linear_offset = %s, num_moe_experts = %s, params_dtype = \"%s\",\n"
                 "  save_activation = %s, gradient_accumulation_fusion = %s,\n"
                 "  delay_wgrad_compute = %s }\n"
                 "return ModuleSpec { module = MLP, params = { config = config, is_expert = %s,\n"
                 "  per_token_scale = %s }, submodules = MLPSubmodules {\n"
                 "  linear_fc1 = ColumnParallelLinear, %s\n"
                 "  linear_fc2 = ModuleSpec { module = RowParallelLinear,\n"
                 "    params = { skip_bias_add = %s } } } }\n",
                 activation, 8 * (1 + (int)draw(d, MOST_UNITS)), 8 * (1 + (int)draw(d, MOST_UNITS)),
                 flag(d, 2), flag(d, 2), flag(d, 3), te ? "true" : "false", limit,
                 one_in(d, 4) ? "0.5" : "0.0", expert || one_in(d, 2) ? "4" : "nil",
                 dtypes[draw(d, 4)], flag(d, 3), flag(d, 2), flag(d, 2), expert ? "true" : "false",
                 flag(d, 2), te ? "activation_func = act," : "",
                 one_in(d, 4) ? "false" : "true") > 0);
    return content;
}

/* Draws until a spec is legal; its text is returned. */
static char *draw_legal(drawing *d)
{
    for (int i = 0; i < TRIES; i++) {
        char *content = draw_spec(d);
        module_spec spec;
        mmlp_status status = loaded_spec_load(&spec, content);
        spec_free(&spec);
        if (status == MMLP_OK)
            return content;
        cr_assert_eq(status, MMLP_ERROR_SPEC, "%s", mmlp_last_error());
        free(content);
    }
    cr_assert(false, "no legal spec was drawn");
    return NULL;
}

/* Edges more often than their share. */
static int64_t draw_tokens(drawing *d)
{
    static const int64_t edges[] = {0, 1, 31, 32, 33, 127, 128, 129, 256, 700};
    return one_in(d, 3) ? edges[draw(d, sizeof edges / sizeof *edges)] : draw(d, MOST_TOKENS + 1);
}

/* For both families what they have of it; NULL: what the plan takes for such sizes. */
static const char *draw_tile(drawing *d)
{
    static const char *const tiles[] = {NULL,     NULL,     "128x256", "128x128",
                                        "64x256", "64x128", "64x64"};
    return tiles[draw(d, sizeof tiles / sizeof *tiles)];
}

/* ---- one draw -------------------------------------------------------------------------------- */

static bool run_draw(mmlp_context *context, uint64_t number)
{
    drawing d = {.state = (number + 1) * 0x9e3779b97f4a7c15u};
    for (int i = 0; i < 8; i++)
        draw(&d, 2);
    char *content = draw_legal(&d), *lines = NULL;
    step_options options = {.tokens = draw_tokens(&d),
                            .seed = number,
                            .beta = (int)draw(&d, 2),
                            .bias_gradients_fp32 = (int)draw(&d, 2)};
    const char *tile = draw_tile(&d);
    loaded_mlp loaded;
    training_step step;
    loaded_open(&loaded, context, content, MOST_TOKENS, 0, tile);
    step_start(&step, context, loaded.bundle, loaded.mlp, &options);
    mmlp_status status = step_run(&step, loaded.mlp);
    int failed = status != MMLP_OK;
    if (status == MMLP_OK) {
        step_download(&step);
        failed = step_check(&step, loaded.mlp, &lines);
    }
    if (failed)
        fprintf(stderr,
                "draw %llu: %lld tokens, beta %d, bias gradients %s, tile %s:\n%s%s%s"
                "REPRO: MMLP_PROPERTY_FIRST=%llu MMLP_PROPERTY_DRAWS=1\n",
                (unsigned long long)number, (long long)options.tokens, options.beta,
                options.bias_gradients_fp32 ? "fp32" : "params_dtype", tile ? tile : "of the plan",
                content, status == MMLP_OK ? "" : mmlp_last_error(), lines ? lines : "\n",
                (unsigned long long)number);
    step_finish(&step);
    loaded_close(&loaded);
    free(lines);
    free(content);
    return failed == 0;
}

static long number_of(const char *variable, long fallback)
{
    const char *value = getenv(variable);
    return value && *value ? strtol(value, NULL, 10) : fallback;
}

Test(property, a_drawn_training_step_agrees_with_fp64_at_every_stage)
{
    mmlp_context *context = loaded_device();
    long first = number_of("MMLP_PROPERTY_FIRST", 0),
         count = number_of("MMLP_PROPERTY_DRAWS", DRAWS);
    long failed = 0;
    for (long i = first; i < first + count; i++)
        failed += !run_draw(context, (uint64_t)i);
    fprintf(stderr, "property: %ld draws, %ld failed\n", count, failed);
    cr_expect_eq(failed, 0);
    mmlp_context_destroy(context);
}
