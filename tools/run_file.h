/* run_file.h: the inputs of a step from a safetensors file. */
#ifndef MMLP_TOOLS_RUN_FILE_H
#define MMLP_TOOLS_RUN_FILE_H

#include "run_step.h"
#include "safetensors.h"

enum { RUN_MAX_MICROBATCHES = 1024 };

/*
 * Reads the inputs and parameters that the step uses (context, properties and train are set), and
 * main_grad_init of its weights, to the device. A file with names that begin with "mbN." has
 * microbatches 0 to N, one without is one microbatch. Returns 0, or the exit code after printing
 * why.
 */
int run_file_read(run_step *s, const safetensors *file, const char *path);

#endif
