-- examples/train_c/model_tp2.lua: that of model.lua on two tensor-parallel ranks
local config = TransformerConfig {
  hidden_size       = 64,
  ffn_hidden_size   = 128,
  num_layers        = 2,
  gated_linear_unit = true,
  activation_func   = F.silu,
  add_bias_linear   = false,
  init_method_std   = 0.125,
  params_dtype      = "bf16",
  tensor_model_parallel_size   = 2,
  gradient_accumulation_fusion = true,
  delay_wgrad_compute          = true,
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
