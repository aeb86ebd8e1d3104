-- Two ranks: a per-token scale, and the bias of linear_fc2 times it.
local config = TransformerConfig {
  hidden_size                = 256,
  ffn_hidden_size            = 512,
  gated_linear_unit          = true,
  activation_func            = F.silu,
  add_bias_linear            = true,
  params_dtype               = "fp16",
  tensor_model_parallel_size = 2,
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config, per_token_scale = true },
  submodules = MLPSubmodules {
    linear_fc1 = ColumnParallelLinear,
    linear_fc2 = RowParallelLinear,
  },
}
