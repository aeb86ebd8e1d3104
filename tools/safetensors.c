/*
 * safetensors.c: reads and writes safetensors files. Used by the tools; must not trust a single
 * byte of what it reads.
 */
#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/safetensors_header.h"

const char *safetensors_dtype(const mmlp_tensor *view)
{
    const safetensors_type *type = safetensors_type_of(view->dtype.code, view->dtype.bits);
    return type ? type->word : "?";
}

static int fail(char **error, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(char **error, const char *path, const char *format, ...)
{
    char *what = NULL;
    va_list args;
    va_start(args, format);
    if (vasprintf(&what, format, args) < 0)
        what = NULL;
    va_end(args);
    if (asprintf(error, "%s: %s", path, what ? what : "out of memory") < 0)
        *error = NULL;
    free(what);
    return 0;
}

/* Moves the entries of `header` to tensors inside the mapping. */
static int take_entries(safetensors *out, safetensors_header *header, char *bytes)
{
    out->tensors = calloc(header->count + 1, sizeof *out->tensors);
    if (!out->tensors)
        return 0;
    for (; out->count < header->count; out->count++) {
        safetensors_entry *entry = &header->entries[out->count];
        safetensor *tensor = &out->tensors[out->count];
        tensor->name = entry->name;
        entry->name = NULL;
        memcpy(tensor->shape, entry->shape, sizeof tensor->shape);
        tensor->bytes = (size_t)(entry->end - entry->begin);
        tensor->view.data = bytes + entry->begin;
        tensor->view.device.device_type = MMLP_DEVICE_CPU;
        tensor->view.ndim = entry->ndim;
        tensor->view.shape = tensor->shape;
        tensor->view.dtype.code = entry->type->code;
        tensor->view.dtype.bits = entry->type->bits;
        tensor->view.dtype.lanes = 1;
    }
    return 1;
}

static int read_mapping(safetensors *out, const char *path, char **error)
{
    safetensors_header header = SAFETENSORS_HEADER_INIT;
    text problem = TEXT_INIT;
    char *start = out->mapping;
    size_t length;
    int good = 0;
    if (safetensors_header_length(&length, out->mapping, out->mapping_bytes, &problem)) {
        size_t before = SAFETENSORS_LENGTH_BYTES + length;
        good = safetensors_header_parse(&header, start + SAFETENSORS_LENGTH_BYTES, length,
                                        out->mapping_bytes - before, &problem) &&
               take_entries(out, &header, start + before);
    }
    if (!good)
        fail(error, path, "%s", problem.length ? text_string(&problem) : "out of memory");
    safetensors_header_free(&header);
    text_free(&problem);
    return good;
}

int safetensors_open(safetensors *out, const char *path, char **error)
{
    memset(out, 0, sizeof *out);
    *error = NULL;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return fail(error, path, "cannot open: %s", strerror(errno));
    struct stat properties;
    if (fstat(descriptor, &properties) != 0 || !S_ISREG(properties.st_mode)) {
        close(descriptor);
        return fail(error, path, "is not a regular file");
    }
    out->mapping_bytes = (size_t)properties.st_size;
    if (out->mapping_bytes > 0) {
        out->mapping = mmap(NULL, out->mapping_bytes, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (out->mapping == MAP_FAILED) {
            out->mapping = NULL;
            close(descriptor);
            return fail(error, path, "cannot map: %s", strerror(errno));
        }
    }
    close(descriptor);
    if (!read_mapping(out, path, error)) {
        safetensors_close(out);
        return 0;
    }
    return 1;
}

void safetensors_close(safetensors *file)
{
    for (size_t i = 0; i < file->count; ++i)
        free(file->tensors[i].name);
    free(file->tensors);
    if (file->mapping)
        munmap(file->mapping, file->mapping_bytes);
    memset(file, 0, sizeof *file);
}

const safetensor *safetensors_find(const safetensors *file, const char *name)
{
    for (size_t i = 0; i < file->count; ++i)
        if (strcmp(file->tensors[i].name, name) == 0)
            return &file->tensors[i];
    return NULL;
}

/* The file up to the tensors; NULL when out of memory. */
static char *make_header(size_t *bytes, const safetensor *tensors, size_t count)
{
    safetensors_header header = {calloc(count + 1, sizeof *header.entries), count};
    uint64_t end = 0;
    if (!header.entries)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        const mmlp_tensor *view = &tensors[i].view;
        safetensors_entry *entry = &header.entries[i];
        *entry = (safetensors_entry){
            .name = tensors[i].name,
            .type = safetensors_type_of(view->dtype.code, view->dtype.bits),
            .ndim = view->ndim,
            .begin = end,
            .end = end + tensors[i].bytes,
        };
        memcpy(entry->shape, view->shape, (size_t)view->ndim * sizeof *view->shape);
        end = entry->end;
    }
    char *made = safetensors_header_make(bytes, &header);
    free(header.entries);
    return made;
}

int safetensors_write(const char *path, const safetensor *tensors, size_t count, char **error)
{
    *error = NULL;
    struct stat properties;
    if (stat(path, &properties) == 0 && !S_ISREG(properties.st_mode))
        return fail(error, path, "exists and is not a regular file; it is not replaced");
    char *temporary = NULL;
    size_t header_bytes;
    char *header = make_header(&header_bytes, tensors, count);
    if (!header || asprintf(&temporary, "%s.%ld", path, (long)getpid()) < 0) {
        free(header);
        return fail(error, path, "out of memory");
    }
    int ok = 0;
    FILE *file = fopen(temporary, "wbe");
    if (file) {
        ok = fwrite(header, 1, header_bytes, file) == header_bytes;
        for (size_t i = 0; ok && i < count; ++i)
            ok = fwrite(tensors[i].view.data, 1, tensors[i].bytes, file) == tensors[i].bytes;
        ok = fflush(file) == 0 && ok;
        ok = fsync(fileno(file)) == 0 && ok;
        ok = fclose(file) == 0 && ok;
        ok = ok && rename(temporary, path) == 0;
    }
    if (!ok) {
        fail(error, path, "cannot write: %s", strerror(errno));
        if (file)
            unlink(temporary);
    }
    free(temporary);
    free(header);
    return ok;
}
