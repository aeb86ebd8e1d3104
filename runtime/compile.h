/*
 * compile.h: gets images for kernels that the bundle has none for: from the cache, else from NVRTC,
 * several kernels at a time.
 */
#ifndef MMLP_COMPILE_H
#define MMLP_COMPILE_H

#include "bundle.h"
#include "context.h"

typedef struct compile_job {
    const bundle_kernel *kernel; /* in */
    cache_entry image;           /* out: free with cache_entry_free */
    const char *origin;          /* out: "cache" or "compiled" */
    double compile_ms;           /* out: 0 from the cache */
    mmlp_status status;          /* of this job; its line is in `error` */
    char *error;
} compile_job;

/* Runs all jobs for the context's architecture; the first failure is the result. The images of the
 * jobs that succeeded are the caller's either way. */
mmlp_status compile_kernels(compile_job *jobs, int count, mmlp_context *context);

#endif
