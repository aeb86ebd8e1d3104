/* bundle_manifest.c: what a bundle says about itself. Keys are sorted, so the same spec gives the
 * same text. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "bundle_write.h"

enum { HASH_DIGITS = 32 };
static const char no_hash[HASH_DIGITS + 1] = "00000000000000000000000000000000";

static void print_hash(char out[HASH_DIGITS + 1], const void *bytes, size_t count)
{
    static const char digits[] = "0123456789abcdef";
    XXH128_canonical_t canonical;
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(bytes, count));
    for (int i = 0; i < HASH_DIGITS / 2; i++) {
        out[2 * i] = digits[canonical.digest[i] >> 4];
        out[2 * i + 1] = digits[canonical.digest[i] & 15];
    }
    out[HASH_DIGITS] = '\0';
}

static json_t *mlp_to_json(const plan *p)
{
    const module_spec *spec = p->spec;
    return json_pack(
        "{s:I, s:I, s:I, s:b, s:s, s:b, s:b, s:s, s:I, s:b, s:b, s:b, s:b, s:b, s:b}",
        "hidden_size", (json_int_t)p->hidden_size, "ffn_hidden_size",
        (json_int_t)p->ffn_hidden_size, "fc1_output_size", (json_int_t)p->fc1_output_size,
        "gated_linear_unit", (int)spec->config.gated_linear_unit, "params_dtype",
        spec_dtype_name(spec->config.params_dtype), "add_bias_linear",
        (int)spec->config.add_bias_linear, "per_token_scale", (int)spec->mlp.per_token_scale,
        "fc2_bias", plan_fc2_bias_name(p->fc2_bias), "tensor_model_parallel_size",
        (json_int_t)p->ranks, "sequence_parallel", (int)p->sequence_parallel, "is_expert",
        (int)spec->mlp.is_expert, "save_activation", (int)spec->config.save_activation,
        "has_clamp_or_relu", (int)p->has_clamp_or_relu, "gradient_accumulation_fusion",
        (int)spec->config.gradient_accumulation_fusion, "delay_wgrad_compute",
        (int)spec->config.delay_wgrad_compute);
}

/* std: what the config says where the linear has no init_method of its own; negative: unknown. */
static json_t *init_to_json(const spec_init *init, double std)
{
    const char *kind = "normal";
    double a = init->a, b = init->b;
    if (init->kind == SPEC_INIT_OF_CONFIG) {
        kind = std < 0 ? "unknown" : "normal";
        a = std < 0 ? 0 : std;
    } else if (init->kind == SPEC_INIT_ZEROS) {
        kind = "zeros";
    } else if (init->kind == SPEC_INIT_UNIFORM) {
        kind = "uniform";
    }
    return json_pack("{s:s, s:f, s:f}", "kind", kind, "a", a, "b", b);
}

/* Megatron's init_method_normal and scaled_init_method_normal. */
static json_t *initialisation_to_json(const plan *p)
{
    const spec_config *config = &p->spec->config;
    double fc2 = config->num_layers > 0
                     ? config->init_method_std / sqrt(2.0 * (double)config->num_layers)
                     : -1;
    return json_pack("{s:o, s:o}", "linear_fc1",
                     init_to_json(&p->spec->linear_fc1.init_method, config->init_method_std),
                     "linear_fc2", init_to_json(&p->spec->linear_fc2.init_method, fc2));
}

static json_t *guarantees_to_json(const plan *p)
{
    text determinism = TEXT_INIT, rounding = TEXT_INIT;
    plan_print_determinism(&determinism, p);
    plan_print_rounding(&rounding, p);
    json_t *object = json_pack("{s:s, s:s}", "determinism", text_string(&determinism), "rounding",
                               text_string(&rounding));
    text_free(&determinism);
    text_free(&rounding);
    return object;
}

static json_t *buffers_to_json(const plan *p)
{
    json_t *array = json_array();
    for (int i = 0; i < p->buffer_count; i++) {
        const plan_buffer *b = &p->buffers[i];
        json_array_append_new(
            array, json_pack("{s:s, s:s, s:s, s:s, s:I, s:I}", "name", b->name, "pass",
                             plan_pass_name(b->pass), "lifetime", plan_lifetime_name(b->lifetime),
                             "dtype", spec_dtype_name(b->dtype), "columns", (json_int_t)b->columns,
                             "tokens_per_row", (json_int_t)b->tokens_per_row));
    }
    return array;
}

/* Each with the step that it is enqueued before, or "end", the end of its pass. */
static json_t *collectives_to_json(const plan *p)
{
    json_t *array = json_array();
    for (int i = 0; i < p->step_count; i++) {
        const plan_step *step = &p->steps[i];
        int next = i + 1;
        while (next < p->step_count && p->steps[next].kind == PLAN_COLLECTIVE)
            next++;
        bool last = next == p->step_count || p->steps[next].pass != step->pass;
        if (step->kind == PLAN_COLLECTIVE)
            json_array_append_new(
                array, json_pack("{s:s, s:s, s:s, s:s, s:s}", "pass", plan_pass_name(step->pass),
                                 "operation", step->name, "input", step->input, "output",
                                 step->output, "before", last ? "end" : p->steps[next].name));
    }
    return array;
}

static json_t *grid_to_json(const emit_kernel *k)
{
    if (!k->step)
        return json_pack("{s:I}", "elements_per_block", (json_int_t)k->elements_per_block);
    return json_pack("{s:I, s:I, s:I, s:I, s:i}", "rows", (json_int_t)k->grid.rows, "columns",
                     (json_int_t)k->grid.columns, "tile_m", (json_int_t)k->grid.tile_m, "tile_n",
                     (json_int_t)k->grid.tile_n, "cluster", k->cluster);
}

static json_t *maps_to_json(const emit_kernel *k)
{
    json_t *array = json_array();
    for (int i = 0; i < k->map_count; i++) {
        const emit_map *m = &k->maps[i];
        json_array_append_new(
            array,
            json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:i}", "tensor", m->tensor, "dtype",
                      spec_dtype_name(m->dtype), "first_column", (json_int_t)m->first_column,
                      "rows", (json_int_t)m->rows, "columns", (json_int_t)m->columns, "stride",
                      (json_int_t)m->stride, "planes", m->planes, "box_rows", m->box_rows));
    }
    return array;
}

static json_t *lines_to_json(const template_output *source)
{
    json_t *array = json_array();
    for (int i = 0; i < source->run_count; i++)
        json_array_append_new(array, json_pack("[i, s, i]", source->runs[i].first_line,
                                               source->runs[i].name, source->runs[i].line));
    return array;
}

static json_t *kernel_to_json(const emit_kernels *kernels, int index, const bundle_content *files,
                              int file_count)
{
    const emit_kernel *k = &kernels->kernels[index];
    json_t *arguments = json_array(), *images = json_array();
    for (int i = 0; i < k->argument_count; i++)
        json_array_append_new(arguments, json_string(k->arguments[i]));
    for (int i = 0; i < file_count; i++)
        if (files[i].kernel == index)
            json_array_append_new(images, json_pack("{s:s, s:s, s:s}", "target", files[i].target,
                                                    "kind", files[i].kind, "file", files[i].name));
    const plan_step *step = k->step;
    bool gemm = step && step->kind == PLAN_GEMM;
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:i, s:I, s:b, s:o, s:I, s:f, s:f, s:f, "
                     "s:o, s:o, s:o, s:o}",
                     "entry", k->entry, "file", k->file, "pass", k->pass, "step", k->step_name,
                     "when", step ? step->when : "always", "family", k->plan->family->name,
                     "most_tokens", (json_int_t)k->most_tokens, "threads", k->threads,
                     "dynamic_shared_bytes", (json_int_t)k->shared_bytes, "waits_for_previous",
                     (int)k->waits_for_previous, "grid", grid_to_json(k), "reduction",
                     (json_int_t)(gemm ? step->k : 0), "flops_per_token",
                     gemm ? step->flops_per_token : 0.0, "bytes", step ? step->bytes : 0.0,
                     "bytes_per_token", step ? step->bytes_per_token : 0.0, "maps", maps_to_json(k),
                     "arguments", arguments, "lines", lines_to_json(&k->source), "images", images);
}

/* With the results from `first` on. */
static json_t *epilogue_to_json(const plan_epilogue *e, int first)
{
    json_t *results = json_array();
    for (int i = first; i < e->output_count; i++)
        json_array_append_new(results, json_integer(e->results[i]));
    return json_pack("{s:o, s:o}", "program", program_to_json(&e->graph), "results", results);
}

/* { "linear_fc1_forward.cu": "hash", ... } */
static json_t *files_to_json(const bundle_content *files, int file_count)
{
    json_t *object = json_object();
    for (int i = 0; i < file_count; i++) {
        char hash[HASH_DIGITS + 1];
        print_hash(hash, files[i].bytes, files[i].count);
        json_object_set_new(object, files[i].name, json_string(hash));
    }
    return object;
}

static json_t *manifest_to_json(const emit_kernels *kernels, const bundle_content *files,
                                int file_count)
{
    const plan *p = kernels->plans; /* all families have the same buffers and results */
    char generator[32];
    json_t *array = json_array();
    for (int i = 0; i < kernels->count; i++)
        json_array_append_new(array, kernel_to_json(kernels, i, files, file_count));
    snprintf(generator, sizeof generator, "megamlp %d.%d.%d", MMLP_VERSION_MAJOR,
             MMLP_VERSION_MINOR, MMLP_VERSION_PATCH);
    /* The last output of fc1's epilogue is the activation. */
    const plan_epilogue *activation = &p->reference_activation;
    return json_pack("{s:i, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:{s:o, s:o, s:o}}",
                     "format", 5, "hash", no_hash, "name", p->spec->name, "generator", generator,
                     "mlp", mlp_to_json(p), "initialisation", initialisation_to_json(p),
                     "guarantees", guarantees_to_json(p), "files", files_to_json(files, file_count),
                     "buffers", buffers_to_json(p), "collectives", collectives_to_json(p),
                     "kernels", array, "reference", "activation",
                     epilogue_to_json(activation, activation->output_count - 1), "output",
                     epilogue_to_json(&p->reference_output, 0), "backward",
                     epilogue_to_json(&p->reference_backward, 0));
}

mmlp_status manifest_print(char **out, size_t *bytes, const emit_kernels *kernels,
                           const bundle_content *files, int file_count)
{
    *out = NULL;
    json_t *json = manifest_to_json(kernels, files, file_count);
    char *dumped = json ? json_dumps(json, JSON_SORT_KEYS | JSON_INDENT(2)) : NULL;
    json_decref(json);
    if (!dumped)
        return mmlp_fail_memory(65536, "the manifest");
    size_t length = strlen(dumped);
    char *ended = realloc(dumped, length + 2);
    if (!ended) {
        free(dumped);
        return mmlp_fail_memory(length + 2, "the manifest");
    }
    memcpy(ended + length, "\n", 2);
    length++;
    char hash[HASH_DIGITS + 1];
    print_hash(hash, ended, length);
    static const char key[] = "\n  \"hash\": \"";
    char *place = strstr(ended, key);
    memcpy(place + strlen(key), hash, HASH_DIGITS);
    *out = ended;
    *bytes = length;
    return MMLP_OK;
}
