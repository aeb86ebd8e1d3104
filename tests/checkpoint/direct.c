/*
 * direct.c: long runs of device memory are handed to the kernel, several at a time, past the page
 * cache; what it refuses, does by halves or fails at is written through the cache.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interrupted.h"
#include "saved.h"
#include "shard.h"

/* Six weights of two MiB: six runs for one rank. No size is a multiple of a page. */
static const shard_model after = {520, 2056, true, true, true, "bf16", 2};
static const shard_model before = {4, 8, true, true, false, "fp32", 0};
enum { LONG_RUNS = 6 };

static mmlp_context *context;
static shard rank;

static void begin(void)
{
    saved_begin();
    shard_save_all(path, &before, 1);
    cr_assert_eq(mmlp_context_create(&context, NULL), MMLP_OK, "%s", mmlp_last_error());
    shard_make(&rank, &after, 1, 0, context);
    shard_fill(&rank);
}

static void end(void)
{
    shard_free(&rank);
    mmlp_context_destroy(context);
    saved_end();
}

TestSuite(direct, .init = begin, .fini = end, .timeout = 120);

static bool has_direct_writes(void)
{
    aio_context_t queue = 0;
    int descriptor = open(path, O_WRONLY | O_DIRECT);
    const bool has = descriptor >= 0 && syscall(SYS_io_setup, 1L, &queue) == 0;
    if (queue)
        syscall(SYS_io_destroy, queue);
    if (descriptor >= 0)
        close(descriptor);
    if (!has)
        cr_skip("no O_DIRECT in %s, or no asynchronous writes (io_setup)", folder);
    return has;
}

static mmlp_status save(void)
{
    const mmlp_checkpoint_args args = shard_args(&rank);
    return mmlp_checkpoint_save(path, &args);
}

Test(direct, every_long_run_is_handed_in_and_arrives)
{
    if (!has_direct_writes())
        return;
    interrupt_direct(DIRECT_WHOLE);
    cr_assert_eq(save(), MMLP_OK, "%s", mmlp_last_error());
    cr_expect_eq(interrupt_direct_count(), LONG_RUNS);
    cr_expect(shard_is_file(path, &after));
}

Test(direct, what_a_write_has_not_done_or_has_failed_at_is_done_again)
{
    for (interrupted_direct how = DIRECT_PART; how <= DIRECT_FAILS; how++) {
        interrupt_direct(how);
        cr_assert_eq(save(), MMLP_OK, "%s", mmlp_last_error());
        cr_expect(shard_is_file(path, &after));
        shard_save_all(path, &before, 1);
    }
}

Test(direct, a_wait_that_a_signal_interrupts_goes_on)
{
    interrupt_direct(DIRECT_WHOLE);
    interrupt_shorten(true);
    cr_assert_eq(save(), MMLP_OK, "%s", mmlp_last_error());
    interrupt_shorten(false);
    cr_expect(shard_is_file(path, &after));
}

Test(direct, a_save_that_fails_at_any_call_leaves_the_old_file_or_the_new_one)
{
    if (!has_direct_writes())
        return;
    int calls = 0, unharmed = 0;
    for (;; calls++) {
        interrupt_after(calls, false);
        mmlp_status status = save();
        const bool has_failed = interrupt_never();
        cr_expect_neq(access(temporary, F_OK), 0, "call %d leaves the temporary file", calls);
        if (!has_failed)
            break;
        unharmed += status == MMLP_OK;
        cr_expect(status == MMLP_OK || strstr(mmlp_last_error(), "No space left on device"),
                  "call %d: %s", calls, mmlp_last_error());
        cr_expect(shard_is_file(path, &after) ||
                      (status != MMLP_OK && shard_is_file(path, &before)),
                  "call %d", calls);
        shard_save_all(path, &before, 1);
    }
    /* Of a long run: handing in, its first and its last page, the wait. Besides: 6 before and 8
     * behind, and 6 biases. No harm is done when one cannot be handed in, without a queue or a
     * descriptor for them, and when those cannot be closed. */
    cr_expect_eq(calls, 4 * LONG_RUNS + 6 + 8 + 6);
    cr_expect_eq(unharmed, LONG_RUNS + 5);
    cr_expect(shard_is_file(path, &after));
}
