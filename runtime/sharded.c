/*
 * sharded.c: which part of each stored tensor a rank holds (megatron.core.transformer.mlp,
 * MLP.sharded_state_dict; ShardedTensor.from_rank_offsets; apply_swiglu_sharded_factory). An axis
 * is described by a fragment of so many equal ones: global size and offset follow from the local.
 */
#include <stdlib.h>
#include <string.h>

#include "bundle.h"
#include "context.h"

enum { TENSORS_MAX = 6, OBJECTS_MAX = 2, OWN_AXES_MAX = 2 };

struct mmlp_sharded_dict {
    mmlp_sharded_tensor tensors[TENSORS_MAX];
    mmlp_sharded_object objects[OBJECTS_MAX];
    int tensor_count, object_count;
};

/* ---- what was asked -------------------------------------------------------------------------- */

/* Entries name the library's own word: the caller's may be gone when they are read. */
static mmlp_status set_dtype(mmlp_sharded_module *m)
{
    for (int i = 0; m->params_dtype && i < BUNDLE_DTYPES; i++) {
        const char *name = bundle_dtype_name((bundle_dtype)i);
        if (strcmp(m->params_dtype, name) == 0) {
            m->params_dtype = name;
            return MMLP_OK;
        }
    }
    return mmlp_fail(MMLP_ERROR_ARGUMENT,
                     "mmlp_sharded_module: params_dtype is %.32s; wanted bf16, fp16 or fp32",
                     m->params_dtype ? m->params_dtype : "NULL");
}

static mmlp_status check_module(mmlp_sharded_module *m)
{
    if (m->hidden_size < 1 || m->ffn_hidden_size < 1 || m->tensor_model_parallel_size < 1 ||
        m->hidden_size > INT32_MAX || m->ffn_hidden_size > INT32_MAX ||
        m->tensor_model_parallel_size > INT32_MAX)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "mmlp_sharded_module: hidden_size is %lld, ffn_hidden_size %lld, "
                         "tensor_model_parallel_size %lld; wanted 1 to 2^31-1",
                         (long long)m->hidden_size, (long long)m->ffn_hidden_size,
                         (long long)m->tensor_model_parallel_size);
    return set_dtype(m);
}

static mmlp_status check_offsets(const mmlp_sharded_options *o)
{
    bool seen[MMLP_SHARDED_AXES] = {false};
    const int most = MMLP_SHARDED_AXES - OWN_AXES_MAX;
    if (o->offset_count < 0 || o->offset_count > most || (o->offset_count > 0 && !o->offsets))
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "sharded_offsets: %d are given%s; wanted 0 to %d",
                         o->offset_count, o->offsets ? "" : " at NULL", most);
    for (int i = 0; i < o->offset_count; i++) {
        const mmlp_sharded_offset *offset = &o->offsets[i];
        if (offset->axis < 0 || offset->axis >= o->offset_count || seen[offset->axis])
            return mmlp_fail(MMLP_ERROR_ARGUMENT,
                             "sharded_offsets: axis %d of offset %d; wanted each of 0 to %d once",
                             offset->axis, i, o->offset_count - 1);
        if (offset->count < 1 || offset->index < 0 || offset->index >= offset->count)
            return mmlp_fail(MMLP_ERROR_ARGUMENT,
                             "sharded_offsets: index %lld of %lld on axis %d; wanted 0 to %lld",
                             (long long)offset->index, (long long)offset->count, offset->axis,
                             (long long)(offset->count > 0 ? offset->count - 1 : 0));
        seen[offset->axis] = true;
    }
    return MMLP_OK;
}

static mmlp_status check_options(const mmlp_sharded_options *o, const mmlp_sharded_module *m)
{
    if (o->tp_rank < 0 || o->tp_rank >= m->tensor_model_parallel_size)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "tp_rank is %lld; wanted 0 to %lld",
                         (long long)o->tp_rank, (long long)m->tensor_model_parallel_size - 1);
    if (o->dp_rank < 0)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "dp_rank is %lld; wanted 0 or more",
                         (long long)o->dp_rank);
    return check_offsets(o);
}

/* ---- entries --------------------------------------------------------------------------------- */

static mmlp_status make_key(char key[MMLP_SHARDED_KEY_BYTES], const char *prefix, const char *name)
{
    int length = snprintf(key, MMLP_SHARDED_KEY_BYTES, "%s%s", prefix ? prefix : "", name);
    if (length >= MMLP_SHARDED_KEY_BYTES)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "the key of %s has %d characters; wanted at most %d",
                         name, length, MMLP_SHARDED_KEY_BYTES - 1);
    return MMLP_OK;
}

/* One axis: `fragment` of so many that are `local` long. */
static void set_axis(mmlp_sharded_tensor *t, int axis, int64_t local, int64_t fragment,
                     int64_t fragments)
{
    t->global_shape[axis] = local * fragments;
    t->global_offset[axis] = local * fragment;
    t->axis_fragmentations[axis] = fragments;
}

/* A parameter of a linear. columns 0: it has one axis; split: the axis that tensor-parallel ranks
 * share out, or -1 where each has all of it. */
typedef struct parameter {
    const char *name;
    int64_t rows, columns;
    int split;
} parameter;

static mmlp_status add_tensor(mmlp_sharded_dict *dict, const parameter *p,
                              const mmlp_sharded_module *m, const mmlp_sharded_options *o)
{
    mmlp_sharded_tensor *t = &dict->tensors[dict->tensor_count];
    *t = (mmlp_sharded_tensor)MMLP_SHARDED_TENSOR_INIT;
    t->parameter = p->name;
    t->dtype = m->params_dtype;
    t->ndim = p->columns ? 2 : 1;
    t->prepend_axis_num = o->offset_count;
    t->local_shape[0] = p->rows;
    t->local_shape[1] = p->columns;
    for (int i = 0; i < o->offset_count; i++)
        set_axis(t, o->offsets[i].axis, 1, o->offsets[i].index, o->offsets[i].count);
    for (int i = 0; i < t->ndim; i++) {
        bool is_split = i == p->split;
        set_axis(t, o->offset_count + i, t->local_shape[i], is_split ? o->tp_rank : 0,
                 is_split ? m->tensor_model_parallel_size : 1);
    }
    t->replica_id[1] = p->split < 0 ? o->tp_rank : 0;
    t->replica_id[2] = o->dp_rank;
    MMLP_TRY(make_key(t->key, o->prefix, p->name));
    if (m->gated_linear_unit && strncmp(p->name, "linear_fc1.", 11) == 0) {
        mmlp_sharded_tensor whole = *t;
        t[1].struct_size = sizeof t[1];
        MMLP_TRY(mmlp_swiglu_sharded_factory(t, t + 1, &whole, o->singleton_local_shards));
        dict->tensor_count++;
    }
    dict->tensor_count++;
    return MMLP_OK;
}

static mmlp_status add_object(mmlp_sharded_dict *dict, const char *name,
                              const mmlp_sharded_options *o)
{
    mmlp_sharded_object *e = &dict->objects[dict->object_count++];
    *e = (mmlp_sharded_object){.struct_size = sizeof *e,
                               .ndim = o->offset_count ? o->offset_count : 1,
                               .global_shape = {1},
                               .replica_id = {0, o->tp_rank, o->dp_rank}};
    for (int i = 0; i < o->offset_count; i++) {
        e->global_shape[o->offsets[i].axis] = o->offsets[i].count;
        e->global_offset[o->offsets[i].axis] = o->offsets[i].index;
    }
    return make_key(e->key, o->prefix, name);
}

static mmlp_status add_linear(mmlp_sharded_dict *dict, const parameter *weight,
                              const parameter *bias, const char *extra_state,
                              const mmlp_sharded_module *m, const mmlp_sharded_options *o)
{
    MMLP_TRY(add_tensor(dict, weight, m, o));
    if (m->add_bias_linear)
        MMLP_TRY(add_tensor(dict, bias, m, o));
    return add_object(dict, extra_state, o);
}

static mmlp_status add_all(mmlp_sharded_dict *dict, const mmlp_sharded_module *m,
                           const mmlp_sharded_options *o)
{
    int64_t fc1 = m->ffn_hidden_size * (m->gated_linear_unit ? 2 : 1);
    const parameter fc1_weight = {"linear_fc1.weight", fc1, m->hidden_size, 0};
    const parameter fc1_bias = {"linear_fc1.bias", fc1, 0, 0};
    const parameter fc2_weight = {"linear_fc2.weight", m->hidden_size, m->ffn_hidden_size, 1};
    const parameter fc2_bias = {"linear_fc2.bias", m->hidden_size, 0, -1};
    MMLP_TRY(add_linear(dict, &fc1_weight, &fc1_bias, "linear_fc1._extra_state", m, o));
    return add_linear(dict, &fc2_weight, &fc2_bias, "linear_fc2._extra_state", m, o);
}

/* ---- the factory ----------------------------------------------------------------------------- */

static mmlp_status make_half(mmlp_sharded_tensor *half, const mmlp_sharded_tensor *whole,
                             bool is_up, bool singleton)
{
    const int axis = whole->prepend_axis_num;
    const int64_t rows = whole->local_shape[0] / 2, fragments = whole->axis_fragmentations[axis];
    const int64_t fragment = whole->global_offset[axis] / whole->local_shape[0];
    *half = *whole;
    half->local_shape[0] = rows;
    half->first_row = whole->first_row + (is_up ? rows : 0);
    if (!singleton) {
        set_axis(half, axis, rows, fragment + (is_up ? fragments : 0), 2 * fragments);
        return MMLP_OK;
    }
    set_axis(half, axis, rows, fragment, fragments);
    return make_key(half->key, whole->key, is_up ? "_v" : "_w");
}

static mmlp_status check_whole(const mmlp_sharded_tensor *t)
{
    const int axis = t->prepend_axis_num;
    if (axis < 0 || axis >= MMLP_SHARDED_AXES || t->ndim < 1 ||
        t->ndim > MMLP_SHARDED_AXES - axis || !memchr(t->key, '\0', sizeof t->key))
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "mmlp_swiglu_sharded_factory: %d axes behind %d; wanted 1 or more, %d in "
                         "all, and a key that ends",
                         t->ndim, axis, MMLP_SHARDED_AXES);
    const int64_t rows = t->local_shape[0], first = t->global_offset[axis];
    if (rows < 2 || rows % 2 || first < 0 || first % rows)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "%s: %lld rows at %lld; wanted an even number, at a multiple of it",
                         t->key, (long long)rows, (long long)first);
    int64_t all;
    if (__builtin_mul_overflow(rows, t->axis_fragmentations[axis], &all) ||
        all != t->global_shape[axis] || first >= all)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "%s: %lld rows at %lld of %lld in %lld fragments; wanted one of equal "
                         "fragments",
                         t->key, (long long)rows, (long long)first,
                         (long long)t->global_shape[axis], (long long)t->axis_fragmentations[axis]);
    return MMLP_OK;
}

mmlp_status mmlp_swiglu_sharded_factory(mmlp_sharded_tensor *gate, mmlp_sharded_tensor *up,
                                        const mmlp_sharded_tensor *whole, int singleton)
{
    mmlp_sharded_tensor taken = MMLP_SHARDED_TENSOR_INIT, halves[2];
    MMLP_TRY(struct_read(&taken, whole, sizeof taken, "mmlp_sharded_tensor"));
    MMLP_TRY(check_whole(&taken));
    for (int i = 0; i < 2; i++)
        MMLP_TRY(make_half(&halves[i], &taken, i == 1, singleton != 0));
    MMLP_TRY(struct_fill(gate, &halves[0], sizeof halves[0], "mmlp_sharded_tensor"));
    return struct_fill(up, &halves[1], sizeof halves[1], "mmlp_sharded_tensor");
}

/* ---- public ---------------------------------------------------------------------------------- */

mmlp_status mmlp_bundle_sharded_module(const mmlp_bundle *bundle, mmlp_sharded_module *module)
{
    if (!bundle)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_bundle_sharded_module: bundle is NULL");
    mmlp_sharded_module filled = MMLP_SHARDED_MODULE_INIT;
    filled.hidden_size = bundle->hidden_size;
    filled.ffn_hidden_size = bundle->ffn_hidden_size;
    filled.tensor_model_parallel_size = bundle->tensor_model_parallel_size;
    filled.gated_linear_unit = bundle->gated_linear_unit;
    filled.add_bias_linear = bundle->add_bias_linear;
    filled.params_dtype = bundle_dtype_name(bundle->params_dtype);
    return struct_fill(module, &filled, sizeof filled, "mmlp_sharded_module");
}

mmlp_status mmlp_sharded_state_dict(mmlp_sharded_dict **out, const mmlp_sharded_module *module,
                                    const mmlp_sharded_options *options)
{
    if (!out)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_sharded_state_dict: out is NULL");
    *out = NULL;
    mmlp_sharded_module m = MMLP_SHARDED_MODULE_INIT;
    mmlp_sharded_options o = MMLP_SHARDED_OPTIONS_INIT;
    MMLP_TRY(struct_read(&m, module, sizeof m, "mmlp_sharded_module"));
    if (options)
        MMLP_TRY(struct_read(&o, options, sizeof o, "mmlp_sharded_options"));
    MMLP_TRY(check_module(&m));
    MMLP_TRY(check_options(&o, &m));
    mmlp_sharded_dict *dict = calloc(1, sizeof *dict);
    if (!dict)
        return mmlp_fail_memory(sizeof *dict, "a sharded state dict");
    mmlp_status status = add_all(dict, &m, &o);
    if (status != MMLP_OK) {
        free(dict);
        return status;
    }
    *out = dict;
    return MMLP_OK;
}

void mmlp_sharded_dict_free(mmlp_sharded_dict *dict)
{
    free(dict);
}

int mmlp_sharded_tensor_count(const mmlp_sharded_dict *dict)
{
    return dict ? dict->tensor_count : 0;
}

int mmlp_sharded_object_count(const mmlp_sharded_dict *dict)
{
    return dict ? dict->object_count : 0;
}

static mmlp_status check_index(int index, int count, const char *function)
{
    if (index < 0 || index >= count)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "%s: index is %d; the dict has %d", function, index,
                         count);
    return MMLP_OK;
}

mmlp_status mmlp_sharded_tensor_get(const mmlp_sharded_dict *dict, int index,
                                    mmlp_sharded_tensor *tensor)
{
    MMLP_TRY(check_index(index, mmlp_sharded_tensor_count(dict), "mmlp_sharded_tensor_get"));
    return struct_fill(tensor, &dict->tensors[index], sizeof *tensor, "mmlp_sharded_tensor");
}

mmlp_status mmlp_sharded_object_get(const mmlp_sharded_dict *dict, int index,
                                    mmlp_sharded_object *object)
{
    MMLP_TRY(check_index(index, mmlp_sharded_object_count(dict), "mmlp_sharded_object_get"));
    return struct_fill(object, &dict->objects[index], sizeof *object, "mmlp_sharded_object");
}
