-- SwiGLU with bias in fp16.
local config = TransformerConfig {
  hidden_size       = 256,
  ffn_hidden_size   = 512,
  gated_linear_unit = true,
  activation_func   = F.silu,
  add_bias_linear   = true,
  params_dtype      = "fp16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
