/*
 * cu_device.c: cuInit, the version, the devices and their attributes, and the peer queries.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/front.h"
#include "driver/trace.h"

static void in_forked_process(void)
{
    front_forked = true;
}

CUresult CUDAAPI cuInit(unsigned int flags)
{
    if (flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (front_forked) {
        fprintf(stderr, "libcuda (emulator): this process was forked from one that had called "
                        "cuInit: fork before cuInit, or start a new program\n");
        return CUDA_ERROR_NOT_INITIALIZED;
    }
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&front_device_lock);
    if (!front_devices) {
        if (!options_read(&front_settings))
            result = CUDA_ERROR_INVALID_VALUE;
        else if (pthread_atfork(NULL, NULL, in_forked_process) != 0 ||
                 !(front_devices =
                       calloc((size_t)front_settings.device_count, sizeof *front_devices)))
            result = CUDA_ERROR_OUT_OF_MEMORY;
        else
            trace_open(front_settings.trace);
    }
    pthread_mutex_unlock(&front_device_lock);
    return result;
}

CUresult CUDAAPI cuDriverGetVersion(int *driverVersion)
{
    if (!driverVersion)
        return CUDA_ERROR_INVALID_VALUE;
    *driverVersion = FRONT_DRIVER_VERSION;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGet(CUdevice *device, int ordinal)
{
    if (!device)
        return CUDA_ERROR_INVALID_VALUE;
    FRONT_TRY(front_check_device(ordinal));
    *device = ordinal;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetCount(int *count)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!count)
        return CUDA_ERROR_INVALID_VALUE;
    *count = front_settings.device_count;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetName(char *name, int len, CUdevice dev)
{
    FRONT_TRY(front_check_device(dev));
    if (!name || len <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(name, (size_t)len, "%s", front_settings.arch->name);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetUuid(CUuuid *uuid, CUdevice dev)
{
    FRONT_TRY(front_check_device(dev));
    if (!uuid)
        return CUDA_ERROR_INVALID_VALUE;
    memset(uuid, 0, sizeof *uuid);
    snprintf(uuid->bytes, sizeof uuid->bytes, "EMU-%s", front_settings.arch->id);
    uuid->bytes[sizeof uuid->bytes - 1] = (char)dev;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetLuid(char *luid, unsigned int *deviceNodeMask, CUdevice dev)
{
    (void)luid;
    (void)deviceNodeMask;
    FRONT_TRY(front_check_device(dev));
    return CUDA_ERROR_NOT_SUPPORTED; /* as on every Linux driver */
}

CUresult CUDAAPI cuDeviceGetPCIBusId(char *pciBusId, int len, CUdevice dev)
{
    FRONT_TRY(front_check_device(dev));
    if (!pciBusId || len <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    snprintf(pciBusId, (size_t)len, "0000:%02X:00.0", (unsigned)dev + 1);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceTotalMem(size_t *bytes, CUdevice dev)
{
    FRONT_TRY(front_check_device(dev));
    if (!bytes)
        return CUDA_ERROR_INVALID_VALUE;
    *bytes = front_settings.arch->memory_bytes;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev)
{
    FRONT_TRY(front_check_device(dev));
    if (!pi || (int)attrib <= 0 || attrib >= CU_DEVICE_ATTRIBUTE_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    const emu_arch *a = front_settings.arch;
    switch ((int)attrib) {
#define ATTRIBUTE(name, value)                                                                     \
    case CU_DEVICE_ATTRIBUTE_##name:                                                               \
        *pi = (value);                                                                             \
        return CUDA_SUCCESS;
#include "driver/attributes.def"
#undef ATTRIBUTE
    }
    *pi = 0; /* no textures, no managed memory, no IPC, ... */
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceComputeCapability(int *major, int *minor, CUdevice dev)
{
    FRONT_TRY(front_check_device(dev));
    if (!major || !minor)
        return CUDA_ERROR_INVALID_VALUE;
    *major = front_settings.arch->cc_major;
    *minor = front_settings.arch->cc_minor;
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuDeviceCanAccessPeer(int *canAccessPeer, CUdevice dev, CUdevice peerDev)
{
    FRONT_TRY(front_check_device(dev));
    FRONT_TRY(front_check_device(peerDev));
    if (!canAccessPeer)
        return CUDA_ERROR_INVALID_VALUE;
    *canAccessPeer = 0; /* every device is a machine of its own; copies between them work */
    return CUDA_SUCCESS;
}
