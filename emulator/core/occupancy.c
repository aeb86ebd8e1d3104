/*
 * occupancy.c: how many blocks of a kernel fit on one multiprocessor, and the registers that decide
 * it where ptxas has said how many there are.
 */
#include <stdlib.h>
#include <string.h>

#include "machine.h"

static uint64_t round_up(uint64_t value, uint64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* The least of what threads, slots, registers (handed out per warp in units of 256) and shared
 * memory (1 KB reserved per block) allow. */
int emu_blocks_per_sm(const emu_function *function, unsigned threads, size_t dynamic_shared_bytes)
{
    const emu_arch *arch = function->module->machine->arch;
    const ir_kernel *kernel = function->kernel;
    uint64_t warps = (threads + 31) / 32;
    uint64_t warp_registers = round_up(32 * (uint64_t)kernel->registers, 256);
    uint64_t shared = round_up(kernel->shared_static + dynamic_shared_bytes, 128) + 1024;
    uint64_t blocks = (uint64_t)arch->max_blocks_per_sm;
    blocks = least(blocks, (uint64_t)arch->max_threads_per_sm / 32 / warps);
    if (warp_registers) {
        blocks = least(blocks, (uint64_t)arch->regs_per_sm / warp_registers / warps);
    }
    return (int)least(blocks, (uint64_t)arch->shared_per_sm / shared);
}

void emu_set_registers(emu_machine *machine, const char *kernel, int registers)
{
    known_registers *known = pool_require(calloc(1, sizeof *known));
    known->kernel = pool_require(strdup(kernel));
    known->count = registers;
    pthread_mutex_lock(&machine->launching);
    known->next = machine->registers;
    machine->registers = known;
    pthread_mutex_unlock(&machine->launching);
}

int occupancy_registers(const emu_machine *machine, const ir_kernel *kernel)
{
    for (const known_registers *known = machine->registers; known; known = known->next) {
        if (strcmp(known->kernel, kernel->name) == 0) {
            return known->count;
        }
    }
    return kernel->registers;
}

void occupancy_forget(emu_machine *machine)
{
    while (machine->registers) {
        known_registers *next = machine->registers->next;
        free(machine->registers->kernel);
        free(machine->registers);
        machine->registers = next;
    }
}
