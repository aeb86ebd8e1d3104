/* describe.c: what megamlp-gen describe prints. */
#include "describe.h"

#include <jansson.h>
#include <stdlib.h>

mmlp_status describe_print(FILE *out, const module_spec *spec)
{
    const int64_t ranks = spec_tensor_parallel_size(spec);
    json_t *object = json_pack(
        "{s:I, s:I, s:I, s:b, s:b, s:s}", "hidden_size", (json_int_t)spec->config.hidden_size,
        "ffn_hidden_size", (json_int_t)(spec_ffn_hidden_size(spec) / ranks),
        "tensor_model_parallel_size", (json_int_t)ranks, "gated_linear_unit",
        (int)spec->config.gated_linear_unit, "add_bias_linear", (int)spec->config.add_bias_linear,
        "params_dtype", spec_dtype_name(spec->config.params_dtype));
    char *printed = json_dumps(object, JSON_INDENT(2));
    json_decref(object);
    if (!printed)
        return mmlp_fail_memory(256, "the description of a spec");
    fprintf(out, "%s\n", printed);
    free(printed);
    return MMLP_OK;
}
