/*
 * interrupted.c: the first, second, ... call to the system that a save makes fails, or is the last
 * before kill -9, until a save comes through: the file is the old one or the new one, whole.
 *
 * The linker's --wrap puts the functions below between the library and the system.
 */
#include "interrupted.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "saved.h"
#include "shard.h"

/* ---- a file between two states --------------------------------------------------------------- */

static const shard_model before = {4, 8, true, true, false, "bf16", 0};
static const shard_model after = {4, 8, true, true, true, "fp32", 0};

static void begin(void)
{
    saved_begin();
    shard_save_all(path, &before, 2);
}

TestSuite(interrupted, .init = begin, .fini = saved_end);

static mmlp_status save_after(void)
{
    shard s;
    shard_make(&s, &after, 1, 0, NULL);
    shard_fill(&s);
    const mmlp_checkpoint_args args = shard_args(&s);
    mmlp_status status = mmlp_checkpoint_save(path, &args);
    shard_free(&s);
    return status;
}

/* ---- failing --------------------------------------------------------------------------------- */

Test(interrupted, a_save_that_fails_at_any_call_leaves_the_old_file_and_nothing_else)
{
    int calls = 0, published = 0, unharmed = 0;
    for (;; calls++) {
        interrupt_after(calls, false);
        mmlp_status status = save_after();
        const bool has_failed = interrupt_never();
        cr_expect_neq(access(temporary, F_OK), 0, "call %d leaves the temporary file", calls);
        if (!has_failed)
            break;
        if (status == MMLP_OK) {
            unharmed++;
        } else {
            cr_expect_eq(status, MMLP_ERROR_IO, "call %d: %s", calls, mmlp_last_error());
            cr_expect(strstr(mmlp_last_error(), "No space left on device"), "%s",
                      mmlp_last_error());
        }
        if (status != MMLP_OK && shard_is_file(path, &before))
            continue;
        cr_expect(shard_is_file(path, &after), "call %d", calls);
        published++;
        shard_save_all(path, &before, 2);
    }
    /* unlink, open, fallocate, header, open (direct), io_setup, 6 pieces, io_destroy, close, fsync,
     * close, rename, open (folder), fsync, close. Without direct writes, and when one that only
     * reads cannot be closed, all is well; and when the folder cannot be flushed, the new file is
     * in place. */
    cr_expect_eq(calls, 20);
    cr_expect_eq(unharmed, 5);
    cr_expect_eq(published, unharmed + 2);
    cr_expect(shard_is_file(path, &after));
}

Test(interrupted, a_save_that_is_killed_at_any_call_leaves_the_old_file_or_the_new_one)
{
    int calls = 0, published = 0;
    for (;; calls++) {
        pid_t child = fork();
        cr_assert_geq(child, 0);
        if (child == 0) {
            interrupt_after(calls, true);
            _exit(save_after() == MMLP_OK ? 0 : 1);
        }
        int status;
        cr_assert_eq(waitpid(child, &status, 0), child);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            break;
        cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "call %d", calls);
        if (shard_is_file(path, &before))
            continue; /* the next save finds what this one has left */
        cr_expect(shard_is_file(path, &after), "call %d", calls);
        published++;
        shard_save_all(path, &before, 2);
    }
    cr_expect_eq(calls, 20);
    cr_expect_eq(published, 3); /* before the folder is opened, flushed, closed */
    cr_expect(shard_is_file(path, &after));
    cr_expect_neq(access(temporary, F_OK), 0);
}

Test(interrupted, what_an_earlier_save_has_left_is_replaced_and_a_link_is_not_followed)
{
    char other[4096];
    snprintf(other, sizeof other, "%s/other", folder);
    FILE *file = fopen(other, "w");
    cr_assert(file && fputs("mine", file) >= 0 && fclose(file) == 0);
    cr_assert_eq(symlink(other, temporary), 0);
    cr_assert_eq(save_after(), MMLP_OK, "%s", mmlp_last_error());
    cr_expect(shard_is_file(path, &after));
    char text[8] = "";
    file = fopen(other, "r");
    cr_assert(file && fgets(text, sizeof text, file));
    fclose(file);
    cr_expect_str_eq(text, "mine");
}

Test(interrupted, calls_that_do_a_part_or_are_interrupted_are_repeated)
{
    interrupt_shorten(true);
    cr_expect_eq(save_after(), MMLP_OK, "%s", mmlp_last_error());
    cr_expect(shard_is_file(path, &after));
    interrupt_shorten(false);
    cr_expect(shard_is_file(path, &after));
}

Test(interrupted, a_file_that_becomes_shorter_while_it_is_read_is_an_error)
{
    shard s;
    shard_make(&s, &before, 1, 0, NULL);
    const mmlp_checkpoint_args args = shard_args(&s);
    interrupt_truncate(path);
    cr_expect_eq(mmlp_checkpoint_load(path, &args), MMLP_ERROR_IO);
    cr_expect(strstr(mmlp_last_error(), "it was cut while it was read"), "%s", mmlp_last_error());
    shard_free(&s);
}
