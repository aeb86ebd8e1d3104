-- Sizes that no tile divides, not gated.
local config = TransformerConfig {
  hidden_size       = 104,
  ffn_hidden_size   = 328,
  gated_linear_unit = false,
  activation_func   = F.silu,
  add_bias_linear   = true,
  params_dtype      = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
