/* cu_emulator.c: see cu_emulator.h; cuEmulatorLastReport is in front.c, and cuEmulatorLaunchWaiting
 * in cu_queue.c. */
#include "driver/cu_emulator.h"
#include "driver/front.h"

CUresult cuEmulatorLimitInstructions(unsigned long long most)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    emu_limit_instructions(context->machine, most);
    return CUDA_SUCCESS;
}

CUresult cuEmulatorCount(emu_counted *counted, void *user)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    return emu_count(context->machine, counted, user);
}

CUresult cuEmulatorSetRegisters(const char *kernel, int registers)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    if (!kernel || registers < 1 || registers > 255)
        return CUDA_ERROR_INVALID_VALUE;
    emu_set_registers(context->machine, kernel, registers);
    return CUDA_SUCCESS;
}

CUresult cuEmulatorRead(void *to, CUdeviceptr from, size_t bytes)
{
    if (bytes == 0)
        return CUDA_SUCCESS;
    CUcontext owner = front_find_memory(from);
    return owner ? emu_memory_from_device(owner->machine, to, from, bytes)
                 : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuEmulatorWrite(CUdeviceptr to, const void *from, size_t bytes)
{
    if (bytes == 0)
        return CUDA_SUCCESS;
    CUcontext owner = front_find_memory(to);
    return owner ? emu_memory_to_device(owner->machine, to, from, bytes) : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuEmulatorFindAllocation(CUdeviceptr *base, size_t *bytes, CUdevice *device,
                                  CUdeviceptr address)
{
    CUcontext owner = front_find_memory(address);
    if (!owner)
        return CUDA_ERROR_NOT_FOUND;
    *device = owner->device;
    return emu_memory_range(owner->machine, address, base, bytes);
}
