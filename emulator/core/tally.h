/*
 * tally.h: which bytes of device memory the lanes of a launch read and wrote: two maps with one bit
 * for every byte of the arena. exec_access.h says how accesses get here.
 */
#ifndef EMU_TALLY_H
#define EMU_TALLY_H

#include "emu.h"
#include "memory.h"

typedef struct memory_tally {
    uint8_t *read, *written; /* NULL: nothing is counted */
    size_t map_bytes;        /* of each */
} memory_tally;

bool tally_open(memory_tally *tally, const memory_arena *arena);
void tally_close(memory_tally *tally);
void tally_clear(memory_tally *tally);
void tally_count(const memory_tally *tally, memory_arena *arena, emu_byte_counts *out);

#endif
