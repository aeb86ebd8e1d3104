/*
 * nccl_op.h: operations: what one is, its description, and the engine that runs the operations of a
 * group together.
 */
#ifndef NCCL_OP_H
#define NCCL_OP_H

#include <stdio.h>

#include "nccl/nccl_comm.h"
#include "nccl/nccl_reduce.h"

typedef enum op_kind {
#define KIND(name, text, reduces, rooted) OP_##name,
#include "nccl/nccl_kinds.def"
#undef KIND
} op_kind;

/* An operation of one rank. It can be copied byte for byte, and outlives its communicator in a
 * captured graph. */
typedef struct nccl_op {
    ncclComm_t comm;
    uint64_t comm_id;
    op_shape shape;
    uint64_t send, receive; /* device addresses (OP_SPLIT: the host's) */
} nccl_op;

/* "all-reduce of 1024 bf16, sum" */
void op_describe(char text[static 128], const op_shape *shape);
const char *op_name(const op_shape *shape); /* "all-reduce" */
/* The same as a JSON object: name, count, type, and where it has them reduction and (other) rank.
 */
void op_write(FILE *out, const op_shape *shape);
/* Whether its buffers lie in allocations of the communicator's device; else the text says what is
 * wrong. InvalidArgument. */
ncclResult_t op_check_buffers(const nccl_op *op, const struct ncclComm *comm);

/* Runs the operations to their end, or until their communicator fails: those of a communicator one
 * after the other, messages beside each other; waits for the other ranks. */
void op_run_all(const nccl_op *ops, size_t count);

#endif
