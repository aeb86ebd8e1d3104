/*
 * trace.h: MMLP_EMULATOR_TRACE=FILE: what streams were given and what they ran, as a Chrome trace
 * (an array of JSON objects), for the queue (cu_queue.c), which knows both. docs/emulator.md says
 * what the file holds. Any thread may call; without the variable every call returns at once.
 */
#ifndef TRACE_H
#define TRACE_H

#include <stdio.h>

#include <cuda.h>

/* An operation from its enqueueing to its end; NULL: it is not traced. */
typedef struct trace_op trace_op;

/* Writes what is particular to a piece of work into the `args` of its events: each member with a
 * comma before it. Returns the work's name, which lives as long as the arguments. */
typedef const char *trace_describe(FILE *args, const void *arguments);

/* Begins the file, in which "%p" is the process's number. When it cannot be written, or another
 * process writes it, one line on stderr says so, and nothing is traced. NULL: the same, silently.
 */
void trace_open(const char *file);

/* Names the track (`tid`) of a stream. */
void trace_name_track(unsigned long long track, CUdevice device, const char *stream);

/* The host has enqueued an operation; those of a process are numbered in this order. */
trace_op *trace_enqueue(unsigned long long track, CUdevice device, const char *category,
                        trace_describe *describe, const void *arguments);
/* 1, 2, … in the process; 0 for NULL. */
unsigned long long trace_number(const trace_op *op);
/* It begins to run, in any thread; it has ended; it never runs. The last two free it. */
void trace_begin(trace_op *op);
void trace_end(trace_op *op);
void trace_drop(trace_op *op);

#endif
