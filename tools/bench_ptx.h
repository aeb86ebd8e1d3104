/* bench_ptx.h: the PTX of tools/bench/, part of the program (bench_ptx.c, made by the build). */
#ifndef MMLP_TOOLS_BENCH_PTX_H
#define MMLP_TOOLS_BENCH_PTX_H

#include <stddef.h>

typedef struct bench_text {
    const char *name; /* "bench/gemm_bf16.ptx" */
    const char *text;
    size_t bytes;
} bench_text;

/* Sorted by name, ended by a NULL name. */
extern const bench_text bench_texts[];

#endif
