/* generated.c: see generated.h. */
#include "generated.h"

#include <base/file.h>
#include <base/nvrtc.h>
#include <criterion/criterion.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../emulator/device.h"

static const struct {
    const char *bundle, *pass, *step;
} victims[VICTIMS] = {
    {BUNDLE, "forward", "linear_fc1"},         {BUNDLE, "forward", "linear_fc2"},
    {DGRAD_BUNDLE, "dgrad", "linear_fc2"},     {BUNDLE, "dgrad", "linear_fc1"},
    {BUNDLE, "backward_dw", "linear_fc1"},     {BIAS_BUNDLE, "dgrad", "linear_fc2"},
    {BIAS_BUNDLE, "dgrad", "grad_output_sums"}};

enum { BIAS_HIDDEN = 64, BIAS_FFN = 128, SUMS = (TOKENS + 127) / 128 };

/* What a kernel can be given; written_by: that kernel finds it as it was allocated. */
static const struct {
    const char *name;
    size_t rows, columns;
    enum { NOBODY = 0, ANYBODY = ~0, FORWARD = 1 << FC1_FORWARD } written_by;
} tensors[] = {
    {"hidden_states", TOKENS, HIDDEN, NOBODY},
    {"grad_output", TOKENS, HIDDEN, NOBODY},
    {"linear_fc1.weight", 2 * FFN, HIDDEN, NOBODY},
    {"linear_fc2.weight", HIDDEN, FFN, NOBODY},
    {"fc1_output", TOKENS, 2 * FFN, FORWARD},
    {"activation_output", TOKENS, FFN, FORWARD},
    {"output", TOKENS, HIDDEN, ANYBODY},
    {"recomputed_activation", TOKENS, FFN, ANYBODY},
    {"grad_fc1_output", TOKENS, 2 * FFN, 1 << FC2_DGRAD | 1 << BIAS_FC2_DGRAD},
    {"grad.hidden_states", TOKENS, HIDDEN, ANYBODY},
    {"grad.linear_fc1.weight", 2 * FFN, HIDDEN, ANYBODY},
    {"linear_fc1.bias", 1, 2 * FFN, NOBODY},
    {"fc1_bias_sums", SUMS, 2 * 2 * BIAS_FFN, ANYBODY}, /* of fp32 */
    {"fc2_bias_sums", SUMS, 2 * BIAS_HIDDEN, ANYBODY},
};
enum { TENSORS = sizeof tensors / sizeof *tensors, ELEMENT = 2, ARGUMENTS = 16, MAPS = 8 };

/* ---- the kernel ------------------------------------------------------------------------------ */

const char *generated_string(const generated *k, const char *key)
{
    return json_string_value(json_object_get(k->entry, key));
}

static unsigned number_of(const json_t *object, const char *key)
{
    return (unsigned)json_integer_value(json_object_get(object, key));
}

generated generated_read(victim which)
{
    generated k = {.which = which};
    json_error_t error;
    size_t i, bytes;
    json_t *entry;
    char *path = NULL;
    cr_assert_gt(asprintf(&path, "%s/manifest.json", victims[which].bundle), 0);
    k.manifest = json_load_file(path, 0, &error);
    cr_assert_not_null(k.manifest, "%s", error.text);
    free(path);
    json_array_foreach(json_object_get(k.manifest, "kernels"), i, entry)
    {
        if (strcmp(json_string_value(json_object_get(entry, "pass")), victims[which].pass) == 0 &&
            strcmp(json_string_value(json_object_get(entry, "step")), victims[which].step) == 0 &&
            strcmp(json_string_value(json_object_get(entry, "family")), FAMILY) == 0 &&
            number_of(json_object_get(entry, "grid"), "cluster") == CLUSTER)
            k.entry = entry;
    }
    cr_assert_not_null(k.entry);
    cr_assert_gt(asprintf(&path, "%s/%s", victims[which].bundle, generated_string(&k, "file")), 0);
    cr_assert_eq(file_read(&k.source, &bytes, path), MMLP_OK, "%s", mmlp_last_error());
    free(path);
    return k;
}

void generated_free(generated *k)
{
    json_decref(k->manifest);
    free(k->source);
}

void generated_replace(generated *k, const char *from, const char *to)
{
    char *found = NULL, *result = NULL;
    for (char *at = k->source; (at = strstr(at, from)) != NULL; at++)
        found = at;
    cr_assert_not_null(found, "%s has no \"%s\" to break", generated_string(k, "entry"), from);
    cr_assert_gt(asprintf(&result, "%.*s%s%s", (int)(found - k->source), k->source, to,
                          found + strlen(from)),
                 0);
    free(k->source);
    k->source = result;
}

/* ---- its tensors ----------------------------------------------------------------------------- */

static size_t index_of(const char *name)
{
    size_t i = 0;
    while (i < TENSORS && strcmp(tensors[i].name, name) != 0)
        i++;
    cr_assert_lt(i, TENSORS, "%s", name);
    return i;
}

void generated_shape(const char *name, size_t *rows, size_t *columns)
{
    size_t i = index_of(name);
    *rows = tensors[i].rows;
    *columns = tensors[i].columns;
}

int generated_value(const char *name, size_t row, size_t column)
{
    uint64_t word = (index_of(name) << 40) + (row << 20) + column + 1;
    word *= 0x9e3779b97f4a7c15u;
    word = (word ^ word >> 32) * 0xd6e8feb86659fd93u;
    return (int)(word >> 40) % 5 - 2;
}

/* bf16 of an integer between -2 and 2. */
static unsigned short small_bf16(int value)
{
    static const unsigned short of[] = {0xc000, 0xbf80, 0, 0x3f80, 0x4000};
    return of[value + 2];
}

static CUdeviceptr make_tensor(victim which, const char *name, const char *short_tensor)
{
    size_t i = index_of(name), missing = short_tensor && strcmp(short_tensor, name) == 0;
    size_t rows = tensors[i].rows - missing, columns = tensors[i].columns;
    if (tensors[i].written_by & 1 << which)
        return device_alloc(rows * columns * ELEMENT);
    unsigned short *values = malloc(rows * columns * ELEMENT);
    cr_assert_not_null(values);
    for (size_t at = 0; at < rows * columns; at++)
        values[at] = small_bf16(generated_value(name, at / columns, at % columns));
    CUdeviceptr pointer = device_upload(values, rows * columns * ELEMENT);
    free(values);
    return pointer;
}

/* ---- running it ------------------------------------------------------------------------------ */

static CUmodule compile(const generated *k)
{
    nvrtc *compiler;
    nvrtc_image image = {0};
    cr_assert_eq(nvrtc_open(&compiler, NULL), MMLP_OK, "%s", mmlp_last_error());
    nvrtc_source what = {.name = "broken.cu", .text = k->source, .target = FAMILY};
    cr_assert_eq(nvrtc_compile(&image, compiler, &what), MMLP_OK, "%s", mmlp_last_error());
    CUmodule module = device_load(image.ptx, "the broken kernel");
    nvrtc_image_free(&image);
    nvrtc_close(compiler);
    return module;
}

/* As runtime/launch.c makes it. */
static CUtensorMap make_map(const json_t *map, CUdeviceptr address)
{
    CUtensorMap out;
    cuuint64_t planes = number_of(map, "planes"), row_bytes = number_of(map, "stride") * ELEMENT;
    cuuint64_t rows = number_of(map, "rows") ? number_of(map, "rows") : TOKENS;
    const cuuint64_t sizes[] = {number_of(map, "columns"), rows, planes};
    const cuuint64_t strides[] = {row_bytes, rows * row_bytes};
    const cuuint32_t box[] = {128 / ELEMENT, number_of(map, "box_rows"), 1}, steps[] = {1, 1, 1};
    address += number_of(map, "first_column") * ELEMENT;
    cr_assert_eq(cuTensorMapEncodeTiled(&out, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, planes > 1 ? 3 : 2,
                                        (void *)address, sizes, strides, box, steps,
                                        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                        CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
                 CUDA_SUCCESS);
    return out;
}

static unsigned tiles(const json_t *grid, const char *sizes, unsigned tile, unsigned if_zero)
{
    unsigned size = number_of(grid, sizes);
    return ((size ? size : if_zero) + tile - 1) / tile;
}

/* Clusters of blocks take tiles in turn, as on a device that holds so many. */
static unsigned blocks_of(const json_t *grid, unsigned clusters)
{
    unsigned cluster = number_of(grid, "cluster"), height = cluster ? cluster : 1;
    unsigned count = tiles(grid, "rows", height * number_of(grid, "tile_m"), TOKENS) *
                     tiles(grid, "columns", number_of(grid, "tile_n"), 0);
    return cluster == 0 ? count : (count < clusters ? count : clusters) * cluster;
}

/* What a launch is given: the tensors once each, whatever maps and arguments they stand in. */
typedef struct parameters {
    CUdeviceptr tensors[TENSORS]; /* 0: not made */
    CUtensorMap maps[MAPS];
    void *list[MAPS + ARGUMENTS];
} parameters;

static CUdeviceptr *tensor_of(parameters *p, const generated *k, const char *name,
                              const char *short_tensor)
{
    CUdeviceptr *tensor = &p->tensors[index_of(name)];
    if (!*tensor)
        *tensor = make_tensor(k->which, name, short_tensor);
    return tensor;
}

static void make_parameters(parameters *p, const generated *k, const char *short_tensor)
{
    static long long tokens = TOKENS;
    static int beta = 0;
    size_t i, count = 0;
    json_t *map, *argument;
    json_array_foreach(json_object_get(k->entry, "maps"), i, map)
    {
        const char *name = json_string_value(json_object_get(map, "tensor"));
        cr_assert_lt(i, MAPS);
        p->maps[i] = make_map(map, *tensor_of(p, k, name, short_tensor));
        p->list[count++] = &p->maps[i];
    }
    json_array_foreach(json_object_get(k->entry, "arguments"), i, argument)
    {
        const char *name = json_string_value(argument);
        cr_assert_lt(i, ARGUMENTS);
        p->list[count++] = strcmp(name, "tokens") == 0 ? (void *)&tokens
                           : strcmp(name, "beta") == 0 ? (void *)&beta
                                                       : tensor_of(p, k, name, short_tensor);
    }
}

/* As runtime/launch.c launches it behind another kernel. */
static CUresult launch(parameters *p, const generated *k, const char *short_tensor,
                       unsigned clusters)
{
    CUmodule module = compile(k);
    make_parameters(p, k, short_tensor);
    const char *entry = generated_string(k, "entry");
    unsigned blocks = blocks_of(json_object_get(k->entry, "grid"), clusters);
    unsigned threads = number_of(k->entry, "threads");
    unsigned shared = number_of(k->entry, "dynamic_shared_bytes");
    return json_is_true(json_object_get(k->entry, "waits_for_previous"))
               ? device_try_dependent(module, entry, blocks, threads, shared, p->list)
               : device_try(module, entry, blocks, threads, shared, p->list);
}

CUresult generated_run(const generated *k, const char *short_tensor, const char *output_name,
                       unsigned short *output)
{
    enum { CLUSTERS = 2 };
    parameters p = {0};
    device_open();
    CUresult result = launch(&p, k, short_tensor, CLUSTERS);
    if (output_name && result == CUDA_SUCCESS) {
        size_t i = index_of(output_name);
        device_download(output, p.tensors[i], tensors[i].rows * tensors[i].columns * ELEMENT);
    }
    device_close();
    return result;
}

static void keep(void *user, const char *kernel, const emu_counters *counters)
{
    (void)kernel;
    *(emu_counters *)user = *counters;
}

void generated_count(const generated *k, emu_counters *counters)
{
    parameters p = {0};
    device_open();
    cr_assert_eq(cuEmulatorCount(keep, counters), CUDA_SUCCESS);
    cr_assert_eq(launch(&p, k, NULL, UINT_MAX), CUDA_SUCCESS, "%s", cuEmulatorLastReport());
    device_close();
}
