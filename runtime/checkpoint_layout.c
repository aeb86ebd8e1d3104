/*
 * checkpoint_layout.c: the header of a checkpoint and the places of pieces in it, from the entries
 * of one rank. Tensors lie in the order of their element sizes, then of their keys, so that each
 * begins on a multiple of its element.
 */
#include <stdlib.h>
#include <string.h>

#include "checkpoint.h"
#include "context.h"

/* ---- one piece ------------------------------------------------------------------------------- */

static const safetensors_type *type_of(const mmlp_sharded_tensor *t)
{
    static const char *const words[][2] = {{"bf16", "BF16"}, {"fp16", "F16"}, {"fp32", "F32"}};
    for (size_t i = 0; t->dtype && i < sizeof words / sizeof words[0]; i++)
        if (strcmp(t->dtype, words[i][0]) == 0)
            return safetensors_type_named(words[i][1]);
    return NULL;
}

static mmlp_status check_key(const mmlp_sharded_tensor *t, int index)
{
    if (!memchr(t->key, '\0', sizeof t->key) || !t->key[0] || strcmp(t->key, "__metadata__") == 0)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "checkpoint tensor %d: its key is %.40s; wanted 1 to %d characters", index,
                         t->key[0] ? t->key : "empty", MMLP_SHARDED_KEY_BYTES - 1);
    for (const char *c = t->key; *c; c++)
        if (*c < ' ' || *c > '~')
            return mmlp_fail(MMLP_ERROR_ARGUMENT,
                             "checkpoint tensor %d: its key has the character %d; wanted printable "
                             "ASCII",
                             index, (unsigned char)*c);
    return MMLP_OK;
}

static mmlp_status check_axes(checkpoint_piece *piece)
{
    const mmlp_sharded_tensor *t = &piece->tensor;
    if (t->ndim < 1 || t->ndim > MMLP_SHARDED_AXES || t->prepend_axis_num < 0 ||
        t->prepend_axis_num > MMLP_SHARDED_AXES - t->ndim)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "%s: %d axes behind %d; wanted 1 to %d in all",
                         t->key, t->ndim, t->prepend_axis_num, MMLP_SHARDED_AXES);
    piece->axes = t->prepend_axis_num + t->ndim;
    for (int i = 0; i < piece->axes; i++) {
        int64_t extent = i < t->prepend_axis_num ? 1 : t->local_shape[i - t->prepend_axis_num];
        piece->extent[i] = extent;
        if (extent < 1 || t->global_offset[i] < 0 || extent > t->global_shape[i] ||
            t->global_offset[i] > t->global_shape[i] - extent)
            return mmlp_fail(MMLP_ERROR_ARGUMENT,
                             "%s: axis %d has %lld from %lld on; wanted a part of the stored %lld",
                             t->key, i, (long long)extent, (long long)t->global_offset[i],
                             (long long)t->global_shape[i]);
    }
    return MMLP_OK;
}

static mmlp_status take_piece(checkpoint_piece *piece, const mmlp_checkpoint_tensor *taken,
                              int index, bool needs_data)
{
    piece->tensor = (mmlp_sharded_tensor)MMLP_SHARDED_TENSOR_INIT;
    piece->memory = taken->data;
    MMLP_TRY(
        struct_read(&piece->tensor, taken->tensor, sizeof piece->tensor, "mmlp_sharded_tensor"));
    MMLP_TRY(check_key(&piece->tensor, index));
    MMLP_TRY(check_axes(piece));
    uint64_t bytes;
    const safetensors_type *type = type_of(&piece->tensor);
    if (!type)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "%s: dtype is %.32s; wanted bf16, fp16 or fp32",
                         piece->tensor.key, piece->tensor.dtype ? piece->tensor.dtype : "NULL");
    if (!safetensors_bytes(&bytes, type, piece->tensor.global_shape, piece->axes))
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "%s: the stored tensor is larger than a file can be",
                         piece->tensor.key);
    if (needs_data && !piece->memory)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "%s: data is NULL", piece->tensor.key);
    return MMLP_OK;
}

static mmlp_status take_pieces(checkpoint_layout *out, const mmlp_checkpoint_args *args,
                               bool needs_data)
{
    if (args->count < 1 || !args->tensors)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "mmlp_checkpoint_args: %d tensors are given%s; wanted 1 or more",
                         args->count, args->tensors ? "" : " at NULL");
    size_t count = (size_t)args->count, stride = args->tensors->struct_size;
    out->pieces = calloc(count, sizeof *out->pieces);
    if (!out->pieces)
        return mmlp_fail_memory(count * sizeof *out->pieces, "the pieces of a checkpoint");
    out->piece_count = count;
    for (size_t i = 0; i < count; i++) {
        const char *element = (const char *)args->tensors + i * stride;
        mmlp_checkpoint_tensor taken = MMLP_CHECKPOINT_TENSOR_INIT;
        MMLP_TRY(struct_read(&taken, element, sizeof taken, "mmlp_checkpoint_tensor"));
        MMLP_TRY(take_piece(&out->pieces[i], &taken, (int)i, needs_data));
    }
    return MMLP_OK;
}

/* ---- the stored tensors ---------------------------------------------------------------------- */

static int by_key(const void *left, const void *right)
{
    const checkpoint_piece *a = left, *b = right;
    return strcmp(a->tensor.key, b->tensor.key);
}

static int by_element_then_name(const void *left, const void *right)
{
    const safetensors_entry *a = left, *b = right;
    if (a->type->bits != b->type->bits)
        return a->type->bits > b->type->bits ? -1 : 1;
    return strcmp(a->name, b->name);
}

void checkpoint_print_shape(text *out, const safetensors_entry *entry)
{
    for (int i = 0; i < entry->ndim; i++)
        text_printf(out, "%s%lld", i ? ", " : "[", (long long)entry->shape[i]);
    text_puts(out, entry->ndim ? "]" : "[]");
}

static mmlp_status fail_entries(const safetensors_entry *a, const safetensors_entry *b)
{
    text line = TEXT_INIT;
    text_printf(&line, "%s: one entry says %s ", a->name, a->type->word);
    checkpoint_print_shape(&line, a);
    text_printf(&line, ", another %s ", b->type->word);
    checkpoint_print_shape(&line, b);
    mmlp_status status = mmlp_fail(MMLP_ERROR_ARGUMENT, "%s", text_string(&line));
    text_free(&line);
    return status;
}

/* Two entries of one key, next to each other. */
static mmlp_status check_same(const safetensors_entry *a, const safetensors_entry *b)
{
    bool same = a->type == b->type && a->ndim == b->ndim &&
                memcmp(a->shape, b->shape, sizeof a->shape) == 0;
    return same ? MMLP_OK : fail_entries(a, b);
}

/* The stored tensor of a piece, unless the last one is that. */
static mmlp_status add_entry(safetensors_header *header, const checkpoint_piece *piece)
{
    const mmlp_sharded_tensor *t = &piece->tensor;
    safetensors_entry *last = header->count ? &header->entries[header->count - 1] : NULL;
    safetensors_entry entry = {.name = (char *)t->key, .type = type_of(t), .ndim = piece->axes};
    memcpy(entry.shape, t->global_shape, (size_t)piece->axes * sizeof entry.shape[0]);
    if (last && strcmp(last->name, t->key) == 0)
        return check_same(last, &entry);
    entry.name = strdup(t->key);
    if (!entry.name)
        return mmlp_fail_memory(strlen(t->key), "a key");
    header->entries[header->count++] = entry;
    return MMLP_OK;
}

static mmlp_status place_entries(safetensors_header *header)
{
    uint64_t end = 0, bytes;
    qsort(header->entries, header->count, sizeof *header->entries, by_element_then_name);
    for (size_t i = 0; i < header->count; i++) {
        safetensors_entry *entry = &header->entries[i];
        entry->begin = end;
        if (!safetensors_bytes(&bytes, entry->type, entry->shape, entry->ndim) ||
            __builtin_add_overflow(end, bytes, &end) || end > INT64_MAX / 2)
            return mmlp_fail(MMLP_ERROR_ARGUMENT, "%s: the file would be larger than one can be",
                             entry->name);
        entry->end = end;
    }
    return MMLP_OK;
}

static mmlp_status build_header(checkpoint_layout *out)
{
    safetensors_header *header = &out->header;
    qsort(out->pieces, out->piece_count, sizeof *out->pieces, by_key);
    header->entries = calloc(out->piece_count, sizeof *header->entries);
    if (!header->entries)
        return mmlp_fail_memory(out->piece_count * sizeof *header->entries, "a header");
    for (size_t i = 0; i < out->piece_count; i++)
        MMLP_TRY(add_entry(header, &out->pieces[i]));
    MMLP_TRY(place_entries(header));
    for (size_t i = 0; i < out->piece_count; i++) {
        const mmlp_sharded_tensor *t = &out->pieces[i].tensor;
        const safetensors_entry wanted = {.name = (char *)t->key, .type = type_of(t)};
        out->pieces[i].entry = bsearch(&wanted, header->entries, header->count,
                                       sizeof *header->entries, by_element_then_name);
    }
    return MMLP_OK;
}

mmlp_status checkpoint_layout_build(checkpoint_layout *out, const mmlp_checkpoint_args *args,
                                    bool needs_data)
{
    *out = (checkpoint_layout){0};
    MMLP_TRY(take_pieces(out, args, needs_data));
    return build_header(out);
}

void checkpoint_layout_free(checkpoint_layout *layout)
{
    safetensors_header_free(&layout->header);
    free(layout->pieces);
    *layout = (checkpoint_layout){0};
}
