/* cubin.h: what the machine code of a kernel has of the instructions that are looked for. */
#ifndef MMLP_GENERATOR_CUBIN_H
#define MMLP_GENERATOR_CUBIN_H

#include <stddef.h>

#include "base/error.h"

typedef struct cubin_counts {
    long instructions; /* with the padding behind the last one */
    long wgmma;        /* HGMMA, IGMMA, BGMMA, QGMMA */
    long setmaxnreg;   /* USETMAXREG */
} cubin_counts;

/* Reads the code of `entry`. ERROR_COMPILE: the image is no whole cubin, or has no such kernel. */
mmlp_status cubin_count(cubin_counts *out, const void *image, size_t bytes, const char *entry);

#endif
