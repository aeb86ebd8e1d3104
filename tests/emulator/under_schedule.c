/* under_schedule.c: see under_schedule.h. */
#include "under_schedule.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "kernel.h"
#include "scheduled.h"

typedef struct run {
    const program *program;
    const uint32_t *in;
} run;

static unsigned char *run_here(const void *what, size_t *bytes)
{
    const run *r = what;
    const program *p = r->program;
    outcome *o = calloc(1, sizeof *o);
    cr_assert_not_null(o);
    size_t words = sizeof o->out;
    o->result = kernel_try(p->name, p->body, p->blocks, p->threads, r->in, words, words);
    snprintf(o->report, sizeof o->report, "%s", device_last_report());
    if (o->result == CUDA_SUCCESS)
        kernel_run(p->name, p->body, p->blocks, p->threads, r->in, words, o->out, words);
    *bytes = sizeof *o;
    return (unsigned char *)o;
}

outcome run_under(const program *p, const uint32_t in[WORDS], const char *schedule,
                  const char *threads)
{
    size_t bytes;
    unsigned char *left = scheduled_run(run_here, &(run){p, in}, schedule, threads, &bytes);
    cr_assert_eq(bytes, sizeof(outcome), "%s under %s", p->name, schedule);
    outcome o;
    memcpy(&o, left, sizeof o);
    free(left);
    return o;
}

bool has_words(const outcome *o, const uint32_t *wanted, size_t count)
{
    return o->result == CUDA_SUCCESS && memcmp(o->out, wanted, count * sizeof *wanted) == 0;
}
