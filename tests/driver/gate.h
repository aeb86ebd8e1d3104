/* gate.h: work that waits (cuEmulatorLaunchWaiting) until the test lets it pass. */
#ifndef DRIVER_GATE_H
#define DRIVER_GATE_H

#include <cuda.h>

/* Enqueues work, "gate" in the trace, that waits until more than `gate` gates are open. */
void enqueue_gate(CUstream stream, int gate);
void open_gates(int count);
/* How many have been passed. */
int count_passed(void);

#endif
