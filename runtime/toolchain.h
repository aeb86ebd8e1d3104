/*
 * toolchain.h: which NVRTC would compile, told without loading it: what a cached kernel depends on.
 */
#ifndef MMLP_TOOLCHAIN_H
#define MMLP_TOOLCHAIN_H

#include "base/error.h"

typedef struct toolchain {
    char *nvrtc_path; /* the file */
    char *identity;   /* one line: the build-ids of libnvrtc and of its builtins */
} toolchain;

/*
 * wanted NULL: libnvrtc.so.13 in $CUDA_HOME/lib64 and /lib, in the loader's folders
 * (LD_LIBRARY_PATH and the system's), in /usr/local/cuda/lib64, and in the toolkit the build knew.
 * A name without '/' is looked for in the same folders. ERROR_DRIVER: no such file.
 */
mmlp_status toolchain_find(toolchain *out, const char *wanted);
void toolchain_free(toolchain *tools);

/* The build-id of an ELF file in hexadecimal, or the XXH3-128 of a file that has none (malloc). */
mmlp_status build_id_read(char **out, const char *path);

#endif
