/*
 * ckpt_dict.c: what megamlp-ckpt plan and verify are about: the sharded state dict of a spec or a
 * bundle. Of a spec it takes the sizes alone, so that also an MLP that no kernel computes has one.
 */
#include <jansson.h>
#include <stdlib.h>

#include "ckpt.h"
#include "tool.h"

/* The dict of the MLP that megamlp-gen describe has printed. */
static int dict_of_description(mmlp_sharded_dict **out, const char *description,
                               const mmlp_sharded_options *options)
{
    mmlp_sharded_module module = MMLP_SHARDED_MODULE_INIT;
    json_int_t hidden_size, ffn_hidden_size, ranks;
    json_error_t error;
    json_t *object = json_loads(description, 0, &error);
    if (!object ||
        json_unpack_ex(object, &error, 0, "{s:I, s:I, s:I, s:b, s:b, s:s}", "hidden_size",
                       &hidden_size, "ffn_hidden_size", &ffn_hidden_size,
                       "tensor_model_parallel_size", &ranks, "gated_linear_unit",
                       &module.gated_linear_unit, "add_bias_linear", &module.add_bias_linear,
                       "params_dtype", &module.params_dtype) != 0) {
        json_decref(object);
        return tool_fail(EXIT_INPUT,
                         "megamlp-gen describe: its output is not what this program "
                         "reads (%s): the two are of different versions",
                         error.text);
    }
    module.hidden_size = hidden_size;
    module.ffn_hidden_size = ffn_hidden_size;
    module.tensor_model_parallel_size = ranks;
    mmlp_status status = mmlp_sharded_state_dict(out, &module, options);
    int code = status == MMLP_OK ? 0 : tool_fail_status(status);
    json_decref(object);
    return code;
}

static int dict_of_spec(mmlp_sharded_dict **out, const char *spec,
                        const mmlp_sharded_options *options)
{
    char *description;
    int code = tool_describe(&description, spec);
    if (code == 0)
        code = dict_of_description(out, description, options);
    free(description);
    return code;
}

static int dict_of_bundle(mmlp_sharded_dict **out, const char *path,
                          const mmlp_sharded_options *options)
{
    mmlp_sharded_module module = MMLP_SHARDED_MODULE_INIT;
    mmlp_bundle *bundle;
    mmlp_status status = mmlp_bundle_open(&bundle, path);
    if (status == MMLP_OK)
        status = mmlp_bundle_sharded_module(bundle, &module);
    if (status == MMLP_OK)
        status = mmlp_sharded_state_dict(out, &module, options);
    int code = status == MMLP_OK ? 0 : tool_fail_status(status);
    mmlp_bundle_close(bundle);
    return code;
}

int ckpt_dict(mmlp_sharded_dict **out, const char *spec_or_bundle,
              const mmlp_sharded_options *options)
{
    return tool_is_spec(spec_or_bundle) ? dict_of_spec(out, spec_or_bundle, options)
                                        : dict_of_bundle(out, spec_or_bundle, options);
}
