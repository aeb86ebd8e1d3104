/* nccl_group.c: see nccl_group.h. */
#include "nccl/nccl_group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct list {
    void *items;
    size_t count, capacity;
} list;

static _Thread_local struct {
    int depth;
    ncclResult_t result; /* of the first call that failed */
    list calls, jobs;    /* of group_call, of group_job */
} group;

/* ---- adding --------------------------------------------------------------------------------- */

/* A copy of the item, of `size` bytes as all of the list are. */
static ncclResult_t list_add(list *to, const void *item, size_t size)
{
    if (to->count == to->capacity) {
        size_t wanted = 2 * to->count + 4;
        void *grown = realloc(to->items, wanted * size);
        if (!grown)
            return error_set(ncclSystemError, "out of memory");
        to->items = grown;
        to->capacity = wanted;
    }
    memcpy((char *)to->items + to->count++ * size, item, size);
    return ncclSuccess;
}

ncclResult_t group_add_call(const group_call *call)
{
    return list_add(&group.calls, call, sizeof *call);
}

ncclResult_t group_add_job(const group_job *job)
{
    group_job added = *job;
    CUresult result = cuCtxGetCurrent(&added.context);
    if (result != CUDA_SUCCESS || !added.context)
        return error_set(ncclUnhandledCudaError, "no CUDA context is current");
    return list_add(&group.jobs, &added, sizeof added);
}

/* ---- running -------------------------------------------------------------------------------- */

static void *run_job(void *argument)
{
    group_job *job = argument;
    job->result = error_of_cuda(cuCtxSetCurrent(job->context), "cuCtxSetCurrent");
    if (job->result == ncclSuccess)
        job->result = job->run(job);
    snprintf(job->text, sizeof job->text, "%s", error_text());
    return NULL;
}

/* All but the first in threads of their own, for they wait for each other. */
static ncclResult_t run_jobs(group_job *jobs, size_t count)
{
    pthread_t *threads = calloc(count, sizeof *threads);
    if (!threads)
        return error_set(ncclSystemError, "out of memory");
    size_t begun = 1;
    while (begun < count && pthread_create(&threads[begun], NULL, run_job, &jobs[begun]) == 0)
        begun++;
    for (size_t i = begun; i < count; i++)
        jobs[i].result = error_set(ncclSystemError, "no thread could be made");
    run_job(&jobs[0]);
    for (size_t i = 1; i < begun; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    for (size_t i = 0; i < count; i++) {
        if (jobs[i].result != ncclSuccess)
            return error_set(jobs[i].result, "%s", jobs[i].text);
    }
    return ncclSuccess;
}

static ncclResult_t run_group(const list *jobs, const list *calls)
{
    if (jobs->count && calls->count)
        return error_set(ncclInvalidUsage, "a group makes communicators or uses them, not both");
    if (jobs->count)
        return run_jobs(jobs->items, jobs->count);
    return calls->count ? launch_calls(calls->items, calls->count) : ncclSuccess;
}

void group_begin(void)
{
    group.depth++;
}

ncclResult_t group_end(ncclResult_t result)
{
    if (group.result == ncclSuccess)
        group.result = result;
    if (--group.depth > 0)
        return result;
    list jobs = group.jobs, calls = group.calls;
    result = group.result;
    memset(&group, 0, sizeof group);
    if (result == ncclSuccess)
        result = run_group(&jobs, &calls);
    free(jobs.items);
    free(calls.items);
    return result;
}

ncclResult_t ncclGroupStart(void)
{
    group_begin();
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void)
{
    if (group.depth == 0)
        return error_set(ncclInvalidUsage, "ncclGroupEnd without ncclGroupStart");
    return group_end(ncclSuccess);
}
