/* nccl_error.c: see nccl_error.h. */
#include "nccl/nccl_error.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char text[1024];

ncclResult_t error_set(ncclResult_t result, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return result;
}

ncclResult_t error_of_cuda(CUresult result, const char *call)
{
    const char *name = "an unknown error";
    if (result == CUDA_SUCCESS)
        return ncclSuccess;
    cuGetErrorName(result, &name);
    return error_set(ncclUnhandledCudaError, "%s gave %s", call, name);
}

const char *error_text(void)
{
    return text;
}

const char *ncclGetErrorString(ncclResult_t result)
{
    static const char *const texts[ncclNumResults] = {
        [ncclSuccess] = "no error",
        [ncclUnhandledCudaError] = "unhandled cuda error",
        [ncclSystemError] = "unhandled system error",
        [ncclInternalError] = "internal error",
        [ncclInvalidArgument] = "invalid argument",
        [ncclInvalidUsage] = "invalid usage",
        [ncclRemoteError] = "remote process exited or there was a network error",
        [ncclInProgress] = "NCCL operation in progress",
    };
    return (unsigned)result < ncclNumResults ? texts[result] : "unknown result code";
}
