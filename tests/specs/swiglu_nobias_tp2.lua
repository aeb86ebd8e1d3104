-- The MLP of tests/golden/megatron/swiglu_nobias_tp2.safetensors
local config = TransformerConfig {
  hidden_size                = 32,
  ffn_hidden_size            = 64,
  gated_linear_unit          = true,
  activation_func            = F.silu,
  add_bias_linear            = false,
  tensor_model_parallel_size = 2,
  params_dtype               = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
