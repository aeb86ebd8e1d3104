-- The MLP of tests/golden/megatron/swiglu_accumulate.safetensors
local config = TransformerConfig {
  hidden_size                  = 64,
  ffn_hidden_size              = 128,
  gated_linear_unit            = true,
  activation_func              = F.silu,
  add_bias_linear              = false,
  params_dtype                 = "bf16",
  gradient_accumulation_fusion = true,
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config },
  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear, linear_fc2 = RowParallelLinear },
}
