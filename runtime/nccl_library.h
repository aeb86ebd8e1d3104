/*
 * nccl_library.h: libnccl behind one table of function pointers (nccl_library.def), opened with
 * dlopen.
 */
#ifndef MMLP_NCCL_LIBRARY_H
#define MMLP_NCCL_LIBRARY_H

#include <nccl.h>

#include "base/error.h"
#include "driver.h"

typedef struct nccl_library {
    char *path;  /* what dlopen was given */
    int version; /* 22809 is 2.28.9 */
#define NCCL_FUNCTION(name) __typeof__(name) *name;
#include "nccl_library.def"
#undef NCCL_FUNCTION
} nccl_library;

/* 2.18: the oldest with NVIDIA's wheels for CUDA 12; its communicators can be captured in graphs
 * together with other work. */
enum { NCCL_VERSION_NEEDED = 21800 };

/*
 * wanted NULL: libnccl.so.2 of the loader, or with the emulator the one beside its libcuda; never
 * one library for the other's devices. It stays in memory. ERROR_DRIVER: not found, a function
 * missing, too old, or of the other kind.
 */
mmlp_status nccl_library_open(nccl_library *out, const driver *d, const char *wanted);
void nccl_library_close(nccl_library *library); /* of a zeroed one: nothing */

/* "ncclSystemError: NCCL's own line", or the text of the code where NCCL has no line: a failure
 * ERROR_COMM that begins with WHAT, a printf format. OK for ncclSuccess. */
mmlp_status nccl_check(const nccl_library *library, ncclComm_t comm, ncclResult_t result,
                       const char *what, ...) __attribute__((format(printf, 4, 5)));

#endif
