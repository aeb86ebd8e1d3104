/*
 * ckpt_plan.c: megamlp-ckpt plan, the entries of one rank as JSON. Of a spec it takes the sizes
 * alone, so that also an MLP that no kernel computes has a plan.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "ckpt.h"
#include "tool.h"

/* ---- the MLP --------------------------------------------------------------------------------- */

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

/* ---- JSON ------------------------------------------------------------------------------------ */

static json_t *list_of(const int64_t *values, int count)
{
    json_t *list = json_array();
    for (int i = 0; i < count; i++)
        json_array_append_new(list, json_integer(values[i]));
    return list;
}

static json_t *describe_tensor(const mmlp_sharded_dict *dict, int index)
{
    mmlp_sharded_tensor t = MMLP_SHARDED_TENSOR_INIT;
    if (mmlp_sharded_tensor_get(dict, index, &t) != MMLP_OK)
        return NULL;
    int axes = t.prepend_axis_num + t.ndim;
    return json_pack("{ss, ss, so, so, so, so, so, si}", "key", t.key, "dtype", t.dtype,
                     "local_shape", list_of(t.local_shape, t.ndim), "global_shape",
                     list_of(t.global_shape, axes), "global_offset", list_of(t.global_offset, axes),
                     "axis_fragmentations", list_of(t.axis_fragmentations, axes), "replica_id",
                     list_of(t.replica_id, 3), "prepend_axis_num", t.prepend_axis_num);
}

static json_t *describe_object(const mmlp_sharded_dict *dict, int index)
{
    mmlp_sharded_object o = MMLP_SHARDED_OBJECT_INIT;
    if (mmlp_sharded_object_get(dict, index, &o) != MMLP_OK)
        return NULL;
    return json_pack("{ss, so, so, so}", "key", o.key, "global_shape",
                     list_of(o.global_shape, o.ndim), "global_offset",
                     list_of(o.global_offset, o.ndim), "replica_id", list_of(o.replica_id, 3));
}

/* A list of entries, each on a line of its own. Returns whether there was memory for all. */
static int print_list(const char *name, const mmlp_sharded_dict *dict, int count,
                      json_t *(*describe)(const mmlp_sharded_dict *dict, int index))
{
    printf("  \"%s\": [", name);
    int good = 1;
    for (int i = 0; i < count; i++) {
        json_t *entry = describe(dict, i);
        printf("%s\n    ", i ? "," : "");
        char *line = json_dumps(entry, 0);
        if (line)
            fputs(line, stdout);
        else
            good = 0;
        free(line);
        json_decref(entry);
    }
    printf("\n  ]");
    return good;
}

static int print(const mmlp_sharded_dict *dict)
{
    printf("{\n");
    int good = print_list("tensors", dict, mmlp_sharded_tensor_count(dict), describe_tensor);
    printf(",\n");
    good = print_list("objects", dict, mmlp_sharded_object_count(dict), describe_object) && good;
    printf("\n}\n");
    return good ? 0 : tool_fail(EXIT_DEVICE, "out of memory");
}

int ckpt_plan(const char *spec_or_bundle, const mmlp_sharded_options *options)
{
    mmlp_sharded_dict *dict = NULL;
    int code = tool_is_spec(spec_or_bundle) ? dict_of_spec(&dict, spec_or_bundle, options)
                                            : dict_of_bundle(&dict, spec_or_bundle, options);
    if (code == 0)
        code = print(dict);
    mmlp_sharded_dict_free(dict);
    return code;
}
