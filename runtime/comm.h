/*
 * comm.h: communicators, as the runtime knows them, and what ranks tell each other outside of the
 * passes.
 */
#ifndef MMLP_COMM_H
#define MMLP_COMM_H

#include <stdatomic.h>

#include "context.h"

/* A communicator that this context has seen. Records live as long as the context, so that a call
 * with one that is gone can say so. */
typedef struct comm {
    struct comm *next;
    ncclComm_t nccl;
    int ranks, rank;
    _Atomic(const char *) gone; /* NULL, or the function that ended it */
} comm;

/* The context's NCCL, opened at the first call. */
mmlp_status comm_library(const nccl_library **out, mmlp_context *context);
/* The record of a communicator, made when it is new; its size, rank and device are asked for again.
 * ERROR_ARGUMENT: nccl is NULL, or of another device; ERROR_COMM: aborted, or failed before. */
mmlp_status comm_find(comm **out, mmlp_context *context, ncclComm_t nccl);
/* What has become of the communicator: ERROR_COMM says what NCCL has noticed since, such as a rank
 * that died. Costs no synchronisation. */
mmlp_status comm_check(const mmlp_context *context, const comm *c);
/* Waits until a call of a non-blocking communicator has begun its work. */
ncclResult_t comm_begun(const nccl_library *library, ncclComm_t nccl, ncclResult_t result);
/* Frees the records; their communicators are the callers'. */
void comm_free_all(mmlp_context *context);

enum { COMM_WORDS = 4 };

/*
 * Every rank gives its words and gets everyone's: all[rank * COMM_WORDS + i]. Blocks until every
 * rank of the communicator has called, or one has failed (ERROR_COMM). Not in a capture.
 */
mmlp_status comm_exchange(uint64_t *all, mmlp_context *context, const comm *c,
                          const uint64_t own[COMM_WORDS]);

#endif
