-- As many branches of the plan at once as go together
local fc1 = ModuleSpec { module = TEColumnParallelLinear, params = { init_method = init.uniform(-0.1, 0.1) } }
local config = TransformerConfig {
  hidden_size     = 1024,
  ffn_hidden_size = 4096,
  activation_func = F.relu,
  activation_func_clamp_value = 7,
  tensor_model_parallel_size  = 2,
  save_activation = true,
  num_layers      = 32,
  params_dtype    = "fp16",
}
return ModuleSpec {
  module     = MLP,
  params     = { config = config, per_token_scale = true },
  submodules = MLPSubmodules { linear_fc1 = fc1, linear_fc2 = TERowParallelLinear },
}
