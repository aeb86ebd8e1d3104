-- What meets rarely: a per-token scale with a bias that linear_fc2 itself adds, and a saved activation with delayed
-- weight gradients, in fp32.
local config = TransformerConfig {
  hidden_size       = 256,
  ffn_hidden_size   = 512,
  gated_linear_unit = true,
  activation_func   = F.silu,
  add_bias_linear   = true,
  params_dtype      = "fp32",
  save_activation     = true,
  delay_wgrad_compute = true,
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config, per_token_scale = true },
  submodules = MLPSubmodules {
    linear_fc1 = ColumnParallelLinear,
    linear_fc2 = ModuleSpec { module = RowParallelLinear, params = { skip_bias_add = false } },
  },
}
