/* progress.c: a thread that waits two seconds and then says what the program is doing. */
#include "progress.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

enum { PATIENCE_SECONDS = 2 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    pthread_t thread;
    int started, done;
    char what[96];
} activity = {.lock = PTHREAD_MUTEX_INITIALIZER, .ended = PTHREAD_COND_INITIALIZER};

static void *speak_when_it_takes_long(void *unused)
{
    (void)unused;
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += PATIENCE_SECONDS;
    pthread_mutex_lock(&activity.lock);
    int waited = 0;
    while (!activity.done && waited != ETIMEDOUT)
        waited = pthread_cond_timedwait(&activity.ended, &activity.lock, &limit);
    if (!activity.done)
        fprintf(stderr, "%s: %s ...\n", program_invocation_short_name, activity.what);
    pthread_mutex_unlock(&activity.lock);
    return NULL;
}

void progress_begin(const char *what)
{
    progress_end();
    snprintf(activity.what, sizeof activity.what, "%s", what);
    activity.done = 0;
    activity.started = pthread_create(&activity.thread, NULL, speak_when_it_takes_long, NULL) == 0;
}

void progress_end(void)
{
    if (!activity.started)
        return;
    pthread_mutex_lock(&activity.lock);
    activity.done = 1;
    pthread_cond_signal(&activity.ended);
    pthread_mutex_unlock(&activity.lock);
    pthread_join(activity.thread, NULL);
    activity.started = 0;
}
