/* bench.h: what the subcommands of megamlp-bench share. */
#ifndef MMLP_TOOLS_BENCH_H
#define MMLP_TOOLS_BENCH_H

#include <stdint.h>

enum { BENCH_RUNS = 5 };

/* Sorts BENCH_RUNS numbers in place and returns the middle one. */
double bench_median(double runs[BENCH_RUNS]);

/* The emulator (a handle of dlopen) beside this program's folder: ../emulator in a build,
 * ../lib*(/ARCH)/megamlp when installed; NULL: dlerror() says why. */
void *bench_open_emulator(void);

typedef struct bench_counters_options {
    const char *spec, *arch; /* arch NULL: that of the emulated device */
    const char *tile;        /* of megamlp-gen, or NULL */
    int64_t tokens;
    int forward; /* the forward pass of inference alone, in place of a training step */
    int json;
} bench_counters_options;

/* Each prints a table and returns an exit code. */
int bench_jit(const char *spec, const char *arch, const char *tile);
int bench_emulator(void);
int bench_checkpoint(void);
int bench_counters(const bench_counters_options *o);

#endif
