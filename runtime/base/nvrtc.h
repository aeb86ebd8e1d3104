/*
 * nvrtc.h: the CUDA run-time compiler, opened with dlopen. The one place that knows where the
 * library is looked for, which version is needed, and with which options kernels are compiled.
 */
#ifndef MMLP_BASE_NVRTC_H
#define MMLP_BASE_NVRTC_H

#include <stddef.h>

#include "base/error.h"

typedef struct nvrtc nvrtc;

/*
 * path NULL: libnvrtc.so.13 in $CUDA_HOME/lib64 and /lib, on the loader's path, in
 * /usr/local/cuda/lib64, and in the toolkit the build knew. ERROR_DRIVER: none found, or one older
 * than 13.0; the line names what was tried. May be used by several threads at once.
 */
mmlp_status nvrtc_open(nvrtc **out, const char *path);
void nvrtc_close(nvrtc *compiler); /* NULL allowed */

int nvrtc_version(const nvrtc *compiler);      /* 13000 is 13.0 */
const char *nvrtc_path(const nvrtc *compiler); /* what dlopen was given */

/* The options of the project's own kernels, without the target: part of what a cached image depends
 * on. */
const char *nvrtc_options_line(void);

/* Where a line of the source came from: *file NULL when unknown. Borrowed strings. */
typedef void (*nvrtc_line_map)(const char **file, int *file_line, int line, const void *user);

typedef struct nvrtc_source {
    const char *name;        /* of the source, in messages: "linear_fc1_forward.cu" */
    const char *text;        /* CUDA C++ */
    const char *target;      /* "sm_80", "sm_90a"; of "compute_80" comes no cubin */
    nvrtc_line_map line_map; /* NULL: lines of the source are reported as they are */
    const void *user;        /* for line_map */
    /* NULL-terminated, for a program that includes headers of the toolkit; NULL: those of
     * nvrtc_options_line, and no headers. */
    const char *const *options;
} nvrtc_source;

typedef struct nvrtc_image {
    char *ptx; /* NUL-terminated */
    size_t ptx_bytes;
    char *cubin;
    size_t cubin_bytes;
    char *log; /* of the compiler and of ptxas -v; "" when there was none */
} nvrtc_image;

/*
 * Compiles to PTX and cubin. ERROR_COMPILE: the last error is the first error of the log with its
 * lines mapped, and `out->log` holds the whole log (free with nvrtc_image_free, also on failure).
 */
mmlp_status nvrtc_compile(nvrtc_image *out, const nvrtc *compiler, const nvrtc_source *source);
void nvrtc_image_free(nvrtc_image *image);

#endif
