-- An expert on two ranks: its dispatcher moves tokens and sums outputs, the MLP does not communicate.
local config = TransformerConfig {
  hidden_size                = 256,
  ffn_hidden_size            = 512,
  gated_linear_unit          = true,
  activation_func            = F.silu,
  add_bias_linear            = false,
  params_dtype               = "bf16",
  num_moe_experts            = 4,
  moe_ffn_hidden_size        = 512,
  tensor_model_parallel_size = 2,
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config, is_expert = true, per_token_scale = true },
  submodules = MLPSubmodules {
    linear_fc1 = ColumnParallelLinear,
    linear_fc2 = RowParallelLinear,
  },
}
