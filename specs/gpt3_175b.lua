-- GELU with bias of GPT-3 175B, tensor parallel 8 with sequence parallelism
local config = TransformerConfig {
  hidden_size     = 12288,
  ffn_hidden_size = 4 * 12288,
  activation_func = F.gelu,
  add_bias_linear = true,
  bias_activation_fusion     = true, -- the tanh form, as in Megatron; without fusion F.gelu is the erf form
  tensor_model_parallel_size = 8,
  sequence_parallel          = true,
  params_dtype    = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
