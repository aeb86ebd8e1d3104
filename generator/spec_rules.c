/*
 * spec_rules.c: what fits together. One table of rules, each with its reason; those of Megatron in
 * Megatron's words. What Megatron refuses in its config is a rule; what it refuses only when
 * forward runs is an accident of its kernels, works here, and has no row.
 */
#include <math.h>
#include <stdlib.h>

#include "spec_loader.h"

/* What a rule looks at: the config's own values, and those of the MLP where there is one. */
typedef struct facts {
    const spec_config *config;
    spec_activation activation;
    bool activation_takes_up;
    const spec_mlp *mlp;
    const spec_linear *linear_fc1, *linear_fc2;
} facts;

static bool is_fused(const facts *f)
{
    return f->config->bias_activation_fusion;
}

static bool fused_other(const facts *f)
{
    return is_fused(f) && f->activation != SPEC_ACTIVATION_gelu &&
           f->activation != SPEC_ACTIVATION_silu && f->activation != SPEC_ACTIVATION_quick_gelu;
}

static bool fused_gelu_without_bias(const facts *f)
{
    return is_fused(f) && f->activation == SPEC_ACTIVATION_gelu && !f->config->gated_linear_unit &&
           !f->config->add_bias_linear;
}

static bool fused_quick_gelu_not_gated(const facts *f)
{
    return is_fused(f) && f->activation == SPEC_ACTIVATION_quick_gelu &&
           !f->config->gated_linear_unit;
}

static bool fused_offset(const facts *f)
{
    return is_fused(f) && f->config->glu_linear_offset != 0 &&
           f->activation != SPEC_ACTIVATION_quick_gelu;
}

static bool fused_and_te(const facts *f)
{
    return is_fused(f) && f->config->use_te_activation_func;
}

static bool te_other(const facts *f)
{
    return f->config->use_te_activation_func && f->activation != SPEC_ACTIVATION_gelu &&
           f->activation != SPEC_ACTIVATION_silu && f->activation != SPEC_ACTIVATION_relu;
}

static bool gating_without_gate(const facts *f)
{
    return f->activation_takes_up && !f->config->gated_linear_unit;
}

static bool has_clamp(const facts *f)
{
    return f->config->activation_func_clamp_value.given;
}

static bool clamp_not_positive(const facts *f)
{
    double value = f->config->activation_func_clamp_value.value;
    return has_clamp(f) && !(isfinite(value) && value > 0);
}

static bool swiglu_clamp(const facts *f)
{
    return has_clamp(f) && f->activation == SPEC_ACTIVATION_silu && f->config->gated_linear_unit;
}

static bool swiglu_clamp_without_experts(const facts *f)
{
    return swiglu_clamp(f) && !f->config->num_moe_experts.given;
}

static bool swiglu_clamp_with_offset(const facts *f)
{
    return swiglu_clamp(f) && f->config->glu_linear_offset != 0;
}

static bool swiglu_clamp_with_te(const facts *f)
{
    return swiglu_clamp(f) && f->config->use_te_activation_func;
}

static bool offset_not_finite(const facts *f)
{
    return !isfinite(f->config->glu_linear_offset);
}

static bool init_std_not_finite(const facts *f)
{
    return !isfinite(f->config->init_method_std) || f->config->init_method_std < 0;
}

static bool fp8_store(const facts *f)
{
    return f->config->activation_func_fp8_input_store;
}

static bool fp8_store_not_swiglu(const facts *f)
{
    return fp8_store(f) && (f->activation != SPEC_ACTIVATION_silu || !f->config->gated_linear_unit);
}

static bool fp8_store_of_swiglu(const facts *f)
{
    return fp8_store(f) && !fp8_store_not_swiglu(f);
}

static bool sequence_without_tensor_parallel(const facts *f)
{
    return f->config->sequence_parallel && f->config->tensor_model_parallel_size <= 1;
}

static bool expert_bias_split(const facts *f)
{
    const spec_optional_integer *etp = &f->config->expert_tensor_parallel_size;
    int64_t ranks = etp->given ? etp->value : f->config->tensor_model_parallel_size;
    return f->config->num_moe_experts.given && f->config->add_bias_linear && ranks > 1;
}

static bool expert_without_experts(const facts *f)
{
    return f->mlp->is_expert && !f->config->num_moe_experts.given;
}

static bool input_size_differs(const facts *f)
{
    return f->mlp->input_size.given && f->mlp->input_size.value != f->config->hidden_size;
}

static int64_t whole_ffn(const spec_config *config, const spec_mlp *mlp)
{
    if (mlp->is_expert && config->moe_ffn_hidden_size.given)
        return config->moe_ffn_hidden_size.value;
    return config->ffn_hidden_size;
}

static bool ffn_hidden_size_differs(const facts *f)
{
    return f->mlp->ffn_hidden_size.given &&
           f->mlp->ffn_hidden_size.value != whole_ffn(f->config, f->mlp);
}

static bool gather_output_split(const facts *f)
{
    return f->linear_fc1->gather_output;
}

static bool input_not_parallel(const facts *f)
{
    return !f->linear_fc2->input_is_parallel;
}

static bool folded_bias_split(const facts *f)
{
    return f->config->sequence_parallel && f->config->add_bias_linear && f->mlp->per_token_scale &&
           !f->mlp->is_expert && f->linear_fc2->skip_bias_add;
}

static bool stride_differs(const facts *f)
{
    const spec_optional_integer *stride = &f->linear_fc1->stride;
    return stride->given && stride->value != (f->config->gated_linear_unit ? 2 : 1);
}

typedef struct rule {
    bool (*broken)(const facts *f);
    int field; /* where the message points */
    const char *message;
} rule;

static const rule config_rules[] = {
    {fused_other, CONFIG_activation_func,
     "When bias_activation_fusion is True, activation function should be either gelu, swiglu, or "
     "quick_geglu"},
    {fused_gelu_without_bias, CONFIG_add_bias_linear,
     "When bias_activation_fusion is True, gated_linear_unit is False, and activation function is "
     "gelu, add_bias_linear must also be True."},
    {fused_quick_gelu_not_gated, CONFIG_gated_linear_unit,
     "When bias_activation_fusion is True and activation function is quick_gelu, gated_linear_unit "
     "must be True."},
    {fused_offset, CONFIG_glu_linear_offset,
     "When bias_activation_fusion is True and glu_linear_offset is non-zero, activation function "
     "must be quick_gelu."},
    {fused_and_te, CONFIG_use_te_activation_func,
     "bias_activation_fusion and use_te_activation_func cannot be both true. If you use bias in "
     "MLP FC1, we recommend setting bias_activation_fusion to True and use_te_activation_func to "
     "False."},
    {te_other, CONFIG_activation_func,
     "TransformerEngine only support gelu, geglu, silu, swiglu, relu, reglu. If you don't want to "
     "use TransformerEngine activation function, set use_te_activation_func to False"},
    {gating_without_gate, CONFIG_activation_func,
     "the activation is a function of gate and up; it needs gated_linear_unit = true"},
    {clamp_not_positive, CONFIG_activation_func_clamp_value,
     "activation_func_clamp_value must be a finite positive number"},
    {swiglu_clamp_without_experts, CONFIG_activation_func_clamp_value,
     "activation_func_clamp_value with SwiGLU needs num_moe_experts"},
    {swiglu_clamp_with_offset, CONFIG_glu_linear_offset,
     "activation_func_clamp_value with SwiGLU needs glu_linear_offset 0"},
    {swiglu_clamp_with_te, CONFIG_use_te_activation_func,
     "activation_func_clamp_value with SwiGLU and use_te_activation_func cannot be combined"},
    {offset_not_finite, CONFIG_glu_linear_offset, "glu_linear_offset must be finite"},
    {init_std_not_finite, CONFIG_init_method_std, "init_method_std must be finite and at least 0"},
    {fp8_store_not_swiglu, CONFIG_activation_func_fp8_input_store,
     "Storing activation input in FP8 is supported only for SwiGLU."},
    {fp8_store_of_swiglu, CONFIG_activation_func_fp8_input_store,
     "not supported yet: TransformerConfig.activation_func_fp8_input_store (fc1_output saved in "
     "fp8)"},
    {sequence_without_tensor_parallel, CONFIG_sequence_parallel,
     "Can not use sequence parallelism without tensor parallelism"},
    {expert_bias_split, CONFIG_add_bias_linear,
     "Bias in Moe is only supported when expert_tensor_parallel_size is 1"},
};

static const rule mlp_rules[] = {
    {expert_without_experts, MLP_is_expert,
     "ModuleSpec.params.is_expert: the config has no num_moe_experts"},
    {input_size_differs, MLP_input_size,
     "ModuleSpec.params.input_size differs from the config's hidden_size"},
    {ffn_hidden_size_differs, MLP_ffn_hidden_size,
     "ModuleSpec.params.ffn_hidden_size differs from the config's: fc2 always takes its input size "
     "from the config"},
    {folded_bias_split, MLP_per_token_scale,
     "ModuleSpec.params.per_token_scale: its fc2 bias is added to a rank's part of the tokens "
     "(sequence_parallel), and the scale is of all of them; add_bias_linear = false, or "
     "skip_bias_add = false of fc2"},
};

static const rule fc1_rules[] = {
    {gather_output_split, LINEAR_gather_output,
     "ModuleSpec.params.gather_output: the MLP needs the columns of a rank to stay there; false is "
     "what it passes"},
    {stride_differs, LINEAR_stride,
     "ModuleSpec.params.stride: must be 2 when gated_linear_unit, else 1"},
};

static const rule fc2_rules[] = {
    {input_not_parallel, LINEAR_input_is_parallel,
     "ModuleSpec.params.input_is_parallel: the activation is split over ranks; true is what the "
     "MLP "
     "passes"},
};

#define CHECK_RULES(lua, rules, f, places)                                                         \
    check_rules(lua, rules, sizeof(rules) / sizeof *(rules), f, places)

static void check_rules(lua_State *lua, const rule *rules, size_t count, const facts *f,
                        const spec_place *places)
{
    for (size_t i = 0; i < count; i++)
        if (rules[i].broken(f))
            loader_mistake(lua, places[rules[i].field], "%s", rules[i].message);
}

/* ---- sizes ----------------------------------------------------------------------------------- */

/* Whether every rank gets what its kernels need of a size, a multiple of 8; with any_size, no more
 * than a whole share. */
static bool check_size(lua_State *lua, spec_place place, const char *size_name, int64_t size,
                       const char *ranks_name, int64_t ranks)
{
    const bool any_size = loader_of(lua)->options->any_size;
    const char *wanted = any_size ? "a whole number" : "a multiple of 8";
    int64_t unit = any_size ? ranks : 8 * ranks;
    if (size % unit == 0)
        return true;
    int64_t below = size / unit * unit, above = below + unit;
    int64_t nearest = below > 0 && size - below <= above - size ? below : above;
    if (ranks == 1)
        loader_mistake(lua, place, "%s %lld is not %s; nearest that works: %lld", size_name,
                       (long long)size, wanted, (long long)nearest);
    else
        loader_mistake(lua, place, "%s %lld / %s %lld = %.10g is not %s; nearest that works: %lld",
                       size_name, (long long)size, ranks_name, (long long)ranks,
                       (double)size / (double)ranks, wanted, (long long)nearest);
    return false;
}

static int64_t expert_ranks(const spec_config *config)
{
    return config->expert_tensor_parallel_size.given ? config->expert_tensor_parallel_size.value
                                                     : config->tensor_model_parallel_size;
}

void rules_check_config(lua_State *lua, const spec_config_object *object)
{
    const spec_config *config = &object->config;
    const spec_traced *activation = &loader_of(lua)->activations[config->activation_func];
    facts f = {.config = config,
               .activation = activation->identity,
               .activation_takes_up = activation->takes_up};
    bool good = check_size(lua, object->places[CONFIG_hidden_size], "hidden_size",
                           config->hidden_size, "", 1);
    bool follows = config->ffn_hidden_size == 4 * config->hidden_size;
    if (good || !follows)
        check_size(lua, object->places[CONFIG_ffn_hidden_size], "ffn_hidden_size",
                   config->ffn_hidden_size, "tensor_model_parallel_size",
                   config->tensor_model_parallel_size);
    CHECK_RULES(lua, config_rules, &f, object->places);
}

static void check_te_submodule(lua_State *lua, const spec_mlp_object *object)
{
    const spec_config *config = &object->config.config;
    const spec_submodules_object *submodules = &object->submodules;
    if (!config->use_te_activation_func)
        return;
    if (submodules->activation < 0)
        loader_mistake(lua, submodules->call,
                       "MLPSubmodules.activation_func is missing: use_te_activation_func needs it");
    else if (submodules->activation != config->activation_func)
        loader_mistake(lua, submodules->places[2],
                       "MLPSubmodules.activation_func: %s differs from the config's %s",
                       loader_of(lua)->activations[submodules->activation].name,
                       loader_of(lua)->activations[config->activation_func].name);
}

void rules_check_mlp(lua_State *lua, const spec_mlp_object *object)
{
    const spec_config_object *config = &object->config;
    facts f = {.config = &config->config,
               .activation = loader_of(lua)->activations[config->config.activation_func].identity,
               .mlp = &object->mlp,
               .linear_fc1 = &object->submodules.linear_fc1.linear,
               .linear_fc2 = &object->submodules.linear_fc2.linear};
    CHECK_RULES(lua, mlp_rules, &f, object->places);
    CHECK_RULES(lua, fc1_rules, &f, object->submodules.linear_fc1.places);
    CHECK_RULES(lua, fc2_rules, &f, object->submodules.linear_fc2.places);
    check_te_submodule(lua, object);
    if (object->mlp.is_expert) {
        bool own = config->config.moe_ffn_hidden_size.given;
        check_size(lua, config->places[own ? CONFIG_moe_ffn_hidden_size : CONFIG_ffn_hidden_size],
                   own ? "moe_ffn_hidden_size" : "ffn_hidden_size",
                   whole_ffn(&config->config, &object->mlp), "expert_tensor_parallel_size",
                   expert_ranks(&config->config));
    }
}

int64_t spec_tensor_parallel_size(const module_spec *spec)
{
    return spec->mlp.is_expert ? expert_ranks(&spec->config)
                               : spec->config.tensor_model_parallel_size;
}

int64_t spec_ffn_hidden_size(const module_spec *spec)
{
    return whole_ffn(&spec->config, &spec->mlp);
}

bool spec_explicit_expert_comm(const module_spec *spec)
{
    return spec->mlp.is_expert &&
           (expert_ranks(&spec->config) > 1 || spec->config.expert_model_parallel_size > 1);
}

/* ---- warnings: what Megatron ignores without a word ------------------------------------------ */

void rules_warn(text *warnings, const module_spec *spec, bool activation_submodule)
{
    const spec_config *config = &spec->config;
    const char *where = NULL;
    if (!config->gated_linear_unit)
        where = "gated_linear_unit is false";
    else if (config->use_te_activation_func)
        where = "use_te_activation_func is true";
    else if (config->bias_activation_fusion && spec->activation == SPEC_ACTIVATION_gelu)
        where = "the fused GEGLU has none";
    if (where && config->activation_func_clamp_value.given)
        text_printf(warnings, "activation_func_clamp_value is ignored, as in Megatron: %s\n",
                    where);
    if (where && config->glu_linear_offset != 0)
        text_printf(warnings, "glu_linear_offset is ignored, as in Megatron: %s\n", where);
    if (activation_submodule && !config->use_te_activation_func)
        text_puts(warnings, "MLPSubmodules.activation_func is ignored, as in Megatron: "
                            "use_te_activation_func is false\n");
}
