/*
 * killed.c: one of two ranks, each a process, is killed before the first, second, ... call to the
 * system that it makes in a save: the file is the old one or the new one, and the other rank ends.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "interrupted.h"
#include "saved.h"
#include "shard.h"

enum { RANKS = 2, SAVED = 0, NOT_SAVED = 3 };

static const shard_model before = {4, 8, true, true, false, "bf16", 0};
static const shard_model after = {16, 131072, true, true, true, "bf16", 0}; /* long runs, too */

/* Shared by the processes. */
typedef struct meeting {
    mmlp_comm_id id;
    _Atomic int has_id;
} meeting;

/* The exit code of a rank: whether it was told that the file is saved. */
static int save_as(meeting *m, int rank, int calls)
{
    mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
    mmlp_context *context;
    struct ncclComm *comm;
    shard s;
    options.device = rank;
    if (mmlp_context_create(&context, &options) != MMLP_OK)
        return 1;
    if (rank == 0 && mmlp_comm_unique_id(&m->id, context) == MMLP_OK)
        m->has_id = 1;
    while (!m->has_id)
        usleep(100);
    if (mmlp_comm_create(&comm, context, &m->id, RANKS, rank) != MMLP_OK)
        return 1;
    shard_make(&s, &after, RANKS, rank, context);
    shard_fill(&s);
    mmlp_checkpoint_args args = shard_args(&s);
    args.comm = comm;
    interrupt_after(calls, true);
    mmlp_status status = mmlp_checkpoint_save(path, &args);
    interrupt_never();
    if (status == MMLP_OK)
        mmlp_comm_destroy(context, comm); /* to end without leaving is to die, for the other */
    if (status != MMLP_OK && status != MMLP_ERROR_COMM)
        fprintf(stderr, "rank %d: %s\n", rank, mmlp_last_error());
    return status == MMLP_OK ? SAVED : status == MMLP_ERROR_COMM ? NOT_SAVED : 1;
}

/* Runs the ranks, `killed` with so many calls; fills what waitpid says of each. */
static void run(int statuses[RANKS], int killed, int calls)
{
    pid_t children[RANKS];
    meeting *m = mmap(NULL, sizeof *m, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(m, MAP_FAILED);
    for (int rank = 0; rank < RANKS; rank++) {
        children[rank] = fork();
        cr_assert_geq(children[rank], 0);
        if (children[rank] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL); /* when the test runs out of time */
            _exit(save_as(m, rank, rank == killed ? calls : -1));
        }
    }
    for (int rank = 0; rank < RANKS; rank++)
        cr_assert_eq(waitpid(children[rank], &statuses[rank], 0), children[rank]);
    munmap(m, sizeof *m);
}

/* Returns the number of calls that the rank makes. */
static int kill_at_every_call(int killed)
{
    for (int calls = 0;; calls++) {
        int statuses[RANKS];
        run(statuses, killed, calls);
        const int other = statuses[!killed];
        if (WIFEXITED(statuses[killed])) {
            cr_assert_eq(WEXITSTATUS(statuses[killed]), SAVED, "call %d", calls);
            cr_expect(WIFEXITED(other) && WEXITSTATUS(other) == SAVED);
            cr_expect(shard_is_file(path, &after));
            return calls;
        }
        cr_assert_eq(WTERMSIG(statuses[killed]), SIGKILL);
        cr_expect(WIFEXITED(other) && WEXITSTATUS(other) == NOT_SAVED,
                  "rank %d killed at call %d: the other ends with %#x", killed, calls, other);
        if (!shard_is_file(path, &before)) {
            cr_expect(killed == 0 && shard_is_file(path, &after), "call %d of rank %d", calls,
                      killed);
            shard_save_all(path, &before, RANKS);
        }
    }
}

Test(checkpoint_killed, kill_9_of_any_rank_at_any_call_leaves_a_whole_file, .timeout = 240)
{
    saved_begin();
    shard_save_all(path, &before, RANKS);
    cr_expect_geq(kill_at_every_call(0), 14);
    shard_save_all(path, &before, RANKS);
    cr_expect_geq(kill_at_every_call(1), 7); /* open, pieces, fsync, close */
    saved_end();
}
