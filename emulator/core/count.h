/*
 * count.h: counting while a launch runs. A warp counts how often each instruction of the kernel ran
 * (warp.c), accesses to memory count themselves on the slow way that they take then (exec_count.c),
 * and at the end instructions are summed by class.
 */
#ifndef EMU_COUNT_H
#define EMU_COUNT_H

#include "counters.h"
#include "ir.h"

/* How often an instruction was issued, and lanes that did not take part. */
typedef struct instr_count {
    uint64_t warps, idle_lanes;
} instr_count;

/* Of one block, or of several. */
typedef struct block_counts {
    instr_count *instrs; /* of the kernel's code */
    size_t capacity;
    uint64_t global_requests, global_sectors;
    uint64_t shared_wavefronts, shared_excess;
    uint64_t barriers;
    uint64_t epilogue_lanes;
} block_counts;

void count_begin(block_counts *counts, const ir_kernel *kernel); /* all zero */
void count_add(block_counts *sum, const block_counts *part, const ir_kernel *kernel);
/* Fills in what the blocks have counted. */
void count_sum(emu_counters *out, const block_counts *counts, const ir_kernel *kernel);
void count_free(block_counts *counts);

#endif
