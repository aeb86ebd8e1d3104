/*
 * emit_compile.h: emitted kernels to images, all at once.
 */
#ifndef MMLP_EMIT_COMPILE_H
#define MMLP_EMIT_COMPILE_H

#include "base/nvrtc.h"
#include "emit.h"

/*
 * Compiles every kernel for every architecture, on all cores. *out has kernels->count * arch_count
 * images, those of one kernel together; free it with emit_images_free. ERROR_DRIVER: no NVRTC;
 * ERROR_COMPILE: the first kernel that failed, with the template's file:line.
 */
mmlp_status emit_compile(nvrtc_image **out, const emit_kernels *kernels, const char *const *archs,
                         int arch_count);
void emit_images_free(nvrtc_image *images, int count); /* NULL allowed */

#endif
