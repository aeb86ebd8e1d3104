/* options.h: how the emulated devices are chosen, from the environment. */
#ifndef EMULATOR_OPTIONS_H
#define EMULATOR_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/emu.h"

typedef struct front_options {
    const emu_arch *arch;
    int device_count;
    emu_schedule schedule;
    int threads;
    bool check_races;
    const char *isa;      /* a constant, or NULL: the best one */
    const char *numerics; /* one of emu_numerics_at */
    const char *trace;    /* a file's name (trace.h), or NULL: none */
} front_options;

/* Reads options.def's variables. A bad value prints one line to stderr that names the variable, the
 * value and the legal values, and gives false. */
bool options_read(front_options *out);

#endif
