/* nccl_group.c: see nccl_group.h. */
#include "nccl/nccl_group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct {
    int depth;
    ncclResult_t result; /* of the first call that failed */
    group_call *calls;
    size_t call_count, call_capacity;
    group_job *jobs;
    size_t job_count, job_capacity;
} group;

/* ---- adding --------------------------------------------------------------------------------- */

static bool grow(void **items, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return true;
    size_t wanted = 2 * count + 4;
    void *grown = realloc(*items, wanted * size);
    if (!grown)
        return false;
    *items = grown;
    *capacity = wanted;
    return true;
}

ncclResult_t group_add_call(const group_call *call)
{
    void *items = group.calls;
    if (!grow(&items, group.call_count, &group.call_capacity, sizeof *call))
        return error_set(ncclSystemError, "out of memory");
    group.calls = items;
    group.calls[group.call_count++] = *call;
    return ncclSuccess;
}

ncclResult_t group_add_job(const group_job *job)
{
    void *items = group.jobs;
    if (!grow(&items, group.job_count, &group.job_capacity, sizeof *job))
        return error_set(ncclSystemError, "out of memory");
    group.jobs = items;
    group.jobs[group.job_count] = *job;
    CUresult result = cuCtxGetCurrent(&group.jobs[group.job_count].context);
    if (result != CUDA_SUCCESS || !group.jobs[group.job_count].context)
        return error_set(ncclUnhandledCudaError, "no CUDA context is current");
    group.job_count++;
    return ncclSuccess;
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

static ncclResult_t run_group(group_job *jobs, size_t job_count, const group_call *calls,
                              size_t call_count)
{
    if (job_count && call_count)
        return error_set(ncclInvalidUsage, "a group makes communicators or uses them, not both");
    if (job_count)
        return run_jobs(jobs, job_count);
    return call_count ? launch_calls(calls, call_count) : ncclSuccess;
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
    group_job *jobs = group.jobs;
    group_call *calls = group.calls;
    size_t job_count = group.job_count, call_count = group.call_count;
    result = group.result;
    memset(&group, 0, sizeof group);
    if (result == ncclSuccess)
        result = run_group(jobs, job_count, calls, call_count);
    free(jobs);
    free(calls);
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
