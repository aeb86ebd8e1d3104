/* gate.c: see gate.h. */
#include "gate.h"

#include <pthread.h>

#include "driver/cu_emulator.h"
#include "fixture.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t opened = PTHREAD_COND_INITIALIZER;
static int gates_open, passed;

static void stand_at_gate(void *arguments)
{
    int gate = *(const int *)arguments;
    pthread_mutex_lock(&lock);
    while (gates_open <= gate)
        pthread_cond_wait(&opened, &lock);
    passed++;
    pthread_mutex_unlock(&lock);
}

static const char *describe_gate(FILE *args, const void *arguments)
{
    fprintf(args, ",\"gate\":%d", *(const int *)arguments);
    return "gate";
}

void enqueue_gate(CUstream stream, int gate)
{
    EXPECT_OK(cuEmulatorLaunchWaiting(stream, stand_at_gate, describe_gate, &gate, sizeof gate));
}

void open_gates(int count)
{
    pthread_mutex_lock(&lock);
    gates_open = count;
    pthread_cond_broadcast(&opened);
    pthread_mutex_unlock(&lock);
}

int count_passed(void)
{
    pthread_mutex_lock(&lock);
    int count = passed;
    pthread_mutex_unlock(&lock);
    return count;
}
