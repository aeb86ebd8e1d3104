-- An activation of one's own: the function is called once on a symbol, and traced
local my_squared_relu = activation("my_squared_relu", function(x)
  return where(greater(x, 0), x * x, 0)
end)

local config = TransformerConfig {
  hidden_size     = 6144,
  ffn_hidden_size = 24576,
  activation_func = my_squared_relu,
  add_bias_linear = false,
  params_dtype    = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
