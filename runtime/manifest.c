/*
 * manifest.c: the manifest's JSON into a bundle, by one table of keys for each kind of object.
 * Everything that later code relies on is checked here: types, bounds, names of files and buffers,
 * and that numbers agree with one another.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "bundle.h"
#include "json_fields.h"

#define COUNT_OF(array) (sizeof(array) / sizeof(array)[0])

static const char *const dtype_words[] = {"bf16", "fp16", "fp32", NULL};
static const char *const lifetime_words[] = {"saved", "scratch", NULL};
static const char *const pass_words[] = {"forward", "init", NULL};
static const char *const fc2_bias_words[] = {"none", "returned", "folded", "added", NULL};
static const char *const kind_words[] = {"cubin", "ptx", NULL};

const char *bundle_dtype_name(bundle_dtype dtype)
{
    return dtype_words[dtype];
}

size_t bundle_dtype_bytes(bundle_dtype dtype)
{
    return dtype == BUNDLE_FP32 ? 4 : 2;
}

/* ---- the top -------------------------------------------------------------------------------- */

typedef struct top_object {
    int64_t format;
    const char *hash, *name, *generator;
    const json_t *mlp, *files, *buffers, *kernels, *reference;
} top_object;

static const json_field top_fields[] = {
    {"format", JSON_FIELD_INTEGER, offsetof(top_object, format), BUNDLE_FORMAT, BUNDLE_FORMAT, 0},
    {"hash", JSON_FIELD_STRING, offsetof(top_object, hash), 0, 0, 0},
    {"name", JSON_FIELD_STRING, offsetof(top_object, name), 0, 0, 0},
    {"generator", JSON_FIELD_STRING, offsetof(top_object, generator), 0, 0, 0},
    {"mlp", JSON_FIELD_OBJECT, offsetof(top_object, mlp), 0, 0, 0},
    {"files", JSON_FIELD_OBJECT, offsetof(top_object, files), 0, 0, 0},
    {"buffers", JSON_FIELD_ARRAY, offsetof(top_object, buffers), 0, BUNDLE_MAX_BUFFERS, 0},
    {"kernels", JSON_FIELD_ARRAY, offsetof(top_object, kernels), 1, BUNDLE_MAX_KERNELS, 0},
    {"reference", JSON_FIELD_OBJECT, offsetof(top_object, reference), 0, 0, 0},
};

static mmlp_status read_top(top_object *out, const mmlp_bundle *bundle, const json_t *manifest)
{
    json_place place = {bundle->path, "", -1};
    if (!json_is_object(manifest))
        return mmlp_fail(MMLP_ERROR_FORMAT, "%s: the manifest is not an object", bundle->path);
    /* The format first: the rest of another format means nothing here. */
    MMLP_TRY(json_fields_read(out, manifest, top_fields, COUNT_OF(top_fields), &place));
    return MMLP_OK;
}

/* ---- files ---------------------------------------------------------------------------------- */

static bool is_plain_name(const char *name)
{
    if (name[0] == '\0' || strlen(name) > 255 || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0 || strcmp(name, "manifest.json") == 0)
        return false;
    for (const char *c = name; *c; c++) {
        if (*c == '/' || (unsigned char)*c < 0x20)
            return false;
    }
    return true;
}

static int compare_files(const void *a, const void *b)
{
    return strcmp(((const bundle_file *)a)->name, ((const bundle_file *)b)->name);
}

mmlp_status manifest_read_files(mmlp_bundle *bundle, const json_t *manifest)
{
    top_object top;
    MMLP_TRY(read_top(&top, bundle, manifest));
    json_place place = {bundle->path, "files", -1};
    size_t count = json_object_size(top.files);
    if (count > BUNDLE_MAX_FILES)
        return mmlp_fail(MMLP_ERROR_FORMAT, "%s: files: found %zu, wanted at most %d", bundle->path,
                         count, BUNDLE_MAX_FILES);
    bundle->files = calloc(count + 1, sizeof *bundle->files);
    if (!bundle->files)
        return mmlp_fail_memory(count * sizeof *bundle->files, "the files of a bundle");
    const char *name;
    json_t *hash;
    json_object_foreach((json_t *)top.files, name, hash)
    {
        if (!is_plain_name(name))
            return mmlp_fail(MMLP_ERROR_FORMAT,
                             "%s: files: found \"%.64s\", wanted a file name without '/'",
                             bundle->path, name);
        if (!json_is_string(hash) || json_string_length(hash) != 32)
            return json_fail_field(&place, name, hash, "32 hexadecimal digits");
        bundle->files[bundle->file_count++].name = name;
    }
    qsort(bundle->files, count, sizeof *bundle->files, compare_files);
    return MMLP_OK;
}

static mmlp_status find_file(const bundle_file **out, const mmlp_bundle *bundle, const char *name,
                             const json_place *place)
{
    bundle_file wanted = {.name = name};
    *out = bsearch(&wanted, bundle->files, (size_t)bundle->file_count, sizeof *bundle->files,
                   compare_files);
    if (*out)
        return MMLP_OK;
    return mmlp_fail(MMLP_ERROR_FORMAT, "%s: %s[%d].file: found \"%.64s\", wanted a key of files",
                     place->document, place->array, place->index, name);
}

/* ---- mlp ------------------------------------------------------------------------------------ */

typedef struct mlp_object {
    int64_t hidden_size, ffn_hidden_size, fc1_output_size, tensor_model_parallel_size;
    bool gated_linear_unit, add_bias_linear, per_token_scale, save_activation, has_clamp_or_relu;
    int params_dtype, fc2_bias;
} mlp_object;

#define SIZE_FIELD(name)                                                                           \
    {                                                                                              \
#name, JSON_FIELD_INTEGER, offsetof(mlp_object, name), 1, BUNDLE_MAX_SIZE, 0               \
    }
#define FLAG_FIELD(name)                                                                           \
    {                                                                                              \
#name, JSON_FIELD_FLAG, offsetof(mlp_object, name), 0, 0, 0                                \
    }
static const json_field mlp_fields[] = {
    SIZE_FIELD(hidden_size),
    SIZE_FIELD(ffn_hidden_size),
    SIZE_FIELD(fc1_output_size),
    SIZE_FIELD(tensor_model_parallel_size),
    FLAG_FIELD(gated_linear_unit),
    FLAG_FIELD(add_bias_linear),
    FLAG_FIELD(per_token_scale),
    FLAG_FIELD(save_activation),
    FLAG_FIELD(has_clamp_or_relu),
    {"params_dtype", JSON_FIELD_WORD, offsetof(mlp_object, params_dtype), 0, 0, dtype_words},
    {"fc2_bias", JSON_FIELD_WORD, offsetof(mlp_object, fc2_bias), 0, 0, fc2_bias_words},
};

static mmlp_status read_mlp(mmlp_bundle *bundle, const json_t *object)
{
    json_place place = {bundle->path, "mlp", -1};
    mlp_object mlp;
    MMLP_TRY(json_fields_read(&mlp, object, mlp_fields, COUNT_OF(mlp_fields), &place));
    int64_t wanted = mlp.gated_linear_unit ? 2 * mlp.ffn_hidden_size : mlp.ffn_hidden_size;
    if (mlp.fc1_output_size != wanted)
        return mmlp_fail(MMLP_ERROR_FORMAT, "%s: mlp.fc1_output_size: found %lld, wanted %lld",
                         bundle->path, (long long)mlp.fc1_output_size, (long long)wanted);
    if ((mlp.fc2_bias != MMLP_FC2_BIAS_NONE) != mlp.add_bias_linear)
        return mmlp_fail(MMLP_ERROR_FORMAT,
                         "%s: mlp.fc2_bias: found \"%s\" where add_bias_linear is %s", bundle->path,
                         fc2_bias_words[mlp.fc2_bias], mlp.add_bias_linear ? "true" : "false");
    bundle->hidden_size = mlp.hidden_size;
    bundle->ffn_hidden_size = mlp.ffn_hidden_size;
    bundle->fc1_output_size = mlp.fc1_output_size;
    bundle->tensor_model_parallel_size = mlp.tensor_model_parallel_size;
    bundle->params_dtype = (bundle_dtype)mlp.params_dtype;
    bundle->gated_linear_unit = mlp.gated_linear_unit;
    bundle->add_bias_linear = mlp.add_bias_linear;
    bundle->per_token_scale = mlp.per_token_scale;
    bundle->save_activation = mlp.save_activation;
    bundle->has_clamp_or_relu = mlp.has_clamp_or_relu;
    bundle->fc2_bias = (mmlp_fc2_bias)mlp.fc2_bias;
    return MMLP_OK;
}

/* ---- buffers -------------------------------------------------------------------------------- */

typedef struct buffer_object {
    const char *name;
    int lifetime, dtype;
    int64_t columns;
} buffer_object;

static const json_field buffer_fields[] = {
    {"name", JSON_FIELD_STRING, offsetof(buffer_object, name), 0, 0, 0},
    {"lifetime", JSON_FIELD_WORD, offsetof(buffer_object, lifetime), 0, 0, lifetime_words},
    {"dtype", JSON_FIELD_WORD, offsetof(buffer_object, dtype), 0, 0, dtype_words},
    {"columns", JSON_FIELD_INTEGER, offsetof(buffer_object, columns), 1, BUNDLE_MAX_SIZE, 0},
};

static mmlp_status read_buffers(mmlp_bundle *bundle, const json_t *array)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        json_place place = {bundle->path, "buffers", (int)i};
        buffer_object b;
        MMLP_TRY(json_fields_read(&b, json_array_get(array, i), buffer_fields,
                                  COUNT_OF(buffer_fields), &place));
        for (int j = 0; j < bundle->buffer_count; j++) {
            if (strcmp(bundle->buffers[j].name, b.name) == 0)
                return json_fail_field(&place, "name",
                                       json_object_get(json_array_get(array, i), "name"),
                                       "a name of its own");
        }
        bundle->buffers[bundle->buffer_count++] =
            (bundle_buffer){b.name, (mmlp_lifetime)b.lifetime, (bundle_dtype)b.dtype, b.columns};
    }
    return MMLP_OK;
}

/* ---- kernels -------------------------------------------------------------------------------- */

/* "sm_80", "sm_100": the number behind sm_, or 0. */
static int architecture_number(const char *word)
{
    int number = 0;
    if (strncmp(word, "sm_", 3) != 0 || strlen(word) < 5 || strlen(word) > 6)
        return 0;
    for (const char *c = word + 3; *c; c++) {
        if (*c < '0' || *c > '9')
            return 0;
        number = 10 * number + (*c - '0');
    }
    return number;
}

typedef struct grid_object {
    int64_t tile_m, tile_n, columns, elements_per_block;
} grid_object;

static const json_field gemm_grid_fields[] = {
    {"tile_m", JSON_FIELD_INTEGER, offsetof(grid_object, tile_m), 1, 65536, 0},
    {"tile_n", JSON_FIELD_INTEGER, offsetof(grid_object, tile_n), 1, 65536, 0},
    {"columns", JSON_FIELD_INTEGER, offsetof(grid_object, columns), 1, BUNDLE_MAX_SIZE, 0},
};
static const json_field elementwise_grid_fields[] = {
    {"elements_per_block", JSON_FIELD_INTEGER, offsetof(grid_object, elements_per_block), 1,
     1 << 30, 0},
};

static mmlp_status read_grid(bundle_kernel *kernel, const json_t *object, const json_place *kernels)
{
    char array[64];
    snprintf(array, sizeof array, "%s[%d].grid", kernels->array, kernels->index);
    json_place place = {kernels->document, array, -1};
    grid_object grid = {0};
    if (json_object_get(object, "elements_per_block"))
        MMLP_TRY(json_fields_read(&grid, object, elementwise_grid_fields,
                                  COUNT_OF(elementwise_grid_fields), &place));
    else
        MMLP_TRY(
            json_fields_read(&grid, object, gemm_grid_fields, COUNT_OF(gemm_grid_fields), &place));
    kernel->tile_m = grid.tile_m;
    kernel->tile_n = grid.tile_n;
    kernel->columns = grid.columns;
    kernel->elements_per_block = grid.elements_per_block;
    return MMLP_OK;
}

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
        read->target = architecture_number(image.target);
        read->is_cubin = image.kind == 0;
        if (read->target == 0)
            return json_fail_field(&place, "target", json_object_get(object, "target"),
                                   "an architecture such as \"sm_80\"");
        MMLP_TRY(find_file(&read->file, bundle, image.file, &place));
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

typedef struct kernel_object {
    const char *entry, *file, *step, *family;
    int pass;
    int64_t threads, dynamic_shared_bytes, reduction;
    double flops_per_token;
    const json_t *grid, *arguments, *lines, *images;
} kernel_object;

#define AT(name) offsetof(kernel_object, name)
static const json_field kernel_fields[] = {
    {"entry", JSON_FIELD_STRING, AT(entry), 0, 0, 0},
    {"file", JSON_FIELD_STRING, AT(file), 0, 0, 0},
    {"pass", JSON_FIELD_WORD, AT(pass), 0, 0, pass_words},
    {"step", JSON_FIELD_STRING, AT(step), 0, 0, 0},
    {"family", JSON_FIELD_STRING, AT(family), 0, 0, 0},
    {"threads", JSON_FIELD_INTEGER, AT(threads), 1, BUNDLE_MAX_THREADS, 0},
    {"dynamic_shared_bytes", JSON_FIELD_INTEGER, AT(dynamic_shared_bytes), 0, 1 << 20, 0},
    {"grid", JSON_FIELD_OBJECT, AT(grid), 0, 0, 0},
    {"reduction", JSON_FIELD_INTEGER, AT(reduction), 0, BUNDLE_MAX_SIZE, 0},
    {"flops_per_token", JSON_FIELD_NUMBER, AT(flops_per_token), 0, 0, 0},
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
    kernel->threads = k.threads;
    kernel->dynamic_shared_bytes = k.dynamic_shared_bytes;
    kernel->reduction = k.reduction;
    kernel->flops_per_token = k.flops_per_token;
    kernel->family = architecture_number(k.family);
    if (kernel->family == 0)
        return json_fail_field(place, "family", json_object_get(object, "family"),
                               "an architecture such as \"sm_80\"");
    for (size_t i = 0; i < json_array_size(k.arguments); i++) {
        const char *name = json_string_value(json_array_get(k.arguments, i));
        if (!name)
            return json_fail_field(place, "arguments", json_array_get(k.arguments, i),
                                   "names of arguments");
        kernel->arguments[kernel->argument_count++] = name;
    }
    MMLP_TRY(find_file(&kernel->source, bundle, k.file, place));
    MMLP_TRY(read_grid(kernel, k.grid, place));
    MMLP_TRY(read_lines(kernel, k.lines, place));
    return read_images(kernel, bundle, k.images, place);
}

static mmlp_status read_kernels(mmlp_bundle *bundle, const json_t *array)
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

/* ---- reference ------------------------------------------------------------------------------ */

typedef struct epilogue_object {
    const json_t *program, *results;
} epilogue_object;

static const json_field epilogue_fields[] = {
    {"program", JSON_FIELD_OBJECT, offsetof(epilogue_object, program), 0, 0, 0},
    {"results", JSON_FIELD_ARRAY, offsetof(epilogue_object, results), 1, 1, 0},
};

/* Reads one epilogue, whose inputs must be among `known` (NULL-terminated). */
static mmlp_status read_epilogue(program *out, int *result, const mmlp_bundle *bundle,
                                 const json_t *object, const char *name, const char *const *known)
{
    json_place place = {bundle->path, name, -1};
    epilogue_object epilogue;
    if (!json_is_object(object))
        return json_fail_field(&place, "program", NULL, "an epilogue");
    MMLP_TRY(
        json_fields_read(&epilogue, object, epilogue_fields, COUNT_OF(epilogue_fields), &place));
    if (json_array_size(json_object_get(epilogue.program, "nodes")) > BUNDLE_MAX_NODES)
        return json_fail_field(&place, "program", epilogue.program, "fewer nodes");
    mmlp_status status = program_from_json(out, epilogue.program);
    if (status != MMLP_OK)
        return mmlp_fail(status, "%s: %s: %s", bundle->path, name, mmlp_last_error());
    for (int i = 0; i < out->input_count; i++) {
        bool found = false;
        for (int j = 0; known[j]; j++)
            found = found || strcmp(known[j], out->inputs[i]) == 0;
        if (!found)
            return mmlp_fail(MMLP_ERROR_FORMAT, "%s: %s: unknown input \"%.64s\"", bundle->path,
                             name, out->inputs[i]);
    }
    const json_t *index = json_array_get(epilogue.results, 0);
    if (!json_is_integer(index) || json_integer_value(index) < 0 ||
        json_integer_value(index) >= out->count)
        return json_fail_field(&place, "results", index, "the index of a node");
    *result = (int)json_integer_value(index);
    return MMLP_OK;
}

static mmlp_status read_reference(mmlp_bundle *bundle, const json_t *object)
{
    static const char *const activation_inputs[] = {"gate",    "up",    "gate_bias",
                                                    "up_bias", "scale", NULL};
    static const char *const output_inputs[] = {"accumulator", "bias", "scale", NULL};
    json_place place = {bundle->path, "reference", -1};
    struct {
        const json_t *activation, *output;
    } epilogues;
    const json_field fields[] = {
        {"activation", JSON_FIELD_OBJECT, 0, 0, 0, 0},
        {"output", JSON_FIELD_OBJECT, sizeof(const json_t *), 0, 0, 0},
    };
    MMLP_TRY(json_fields_read(&epilogues, object, fields, COUNT_OF(fields), &place));
    MMLP_TRY(read_epilogue(&bundle->activation, &bundle->activation_result, bundle,
                           epilogues.activation, "reference.activation", activation_inputs));
    return read_epilogue(&bundle->output, &bundle->output_result, bundle, epilogues.output,
                         "reference.output", output_inputs);
}

mmlp_status manifest_read(mmlp_bundle *bundle, const json_t *manifest)
{
    top_object top;
    MMLP_TRY(read_top(&top, bundle, manifest));
    bundle->name = top.name;
    MMLP_TRY(read_mlp(bundle, top.mlp));
    MMLP_TRY(read_buffers(bundle, top.buffers));
    MMLP_TRY(read_kernels(bundle, top.kernels));
    return read_reference(bundle, top.reference);
}
