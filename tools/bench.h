/* bench.h: what the subcommands of megamlp-bench share. */
#ifndef MMLP_TOOLS_BENCH_H
#define MMLP_TOOLS_BENCH_H

enum { BENCH_RUNS = 5 };

/* Sorts BENCH_RUNS numbers in place and returns the middle one. */
double bench_median(double runs[BENCH_RUNS]);

/* Each prints a table and returns an exit code. */
int bench_jit(const char *spec, const char *arch);
int bench_emulator(void);

#endif
