/*
 * cu_copy.c: copies and memsets. A pointer's place (host, or which device) is found from its value,
 * as with unified addressing; a device range must lie inside one allocation when the work runs.
 */
#include <stdlib.h>
#include <string.h>

#include "driver/queue.h"

/* ---- one row -------------------------------------------------------------------------------- */

typedef CUresult move_row(CUdeviceptr dst, CUdeviceptr src, size_t bytes);

static CUresult host_to_device(CUdeviceptr dst, CUdeviceptr src, size_t bytes)
{
    if (bytes == 0)
        return CUDA_SUCCESS;
    CUcontext owner = front_find_memory(dst);
    if (!owner || !src)
        return CUDA_ERROR_INVALID_VALUE;
    return emu_memory_to_device(owner->machine, dst, (const void *)(uintptr_t)src, bytes);
}

static CUresult device_to_host(CUdeviceptr dst, CUdeviceptr src, size_t bytes)
{
    if (bytes == 0)
        return CUDA_SUCCESS;
    CUcontext owner = front_find_memory(src);
    if (!owner || !dst)
        return CUDA_ERROR_INVALID_VALUE;
    return emu_memory_from_device(owner->machine, (void *)(uintptr_t)dst, src, bytes);
}

static CUresult device_to_device(CUdeviceptr dst, CUdeviceptr src, size_t bytes)
{
    if (bytes == 0)
        return CUDA_SUCCESS;
    CUcontext to = front_find_memory(dst), from = front_find_memory(src);
    if (!to || !from)
        return CUDA_ERROR_INVALID_VALUE;
    if (to == from)
        return emu_memory_device_to_device(to->machine, dst, src, bytes);
    void *between = malloc(bytes); /* two machines share no memory */
    if (!between)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = emu_memory_from_device(from->machine, between, src, bytes);
    if (result == CUDA_SUCCESS)
        result = emu_memory_to_device(to->machine, dst, between, bytes);
    free(between);
    return result;
}

static CUresult copy_any(CUdeviceptr dst, CUdeviceptr src, size_t bytes)
{
    bool to_device = front_find_memory(dst) != NULL, from_device = front_find_memory(src) != NULL;
    if (to_device && from_device)
        return device_to_device(dst, src, bytes);
    if (to_device)
        return host_to_device(dst, src, bytes);
    if (from_device)
        return device_to_host(dst, src, bytes);
    if (bytes && (!dst || !src))
        return CUDA_ERROR_INVALID_VALUE;
    if (bytes)
        memmove((void *)(uintptr_t)dst, (const void *)(uintptr_t)src, bytes);
    return CUDA_SUCCESS;
}

/* ---- the synchronous and the enqueued form of each ------------------------------------------ */

static CUresult run_now(const graph_work *work)
{
    CUcontext context;
    FRONT_TRY(front_enter(&context));
    FRONT_TRY(capture_refuse_stream(CU_STREAM_LEGACY, context));
    FRONT_TRY(capture_check_unsafe());
    return queue_run_now(CU_STREAM_LEGACY, context, work);
}

typedef struct copy_work {
    move_row *move;
    CUdeviceptr dst, src;
    size_t bytes;
} copy_work;

static CUresult run_copy(CUcontext context, const void *arguments)
{
    (void)context;
    const copy_work *copy = arguments;
    return copy->move(copy->dst, copy->src, copy->bytes);
}

static const char *describe_copy(FILE *args, const void *arguments)
{
    const copy_work *copy = arguments;
    fprintf(args, ",\"bytes\":%zu", copy->bytes);
    return copy->move == host_to_device     ? "copy host to device"
           : copy->move == device_to_host   ? "copy device to host"
           : copy->move == device_to_device ? "copy device to device"
                                            : "copy";
}

static const graph_kind copy_kind = {CU_GRAPH_NODE_TYPE_MEMCPY, false, run_copy, "copy",
                                     describe_copy};

static bool is_pageable(CUdeviceptr address)
{
    return !front_find_memory(address) && !front_find_host_memory((const void *)(uintptr_t)address);
}

/* The caller may reuse pageable memory as soon as the call returns, so such a copy waits for the
 * stream, as the driver's do. */
static CUresult enqueue_copy(CUstream stream, const graph_work *work, CUdeviceptr dst,
                             CUdeviceptr src)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, stream));
    if (!queue_is_empty(stream, context) && (is_pageable(dst) || is_pageable(src)))
        queue_wait_stream(stream, context);
    return graph_enqueue(stream, work);
}

static CUresult enqueue(CUstream stream, const graph_work *work)
{
    const copy_work *copy = work->arguments;
    return work->kind == &copy_kind ? enqueue_copy(stream, work, copy->dst, copy->src)
                                    : graph_enqueue(stream, work);
}

/* Defines NAME, which waits, and NAME ## Async: the same work on a stream. */
#define BOTH_FORMS(name, async_name, parameters, work)                                             \
    CUresult CUDAAPI name(UNWRAP parameters)                                                       \
    {                                                                                              \
        return run_now(work);                                                                      \
    }                                                                                              \
    CUresult CUDAAPI async_name(UNWRAP parameters, CUstream hStream)                               \
    {                                                                                              \
        return enqueue(hStream, work);                                                             \
    }
#define UNWRAP(...) __VA_ARGS__

#define COPY(...)                                                                                  \
    &(graph_work)                                                                                  \
    {                                                                                              \
        &copy_kind, &(copy_work){__VA_ARGS__}, sizeof(copy_work)                                   \
    }
#define ADDRESS(pointer) ((CUdeviceptr)(uintptr_t)(pointer))

BOTH_FORMS(cuMemcpyHtoD, cuMemcpyHtoDAsync,
           (CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount),
           COPY(host_to_device, dstDevice, ADDRESS(srcHost), ByteCount))
BOTH_FORMS(cuMemcpyDtoH, cuMemcpyDtoHAsync,
           (void *dstHost, CUdeviceptr srcDevice, size_t ByteCount),
           COPY(device_to_host, ADDRESS(dstHost), srcDevice, ByteCount))
BOTH_FORMS(cuMemcpyDtoD, cuMemcpyDtoDAsync,
           (CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount),
           COPY(device_to_device, dstDevice, srcDevice, ByteCount))
BOTH_FORMS(cuMemcpy, cuMemcpyAsync, (CUdeviceptr dst, CUdeviceptr src, size_t ByteCount),
           COPY(copy_any, dst, src, ByteCount))
/* The addresses say which contexts they are of. */
BOTH_FORMS(cuMemcpyPeer, cuMemcpyPeerAsync,
           (CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
            CUcontext srcContext, size_t ByteCount),
           ((void)dstContext, (void)srcContext,
            COPY(device_to_device, dstDevice, srcDevice, ByteCount)))

/* ---- two dimensions ------------------------------------------------------------------------- */

/* The address of the first row of one side, or 0 when the side is an array. */
static CUdeviceptr side_address(CUmemorytype type, const void *host, CUdeviceptr device, size_t x,
                                size_t y, size_t pitch)
{
    CUdeviceptr base = 0;
    if (type == CU_MEMORYTYPE_HOST)
        base = (CUdeviceptr)(uintptr_t)host;
    else if (type == CU_MEMORYTYPE_DEVICE || type == CU_MEMORYTYPE_UNIFIED)
        base = device;
    return base ? base + y * pitch + x : 0;
}

static CUresult run_copy_rows(CUcontext context, const void *arguments)
{
    (void)context;
    const CUDA_MEMCPY2D *copy = arguments;
    size_t width = copy->WidthInBytes, height = copy->Height;
    size_t from_pitch = copy->srcPitch ? copy->srcPitch : width;
    size_t to_pitch = copy->dstPitch ? copy->dstPitch : width;
    if (width == 0 || height == 0)
        return CUDA_SUCCESS;
    CUdeviceptr from = side_address(copy->srcMemoryType, copy->srcHost, copy->srcDevice,
                                    copy->srcXInBytes, copy->srcY, from_pitch);
    CUdeviceptr to = side_address(copy->dstMemoryType, copy->dstHost, copy->dstDevice,
                                  copy->dstXInBytes, copy->dstY, to_pitch);
    if (!from || !to || from_pitch < width || to_pitch < width)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t row = 0; row < height; row++)
        FRONT_TRY(copy_any(to + row * to_pitch, from + row * from_pitch, width));
    return CUDA_SUCCESS;
}

static const char *describe_rows(FILE *args, const void *arguments)
{
    const CUDA_MEMCPY2D *copy = arguments;
    fprintf(args, ",\"bytes\":%zu", copy->WidthInBytes * copy->Height);
    return "copy of rows";
}

static const graph_kind rows_kind = {CU_GRAPH_NODE_TYPE_MEMCPY, false, run_copy_rows, "copy",
                                     describe_rows};

CUresult CUDAAPI cuMemcpy2D(const CUDA_MEMCPY2D *pCopy)
{
    if (!pCopy)
        return CUDA_ERROR_INVALID_VALUE;
    CUDA_MEMCPY2D copy = *pCopy;
    return run_now(&(graph_work){&rows_kind, &copy, sizeof copy});
}

CUresult CUDAAPI cuMemcpy2DAsync(const CUDA_MEMCPY2D *pCopy, CUstream hStream)
{
    if (!pCopy)
        return CUDA_ERROR_INVALID_VALUE;
    CUDA_MEMCPY2D copy = *pCopy;
    graph_work work = {&rows_kind, &copy, sizeof copy};
    return enqueue_copy(hStream, &work,
                        side_address(copy.dstMemoryType, copy.dstHost, copy.dstDevice, 0, 0, 0),
                        side_address(copy.srcMemoryType, copy.srcHost, copy.srcDevice, 0, 0, 0));
}

CUresult CUDAAPI cuMemcpy2DUnaligned(const CUDA_MEMCPY2D *pCopy)
{
    return cuMemcpy2D(pCopy);
}

/* ---- memset --------------------------------------------------------------------------------- */

static CUresult set_row(CUdeviceptr dst, uint32_t value, int width, size_t count)
{
    if (count == 0)
        return CUDA_SUCCESS;
    CUcontext owner = front_find_memory(dst);
    if (!owner || dst % (unsigned)width != 0)
        return CUDA_ERROR_INVALID_VALUE;
    return emu_memory_set(owner->machine, dst, value, width, count);
}

typedef struct set_work {
    CUdeviceptr dst;
    size_t pitch;
    uint32_t value;
    int width; /* of an element */
    size_t count, height;
} set_work;

static CUresult run_set(CUcontext context, const void *arguments)
{
    (void)context;
    const set_work *set = arguments;
    unsigned width = (unsigned)set->width;
    if (set->height > 1 && (set->pitch % width != 0 || set->pitch / width < set->count))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t row = 0; row < set->height; row++)
        FRONT_TRY(set_row(set->dst + row * set->pitch, set->value, set->width, set->count));
    return CUDA_SUCCESS;
}

static const char *describe_set(FILE *args, const void *arguments)
{
    const set_work *set = arguments;
    fprintf(args, ",\"bytes\":%zu", (size_t)set->width * set->count * set->height);
    return "memset";
}

static const graph_kind set_kind = {CU_GRAPH_NODE_TYPE_MEMSET, false, run_set, "memset",
                                    describe_set};

#define SET(...)                                                                                   \
    &(graph_work)                                                                                  \
    {                                                                                              \
        &set_kind, &(set_work){__VA_ARGS__}, sizeof(set_work)                                      \
    }

BOTH_FORMS(cuMemsetD8, cuMemsetD8Async, (CUdeviceptr dstDevice, unsigned char uc, size_t N),
           SET(dstDevice, 0, uc, 1, N, 1))
BOTH_FORMS(cuMemsetD16, cuMemsetD16Async, (CUdeviceptr dstDevice, unsigned short us, size_t N),
           SET(dstDevice, 0, us, 2, N, 1))
BOTH_FORMS(cuMemsetD32, cuMemsetD32Async, (CUdeviceptr dstDevice, unsigned int ui, size_t N),
           SET(dstDevice, 0, ui, 4, N, 1))
BOTH_FORMS(cuMemsetD2D8, cuMemsetD2D8Async,
           (CUdeviceptr dstDevice, size_t dstPitch, unsigned char uc, size_t Width, size_t Height),
           SET(dstDevice, dstPitch, uc, 1, Width, Height))
BOTH_FORMS(cuMemsetD2D16, cuMemsetD2D16Async,
           (CUdeviceptr dstDevice, size_t dstPitch, unsigned short us, size_t Width, size_t Height),
           SET(dstDevice, dstPitch, us, 2, Width, Height))
BOTH_FORMS(cuMemsetD2D32, cuMemsetD2D32Async,
           (CUdeviceptr dstDevice, size_t dstPitch, unsigned int ui, size_t Width, size_t Height),
           SET(dstDevice, dstPitch, ui, 4, Width, Height))
