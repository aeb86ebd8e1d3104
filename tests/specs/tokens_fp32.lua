-- SwiGLU, for sweeps over the number of tokens.
local config = TransformerConfig {
  hidden_size       = 256,
  ffn_hidden_size   = 512,
  gated_linear_unit = true,
  activation_func   = F.silu,
  add_bias_linear   = false,
  params_dtype      = "fp32",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
