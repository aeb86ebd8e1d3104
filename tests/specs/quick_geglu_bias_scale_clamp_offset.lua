-- The MLP of tests/golden/megatron/quick_geglu_bias_scale_clamp_offset.safetensors
local config = TransformerConfig {
  hidden_size                 = 64,
  ffn_hidden_size             = 128,
  gated_linear_unit           = true,
  activation_func             = quick_gelu,
  add_bias_linear             = true,
  activation_func_clamp_value = 1.0,
  glu_linear_offset           = 1.0,
  num_moe_experts             = 2,
  expert_model_parallel_size  = 2,
  params_dtype                = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config, is_expert = true, per_token_scale = true },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
