-- The MLP of tests/golden/megatron/swiglu_bias_clamp.safetensors
local config = TransformerConfig {
  hidden_size                 = 64,
  ffn_hidden_size             = 128,
  gated_linear_unit           = true,
  activation_func             = F.silu,
  add_bias_linear             = true,
  activation_func_clamp_value = 1.0,
  num_moe_experts             = 2,
  params_dtype                = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
