/*
 * wgmma_kernel.h: kernels of one or more warpgroups that multiply with wgmma: shared memory is
 * filled from what the host has prepared, D and A are read from it and written to the output.
 */
#ifndef MMLP_TESTS_WGMMA_KERNEL_H
#define MMLP_TESTS_WGMMA_KERNEL_H

#include <cuda.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WGMMA_THREADS = 128, WGMMA_SHARED = 49152, WGMMA_B = 16384, WGMMA_FRAGMENT = 128 };

/* What a kernel starts with and leaves. */
typedef struct wgmma_memory {
    uint8_t shared[WGMMA_SHARED];
    uint32_t d[WGMMA_THREADS][WGMMA_FRAGMENT], a[WGMMA_THREADS][4];
} wgmma_memory;

/*
 * The body may use %d0 and on (`registers` of them, .f32 where `floats`, else .b32; from
 * memory->d), %a0-%a3 (memory->a), %tile (.u64: `shared` >> 4, as a descriptor wants it), %da and
 * %db (.b64), %rd<8>, %r<8>, %f<8>, %p<4>, %thread, %warp. Shared memory is memory->shared, fenced
 * for the async proxy. What the body leaves in %d goes to memory->d. Warpgroups beyond the first
 * start with the same and write nothing.
 */
typedef struct wgmma_kernel {
    const char *name, *body;
    int registers;
    bool floats;
    unsigned threads; /* 0: WGMMA_THREADS */
} wgmma_kernel;

CUresult wgmma_try(const wgmma_kernel *kernel, wgmma_memory *memory);
void wgmma_run(const wgmma_kernel *kernel, wgmma_memory *memory); /* fails the test on a fault */

/* The list {%d0, %d1, ...}, after what `text` has. */
void wgmma_append_list(char *text, const char *prefix, int count);

#endif
