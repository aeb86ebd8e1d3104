/*
 * nccl_reduce.h: the arithmetic of collectives: rank 0's element first, then those of rank 1, 2, …
 * in this order, so the same inputs give the same bits on every rank and in every run. 16- and
 * 8-bit floats are reduced in fp32 and rounded once, to nearest even, at the end (8-bit ones
 * saturate); fp32 and fp64 in themselves; integers in 64 bits, and what does not fit is cut off.
 * avg divides the sum by the number of ranks, integers toward zero. min and max pass over a NaN
 * that meets a number.
 */
#ifndef NCCL_REDUCE_H
#define NCCL_REDUCE_H

#include <stddef.h>

#include <nccl.h>

/* out[i] = the reduction of inputs[0][i] … inputs[ranks - 1][i], for count elements. */
void reduce_elements(void *out, const void *const *inputs, int ranks, size_t count,
                     ncclDataType_t type, ncclRedOp_t op);
size_t type_bytes(ncclDataType_t type);
const char *type_name(ncclDataType_t type);

#endif
