/* under_schedule.c: see under_schedule.h. */
#include "under_schedule.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device.h"
#include "kernel.h"

static void run_here(outcome *o, const program *p, const uint32_t in[WORDS])
{
    size_t bytes = sizeof o->out;
    o->result = kernel_try(p->name, p->body, p->blocks, p->threads, in, bytes, bytes);
    snprintf(o->report, sizeof o->report, "%s", device_last_report());
    if (o->result == CUDA_SUCCESS)
        kernel_run(p->name, p->body, p->blocks, p->threads, in, bytes, o->out, bytes);
}

outcome run_under(const program *p, const uint32_t in[WORDS], const char *schedule,
                  const char *threads)
{
    outcome *shared =
        mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(shared, MAP_FAILED);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        setenv("MMLP_EMULATOR_SCHEDULE", schedule, 1);
        setenv("MMLP_EMULATOR_THREADS", threads, 1);
        run_here(shared, p, in);
        _exit(0);
    }
    int status;
    cr_assert(waitpid(child, &status, 0) == child && status == 0, "%s under %s ended with %d",
              p->name, schedule, status);
    outcome o = *shared;
    munmap(shared, sizeof *shared);
    return o;
}

bool has_words(const outcome *o, const uint32_t *wanted, size_t count)
{
    return o->result == CUDA_SUCCESS && memcmp(o->out, wanted, count * sizeof *wanted) == 0;
}
