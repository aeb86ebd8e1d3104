-- The MLP of tests/golden/megatron/geglu_tanh_fused_bias.safetensors
local config = TransformerConfig {
  hidden_size            = 64,
  ffn_hidden_size        = 128,
  gated_linear_unit      = true,
  activation_func        = F.gelu,
  add_bias_linear        = true,
  bias_activation_fusion = true,
  params_dtype           = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
