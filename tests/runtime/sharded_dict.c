/* sharded_dict.c: what a rank holds of stored tensors, entry for entry as Megatron says it. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <megamlp/megamlp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static int64_t number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    cr_assert(json_is_integer(value) || json_is_boolean(value), "%s", key);
    return json_is_boolean(value) ? json_is_true(value) : json_integer_value(value);
}

static void check_list(const json_t *object, const char *key, const int64_t *found, int count,
                       const char *entry)
{
    const json_t *wanted = json_object_get(object, key);
    cr_assert_eq(json_array_size(wanted), (size_t)count, "%s: %s has %d", entry, key, count);
    for (int i = 0; i < count; i++)
        cr_expect_eq(found[i], json_integer_value(json_array_get(wanted, (size_t)i)),
                     "%s: %s[%d] is %lld", entry, key, i, (long long)found[i]);
}

static void check_tensor(const mmlp_sharded_dict *dict, int index, const json_t *wanted)
{
    mmlp_sharded_tensor t = MMLP_SHARDED_TENSOR_INIT;
    cr_assert_eq(mmlp_sharded_tensor_get(dict, index, &t), MMLP_OK, "%s", mmlp_last_error());
    cr_expect_str_eq(t.key, json_string_value(json_object_get(wanted, "key")));
    cr_expect_eq(t.prepend_axis_num, number(wanted, "prepend_axis_num"));
    int axes = t.prepend_axis_num + t.ndim;
    check_list(wanted, "local_shape", t.local_shape, t.ndim, t.key);
    check_list(wanted, "global_shape", t.global_shape, axes, t.key);
    check_list(wanted, "global_offset", t.global_offset, axes, t.key);
    check_list(wanted, "axis_fragmentations", t.axis_fragmentations, axes, t.key);
    check_list(wanted, "replica_id", t.replica_id, 3, t.key);
}

static void check_object(const mmlp_sharded_dict *dict, int index, const json_t *wanted)
{
    mmlp_sharded_object o = MMLP_SHARDED_OBJECT_INIT;
    cr_assert_eq(mmlp_sharded_object_get(dict, index, &o), MMLP_OK, "%s", mmlp_last_error());
    cr_expect_str_eq(o.key, json_string_value(json_object_get(wanted, "key")));
    check_list(wanted, "global_shape", o.global_shape, o.ndim, o.key);
    check_list(wanted, "global_offset", o.global_offset, o.ndim, o.key);
    check_list(wanted, "replica_id", o.replica_id, 3, o.key);
}

/* Of one rank of one of the golden file's cases. */
static void check_rank(const json_t *golden, const json_t *wanted_case, size_t rank)
{
    mmlp_sharded_offset offsets[MMLP_SHARDED_AXES];
    const json_t *listed = json_object_get(wanted_case, "sharded_offsets");
    mmlp_sharded_module module = MMLP_SHARDED_MODULE_INIT;
    mmlp_sharded_options options = MMLP_SHARDED_OPTIONS_INIT;
    module.tensor_model_parallel_size = number(wanted_case, "tensor_model_parallel_size");
    module.hidden_size = number(golden, "hidden_size");
    module.ffn_hidden_size = number(golden, "ffn_hidden_size") / module.tensor_model_parallel_size;
    module.gated_linear_unit = (int)number(wanted_case, "gated_linear_unit");
    module.add_bias_linear = (int)number(wanted_case, "add_bias_linear");
    options.prefix = json_string_value(json_object_get(wanted_case, "prefix"));
    options.singleton_local_shards = (int)number(wanted_case, "singleton_local_shards");
    options.offset_count = (int)json_array_size(listed);
    options.offsets = offsets;
    options.tp_rank = (int64_t)rank;
    for (int i = 0; i < options.offset_count; i++) {
        const json_t *offset = json_array_get(listed, (size_t)i);
        offsets[i] = (mmlp_sharded_offset){(int)json_integer_value(json_array_get(offset, 0)),
                                           json_integer_value(json_array_get(offset, 1)),
                                           json_integer_value(json_array_get(offset, 2))};
    }
    mmlp_sharded_dict *dict;
    cr_assert_eq(mmlp_sharded_state_dict(&dict, &module, &options), MMLP_OK, "%s",
                 mmlp_last_error());
    const json_t *entries = json_array_get(json_object_get(wanted_case, "ranks"), rank);
    const json_t *tensors = json_object_get(entries, "tensors");
    const json_t *objects = json_object_get(entries, "objects");
    cr_assert_eq(mmlp_sharded_tensor_count(dict), (int)json_array_size(tensors));
    cr_assert_eq(mmlp_sharded_object_count(dict), (int)json_array_size(objects));
    for (int i = 0; i < mmlp_sharded_tensor_count(dict); i++)
        check_tensor(dict, i, json_array_get(tensors, (size_t)i));
    for (int i = 0; i < mmlp_sharded_object_count(dict); i++)
        check_object(dict, i, json_array_get(objects, (size_t)i));
    mmlp_sharded_dict_free(dict);
}

Test(sharded_dict, every_rank_of_megatrons_cases_has_its_entries)
{
    json_error_t error;
    json_t *golden = json_load_file(MMLP_TEST_GOLDEN, 0, &error);
    cr_assert(golden, "%s: %s", MMLP_TEST_GOLDEN, error.text);
    const json_t *cases = json_object_get(golden, "cases");
    size_t ranks = 0;
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *one = json_array_get(cases, i);
        size_t count = json_array_size(json_object_get(one, "ranks"));
        for (size_t rank = 0; rank < count; rank++, ranks++)
            check_rank(golden, one, rank);
    }
    cr_expect_eq(ranks, 32 * (1 + 2 + 4));
    json_decref(golden);
}

/* ---- stored by so many ranks, loaded by others ----------------------------------------------- */

enum { FFN = 8, ROWS = 2 * FFN };

/* Moves one column of fc1, a number a row, between a rank's [gate; up] and what is stored. */
static void move_rows(int *stored, int *local, int ranks, int rank, bool saves)
{
    mmlp_sharded_module module = MMLP_SHARDED_MODULE_INIT;
    mmlp_sharded_options options = MMLP_SHARDED_OPTIONS_INIT;
    mmlp_sharded_dict *dict;
    module.hidden_size = 1;
    module.ffn_hidden_size = FFN / ranks;
    module.tensor_model_parallel_size = ranks;
    module.gated_linear_unit = 1;
    options.tp_rank = rank;
    cr_assert_eq(mmlp_sharded_state_dict(&dict, &module, &options), MMLP_OK);
    for (int i = 0; i < 2; i++) {
        mmlp_sharded_tensor t = MMLP_SHARDED_TENSOR_INIT;
        cr_assert_eq(mmlp_sharded_tensor_get(dict, i, &t), MMLP_OK);
        cr_assert_str_eq(t.parameter, "linear_fc1.weight");
        cr_assert_eq(t.global_shape[0], ROWS);
        for (int64_t row = 0; row < t.local_shape[0]; row++) {
            int *there = &stored[t.global_offset[0] + row], *here = &local[t.first_row + row];
            *(saves ? there : here) = *(saves ? here : there);
        }
    }
    mmlp_sharded_dict_free(dict);
}

Test(sharded_dict, what_some_ranks_store_other_numbers_of_ranks_find_in_place)
{
    for (int savers = 1; savers <= FFN; savers *= 2) {
        int stored[ROWS];
        memset(stored, -1, sizeof stored);
        for (int rank = 0; rank < savers; rank++) {
            int local[ROWS], own = FFN / savers;
            for (int i = 0; i < own; i++) {
                local[i] = rank * own + i;             /* gate */
                local[own + i] = 100 + rank * own + i; /* up */
            }
            move_rows(stored, local, savers, rank, true);
        }
        for (int i = 0; i < FFN; i++)
            cr_assert(stored[i] == i && stored[FFN + i] == 100 + i, "%d ranks, row %d", savers, i);
        for (int loaders = 1; loaders <= FFN; loaders *= 2) {
            for (int rank = 0; rank < loaders; rank++) {
                int local[ROWS], own = FFN / loaders;
                move_rows(stored, local, loaders, rank, false);
                for (int i = 0; i < own; i++)
                    cr_expect(local[i] == rank * own + i && local[own + i] == 100 + rank * own + i,
                              "%d to %d ranks, rank %d, row %d", savers, loaders, rank, i);
            }
        }
    }
}

/* The first moment of layer 3 of 8, rank 1 of 2: the worked example of Megatron's layout. */
static mmlp_sharded_tensor a_moment(void)
{
    return (mmlp_sharded_tensor){.struct_size = sizeof(mmlp_sharded_tensor),
                                 .key = "optimizer.exp_avg.linear_fc1.weight",
                                 .parameter = "linear_fc1.weight",
                                 .dtype = "fp32",
                                 .ndim = 2,
                                 .prepend_axis_num = 1,
                                 .local_shape = {4, 1},
                                 .global_shape = {8, 8, 1},
                                 .global_offset = {3, 4, 0},
                                 .axis_fragmentations = {8, 2, 1},
                                 .replica_id = {0, 0, 5}};
}

Test(sharded_dict, moments_of_the_same_shape_come_in_the_same_halves)
{
    mmlp_sharded_tensor whole = a_moment(), gate = MMLP_SHARDED_TENSOR_INIT, up = gate;
    cr_assert_eq(mmlp_swiglu_sharded_factory(&gate, &up, &whole, 0), MMLP_OK);
    cr_expect_str_eq(up.key, whole.key);
    cr_expect_str_eq(up.dtype, "fp32");
    cr_expect_arr_eq(gate.local_shape, ((int64_t[]){2, 1}), 16);
    cr_expect_arr_eq(gate.global_shape, ((int64_t[]){8, 8, 1}), 24);
    cr_expect_arr_eq(gate.global_offset, ((int64_t[]){3, 2, 0}), 24);
    cr_expect_arr_eq(up.global_offset, ((int64_t[]){3, 6, 0}), 24);
    cr_expect_arr_eq(up.axis_fragmentations, ((int64_t[]){8, 4, 1}), 24);
    cr_expect_arr_eq(up.replica_id, ((int64_t[]){0, 0, 5}), 24);
    cr_expect_eq(gate.first_row, 0);
    cr_expect_eq(up.first_row, 2);
}

Test(sharded_dict, singleton_moments_have_keys_of_their_own)
{
    mmlp_sharded_tensor whole = a_moment(), gate = MMLP_SHARDED_TENSOR_INIT, up = gate;
    cr_assert_eq(mmlp_swiglu_sharded_factory(&gate, &up, &whole, 1), MMLP_OK);
    cr_expect_str_eq(gate.key, "optimizer.exp_avg.linear_fc1.weight_w");
    cr_expect_str_eq(up.key, "optimizer.exp_avg.linear_fc1.weight_v");
    cr_expect_arr_eq(up.global_shape, ((int64_t[]){8, 4, 1}), 24);
    cr_expect_arr_eq(up.global_offset, gate.global_offset, 24);
    cr_expect_arr_eq(up.global_offset, ((int64_t[]){3, 2, 0}), 24);
    cr_expect_arr_eq(up.axis_fragmentations, ((int64_t[]){8, 2, 1}), 24);
    cr_expect_eq(gate.first_row, 0);
    cr_expect_eq(up.first_row, 2);
}

/* ---- what cannot be -------------------------------------------------------------------------- */

static void expect_refused(const mmlp_sharded_module *module, const mmlp_sharded_options *options,
                           const char *said)
{
    mmlp_sharded_dict *dict = NULL;
    cr_expect_eq(mmlp_sharded_state_dict(&dict, module, options), MMLP_ERROR_ARGUMENT);
    cr_expect_null(dict);
    cr_expect(strstr(mmlp_last_error(), said), "'%s' is not in: %s", said, mmlp_last_error());
}

/* An MLP and options that are good: each case spoils one thing. */
typedef struct request {
    mmlp_sharded_module module;
    mmlp_sharded_options options;
    mmlp_sharded_offset offsets[2];
} request;

static void start(request *r)
{
    *r = (request){MMLP_SHARDED_MODULE_INIT, MMLP_SHARDED_OPTIONS_INIT, {{0, 3, 8}, {1, 5, 16}}};
    r->module.hidden_size = 12;
    r->module.ffn_hidden_size = 24;
    r->module.tensor_model_parallel_size = 2;
    r->options.offsets = r->offsets;
    r->options.offset_count = 2;
}

Test(sharded_dict, a_module_that_cannot_be_is_named)
{
    request r;
    start(&r);
    r.module.hidden_size = 0;
    expect_refused(&r.module, &r.options,
                   "mmlp_sharded_module: hidden_size is 0, ffn_hidden_size 24, "
                   "tensor_model_parallel_size 2; wanted 1 to 2^31-1");
    start(&r);
    r.module.ffn_hidden_size = INT64_C(1) << 31;
    expect_refused(&r.module, &r.options, "ffn_hidden_size 2147483648, ");
    start(&r);
    r.module.tensor_model_parallel_size = -1;
    expect_refused(&r.module, &r.options, "tensor_model_parallel_size -1; ");
    start(&r);
    r.module.params_dtype = "float16";
    expect_refused(&r.module, &r.options, "params_dtype is float16; wanted bf16, fp16 or fp32");
    r.module.params_dtype = NULL;
    expect_refused(&r.module, &r.options, "params_dtype is NULL; wanted bf16, fp16 or fp32");
    expect_refused(NULL, &r.options, "mmlp_sharded_module: NULL was given");
}

Test(sharded_dict, ranks_and_offsets_that_cannot_be_are_named)
{
    request r;
    start(&r);
    r.options.tp_rank = 2;
    expect_refused(&r.module, &r.options, "tp_rank is 2; wanted 0 to 1");
    r.options.tp_rank = -1;
    expect_refused(&r.module, &r.options, "tp_rank is -1; wanted 0 to 1");
    start(&r);
    r.options.dp_rank = -1;
    expect_refused(&r.module, &r.options, "dp_rank is -1; wanted 0 or more");
    start(&r);
    r.offsets[1].axis = 0;
    expect_refused(&r.module, &r.options, "axis 0 of offset 1; wanted each of 0 to 1 once");
    r.offsets[1].axis = 2;
    expect_refused(&r.module, &r.options, "axis 2 of offset 1; wanted each of 0 to 1 once");
    r.offsets[1].axis = -1;
    expect_refused(&r.module, &r.options, "axis -1 of offset 1; wanted each of 0 to 1 once");
    start(&r);
    r.offsets[1].index = 16;
    expect_refused(&r.module, &r.options, "index 16 of 16 on axis 1; wanted 0 to 15");
    r.offsets[1].index = -1;
    expect_refused(&r.module, &r.options, "index -1 of 16 on axis 1; wanted 0 to 15");
    r.offsets[1] = (mmlp_sharded_offset){1, 0, 0};
    expect_refused(&r.module, &r.options, "index 0 of 0 on axis 1; wanted 0 to 0");
    r.options.offset_count = 7;
    expect_refused(&r.module, &r.options, "7 are given; wanted 0 to 6");
    r.options.offset_count = -1;
    expect_refused(&r.module, &r.options, "-1 are given; wanted 0 to 6");
    r.options.offset_count = 1;
    r.options.offsets = NULL;
    expect_refused(&r.module, &r.options, "1 are given at NULL; wanted 0 to 6");
}

Test(sharded_dict, a_key_has_a_greatest_length)
{
    request r;
    start(&r);
    char prefix[MMLP_SHARDED_KEY_BYTES + 1];
    memset(prefix, 'p', sizeof prefix - 1);
    prefix[sizeof prefix - 1] = '\0';
    r.options.prefix = prefix;
    expect_refused(&r.module, &r.options,
                   "the key of linear_fc1.weight has 273 characters; wanted at most 255");
    /* 17 characters of a weight, 23 of its extra state */
    prefix[255 - 17] = '\0';
    expect_refused(&r.module, &r.options, "the key of linear_fc1._extra_state has 261 characters");
    prefix[255 - 23] = '\0';
    mmlp_sharded_dict *dict;
    cr_assert_eq(mmlp_sharded_state_dict(&dict, &r.module, &r.options), MMLP_OK);
    mmlp_sharded_dict_free(dict);
}

Test(sharded_dict, entries_that_are_not_there_are_named)
{
    request r;
    start(&r);
    cr_expect_eq(mmlp_sharded_state_dict(NULL, &r.module, &r.options), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(), "mmlp_sharded_state_dict: out is NULL");
    mmlp_sharded_tensor tensor = MMLP_SHARDED_TENSOR_INIT;
    mmlp_sharded_object object = MMLP_SHARDED_OBJECT_INIT;
    cr_expect_eq(mmlp_sharded_tensor_count(NULL), 0);
    cr_expect_eq(mmlp_sharded_tensor_get(NULL, 0, &tensor), MMLP_ERROR_ARGUMENT);
    mmlp_sharded_dict *dict;
    cr_assert_eq(mmlp_sharded_state_dict(&dict, &r.module, &r.options), MMLP_OK);
    cr_expect_eq(mmlp_sharded_tensor_get(dict, 2, &tensor), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(), "mmlp_sharded_tensor_get: index is 2; the dict has 2");
    cr_expect_eq(mmlp_sharded_object_get(dict, -1, &object), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(), "mmlp_sharded_object_get: index is -1; the dict has 2");
    mmlp_sharded_dict_free(dict);
}

Test(sharded_dict, entries_keep_nothing_of_what_the_caller_gave)
{
    request r;
    start(&r);
    char dtype[] = "fp16", prefix[] = "mlp.";
    r.module.params_dtype = dtype;
    r.options.prefix = prefix;
    mmlp_sharded_dict *dict;
    cr_assert_eq(mmlp_sharded_state_dict(&dict, &r.module, &r.options), MMLP_OK);
    dtype[0] = prefix[0] = 'x';
    mmlp_sharded_tensor tensor = MMLP_SHARDED_TENSOR_INIT;
    cr_assert_eq(mmlp_sharded_tensor_get(dict, 1, &tensor), MMLP_OK);
    mmlp_sharded_dict_free(dict);
    cr_expect_str_eq(tensor.dtype, "fp16");
    cr_expect_str_eq(tensor.parameter, "linear_fc2.weight");
    cr_expect_str_eq(tensor.key, "mlp.linear_fc2.weight");
}

static void expect_no_halves(const mmlp_sharded_tensor *whole, const char *said)
{
    mmlp_sharded_tensor gate = MMLP_SHARDED_TENSOR_INIT, up = MMLP_SHARDED_TENSOR_INIT;
    cr_expect_eq(mmlp_swiglu_sharded_factory(&gate, &up, whole, 1), MMLP_ERROR_ARGUMENT);
    cr_expect(strstr(mmlp_last_error(), said), "'%s' is not in: %s", said, mmlp_last_error());
    cr_expect_eq(gate.ndim, 0);
}

Test(sharded_dict, what_has_no_halves_is_named)
{
    mmlp_sharded_tensor good = a_moment(), bad = good;
    bad.local_shape[0] = 3;
    expect_no_halves(&bad, "linear_fc1.weight: 3 rows at 4; wanted an even number, at a multiple");
    bad = good, bad.global_offset[1] = 2;
    expect_no_halves(&bad, "4 rows at 2; wanted an even number, at a multiple of it");
    bad = good, bad.global_offset[1] = -4;
    expect_no_halves(&bad, "4 rows at -4; wanted an even number, at a multiple of it");
    bad = good, bad.global_offset[1] = 8;
    expect_no_halves(&bad, "4 rows at 8 of 8 in 2 fragments; wanted one of equal fragments");
    bad = good, bad.axis_fragmentations[1] = 3;
    expect_no_halves(&bad, "4 rows at 4 of 8 in 3 fragments; wanted one of equal fragments");
    bad = good, bad.axis_fragmentations[1] = INT64_MAX;
    expect_no_halves(&bad, "in 9223372036854775807 fragments; wanted one of equal fragments");
    bad = good, bad.ndim = 0;
    expect_no_halves(&bad, "0 axes behind 1; wanted 1 or more, 8 in all, and a key that ends");
    bad = good, bad.ndim = INT32_MAX;
    expect_no_halves(&bad, "2147483647 axes behind 1; wanted");
    bad = good, bad.prepend_axis_num = -1;
    expect_no_halves(&bad, "2 axes behind -1; wanted");
    bad = good, memset(bad.key, 'k', sizeof bad.key);
    expect_no_halves(&bad, "and a key that ends");
    bad.key[sizeof bad.key - 1] = '\0';
    expect_no_halves(&bad, "has 257 characters; wanted at most 255");
    expect_no_halves(NULL, "mmlp_sharded_tensor: NULL was given");
}
