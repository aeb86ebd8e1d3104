/*
 * parallel.h: a loop over the host's cores.
 */
#ifndef MMLP_BASE_PARALLEL_H
#define MMLP_BASE_PARALLEL_H

#include <stdint.h>

/* Calls body(user, worker, first, last) for ranges that cover [0, count), on all cores of this
 * process; it returns when all have. Ranges start on multiples of `grain`; calls of one worker, a
 * number below parallel_workers(), never overlap. Runs on fewer threads when no more can be made;
 * never fails. */
typedef void parallel_body(void *user, int worker, int64_t first, int64_t last);
void parallel_for(int64_t count, int64_t grain, parallel_body *body, void *user);
int parallel_workers(void);

#endif
