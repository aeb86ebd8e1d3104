/*
 * nccl_move.h: an operation on its way, and the moving of its elements between device memory and
 * the windows of the shared memory.
 */
#ifndef NCCL_MOVE_H
#define NCCL_MOVE_H

#include "nccl/nccl_op.h"

typedef enum run_phase { RUN_NEW, RUN_MATCH, RUN_MOVE, RUN_DONE } run_phase;

typedef struct op_run {
    const nccl_op *op;
    struct ncclComm *comm;
    op_shape shape;     /* with its number, once it is posted */
    segment_pair *pair; /* of a message */
    run_phase phase;
    bool is_next; /* nothing before it in the group has to end first */

    /* RUN_MOVE: where the next chunk is. */
    int block;       /* of a reduce-scatter: the rank that the chunk is for */
    uint64_t offset; /* in elements */
    bool is_filled;  /* the own window has it */
} op_run;

/* Do what can be done without waiting; false: nothing. At the end of the last chunk the operation
 * is done. A buffer that is gone makes the communicator fail. */
bool move_collective(op_run *run, void *scratch);
bool move_message(op_run *run);
/* The ranks that the operation waits for, posted or moving. */
uint64_t move_waits_for(const op_run *run);

#endif
