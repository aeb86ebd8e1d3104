/* loaded_mlp.c: see loaded_mlp.h. */
#include "loaded_mlp.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "bundle_write.h"
#include "temporary_folder.h"

#define REQUIRE(call) cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())

mmlp_context *loaded_device(void)
{
    mmlp_context *context;
    REQUIRE(mmlp_context_create(&context, NULL));
    return context;
}

static char *path_in(const char *folder, const char *name)
{
    char *path = NULL;
    cr_assert_gt(asprintf(&path, "%s/%s", folder, name), 0);
    return path;
}

mmlp_status loaded_spec_load(module_spec *out, const char *content)
{
    char *folder = temporary_folder_make(), *path = path_in(folder, "mlp.lua");
    FILE *file = fopen(path, "w");
    cr_assert(file && fputs(content, file) >= 0 && fclose(file) == 0, "%s", path);
    mmlp_status status = spec_load(out, path, NULL);
    free(path);
    temporary_folder_remove(folder);
    return status;
}

/* The bundle's name is the same for all, so that equal kernels have one entry in the cache. */
mmlp_bundle *loaded_bundle(const char *spec, const char *tile)
{
    char *folder = temporary_folder_make(), *path = path_in(folder, "mlp.mlp");
    module_spec module;
    bundle_options options = {.tile = tile};
    mmlp_bundle *bundle;
    REQUIRE(loaded_spec_load(&module, spec));
    REQUIRE(bundle_write(&module, path, &options));
    spec_free(&module);
    REQUIRE(mmlp_bundle_open(&bundle, path));
    free(path);
    temporary_folder_remove(folder);
    return bundle;
}

void loaded_open(loaded_mlp *out, mmlp_context *context, const char *spec, int64_t max_tokens,
                 int wgrad_depth, const char *tile)
{
    *out = (loaded_mlp){.context = context, .bundle = loaded_bundle(spec, tile)};
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
