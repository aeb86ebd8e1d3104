/* shard.c: see shard.h. */
#include "shard.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

enum { BLANK = 0xEE };

static const char *const names[] = {"linear_fc1.weight", "linear_fc1.bias", "linear_fc2.weight",
                                    "linear_fc2.bias"};
enum { PARAMETERS = 4 };

static int element_bytes(const shard_model *m)
{
    return strcmp(m->dtype, "fp32") == 0 ? 4 : 2;
}

static void local_shape(int64_t shape[2], const shard *s, int parameter)
{
    const shard_model *m = &s->model;
    int64_t ffn = m->ffn_hidden_size / s->ranks, fc1 = m->gated ? 2 * ffn : ffn;
    const int64_t shapes[PARAMETERS][2] = {
        {fc1, m->hidden_size}, {fc1, 1}, {m->hidden_size, ffn}, {m->hidden_size, 1}};
    memcpy(shape, shapes[parameter], sizeof shapes[parameter]);
}

static size_t parameter_bytes(const shard *s, int parameter)
{
    int64_t shape[2];
    local_shape(shape, s, parameter);
    return (size_t)(shape[0] * shape[1]) * (size_t)element_bytes(&s->model);
}

static bool has(const shard_model *m, int parameter)
{
    return m->bias || parameter % 2 == 0;
}

/* ---- memory and entries ---------------------------------------------------------------------- */

static void make_memory(shard *s, int layer)
{
    for (int i = 0; i < PARAMETERS; i++) {
        size_t bytes = parameter_bytes(s, i);
        if (!has(&s->model, i))
            continue;
        if (!s->context)
            cr_assert(s->parameters[layer][i] = malloc(bytes));
        else
            cr_assert_eq(mmlp_buffer_alloc((void **)&s->parameters[layer][i], s->context, bytes),
                         MMLP_OK, "%s", mmlp_last_error());
    }
}

static void add_tensors(shard *s, const mmlp_sharded_dict *dict, int layer)
{
    for (int i = 0; i < mmlp_sharded_tensor_count(dict); i++, s->count++) {
        mmlp_sharded_tensor *place = &s->places[s->count];
        *place = (mmlp_sharded_tensor)MMLP_SHARDED_TENSOR_INIT;
        cr_assert_eq(mmlp_sharded_tensor_get(dict, i, place), MMLP_OK);
        int parameter = 0;
        while (strcmp(names[parameter], place->parameter) != 0)
            parameter++;
        int64_t columns = place->ndim == 2 ? place->local_shape[1] : 1;
        s->tensors[s->count] = (mmlp_checkpoint_tensor)MMLP_CHECKPOINT_TENSOR_INIT;
        s->tensors[s->count].tensor = place;
        s->tensors[s->count].data =
            s->parameters[layer][parameter] + place->first_row * columns * element_bytes(&s->model);
    }
}

static void add_layer(shard *s, int layer)
{
    const shard_model *m = &s->model;
    const mmlp_sharded_offset offset = {0, layer, m->layers};
    mmlp_sharded_module module = MMLP_SHARDED_MODULE_INIT;
    mmlp_sharded_options options = MMLP_SHARDED_OPTIONS_INIT;
    mmlp_sharded_dict *dict;
    module.hidden_size = m->hidden_size;
    module.ffn_hidden_size = m->ffn_hidden_size / s->ranks;
    module.tensor_model_parallel_size = s->ranks;
    module.gated_linear_unit = m->gated;
    module.add_bias_linear = m->bias;
    module.params_dtype = m->dtype;
    options.prefix = "decoder.layers.mlp.";
    options.offsets = m->layers ? &offset : NULL;
    options.offset_count = m->layers ? 1 : 0;
    options.singleton_local_shards = m->singleton;
    options.tp_rank = s->rank;
    cr_assert_eq(mmlp_sharded_state_dict(&dict, &module, &options), MMLP_OK, "%s",
                 mmlp_last_error());
    make_memory(s, layer);
    add_tensors(s, dict, layer);
    mmlp_sharded_dict_free(dict);
}

static int layer_count(const shard *s)
{
    return s->model.layers ? s->model.layers : 1;
}

void shard_make(shard *s, const shard_model *model, int ranks, int rank, mmlp_context *context)
{
    *s = (shard){.model = *model, .ranks = ranks, .rank = rank, .context = context};
    for (int layer = 0; layer < layer_count(s); layer++)
        add_layer(s, layer);
}

void shard_free(shard *s)
{
    for (int layer = 0; layer < layer_count(s); layer++)
        for (int i = 0; i < PARAMETERS; i++) {
            if (s->context)
                mmlp_buffer_free(s->context, s->parameters[layer][i]);
            else
                free(s->parameters[layer][i]);
        }
}

mmlp_checkpoint_args shard_args(const shard *s)
{
    mmlp_checkpoint_args args = MMLP_CHECKPOINT_ARGS_INIT;
    args.tensors = s->tensors;
    args.count = s->count;
    args.context = s->context;
    return args;
}

/* ---- numbers --------------------------------------------------------------------------------- */

/* The bits of the element in that row and column of the rank's parameter. Of fc1 the rows, of fc2
 * the columns are features, of which each rank has a part; when gated, of gate and of up. */
static uint32_t number_at(const shard *s, int layer, int parameter, int64_t row, int64_t column)
{
    const int64_t own = s->model.ffn_hidden_size / s->ranks, first = own * s->rank;
    uint32_t half = 0;
    if (parameter < 2) {
        half = (uint32_t)(row / own);
        row = first + row % own;
    }
    if (parameter == 2)
        column += first;
    uint32_t place = (uint32_t)row * 8191u + (uint32_t)column;
    uint32_t which = (uint32_t)(parameter * 64 + layer * 8) + half;
    uint32_t bits = place * 2654435761u + which * 40503u;
    return (bits ^ bits >> 15) & 0x7fffffffu; /* never begins or ends with BLANK */
}

static void number_bytes(char *out, const shard *s, int layer, int parameter)
{
    const int size = element_bytes(&s->model);
    int64_t shape[2];
    local_shape(shape, s, parameter);
    for (int64_t row = 0; row < shape[0]; row++)
        for (int64_t column = 0; column < shape[1]; column++, out += size) {
            uint32_t bits = number_at(s, layer, parameter, row, column);
            uint16_t high = (uint16_t)(bits >> 16);
            memcpy(out, size == 4 ? (const void *)&bits : &high, (size_t)size);
        }
}

static void upload(const shard *s, char *to, const char *from, size_t bytes)
{
    if (s->context)
        cr_assert_eq(mmlp_buffer_upload(s->context, to, from, bytes, NULL), MMLP_OK, "%s",
                     mmlp_last_error());
    else
        memcpy(to, from, bytes);
}

typedef void contents(char *out, const shard *s, int layer, int parameter);

static void blank_bytes(char *out, const shard *s, int layer, int parameter)
{
    (void)layer;
    memset(out, BLANK, parameter_bytes(s, parameter));
}

static void put(shard *s, contents *make)
{
    for (int layer = 0; layer < layer_count(s); layer++)
        for (int i = 0; i < PARAMETERS; i++) {
            if (!has(&s->model, i))
                continue;
            char *bytes = malloc(parameter_bytes(s, i));
            make(bytes, s, layer, i);
            upload(s, s->parameters[layer][i], bytes, parameter_bytes(s, i));
            free(bytes);
        }
}

static void expect(const shard *s, contents *make)
{
    for (int layer = 0; layer < layer_count(s); layer++)
        for (int i = 0; i < PARAMETERS; i++) {
            if (!has(&s->model, i))
                continue;
            const size_t bytes = parameter_bytes(s, i);
            char *wanted = malloc(bytes), *found = malloc(bytes);
            make(wanted, s, layer, i);
            if (s->context)
                cr_assert_eq(
                    mmlp_buffer_download(s->context, found, s->parameters[layer][i], bytes, NULL),
                    MMLP_OK);
            else
                memcpy(found, s->parameters[layer][i], bytes);
            cr_expect(memcmp(found, wanted, bytes) == 0, "%s of layer %d, rank %d of %d", names[i],
                      layer, s->rank, s->ranks);
            free(wanted);
            free(found);
        }
}

void shard_fill(shard *s)
{
    put(s, number_bytes);
}

void shard_blank(shard *s)
{
    put(s, blank_bytes);
}

void shard_expect_filled(const shard *s)
{
    expect(s, number_bytes);
}

void shard_expect_blank(const shard *s)
{
    expect(s, blank_bytes);
}

/* ---- all ranks ------------------------------------------------------------------------------- */

void shard_save_all(const char *path, const shard_model *model, int ranks)
{
    shard *shards = calloc((size_t)ranks, sizeof *shards);
    mmlp_checkpoint_tensor *all = calloc((size_t)ranks * SHARD_TENSORS_MAX, sizeof *all);
    mmlp_checkpoint_args args = MMLP_CHECKPOINT_ARGS_INIT;
    args.tensors = all;
    for (int rank = 0; rank < ranks; rank++) {
        shard *s = &shards[rank];
        shard_make(s, model, ranks, rank, NULL);
        shard_fill(s);
        memcpy(&all[args.count], s->tensors, (size_t)s->count * sizeof *all);
        args.count += s->count;
    }
    cr_assert_eq(mmlp_checkpoint_save(path, &args), MMLP_OK, "%s", mmlp_last_error());
    for (int rank = 0; rank < ranks; rank++)
        shard_free(&shards[rank]);
    free(all);
    free(shards);
}

void shard_load_all(const char *path, const shard_model *model, int ranks)
{
    for (int rank = 0; rank < ranks; rank++) {
        shard s;
        shard_make(&s, model, ranks, rank, NULL);
        shard_blank(&s);
        const mmlp_checkpoint_args args = shard_args(&s);
        cr_assert_eq(mmlp_checkpoint_load(path, &args), MMLP_OK, "%s", mmlp_last_error());
        shard_expect_filled(&s);
        shard_free(&s);
    }
}

bool shard_is_file(const char *path, const shard_model *model)
{
    shard s;
    shard_make(&s, model, 1, 0, NULL);
    const mmlp_checkpoint_args args = shard_args(&s);
    const bool is = mmlp_checkpoint_verify(path, &args, NULL, NULL) == MMLP_OK;
    shard_free(&s);
    if (is)
        shard_load_all(path, model, 1);
    return is;
}
