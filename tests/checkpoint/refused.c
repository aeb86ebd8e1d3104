/* refused.c: what is not loaded and not saved, with the whole line, and that memory and files stay
 * as they are. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "saved.h"
#include "shard.h"

static const shard_model model = {4, 8, true, true, false, "bf16", 0};

TestSuite(refused, .init = saved_begin, .fini = saved_end);

/* Without the folder, which is another one each time. */
static void expect_line(const char *wanted)
{
    const char *line = mmlp_last_error();
    size_t length = strlen(folder);
    if (strncmp(line, folder, length) == 0)
        line += length + 1;
    cr_expect_str_eq(line, wanted);
}

/* ---- load: another model ------------------------------------------------------------------- */

static void expect_refused(const shard_model *other, mmlp_status status, const char *line)
{
    shard s;
    shard_make(&s, other, 2, 1, NULL);
    shard_blank(&s);
    const mmlp_checkpoint_args args = shard_args(&s);
    cr_expect_eq(mmlp_checkpoint_load(path, &args), status, "%s", mmlp_last_error());
    expect_line(line);
    shard_expect_blank(&s);
    shard_free(&s);
}

Test(refused, a_file_of_another_model_is_named_by_its_first_difference)
{
    shard_save_all(path, &model, 2);
    shard_model other = model;
    other.gated = false;
    expect_refused(&other, MMLP_ERROR_SHAPE,
                   "c.safetensors: tensor 'decoder.layers.mlp.linear_fc1.bias' has the shape [16]; "
                   "wanted [8]");
    other = model;
    other.hidden_size = 6;
    expect_refused(&other, MMLP_ERROR_SHAPE,
                   "c.safetensors: tensor 'decoder.layers.mlp.linear_fc1.weight' has the shape "
                   "[16, 4]; wanted [16, 6]");
    other = model;
    other.dtype = "fp16";
    expect_refused(
        &other, MMLP_ERROR_SHAPE,
        "c.safetensors: tensor 'decoder.layers.mlp.linear_fc1.bias' is BF16; wanted F16");
    other = model;
    other.layers = 2;
    expect_refused(&other, MMLP_ERROR_SHAPE,
                   "c.safetensors: tensor 'decoder.layers.mlp.linear_fc1.bias' has the shape [16]; "
                   "wanted [2, 16]");
    other = model;
    other.bias = false;
    expect_refused(&other, MMLP_ERROR_SHAPE,
                   "c.safetensors: tensor 'decoder.layers.mlp.linear_fc1.bias' is not wanted");
    other = model;
    other.singleton = true;
    expect_refused(&other, MMLP_ERROR_SHAPE,
                   "c.safetensors: tensor 'decoder.layers.mlp.linear_fc1.bias_v' is missing; the "
                   "file has gate and up in one tensor (no singleton_local_shards)");
    shard_save_all(path, &other, 2);
    expect_refused(
        &model, MMLP_ERROR_SHAPE,
        "c.safetensors: tensor 'decoder.layers.mlp.linear_fc1.bias' is missing; the file "
        "has gate and up by themselves (singleton_local_shards)");
    other.bias = false;
    shard_save_all(path, &other, 2);
    other.singleton = other.gated = false;
    other.bias = true;
    expect_refused(&other, MMLP_ERROR_SHAPE,
                   "c.safetensors: tensor 'decoder.layers.mlp.linear_fc1.bias' is missing");
}

static void count_lines(void *user, const char *line)
{
    int *count = user;
    cr_expect(strstr(line, "c.safetensors: tensor '"), "%s", line);
    ++*count;
}

Test(refused, every_difference_is_reported_once)
{
    shard s;
    int count = 0;
    shard_model other = model;
    other.gated = false;
    other.dtype = "fp32";
    shard_save_all(path, &other, 1);
    shard_make(&s, &model, 8, 3, NULL);
    mmlp_checkpoint_args args = shard_args(&s);
    for (int i = 0; i < s.count; i++)
        s.tensors[i].data = NULL;
    /* The type of 4 tensors, the rows of 2. */
    cr_expect_eq(mmlp_checkpoint_verify(path, &args, count_lines, &count), MMLP_ERROR_SHAPE);
    cr_expect_eq(count, 6);
    shard_save_all(path, &model, 1);
    cr_expect_eq(mmlp_checkpoint_verify(path, &args, count_lines, &count), MMLP_OK, "%s",
                 mmlp_last_error());
    cr_expect_eq(count, 6);
    shard_free(&s);
}

/* ---- load: no such file ---------------------------------------------------------------------- */

/* A file of a header and so many bytes of data. */
static void write_file(uint64_t length, const char *json, size_t data_bytes)
{
    FILE *file = fopen(path, "w");
    cr_assert(file);
    fwrite(&length, sizeof length, 1, file);
    fwrite(json, 1, strlen(json), file);
    for (size_t i = 0; i < data_bytes; i++)
        fputc(7, file);
    cr_assert_eq(fclose(file), 0);
}

static void expect_malformed(const char *json, size_t data_bytes, const char *line)
{
    write_file(strlen(json), json, data_bytes);
    expect_refused(&model, MMLP_ERROR_FORMAT, line);
}

Test(refused, malformed_files_are_named_by_what_is_wrong)
{
    expect_refused(&model, MMLP_ERROR_IO, "c.safetensors: cannot open: No such file or directory");
    mkdir(path, 0777);
    expect_refused(&model, MMLP_ERROR_FORMAT, "c.safetensors: is not a regular file");
    rmdir(path);
    cr_assert_eq(file_write_atomic(path, "\1\0\0", 3), MMLP_OK);
    expect_refused(&model, MMLP_ERROR_FORMAT,
                   "c.safetensors: 3 bytes are too few for a safetensors file");
    write_file(5, "{}", 0);
    expect_refused(&model, MMLP_ERROR_FORMAT,
                   "c.safetensors: header of 5 bytes is longer than the file");
    write_file(1ull << 62, "{}", 0);
    expect_refused(&model, MMLP_ERROR_FORMAT,
                   "c.safetensors: claims a header of 4611686018427387904 bytes; at most 100000000 "
                   "are allowed");
    expect_malformed("{", 0,
                     "c.safetensors: header is not valid JSON: string or '}' expected near end of "
                     "file (byte 1)");
    expect_malformed("[]", 0, "c.safetensors: header is not a JSON object");
    expect_malformed(
        "{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 3,
        "c.safetensors: tensor 'a': data_offsets [0, 4] lie outside the file's 3 bytes "
        "of data");
    expect_malformed("{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 5,
                     "c.safetensors: 1 bytes behind the last tensor belong to none");
    expect_malformed("{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[2,6]}}", 6,
                     "c.safetensors: 2 bytes before tensor 'a' belong to none");
    expect_malformed("{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                     "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[2,6]}}",
                     6, "c.safetensors: tensors 'a' and 'b' overlap");
    expect_malformed("{\"a\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[0,4]}}", 4,
                     "c.safetensors: tensor 'a': data_offsets span 4 bytes, its shape and dtype "
                     "need 6");
    expect_malformed("{\"a\":{\"dtype\":\"BF16\",\"shape\":[4611686018427387904],"
                     "\"data_offsets\":[0,4]}}",
                     4, "c.safetensors: tensor 'a': its shape is larger than memory");
    expect_malformed("{\"a\\n\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4,
                     "c.safetensors: a tensor's name has the character 10");
}

/* Loads the bytes as a file: well, or refused with memory as it was. Returns the status. */
static mmlp_status load_bytes(const shard *s, const char *bytes, size_t count)
{
    /* Not emptied first: file systems flush such files. */
    int descriptor = open(path, O_WRONLY | O_CREAT, 0666);
    cr_assert(descriptor >= 0 && write(descriptor, bytes, count) == (ssize_t)count);
    cr_assert(ftruncate(descriptor, (off_t)count) == 0 && close(descriptor) == 0);
    const mmlp_checkpoint_args args = shard_args(s);
    mmlp_status status = mmlp_checkpoint_load(path, &args);
    if (status != MMLP_OK)
        shard_expect_blank(s);
    return status;
}

Test(refused, no_cut_file_is_loaded, .timeout = 120)
{
    shard s;
    char *bytes;
    size_t count;
    shard_save_all(path, &model, 2);
    cr_assert_eq(file_read(&bytes, &count, path), MMLP_OK);
    shard_make(&s, &model, 1, 0, NULL);
    shard_blank(&s);
    for (size_t length = 0; length < count; length++) {
        mmlp_status status = load_bytes(&s, bytes, length);
        cr_assert(status == MMLP_ERROR_FORMAT, "%zu bytes: %s", length, mmlp_status_name(status));
    }
    cr_expect_eq(load_bytes(&s, bytes, count), MMLP_OK, "%s", mmlp_last_error());
    free(bytes);
    shard_free(&s);
}

Test(refused, a_changed_byte_of_the_header_is_refused_or_means_the_same, .timeout = 240)
{
    static const char marks[] = {0, ' ', '"', ',', '0', '9', ':', '[', '\\', ']', '{', '}', '\x80'};
    shard s;
    char *bytes;
    size_t count, refused = 0, loaded = 0;
    shard_save_all(path, &model, 2);
    cr_assert_eq(file_read(&bytes, &count, path), MMLP_OK);
    size_t header = 8 + (size_t)(unsigned char)bytes[0] + 256 * (size_t)(unsigned char)bytes[1];
    shard_make(&s, &model, 1, 0, NULL);
    for (size_t at = 0; at < header; at++) {
        const char old = bytes[at];
        for (size_t i = 0; i < sizeof marks; i++) {
            bytes[at] = marks[i];
            shard_blank(&s);
            mmlp_status status = load_bytes(&s, bytes, count);
            refused += status == MMLP_ERROR_FORMAT || status == MMLP_ERROR_SHAPE;
            loaded += status == MMLP_OK;
        }
        bytes[at] = old;
    }
    cr_expect_eq(refused + loaded, header * sizeof marks);
    /* Only a mark in place of itself is harmless, and a space for a space. */
    cr_expect_lt(loaded, header);
    free(bytes);
    shard_free(&s);
}

/* ---- entries --------------------------------------------------------------------------------- */

/* Saves what `change` has made of a rank's entries: refused, and no file is there. */
static void expect_not_saved(void (*change)(shard *s), mmlp_status status, const char *line)
{
    shard s;
    shard_make(&s, &model, 1, 0, NULL);
    shard_fill(&s);
    change(&s);
    const mmlp_checkpoint_args args = shard_args(&s);
    cr_expect_eq(mmlp_checkpoint_save(path, &args), status, "%s", mmlp_last_error());
    expect_line(line);
    cr_expect_eq(access(path, F_OK), -1);
    cr_expect_eq(rmdir(folder), 0, "something was left in the folder");
    mkdir(folder, 0777);
    shard_free(&s);
}

static void take_data(shard *s)
{
    s->tensors[2].data = NULL;
}

static void take_entry(shard *s)
{
    s->tensors[2].tensor = NULL;
}

static void change_dtype(shard *s)
{
    s->places[1].dtype = "fp8";
}

static void take_key(shard *s)
{
    s->places[0].key[0] = '\0';
}

static void break_key(shard *s)
{
    s->places[0].key[3] = '\n';
}

static void garble_key(shard *s)
{
    s->places[0].key[0] = '\xff';
}

static void move_out(shard *s)
{
    s->places[1].global_offset[0] = 9;
}

static void add_axes(shard *s)
{
    s->places[1].prepend_axis_num = 7;
}

static void enlarge(shard *s)
{
    s->places[0].global_shape[0] = INT64_MAX / 4;
}

static void change_shape(shard *s)
{
    s->places[1].global_shape[1] = 5;
}

static void change_one_dtype(shard *s)
{
    s->places[1].dtype = "fp32";
}

static void take_half(shard *s)
{
    s->places[1].replica_id[2] = 1;
}

static void give_half_twice(shard *s)
{
    s->places[1].global_offset[0] = 0;
}

static void take_size(shard *s)
{
    s->tensors[1].struct_size = 0;
}

static void take_all(shard *s)
{
    s->count = 0;
}

Test(refused, entries_that_cannot_be_are_named_and_nothing_is_written)
{
    const mmlp_status argument = MMLP_ERROR_ARGUMENT;
    expect_not_saved(take_data, argument, "decoder.layers.mlp.linear_fc1.bias: data is NULL");
    expect_not_saved(take_entry, argument, "mmlp_sharded_tensor: NULL was given");
    expect_not_saved(change_dtype, argument,
                     "decoder.layers.mlp.linear_fc1.weight: dtype is fp8; wanted bf16, fp16 or "
                     "fp32");
    expect_not_saved(take_key, argument,
                     "checkpoint tensor 0: its key is empty; wanted 1 to 255 characters");
    expect_not_saved(break_key, argument,
                     "checkpoint tensor 0: its key has the character 10; wanted printable ASCII");
    expect_not_saved(garble_key, argument,
                     "checkpoint tensor 0: its key has the character 255; wanted printable ASCII");
    expect_not_saved(move_out, argument,
                     "decoder.layers.mlp.linear_fc1.weight: axis 0 has 8 from 9 on; wanted a part "
                     "of the stored 16");
    expect_not_saved(add_axes, argument,
                     "decoder.layers.mlp.linear_fc1.weight: 2 axes behind 7; wanted 1 to 8 in all");
    expect_not_saved(enlarge, argument,
                     "decoder.layers.mlp.linear_fc1.weight: the stored tensor is larger than a "
                     "file can be");
    expect_not_saved(change_shape, argument,
                     "decoder.layers.mlp.linear_fc1.weight: one entry says BF16 [16, 4], another "
                     "BF16 [16, 5]");
    expect_not_saved(change_one_dtype, argument,
                     "decoder.layers.mlp.linear_fc1.weight: one entry says BF16 [16, 4], another "
                     "F32 [16, 4]");
    expect_not_saved(take_size, argument,
                     "mmlp_checkpoint_tensor: struct_size is 0; start from the struct's _INIT "
                     "macro");
    expect_not_saved(take_all, argument,
                     "mmlp_checkpoint_args: 0 tensors are given; wanted 1 or more");
    expect_not_saved(
        take_half, MMLP_ERROR_SHAPE,
        "c.safetensors: tensor 'decoder.layers.mlp.linear_fc1.weight': the pieces have "
        "32 elements in all; wanted 64");
    expect_not_saved(
        give_half_twice, MMLP_ERROR_SHAPE,
        "c.safetensors: tensor 'decoder.layers.mlp.linear_fc1.weight': pieces overlap, "
        "and others are missing; wanted each element once");
}

Test(refused, a_target_that_is_no_file_or_has_no_folder_is_left_alone)
{
    shard s;
    shard_make(&s, &model, 1, 0, NULL);
    mmlp_checkpoint_args args = shard_args(&s);
    mkdir(path, 0777);
    cr_expect_eq(mmlp_checkpoint_save(path, &args), MMLP_ERROR_IO);
    expect_line("c.safetensors: exists and is not a regular file; it is not replaced");
    rmdir(path);
    strcat(path, "/none");
    cr_expect_eq(mmlp_checkpoint_save(path, &args), MMLP_ERROR_IO);
    expect_line("c.safetensors/none.saving: cannot create: No such file or directory");
    cr_expect_eq(mmlp_checkpoint_save("", &args), MMLP_ERROR_ARGUMENT);
    expect_line("mmlp_checkpoint: path is empty");
    cr_expect_eq(mmlp_checkpoint_load(NULL, &args), MMLP_ERROR_ARGUMENT);
    expect_line("mmlp_checkpoint: path is NULL");
    cr_expect_eq(mmlp_checkpoint_save(path, NULL), MMLP_ERROR_ARGUMENT);
    expect_line("mmlp_checkpoint_args: NULL was given");
    args.comm = (struct ncclComm *)&args;
    cr_expect_eq(mmlp_checkpoint_save(path, &args), MMLP_ERROR_ARGUMENT);
    expect_line("mmlp_checkpoint_args: comm needs a context");
    shard_free(&s);
}
