-- Two ranks: a bias that linear_fc2 adds to what they have summed.
local config = TransformerConfig {
  hidden_size                = 256,
  ffn_hidden_size            = 512,
  gated_linear_unit          = true,
  activation_func            = F.silu,
  add_bias_linear            = true,
  params_dtype               = "bf16",
  tensor_model_parallel_size = 2,
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules {
    linear_fc1 = ColumnParallelLinear,
    linear_fc2 = ModuleSpec { module = RowParallelLinear, params = { skip_bias_add = false } },
  },
}
