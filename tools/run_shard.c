/* run_shard.c: the part of a whole tensor that one tensor-parallel rank has. */
#include "run_shard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

/* Block r of each of `halves` parts of the columns of a matrix, or of its rows. */
typedef struct split {
    int64_t rows, row_bytes; /* of the whole */
    int64_t parts, part, halves;
} split;

static void copy_rows(char *to, const char *from, const split *s)
{
    int64_t half = s->rows / s->halves, block = half / s->parts;
    for (int64_t h = 0; h < s->halves; ++h)
        memcpy(to + h * block * s->row_bytes, from + (h * half + s->part * block) * s->row_bytes,
               (size_t)(block * s->row_bytes));
}

static int take_part(run_shard *shard, const safetensor *whole, const run_step *s, int axis,
                     int halves)
{
    const mmlp_tensor *view = &whole->view;
    int64_t size = view->shape[axis], rows = axis == 1 ? view->shape[0] : 1;
    int64_t bytes = (int64_t)whole->bytes / s->ranks;
    shard->owned = malloc((size_t)bytes + 1);
    if (!shard->owned)
        return tool_fail(EXIT_DEVICE, "out of memory: a part of '%s'", whole->name);
    /* Along axis 1 each row is split by itself. */
    split each = {.rows = size,
                  .row_bytes = size > 0 ? (int64_t)whole->bytes / rows / size : 0,
                  .parts = s->ranks,
                  .part = s->rank,
                  .halves = halves};
    for (int64_t row = 0; row < rows; ++row)
        copy_rows((char *)shard->owned + row * bytes / rows,
                  (const char *)view->data + row * (int64_t)whole->bytes / rows, &each);
    shard->tensor.shape[axis] = size / s->ranks;
    shard->tensor.view.shape = shard->tensor.shape;
    shard->tensor.view.data = shard->owned;
    shard->tensor.bytes = (size_t)bytes;
    return 0;
}

int run_shard_find(run_shard *out, int *found, const run_step *s, const safetensors *file,
                   const char *name, run_slot slot)
{
    char of_rank[RUN_NAME_SIZE + 16];
    *out = (run_shard){0};
    snprintf(of_rank, sizeof of_rank, "rank%d.%s", s->rank, name);
    const safetensor *own = s->ranks > 1 ? safetensors_find(file, of_rank) : NULL;
    const safetensor *whole = own ? own : safetensors_find(file, name);
    *found = own || (whole && (s->ranks == 1 || !run_slot_is_partial(&s->properties, slot)));
    if (!*found)
        return 0;
    out->tensor = *whole;
    out->tensor.view.shape = out->tensor.shape; /* of this copy */
    int halves, axis = run_slot_split(&halves, &s->properties, slot);
    int splits = !own && s->ranks > 1 && axis >= 0 && axis < whole->view.ndim &&
                 whole->view.shape[axis] % (halves * s->ranks) == 0 && whole->bytes > 0;
    return splits ? take_part(out, whole, s, axis, halves) : 0;
}

void run_shard_free(run_shard *shard)
{
    free(shard->owned);
    *shard = (run_shard){0};
}
