-- specs/mish.lua: Mish, x * tanh(softplus(x))
local mish = activation("mish", function(x) return x * tanh(softplus(x)) end)

local config = TransformerConfig {
  hidden_size     = 4096,
  ffn_hidden_size = 16384,
  activation_func = mish,
  params_dtype    = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
