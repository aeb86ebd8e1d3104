-- The MLP of tests/golden/megatron/gelu_tanh_fused_bias_tp2.safetensors
local config = TransformerConfig {
  hidden_size                = 32,
  ffn_hidden_size            = 64,
  activation_func            = F.gelu,
  add_bias_linear            = true,
  bias_activation_fusion     = true,
  tensor_model_parallel_size = 2,
  params_dtype               = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
