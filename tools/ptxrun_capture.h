/* ptxrun_capture.h: catches what is written to stdout and stderr, by whomever in this process. */
#ifndef MMLP_TOOLS_PTXRUN_CAPTURE_H
#define MMLP_TOOLS_PTXRUN_CAPTURE_H

#include <stdio.h>

typedef struct capture {
    FILE *stream;
    int number, saved; /* file descriptors */
    FILE *file;        /* where it goes meanwhile; NULL: nowhere, for there could be no such file */
} capture;

/* What is written before capture_begin stays where it was meant to go. */
void capture_begin(capture *c, FILE *stream);
/* The text written since (malloc; "" where nothing could be kept). */
char *capture_end(capture *c);

#endif
