/*
 * checkpoint_compare.c: what a file says that it holds, beside what is wanted. Every difference is
 * one line that names the tensor, what was found and what was wanted.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "checkpoint.h"

/* ---- reading --------------------------------------------------------------------------------- */

static mmlp_status fail_format(const char *path, const text *problem)
{
    return mmlp_fail(MMLP_ERROR_FORMAT, "%s: %s", path,
                     problem->failed ? "out of memory" : text_string(problem));
}

static mmlp_status read_length(size_t *out, const checkpoint_file *file, uint64_t file_bytes)
{
    unsigned char first[SAFETENSORS_LENGTH_BYTES] = {0};
    text problem = TEXT_INIT;
    mmlp_status status = MMLP_OK;
    if (file_bytes >= sizeof first)
        status = checkpoint_read_at(file, (char *)first, sizeof first, 0);
    if (status == MMLP_OK && !safetensors_header_length(out, first, file_bytes, &problem))
        status = fail_format(file->path, &problem);
    text_free(&problem);
    return status;
}

mmlp_status checkpoint_read_header(safetensors_header *out, uint64_t *data_start, int descriptor,
                                   const char *path)
{
    const checkpoint_file file = {.descriptor = descriptor, .path = path};
    struct stat properties;
    size_t length;
    *out = (safetensors_header)SAFETENSORS_HEADER_INIT;
    if (fstat(descriptor, &properties) != 0)
        return mmlp_fail(MMLP_ERROR_IO, "%s: cannot read: %s", path, strerror(errno));
    if (!S_ISREG(properties.st_mode))
        return mmlp_fail(MMLP_ERROR_FORMAT, "%s: is not a regular file", path);
    uint64_t file_bytes = (uint64_t)properties.st_size;
    MMLP_TRY(read_length(&length, &file, file_bytes));
    *data_start = SAFETENSORS_LENGTH_BYTES + length;
    char *json = malloc(length + 1);
    if (!json)
        return mmlp_fail_memory(length, "the header of a checkpoint");
    text problem = TEXT_INIT;
    mmlp_status status = checkpoint_read_at(&file, json, length, SAFETENSORS_LENGTH_BYTES);
    if (status == MMLP_OK &&
        !safetensors_header_parse(out, json, length, file_bytes - *data_start, &problem))
        status = fail_format(path, &problem);
    text_free(&problem);
    free(json);
    return status;
}

/* ---- comparing ------------------------------------------------------------------------------- */

typedef struct comparison {
    const safetensors_header *found, *wanted;
    const char *path;
    void (*report)(void *user, const char *line);
    void *user;
    mmlp_status status; /* with the first difference as its line */
} comparison;

static void differ(comparison *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void differ(comparison *c, const char *format, ...)
{
    text line = TEXT_INIT;
    text_printf(&line, "%s: ", c->path);
    va_list args;
    va_start(args, format);
    text_vprintf(&line, format, args);
    va_end(args);
    if (c->report)
        c->report(c->user, text_string(&line));
    if (c->status == MMLP_OK)
        c->status = mmlp_fail(MMLP_ERROR_SHAPE, "%s", text_string(&line));
    text_free(&line);
}

/* Whether the file has the gate and up of `name` on their own. */
static bool has_singletons(const safetensors_header *header, const char *name)
{
    text key = TEXT_INIT;
    text_printf(&key, "%s_w", name);
    bool has = safetensors_header_find(header, text_string(&key)) != NULL;
    text_free(&key);
    return has;
}

/* Whether `name` is the gate or up of a tensor that the file has as one. */
static bool has_whole(const safetensors_header *header, const char *name)
{
    size_t length = strlen(name);
    if (length < 3 ||
        (strcmp(name + length - 2, "_w") != 0 && strcmp(name + length - 2, "_v") != 0))
        return false;
    text key = TEXT_INIT;
    text_append(&key, name, length - 2);
    bool has = safetensors_header_find(header, text_string(&key)) != NULL;
    text_free(&key);
    return has;
}

static void compare_entry(comparison *c, const safetensors_entry *wanted)
{
    const char *name = wanted->name;
    const safetensors_entry *found = safetensors_header_find(c->found, name);
    if (!found) {
        const char *why = "";
        if (has_singletons(c->found, name))
            why = "; the file has gate and up by themselves (singleton_local_shards)";
        else if (has_whole(c->found, name))
            why = "; the file has gate and up in one tensor (no singleton_local_shards)";
        differ(c, "tensor '%s' is missing%s", name, why);
        return;
    }
    if (found->type != wanted->type)
        differ(c, "tensor '%s' is %s; wanted %s", name, found->type->word, wanted->type->word);
    if (found->ndim == wanted->ndim &&
        memcmp(found->shape, wanted->shape, (size_t)found->ndim * sizeof found->shape[0]) == 0)
        return;
    text shapes[2] = {TEXT_INIT, TEXT_INIT};
    checkpoint_print_shape(&shapes[0], found);
    checkpoint_print_shape(&shapes[1], wanted);
    differ(c, "tensor '%s' has the shape %s; wanted %s", name, text_string(&shapes[0]),
           text_string(&shapes[1]));
    text_free(&shapes[0]);
    text_free(&shapes[1]);
}

mmlp_status checkpoint_compare(const safetensors_header *found, const safetensors_header *wanted,
                               const char *path, void (*report)(void *user, const char *line),
                               void *user)
{
    comparison c = {found, wanted, path, report, user, MMLP_OK};
    for (size_t i = 0; i < wanted->count; i++)
        compare_entry(&c, &wanted->entries[i]);
    for (size_t i = 0; i < found->count; i++)
        if (!safetensors_header_find(wanted, found->entries[i].name))
            differ(&c, "tensor '%s' is not wanted", found->entries[i].name);
    return c.status;
}
