/* ranks.h: the ranks of a test: processes forked from it, or threads, each with a device, a stream
 * and a communicator. */
#ifndef NCCL_RANKS_H
#define NCCL_RANKS_H

#include <criterion/criterion.h>
#include <cuda.h>
#include <nccl.h>

/* Ends a rank, and with it the test; also where Criterion's assertions have no meaning. */
#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            rank_die(__FILE__, __LINE__, "" #condition, "" __VA_ARGS__);                           \
    } while (0)
#define CHECK_CUDA(call)         check_cuda((call), __FILE__, __LINE__, #call)
#define CHECK_NCCL(wanted, call) check_nccl((wanted), (call), __FILE__, __LINE__, #call)
#define CHECK_TEXT(wanted, text) check_text((wanted), (text), __FILE__, __LINE__)

_Noreturn void rank_die(const char *file, int line, const char *what, const char *format, ...);
void check_cuda(CUresult found, const char *file, int line, const char *call);
void check_nccl(ncclResult_t wanted, ncclResult_t found, const char *file, int line,
                const char *call);
/* The text has the wanted part. */
void check_text(const char *wanted, const char *text, const char *file, int line);

typedef enum ranks_kind { PROCESSES, THREADS } ranks_kind;

typedef struct test_rank {
    int rank, ranks;
    ncclUniqueId id;
    CUstream stream;
    ncclComm_t comm;     /* the body destroys it, or sets it NULL */
    const void *what;    /* the test's own */
    volatile int *flags; /* 64 words that all ranks share, 0 at first */
} test_rank;

typedef void rank_body(test_rank *own);

/* Runs the body in every rank, with a communicator; returns when all have ended. The processes of
 * the set `killed` must end by SIGKILL, all others well. */
void ranks_run(ranks_kind kind, int count, rank_body *body, const void *what, unsigned killed);
/* The same without communicators. */
void ranks_run_bare(ranks_kind kind, int count, rank_body *body, const void *what, unsigned killed);

void rank_open(test_rank *own); /* the communicator of ranks_run */
CUdeviceptr rank_upload(const void *from, size_t bytes);
void rank_download(void *to, CUdeviceptr from, size_t bytes);
/* Waits until a flag is set; sets one. */
void rank_await(const test_rank *own, int flag);
void rank_signal(test_rank *own, int flag);
/* Waits for the stream; then the communicator's error is this one, and its text has the part. */
void rank_expect_error(test_rank *own, ncclResult_t wanted, const char *text);

static inline cudaStream_t nccl_stream(const test_rank *own)
{
    return (cudaStream_t)own->stream;
}

#endif
