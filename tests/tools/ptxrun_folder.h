/* ptxrun_folder.h: a folder with a manifest and its files, and ptxrun run on it. */
#ifndef MMLP_TESTS_PTXRUN_FOLDER_H
#define MMLP_TESTS_PTXRUN_FOLDER_H

#include <stddef.h>

#include "program.h"

/* kernel.ptx in every folder: entries whose parameters are those of the tests. */
char *ptxrun_folder_make(void);
void ptxrun_folder_write(const char *folder, const char *name, const char *bytes, size_t count);
/* Writes manifest.json and runs ptxrun on it, with the driver that $MMLP_DRIVER names. */
program_result ptxrun_folder_run(const char *folder, const char *manifest);

#endif
