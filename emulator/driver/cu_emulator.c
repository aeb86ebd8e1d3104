/* cu_emulator.c: see cu_emulator.h; cuEmulatorLastReport is in front.c. */
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
