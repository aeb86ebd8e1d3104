/*
 * compile.c: images of kernels, in parallel. Called at load only; the compiler is opened by the
 * first kernel that no cache has.
 */
#include "compile.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* How long a process waits for another one that compiles the same kernel. */
static const double lock_seconds = 60;

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

/* ---- what all jobs of a context share ------------------------------------------------------- */

/* Which NVRTC would compile; "" when none is found, and then there is nothing to look up by. */
static const char *toolchain_identity(mmlp_context *context)
{
    pthread_mutex_lock(&context->lock);
    if (!context->toolchain_known) {
        context->toolchain_known = true;
        if (toolchain_find(&context->tools, context->nvrtc_wanted) != MMLP_OK)
            context_verbose(context, "cache: not used: %s", mmlp_last_error());
    }
    const char *identity = context->tools.identity ? context->tools.identity : "";
    pthread_mutex_unlock(&context->lock);
    return identity;
}

static mmlp_status open_compiler(const nvrtc **out, mmlp_context *context)
{
    mmlp_status status = MMLP_OK;
    pthread_mutex_lock(&context->lock);
    if (!context->compiler) {
        const char *path =
            context->tools.nvrtc_path ? context->tools.nvrtc_path : context->nvrtc_wanted;
        double start = now_ms();
        status = nvrtc_open(&context->compiler, path);
        if (status == MMLP_OK)
            context_verbose(context, "nvrtc %s opened in %.0f ms", nvrtc_path(context->compiler),
                            now_ms() - start);
    }
    *out = context->compiler;
    pthread_mutex_unlock(&context->lock);
    return status;
}

static void warn_cache_once(mmlp_context *context)
{
    pthread_mutex_lock(&context->lock);
    bool first = !context->cache_warned;
    context->cache_warned = true;
    pthread_mutex_unlock(&context->lock);
    if (first)
        context_notice(context, "warning: kernels are not cached: %s", mmlp_last_error());
}

/* ---- one job -------------------------------------------------------------------------------- */

/* nvrtc_line_map: a line of the file belongs to the last row at or before it. */
static void map_line(const char **file, int *file_line, int line, const void *user)
{
    const bundle_kernel *kernel = user;
    *file = NULL;
    int low = 0, high = kernel->line_count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (kernel->lines[middle].first <= line)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return;
    const bundle_line *row = &kernel->lines[low - 1];
    *file = row->file;
    *file_line = (int)(row->file_line + (line - row->first));
}

/* What the kernel is compiled for here: the emulator takes PTX and no machine code, which takes
 * ptxas longer than all that comes before it. */
typedef struct target {
    char name[24];
} target;

static target target_of(const compile_job *job, const mmlp_context *context)
{
    const bundle_arch *family = &job->kernel->family;
    const char *arch = family->is_exact ? family->name : context->arch; /* "sm_80" */
    target t;
    snprintf(t.name, sizeof t.name, "%s%s", context->cuda.is_emulator ? "compute" : "sm",
             arch + strlen("sm"));
    return t;
}

static mmlp_status compile_one(compile_job *job, mmlp_context *context)
{
    const nvrtc *compiler;
    const target built = target_of(job, context);
    MMLP_TRY(open_compiler(&compiler, context));
    nvrtc_source source = {.name = job->kernel->source->name,
                           .text = job->kernel->source->bytes,
                           .target = built.name,
                           .line_map = map_line,
                           .user = job->kernel};
    nvrtc_image image;
    double start = now_ms();
    mmlp_status status = nvrtc_compile(&image, compiler, &source);
    if (status == MMLP_OK) {
        job->image = (cache_entry){image.ptx, image.ptx_bytes, image.cubin, image.cubin_bytes};
        image.ptx = NULL;
        image.cubin = NULL;
        job->origin = "compiled";
        job->compile_ms = now_ms() - start;
        context_verbose(context, "%s: compiled for %s in %.0f ms", job->kernel->entry, built.name,
                        job->compile_ms);
    }
    nvrtc_image_free(&image);
    return status;
}

static bool take_from_cache(compile_job *job, char why[CACHE_WHY_BYTES],
                            const mmlp_context *context, const cache_key *key)
{
    if (!cache_lookup(&job->image, why, &context->cache, key))
        return false;
    job->origin = "cache";
    context_verbose(context, "%s: cache hit, %s.kernel", job->kernel->entry, key->name);
    return true;
}

static mmlp_status run_job(compile_job *job, mmlp_context *context)
{
    const char *identity = toolchain_identity(context);
    if (!identity[0] || (!context->cache.writable && !context->cache.readonly))
        return compile_one(job, context);
    cache_key key;
    MMLP_TRY(cache_key_make(&key, identity, target_of(job, context).name, nvrtc_options_line(),
                            job->kernel->source->bytes, job->kernel->source->count));
    mmlp_status status = MMLP_OK;
    char why[CACHE_WHY_BYTES];
    if (!take_from_cache(job, why, context, &key)) {
        context_verbose(context, "%s: cache miss, %s.kernel: %s", job->kernel->entry, key.name,
                        why);
        int lock = cache_lock(&context->cache, &key, lock_seconds);
        /* Whoever held the lock before has probably just compiled this kernel. */
        if (lock < 0 || !take_from_cache(job, why, context, &key)) {
            status = compile_one(job, context);
            if (status == MMLP_OK && cache_store(&context->cache, &key, &job->image) != MMLP_OK)
                warn_cache_once(context);
        }
        cache_unlock(lock);
    }
    cache_key_free(&key);
    return status;
}

/* ---- all jobs ------------------------------------------------------------------------------- */

typedef struct job_queue {
    compile_job **jobs; /* the longest sources first: they take longest, and the last ones decide */
    int count;
    atomic_int next;
    mmlp_context *context;
} job_queue;

static int longer_first(const void *a, const void *b)
{
    const compile_job *const *one = a, *const *other = b;
    size_t length = (*one)->kernel->source->count, others = (*other)->kernel->source->count;
    return (length < others) - (length > others);
}

static void *work(void *argument)
{
    job_queue *queue = argument;
    for (int i; (i = atomic_fetch_add(&queue->next, 1)) < queue->count;) {
        compile_job *job = queue->jobs[i];
        job->status = run_job(job, queue->context);
        if (job->status != MMLP_OK)
            job->error = strdup(mmlp_last_error()); /* the line is this thread's */
    }
    return NULL;
}

mmlp_status compile_kernels(compile_job *jobs, int count, mmlp_context *context)
{
    compile_job **order = calloc((size_t)count + 1, sizeof *order);
    if (!order)
        return mmlp_fail_memory((size_t)count * sizeof *order, "compilations");
    for (int i = 0; i < count; i++)
        order[i] = &jobs[i];
    qsort(order, (size_t)count, sizeof *order, longer_first);
    job_queue queue = {order, count, 0, context};
    int others = (context->compile_threads < count ? context->compile_threads : count) - 1;
    pthread_t *threads = others > 0 ? calloc((size_t)others, sizeof *threads) : NULL;
    int started = 0;
    while (threads && started < others &&
           pthread_create(&threads[started], NULL, work, &queue) == 0)
        started++;
    work(&queue); /* fewer threads than wished for take longer, and do the same */
    for (int i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    free(order);

    mmlp_status status = MMLP_OK;
    for (int i = 0; i < count; i++) {
        if (status == MMLP_OK && jobs[i].status != MMLP_OK)
            status =
                mmlp_fail(jobs[i].status, "%s", jobs[i].error ? jobs[i].error : "out of memory");
        free(jobs[i].error);
        jobs[i].error = NULL;
    }
    return status;
}
