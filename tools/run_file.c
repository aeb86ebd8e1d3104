/* run_file.c: finds the microbatches of a safetensors file and checks, converts and uploads what a
 * step reads from it. */
#include "run_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run_shard.h"
#include "tool.h"

/* ---- microbatches --------------------------------------------------------------------------- */

/* N of "mbN.name", or -1 for a name that does not begin so; numbers too large give the maximum. */
static int microbatch_of(const char *name)
{
    if (strncmp(name, "mb", 2) != 0 || name[2] < '0' || name[2] > '9')
        return -1;
    int number = 0;
    const char *c = name + 2;
    for (; *c >= '0' && *c <= '9'; ++c)
        number = number < RUN_MAX_MICROBATCHES ? 10 * number + (*c - '0') : number;
    if (*c != '.')
        return -1;
    return number < RUN_MAX_MICROBATCHES ? number : RUN_MAX_MICROBATCHES;
}

static int find_microbatches(run_step *s, const safetensors *file, const char *path)
{
    const char *prefixed = NULL, *last = NULL;
    int most = 0;
    for (size_t i = 0; i < file->count; ++i) {
        int number = microbatch_of(file->tensors[i].name);
        if (number >= 0)
            prefixed = file->tensors[i].name;
        if (number > most) {
            most = number;
            last = file->tensors[i].name;
        }
    }
    if (most >= RUN_MAX_MICROBATCHES)
        return tool_fail(EXIT_INPUT, "%s: tensor '%.64s': microbatches are mb0 to mb%d", path, last,
                         RUN_MAX_MICROBATCHES - 1);
    if (prefixed && safetensors_find(file, "hidden_states"))
        return tool_fail(EXIT_INPUT,
                         "%s: has both 'hidden_states' and '%.64s': either all microbatches are "
                         "named mb0, mb1, ..., or there is one without a name",
                         path, prefixed);
    s->prefixed = prefixed != NULL;
    return run_step_start(s, most + 1);
}

/* ---- one tensor ----------------------------------------------------------------------------- */

static int same_shape(const mmlp_tensor *a, const mmlp_tensor *b)
{
    if (a->ndim != b->ndim)
        return 0;
    for (int i = 0; i < a->ndim; ++i)
        if (a->shape[i] != b->shape[i])
            return 0;
    return 1;
}

static void print_shape(char text[64], const mmlp_tensor *view)
{
    size_t length = (size_t)snprintf(text, 64, "[");
    for (int i = 0; i < view->ndim && length < 48; ++i)
        length += (size_t)snprintf(text + length, 64 - length, "%s%" PRId64, i ? ", " : "",
                                   view->shape[i]);
    snprintf(text + length, 64 - length, "]");
}

static int check_shape(const run_step *s, const run_tensor *wanted, const safetensor *found,
                       const char *path)
{
    if (same_shape(&wanted->view, &found->view))
        return 0;
    char wanted_shape[64], found_shape[64];
    print_shape(wanted_shape, &wanted->view);
    print_shape(found_shape, &found->view);
    return tool_fail(EXIT_INPUT, "%s: tensor '%s' has shape %s, %s takes %s", path, found->name,
                     found_shape, s->properties.name, wanted_shape);
}

/* Copies a file's tensor to the host tensor, from BF16 to params_dtype where they differ. */
static int convert(run_tensor *to, const safetensor *from, const char *path)
{
    const mmlp_tensor *view = &from->view;
    if (view->dtype.code == to->view.dtype.code && view->dtype.bits == to->view.dtype.bits) {
        if (to->bytes > 0)
            memcpy(to->view.data, view->data, to->bytes);
        return 0;
    }
    const char *wanted = safetensors_dtype(&to->view);
    if (view->dtype.code != MMLP_TYPE_BFLOAT)
        return tool_fail(EXIT_INPUT,
                         "%s: tensor '%s' is %s, the MLP takes %s (or BF16, which is converted)",
                         path, from->name, safetensors_dtype(view), wanted);
    fprintf(stderr, "%s: notice: '%s' is converted from BF16 to %s\n", path, from->name, wanted);
    run_tensor_from_bf16(to, view->data);
    return 0;
}

/* Why an MLP does not have what a file holds. */
static const char *reason_without(const run_step *s, run_slot slot)
{
    return slot == RUN_PER_TOKEN_SCALE && !s->properties.per_token_scale
               ? "per_token_scale = false"
               : "add_bias_linear = false";
}

static int read_tensor(run_step *s, int microbatch, run_slot slot, const safetensors *file,
                       const char *path)
{
    char name[RUN_NAME_SIZE];
    run_shard shard;
    int there;
    run_step_name(name, s, microbatch, slot);
    int code = run_shard_find(&shard, &there, s, file, name, slot);
    if (code != 0)
        return code;
    const safetensor *found = there ? &shard.tensor : NULL;
    if (!run_step_uses(s, slot)) {
        if (found && slot != RUN_GRAD_OUTPUT)
            return tool_fail(EXIT_INPUT, "%s: has a tensor '%s', but %s has none (%s)", path, name,
                             s->properties.name, reason_without(s, slot));
        return 0;
    }
    if (!found)
        return tool_fail(EXIT_INPUT, "%s: tensor '%s' is missing%s", path, name,
                         slot == RUN_GRAD_OUTPUT ? "; --pass train reads it" : "");
    run_tensor *host = run_step_host(s, microbatch, slot);
    run_tensor_describe(host, &s->properties, slot, s->microbatches[microbatch].tokens);
    code = check_shape(s, host, found, path);
    if (code == 0)
        code = run_tensor_alloc_host(host);
    if (code == 0)
        code = convert(host, found, path);
    if (code == 0)
        code = run_tensor_upload(run_step_device(s, microbatch, slot), host, s->context);
    run_shard_free(&shard);
    return code;
}

/* ---- what gradients start from -------------------------------------------------------------- */

static int read_initial(run_step *s, run_slot gradient, const safetensor *found, const char *path)
{
    run_tensor *initial = &s->initial[gradient];
    run_tensor_describe(initial, &s->properties, gradient, 0);
    int code = check_shape(s, initial, found, path);
    if (code != 0)
        return code;
    if (strcmp(safetensors_dtype(&found->view), "F32") != 0)
        return tool_fail(EXIT_INPUT, "%s: tensor '%s' is %s, a main_grad is F32", path, found->name,
                         safetensors_dtype(&found->view));
    code = run_tensor_alloc_host(initial);
    if (code == 0 && initial->bytes > 0)
        memcpy(initial->view.data, found->view.data, initial->bytes);
    return code;
}

/* main_grad_init of both weights, or of none. */
static int read_initials(run_step *s, const safetensors *file, const char *path)
{
    static const struct {
        run_slot gradient;
        const char *name;
    } weights[] = {{RUN_GRAD_FC1_WEIGHT, "main_grad_init.linear_fc1.weight"},
                   {RUN_GRAD_FC2_WEIGHT, "main_grad_init.linear_fc2.weight"}};
    run_shard shards[2] = {0};
    int found[2] = {0}, code = 0;
    for (int i = 0; code == 0 && i < 2; ++i)
        code = run_shard_find(&shards[i], &found[i], s, file, weights[i].name, weights[i].gradient);
    if (code == 0 && found[0] != found[1])
        code = tool_fail(EXIT_INPUT, "%s: has '%s', but '%s' is missing: both or none", path,
                         weights[found[0] ? 0 : 1].name, weights[found[0] ? 1 : 0].name);
    else if (code == 0 && found[0] && !s->properties.gradient_accumulation_fusion)
        code = tool_fail(EXIT_INPUT,
                         "%s: has '%s', but %s has no main_grad (gradient_accumulation_fusion = "
                         "false)",
                         path, weights[0].name, s->properties.name);
    for (int i = 0; code == 0 && found[0] && i < 2; ++i)
        code = read_initial(s, weights[i].gradient, &shards[i].tensor, path);
    for (int i = 0; i < 2; ++i)
        run_shard_free(&shards[i]);
    return code;
}

/* Of all ranks. A tensor that cannot be split over them is refused by its shape later. */
static int find_tokens(int64_t *tokens, const run_step *s, const safetensors *file,
                       const char *name)
{
    run_shard part;
    int found, code = run_shard_find(&part, &found, s, file, name, RUN_HIDDEN_STATES);
    if (code == 0 && found && part.tensor.view.ndim > 0)
        *tokens = part.tensor.shape[0] * (s->properties.sequence_parallel ? s->ranks : 1);
    run_shard_free(&part);
    return code;
}

int run_file_read(run_step *s, const safetensors *file, const char *path)
{
    int code = find_microbatches(s, file, path);
    for (int i = 0; code == 0 && i < s->count; ++i) {
        char name[RUN_NAME_SIZE];
        run_step_name(name, s, i, RUN_HIDDEN_STATES);
        code = find_tokens(&s->microbatches[i].tokens, s, file, name);
    }
    for (run_slot slot = 0; code == 0 && slot < RUN_SLOT_COUNT; ++slot) {
        run_role role = run_slot_role(slot);
        int copies = role == RUN_INPUT ? s->count : role == RUN_PARAMETER ? 1 : 0;
        for (int i = 0; code == 0 && i < copies; ++i)
            code = read_tensor(s, i, slot, file, path);
    }
    if (code == 0 && s->train)
        code = read_initials(s, file, path);
    return code;
}
