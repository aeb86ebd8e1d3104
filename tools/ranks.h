/*
 * ranks.h: the processes that mpirun has started, and what a tool needs of MPI: the library itself
 * knows none of it.
 */
#ifndef MMLP_TOOLS_RANKS_H
#define MMLP_TOOLS_RANKS_H

#include <stddef.h>

typedef struct ranks {
    int count, rank;
    int local; /* among those of this machine */
} ranks;

/* One rank where there is no mpirun: MPI is not started then. */
void ranks_start(ranks *out, int *argc, char ***argv);
/* To be called last. aborts: this rank cannot go on, and the others end with this exit code too. */
void ranks_end(int code, int aborts);

/* All of these are called by every rank, and do nothing where there is one. */
void ranks_broadcast(const ranks *r, void *bytes, size_t count); /* of rank 0 */
/* all: `count` bytes of each rank, in their order. */
void ranks_gather(const ranks *r, void *all, const void *own, size_t count);
/* The largest of all: what exit code ranks have that may fail each by itself. */
int ranks_agree(const ranks *r, int code);
/* In place. */
void ranks_sum(const ranks *r, double *values, size_t count);
void ranks_sum_floats(const ranks *r, float *values, size_t count);

#endif
