/*
 * cu_memory.c: device memory, page-locked host memory, and what kind of memory a pointer is.
 */
#include <stdlib.h>

#include "driver/queue.h"

#define HOST_ALIGNMENT 4096
#define PITCH          512

/* ---- device memory -------------------------------------------------------------------------- */

CUresult CUDAAPI cuMemAlloc(CUdeviceptr *dptr, size_t bytesize)
{
    CUcontext context;
    FRONT_TRY(capture_enter_unsafe(&context));
    if (!dptr)
        return CUDA_ERROR_INVALID_VALUE;
    *dptr = 0;
    return emu_memory_alloc(context->machine, dptr, bytesize, NULL);
}

CUresult CUDAAPI cuMemFree(CUdeviceptr dptr)
{
    CUcontext context;
    FRONT_TRY(capture_enter_unsafe(&context));
    if (dptr == 0)
        return CUDA_SUCCESS;
    CUcontext owner = front_find_memory(dptr);
    if (!owner)
        return CUDA_ERROR_INVALID_VALUE;
    queue_wait_context(owner);
    return emu_memory_free(owner->machine, dptr);
}

CUresult CUDAAPI cuMemAllocPitch(CUdeviceptr *dptr, size_t *pPitch, size_t WidthInBytes,
                                 size_t Height, unsigned int ElementSizeBytes)
{
    CUcontext context;
    FRONT_TRY(capture_enter_unsafe(&context));
    if (!dptr || !pPitch || WidthInBytes > INT32_MAX || Height > INT32_MAX ||
        (ElementSizeBytes != 4 && ElementSizeBytes != 8 && ElementSizeBytes != 16))
        return CUDA_ERROR_INVALID_VALUE;
    *dptr = 0;
    *pPitch = (WidthInBytes + PITCH - 1) / PITCH * PITCH;
    return emu_memory_alloc(context->machine, dptr, *pPitch * Height, NULL);
}

/* Graphs here have no nodes that allocate: the two that follow are refused in a capture. */
CUresult CUDAAPI cuMemAllocAsync(CUdeviceptr *dptr, size_t bytesize, CUstream hStream)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    if (!dptr)
        return CUDA_ERROR_INVALID_VALUE;
    *dptr = 0;
    FRONT_TRY(front_check_fault(context));
    FRONT_TRY(capture_refuse_stream(hStream, context));
    return emu_memory_alloc(context->machine, dptr, bytesize, NULL);
}

static CUresult run_free(CUcontext context, const void *arguments)
{
    (void)context;
    CUdeviceptr dptr = *(const CUdeviceptr *)arguments;
    CUcontext owner = front_find_memory(dptr);
    return owner ? emu_memory_free(owner->machine, dptr) : CUDA_ERROR_INVALID_VALUE;
}

static const char *describe_free(FILE *args, const void *arguments)
{
    (void)args, (void)arguments;
    return "free";
}

static const graph_kind free_kind = {CU_GRAPH_NODE_TYPE_MEM_FREE, false, run_free, "free",
                                     describe_free};

CUresult CUDAAPI cuMemFreeAsync(CUdeviceptr dptr, CUstream hStream)
{
    CUcontext context;
    FRONT_TRY(front_stream_context(&context, hStream));
    bool skip;
    FRONT_TRY(front_check_enqueue(context, &skip));
    FRONT_TRY(capture_refuse_stream(hStream, context));
    return queue_run(hStream, context, &(graph_work){&free_kind, &dptr, sizeof dptr});
}

CUresult CUDAAPI cuMemGetInfo(size_t *free_bytes, size_t *total)
{
    CUcontext context;
    FRONT_TRY(front_enter(&context));
    if (!free_bytes || !total)
        return CUDA_ERROR_INVALID_VALUE;
    emu_memory_usage(context->machine, free_bytes, total);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemGetAddressRange(CUdeviceptr *pbase, size_t *psize, CUdeviceptr dptr)
{
    CUcontext context;
    FRONT_TRY(front_enter(&context));
    CUcontext owner = front_find_memory(dptr);
    return owner ? emu_memory_range(owner->machine, dptr, pbase, psize) : CUDA_ERROR_NOT_FOUND;
}

/* ---- host memory ---------------------------------------------------------------------------- */

static void release_host_memory(front_object *object)
{
    front_host_memory *memory = (front_host_memory *)object;
    if (!memory->registered)
        free(memory->base);
    free(memory);
}

static CUresult add_host_memory(CUcontext context, void *base, size_t bytes, unsigned flags,
                                bool registered)
{
    front_host_memory *memory = calloc(1, sizeof *memory);
    if (!memory)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memory->object.kind = FRONT_HOST_MEMORY;
    memory->object.context = context;
    memory->object.release = release_host_memory;
    memory->base = base;
    memory->bytes = bytes;
    memory->flags = flags;
    memory->registered = registered;
    front_add(&memory->object);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemHostAlloc(void **pp, size_t bytesize, unsigned int Flags)
{
    CUcontext context;
    FRONT_TRY(capture_enter_unsafe(&context));
    unsigned known =
        CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
    if (!pp || (Flags & ~known) || bytesize == 0 || bytesize > SIZE_MAX - HOST_ALIGNMENT)
        return CUDA_ERROR_INVALID_VALUE;
    size_t rounded = (bytesize + HOST_ALIGNMENT - 1) / HOST_ALIGNMENT * HOST_ALIGNMENT;
    *pp = NULL;
    void *base = aligned_alloc(HOST_ALIGNMENT, rounded);
    if (!base)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = add_host_memory(context, base, bytesize, Flags, false);
    if (result != CUDA_SUCCESS)
        free(base);
    else
        *pp = base;
    return result;
}

CUresult CUDAAPI cuMemAllocHost(void **pp, size_t bytesize)
{
    return cuMemHostAlloc(pp, bytesize, 0);
}

/* Ends the allocation or registration that begins at p. */
static CUresult end_host_memory(void *p, bool registered, CUresult otherwise)
{
    CUcontext context;
    FRONT_TRY(capture_enter_unsafe(&context));
    front_host_memory *memory = front_find_host_memory(p);
    if (!memory || memory->base != p || memory->registered != registered ||
        !front_remove(memory, FRONT_HOST_MEMORY))
        return otherwise;
    queue_wait_context(context);
    release_host_memory(&memory->object);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuMemFreeHost(void *p)
{
    return end_host_memory(p, false, CUDA_ERROR_INVALID_VALUE);
}

CUresult CUDAAPI cuMemHostRegister(void *p, size_t bytesize, unsigned int Flags)
{
    CUcontext context;
    FRONT_TRY(capture_enter_unsafe(&context));
    if (!p || bytesize == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (front_find_host_memory(p) || front_find_host_memory((char *)p + bytesize - 1))
        return CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    return add_host_memory(context, p, bytesize, Flags, true);
}

CUresult CUDAAPI cuMemHostUnregister(void *p)
{
    return end_host_memory(p, true, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

/* Kernels reach device memory only; CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY says so too. */
CUresult CUDAAPI cuMemHostGetDevicePointer(CUdeviceptr *pdptr, void *p, unsigned int Flags)
{
    CUcontext context;
    FRONT_TRY(front_enter(&context));
    if (!pdptr || Flags != 0 || !front_find_host_memory(p))
        return CUDA_ERROR_INVALID_VALUE;
    *pdptr = 0;
    return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult CUDAAPI cuMemHostGetFlags(unsigned int *pFlags, void *p)
{
    CUcontext context;
    FRONT_TRY(front_enter(&context));
    front_host_memory *memory = front_find_host_memory(p);
    if (!pFlags || !memory)
        return CUDA_ERROR_INVALID_VALUE;
    *pFlags = memory->flags;
    return CUDA_SUCCESS;
}

/* ---- pointers ------------------------------------------------------------------------------- */

typedef struct pointer_place {
    CUcontext context; /* NULL: memory that this driver does not know */
    bool host;
    uintptr_t base;
    size_t bytes;
} pointer_place;

static pointer_place place_of(CUdeviceptr ptr)
{
    pointer_place place = {0};
    place.context = front_find_memory(ptr);
    if (place.context) {
        CUdeviceptr base;
        emu_memory_range(place.context->machine, ptr, &base, &place.bytes);
        place.base = (uintptr_t)base;
        return place;
    }
    front_host_memory *memory = front_find_host_memory((const void *)(uintptr_t)ptr);
    if (memory) {
        place.context = memory->object.context;
        place.host = true;
        place.base = (uintptr_t)memory->base;
        place.bytes = memory->bytes;
    }
    return place;
}

static CUresult get_attribute(void *out, CUpointer_attribute attribute, CUdeviceptr ptr,
                              const pointer_place *place)
{
    switch ((int)attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        *(CUcontext *)out = place->context;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned *)out = place->host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        if (place->host)
            return CUDA_ERROR_INVALID_VALUE;
        *(CUdeviceptr *)out = ptr;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        if (!place->host)
            return CUDA_ERROR_INVALID_VALUE;
        *(void **)out = (void *)(uintptr_t)ptr;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
        *(unsigned char *)out = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)out = place->context->device;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *(void **)out = (void *)place->base;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *(size_t *)out = place->bytes;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPED:
        *(unsigned char *)out = 1;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        *(unsigned long long *)out = place->base;
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_NOT_SUPPORTED;
}

CUresult CUDAAPI cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    pointer_place place = place_of(ptr);
    if (!data || !place.context)
        return CUDA_ERROR_INVALID_VALUE;
    return get_attribute(data, attribute, ptr, &place);
}

/* Unlike the single form, a pointer that is unknown is no error: its values are left as they are,
 * except that context, type and the like read as zero. */
CUresult CUDAAPI cuPointerGetAttributes(unsigned int numAttributes, CUpointer_attribute *attributes,
                                        void **data, CUdeviceptr ptr)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    if (!attributes || !data || numAttributes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    pointer_place place = place_of(ptr);
    for (unsigned i = 0; i < numAttributes; i++) {
        if (place.context)
            get_attribute(data[i], attributes[i], ptr, &place);
        else if (attributes[i] == CU_POINTER_ATTRIBUTE_CONTEXT)
            *(CUcontext *)data[i] = NULL;
        else if (attributes[i] == CU_POINTER_ATTRIBUTE_MEMORY_TYPE)
            *(unsigned *)data[i] = 0;
        else if (attributes[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)
            *(int *)data[i] = CU_DEVICE_INVALID;
        else if (attributes[i] == CU_POINTER_ATTRIBUTE_IS_MANAGED ||
                 attributes[i] == CU_POINTER_ATTRIBUTE_MAPPED)
            *(unsigned char *)data[i] = 0;
    }
    return CUDA_SUCCESS;
}
