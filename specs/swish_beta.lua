-- specs/swish_beta.lua: Swish with a slope of its own, x * sigmoid(beta * x), gated
local beta = 1.25

local swish = activation("swish_beta", function(x) return x * sigmoid(beta * x) end)

local config = TransformerConfig {
  hidden_size       = 4096,
  ffn_hidden_size   = 11008,
  gated_linear_unit = true,
  activation_func   = swish,
  add_bias_linear   = false,
  params_dtype      = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
