/*
 * tally.h: which bytes of device memory the lanes of a counted launch read and wrote: maps with one
 * bit for every byte of the arena, of the wave of blocks that runs and of the whole launch.
 */
#ifndef EMU_TALLY_H
#define EMU_TALLY_H

#include "memory.h"

enum { TALLY_READ, TALLY_WRITTEN, TALLY_KINDS };

typedef struct memory_tally {
    uint8_t *wave[TALLY_KINDS]; /* NULL: nothing is counted */
    uint8_t *launch[TALLY_KINDS];
    size_t map_bytes;     /* of each */
    pthread_mutex_t lock; /* of all changes */
    uint64_t bytes[TALLY_KINDS], touched, wave_bytes;
} memory_tally;

bool tally_open(memory_tally *tally, const memory_arena *arena);
void tally_close(memory_tally *tally);
void tally_begin_launch(memory_tally *tally);
void tally_begin_wave(memory_tally *tally);
/* Bytes of the arena from `offset` & ~63 on, one bit each. */
void tally_mark(memory_tally *tally, int kind, uint64_t offset, uint64_t bits);

/* Whether tally_mark would change nothing. */
static inline bool tally_has(const memory_tally *tally, int kind, uint64_t offset, uint64_t bits)
{
    const uint64_t *word = (const uint64_t *)(const void *)(tally->wave[kind] + (offset >> 6 << 3));
    return (__atomic_load_n(word, __ATOMIC_RELAXED) & bits) == bits;
}

#endif
