/*
 * nccl_stuck.h: ranks that wait for each other, or for one that has left: without this they would
 * wait for ever. A rank that sleeps says for which ranks, and at which epoch it found that out; all
 * operations of a rank that can go on are among those it waits in, so a circle of ranks that
 * all have seen the present epoch never opens.
 */
#ifndef NCCL_STUCK_H
#define NCCL_STUCK_H

#include "nccl/nccl_move.h"

/* Says what the runs of the communicator wait for; they could do nothing at epoch `seen`. */
void stuck_publish(struct ncclComm *comm, const op_run *runs, size_t count, uint32_t seen);
/* Makes the communicator fail (InvalidUsage, both sides) when its wait will not end. */
void stuck_check(struct ncclComm *comm, uint32_t seen);

#endif
