/*
 * ptxrun_parameters.c: parameters of kernels as raw bytes: scalars, addresses, tensor maps, and
 * structures of them laid out as C lays them out.
 */
#include <stdlib.h>
#include <string.h>

#include "ptxrun.h"
#include "tool.h"

enum { DEEPEST_STRUCT = 16, LARGEST_ALIGN = 128 };

typedef struct reader {
    const buffer *buffers;
    size_t buffer_count;
    int depth;
} reader;

/* Room for a field of that size behind what is there; its place in *at. */
static int take(parameter *out, size_t *place, const json_path *at, size_t count, size_t align)
{
    *place = (out->count + align - 1) / align * align;
    if (count > PTXRUN_PARAMETER_BYTES || *place + count > PTXRUN_PARAMETER_BYTES)
        return json_path_say(at, "found more than %d bytes, all that a kernel can take",
                             PTXRUN_PARAMETER_BYTES);
    unsigned char *bytes = realloc(out->bytes, *place + count);
    if (!bytes)
        return tool_fail(EXIT_DEVICE, "out of memory: %zu bytes", *place + count);
    memset(bytes + out->count, 0, *place + count - out->count);
    out->bytes = bytes;
    out->count = *place + count;
    if (align > out->align)
        out->align = align;
    return 0;
}

static int take_slot(parameter_slot **slot, parameter *out, const json_path *at, size_t count,
                     size_t align)
{
    size_t place;
    int code = take(out, &place, at, count, align);
    if (code != 0)
        return code;
    parameter_slot *slots = realloc(out->slots, (out->slot_count + 1) * sizeof *slots);
    if (!slots)
        return tool_fail(EXIT_DEVICE, "out of memory: a parameter");
    out->slots = slots;
    *slot = &slots[out->slot_count++];
    **slot = (parameter_slot){.at = place};
    return 0;
}

static int read_align(size_t *out, const json_path *at, const json_t *json)
{
    int64_t align = 1;
    const json_t *found = json_object_get(json, "align");
    int code = found ? json_get_integer(&align, JSON_KEY(at, "align"), found, 1, LARGEST_ALIGN) : 0;
    *out = (size_t)align;
    if (code == 0 && (align & (align - 1)) != 0)
        return json_path_fail(JSON_KEY(at, "align"), found, "a power of two");
    return code;
}

/* ---- the kinds of fields -------------------------------------------------------------------- */

static int read_scalar(parameter *out, const json_path *at, const json_t *json, number_type type)
{
    const char *key = number_type_names[type];
    number value;
    size_t place, bytes = number_bytes(type);
    int code = json_get_number(&value, JSON_KEY(at, key), json_object_get(json, key), type);
    if (code == 0)
        code = take(out, &place, at, bytes, bytes);
    if (code == 0)
        number_store(type, out->bytes + place, value);
    return code;
}

static int read_address(parameter *out, const json_path *at, const json_t *json, reader *r)
{
    int64_t offset = 0;
    int which;
    parameter_slot *slot = NULL;
    const json_t *found = json_object_get(json, "offset");
    int code = buffer_find(&which, JSON_KEY(at, "buffer"), json_object_get(json, "buffer"),
                           r->buffers, r->buffer_count);
    if (code == 0 && found)
        code = json_get_integer(&offset, JSON_KEY(at, "offset"), found, -(1 << 30),
                                (int64_t)r->buffers[which].bytes + (1 << 30));
    if (code == 0)
        code = take_slot(&slot, out, at, 8, 8);
    if (code == 0) {
        slot->buffer = which;
        slot->offset = (uint64_t)offset;
    }
    return code;
}

static int read_bytes(parameter *out, const json_path *at, const json_t *json, reader *r)
{
    (void)r;
    unsigned char *bytes = NULL;
    size_t count, align, place;
    int code = read_align(&align, at, json);
    if (code == 0)
        code = json_get_hex(&bytes, &count, JSON_KEY(at, "bytes"), json_object_get(json, "bytes"));
    if (code == 0)
        code = take(out, &place, at, count, align);
    if (code == 0)
        memcpy(out->bytes + place, bytes, count);
    free(bytes);
    return code;
}

static int read_field(parameter *out, const json_path *at, const json_t *json, reader *r);

/* Moves a finished structure into the one around it, or into a parameter. */
static int append(parameter *out, const json_path *at, parameter *inner)
{
    size_t place;
    int code = take(out, &place, at, inner->count, inner->align);
    if (code != 0)
        return code;
    memcpy(out->bytes + place, inner->bytes, inner->count);
    for (size_t i = 0; code == 0 && i < inner->slot_count; ++i) {
        parameter_slot *slot = NULL;
        code = take_slot(&slot, out, at, 0, 1);
        if (code == 0) {
            *slot = inner->slots[i];
            slot->at += place;
            inner->slots[i].map = NULL;
        }
    }
    return code;
}

static int read_struct(parameter *out, const json_path *at, const json_t *json, reader *r)
{
    parameter inner = {.align = 1};
    const json_t *fields = json_object_get(json, "struct");
    const json_path *place = JSON_KEY(at, "struct");
    size_t align;
    int code = json_get_array(place, fields, 1, PTXRUN_PARAMETER_BYTES);
    if (code == 0 && r->depth == DEEPEST_STRUCT)
        code = json_path_say(at, "found a struct in %d others, wanted fewer", DEEPEST_STRUCT);
    if (code == 0)
        code = read_align(&align, at, json);
    ++r->depth;
    for (size_t i = 0; code == 0 && i < json_array_size(fields); ++i)
        code = read_field(&inner, JSON_INDEX(place, i), json_array_get(fields, i), r);
    --r->depth;
    if (code == 0)
        code = take(&inner, &(size_t){0}, at, 0, align > inner.align ? align : inner.align);
    if (code == 0)
        code = append(out, at, &inner);
    parameter_free(&inner);
    return code;
}

/* ---- tensor maps ---------------------------------------------------------------------------- */

/* In the order of the enumerations of cuda.h. */
static const char *const map_types[] = {"u8",  "u16", "u32",  "s32",     "u64",  "s64",      "f16",
                                        "f32", "f64", "bf16", "f32_ftz", "tf32", "tf32_ftz", NULL};
static const char *const map_interleaves[] = {"none", "16b", "32b", NULL};
static const char *const map_swizzles[] = {
    "none", "32b", "64b", "128b", "128b_atom_32b", "128b_atom_32b_flip_8b", "128b_atom_64b", NULL};
static const char *const map_promotions[] = {"none", "64b", "128b", "256b", NULL};
static const char *const map_fills[] = {"zeros", "nan", NULL};

/* A word that may be left out, which means the first one. */
static int read_choice(int *out, const json_path *at, const json_t *json, const char *key,
                       const char *const *words)
{
    const json_t *found = json_object_get(json, key);
    *out = 0;
    return found ? json_get_word(out, JSON_KEY(at, key), found, words) : 0;
}

/* `count` integers, all 1 where the key is left out and may be. */
static int read_list(int64_t out[5], const json_path *at, const json_t *json, const char *key,
                     size_t count, int64_t most, bool may_be_left_out)
{
    const json_t *found = json_object_get(json, key);
    const json_path *place = JSON_KEY(at, key);
    for (size_t i = 0; i < 5; ++i)
        out[i] = 1;
    if (!found && may_be_left_out)
        return 0;
    int code = json_get_array(place, found, count, count);
    for (size_t i = 0; code == 0 && i < count; ++i)
        code = json_get_integer(&out[i], JSON_INDEX(place, i), json_array_get(found, i), 1, most);
    return code;
}

static int read_map_lists(tensor_map *map, const json_path *at, const json_t *json)
{
    int64_t lists[4][5];
    const json_t *dimensions = json_object_get(json, "dimensions");
    int code = json_get_array(JSON_KEY(at, "dimensions"), dimensions, 1, 5);
    if (code != 0)
        return code;
    size_t rank = json_array_size(dimensions);
    code = read_list(lists[0], at, json, "dimensions", rank, (int64_t)1 << 32, false);
    if (code == 0)
        code = read_list(lists[1], at, json, "strides", rank - 1, (int64_t)1 << 40, rank == 1);
    if (code == 0)
        code = read_list(lists[2], at, json, "box", rank, 256, false);
    if (code == 0)
        code = read_list(lists[3], at, json, "element_strides", rank, 8, true);
    if (code != 0)
        return code;
    map->rank = (cuuint32_t)rank;
    for (size_t i = 0; i < 5; ++i) {
        map->dimensions[i] = (cuuint64_t)lists[0][i];
        if (i < 4)
            map->strides[i] = (cuuint64_t)lists[1][i];
        map->box[i] = (cuuint32_t)lists[2][i];
        map->element_strides[i] = (cuuint32_t)lists[3][i];
    }
    return 0;
}

static int read_map(tensor_map *map, int *which, const json_path *at, const json_t *json, reader *r)
{
    static const char *const keys[] = {
        "buffer",     "type",    "dimensions",   "strides",  "box", "element_strides",
        "interleave", "swizzle", "l2_promotion", "oob_fill", NULL};
    int type = 0, interleave = 0, swizzle = 0, promotion = 0, outside = 0;
    int code = json_get_object(at, json, keys);
    if (code == 0)
        code = buffer_find(which, JSON_KEY(at, "buffer"), json_object_get(json, "buffer"),
                           r->buffers, r->buffer_count);
    if (code == 0)
        code = json_get_word(&type, JSON_KEY(at, "type"), json_object_get(json, "type"), map_types);
    if (code == 0)
        code = read_map_lists(map, at, json);
    if (code == 0)
        code = read_choice(&interleave, at, json, "interleave", map_interleaves);
    if (code == 0)
        code = read_choice(&swizzle, at, json, "swizzle", map_swizzles);
    if (code == 0)
        code = read_choice(&promotion, at, json, "l2_promotion", map_promotions);
    if (code == 0)
        code = read_choice(&outside, at, json, "oob_fill", map_fills);
    map->type = (CUtensorMapDataType)type;
    map->interleave = (CUtensorMapInterleave)interleave;
    map->swizzle = (CUtensorMapSwizzle)swizzle;
    map->l2_promotion = (CUtensorMapL2promotion)promotion;
    map->oob_fill = (CUtensorMapFloatOOBfill)outside;
    return code;
}

static int read_tensor_map(parameter *out, const json_path *at, const json_t *json, reader *r)
{
    parameter_slot *slot = NULL;
    int which = 0;
    tensor_map *map = calloc(1, sizeof *map);
    if (!map)
        return tool_fail(EXIT_DEVICE, "out of memory: a tensor map");
    int code =
        read_map(map, &which, JSON_KEY(at, "tensor_map"), json_object_get(json, "tensor_map"), r);
    if (code == 0)
        code = take_slot(&slot, out, at, sizeof(CUtensorMap), 64);
    if (code != 0) {
        free(map);
        return code;
    }
    slot->buffer = which;
    slot->map = map;
    return 0;
}

/* ---- one of them ---------------------------------------------------------------------------- */

static const struct {
    const char *key, *second; /* second: may be left out */
    int (*read)(parameter *out, const json_path *at, const json_t *json, reader *r);
} kinds[] = {
    {"buffer", "offset", read_address},
    {"bytes", "align", read_bytes},
    {"struct", "align", read_struct},
    {"tensor_map", NULL, read_tensor_map},
};

static int read_field(parameter *out, const json_path *at, const json_t *json, reader *r)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; ++i) {
        if (!json_object_get(json, kinds[i].key))
            continue;
        const char *const keys[] = {kinds[i].key, kinds[i].second, NULL};
        int code = json_get_object(at, json, keys);
        return code ? code : kinds[i].read(out, at, json, r);
    }
    for (int type = 0; type < NUMBER_TYPE_COUNT; ++type) {
        if (!json_object_get(json, number_type_names[type]))
            continue;
        const char *const keys[] = {number_type_names[type], NULL};
        int code = json_get_object(at, json, keys);
        return code ? code : read_scalar(out, at, json, (number_type)type);
    }
    return json_path_fail(at, json,
                          "an object with one of: buffer, bytes, struct, tensor_map, or the type "
                          "of a scalar, {\"u32\": 5}");
}

int parameter_read(parameter *out, const json_path *at, const json_t *json, const buffer *buffers,
                   size_t buffer_count)
{
    reader r = {buffers, buffer_count, 0};
    *out = (parameter){.align = 1};
    return read_field(out, at, json, &r);
}

void parameter_free(parameter *p)
{
    for (size_t i = 0; i < p->slot_count; ++i)
        free(p->slots[i].map);
    free(p->slots);
    free(p->bytes);
    *p = (parameter){0};
}
