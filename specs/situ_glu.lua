-- specs/situ_glu.lua: SiTU-GLU, a gated activation that is a function of both halves: the gate's tanh and
-- sigmoid times a bounded up
local gate_limit, up_limit = 4, 25

local situ_glu = activation("situ_glu", function(gate, up)
  return gate_limit * tanh(gate / gate_limit) * sigmoid(gate) * (up_limit * tanh(up / up_limit))
end)

local config = TransformerConfig {
  hidden_size       = 4096,
  ffn_hidden_size   = 11008,
  gated_linear_unit = true,
  activation_func   = situ_glu,
  add_bias_linear   = false,
  params_dtype      = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
