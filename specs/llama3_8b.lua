-- SwiGLU of Llama 3 8B; the gate is the first half of fc1, up the second
local config = TransformerConfig {
  hidden_size       = 4096,
  ffn_hidden_size   = 14336,
  gated_linear_unit = true,
  activation_func   = F.silu,
  add_bias_linear   = false,
  bias_activation_fusion       = true,
  gradient_accumulation_fusion = true,
  params_dtype      = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
