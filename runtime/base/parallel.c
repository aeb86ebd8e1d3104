/* parallel.c: a loop over the host's cores: threads take ranges from a shared counter. */
#include "base/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

enum { MAX_THREADS = 256, RANGES_PER_THREAD = 8 };

typedef struct loop {
    int64_t count, step;
    atomic_llong next;
    atomic_int workers;
    parallel_body *body;
    void *user;
} loop;

static void *take_ranges(void *argument)
{
    loop *l = argument;
    int worker = atomic_fetch_add(&l->workers, 1);
    for (int64_t first; (first = atomic_fetch_add(&l->next, l->step)) < l->count;)
        l->body(l->user, worker, first, first + l->step < l->count ? first + l->step : l->count);
    return NULL;
}

int parallel_workers(void)
{
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return cores < MAX_THREADS ? cores : MAX_THREADS;
}

void parallel_for(int64_t count, int64_t grain, parallel_body *body, void *user)
{
    int others = parallel_workers() - 1;
    int64_t step = count / ((int64_t)(others + 1) * RANGES_PER_THREAD) / grain * grain;
    loop l = {count, step > grain ? step : grain, 0, 0, body, user};
    pthread_t threads[MAX_THREADS];
    int started = 0;
    while (started < others && (int64_t)(started + 1) * l.step < count &&
           pthread_create(&threads[started], NULL, take_ranges, &l) == 0)
        started++;
    take_ranges(&l);
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}
