/*
 * manifest_kernels.c: the array `kernels` of a manifest into the kernels of a bundle. manifest.c
 * calls it, with the names of all files already in place.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_fields.h"
#include "manifest.h"

static const char *const pass_words[] = {"forward", "dgrad", "backward_dw", "init", NULL};
static const char *const dtype_words[] = {"bf16", "fp16", "fp32", NULL};
static const char *const kind_words[] = {"cubin", "ptx", NULL};
static const char *const when_words[] = {"always",
#define TENSOR_ARGUMENT(id, name, dtype, rank, dim0, dim1, forward, dgrad) name,
#define SCALAR_ARGUMENT(id, name, bytes, passes)
#include "arguments.def"
#undef TENSOR_ARGUMENT
#undef SCALAR_ARGUMENT
                                         NULL};

/* "sm_80", "sm_100", "sm_90a"; false: no architecture. */
static bool read_architecture(bundle_arch *out, const char *word)
{
    *out = (bundle_arch){.name = word};
    if (strncmp(word, "sm_", 3) != 0 || strlen(word) < 5 || strlen(word) > 7)
        return false;
    const char *c = word + 3;
    for (; *c >= '0' && *c <= '9' && out->number < 1000; c++)
        out->number = 10 * out->number + (*c - '0');
    out->is_exact = strcmp(c, "a") == 0;
    return out->number >= 10 && (*c == '\0' || out->is_exact);
}

bool bundle_arch_runs_on(const bundle_arch *arch, int compute_capability)
{
    return arch->is_exact ? arch->number == compute_capability : arch->number <= compute_capability;
}

/* ---- grids ---------------------------------------------------------------------------------- */

typedef struct grid_object {
    int64_t rows, columns, tile_m, tile_n, cluster, elements_per_block;
} grid_object;

static const json_field tiled_grid_fields[] = {
    {"rows", JSON_FIELD_INTEGER, offsetof(grid_object, rows), 0, BUNDLE_MAX_SIZE, 0},
    {"columns", JSON_FIELD_INTEGER, offsetof(grid_object, columns), 1, BUNDLE_MAX_SIZE, 0},
    {"tile_m", JSON_FIELD_INTEGER, offsetof(grid_object, tile_m), 1, 65536, 0},
    {"tile_n", JSON_FIELD_INTEGER, offsetof(grid_object, tile_n), 1, 65536, 0},
    {"cluster", JSON_FIELD_INTEGER, offsetof(grid_object, cluster), 0, 8, 0},
};
static const json_field init_grid_fields[] = {
    {"elements_per_block", JSON_FIELD_INTEGER, offsetof(grid_object, elements_per_block), 1,
     1 << 30, 0},
};

/* The kernel's pass is known: kernels of `init` have a grid of elements, all others one of tiles.
 */
static mmlp_status read_grid(bundle_kernel *kernel, const json_t *object, const json_place *kernels)
{
    char array[64];
    snprintf(array, sizeof array, "%s[%d].grid", kernels->array, kernels->index);
    json_place place = {kernels->document, array, -1};
    grid_object grid = {0};
    if (kernel->pass == BUNDLE_INIT)
        MMLP_TRY(
            json_fields_read(&grid, object, init_grid_fields, COUNT_OF(init_grid_fields), &place));
    else
        MMLP_TRY(json_fields_read(&grid, object, tiled_grid_fields, COUNT_OF(tiled_grid_fields),
                                  &place));
    if (grid.rows > 0 && (grid.rows + grid.tile_m - 1) / grid.tile_m *
                                 ((grid.columns + grid.tile_n - 1) / grid.tile_n) >
                             INT32_MAX)
        return json_fail_field(&place, "rows", json_object_get(object, "rows"),
                               "a grid of at most 2147483647 blocks");
    kernel->rows = grid.rows;
    kernel->columns = grid.columns;
    kernel->tile_m = grid.tile_m;
    kernel->tile_n = grid.tile_n;
    kernel->cluster = (int)grid.cluster;
    kernel->elements_per_block = grid.elements_per_block;
    return MMLP_OK;
}

/* ---- images and lines ----------------------------------------------------------------------- */

typedef struct image_object {
    const char *target, *file;
    int kind;
} image_object;

static const json_field image_fields[] = {
    {"target", JSON_FIELD_STRING, offsetof(image_object, target), 0, 0, 0},
    {"kind", JSON_FIELD_WORD, offsetof(image_object, kind), 0, 0, kind_words},
    {"file", JSON_FIELD_STRING, offsetof(image_object, file), 0, 0, 0},
};

static mmlp_status read_images(bundle_kernel *kernel, const mmlp_bundle *bundle,
                               const json_t *array, const json_place *kernels)
{
    char name[64];
    snprintf(name, sizeof name, "%s[%d].images", kernels->array, kernels->index);
    kernel->images = calloc(json_array_size(array) + 1, sizeof *kernel->images);
    if (!kernel->images)
        return mmlp_fail_memory(json_array_size(array) * sizeof *kernel->images, "images");
    for (size_t i = 0; i < json_array_size(array); i++) {
        json_place place = {bundle->path, name, (int)i};
        const json_t *object = json_array_get(array, i);
        image_object image;
        MMLP_TRY(json_fields_read(&image, object, image_fields, COUNT_OF(image_fields), &place));
        bundle_image *read = &kernel->images[kernel->image_count++];
        read->is_cubin = image.kind == 0;
        if (!read_architecture(&read->target, image.target))
            return json_fail_field(&place, "target", json_object_get(object, "target"),
                                   "an architecture such as \"sm_80\"");
        MMLP_TRY(manifest_find_file(&read->file, bundle, image.file, &place));
    }
    return MMLP_OK;
}

static mmlp_status read_lines(bundle_kernel *kernel, const json_t *array, const json_place *place)
{
    static const char wanted[] = "rows [line, template, line] with rising lines";
    kernel->lines = calloc(json_array_size(array) + 1, sizeof *kernel->lines);
    if (!kernel->lines)
        return mmlp_fail_memory(json_array_size(array) * sizeof *kernel->lines, "a line map");
    int64_t previous = 0;
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *row = json_array_get(array, i);
        const json_t *first = json_array_get(row, 0), *file = json_array_get(row, 1);
        const json_t *line = json_array_get(row, 2);
        if (json_array_size(row) != 3 || !json_is_integer(first) || !json_is_string(file) ||
            !json_is_integer(line) || json_integer_value(first) <= previous ||
            json_integer_value(first) > INT32_MAX || json_integer_value(line) < 1 ||
            json_integer_value(line) > INT32_MAX)
            return json_fail_field(place, "lines", row, wanted);
        previous = json_integer_value(first);
        kernel->lines[kernel->line_count++] =
            (bundle_line){previous, json_string_value(file), json_integer_value(line)};
    }
    return MMLP_OK;
}

/* ---- tensor maps ---------------------------------------------------------------------------- */

typedef struct map_object {
    const char *tensor;
    int dtype;
    int64_t first_column, rows, columns, stride, planes, box_rows;
} map_object;

#define AT(name) offsetof(map_object, name)
static const json_field map_fields[] = {
    {"tensor", JSON_FIELD_STRING, AT(tensor), 0, 0, 0},
    {"dtype", JSON_FIELD_WORD, AT(dtype), 0, 0, dtype_words},
    {"first_column", JSON_FIELD_INTEGER, AT(first_column), 0, BUNDLE_MAX_SIZE, 0},
    {"rows", JSON_FIELD_INTEGER, AT(rows), 0, BUNDLE_MAX_SIZE, 0},
    {"columns", JSON_FIELD_INTEGER, AT(columns), 1, BUNDLE_MAX_SIZE, 0},
    {"stride", JSON_FIELD_INTEGER, AT(stride), 1, BUNDLE_MAX_SIZE, 0},
    {"planes", JSON_FIELD_INTEGER, AT(planes), 1, 2, 0},
    {"box_rows", JSON_FIELD_INTEGER, AT(box_rows), 1, 256, 0},
};
#undef AT

static mmlp_status read_maps(bundle_kernel *kernel, const json_t *array, const json_place *kernels)
{
    char name[64];
    snprintf(name, sizeof name, "%s[%d].maps", kernels->array, kernels->index);
    for (size_t i = 0; i < json_array_size(array); i++) {
        json_place place = {kernels->document, name, (int)i};
        map_object m;
        MMLP_TRY(json_fields_read(&m, json_array_get(array, i), map_fields, COUNT_OF(map_fields),
                                  &place));
        kernel->maps[kernel->map_count++] = (bundle_map){.tensor = m.tensor,
                                                         .dtype = (bundle_dtype)m.dtype,
                                                         .first_column = m.first_column,
                                                         .rows = m.rows,
                                                         .columns = m.columns,
                                                         .stride = m.stride,
                                                         .planes = (int)m.planes,
                                                         .box_rows = (int)m.box_rows};
    }
    return MMLP_OK;
}

/* ---- kernels -------------------------------------------------------------------------------- */

typedef struct kernel_object {
    const char *entry, *file, *step, *family;
    int pass, when;
    int64_t most_tokens, threads, dynamic_shared_bytes, reduction;
    bool waits_for_previous;
    double flops_per_token, bytes, bytes_per_token;
    const json_t *grid, *maps, *arguments, *lines, *images;
} kernel_object;

#define AT(name) offsetof(kernel_object, name)
static const json_field kernel_fields[] = {
    {"entry", JSON_FIELD_STRING, AT(entry), 0, 0, 0},
    {"file", JSON_FIELD_STRING, AT(file), 0, 0, 0},
    {"pass", JSON_FIELD_WORD, AT(pass), 0, 0, pass_words},
    {"step", JSON_FIELD_STRING, AT(step), 0, 0, 0},
    {"when", JSON_FIELD_WORD, AT(when), 0, 0, when_words},
    {"family", JSON_FIELD_STRING, AT(family), 0, 0, 0},
    {"most_tokens", JSON_FIELD_INTEGER, AT(most_tokens), 0, INT32_MAX, 0},
    {"threads", JSON_FIELD_INTEGER, AT(threads), 1, BUNDLE_MAX_THREADS, 0},
    {"dynamic_shared_bytes", JSON_FIELD_INTEGER, AT(dynamic_shared_bytes), 0, 1 << 20, 0},
    {"waits_for_previous", JSON_FIELD_FLAG, AT(waits_for_previous), 0, 0, 0},
    {"grid", JSON_FIELD_OBJECT, AT(grid), 0, 0, 0},
    {"reduction", JSON_FIELD_INTEGER, AT(reduction), 0, BUNDLE_MAX_SIZE, 0},
    {"flops_per_token", JSON_FIELD_NUMBER, AT(flops_per_token), 0, 0, 0},
    {"bytes", JSON_FIELD_NUMBER, AT(bytes), 0, 0, 0},
    {"bytes_per_token", JSON_FIELD_NUMBER, AT(bytes_per_token), 0, 0, 0},
    {"maps", JSON_FIELD_ARRAY, AT(maps), 0, BUNDLE_MAX_MAPS, 0},
    {"arguments", JSON_FIELD_ARRAY, AT(arguments), 1, BUNDLE_MAX_ARGUMENTS, 0},
    {"lines", JSON_FIELD_ARRAY, AT(lines), 0, 1 << 20, 0},
    {"images", JSON_FIELD_ARRAY, AT(images), 0, 64, 0},
};
#undef AT

static mmlp_status read_kernel(bundle_kernel *kernel, const mmlp_bundle *bundle,
                               const json_t *object, const json_place *place)
{
    kernel_object k;
    MMLP_TRY(json_fields_read(&k, object, kernel_fields, COUNT_OF(kernel_fields), place));
    kernel->entry = k.entry;
    kernel->pass = (bundle_pass)k.pass;
    kernel->pass_name = pass_words[k.pass];
    kernel->step = k.step;
    kernel->when = when_words[k.when];
    kernel->most_tokens = k.most_tokens;
    kernel->threads = k.threads;
    kernel->dynamic_shared_bytes = k.dynamic_shared_bytes;
    kernel->waits_for_previous = k.waits_for_previous;
    kernel->reduction = k.reduction;
    kernel->flops_per_token = k.flops_per_token;
    kernel->bytes = k.bytes;
    kernel->bytes_per_token = k.bytes_per_token;
    if (!read_architecture(&kernel->family, k.family))
        return json_fail_field(place, "family", json_object_get(object, "family"),
                               "an architecture such as \"sm_80\"");
    for (size_t i = 0; i < json_array_size(k.arguments); i++) {
        const char *name = json_string_value(json_array_get(k.arguments, i));
        if (!name)
            return json_fail_field(place, "arguments", json_array_get(k.arguments, i),
                                   "names of arguments");
        kernel->arguments[kernel->argument_count++] = name;
    }
    MMLP_TRY(manifest_find_file(&kernel->source, bundle, k.file, place));
    MMLP_TRY(read_grid(kernel, k.grid, place));
    MMLP_TRY(read_maps(kernel, k.maps, place));
    MMLP_TRY(read_lines(kernel, k.lines, place));
    return read_images(kernel, bundle, k.images, place);
}

mmlp_status manifest_read_kernels(mmlp_bundle *bundle, const json_t *array)
{
    bundle->kernels = calloc(json_array_size(array), sizeof *bundle->kernels);
    if (!bundle->kernels)
        return mmlp_fail_memory(json_array_size(array) * sizeof *bundle->kernels, "kernels");
    for (size_t i = 0; i < json_array_size(array); i++) {
        json_place place = {bundle->path, "kernels", (int)i};
        bundle->kernel_count++; /* before it is read: closing the bundle frees what it has */
        MMLP_TRY(read_kernel(&bundle->kernels[i], bundle, json_array_get(array, i), &place));
    }
    return MMLP_OK;
}
