/*
 * cu_emulator.h: functions of the emulator's libcuda that CUDA does not have: what the last fault
 * was, what the last kernel did, and a limit for kernels that may not end. A program that is not
 * linked against the emulator looks them up with dlsym (cuGetProcAddress does not know them).
 */
#ifndef CU_EMULATOR_H
#define CU_EMULATOR_H

#include <cuda.h>

/* The text of the last device fault in this process, "" when there was none. The string belongs to
 * the calling thread and lives until its next call. */
const char *cuEmulatorLastReport(void);

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

#endif
