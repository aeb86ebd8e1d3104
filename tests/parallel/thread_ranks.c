/* thread_ranks.c: ranks as threads, each with a context on a device of its own. */
#include "thread_ranks.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* What all ranks see. */
struct thread_ranks {
    pthread_barrier_t barrier;
    const void *own[THREAD_RANKS_MAX]; /* of thread_gather */
};

typedef struct thread {
    thread_rank rank;
    const mmlp_comm_id *id;
    void (*body)(thread_rank *);
} thread;

static void *run(void *argument)
{
    thread *t = argument;
    thread_rank *rank = &t->rank;
    cr_assert_eq(mmlp_comm_create(&rank->comm, rank->context, t->id, rank->ranks, rank->rank),
                 MMLP_OK, "%s", mmlp_last_error());
    t->body(rank);
    cr_expect_eq(mmlp_comm_destroy(rank->context, rank->comm), MMLP_OK, "%s", mmlp_last_error());
    return NULL;
}

void with_thread_ranks(int ranks, void (*body)(thread_rank *), void *what)
{
    pthread_t handles[THREAD_RANKS_MAX];
    thread threads[THREAD_RANKS_MAX];
    mmlp_comm_id id;
    struct thread_ranks shared = {0};
    pthread_barrier_init(&shared.barrier, NULL, (unsigned)ranks);
    for (int i = 0; i < ranks; i++) {
        mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
        options.device = i;
        options.nccl = getenv("MMLP_TEST_LIBNCCL"); /* NULL: the default */
        threads[i] =
            (thread){.rank = {ranks, i, NULL, NULL, what, &shared}, .id = &id, .body = body};
        cr_assert_eq(mmlp_context_create(&threads[i].rank.context, &options), MMLP_OK, "%s",
                     mmlp_last_error());
    }
    cr_assert_eq(mmlp_comm_unique_id(&id, threads[0].rank.context), MMLP_OK, "%s",
                 mmlp_last_error());
    for (int i = 0; i < ranks; i++)
        pthread_create(&handles[i], NULL, run, &threads[i]);
    for (int i = 0; i < ranks; i++)
        pthread_join(handles[i], NULL);
    for (int i = 0; i < ranks; i++)
        mmlp_context_destroy(threads[i].rank.context);
    pthread_barrier_destroy(&shared.barrier);
}

void thread_barrier(thread_rank *rank)
{
    pthread_barrier_wait(&rank->shared->barrier);
}

void thread_gather(thread_rank *rank, void *all, const void *own, size_t bytes)
{
    rank->shared->own[rank->rank] = own;
    thread_barrier(rank);
    for (int i = 0; i < rank->ranks; i++)
        memcpy((char *)all + (size_t)i * bytes, rank->shared->own[i], bytes);
    thread_barrier(rank);
}
