/* header.h: a program that includes the public header first, and uses every initialiser. */
#include <megamlp/megamlp.h>

int use_every_initialiser(void);

int use_every_initialiser(void)
{
    mmlp_context_options context = MMLP_CONTEXT_OPTIONS_INIT;
    mmlp_device_properties device = MMLP_DEVICE_PROPERTIES_INIT;
    mmlp_bundle_properties bundle = MMLP_BUNDLE_PROPERTIES_INIT;
    mmlp_reference_forward_args reference = MMLP_REFERENCE_FORWARD_ARGS_INIT;
    mmlp_reference_backward_args reference_backward = MMLP_REFERENCE_BACKWARD_ARGS_INIT;
    mmlp_mlp_options mlp = MMLP_MLP_OPTIONS_INIT;
    mmlp_memory memory = MMLP_MEMORY_INIT;
    mmlp_buffer_view view = MMLP_BUFFER_VIEW_INIT;
    mmlp_forward_args forward = MMLP_FORWARD_ARGS_INIT;
    mmlp_dgrad_args dgrad = MMLP_DGRAD_ARGS_INIT;
    mmlp_init_args init = MMLP_INIT_ARGS_INIT;
    mmlp_kernel_properties kernel = MMLP_KERNEL_PROPERTIES_INIT;
    mmlp_sharded_module module = MMLP_SHARDED_MODULE_INIT;
    mmlp_sharded_options sharded = MMLP_SHARDED_OPTIONS_INIT;
    mmlp_sharded_tensor tensor = MMLP_SHARDED_TENSOR_INIT;
    mmlp_sharded_object object = MMLP_SHARDED_OBJECT_INIT;
    mmlp_checkpoint_tensor piece = MMLP_CHECKPOINT_TENSOR_INIT;
    mmlp_checkpoint_args checkpoint = MMLP_CHECKPOINT_ARGS_INIT;
    return context.struct_size && device.struct_size && bundle.struct_size &&
           reference.struct_size && reference_backward.struct_size && mlp.struct_size &&
           memory.struct_size && view.struct_size && forward.struct_size && dgrad.struct_size &&
           init.struct_size && kernel.struct_size && module.struct_size && sharded.struct_size &&
           tensor.struct_size && object.struct_size && piece.struct_size && checkpoint.struct_size;
}
