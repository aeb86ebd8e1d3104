/* driver_memory.c: device memory, host memory, copies, memsets, and what a pointer is. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"

Test(memory, is_allocated_found_again_and_freed)
{
    CUcontext context = open_device();
    CUdeviceptr memory = 1, base = 0;
    size_t bytes = 0, before = 0, after = 0, total = 0;
    EXPECT_OK(cuMemGetInfo(&before, &total));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuMemAlloc(&memory, 0));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuMemAlloc(NULL, 4));
    EXPECT_RESULT(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc(&memory, total + 1));
    EXPECT_OK(cuMemAlloc(&memory, 1000));
    cr_expect_eq(memory % 256, 0);
    EXPECT_OK(cuMemGetAddressRange(&base, &bytes, memory + 999));
    cr_expect_eq(base, memory);
    cr_expect_eq(bytes, 1000);
    EXPECT_RESULT(CUDA_ERROR_NOT_FOUND, cuMemGetAddressRange(&base, &bytes, memory + 1000));
    EXPECT_OK(cuMemGetInfo(&after, &total));
    cr_expect_lt(after, before);
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuMemFree(memory + 8));
    EXPECT_OK(cuMemFree(memory));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuMemFree(memory));
    EXPECT_OK(cuMemFree(0));
    EXPECT_OK(cuMemGetInfo(&after, &total));
    cr_expect_eq(after, before);
    EXPECT_OK(cuCtxDestroy(context));
}

Test(memory, a_copy_that_leaves_its_allocation_is_refused)
{
    CUcontext context = open_device();
    CUdeviceptr memory, other;
    char host[200] = {0};
    EXPECT_OK(cuMemAlloc(&memory, 100));
    EXPECT_OK(cuMemAlloc(&other, 100));
    EXPECT_OK(cuMemcpyHtoD(memory, host, 100));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD(memory, host, 101));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH(host, memory + 50, 51));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoD(other, memory, 101));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD(memory, NULL, 1));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD(0, host, 1));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuMemsetD8(memory, 1, 101));
    EXPECT_OK(cuMemcpyHtoD(0, NULL, 0));
    EXPECT_OK(cuCtxDestroy(context));
}

Test(memory, copies_find_the_place_of_each_pointer)
{
    CUcontext context = open_device();
    CUdeviceptr memory;
    CUstream stream;
    char in[64], out[64] = {0}, third[64] = {0};
    for (int i = 0; i < 64; i++)
        in[i] = (char)i;
    EXPECT_OK(cuMemAlloc(&memory, 64));
    EXPECT_OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    EXPECT_OK(cuMemcpy(memory, (CUdeviceptr)(uintptr_t)in, 64));
    EXPECT_OK(cuMemcpyAsync((CUdeviceptr)(uintptr_t)out, memory, 64, stream));
    EXPECT_OK(cuMemcpy((CUdeviceptr)(uintptr_t)third, (CUdeviceptr)(uintptr_t)out, 64));
    cr_expect_arr_eq(in, third, 64);
    EXPECT_OK(cuMemcpyDtoDAsync(memory + 32, memory, 32, stream));
    EXPECT_OK(cuMemcpyDtoHAsync(out, memory, 64, stream));
    cr_expect_arr_eq(out + 32, in, 32);
    EXPECT_OK(cuCtxDestroy(context));
}

Test(memory, memsets_write_elements_of_each_width)
{
    CUcontext context = open_device();
    CUdeviceptr memory;
    unsigned char bytes[16];
    EXPECT_OK(cuMemAlloc(&memory, 16));
    EXPECT_OK(cuMemsetD8(memory, 0xab, 16));
    EXPECT_OK(cuMemsetD16(memory + 2, 0x1234, 1));
    EXPECT_OK(cuMemsetD32(memory + 4, 0xdeadbeef, 2));
    EXPECT_OK(cuMemcpyDtoH(bytes, memory, 16));
    static const unsigned char wanted[16] = {0xab, 0xab, 0x34, 0x12, 0xef, 0xbe, 0xad, 0xde,
                                             0xef, 0xbe, 0xad, 0xde, 0xab, 0xab, 0xab, 0xab};
    cr_expect_arr_eq(bytes, wanted, 16);
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuMemsetD16(memory + 1, 0, 1));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuMemsetD32(memory + 2, 0, 1));
    EXPECT_OK(cuCtxDestroy(context));
}

Test(memory, two_dimensions_have_a_pitch)
{
    CUcontext context = open_device();
    CUdeviceptr memory;
    size_t pitch = 0;
    char in[3][10], out[3][10] = {{0}};
    memset(in, 7, sizeof in);
    in[1][4] = 9;
    EXPECT_OK(cuMemAllocPitch(&memory, &pitch, 10, 3, 4));
    cr_expect(pitch >= 10 && pitch % 512 == 0);
    CUDA_MEMCPY2D copy = {.srcMemoryType = CU_MEMORYTYPE_HOST,
                          .srcHost = in,
                          .srcPitch = 10,
                          .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                          .dstDevice = memory,
                          .dstPitch = pitch,
                          .WidthInBytes = 10,
                          .Height = 3};
    EXPECT_OK(cuMemcpy2D(&copy));
    EXPECT_OK(cuMemsetD2D8(memory, pitch, 1, 2, 3));
    CUDA_MEMCPY2D back = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                          .srcDevice = memory,
                          .srcPitch = pitch,
                          .dstMemoryType = CU_MEMORYTYPE_HOST,
                          .dstHost = out,
                          .dstPitch = 10,
                          .WidthInBytes = 10,
                          .Height = 3};
    EXPECT_OK(cuMemcpy2D(&back));
    cr_expect_eq(out[1][4], 9);
    cr_expect_eq(out[2][1], 1);
    cr_expect_eq(out[2][2], 7);
    EXPECT_OK(cuCtxDestroy(context));
}

Test(memory, host_memory_is_known_by_its_address)
{
    CUcontext context = open_device();
    void *host = NULL;
    char own[256];
    unsigned type = 0, flags = 0;
    CUdeviceptr device;
    EXPECT_OK(cuMemHostAlloc(&host, 100, CU_MEMHOSTALLOC_PORTABLE));
    EXPECT_OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                    (CUdeviceptr)(uintptr_t)host + 50));
    cr_expect_eq(type, CU_MEMORYTYPE_HOST);
    EXPECT_OK(cuMemHostGetFlags(&flags, host));
    cr_expect_eq(flags, CU_MEMHOSTALLOC_PORTABLE);
    EXPECT_RESULT(CUDA_ERROR_NOT_SUPPORTED, cuMemHostGetDevicePointer(&device, host, 0));
    EXPECT_OK(cuMemFreeHost(host));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuMemFreeHost(host));
    EXPECT_OK(cuMemHostRegister(own, sizeof own, 0));
    EXPECT_RESULT(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, cuMemHostRegister(own + 8, 8, 0));
    EXPECT_OK(cuMemHostUnregister(own));
    EXPECT_RESULT(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, cuMemHostUnregister(own));
    EXPECT_OK(cuCtxDestroy(context));
}

Test(memory, attributes_of_an_unknown_pointer_are_an_error_alone_and_zeros_in_a_list)
{
    CUcontext context = open_device();
    int local = 0;
    unsigned type = 77;
    CUcontext owner = context;
    CUdeviceptr unknown = (CUdeviceptr)(uintptr_t)&local, memory;
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE,
                  cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, unknown));
    CUpointer_attribute which[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_CONTEXT};
    void *values[] = {&type, &owner};
    EXPECT_OK(cuPointerGetAttributes(2, which, values, unknown));
    cr_expect_eq(type, 0);
    cr_expect_null(owner);
    EXPECT_OK(cuMemAlloc(&memory, 64));
    EXPECT_OK(cuPointerGetAttributes(2, which, values, memory + 63));
    cr_expect_eq(type, CU_MEMORYTYPE_DEVICE);
    cr_expect_eq(owner, context);
    EXPECT_OK(cuCtxDestroy(context));
}
