-- SwiGLU with bias whose weight gradients wait for backward_dw, and which keeps its activation until then.
local config = TransformerConfig {
  hidden_size                  = 256,
  ffn_hidden_size              = 512,
  gated_linear_unit            = true,
  activation_func              = F.silu,
  add_bias_linear              = true,
  params_dtype                 = "bf16",
  gradient_accumulation_fusion = true,
  delay_wgrad_compute          = true,
  save_activation              = true,
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
