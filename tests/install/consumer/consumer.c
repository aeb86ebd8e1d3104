/* consumer.c: a program of somebody else, built against the installed library alone. */
#include <megamlp/megamlp.h>
#include <stdio.h>

int main(void)
{
    mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
    mmlp_context *context = NULL;
    options.driver = "emulator";
    options.cache_dir = "";
    if (mmlp_context_create(&context, &options) != MMLP_OK) {
        fprintf(stderr, "%s\n", mmlp_last_error());
        return 1;
    }
    mmlp_device_properties device = MMLP_DEVICE_PROPERTIES_INIT;
    mmlp_context_properties(context, &device);
    printf("megamlp %s on %s, %s\n", mmlp_version(), device.name, device.arch);
    mmlp_comm_id id; /* of the NCCL beside the emulator */
    if (mmlp_comm_unique_id(&id, context) != MMLP_OK) {
        fprintf(stderr, "%s\n", mmlp_last_error());
        return 1;
    }
    mmlp_context_destroy(context);
    return 0;
}
