/*
 * safetensors.c: reads and writes safetensors files. Used by the tools; must not trust a single
 * byte of what it reads.
 */
#include "safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_HEADER_BYTES = 100 * 1000 * 1000 }; /* the format's own limit */

/* X(word, type code, bits) */
#define SAFETENSORS_TYPES(X)                                                                       \
    X("F64", MMLP_TYPE_FLOAT, 64)                                                                  \
    X("F32", MMLP_TYPE_FLOAT, 32)                                                                  \
    X("F16", MMLP_TYPE_FLOAT, 16)                                                                  \
    X("BF16", MMLP_TYPE_BFLOAT, 16)                                                                \
    X("I64", MMLP_TYPE_INT, 64)                                                                    \
    X("I32", MMLP_TYPE_INT, 32)                                                                    \
    X("I16", MMLP_TYPE_INT, 16)                                                                    \
    X("I8", MMLP_TYPE_INT, 8)                                                                      \
    X("U8", MMLP_TYPE_UINT, 8)

static const struct {
    const char *word;
    uint8_t code, bits;
} types[] = {
#define TYPE_ROW(word, code, bits) {word, code, bits},
    SAFETENSORS_TYPES(TYPE_ROW)
#undef TYPE_ROW
};
enum { TYPE_COUNT = sizeof types / sizeof types[0] };

const char *safetensors_dtype(const mmlp_tensor *view)
{
    for (int i = 0; i < TYPE_COUNT; ++i)
        if (types[i].code == view->dtype.code && types[i].bits == view->dtype.bits)
            return types[i].word;
    return "?";
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

/* Reads one header entry into `tensor`; the name is already there. */
static int read_entry(safetensor *tensor, const json_t *entry, char *bytes, size_t available,
                      const char *path, char **error)
{
    const char *name = tensor->name;
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    json_t *shape = json_object_get(entry, "shape");
    json_t *offsets = json_object_get(entry, "data_offsets");
    if (!dtype || !json_is_array(shape) || !json_is_array(offsets) || json_array_size(offsets) != 2)
        return fail(error, path, "tensor '%s': needs a dtype, a shape and two data_offsets", name);

    int type = 0;
    while (type < TYPE_COUNT && strcmp(types[type].word, dtype) != 0)
        ++type;
    if (type == TYPE_COUNT)
        return fail(error, path, "tensor '%s': dtype \"%.40s\" is not supported", name, dtype);

    size_t rank = json_array_size(shape);
    if (rank > sizeof tensor->shape / sizeof tensor->shape[0])
        return fail(error, path, "tensor '%s': has %zu dimensions; at most 8 are supported", name,
                    rank);
    size_t bytes_needed = types[type].bits / 8;
    for (size_t i = 0; i < rank; ++i) {
        json_t *size = json_array_get(shape, i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return fail(error, path, "tensor '%s': shape[%zu] is not a size", name, i);
        tensor->shape[i] = (int64_t)json_integer_value(size);
        if (__builtin_mul_overflow(bytes_needed, (size_t)tensor->shape[i], &bytes_needed))
            return fail(error, path, "tensor '%s': its shape is larger than memory", name);
    }

    json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (!json_is_integer(first) || !json_is_integer(last))
        return fail(error, path, "tensor '%s': data_offsets are not integers", name);
    json_int_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin || (uint64_t)end > available)
        return fail(error, path,
                    "tensor '%s': data_offsets [%" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT
                    "] lie outside the file's %zu bytes of data",
                    name, begin, end, available);
    if ((uint64_t)(end - begin) != bytes_needed)
        return fail(error, path,
                    "tensor '%s': data_offsets span %" JSON_INTEGER_FORMAT
                    " bytes, its shape and dtype need %zu",
                    name, end - begin, bytes_needed);

    tensor->bytes = bytes_needed;
    tensor->view.data = bytes + begin;
    tensor->view.device.device_type = MMLP_DEVICE_CPU;
    tensor->view.ndim = (int32_t)rank;
    tensor->view.dtype.code = types[type].code;
    tensor->view.dtype.bits = types[type].bits;
    tensor->view.dtype.lanes = 1;
    return 1;
}

static int by_offset(const void *left, const void *right)
{
    const safetensor *a = left, *b = right;
    const char *a_data = a->view.data, *b_data = b->view.data;
    if (a_data != b_data)
        return a_data < b_data ? -1 : 1;
    return a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

static int read_header(safetensors *out, const json_t *header, char *bytes, size_t available,
                       const char *path, char **error)
{
    out->tensors = calloc(json_object_size(header) + 1, sizeof *out->tensors);
    if (!out->tensors)
        return fail(error, path, "out of memory");

    const char *name;
    json_t *entry;
    json_object_foreach((json_t *)header, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        safetensor *tensor = &out->tensors[out->count];
        if (!(tensor->name = strdup(name)))
            return fail(error, path, "out of memory");
        ++out->count;
        if (!read_entry(tensor, entry, bytes, available, path, error))
            return 0;
    }

    qsort(out->tensors, out->count, sizeof *out->tensors, by_offset);
    const char *end = bytes;
    for (size_t i = 0; i < out->count; ++i) {
        safetensor *tensor = &out->tensors[i];
        tensor->view.shape = tensor->shape; /* now that it no longer moves */
        const char *begin = tensor->view.data;
        if (begin < end)
            return fail(error, path, "tensors '%s' and '%s' overlap", out->tensors[i - 1].name,
                        tensor->name);
        end = begin + tensor->bytes;
    }
    return 1;
}

static int read_mapping(safetensors *out, const char *path, char **error)
{
    const unsigned char *start = out->mapping;
    uint64_t header_bytes = 0;
    if (out->mapping_bytes < 8)
        return fail(error, path, "%zu bytes are too few for a safetensors file",
                    out->mapping_bytes);
    for (int i = 7; i >= 0; --i)
        header_bytes = header_bytes << 8 | start[i];
    if (header_bytes > MAX_HEADER_BYTES)
        return fail(error, path, "claims a header of %" PRIu64 " bytes; at most %d are allowed",
                    header_bytes, MAX_HEADER_BYTES);
    if (header_bytes > out->mapping_bytes - 8)
        return fail(error, path, "header of %" PRIu64 " bytes is longer than the file",
                    header_bytes);

    json_error_t problem;
    json_t *header =
        json_loadb((const char *)start + 8, (size_t)header_bytes, JSON_REJECT_DUPLICATES, &problem);
    if (!header)
        return fail(error, path, "header is not valid JSON: %s (byte %d)", problem.text,
                    problem.position);
    int ok = 0;
    if (!json_is_object(header))
        fail(error, path, "header is not a JSON object");
    else
        ok = read_header(out, header, (char *)out->mapping + 8 + header_bytes,
                         out->mapping_bytes - 8 - (size_t)header_bytes, path, error);
    json_decref(header);
    return ok;
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

/* The header, padded with spaces to a multiple of 8; NULL when out of memory. */
static char *make_header(const safetensor *tensors, size_t count)
{
    json_t *header = json_object();
    size_t offset = 0;
    for (size_t i = 0; i < count; ++i) {
        json_t *shape = json_array();
        for (int d = 0; d < tensors[i].view.ndim; ++d)
            json_array_append_new(shape, json_integer(tensors[i].view.shape[d]));
        json_object_set_new(header, tensors[i].name,
                            json_pack("{s:s, s:o, s:[I, I]}", "dtype",
                                      safetensors_dtype(&tensors[i].view), "shape", shape,
                                      "data_offsets", (json_int_t)offset,
                                      (json_int_t)(offset + tensors[i].bytes)));
        offset += tensors[i].bytes;
    }
    char *compact = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    if (!compact)
        return NULL;
    size_t padded = (strlen(compact) + 7) / 8 * 8;
    char *result = NULL;
    if (asprintf(&result, "%-*s", (int)padded, compact) < 0)
        result = NULL;
    free(compact);
    return result;
}

int safetensors_write(const char *path, const safetensor *tensors, size_t count, char **error)
{
    *error = NULL;
    struct stat properties;
    if (stat(path, &properties) == 0 && !S_ISREG(properties.st_mode))
        return fail(error, path, "exists and is not a regular file; it is not replaced");
    char *temporary = NULL;
    char *header = make_header(tensors, count);
    if (!header || asprintf(&temporary, "%s.%ld", path, (long)getpid()) < 0) {
        free(header);
        return fail(error, path, "out of memory");
    }
    int ok = 0;
    FILE *file = fopen(temporary, "wbe");
    if (file) {
        uint64_t header_bytes = strlen(header);
        unsigned char length[8];
        for (int i = 0; i < 8; ++i)
            length[i] = (unsigned char)(header_bytes >> (8 * i));
        ok = fwrite(length, 1, 8, file) == 8 &&
             fwrite(header, 1, header_bytes, file) == header_bytes;
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
