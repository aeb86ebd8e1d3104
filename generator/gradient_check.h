/*
 * gradient_check.h: is the derived gradient of an activation the slope of what it computes? Asked
 * in fp64, with finite differences over a sweep.
 */
#ifndef MMLP_GENERATOR_GRADIENT_CHECK_H
#define MMLP_GENERATOR_GRADIENT_CHECK_H

#include "spec.h"

typedef struct gradient_report {
    double worst;          /* |gradient - slope| / max(1, |slope|) */
    double x, up;          /* where; up only of a function of both halves */
    long points, left_out; /* compared, and not: a kink lies beside, or a value is not finite */
} gradient_report;

/* Of a slope that is computed this way, what a right gradient stays below. */
extern const double gradient_error_limit;

/* Sweeps the spec's activation over [-20, 20], and where it takes both halves over both.
 * ERROR_MEMORY.
 */
mmlp_status gradient_check(gradient_report *out, const module_spec *spec);

#endif
