/* thread_ranks.h: ranks as threads, each with a context on a device of its own. */
#ifndef THREAD_RANKS_H
#define THREAD_RANKS_H

#include <megamlp/megamlp.h>
#include <stddef.h>

enum { THREAD_RANKS_MAX = 8 };

typedef struct thread_rank {
    int ranks, rank;
    mmlp_context *context;
    struct ncclComm *comm; /* of all ranks */
    void *what;            /* the test's */
    struct thread_ranks *shared;
} thread_rank;

/* Runs body(&rank) on `ranks` threads and waits for all of them. */
void with_thread_ranks(int ranks, void (*body)(thread_rank *), void *what);
/* all: `bytes` of each rank, in their order. */
void thread_gather(thread_rank *rank, void *all, const void *own, size_t bytes);
/* Returns when all ranks have called. */
void thread_barrier(thread_rank *rank);

#endif
