/*
 * manifest.c: the manifest's JSON into a bundle, by one table of keys for each kind of object; the
 * kernels are read by manifest_kernels.c. Everything that later code relies on is checked: types,
 * bounds, names of files and buffers, and that numbers agree with one another.
 */
#include "manifest.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const char *const dtype_words[] = {"bf16", "fp16", "fp32", NULL};
static const char *const lifetime_words[] = {"saved", "scratch", "pending", NULL};
static const char *const buffer_pass_words[] = {"forward", "dgrad", NULL};
static const char *const fc2_bias_words[] = {"none", "returned", "folded", "added", NULL};
/* num_layers, which the spec may leave out, is asked for by linear_fc2 alone. */
static const char *const fc1_init_words[] = {"zeros", "normal", "uniform", NULL};
static const char *const fc2_init_words[] = {"zeros", "normal", "uniform", "unknown", NULL};

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
    const json_t *mlp, *initialisation, *guarantees, *files, *buffers, *collectives, *kernels,
        *reference;
} top_object;

static const json_field top_fields[] = {
    {"format", JSON_FIELD_INTEGER, offsetof(top_object, format), BUNDLE_FORMAT, BUNDLE_FORMAT, 0},
    {"hash", JSON_FIELD_STRING, offsetof(top_object, hash), 0, 0, 0},
    {"name", JSON_FIELD_STRING, offsetof(top_object, name), 0, 0, 0},
    {"generator", JSON_FIELD_STRING, offsetof(top_object, generator), 0, 0, 0},
    {"mlp", JSON_FIELD_OBJECT, offsetof(top_object, mlp), 0, 0, 0},
    {"initialisation", JSON_FIELD_OBJECT, offsetof(top_object, initialisation), 0, 0, 0},
    {"guarantees", JSON_FIELD_OBJECT, offsetof(top_object, guarantees), 0, 0, 0},
    {"files", JSON_FIELD_OBJECT, offsetof(top_object, files), 0, 0, 0},
    {"buffers", JSON_FIELD_ARRAY, offsetof(top_object, buffers), 0, BUNDLE_MAX_BUFFERS, 0},
    {"collectives", JSON_FIELD_ARRAY, offsetof(top_object, collectives), 0, BUNDLE_MAX_COLLECTIVES,
     0},
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

mmlp_status manifest_find_file(const bundle_file **out, const mmlp_bundle *bundle, const char *name,
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
    bool gradient_accumulation_fusion, delay_wgrad_compute, sequence_parallel, is_expert;
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
    FLAG_FIELD(gradient_accumulation_fusion),
    FLAG_FIELD(delay_wgrad_compute),
    FLAG_FIELD(sequence_parallel),
    FLAG_FIELD(is_expert),
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
                         "%s: mlp.fc2_bias: found \"%s\", wanted %s where add_bias_linear is %s",
                         bundle->path, fc2_bias_words[mlp.fc2_bias],
                         mlp.add_bias_linear ? "\"returned\", \"folded\" or \"added\"" : "\"none\"",
                         mlp.add_bias_linear ? "true" : "false");
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
    bundle->gradient_accumulation_fusion = mlp.gradient_accumulation_fusion;
    bundle->delay_wgrad_compute = mlp.delay_wgrad_compute;
    bundle->sequence_parallel = mlp.sequence_parallel;
    bundle->is_expert = mlp.is_expert;
    bundle->fc2_bias = (mmlp_fc2_bias)mlp.fc2_bias;
    return MMLP_OK;
}

/* ---- initialisation and guarantees ---------------------------------------------------------- */

typedef struct init_object {
    int kind;
    double a, b;
} init_object;

static mmlp_status read_init(bundle_init *out, const mmlp_bundle *bundle, const json_t *object,
                             const char *name, const char *const *kinds)
{
    const json_field fields[] = {
        {"kind", JSON_FIELD_WORD, offsetof(init_object, kind), 0, 0, kinds},
        {"a", JSON_FIELD_REAL, offsetof(init_object, a), 0, 0, 0},
        {"b", JSON_FIELD_REAL, offsetof(init_object, b), 0, 0, 0},
    };
    json_place place = {bundle->path, name, -1};
    init_object init;
    MMLP_TRY(json_fields_read(&init, object, fields, COUNT_OF(fields), &place));
    *out = (bundle_init){(bundle_init_kind)init.kind, init.a, init.b};
    if (out->kind == BUNDLE_INIT_NORMAL && out->a < 0)
        return json_fail_field(&place, "a", json_object_get(object, "a"),
                               "a standard deviation of at least 0");
    if (out->kind == BUNDLE_INIT_UNIFORM && out->a > out->b)
        return json_fail_field(&place, "b", json_object_get(object, "b"), "a number of at least a");
    return MMLP_OK;
}

static mmlp_status read_initialisation(mmlp_bundle *bundle, const json_t *object)
{
    struct {
        const json_t *linear_fc1, *linear_fc2;
    } linears;
    const json_field fields[] = {
        {"linear_fc1", JSON_FIELD_OBJECT, 0, 0, 0, 0},
        {"linear_fc2", JSON_FIELD_OBJECT, sizeof(const json_t *), 0, 0, 0},
    };
    json_place place = {bundle->path, "initialisation", -1};
    MMLP_TRY(json_fields_read(&linears, object, fields, COUNT_OF(fields), &place));
    MMLP_TRY(read_init(&bundle->fc1_init, bundle, linears.linear_fc1, "initialisation.linear_fc1",
                       fc1_init_words));
    return read_init(&bundle->fc2_init, bundle, linears.linear_fc2, "initialisation.linear_fc2",
                     fc2_init_words);
}

static const json_field guarantee_fields[] = {
    {"determinism", JSON_FIELD_STRING, offsetof(mmlp_bundle, determinism), 0, 0, 0},
    {"rounding", JSON_FIELD_STRING, offsetof(mmlp_bundle, rounding), 0, 0, 0},
};

static mmlp_status read_guarantees(mmlp_bundle *bundle, const json_t *object)
{
    json_place place = {bundle->path, "guarantees", -1};
    return json_fields_read(bundle, object, guarantee_fields, COUNT_OF(guarantee_fields), &place);
}

/* ---- buffers -------------------------------------------------------------------------------- */

typedef struct buffer_object {
    const char *name;
    int pass, lifetime, dtype;
    int64_t columns, tokens_per_row;
} buffer_object;

#define AT(name) offsetof(buffer_object, name)
static const json_field buffer_fields[] = {
    {"name", JSON_FIELD_STRING, AT(name), 0, 0, 0},
    {"pass", JSON_FIELD_WORD, AT(pass), 0, 0, buffer_pass_words},
    {"lifetime", JSON_FIELD_WORD, AT(lifetime), 0, 0, lifetime_words},
    {"dtype", JSON_FIELD_WORD, AT(dtype), 0, 0, dtype_words},
    {"columns", JSON_FIELD_INTEGER, AT(columns), 1, BUNDLE_MAX_SIZE, 0},
    {"tokens_per_row", JSON_FIELD_INTEGER, AT(tokens_per_row), 1, BUNDLE_MAX_SIZE, 0},
};
#undef AT

/* What a buffer's pass and lifetime make impossible, as what was wanted; NULL: nothing. */
static const char *wanted_lifetime(const mmlp_bundle *bundle, const buffer_object *b)
{
    if (b->pass == BUNDLE_FORWARD && b->lifetime == MMLP_LIFETIME_PENDING)
        return "\"saved\" or \"scratch\" in a forward pass";
    if (b->pass == BUNDLE_DGRAD && b->lifetime == MMLP_LIFETIME_SAVED)
        return "\"pending\" or \"scratch\" in dgrad";
    if (b->lifetime == MMLP_LIFETIME_PENDING && !bundle->delay_wgrad_compute)
        return "\"scratch\" without delay_wgrad_compute";
    return NULL;
}

static mmlp_status read_buffers(mmlp_bundle *bundle, const json_t *array)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        json_place place = {bundle->path, "buffers", (int)i};
        const json_t *object = json_array_get(array, i);
        buffer_object b;
        MMLP_TRY(json_fields_read(&b, object, buffer_fields, COUNT_OF(buffer_fields), &place));
        for (int j = 0; j < bundle->buffer_count; j++) {
            if (strcmp(bundle->buffers[j].name, b.name) == 0)
                return json_fail_field(&place, "name", json_object_get(object, "name"),
                                       "a name of its own");
        }
        const char *wanted = wanted_lifetime(bundle, &b);
        if (wanted)
            return json_fail_field(&place, "lifetime", json_object_get(object, "lifetime"), wanted);
        bundle->buffers[bundle->buffer_count++] = (bundle_buffer){
            b.name,    (bundle_pass)b.pass, (mmlp_lifetime)b.lifetime, (bundle_dtype)b.dtype,
            b.columns, b.tokens_per_row};
    }
    return MMLP_OK;
}

/* ---- collectives ---------------------------------------------------------------------------- */

static const char *const operation_words[] = {"all_reduce", "all_gather", "reduce_scatter", NULL};
static const char *const collective_pass_words[] = {"forward", "dgrad", "backward_dw", NULL};

typedef struct collective_object {
    int pass, operation;
    const char *input, *output, *before;
} collective_object;

#define AT(name) offsetof(collective_object, name)
static const json_field collective_fields[] = {
    {"pass", JSON_FIELD_WORD, AT(pass), 0, 0, collective_pass_words},
    {"operation", JSON_FIELD_WORD, AT(operation), 0, 0, operation_words},
    {"input", JSON_FIELD_STRING, AT(input), 0, 0, 0},
    {"output", JSON_FIELD_STRING, AT(output), 0, 0, 0},
    {"before", JSON_FIELD_STRING, AT(before), 0, 0, 0},
};
#undef AT

static mmlp_status read_collectives(mmlp_bundle *bundle, const json_t *array)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        json_place place = {bundle->path, "collectives", (int)i};
        collective_object c;
        MMLP_TRY(json_fields_read(&c, json_array_get(array, i), collective_fields,
                                  COUNT_OF(collective_fields), &place));
        bundle->collectives[bundle->collective_count++] =
            (bundle_collective){.pass = (bundle_pass)c.pass,
                                .pass_name = collective_pass_words[c.pass],
                                .operation = (bundle_operation)c.operation,
                                .operation_name = operation_words[c.operation],
                                .input = c.input,
                                .output = c.output,
                                .before = c.before};
    }
    return MMLP_OK;
}

/* Ranks may differ in what their kernels look like, not in what they compute and exchange. */
static mmlp_status identify(mmlp_bundle *bundle, const json_t *manifest)
{
    static const char *const keys[] = {"mlp", "initialisation", "buffers", "collectives",
                                       "reference"};
    mmlp_status status = MMLP_OK;
    json_t *common = json_object();
    for (size_t i = 0; i < COUNT_OF(keys); i++)
        json_object_set(common, keys[i], json_object_get(manifest, keys[i]));
    char *text = json_dumps(common, JSON_SORT_KEYS);
    if (text)
        bundle->identity = XXH3_64bits(text, strlen(text));
    else
        status = mmlp_fail_memory(4096, "the identity of a bundle");
    free(text);
    json_decref(common);
    return status;
}

/* ---- reference ------------------------------------------------------------------------------ */

enum { MAX_RESULTS = 6 };

/* An input that an epilogue may have, and whether this MLP has it. */
typedef struct known_input {
    const char *name;
    bool there;
} known_input;

static mmlp_status check_inputs(const program *p, const known_input *known,
                                const mmlp_bundle *bundle, const char *name)
{
    for (int i = 0; i < p->input_count; i++) {
        const known_input *found = known;
        while (found->name && strcmp(found->name, p->inputs[i]) != 0)
            found++;
        if (!found->name || !found->there)
            return mmlp_fail(MMLP_ERROR_FORMAT, "%s: %s: unknown input \"%.64s\"", bundle->path,
                             name, p->inputs[i]);
    }
    return MMLP_OK;
}

/* Reads one epilogue, with exactly `count` results. `known` ends with a NULL name. */
static mmlp_status read_epilogue(program *out, int *results, int64_t count,
                                 const mmlp_bundle *bundle, const json_t *object, const char *name,
                                 const known_input *known)
{
    struct {
        const json_t *program, *results;
    } epilogue;
    const json_field fields[] = {
        {"program", JSON_FIELD_OBJECT, 0, 0, 0, 0},
        {"results", JSON_FIELD_ARRAY, sizeof(const json_t *), count, count, 0},
    };
    json_place place = {bundle->path, name, -1};
    MMLP_TRY(json_fields_read(&epilogue, object, fields, COUNT_OF(fields), &place));
    if (json_array_size(json_object_get(epilogue.program, "nodes")) > BUNDLE_MAX_NODES)
        return json_fail_field(&place, "program", epilogue.program, "fewer nodes");
    mmlp_status status = program_from_json(out, epilogue.program);
    if (status != MMLP_OK)
        return mmlp_fail(status, "%s: %s: %s", bundle->path, name, mmlp_last_error());
    MMLP_TRY(check_inputs(out, known, bundle, name));
    for (size_t i = 0; i < (size_t)count; i++) {
        const json_t *index = json_array_get(epilogue.results, i);
        if (!json_is_integer(index) || json_integer_value(index) < 0 ||
            json_integer_value(index) >= out->count)
            return json_fail_field(&place, "results", index, "the index of a node");
        results[i] = (int)json_integer_value(index);
    }
    return MMLP_OK;
}

static mmlp_status read_backward(mmlp_bundle *bundle, const json_t *object,
                                 const known_input *known)
{
    bundle_backward_results *r = &bundle->backward_results;
    bool bias = bundle->add_bias_linear, gated = bundle->gated_linear_unit;
    const struct {
        int *result;
        bool there;
    } order[MAX_RESULTS] = {
        {&r->activation, true},
        {&r->gate, true},
        {&r->up, gated},
        {&r->gate_bias, bias},
        {&r->up_bias, bias && gated},
        {&r->scale, bundle->per_token_scale},
    };
    int count = 0, indices[MAX_RESULTS];
    for (int i = 0; i < MAX_RESULTS; i++)
        count += order[i].there;
    MMLP_TRY(read_epilogue(&bundle->backward, indices, count, bundle, object, "reference.backward",
                           known));
    for (int i = 0, next = 0; i < MAX_RESULTS; i++)
        *order[i].result = order[i].there ? indices[next++] : -1;
    return MMLP_OK;
}

static mmlp_status read_reference(mmlp_bundle *bundle, const json_t *object)
{
    bool bias = bundle->add_bias_linear, gated = bundle->gated_linear_unit;
    const known_input backward_inputs[] = {
        {"d_activation", true},
        {"gate", true},
        {"up", gated},
        {"gate_bias", bias},
        {"up_bias", bias && gated},
        {"scale", bundle->per_token_scale},
        {NULL, false},
    };
    const known_input *activation_inputs = &backward_inputs[1]; /* all but d_activation */
    bool fc2_bias =
        bundle->fc2_bias == MMLP_FC2_BIAS_FOLDED || bundle->fc2_bias == MMLP_FC2_BIAS_ADDED;
    const known_input output_inputs[] = {{"accumulator", true},
                                         {"bias", fc2_bias},
                                         {"scale", bundle->per_token_scale},
                                         {NULL, false}};
    struct {
        const json_t *activation, *output, *backward;
    } epilogues;
    const json_field fields[] = {
        {"activation", JSON_FIELD_OBJECT, 0, 0, 0, 0},
        {"output", JSON_FIELD_OBJECT, sizeof(const json_t *), 0, 0, 0},
        {"backward", JSON_FIELD_OBJECT, 2 * sizeof(const json_t *), 0, 0, 0},
    };
    json_place place = {bundle->path, "reference", -1};
    MMLP_TRY(json_fields_read(&epilogues, object, fields, COUNT_OF(fields), &place));
    MMLP_TRY(read_epilogue(&bundle->activation, &bundle->activation_result, 1, bundle,
                           epilogues.activation, "reference.activation", activation_inputs));
    MMLP_TRY(read_epilogue(&bundle->output, &bundle->output_result, 1, bundle, epilogues.output,
                           "reference.output", output_inputs));
    return read_backward(bundle, epilogues.backward, backward_inputs);
}

mmlp_status manifest_read(mmlp_bundle *bundle, const json_t *manifest)
{
    top_object top;
    MMLP_TRY(read_top(&top, bundle, manifest));
    bundle->name = top.name;
    MMLP_TRY(read_mlp(bundle, top.mlp));
    MMLP_TRY(read_initialisation(bundle, top.initialisation));
    MMLP_TRY(read_guarantees(bundle, top.guarantees));
    MMLP_TRY(read_buffers(bundle, top.buffers));
    MMLP_TRY(read_collectives(bundle, top.collectives));
    MMLP_TRY(manifest_read_kernels(bundle, top.kernels));
    MMLP_TRY(read_reference(bundle, top.reference));
    return identify(bundle, manifest);
}
