/* reshard.c: what any number of ranks saves, any other loads, bit for bit. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "shard.h"
#include "temporary_folder.h"

static void expect_same_file(const char *path, const char *other)
{
    char *a, *b;
    size_t a_bytes, b_bytes;
    cr_assert_eq(file_read(&a, &a_bytes, path), MMLP_OK);
    cr_assert_eq(file_read(&b, &b_bytes, other), MMLP_OK);
    cr_expect(a_bytes == b_bytes && memcmp(a, b, a_bytes) == 0, "%s and %s differ", path, other);
    free(a);
    free(b);
}

static void reshard(const shard_model *model)
{
    char *folder = temporary_folder_make(), path[4096], first[4096];
    snprintf(path, sizeof path, "%s/saved.safetensors", folder);
    snprintf(first, sizeof first, "%s/first.safetensors", folder);
    shard_save_all(first, model, 1);
    for (int savers = 1; savers <= 8; savers *= 2) {
        shard_save_all(path, model, savers);
        expect_same_file(path, first);
        for (int loaders = 1; loaders <= 8; loaders *= 2)
            shard_load_all(path, model, loaders);
    }
    cr_expect_neq(access(path, F_OK), -1);
    strcat(path, ".saving");
    cr_expect_eq(access(path, F_OK), -1, "the temporary file is still there");
    temporary_folder_remove(folder);
}

/* Gated or not, gate and up together or apart. */
static void reshard_forms(const char *dtype, bool bias, int layers)
{
    for (int form = 0; form < 4; form++) {
        const shard_model model = {12, 48, form & 1, bias, form & 2, dtype, layers};
        reshard(&model);
    }
}

Test(reshard, bf16_weights_come_back_at_every_tensor_parallel_size)
{
    reshard_forms("bf16", false, 0);
}

Test(reshard, fp32_weights_and_biases_come_back_at_every_tensor_parallel_size)
{
    reshard_forms("fp32", true, 0);
}

Test(reshard, layers_of_one_tensor_come_back_at_every_tensor_parallel_size)
{
    reshard_forms("fp16", true, 3);
}

Test(reshard, pieces_cut_along_three_axes_are_put_together)
{
    enum { CUTS = 2, ROWS = 3, PIECES = CUTS * CUTS * CUTS, OWN = ROWS * ROWS * ROWS };
    float values[PIECES][OWN], read[PIECES * OWN];
    mmlp_sharded_tensor places[PIECES], all = MMLP_SHARDED_TENSOR_INIT;
    mmlp_checkpoint_tensor tensors[PIECES], whole = MMLP_CHECKPOINT_TENSOR_INIT;
    mmlp_checkpoint_args args = MMLP_CHECKPOINT_ARGS_INIT;
    char *folder = temporary_folder_make(), path[4096];
    strcpy(all.key, "cube");
    all.dtype = "fp32";
    all.ndim = 3;
    for (int axis = 0; axis < 3; axis++)
        all.local_shape[axis] = all.global_shape[axis] = CUTS * ROWS;
    for (int i = 0; i < PIECES; i++) {
        places[i] = all;
        for (int axis = 0; axis < 3; axis++) {
            places[i].local_shape[axis] = ROWS;
            places[i].global_offset[axis] = (i >> axis & 1) * ROWS;
        }
        for (int j = 0; j < OWN; j++) /* the number of the element in the whole */
            values[i][j] =
                (float)(((i & 1) * ROWS + j / 9) * 36 + ((i >> 1 & 1) * ROWS + j / 3 % 3) * 6 +
                        (i >> 2 & 1) * ROWS + j % 3);
        tensors[i] = (mmlp_checkpoint_tensor){sizeof tensors[i], &places[i], values[i]};
    }
    snprintf(path, sizeof path, "%s/cube.safetensors", folder);
    args.tensors = tensors;
    args.count = PIECES;
    cr_assert_eq(mmlp_checkpoint_save(path, &args), MMLP_OK, "%s", mmlp_last_error());
    whole.tensor = &all;
    whole.data = read;
    args.tensors = &whole;
    args.count = 1;
    cr_assert_eq(mmlp_checkpoint_load(path, &args), MMLP_OK, "%s", mmlp_last_error());
    for (int i = 0; i < PIECES * OWN; i++)
        cr_expect_eq(read[i], (float)i);
    temporary_folder_remove(folder);
}

Test(reshard, a_file_whose_tensors_lie_in_another_order_is_loaded)
{
    static const char header[] = "{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                                 "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}";
    const uint64_t length = sizeof header - 1;
    const float values[3] = {1, 2, 3};
    char *folder = temporary_folder_make(), path[4096];
    float a = 0, b[2] = {0};
    mmlp_sharded_tensor places[2] = {MMLP_SHARDED_TENSOR_INIT, MMLP_SHARDED_TENSOR_INIT};
    mmlp_checkpoint_tensor tensors[2] = {{sizeof tensors[0], &places[0], &a},
                                         {sizeof tensors[1], &places[1], b}};
    mmlp_checkpoint_args args = MMLP_CHECKPOINT_ARGS_INIT;
    args.tensors = tensors;
    args.count = 2;
    for (int i = 0; i < 2; i++) {
        places[i].key[0] = (char)('a' + i);
        places[i].dtype = "fp32";
        places[i].ndim = 1;
        places[i].local_shape[0] = places[i].global_shape[0] = 1 + i;
    }
    snprintf(path, sizeof path, "%s/c.safetensors", folder);
    FILE *file = fopen(path, "w");
    cr_assert(file);
    fwrite(&length, sizeof length, 1, file);
    fwrite(header, 1, length, file);
    fwrite(values, sizeof values, 1, file);
    cr_assert_eq(fclose(file), 0);
    cr_assert_eq(mmlp_checkpoint_load(path, &args), MMLP_OK, "%s", mmlp_last_error());
    cr_expect(b[0] == 1 && b[1] == 2 && a == 3);
    temporary_folder_remove(folder);
}

Test(reshard, tensors_of_several_element_sizes_each_begin_on_a_multiple_of_theirs)
{
    /* The bf16 weights of 3 x 1 elements would leave the moments at an odd place. */
    uint16_t weight[3] = {1, 2, 3}, weight_read[3] = {0};
    float moment[3] = {1, 2, 3}, moment_read[3] = {0};
    char *folder = temporary_folder_make(), path[4096];
    mmlp_sharded_tensor places[2] = {MMLP_SHARDED_TENSOR_INIT, MMLP_SHARDED_TENSOR_INIT};
    mmlp_checkpoint_tensor tensors[2] = {MMLP_CHECKPOINT_TENSOR_INIT, MMLP_CHECKPOINT_TENSOR_INIT};
    mmlp_checkpoint_args args = MMLP_CHECKPOINT_ARGS_INIT;
    args.tensors = tensors;
    args.count = 2;
    for (int i = 0; i < 2; i++) {
        snprintf(places[i].key, sizeof places[i].key, "%s", i ? "weight" : "weight.moment");
        places[i].dtype = i ? "bf16" : "fp32";
        places[i].ndim = 1;
        places[i].local_shape[0] = places[i].global_shape[0] = 3;
        tensors[i].tensor = &places[i];
        tensors[i].data = i ? (void *)weight : moment;
    }
    snprintf(path, sizeof path, "%s/both.safetensors", folder);
    cr_assert_eq(mmlp_checkpoint_save(path, &args), MMLP_OK, "%s", mmlp_last_error());
    char *file;
    size_t bytes;
    cr_assert_eq(file_read(&file, &bytes, path), MMLP_OK);
    cr_expect(strstr(file + 8, "\"weight.moment\":{\"dtype\":\"F32\",\"shape\":[3],"
                               "\"data_offsets\":[0,12]}"));
    cr_expect(strstr(file + 8, "\"weight\":{\"dtype\":\"BF16\",\"shape\":[3],"
                               "\"data_offsets\":[12,18]}"));
    cr_expect_eq((bytes - 18) % 64, 0, "the tensors begin at byte %zu", bytes - 18);
    free(file);
    tensors[0].data = moment_read;
    tensors[1].data = weight_read;
    cr_assert_eq(mmlp_checkpoint_load(path, &args), MMLP_OK, "%s", mmlp_last_error());
    cr_expect_arr_eq(weight_read, weight, sizeof weight);
    cr_expect_arr_eq(moment_read, moment, sizeof moment);
    temporary_folder_remove(folder);
}
