/* failing.c: ranks that disagree in a pass, abort, leave or die: the others are told, and nothing
 * hangs (the tests' time limits end them). */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "parallel_step.h"

#define REQUIRE(call) cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())

enum { TOKENS = 40, WITHIN_SECONDS = 10 };

/* Asks until NCCL has noticed something, or the time is over. */
static mmlp_status watch(const thread_rank *rank)
{
    mmlp_status status = MMLP_OK;
    for (time_t end = time(NULL) + WITHIN_SECONDS; status == MMLP_OK && time(NULL) < end;) {
        usleep(1000);
        status = mmlp_comm_status(rank->context, rank->comm);
    }
    return status;
}

/* A bound mlp and a step. */
static mmlp_mlp *start(training_step *step, const thread_rank *rank, const mmlp_bundle *bundle,
                       int64_t tokens)
{
    mmlp_mlp *mlp = parallel_bind(rank, bundle, NULL);
    step_options options = {.tokens = tokens, .seed = 1, .device = rank->rank};
    step_start(step, rank->context, bundle, mlp, &options);
    return mlp;
}

/* The communicator has failed, and says this; so does every pass. */
static void expect_failed(const thread_rank *rank, mmlp_mlp *mlp, const training_step *step,
                          const char *part)
{
    cr_expect_eq(watch(rank), MMLP_ERROR_COMM);
    cr_expect(strstr(mmlp_last_error(), part), "%s", mmlp_last_error());
    cr_expect_eq(mmlp_mlp_forward(mlp, &step->forward, NULL), MMLP_ERROR_COMM);
    cr_expect(strstr(mmlp_last_error(), part), "%s", mmlp_last_error());
    cr_expect_eq(mmlp_mlp_dgrad(mlp, &step->dgrad, NULL), MMLP_ERROR_COMM);
    cr_expect_eq(mmlp_mlp_bind_comm(mlp, MMLP_GROUP_DP, rank->comm), MMLP_ERROR_COMM);
    REQUIRE(mmlp_comm_abort(rank->context, rank->comm));
    /* It ends; kernels behind a failed collective may have found nothing where it should write. */
    mmlp_status status = mmlp_stream_sync(rank->context, NULL);
    cr_expect(status == MMLP_OK || status == MMLP_ERROR_DEVICE);
}

static void with_bundle(void (*body)(thread_rank *))
{
    mmlp_bundle *bundle = parallel_bundle(PARALLEL_ADDED_BIAS, 2, false);
    with_thread_ranks(2, body, bundle);
    mmlp_bundle_close(bundle);
}

/* ---- disagreement --------------------------------------------------------------------------- */

static void give_other_tokens(thread_rank *rank)
{
    training_step step;
    mmlp_mlp *mlp = start(&step, rank, rank->what, TOKENS - 2 * rank->rank);
    thread_barrier(rank);
    REQUIRE(mmlp_mlp_forward(mlp, &step.forward, NULL));
    expect_failed(rank, mlp, &step,
                  "rank 0: all-reduce of 2560 bf16, sum; rank 1: all-reduce of 2432 bf16, sum");
    step_finish(&step);
    mmlp_mlp_unload(mlp);
}

Test(failing, ranks_with_other_tokens_are_both_told_what_each_has_called, .timeout = 60)
{
    with_bundle(give_other_tokens);
}

/* Both begin with a gather of as many elements; what follows tells them apart. */
static void call_another_pass(thread_rank *rank)
{
    training_step step;
    mmlp_mlp *mlp = start(&step, rank, rank->what, TOKENS);
    REQUIRE(mmlp_mlp_forward(mlp, &step.forward, NULL));
    REQUIRE(mmlp_stream_sync(rank->context, NULL));
    thread_barrier(rank);
    if (rank->rank == 0)
        mmlp_mlp_forward(mlp, &step.forward, NULL); /* hears of it at once, or later */
    else
        mmlp_mlp_dgrad(mlp, &step.dgrad, NULL);
    expect_failed(rank, mlp, &step,
                  "rank 0: reduce-scatter of 1280 bf16, sum; rank 1: all-gather of 1280 bf16");
    step_finish(&step);
    mmlp_mlp_unload(mlp);
}

Test(failing, ranks_in_other_passes_are_told, .timeout = 60)
{
    mmlp_bundle *bundle = parallel_bundle(PARALLEL_ADDED_BIAS, 2, true);
    with_thread_ranks(2, call_another_pass, bundle);
    mmlp_bundle_close(bundle);
}

/* ---- ranks that end their communicator ------------------------------------------------------ */

static void abort_own(thread_rank *rank)
{
    static const char ended[] = "communicator: it has ended (mmlp_comm_abort); make another one";
    training_step step;
    mmlp_mlp *mlp = start(&step, rank, rank->what, TOKENS);
    thread_barrier(rank);
    if (rank->rank == 1) {
        REQUIRE(mmlp_comm_abort(rank->context, rank->comm));
        cr_expect_eq(mmlp_mlp_forward(mlp, &step.forward, NULL), MMLP_ERROR_COMM);
        cr_expect_str_eq(mmlp_last_error(), ended);
        cr_expect_eq(mmlp_mlp_dgrad(mlp, &step.dgrad, NULL), MMLP_ERROR_COMM);
        cr_expect_str_eq(mmlp_last_error(), ended);
    } else {
        mmlp_status status = mmlp_mlp_forward(mlp, &step.forward, NULL);
        cr_expect(status == MMLP_OK || status == MMLP_ERROR_COMM);
        expect_failed(rank, mlp, &step, "rank 1 has aborted the communicator");
    }
    step_finish(&step);
    mmlp_mlp_unload(mlp);
}

Test(failing, a_pass_after_an_abort_fails_here_and_there, .timeout = 60)
{
    with_bundle(abort_own);
}

static void destroy_own(thread_rank *rank)
{
    training_step step;
    mmlp_mlp *mlp = start(&step, rank, rank->what, TOKENS);
    thread_barrier(rank);
    REQUIRE(mmlp_comm_destroy(rank->context, rank->comm));
    cr_expect_eq(mmlp_mlp_forward(mlp, &step.forward, NULL), MMLP_ERROR_COMM);
    cr_expect_str_eq(mmlp_last_error(),
                     "communicator: it has ended (mmlp_comm_destroy); make another one");
    step_finish(&step);
    mmlp_mlp_unload(mlp);
}

Test(failing, a_pass_after_the_communicator_was_destroyed_fails, .timeout = 60)
{
    with_bundle(destroy_own);
}

/* Rank 1 leaves while rank 0 waits for it in a pass. */
static void leave(thread_rank *rank)
{
    training_step step;
    mmlp_mlp *mlp = start(&step, rank, rank->what, TOKENS);
    if (rank->rank == 1) {
        thread_barrier(rank);
        REQUIRE(mmlp_comm_destroy(rank->context, rank->comm));
    } else {
        REQUIRE(mmlp_mlp_forward(mlp, &step.forward, NULL));
        thread_barrier(rank);
        expect_failed(rank, mlp, &step, "rank 1: has destroyed its communicator");
    }
    step_finish(&step);
    mmlp_mlp_unload(mlp);
}

Test(failing, a_rank_that_leaves_makes_a_waiting_pass_fail, .timeout = 60)
{
    with_bundle(leave);
}

/* ---- ranks that die ------------------------------------------------------------------------- */

/* What two processes and the test share. */
typedef struct shared {
    mmlp_comm_id id;
    atomic_int has_id;
    atomic_int steps[2]; /* ended, of each */
} shared;

/* In a process of its own, where Criterion's assertions have no meaning. */
#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition, mmlp_last_error()); \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static void join(thread_rank *rank, shared *s)
{
    mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
    options.device = rank->rank;
    NEED(mmlp_context_create(&rank->context, &options) == MMLP_OK);
    if (rank->rank == 0) {
        NEED(mmlp_comm_unique_id(&s->id, rank->context) == MMLP_OK);
        atomic_store(&s->has_id, 1);
    }
    while (!atomic_load(&s->has_id))
        usleep(1000);
    NEED(mmlp_comm_create(&rank->comm, rank->context, &s->id, rank->ranks, rank->rank) == MMLP_OK);
}

/* Steps until the communicator fails, which only the death of the other rank can make it do. */
static void run_rank(int r, shared *s, const mmlp_bundle *bundle)
{
    thread_rank rank = {.ranks = 2, .rank = r};
    training_step step;
    mmlp_status status = MMLP_OK;
    join(&rank, s);
    mmlp_mlp *mlp = start(&step, &rank, bundle, TOKENS);
    while (status == MMLP_OK) {
        status = step_run(&step, mlp);
        atomic_fetch_add(&s->steps[r], 1);
    }
    NEED(status == MMLP_ERROR_COMM);
    NEED(mmlp_comm_status(rank.context, rank.comm) == MMLP_ERROR_COMM);
    NEED(strstr(mmlp_last_error(), r == 0 ? "rank 1 (process " : "rank 0 (process "));
    NEED(strstr(mmlp_last_error(), "has ended without leaving"));
    NEED(mmlp_mlp_forward(mlp, &step.forward, NULL) == MMLP_ERROR_COMM);
    NEED(mmlp_comm_abort(rank.context, rank.comm) == MMLP_OK);
    step_finish(&step);
    mmlp_mlp_unload(mlp);
    mmlp_context_destroy(rank.context);
    _exit(0);
}

static void kill_in_the_middle(int victim, useconds_t after)
{
    mmlp_bundle *bundle = parallel_bundle(PARALLEL_ADDED_BIAS, 2, true);
    shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(s, MAP_FAILED);
    pid_t processes[2];
    for (int r = 0; r < 2; r++) {
        processes[r] = fork();
        cr_assert_geq(processes[r], 0);
        if (processes[r] == 0)
            run_rank(r, s, bundle);
    }
    while (atomic_load(&s->steps[victim]) < 2)
        usleep(1000);
    usleep(after);
    kill(processes[victim], SIGKILL);
    time_t killed = time(NULL);
    int state;
    cr_assert_eq(waitpid(processes[1 - victim], &state, 0), processes[1 - victim]);
    cr_expect(WIFEXITED(state) && WEXITSTATUS(state) == 0, "state %x", state);
    cr_expect_leq(time(NULL) - killed, WITHIN_SECONDS);
    cr_assert_eq(waitpid(processes[victim], &state, 0), processes[victim]);
    cr_expect(WIFSIGNALED(state) && WTERMSIG(state) == SIGKILL);
    munmap(s, sizeof *s);
    mmlp_bundle_close(bundle);
}

Test(failing, a_rank_that_is_killed_makes_the_other_fail, .timeout = 60)
{
    kill_in_the_middle(0, 0);
    for (useconds_t after = 0; after < 8000; after += 1700)
        kill_in_the_middle(1, after);
}
