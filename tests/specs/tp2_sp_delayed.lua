-- Two ranks that split the tokens, weight gradients that wait, and a bias that linear_fc2 adds.
local config = TransformerConfig {
  hidden_size                  = 256,
  ffn_hidden_size              = 512,
  gated_linear_unit            = true,
  activation_func              = F.silu,
  add_bias_linear              = true,
  params_dtype                 = "bf16",
  tensor_model_parallel_size   = 2,
  sequence_parallel            = true,
  gradient_accumulation_fusion = true,
  delay_wgrad_compute          = true,
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules {
    linear_fc1 = ColumnParallelLinear,
    linear_fc2 = ModuleSpec { module = RowParallelLinear, params = { skip_bias_add = false } },
  },
}
