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

Test(sharded_dict, moments_of_the_same_shape_come_in_the_same_halves)
{
    mmlp_sharded_tensor whole = MMLP_SHARDED_TENSOR_INIT, gate = whole, up = whole;
    strcpy(whole.key, "optimizer.exp_avg.linear_fc1.weight");
    whole.ndim = 2;
    whole.prepend_axis_num = 1;
    memcpy(whole.local_shape, (int64_t[]){4, 1}, 16);
    memcpy(whole.global_shape, (int64_t[]){8, 8, 1}, 24);
    memcpy(whole.global_offset, (int64_t[]){3, 4, 0}, 24);
    memcpy(whole.axis_fragmentations, (int64_t[]){8, 2, 1}, 24);
    cr_assert_eq(mmlp_swiglu_sharded_factory(&gate, &up, &whole, 0), MMLP_OK);
    cr_expect_str_eq(up.key, whole.key);
    cr_expect_arr_eq(gate.global_offset, ((int64_t[]){3, 2, 0}), 24);
    cr_expect_arr_eq(up.global_offset, ((int64_t[]){3, 6, 0}), 24);
    cr_expect_arr_eq(up.axis_fragmentations, ((int64_t[]){8, 4, 1}), 24);
    cr_expect_eq(up.first_row, 2);
    cr_assert_eq(mmlp_swiglu_sharded_factory(&gate, &up, &whole, 1), MMLP_OK);
    cr_expect_str_eq(gate.key, "optimizer.exp_avg.linear_fc1.weight_w");
    cr_expect_str_eq(up.key, "optimizer.exp_avg.linear_fc1.weight_v");
    cr_expect_arr_eq(up.global_shape, ((int64_t[]){8, 4, 1}), 24);
    cr_expect_arr_eq(up.global_offset, ((int64_t[]){3, 2, 0}), 24);
    whole.local_shape[0] = 3;
    cr_expect_eq(mmlp_swiglu_sharded_factory(&gate, &up, &whole, 0), MMLP_ERROR_ARGUMENT);
    cr_expect(strstr(mmlp_last_error(), "3 rows at 4; wanted an even number"), "%s",
              mmlp_last_error());
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

Test(sharded_dict, what_cannot_be_is_named)
{
    mmlp_sharded_module module = MMLP_SHARDED_MODULE_INIT;
    module.hidden_size = 12;
    module.ffn_hidden_size = 24;
    module.tensor_model_parallel_size = 2;
    mmlp_sharded_options options = MMLP_SHARDED_OPTIONS_INIT;
    options.tp_rank = 2;
    expect_refused(&module, &options, "tp_rank is 2; wanted 0 to 1");
    options.tp_rank = 0;
    options.dp_rank = -1;
    expect_refused(&module, &options, "dp_rank is -1; wanted 0 or more");
    options.dp_rank = 0;
    mmlp_sharded_offset offsets[] = {{0, 3, 8}, {0, 1, 2}};
    options.offsets = offsets;
    options.offset_count = 2;
    expect_refused(&module, &options, "axis 0 of offset 1; wanted each of 0 to 1 once");
    offsets[1] = (mmlp_sharded_offset){1, 16, 16};
    expect_refused(&module, &options, "index 16 of 16 on axis 1; wanted 0 to 15");
    options.offset_count = 7;
    expect_refused(&module, &options, "7 are given; wanted 0 to 6");
    options.offset_count = 0;
    char prefix[MMLP_SHARDED_KEY_BYTES + 1];
    memset(prefix, 'p', sizeof prefix - 1);
    prefix[sizeof prefix - 1] = '\0';
    options.prefix = prefix;
    expect_refused(&module, &options, "the key of linear_fc1.weight has 273 characters");
    module.hidden_size = 0;
    expect_refused(&module, &options, "hidden_size is 0");
    cr_expect_eq(mmlp_sharded_tensor_count(NULL), 0);
    mmlp_sharded_tensor tensor = MMLP_SHARDED_TENSOR_INIT;
    cr_expect_eq(mmlp_sharded_tensor_get(NULL, 0, &tensor), MMLP_ERROR_ARGUMENT);
}
