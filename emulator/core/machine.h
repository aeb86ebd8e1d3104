/*
 * machine.h: the inside of the handles of emu.h.
 */
#ifndef EMU_MACHINE_H
#define EMU_MACHINE_H

#include "exec.h"
#include "mma_model.h"
#include "tally.h"

typedef struct launch_crew launch_crew;

/* The registers of kernels, where they are known from elsewhere. */
typedef struct known_registers {
    char *kernel;
    int count;
    struct known_registers *next;
} known_registers;

struct emu_machine {
    const emu_arch *arch;
    emu_schedule schedule;
    int threads;
    emu_handler *const *host_handlers;  /* of the host instruction set */
    emu_handler *handlers[IR_OP_COUNT]; /* what kernels get: these, or adverse ones */
    mma_device tensor_cores;            /* whose results the exact handlers of mma reproduce */
    memory_arena memory;
    pthread_mutex_t launching; /* held while a kernel runs, a module loads or memory is freed */
    launch_crew *crew;         /* the worker threads, made by the first launch */
    uint64_t launches;
    uint64_t instruction_limit; /* of a launch; 0: none */
    emu_counted *counted;       /* NULL: launches are not counted */
    void *counted_user;
    memory_tally tally; /* open while launches are counted */
    known_registers *registers;
    race_grid *race; /* NULL: races are not looked for */
    emu_module *modules;
};

struct emu_function {
    emu_module *module;
    ir_kernel *kernel;
};

struct emu_module {
    emu_machine *machine;
    ptx_module ptx;
    emu_function *functions;
    int function_count;
    emu_module *next;
};

void launch_crew_end(launch_crew *crew); /* NULL allowed */

/* ---- occupancy.c ---- */
int occupancy_registers(const emu_machine *machine, const ir_kernel *kernel);
void occupancy_forget(emu_machine *machine); /* what emu_set_registers has said */

#endif
