/* bench_counters.h: what megamlp-bench counters has found out about a kernel, and its printing. */
#ifndef MMLP_TOOLS_BENCH_COUNTERS_H
#define MMLP_TOOLS_BENCH_COUNTERS_H

#include <core/counters.h>
#include <megamlp/megamlp.h>

#include "bench.h"

/* One kernel of the step. */
typedef struct counted_kernel {
    mmlp_kernel_properties plan;
    long spill_store_bytes, spill_load_bytes; /* a thread, as ptxas says */
    int launches;
    emu_counters counters; /* of the last launch */
} counted_kernel;

typedef struct counted_step {
    mmlp_device_properties device;
    int64_t tokens;
    int forward;
    counted_kernel *kernels;
    int count;
} counted_step;

/* What the plan says of the kernel. */
double counted_plan_flops(const counted_step *step, const counted_kernel *kernel);
double counted_plan_bytes(const counted_step *step, const counted_kernel *kernel);

void counted_print_tables(const counted_step *step);
/* 0, or the exit code after printing why. */
int counted_print_json(const counted_step *step);

#endif
