-- Two ranks that split the tokens, in fp32, with a per-token scale.
local config = TransformerConfig {
  hidden_size                = 256,
  ffn_hidden_size            = 512,
  gated_linear_unit          = true,
  activation_func            = F.silu,
  add_bias_linear            = false,
  params_dtype               = "fp32",
  tensor_model_parallel_size = 2,
  sequence_parallel          = true,
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config, per_token_scale = true },
  submodules = MLPSubmodules {
    linear_fc1 = ColumnParallelLinear,
    linear_fc2 = RowParallelLinear,
  },
}
