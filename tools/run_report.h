/* run_report.h: what a step has done, for people and for other programs. */
#ifndef MMLP_TOOLS_RUN_REPORT_H
#define MMLP_TOOLS_RUN_REPORT_H

#include "run_step.h"

/* A line per kernel of the passes that were run: how it was launched, how long all of its launches
 * took, and the largest error of what it computes; errors NULL: not compared. */
void run_report_kernels(const run_step *s, const double *errors);

/* Every result to a safetensors file; of several ranks each to its own, NAME.rank1.safetensors.
 * Returns 0, or the exit code after printing why. */
int run_report_write(run_step *s, const char *path);

#endif
