/* check.h: megamlp-gen check: what the compiler made of every kernel. */
#ifndef MMLP_GENERATOR_CHECK_H
#define MMLP_GENERATOR_CHECK_H

#include <stdio.h>

#include "emit.h"

/*
 * Compiles every kernel for every target (arch_count 0: plan_architectures), prints one line each,
 * and counts those that spill, use the stack, got an advisory, or whose machine code has another
 * number of wgmma than the PTX, or lacks its setmaxnreg. ERROR_COMPILE, ERROR_DRIVER.
 */
mmlp_status check_kernels(int *failures, FILE *out, const emit_kernels *kernels,
                          const char *const *archs, int arch_count);

/* One kernel's numbers, read from the log of ptxas -v. -1: the log does not say. */
typedef struct check_report {
    long registers, shared_bytes, stack_bytes, spill_stores, spill_loads;
    char advisory[8]; /* "C7504", or "" */
} check_report;

void check_read_log(check_report *out, const char *log);

#endif
