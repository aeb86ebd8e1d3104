/* thread_ranks.h: ranks as threads, each with a context on a device of its own. */
#ifndef THREAD_RANKS_H
#define THREAD_RANKS_H

#include <megamlp/megamlp.h>

enum { THREAD_RANKS_MAX = 8 };

typedef struct thread_rank {
    int ranks, rank;
    mmlp_context *context;
    struct ncclComm *comm; /* of all ranks */
    void *what;            /* the test's */
    void *barrier;         /* of thread_barrier */
} thread_rank;

/* Runs body(&rank) on `ranks` threads and waits for all of them. */
void with_thread_ranks(int ranks, void (*body)(thread_rank *), void *what);
/* Returns when all ranks have called. */
void thread_barrier(thread_rank *rank);

#endif
