/* scheduled.h: work under a schedule of the emulator. The driver reads its environment once, so the
 * work has a process of its own. */
#ifndef SCHEDULED_H
#define SCHEDULED_H

#include <stddef.h>

/* Bytes (malloc) and their number: what the work leaves. */
typedef unsigned char *scheduled_work(const void *what, size_t *bytes);

/* What work(what) left, with a NUL behind it (malloc). schedule and threads: values of
 * MMLP_EMULATOR_SCHEDULE and MMLP_EMULATOR_THREADS. The test fails when the process does, or takes
 * minutes. */
unsigned char *scheduled_run(scheduled_work *work, const void *what, const char *schedule,
                             const char *threads, size_t *bytes);

#endif
