/* loaded_mlp.c: see loaded_mlp.h. */
#include "loaded_mlp.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "bundle_write.h"
#include "spec.h"

#define REQUIRE(call) cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())

mmlp_context *loaded_device(void)
{
    mmlp_context *context;
    REQUIRE(mmlp_context_create(&context, NULL));
    return context;
}

/* The name is the same for all, so that equal kernels have one entry in the cache. */
static void write_bundle(const char *path, const char *content)
{
    module_spec spec;
    bundle_options options = {.force = true};
    FILE *file = fopen(path, "w");
    cr_assert(file && fputs(content, file) >= 0 && fclose(file) == 0);
    REQUIRE(spec_load(&spec, path, NULL));
    REQUIRE(bundle_write(&spec, "mlp.mlp", &options));
    spec_free(&spec);
}

void loaded_open(loaded_mlp *out, mmlp_context *context, const char *spec, int64_t max_tokens,
                 int wgrad_depth)
{
    char folder[] = "/tmp/mmlp-training-XXXXXX", *command = NULL;
    cr_assert(mkdtemp(folder) && chdir(folder) == 0);
    *out = (loaded_mlp){.context = context};
    write_bundle("mlp.lua", spec);
    REQUIRE(mmlp_bundle_open(&out->bundle, "mlp.mlp"));
    cr_assert(chdir("/") == 0 && asprintf(&command, "rm -rf '%s'", folder) > 0);
    cr_assert_eq(system(command), 0);
    free(command);
    mmlp_mlp_options options = MMLP_MLP_OPTIONS_INIT;
    options.max_tokens = max_tokens;
    options.wgrad_depth = wgrad_depth;
    REQUIRE(mmlp_mlp_load(&out->mlp, context, out->bundle, &options));
}

void loaded_close(loaded_mlp *loaded)
{
    mmlp_mlp_unload(loaded->mlp);
    mmlp_bundle_close(loaded->bundle);
}

char *loaded_spec(int hidden_size, int ffn_hidden_size, const char *fields, const char *params)
{
    char *content = NULL;
    cr_assert(
        asprintf(&content,
                 "local config = TransformerConfig { hidden_size = %d, ffn_hidden_size = %d,\n"
                 "  %s }\n"
                 "return ModuleSpec { module = MLP, params = { config = config, %s },\n"
                 "  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear,\n"
                 "    linear_fc2 = RowParallelLinear } }\n",
                 hidden_size, ffn_hidden_size, fields, params) > 0);
    return content;
}
