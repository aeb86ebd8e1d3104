/*
 * interrupted.h: the system's calls on files, made to fail (interrupted_calls.c). Programs that use
 * it are linked with --wrap for each.
 */
#ifndef CHECKPOINT_INTERRUPTED_H
#define CHECKPOINT_INTERRUPTED_H

#include <stdbool.h>

/* So many calls from now on succeed; the next one, of this thread or another, fails with ENOSPC and
 * so do all that write, or the process is killed before it. */
void interrupt_after(int calls, bool kills);
/* Ends that; returns whether a call was made to fail. */
bool interrupt_never(void);
/* pread and pwrite move at most 7 bytes; every second of these and of the calls that wait for
 * asynchronous writes is interrupted by a signal. */
void interrupt_shorten(bool shortens);
typedef enum interrupted_direct { DIRECT_WHOLE, DIRECT_PART, DIRECT_FAILS } interrupted_direct;
/* Asynchronous writes write all; a page; a page, and then say that they failed with EIO. */
void interrupt_direct(interrupted_direct how);
/* How many were handed in since. */
int interrupt_direct_count(void);
/* The second pread finds the file cut to 64 bytes. */
void interrupt_truncate(const char *path);

#endif
