/*
 * cu_context.c: contexts: primary ones, created ones, the calling thread's stack, limits.
 */
#include <string.h>

#include "driver/queue.h"

/* ---- primary contexts ----------------------------------------------------------------------- */

CUresult CUDAAPI cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
{
    FRONT_TRY(front_check_device(dev));
    if (!pctx)
        return CUDA_ERROR_INVALID_VALUE;
    *pctx = NULL;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&front_device_lock);
    front_device *device = &front_devices[dev];
    if (!device->primary)
        result = front_context_create(&device->primary, device->flags, dev);
    if (result == CUDA_SUCCESS) {
        device->retained++;
        *pctx = device->primary;
    }
    pthread_mutex_unlock(&front_device_lock);
    return result;
}

static CUresult release_primary(CUdevice dev, bool whole)
{
    FRONT_TRY(front_check_device(dev));
    CUresult result = CUDA_SUCCESS;
    CUcontext ended = NULL;
    pthread_mutex_lock(&front_device_lock);
    front_device *device = &front_devices[dev];
    if (device->retained == 0 && !whole)
        result = CUDA_ERROR_INVALID_CONTEXT;
    else if (whole || --device->retained == 0) {
        ended = device->primary;
        device->primary = NULL;
        device->retained = 0;
    }
    pthread_mutex_unlock(&front_device_lock);
    if (ended)
        front_context_destroy(ended);
    return result;
}

CUresult CUDAAPI cuDevicePrimaryCtxRelease(CUdevice dev)
{
    return release_primary(dev, false);
}

CUresult CUDAAPI cuDevicePrimaryCtxReset(CUdevice dev)
{
    return release_primary(dev, true);
}

CUresult CUDAAPI cuDevicePrimaryCtxSetFlags(CUdevice dev, unsigned int flags)
{
    FRONT_TRY(front_check_device(dev));
    if (flags & ~(unsigned)CU_CTX_FLAGS_MASK)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&front_device_lock);
    front_devices[dev].flags = flags;
    if (front_devices[dev].primary)
        front_devices[dev].primary->flags = flags;
    pthread_mutex_unlock(&front_device_lock);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int *flags, int *active)
{
    FRONT_TRY(front_check_device(dev));
    if (!flags || !active)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&front_device_lock);
    *flags = front_devices[dev].flags;
    *active = front_devices[dev].primary != NULL;
    pthread_mutex_unlock(&front_device_lock);
    return CUDA_SUCCESS;
}

/* ---- created contexts ----------------------------------------------------------------------- */

CUresult CUDAAPI cuCtxCreate_v4(CUcontext *pctx, CUctxCreateParams *ctxCreateParams,
                                unsigned int flags, CUdevice dev)
{
    FRONT_TRY(front_check_device(dev));
    if (!pctx || (flags & ~(unsigned)CU_CTX_FLAGS_MASK))
        return CUDA_ERROR_INVALID_VALUE;
    *pctx = NULL;
    if (ctxCreateParams && (ctxCreateParams->numExecAffinityParams || ctxCreateParams->cigParams))
        return CUDA_ERROR_NOT_SUPPORTED;
    CUcontext context;
    FRONT_TRY(front_context_create(&context, flags, dev));
    CUresult result = front_push(context);
    if (result != CUDA_SUCCESS) {
        front_context_destroy(context);
        return result;
    }
    *pctx = context;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxCreate_v2(CUcontext *pctx, unsigned int flags, CUdevice dev)
{
    return cuCtxCreate_v4(pctx, NULL, flags, dev);
}

CUresult CUDAAPI cuCtxCreate_v3(CUcontext *pctx, CUexecAffinityParam *paramsArray, int numParams,
                                unsigned int flags, CUdevice dev)
{
    (void)paramsArray;
    if (numParams != 0)
        return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    return cuCtxCreate_v4(pctx, NULL, flags, dev);
}

CUresult CUDAAPI cuCtxDestroy(CUcontext ctx)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!front_is(ctx, FRONT_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    pthread_mutex_lock(&front_device_lock);
    bool primary = front_devices[ctx->device].primary == ctx;
    pthread_mutex_unlock(&front_device_lock);
    if (primary)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (front_top() == ctx) {
        CUcontext popped;
        front_pop(&popped);
    }
    front_context_destroy(ctx);
    return CUDA_SUCCESS;
}

/* ---- the thread's stack --------------------------------------------------------------------- */

CUresult CUDAAPI cuCtxPushCurrent(CUcontext ctx)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!front_is(ctx, FRONT_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    return front_push(ctx);
}

CUresult CUDAAPI cuCtxPopCurrent(CUcontext *pctx)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    CUcontext popped;
    if (!front_pop(&popped))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (pctx)
        *pctx = popped;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSetCurrent(CUcontext ctx)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (ctx && !front_is(ctx, FRONT_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    return front_set_top(ctx);
}

CUresult CUDAAPI cuCtxGetCurrent(CUcontext *pctx)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!pctx)
        return CUDA_ERROR_INVALID_VALUE;
    *pctx = front_top();
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetDevice(CUdevice *device)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    *device = context->device;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSynchronize(void)
{
    CUcontext context;
    FRONT_TRY(front_enter(&context));
    FRONT_TRY(capture_refuse_context(context));
    queue_wait_context(context);
    return front_check_fault(context);
}

/* ---- properties ----------------------------------------------------------------------------- */

CUresult CUDAAPI cuCtxGetFlags(unsigned int *flags)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    if (!flags)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = context->flags;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetId(CUcontext ctx, unsigned long long *ctxId)
{
    if (!ctx)
        FRONT_TRY(front_current(&ctx));
    if (!front_is(ctx, FRONT_CONTEXT))
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (!ctxId)
        return CUDA_ERROR_INVALID_VALUE;
    *ctxId = ctx->id;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetApiVersion(CUcontext ctx, unsigned int *version)
{
    if (!ctx)
        FRONT_TRY(front_current(&ctx));
    if (!front_is(ctx, FRONT_CONTEXT))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!version)
        return CUDA_ERROR_INVALID_VALUE;
    *version = 3020;
    return CUDA_SUCCESS;
}

static bool limit_is_known(CUlimit limit)
{
    return limit == CU_LIMIT_STACK_SIZE || limit == CU_LIMIT_PRINTF_FIFO_SIZE ||
           limit == CU_LIMIT_MALLOC_HEAP_SIZE || limit == CU_LIMIT_MAX_L2_FETCH_GRANULARITY;
}

CUresult CUDAAPI cuCtxGetLimit(size_t *pvalue, CUlimit limit)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    if (!pvalue)
        return CUDA_ERROR_INVALID_VALUE;
    if (!limit_is_known(limit))
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    *pvalue = context->limits[limit];
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSetLimit(CUlimit limit, size_t value)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    if (!limit_is_known(limit))
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    context->limits[limit] = value;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetStreamPriorityRange(int *leastPriority, int *greatestPriority)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    if (leastPriority)
        *leastPriority = 0;
    if (greatestPriority)
        *greatestPriority = -5;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxGetCacheConfig(CUfunc_cache *pconfig)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    if (!pconfig)
        return CUDA_ERROR_INVALID_VALUE;
    *pconfig = CU_FUNC_CACHE_PREFER_NONE;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuCtxSetCacheConfig(CUfunc_cache config)
{
    (void)config; /* a preference: there is no cache */
    CUcontext context;
    return front_current(&context);
}

CUresult CUDAAPI cuCtxEnablePeerAccess(CUcontext peerContext, unsigned int Flags)
{
    (void)Flags;
    CUcontext context;
    FRONT_TRY(front_current(&context));
    if (!front_is(peerContext, FRONT_CONTEXT) || peerContext == context)
        return CUDA_ERROR_INVALID_CONTEXT;
    return CUDA_ERROR_PEER_ACCESS_UNSUPPORTED;
}

/* ---- profiler: nothing to start ------------------------------------------------------------- */

CUresult CUDAAPI cuProfilerStart(void)
{
    CUcontext context;
    return front_current(&context);
}

CUresult CUDAAPI cuProfilerStop(void)
{
    CUcontext context;
    return front_current(&context);
}
