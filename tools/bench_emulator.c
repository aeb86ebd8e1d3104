/*
 * bench_emulator.c: matrix products of fixed PTX (tools/bench/) on the emulator. It uses the CUDA
 * Driver API as any program would, so that it measures the emulator alone.
 */
#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "bench_ptx.h"
#include "tool.h"

/* The driver functions used here. */
#define DRIVER_FUNCTIONS(X)                                                                        \
    X(cuInit, "cuInit", (unsigned))                                                                \
    X(cuCtxSynchronize, "cuCtxSynchronize", (void))                                                \
    X(cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (CUcontext *, CUdevice))               \
    X(cuDevicePrimaryCtxRelease, "cuDevicePrimaryCtxRelease_v2", (CUdevice))                       \
    X(cuCtxSetCurrent, "cuCtxSetCurrent", (CUcontext))                                             \
    X(cuModuleLoadData, "cuModuleLoadData", (CUmodule *, const void *))                            \
    X(cuModuleUnload, "cuModuleUnload", (CUmodule))                                                \
    X(cuModuleGetFunction, "cuModuleGetFunction", (CUfunction *, CUmodule, const char *))          \
    X(cuFuncSetAttribute, "cuFuncSetAttribute", (CUfunction, CUfunction_attribute, int))           \
    X(cuMemAlloc, "cuMemAlloc_v2", (CUdeviceptr *, size_t))                                        \
    X(cuMemFree, "cuMemFree_v2", (CUdeviceptr))                                                    \
    X(cuMemsetD32, "cuMemsetD32_v2", (CUdeviceptr, unsigned, size_t))                              \
    X(cuLaunchKernel, "cuLaunchKernel",                                                            \
      (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, \
       void **, void **))

typedef struct driver {
    void *library;
#define DRIVER_MEMBER(member, symbol, parameters) CUresult(*member) parameters;
    DRIVER_FUNCTIONS(DRIVER_MEMBER)
#undef DRIVER_MEMBER
} driver;

#undef cuDevicePrimaryCtxRelease
#undef cuMemAlloc
#undef cuMemFree
#undef cuMemsetD32

/* One product C = A * transpose(B), n x n x n. */
typedef struct product {
    const char *name, *ptx, *entry;
    unsigned n, tile_m, tile_n, threads, shared_bytes;
    size_t element_bytes; /* of A and B; C is as wide or narrower */
    unsigned one;         /* two bf16 or one fp32 of value 1 */
} product;
