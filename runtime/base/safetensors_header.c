/*
 * safetensors_header.c: reads and makes the header of a safetensors file. Must not trust a single
 * byte of what it reads.
 */
#include "base/safetensors_header.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include <megamlp/megamlp.h>

enum {
    MAX_HEADER_BYTES = 100 * 1000 * 1000, /* the format's own limit */
    HEADER_ALIGNMENT = 64
};

static const safetensors_type types[] = {
    {"F64", MMLP_TYPE_FLOAT, 64},   {"F32", MMLP_TYPE_FLOAT, 32}, {"F16", MMLP_TYPE_FLOAT, 16},
    {"BF16", MMLP_TYPE_BFLOAT, 16}, {"I64", MMLP_TYPE_INT, 64},   {"I32", MMLP_TYPE_INT, 32},
    {"I16", MMLP_TYPE_INT, 16},     {"I8", MMLP_TYPE_INT, 8},     {"U8", MMLP_TYPE_UINT, 8},
};
enum { TYPE_COUNT = sizeof types / sizeof types[0] };

const safetensors_type *safetensors_type_named(const char *word)
{
    for (int i = 0; i < TYPE_COUNT; i++)
        if (strcmp(types[i].word, word) == 0)
            return &types[i];
    return NULL;
}

const safetensors_type *safetensors_type_of(uint8_t code, uint8_t bits)
{
    for (int i = 0; i < TYPE_COUNT; i++)
        if (types[i].code == code && types[i].bits == bits)
            return &types[i];
    return NULL;
}

void safetensors_header_free(safetensors_header *header)
{
    for (size_t i = 0; i < header->count; i++)
        free(header->entries[i].name);
    free(header->entries);
    *header = (safetensors_header)SAFETENSORS_HEADER_INIT;
}

const safetensors_entry *safetensors_header_find(const safetensors_header *header, const char *name)
{
    for (size_t i = 0; i < header->count; i++)
        if (strcmp(header->entries[i].name, name) == 0)
            return &header->entries[i];
    return NULL;
}

bool safetensors_bytes(uint64_t *out, const safetensors_type *type, const int64_t *shape, int ndim)
{
    *out = type->bits / 8;
    for (int i = 0; i < ndim; i++)
        if (__builtin_mul_overflow(*out, (uint64_t)shape[i], out) || *out > INT64_MAX)
            return false;
    return true;
}

static bool fail(text *problem, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool fail(text *problem, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    text_vprintf(problem, format, args);
    va_end(args);
    return false;
}

/* ---- reading --------------------------------------------------------------------------------- */

bool safetensors_header_length(size_t *out, const unsigned char *first, uint64_t file_bytes,
                               text *problem)
{
    if (file_bytes < SAFETENSORS_LENGTH_BYTES)
        return fail(problem, "%" PRIu64 " bytes are too few for a safetensors file", file_bytes);
    uint64_t length = 0;
    for (int i = SAFETENSORS_LENGTH_BYTES - 1; i >= 0; i--)
        length = length << 8 | first[i];
    if (length > MAX_HEADER_BYTES)
        return fail(problem, "claims a header of %" PRIu64 " bytes; at most %d are allowed", length,
                    MAX_HEADER_BYTES);
    if (length > file_bytes - SAFETENSORS_LENGTH_BYTES)
        return fail(problem, "header of %" PRIu64 " bytes is longer than the file", length);
    *out = (size_t)length;
    return true;
}

static bool read_shape(safetensors_entry *entry, const json_t *shape, text *problem)
{
    size_t rank = json_array_size(shape);
    if (rank > SAFETENSORS_AXES)
        return fail(problem, "tensor '%s': has %zu dimensions; at most %d are supported",
                    entry->name, rank, SAFETENSORS_AXES);
    entry->ndim = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        const json_t *size = json_array_get(shape, i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return fail(problem, "tensor '%s': shape[%zu] is not a size", entry->name, i);
        entry->shape[i] = json_integer_value(size);
    }
    return true;
}

static bool read_offsets(safetensors_entry *entry, const json_t *offsets, uint64_t data_bytes,
                         text *problem)
{
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (!json_is_integer(first) || !json_is_integer(last))
        return fail(problem, "tensor '%s': data_offsets are not integers", entry->name);
    json_int_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin || (uint64_t)end > data_bytes)
        return fail(problem,
                    "tensor '%s': data_offsets [%" JSON_INTEGER_FORMAT ", %" JSON_INTEGER_FORMAT
                    "] lie outside the file's %" PRIu64 " bytes of data",
                    entry->name, begin, end, data_bytes);
    entry->begin = (uint64_t)begin;
    entry->end = (uint64_t)end;
    uint64_t needed;
    if (!safetensors_bytes(&needed, entry->type, entry->shape, entry->ndim))
        return fail(problem, "tensor '%s': its shape is larger than memory", entry->name);
    if (entry->end - entry->begin != needed)
        return fail(problem,
                    "tensor '%s': data_offsets span %" PRIu64
                    " bytes, its shape and dtype need %" PRIu64,
                    entry->name, entry->end - entry->begin, needed);
    return true;
}

/* Reads one entry; its name is already there. */
static bool read_entry(safetensors_entry *entry, const json_t *json, uint64_t data_bytes,
                       text *problem)
{
    const char *word = json_string_value(json_object_get(json, "dtype"));
    const json_t *shape = json_object_get(json, "shape");
    const json_t *offsets = json_object_get(json, "data_offsets");
    for (const char *c = entry->name; *c; c++)
        if ((unsigned char)*c < ' ')
            return fail(problem, "a tensor's name has the character %d", *c);
    if (!word || !json_is_array(shape) || !json_is_array(offsets) || json_array_size(offsets) != 2)
        return fail(problem, "tensor '%s': needs a dtype, a shape and two data_offsets",
                    entry->name);
    entry->type = safetensors_type_named(word);
    if (!entry->type)
        return fail(problem, "tensor '%s': dtype \"%.40s\" is not supported", entry->name, word);
    return read_shape(entry, shape, problem) && read_offsets(entry, offsets, data_bytes, problem);
}

static int by_place(const void *left, const void *right)
{
    const safetensors_entry *a = left, *b = right;
    if (a->begin != b->begin)
        return a->begin < b->begin ? -1 : 1;
    return a->end < b->end ? -1 : a->end > b->end;
}

static bool check_places(const safetensors_header *header, uint64_t data_bytes, text *problem)
{
    uint64_t end = 0;
    for (size_t i = 0; i < header->count; i++) {
        const safetensors_entry *entry = &header->entries[i];
        if (entry->begin < end)
            return fail(problem, "tensors '%s' and '%s' overlap", header->entries[i - 1].name,
                        entry->name);
        if (entry->begin > end)
            return fail(problem, "%" PRIu64 " bytes before tensor '%s' belong to none",
                        entry->begin - end, entry->name);
        end = entry->end;
    }
    if (end < data_bytes)
        return fail(problem, "%" PRIu64 " bytes behind the last tensor belong to none",
                    data_bytes - end);
    return true;
}

static bool read_entries(safetensors_header *out, json_t *object, uint64_t data_bytes,
                         text *problem)
{
    const char *name;
    json_t *json;
    out->entries = calloc(json_object_size(object) + 1, sizeof *out->entries);
    if (!out->entries)
        return fail(problem, "out of memory");
    json_object_foreach(object, name, json)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        safetensors_entry *entry = &out->entries[out->count];
        if (!(entry->name = strdup(name)))
            return fail(problem, "out of memory");
        out->count++;
        if (!read_entry(entry, json, data_bytes, problem))
            return false;
    }
    qsort(out->entries, out->count, sizeof *out->entries, by_place);
    return check_places(out, data_bytes, problem);
}

bool safetensors_header_parse(safetensors_header *out, const char *json, size_t length,
                              uint64_t data_bytes, text *problem)
{
    *out = (safetensors_header)SAFETENSORS_HEADER_INIT;
    json_error_t error;
    json_t *object = json_loadb(json, length, JSON_REJECT_DUPLICATES, &error);
    bool good = false;
    if (!object)
        fail(problem, "header is not valid JSON: %s (byte %d)", error.text, error.position);
    else if (!json_is_object(object))
        fail(problem, "header is not a JSON object");
    else
        good = read_entries(out, object, data_bytes, problem);
    json_decref(object);
    if (!good)
        safetensors_header_free(out);
    return good;
}

/* ---- making ---------------------------------------------------------------------------------- */

static json_t *make_entry(const safetensors_entry *entry)
{
    json_t *shape = json_array();
    for (int i = 0; i < entry->ndim; i++)
        json_array_append_new(shape, json_integer(entry->shape[i]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", entry->type->word, "shape", shape,
                     "data_offsets", (json_int_t)entry->begin, (json_int_t)entry->end);
}

char *safetensors_header_make(size_t *bytes, const safetensors_header *header)
{
    json_t *object = json_object();
    bool good = object != NULL;
    for (size_t i = 0; good && i < header->count; i++)
        good = json_object_set_new(object, header->entries[i].name,
                                   make_entry(&header->entries[i])) == 0;
    char *json = good ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!json)
        return NULL;
    size_t length = strlen(json);
    *bytes = (SAFETENSORS_LENGTH_BYTES + length + HEADER_ALIGNMENT - 1) / HEADER_ALIGNMENT *
             HEADER_ALIGNMENT;
    char *made = malloc(*bytes);
    if (made) {
        for (int i = 0; i < SAFETENSORS_LENGTH_BYTES; i++)
            made[i] = (char)((*bytes - SAFETENSORS_LENGTH_BYTES) >> (8 * i));
        memset(made + SAFETENSORS_LENGTH_BYTES, ' ', *bytes - SAFETENSORS_LENGTH_BYTES);
        memcpy(made + SAFETENSORS_LENGTH_BYTES, json, length);
    }
    free(json);
    return made;
}
