/* ckpt_plan.c: megamlp-ckpt plan, the entries of one rank as JSON. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "ckpt.h"
#include "tool.h"

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
    int code = ckpt_dict(&dict, spec_or_bundle, options);
    if (code == 0)
        code = print(dict);
    mmlp_sharded_dict_free(dict);
    return code;
}
