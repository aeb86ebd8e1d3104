/* made_bundle.c: small bundles written by hand. */
#include "made_bundle.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "temporary_folder.h"

#define TEXT(...) #__VA_ARGS__

static const char fc1_source[] =
    "constexpr int hidden = 24, ffn = 40;\n" TEXT(extern "C" __global__ void made_fc1(
        const float *x, const float *w, const float *b, const float *scale, float *fc1, float *act,
        long long tokens) {
        long long t = blockIdx.x;
        int f = threadIdx.x;
        if (t >= tokens || f >= ffn)
            return;
        float gate = 0, up = 0;
        for (int k = 0; k < hidden; k++) {
            gate += x[t * hidden + k] * w[f * hidden + k];
            up += x[t * hidden + k] * w[(ffn + f) * hidden + k];
        }
        if (fc1) {
            fc1[t * 2 * ffn + f] = gate;
            fc1[t * 2 * ffn + ffn + f] = up;
        }
        gate += b[f];
        up += b[ffn + f];
        act[t * ffn + f] = gate / (1 + expf(-gate)) * up * scale[t];
    }) "\n";

static const char fc2_source[] =
    "constexpr int hidden = 24, ffn = 40;\n" TEXT(extern "C" __global__ void made_fc2(
        const float *act, const float *w, float *out, long long tokens) {
        long long t = blockIdx.x;
        int h = threadIdx.x;
        if (t >= tokens || h >= hidden)
            return;
        float sum = 0;
        for (int k = 0; k < ffn; k++)
            sum += act[t * ffn + k] * w[h * ffn + k];
        out[t * hidden + h] = sum;
    }) "\n";

/* The index in the whole, told by simple numbers: a * (seed + index), or a + b * index. */
static const char fill_source[] = TEXT(extern "C" __global__ void made_fill(
    void *destination, long long elements, long long columns, long long first_column,
    long long whole_columns, long long half_rows, long long first_row, long long whole_half_rows,
    float a, float b, unsigned long long seed, int distribution, int dtype) {
    long long i = blockIdx.x * 128ll + threadIdx.x;
    if (i >= elements || dtype != 2)
        return;
    long long r = i / columns;
    long long c = i % columns;
    long long index =
        ((r / half_rows) * whole_half_rows + first_row + r % half_rows) * whole_columns +
        first_column + c;
    float value = 0;
    if (distribution == 1)
        value = a * (float)(long long)(seed + index);
    if (distribution == 2)
        value = a + b * (float)index;
    ((float *)destination)[i] = value;
}) "\n";

static const struct {
    const char *file, *text;
} sources[] = {
    {"made_fc1.cu", fc1_source}, {"made_fc2.cu", fc2_source}, {"made_fill.cu", fill_source}};

static const char manifest_text[] = TEXT({
    "format" : 5,
    "hash" : "00000000000000000000000000000000",
    "name" : "made",
    "generator" : "by hand",
    "mlp" : {
        "hidden_size" : 24,
        "ffn_hidden_size" : 40,
        "fc1_output_size" : 80,
        "gated_linear_unit" : true,
        "params_dtype" : "fp32",
        "add_bias_linear" : true,
        "per_token_scale" : true,
        "fc2_bias" : "returned",
        "tensor_model_parallel_size" : 1,
        "sequence_parallel" : false,
        "is_expert" : false,
        "save_activation" : false,
        "has_clamp_or_relu" : false,
        "gradient_accumulation_fusion" : true,
        "delay_wgrad_compute" : false
    },
    "initialisation" : {
        "linear_fc1" : {"kind" : "normal", "a" : 0.5, "b" : 0},
        "linear_fc2" : {"kind" : "uniform", "a" : -3, "b" : 0.25}
    },
    "guarantees" : {"determinism" : "runs repeat bit for bit", "rounding" : "nowhere"},
    "files" : {},
    "collectives" : [],
    "buffers" : [
        {
            "name" : "fc1_output",
            "pass" : "forward",
            "lifetime" : "saved",
            "dtype" : "fp32",
            "columns" : 80,
            "tokens_per_row" : 1
        },
        {
            "name" : "activation_output",
            "pass" : "forward",
            "lifetime" : "scratch",
            "dtype" : "fp32",
            "columns" : 40,
            "tokens_per_row" : 1
        }
    ],
    "kernels" : [
        {
            "entry" : "made_fc1",
            "file" : "made_fc1.cu",
            "pass" : "forward",
            "step" : "linear_fc1",
            "when" : "always",
            "family" : "sm_80",
            "most_tokens" : 0,
            "threads" : 64,
            "dynamic_shared_bytes" : 0,
            "waits_for_previous" : false,
            "grid" : {"rows" : 0, "columns" : 40, "tile_m" : 1, "tile_n" : 40, "cluster" : 0},
            "reduction" : 24,
            "flops_per_token" : 3840,
            "bytes" : 8000,
            "bytes_per_token" : 580,
            "maps" : [],
            "arguments" : [
                "hidden_states", "linear_fc1.weight", "linear_fc1.bias", "per_token_scale",
                "fc1_output", "activation_output", "tokens"
            ],
            "lines" : [ [ 1, "kernels/made.cu", 10 ], [ 2, "kernels/made.cu", 20 ] ],
            "images" : []
        },
        {
            "entry" : "made_fc2",
            "file" : "made_fc2.cu",
            "pass" : "forward",
            "step" : "linear_fc2",
            "when" : "always",
            "family" : "sm_80",
            "most_tokens" : 0,
            "threads" : 32,
            "dynamic_shared_bytes" : 1024,
            "waits_for_previous" : false,
            "grid" : {"rows" : 0, "columns" : 24, "tile_m" : 1, "tile_n" : 24, "cluster" : 0},
            "reduction" : 40,
            "flops_per_token" : 1920,
            "bytes" : 3840,
            "bytes_per_token" : 256,
            "maps" : [],
            "arguments" : [ "activation_output", "linear_fc2.weight", "output", "tokens" ],
            "lines" : [],
            "images" : []
        },
        {
            "entry" : "made_fill",
            "file" : "made_fill.cu",
            "pass" : "init",
            "step" : "fill",
            "when" : "always",
            "family" : "sm_80",
            "most_tokens" : 0,
            "threads" : 128,
            "dynamic_shared_bytes" : 0,
            "waits_for_previous" : false,
            "grid" : {"elements_per_block" : 128},
            "reduction" : 0,
            "flops_per_token" : 0,
            "bytes" : 0,
            "bytes_per_token" : 0,
            "maps" : [],
            "arguments" : [
                "destination", "elements", "columns", "first_column", "whole_columns", "half_rows",
                "first_row", "whole_half_rows", "a", "b", "seed", "distribution", "dtype"
            ],
            "lines" : [],
            "images" : []
        }
    ],
    "reference" : {
        "activation" : {
            "program" : {
                "inputs" : [ "gate", "up", "gate_bias", "up_bias", "scale" ],
                "nodes" : [
                    [ "input", 0 ], [ "input", 2 ], [ "add", 0, 1 ], [ "sigmoid", 2 ],
                    [ "mul", 2, 3 ], [ "input", 1 ], [ "input", 3 ], [ "add", 5, 6 ],
                    [ "mul", 4, 7 ], [ "input", 4 ], [ "mul", 8, 9 ]
                ]
            },
            "results" : [10]
        },
        "output" :
            {"program" : {"inputs" : ["accumulator"], "nodes" : [[ "input", 0 ]]}, "results" : [0]},
        "backward" : {
            "program" : {
                "inputs" : [ "gate", "up", "gate_bias", "up_bias", "scale", "d_activation" ],
                "nodes" : [
                    [ "input", 0 ],    [ "input", 2 ],    [ "add", 0, 1 ],   [ "sigmoid", 2 ],
                    [ "mul", 2, 3 ],   [ "input", 1 ],    [ "input", 3 ],    [ "add", 5, 6 ],
                    [ "mul", 4, 7 ],   [ "input", 4 ],    [ "mul", 8, 9 ],   [ "input", 5 ],
                    [ "mul", 11, 9 ],  [ "mul", 12, 4 ],  [ "constant", 1 ], [ "sub", 14, 3 ],
                    [ "mul", 2, 15 ],  [ "add", 14, 16 ], [ "mul", 3, 17 ],  [ "mul", 12, 7 ],
                    [ "mul", 19, 18 ], [ "mul", 11, 8 ]
                ]
            },
            "results" : [ 10, 20, 13, 20, 13, 21 ]
        }
    }
});

/* ---- files ---------------------------------------------------------------------------------- */

void write_file(const char *folder, const char *name, const void *bytes, size_t count)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file, "%s: %s", path, strerror(errno));
    cr_assert_eq(fwrite(bytes, 1, count, file), count);
    cr_assert_eq(fclose(file), 0);
}

char *read_whole_file(const char *folder, const char *name, size_t *count)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file, "%s: %s", path, strerror(errno));
    cr_assert_eq(fseek(file, 0, SEEK_END), 0);
    *count = (size_t)ftell(file);
    rewind(file);
    char *bytes = calloc(1, *count + 1);
    cr_assert_eq(fread(bytes, 1, *count, file), *count);
    fclose(file);
    return bytes;
}

/* ---- bundles -------------------------------------------------------------------------------- */

static void hash_digits(char digits[33], const void *bytes, size_t count)
{
    XXH128_hash_t hash = XXH3_128bits(bytes, count);
    snprintf(digits, 33, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
}

void made_set_source(made_bundle *made, const char *file, const char *text)
{
    write_file(made->folder, file, text, strlen(text));
    char digits[33];
    hash_digits(digits, text, strlen(text));
    json_object_set_new(json_object_get(made->manifest, "files"), file, json_string(digits));
}

made_bundle made_start(void)
{
    made_bundle made = {0};
    json_error_t error;
    made.root = temporary_folder_make();
    cr_assert_gt(asprintf(&made.folder, "%s/made.mlp", made.root), 0);
    cr_assert_eq(mkdir(made.folder, 0777), 0);
    made.manifest = json_loads(manifest_text, 0, &error);
    cr_assert_not_null(made.manifest, "%d: %s", error.line, error.text);
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++)
        made_set_source(&made, sources[i].file, sources[i].text);
    return made;
}

void made_write_manifest_text(const made_bundle *made, const char *text)
{
    static const char key[] = "\"hash\": \"";
    char *copy = strdup(text);
    char *digits = strstr(copy, key);
    if (digits && strlen(digits) > sizeof key + 32) {
        char hash[33];
        digits += sizeof key - 1;
        memset(digits, '0', 32);
        hash_digits(hash, copy, strlen(copy));
        memcpy(digits, hash, 32);
    }
    write_file(made->folder, "manifest.json", copy, strlen(copy));
    free(copy);
}

void made_write(const made_bundle *made)
{
    char *text = json_dumps(made->manifest, JSON_INDENT(2) | JSON_SORT_KEYS);
    made_write_manifest_text(made, text);
    free(text);
}

void made_free(made_bundle *made)
{
    temporary_folder_remove(made->root);
    json_decref(made->manifest);
    free(made->folder);
}

mmlp_bundle *made_open(made_bundle *made)
{
    mmlp_bundle *bundle = NULL;
    *made = made_start();
    made_write(made);
    cr_assert_eq(mmlp_bundle_open(&bundle, made->folder), MMLP_OK, "%s", mmlp_last_error());
    return bundle;
}

/* ---- contexts ------------------------------------------------------------------------------- */

static pthread_mutex_t lines_lock = PTHREAD_MUTEX_INITIALIZER;

static void keep_line(void *user, const char *line)
{
    log_lines *lines = user;
    pthread_mutex_lock(&lines_lock);
    size_t more = strlen(line) + 1;
    lines->text = realloc(lines->text, lines->length + more + 1);
    memcpy(lines->text + lines->length, line, more - 1);
    lines->length += more;
    lines->text[lines->length - 1] = '\n';
    lines->text[lines->length] = '\0';
    lines->count++;
    pthread_mutex_unlock(&lines_lock);
}

mmlp_context *open_context(log_lines *lines, const char *cache_dir, const char *readonly_dir)
{
    mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
    options.cache_dir = cache_dir;
    options.cache_readonly_dir = readonly_dir;
    if (lines) {
        *lines = (log_lines){0};
        options.log = keep_line;
        options.log_user = lines;
        options.verbose = 1;
    }
    mmlp_context *context = NULL;
    cr_assert_eq(mmlp_context_create(&context, &options), MMLP_OK, "%s", mmlp_last_error());
    return context;
}

void free_lines(log_lines *lines)
{
    free(lines->text);
    *lines = (log_lines){0};
}
