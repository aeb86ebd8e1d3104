/*
 * ranks.c: several ranks that save and load together, each with a device of its own: that they make
 * the file that one would, that all agree when one cannot, and how much memory that takes.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "interrupted.h"
#include "saved.h"
#include "shard.h"
#include "thread_ranks.h"

TestSuite(checkpoint_ranks, .init = saved_begin, .fini = saved_end, .timeout = 120);

/* ---- together -------------------------------------------------------------------------------- */

static mmlp_checkpoint_args args_of(const shard *s, const thread_rank *rank)
{
    mmlp_checkpoint_args args = shard_args(s);
    args.comm = rank->comm;
    return args;
}

static void save_own(thread_rank *rank)
{
    shard s;
    shard_make(&s, rank->what, rank->ranks, rank->rank, rank->context);
    shard_fill(&s);
    const mmlp_checkpoint_args args = args_of(&s, rank);
    cr_expect_eq(mmlp_checkpoint_save(path, &args), MMLP_OK, "%s", mmlp_last_error());
    shard_free(&s);
}

static void load_own(thread_rank *rank)
{
    shard s;
    shard_make(&s, rank->what, rank->ranks, rank->rank, rank->context);
    shard_blank(&s);
    const mmlp_checkpoint_args args = args_of(&s, rank);
    cr_expect_eq(mmlp_checkpoint_load(path, &args), MMLP_OK, "%s", mmlp_last_error());
    shard_expect_filled(&s);
    shard_free(&s);
}

Test(checkpoint_ranks, ranks_with_devices_make_the_file_of_one_and_load_it_at_every_size)
{
    for (int form = 0; form < 4; form++) {
        shard_model model = {12, 48, form & 1, true, form & 2, "bf16", 2};
        char *wanted, *found;
        size_t wanted_bytes, found_bytes;
        shard_save_all(path, &model, 1);
        cr_assert_eq(file_read(&wanted, &wanted_bytes, path), MMLP_OK);
        for (int ranks = 1; ranks <= 8; ranks *= 2) {
            with_thread_ranks(ranks, load_own, &model);
            with_thread_ranks(ranks, save_own, &model);
            cr_assert_eq(file_read(&found, &found_bytes, path), MMLP_OK);
            cr_expect(found_bytes == wanted_bytes && memcmp(found, wanted, found_bytes) == 0,
                      "%d ranks", ranks);
            free(found);
        }
        free(wanted);
    }
}

Test(checkpoint_ranks, long_runs_that_begin_and_end_inside_of_pages_arrive)
{
    /* Two MiB of gate and of up; no size is a multiple of a page, and biases lie between. */
    shard_model model = {520, 2056, true, true, true, "bf16", 2};
    for (int ranks = 1; ranks <= 2; ranks++) {
        with_thread_ranks(ranks, save_own, &model);
        shard_load_all(path, &model, 2);
        shard_save_all(path, &model, ranks);
        with_thread_ranks(3 - ranks, load_own, &model);
    }
}

/* ---- one that cannot ------------------------------------------------------------------------- */

static const shard_model model = {4, 8, true, true, false, "bf16", 0};

/* What rank 1 has in place of that, and the line of all ranks, or NULL. */
typedef struct disagreement {
    shard_model other;
    int other_tp_rank;
    const char *line;
} disagreement;

static void expect_line(const thread_rank *rank, const char *wanted)
{
    const char *line = mmlp_last_error();
    cr_expect(strncmp(line, folder, strlen(folder)) == 0 &&
                  strcmp(line + strlen(folder) + 1, wanted) == 0,
              "rank %d: %s; wanted %s", rank->rank, line, wanted);
}

static void save_another(thread_rank *rank)
{
    const disagreement *d = rank->what;
    const bool is_other = rank->rank == 1;
    shard s;
    shard_make(&s, is_other ? &d->other : &model, rank->ranks,
               is_other ? d->other_tp_rank : rank->rank, rank->context);
    shard_fill(&s);
    const mmlp_checkpoint_args args = args_of(&s, rank);
    cr_expect_eq(mmlp_checkpoint_save(path, &args), MMLP_ERROR_SHAPE, "rank %d: %s", rank->rank,
                 mmlp_last_error());
    if (d->line)
        expect_line(rank, d->line);
    shard_free(&s);
}

Test(checkpoint_ranks, ranks_that_do_not_fit_together_all_fail_before_anything_is_written)
{
    disagreement d = {model, 0,
                      "c.safetensors: tensor 'decoder.layers.mlp.linear_fc1.bias': pieces overlap, "
                      "and others are missing; wanted each element once"};
    shard_save_all(path, &model, 2);
    with_thread_ranks(2, save_another, &d); /* two ranks 0 */
    d.other_tp_rank = 1;
    d.other.dtype = "fp32";
    d.line = "c.safetensors: ranks 0 and 1 do not give the same tensors; they differ at "
             "'decoder.layers.mlp.linear_fc1.bias'";
    with_thread_ranks(3, save_another, &d);
    d.other = model;
    d.other.hidden_size = 6;
    d.line =
        NULL; /* rank 2 of 3 divides ffn_hidden_size otherwise: fc1's bias fits, weights do not */
    with_thread_ranks(2, save_another, &d);
    d.other = model;
    d.other.bias = false; /* another number of tensors: each says its own */
    d.line = NULL;
    with_thread_ranks(2, save_another, &d);
    cr_expect_neq(access(temporary, F_OK), 0);
    shard_load_all(path, &model, 1);
}

static void load_another(thread_rank *rank)
{
    shard_model other = model;
    shard s;
    if (rank->rank == 1)
        other.dtype = "fp16";
    shard_make(&s, &other, rank->ranks, rank->rank, rank->context);
    shard_blank(&s);
    const mmlp_checkpoint_args args = args_of(&s, rank);
    cr_expect_eq(mmlp_checkpoint_load(path, &args), MMLP_ERROR_SHAPE);
    expect_line(rank, rank->rank == 1
                          ? "c.safetensors: tensor 'decoder.layers.mlp.linear_fc1.bias' "
                            "is BF16; wanted F16"
                          : "c.safetensors: rank 1 failed with MMLP_ERROR_SHAPE; its "
                            "own line says why");
    shard_expect_blank(&s);
    shard_free(&s);
}

Test(checkpoint_ranks, a_rank_that_wants_another_file_keeps_all_from_loading)
{
    shard_save_all(path, &model, 2);
    with_thread_ranks(2, load_another, NULL);
}

static void save_elsewhere(thread_rank *rank)
{
    char elsewhere[4200];
    shard s;
    shard_make(&s, &model, rank->ranks, rank->rank, rank->context);
    const mmlp_checkpoint_args args = args_of(&s, rank);
    snprintf(elsewhere, sizeof elsewhere, "%s/other", folder);
    cr_expect_eq(mmlp_checkpoint_save(rank->rank == 1 ? elsewhere : path, &args), MMLP_ERROR_IO);
    if (rank->rank == 1)
        expect_line(rank,
                    "other.saving: is not the file that rank 0 has made: wanted one folder to "
                    "all ranks");
    shard_free(&s);
}

Test(checkpoint_ranks, a_rank_that_sees_another_folder_is_found_before_tensors_are_written)
{
    char other[4200];
    snprintf(other, sizeof other, "%s/other.saving", folder);
    cr_assert_eq(file_write_atomic(other, "", 0), MMLP_OK);
    with_thread_ranks(2, save_elsewhere, NULL);
    cr_expect_neq(access(path, F_OK), 0);
    cr_expect_neq(access(temporary, F_OK), 0);
}

static bool is_of(const shard_model *wanted)
{
    shard s;
    shard_make(&s, wanted, 1, 0, NULL);
    const mmlp_checkpoint_args args = shard_args(&s);
    const bool is = mmlp_checkpoint_verify(path, &args, NULL, NULL) == MMLP_OK;
    shard_free(&s);
    return is;
}

/* Saves with a call that fails after some; how many ranks succeeded is added up. */
typedef struct attempt {
    int calls;
    bool has_failed;
    _Atomic int succeeded, own_lines;
} attempt;

static void save_failing(thread_rank *rank)
{
    attempt *a = rank->what;
    shard s;
    shard_make(&s, &model, rank->ranks, rank->rank, rank->context);
    shard_fill(&s);
    const mmlp_checkpoint_args args = args_of(&s, rank);
    thread_barrier(rank);
    if (rank->rank == 0)
        interrupt_after(a->calls, false);
    thread_barrier(rank);
    mmlp_status status = mmlp_checkpoint_save(path, &args);
    a->succeeded += status == MMLP_OK;
    cr_expect(status == MMLP_OK || status == MMLP_ERROR_IO, "%s", mmlp_last_error());
    a->own_lines += strstr(mmlp_last_error(), "No space left on device") != NULL;
    thread_barrier(rank);
    if (rank->rank == 0)
        a->has_failed = interrupt_never();
    shard_free(&s);
}

Test(checkpoint_ranks, a_call_that_fails_in_any_rank_fails_all_and_leaves_the_old_file)
{
    const shard_model old = {4, 8, false, false, false, "fp32", 0};
    attempt a = {0};
    int published = 0;
    shard_save_all(path, &old, 1);
    for (;; a.calls++) {
        a.succeeded = a.own_lines = 0;
        with_thread_ranks(2, save_failing, &a);
        cr_expect_neq(access(temporary, F_OK), 0, "call %d leaves the temporary file", a.calls);
        if (!a.has_failed)
            break;
        cr_assert(a.succeeded == 0 || a.succeeded == 2, "call %d: one rank says that it has saved",
                  a.calls);
        cr_expect_eq(a.own_lines, a.succeeded ? 0 : 1, "call %d", a.calls);
        published += is_of(&model);
        if (is_of(&model))
            shard_save_all(path, &old, 1);
        shard_load_all(path, &old, 1);
    }
    /* Rank 0 makes 14 calls besides writing its pieces, the other 7: it opens the file twice,
     * closes it twice, flushes it, opens and closes a queue. Pieces: those of fc1 and its bias, 4
     * rows of fc2, rank 0 fc2's bias. The last three flush the folder; which others harm nobody
     * depends on who comes first.
     */
    cr_expect_eq(a.calls, 14 + 7 + (4 + 4 + 1) + (4 + 4));
    cr_expect_geq(published, 3);
    shard_load_all(path, &model, 1);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static long peak_kib(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long kib = -1;
    while (kib < 0 && fgets(line, sizeof line, file))
        sscanf(line, "VmHWM: %ld", &kib);
    fclose(file);
    return kib;
}

/* From now on the peak is that of what follows, from what there is now. */
static long forget_peak(void)
{
    int descriptor = open("/proc/self/clear_refs", O_WRONLY);
    cr_assert(descriptor >= 0 && write(descriptor, "5", 1) == 1);
    close(descriptor);
    return peak_kib();
}

Test(checkpoint_ranks, a_shard_of_384_mib_takes_less_than_64_more)
{
    const shard_model large = {4096, 16384, true, false, false, "bf16", 0};
    mmlp_context *context;
    shard s;
    cr_assert_eq(mmlp_context_create(&context, NULL), MMLP_OK, "%s", mmlp_last_error());
    shard_make(&s, &large, 1, 0, context);
    shard_fill(&s);
    const mmlp_checkpoint_args args = shard_args(&s);
    long before = forget_peak();
    cr_assert_eq(mmlp_checkpoint_save(path, &args), MMLP_OK, "%s", mmlp_last_error());
    const long saved = peak_kib() - before;
    shard_blank(&s);
    before = forget_peak();
    cr_assert_eq(mmlp_checkpoint_load(path, &args), MMLP_OK, "%s", mmlp_last_error());
    const long loaded = peak_kib() - before;
    cr_log_info("%ld KiB more when saving, %ld when loading", saved, loaded);
    cr_expect_gt(saved, 0);
    cr_expect_lt(saved, 64 << 10);
    cr_expect_lt(loaded, 64 << 10);
    shard_expect_filled(&s);
    shard_free(&s);
    mmlp_context_destroy(context);
}
