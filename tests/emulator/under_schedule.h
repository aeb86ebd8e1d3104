/*
 * under_schedule.h: runs a few lines of PTX under a schedule. The driver reads its environment
 * once, so every run has a process of its own.
 */
#ifndef MMLP_TESTS_UNDER_SCHEDULE_H
#define MMLP_TESTS_UNDER_SCHEDULE_H

#include <cuda.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WORDS = 512 };

/* What kernel.h wraps the body with; `in` and `out` are WORDS words. */
typedef struct program {
    const char *name, *body;
    unsigned blocks, threads;
} program;

typedef struct outcome {
    CUresult result;
    uint32_t out[WORDS]; /* of a run without a fault */
    char report[4096];
} outcome;

/* schedule and threads: values of MMLP_EMULATOR_SCHEDULE and MMLP_EMULATOR_THREADS. */
outcome run_under(const program *p, const uint32_t in[WORDS], const char *schedule,
                  const char *threads);
/* No fault, and `out` begins with these. */
bool has_words(const outcome *o, const uint32_t *wanted, size_t count);

/* The words of a thread: %r2 in shared memory, %rd0 in `out`, %rd1 in `in`; %r0 is the start of
 * shared memory, %r1 the offset of the word, %r5 seven times the thread. */
#define WORDS_OF_THREAD                                                                            \
    "mov.u32 %r0, shared; shl.b32 %r1, %thread, 2; add.u32 %r2, %r0, %r1; cvt.u64.u32 %rd2, "      \
    "%r1;\n add.u64 %rd0, %out, %rd2; add.u64 %rd1, %in, %rd2; mul.lo.u32 %r5, %thread, 7;\n"

#endif
