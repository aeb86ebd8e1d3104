/*
 * context.h: what a context is, to the files of the runtime. A context may be used from any number
 * of threads: after mmlp_context_create it changes only under `lock`.
 */
#ifndef MMLP_CONTEXT_H
#define MMLP_CONTEXT_H

#include <pthread.h>

#include "base/error.h"
#include "base/nvrtc.h"
#include "cache.h"
#include "driver.h"
#include "nccl_library.h"
#include "toolchain.h"

struct mmlp_context {
    driver cuda;
    CUdevice device;
    CUcontext primary;      /* retained; NULL until it is */
    int compute_capability; /* 80 is 8.0 */
    char arch[16];          /* "sm_80" */
    int sm_count;
    int shared_per_block_optin;
    int max_threads_per_block;
    cache_roots cache;
    char *nvrtc_wanted, *nccl_wanted; /* the options, or NULL */
    int compile_threads;
    void (*log)(void *user, const char *line);
    void *log_user;
    bool verbose;

    pthread_mutex_t lock; /* of what follows */
    bool toolchain_known; /* toolchain_find was tried */
    toolchain tools;
    nvrtc *compiler; /* NULL until the first compilation */
    bool cache_warned;
    nccl_library nccl;  /* path NULL until the first communicator */
    struct comm *comms; /* see comm.h */
};

/* Makes the context current on this thread; context_leave puts back what was current. */
mmlp_status context_enter(const mmlp_context *context);
void context_leave(const mmlp_context *context);

/* A notice: goes to the log callback always. */
void context_notice(const mmlp_context *context, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A decision: goes to the log callback when the context is verbose. */
void context_verbose(const mmlp_context *context, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The first `wanted` bytes of a caller's versioned struct may be written: copies the smaller of
 * struct_size and `size` from `filled`, keeping struct_size. ERROR_ARGUMENT names `what`. */
mmlp_status struct_fill(void *callers, const void *filled, size_t size, const char *what);
/* The other way: `own` (size bytes, already with defaults) takes what the caller's struct has. */
mmlp_status struct_read(void *own, const void *callers, size_t size, const char *what);

#endif
