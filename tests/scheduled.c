/* scheduled.c: see scheduled.h. */
#include "scheduled.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_BYTES = 1 << 23, MOST_SECONDS = 120 };

unsigned char *scheduled_run(scheduled_work *work, const void *what, const char *schedule,
                             const char *threads, size_t *bytes)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        alarm(MOST_SECONDS);
        setenv("MMLP_EMULATOR_SCHEDULE", schedule, 1);
        setenv("MMLP_EMULATOR_THREADS", threads, 1);
        unsigned char *left = work(what, bytes);
        FILE *file = fdopen(ends[1], "w");
        bool written = file && fwrite(left, 1, *bytes, file) == *bytes && fclose(file) == 0;
        free(left);
        _exit(written ? 0 : 1);
    }
    close(ends[1]);
    FILE *file = fdopen(ends[0], "r");
    unsigned char *left = malloc(MOST_BYTES + 1);
    cr_assert(file && left);
    *bytes = fread(left, 1, MOST_BYTES, file);
    cr_assert(feof(file));
    left[*bytes] = '\0';
    fclose(file);
    int status;
    cr_assert(waitpid(child, &status, 0) == child && status == 0, "schedule %s ended with %d",
              schedule, status);
    return left;
}
