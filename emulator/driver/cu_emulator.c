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

CUresult cuEmulatorCountBytes(int on)
{
    CUcontext context;
    FRONT_TRY(front_current(&context));
    return emu_count_bytes(context->machine, on != 0);
}

CUresult cuEmulatorDistinctBytes(unsigned long long *read, unsigned long long *written,
                                 unsigned long long *touched)
{
    CUcontext context;
    emu_byte_counts counts;
    FRONT_TRY(front_current(&context));
    FRONT_TRY(emu_distinct_bytes(context->machine, &counts));
    if (read)
        *read = counts.read;
    if (written)
        *written = counts.written;
    if (touched)
        *touched = counts.touched;
    return CUDA_SUCCESS;
}
