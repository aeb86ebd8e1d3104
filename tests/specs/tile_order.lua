-- llama3_8b with a short reduction: as many tiles, and few FLOPs.
local config = TransformerConfig {
  hidden_size       = 64,
  ffn_hidden_size   = 14336,
  gated_linear_unit = true,
  activation_func   = F.silu,
  add_bias_linear   = false,
  params_dtype      = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
