-- specs/bounded_squared_relu.lua: squared ReLU whose root is bounded by tanh: (s * tanh(relu(x) / s))^2
local bound = 6

local bounded_squared_relu = activation("bounded_squared_relu", function(x)
  local root = bound * tanh(F.relu(x) / bound)
  return root * root
end)

local config = TransformerConfig {
  hidden_size     = 4096,
  ffn_hidden_size = 16384,
  activation_func = bounded_squared_relu,
  add_bias_linear = false,
  params_dtype    = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
