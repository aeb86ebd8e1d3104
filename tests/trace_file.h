/* trace_file.h: the emulator's trace (MMLP_EMULATOR_TRACE) of a process, read back. What is looked
 * for and is not there fails the test. */
#ifndef TRACE_FILE_H
#define TRACE_FILE_H

#include <jansson.h>

/* The process is to write its trace into a new folder, to trace_folder/NAME, which is trace_path.
 */
void trace_begin(const char *name);
extern char *trace_folder, trace_path[512];
/* Frees the trace (NULL: none) and removes the folder. */
void trace_end(json_t *trace);

/* All events; json_decref them. What follows borrows. */
json_t *trace_read(const char *file);
/* Those with a number of this value ("tid", "device", "op"...); json_decref them too. */
json_t *trace_where(const json_t *trace, const char *key, double value);

/* How many events the trace has of a phase ("i": enqueued, "X": ran) and a name. */
size_t trace_count(const json_t *trace, const char *phase, const char *name);
/* The nth of them, from 0. */
const json_t *trace_event(const json_t *trace, const char *phase, const char *name, size_t nth);
/* The event of an operation's other phase. */
const json_t *trace_ran(const json_t *trace, const json_t *enqueued);

/* A number in an event or, if it is not there, in its args: "tid", "op", "waits_for"... */
double trace_number_in(const json_t *event, const char *key);
double trace_begun(const json_t *ran);
double trace_ended(const json_t *ran);

#endif
