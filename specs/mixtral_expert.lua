-- An expert of Mixtral; the router's probability scales each token after the activation
local config = TransformerConfig {
  hidden_size       = 4096,
  ffn_hidden_size   = 14336,
  num_moe_experts   = 8,
  gated_linear_unit = true,
  activation_func   = F.silu,
  add_bias_linear   = false,
  bias_activation_fusion = true,
  delay_wgrad_compute    = true,
  params_dtype      = "bf16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config, is_expert = true, per_token_scale = true },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
