/* ckpt_verify.c: megamlp-ckpt verify, whether a file holds what mmlp_checkpoint_load would want. */
#include <stdio.h>

#include "ckpt.h"
#include "tool.h"

enum { TENSORS_MAX = 6 }; /* of an MLP: two weights and biases, those of fc1 in halves */

static void print_difference(void *user, const char *line)
{
    int *count = user;
    ++*count;
    printf("%s\n", line);
}

static int compare(const char *path, const mmlp_sharded_dict *dict)
{
    mmlp_sharded_tensor places[TENSORS_MAX];
    mmlp_checkpoint_tensor tensors[TENSORS_MAX];
    mmlp_checkpoint_args args = MMLP_CHECKPOINT_ARGS_INIT;
    args.tensors = tensors;
    args.count = mmlp_sharded_tensor_count(dict);
    for (int i = 0; i < args.count; i++) {
        places[i] = (mmlp_sharded_tensor)MMLP_SHARDED_TENSOR_INIT;
        tensors[i] = (mmlp_checkpoint_tensor)MMLP_CHECKPOINT_TENSOR_INIT;
        tensors[i].tensor = &places[i];
        mmlp_sharded_tensor_get(dict, i, &places[i]);
    }
    int differences = 0;
    mmlp_status status = mmlp_checkpoint_verify(path, &args, print_difference, &differences);
    if (differences > 0)
        return EXIT_CHECK_FAILED;
    if (status != MMLP_OK)
        return tool_fail_status(status);
    printf("%s: ok\n", path);
    return 0;
}

int ckpt_verify(const char *path, const char *spec_or_bundle, const mmlp_sharded_options *options)
{
    mmlp_sharded_dict *dict = NULL;
    int code = ckpt_dict(&dict, spec_or_bundle, options);
    if (code == 0)
        code = compare(path, dict);
    mmlp_sharded_dict_free(dict);
    return code;
}
