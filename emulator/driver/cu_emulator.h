/*
 * cu_emulator.h: functions of the emulator's libcuda that CUDA does not have: what the last fault
 * was, what kernels do, and a limit for kernels that may not end. A program that is not
 * linked against the emulator looks them up with dlsym (cuGetProcAddress does not know them).
 */
#ifndef CU_EMULATOR_H
#define CU_EMULATOR_H

#include <stdio.h>

#include <cuda.h>

#include "core/counters.h"

/* The text of the last device fault in this process, "" when there was none. The string belongs to
 * the calling thread and lives until its next call. */
const char *cuEmulatorLastReport(void);

/*
 * Has the later launches in the current context counted, and `counted` called with the kernel's
 * name and its counters at the end of each, on the thread of the launch; NULL: no more. The
 * counters are described in counters.h. Counted kernels run slower, and one wave of resident blocks
 * must end before the next begins.
 */
CUresult cuEmulatorCount(emu_counted *counted, void *user);

/*
 * The registers a thread of a kernel, as ptxas gives them, in place of the emulator's estimate: for
 * modules loaded later into the current context. Occupancy, and with it waves, depends on them.
 */
CUresult cuEmulatorSetRegisters(const char *kernel, int registers);

/* Kernels launched later in the current context end with CUDA_ERROR_LAUNCH_TIMEOUT when they have
 * run about this many instructions (of warps); 0: never. */
CUresult cuEmulatorLimitInstructions(unsigned long long most);

/* Writes members of a JSON object, each with a comma before it, that say what the work does;
 * returns its name, which lives as long as the arguments. It must not use the Driver API. */
typedef const char *cuEmulatorDescribe(FILE *args, const void *arguments);

/*
 * Has `call` called with a copy of the `bytes` at `arguments`, in stream order, on a thread of the
 * stream's own: unlike a host function (cuLaunchHostFunc) it may wait for other threads and
 * processes, and the call that enqueues it, or that enqueues something behind it, returns all the
 * same. A stream that captures takes it as a host node. `call` must not use the Driver API.
 * `describe` is for the trace (MMLP_EMULATOR_TRACE), where the work has the category `collective`:
 * it is called when the work is enqueued, or not at all.
 */
CUresult cuEmulatorLaunchWaiting(CUstream stream, void (*call)(void *arguments),
                                 cuEmulatorDescribe *describe, const void *arguments, size_t bytes);

/* Copies from and to device memory now, whatever streams do, on any thread and without a current
 * context. A range that is not inside one allocation is INVALID_VALUE and copies nothing. */
CUresult cuEmulatorRead(void *to, CUdeviceptr from, size_t bytes);
CUresult cuEmulatorWrite(CUdeviceptr to, const void *from, size_t bytes);
/* The allocation that holds the address, under the same conditions; NOT_FOUND. */
CUresult cuEmulatorFindAllocation(CUdeviceptr *base, size_t *bytes, CUdevice *device,
                                  CUdeviceptr address);

#endif
