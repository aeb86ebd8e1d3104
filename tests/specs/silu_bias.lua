-- The MLP of tests/golden/megatron/silu_bias.safetensors
local config = TransformerConfig {
  hidden_size     = 64,
  ffn_hidden_size = 128,
  activation_func = F.silu,
  add_bias_linear = true,
  params_dtype    = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
