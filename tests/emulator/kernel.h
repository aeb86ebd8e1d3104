/*
 * kernel.h: runs a few lines of PTX as one kernel, for instructions that work on more than one
 * thread.
 */
#ifndef MMLP_TESTS_KERNEL_H
#define MMLP_TESTS_KERNEL_H

#include <cuda.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The body may use: %in, %out (.u64 global addresses), %tid (.u32), registers %r0-%r63 (.b32),
 * %rd0-%rd31
 * (.b64), %f0-%f31 (.f32), %h0-%h15 (.b16), %p0-%p15 (.pred), and 16 KB of shared memory called
 * `shared`. `in` is uploaded, `out` starts as zeros.
 */
void kernel_run(const char *name, const char *body, unsigned blocks, unsigned threads,
                const void *in, size_t in_bytes, void *out, size_t out_bytes);

/* The same, but the launch is expected to fail: returns what the synchronising call said. The
 * emulator's report is then what cuEmulatorLastReport gives. */
CUresult kernel_try(const char *name, const char *body, unsigned blocks, unsigned threads,
                    const void *in, size_t in_bytes, size_t out_bytes);

/* From now on blocks run in clusters of so many; 0, as it begins: no clusters. */
void kernel_clusters(unsigned blocks);

/* From now on launches are programmatic dependent ones: they may begin early. */
void kernel_dependent(void);

/* A body that one block, or one cluster, cannot run, and parts of the report. */
typedef struct kernel_mistake {
    const char *name, *body;
    unsigned threads;
    const char *said[2];
} kernel_mistake;

/* The test fails for each that ends without a fault, or with another report. `out` has 1 KB. */
void kernel_mistakes(const kernel_mistake *mistakes, size_t count, const void *in, size_t in_bytes);

#endif
