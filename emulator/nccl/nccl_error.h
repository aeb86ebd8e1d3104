/* nccl_error.h: the text of the calling thread's last error, which ncclGetLastError gives. */
#ifndef NCCL_ERROR_H
#define NCCL_ERROR_H

#include <cuda.h>
#include <nccl.h>

/* Sets the text and returns `result`. */
__attribute__((format(printf, 2, 3))) ncclResult_t error_set(ncclResult_t result,
                                                             const char *format, ...);
/* ncclUnhandledCudaError with the call's name and the driver's; ncclSuccess leaves the text. */
ncclResult_t error_of_cuda(CUresult result, const char *call);
const char *error_text(void);

#define NCCL_TRY(call)                                                                             \
    do {                                                                                           \
        ncclResult_t nccl_result_ = (call);                                                        \
        if (nccl_result_ != ncclSuccess)                                                           \
            return nccl_result_;                                                                   \
    } while (0)
#define CUDA_TRY(call, name) NCCL_TRY(error_of_cuda((call), (name)))

#endif
