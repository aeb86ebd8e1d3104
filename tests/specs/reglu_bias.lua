-- The MLP of tests/golden/megatron/reglu_bias.safetensors
local config = TransformerConfig {
  hidden_size       = 64,
  ffn_hidden_size   = 128,
  gated_linear_unit = true,
  activation_func   = F.relu,
  add_bias_linear   = true,
  params_dtype      = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
