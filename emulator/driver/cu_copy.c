/*
 * cu_copy.c: copies and memsets. A pointer's place (host, or which device) is found from its value,
 * as with unified addressing; a device range must lie inside one allocation.
 */
#include <stdlib.h>
#include <string.h>

#include "driver/front.h"

/* ---- one row -------------------------------------------------------------------------------- */

static CUresult host_to_device(CUdeviceptr dst, const void *src, size_t bytes)
{
    if (bytes == 0)
        return CUDA_SUCCESS;
    CUcontext owner = front_find_memory(dst);
    if (!owner || !src)
        return CUDA_ERROR_INVALID_VALUE;
    return emu_memory_to_device(owner->machine, dst, src, bytes);
}

static CUresult device_to_host(void *dst, CUdeviceptr src, size_t bytes)
{
    if (bytes == 0)
        return CUDA_SUCCESS;
    CUcontext owner = front_find_memory(src);
    if (!owner || !dst)
        return CUDA_ERROR_INVALID_VALUE;
    return emu_memory_from_device(owner->machine, dst, src, bytes);
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
        return host_to_device(dst, (const void *)(uintptr_t)src, bytes);
    if (from_device)
        return device_to_host((void *)(uintptr_t)dst, src, bytes);
    if (bytes && (!dst || !src))
        return CUDA_ERROR_INVALID_VALUE;
    if (bytes)
        memmove((void *)(uintptr_t)dst, (const void *)(uintptr_t)src, bytes);
    return CUDA_SUCCESS;
}

/* ---- the synchronous and the enqueued form of each ------------------------------------------ */

static CUresult wait(void)
{
    CUcontext context;
    return front_enter(&context);
}

static CUresult enqueue(CUstream stream, bool *skip)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, stream));
    return front_check_enqueue(context, skip);
}

/* Defines NAME, which waits, and NAME ## Async: the same work on a stream. `parameters` and
 * `expression` are parenthesised lists. */
#define BOTH_FORMS(name, async_name, parameters, expression)                                       \
    CUresult CUDAAPI name(UNWRAP parameters)                                                       \
    {                                                                                              \
        FRONT_TRY(wait());                                                                         \
        return UNWRAP expression;                                                                  \
    }                                                                                              \
    CUresult CUDAAPI async_name(UNWRAP parameters, CUstream hStream)                               \
    {                                                                                              \
        bool skip;                                                                                 \
        FRONT_TRY(enqueue(hStream, &skip));                                                        \
        return skip ? CUDA_SUCCESS : (UNWRAP expression);                                          \
    }
#define UNWRAP(...) __VA_ARGS__

BOTH_FORMS(cuMemcpyHtoD, cuMemcpyHtoDAsync,
           (CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount),
           (host_to_device(dstDevice, srcHost, ByteCount)))
BOTH_FORMS(cuMemcpyDtoH, cuMemcpyDtoHAsync,
           (void *dstHost, CUdeviceptr srcDevice, size_t ByteCount),
           (device_to_host(dstHost, srcDevice, ByteCount)))
BOTH_FORMS(cuMemcpyDtoD, cuMemcpyDtoDAsync,
           (CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount),
           (device_to_device(dstDevice, srcDevice, ByteCount)))
BOTH_FORMS(cuMemcpy, cuMemcpyAsync, (CUdeviceptr dst, CUdeviceptr src, size_t ByteCount),
           (copy_any(dst, src, ByteCount)))
BOTH_FORMS(cuMemcpyPeer, cuMemcpyPeerAsync,
           (CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
            CUcontext srcContext, size_t ByteCount),
           ((void)dstContext, (void)srcContext, device_to_device(dstDevice, srcDevice, ByteCount)))

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

static CUresult copy_rows(const CUDA_MEMCPY2D *copy)
{
    if (!copy)
        return CUDA_ERROR_INVALID_VALUE;
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

BOTH_FORMS(cuMemcpy2D, cuMemcpy2DAsync, (const CUDA_MEMCPY2D *pCopy), (copy_rows(pCopy)))

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

static CUresult set_rows(CUdeviceptr dst, size_t pitch, uint32_t value, int width, size_t count,
                         size_t height)
{
    if (height > 1 && (pitch % (unsigned)width != 0 || pitch / (unsigned)width < count))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t row = 0; row < height; row++)
        FRONT_TRY(set_row(dst + row * pitch, value, width, count));
    return CUDA_SUCCESS;
}

BOTH_FORMS(cuMemsetD8, cuMemsetD8Async, (CUdeviceptr dstDevice, unsigned char uc, size_t N),
           (set_row(dstDevice, uc, 1, N)))
BOTH_FORMS(cuMemsetD16, cuMemsetD16Async, (CUdeviceptr dstDevice, unsigned short us, size_t N),
           (set_row(dstDevice, us, 2, N)))
BOTH_FORMS(cuMemsetD32, cuMemsetD32Async, (CUdeviceptr dstDevice, unsigned int ui, size_t N),
           (set_row(dstDevice, ui, 4, N)))
BOTH_FORMS(cuMemsetD2D8, cuMemsetD2D8Async,
           (CUdeviceptr dstDevice, size_t dstPitch, unsigned char uc, size_t Width, size_t Height),
           (set_rows(dstDevice, dstPitch, uc, 1, Width, Height)))
BOTH_FORMS(cuMemsetD2D16, cuMemsetD2D16Async,
           (CUdeviceptr dstDevice, size_t dstPitch, unsigned short us, size_t Width, size_t Height),
           (set_rows(dstDevice, dstPitch, us, 2, Width, Height)))
BOTH_FORMS(cuMemsetD2D32, cuMemsetD2D32Async,
           (CUdeviceptr dstDevice, size_t dstPitch, unsigned int ui, size_t Width, size_t Height),
           (set_rows(dstDevice, dstPitch, ui, 4, Width, Height)))
