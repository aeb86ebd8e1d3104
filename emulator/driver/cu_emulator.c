/*
 * cu_emulator.c: functions that CUDA does not have: counts of what the last kernel touched, and
 * a limit for kernels that may not end.
 * Programs look them up by name (cuGetProcAddress does not know them). cuEmulatorLastReport is in
 * front.c.
 */
#include "driver/front.h"

/* Switches counting on (non-zero) or off for the launches in the current context. While it is on,
 * kernels run slower. */
CUresult cuEmulatorCountBytes(int on);

/*
 * How many distinct bytes of device memory the lanes of a kernel read, wrote, and touched at all
 * (the union): of the last kernel that ran in the current context while counting was on.
 * CUDA_ERROR_ILLEGAL_STATE when there was none. Any of the pointers may be NULL.
 */
CUresult cuEmulatorDistinctBytes(unsigned long long *read, unsigned long long *written,
                                 unsigned long long *touched);

/* Kernels launched later in the current context end with CUDA_ERROR_LAUNCH_TIMEOUT when they have
 * run about this many instructions (of warps); 0: never. */
CUresult cuEmulatorLimitInstructions(unsigned long long most);

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
