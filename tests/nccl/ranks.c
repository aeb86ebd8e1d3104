/* ranks.c: see ranks.h. */
#include "ranks.h"

#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_RANKS 16

_Noreturn void rank_die(const char *file, int line, const char *what, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s:%d: not so: %s ", file, line, what);
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    abort();
}

void check_cuda(CUresult found, const char *file, int line, const char *call)
{
    const char *name = "?";
    cuGetErrorName(found, &name);
    if (found != CUDA_SUCCESS)
        rank_die(file, line, call, "gave %s", name);
}

void check_nccl(ncclResult_t wanted, ncclResult_t found, const char *file, int line,
                const char *call)
{
    if (found != wanted)
        rank_die(file, line, call, "gave %s, wanted %s: %s", ncclGetErrorString(found),
                 ncclGetErrorString(wanted), ncclGetLastError(NULL));
}

void check_text(const char *wanted, const char *text, const char *file, int line)
{
    if (!strstr(text, wanted))
        rank_die(file, line, wanted, "is not in: %s", text);
}

/* ---- running -------------------------------------------------------------------------------- */

typedef struct start {
    test_rank own;
    rank_body *body;
    ranks_kind kind;
    bool is_bare;
} start;

void rank_open(test_rank *own)
{
    CHECK_NCCL(ncclSuccess, ncclCommInitRank(&own->comm, own->ranks, own->id, own->rank));
}

static void *run_rank(void *argument)
{
    start *s = argument;
    CUcontext context;
    CHECK_CUDA(cuInit(0));
    CHECK_CUDA(cuCtxCreate(&context, NULL, 0, s->kind == THREADS ? s->own.rank : 0));
    CHECK_CUDA(cuStreamCreate(&s->own.stream, CU_STREAM_NON_BLOCKING));
    if (!s->is_bare)
        rank_open(&s->own);
    s->body(&s->own);
    if (s->own.comm)
        CHECK_NCCL(ncclSuccess, ncclCommDestroy(s->own.comm));
    CHECK_CUDA(cuCtxDestroy(context));
    return NULL;
}

static void run_processes(start *starts, int count, unsigned killed)
{
    pid_t children[MOST_RANKS];
    for (int i = 0; i < count; i++) {
        children[i] = fork();
        cr_assert_geq(children[i], 0);
        if (children[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL); /* when the test runs out of time */
            run_rank(&starts[i]);
            _exit(0);
        }
    }
    for (int i = 0; i < count; i++) {
        int status;
        cr_assert_eq(waitpid(children[i], &status, 0), children[i]);
        if (killed >> i & 1)
            cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        else
            cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "rank %d failed", i);
    }
}

static void run_threads(start *starts, int count)
{
    pthread_t threads[MOST_RANKS];
    for (int i = 0; i < count; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, run_rank, &starts[i]), 0);
    for (int i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
}

static void run(ranks_kind kind, int count, rank_body *body, const void *what, unsigned killed,
                bool is_bare)
{
    start starts[MOST_RANKS];
    ncclUniqueId id;
    int *flags =
        mmap(NULL, 64 * sizeof(int), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(flags, MAP_FAILED);
    CHECK_NCCL(ncclSuccess, ncclGetUniqueId(&id));
    for (int i = 0; i < count; i++)
        starts[i] = (start){{i, count, id, NULL, NULL, what, flags}, body, kind, is_bare};
    if (kind == PROCESSES)
        run_processes(starts, count, killed);
    else
        run_threads(starts, count);
    munmap(flags, 64 * sizeof(int));
}

void ranks_run(ranks_kind kind, int count, rank_body *body, const void *what, unsigned killed)
{
    run(kind, count, body, what, killed, false);
}

void ranks_run_bare(ranks_kind kind, int count, rank_body *body, const void *what, unsigned killed)
{
    run(kind, count, body, what, killed, true);
}

/* ---- what bodies do ------------------------------------------------------------------------- */

CUdeviceptr rank_upload(const void *from, size_t bytes)
{
    CUdeviceptr to;
    CHECK_CUDA(cuMemAlloc(&to, bytes));
    CHECK_CUDA(cuMemcpyHtoD(to, from, bytes));
    return to;
}

void rank_download(void *to, CUdeviceptr from, size_t bytes)
{
    CHECK_CUDA(cuMemcpyDtoH(to, from, bytes));
}

void rank_await(const test_rank *own, int flag)
{
    while (!__atomic_load_n(&own->flags[flag], __ATOMIC_SEQ_CST))
        usleep(1000);
}

void rank_signal(test_rank *own, int flag)
{
    __atomic_store_n(&own->flags[flag], 1, __ATOMIC_SEQ_CST);
}

void rank_expect_error(test_rank *own, ncclResult_t wanted, const char *text)
{
    ncclResult_t found;
    CHECK_CUDA(cuStreamSynchronize(own->stream));
    CHECK_NCCL(ncclSuccess, ncclCommGetAsyncError(own->comm, &found));
    CHECK_NCCL(wanted, found);
    CHECK_TEXT(text, ncclGetLastError(own->comm));
}
