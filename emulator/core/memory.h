/*
 * memory.h: the device memory of a machine: one reserved arena, a sorted table of allocations, and
 * one bit for every byte that says whether it was ever written.
 */
#ifndef EMU_MEMORY_H
#define EMU_MEMORY_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cuda.h>

typedef struct memory_allocation {
    uint64_t base, bytes;
    bool whole; /* every byte is initialised: the bits need no look */
    char *label;
} memory_allocation;

/* An allocation as a running warp remembers it; lo == hi: nothing. */
typedef struct memory_span {
    uint64_t lo, hi;
    bool whole;
} memory_span;

typedef struct memory_arena {
    uint8_t *base;
    uint8_t *known; /* bit i of the map: byte base + i is initialised */
    size_t reserved;
    size_t capacity, used;
    uint64_t next; /* where the search for a gap begins: behind the allocation made last */
    memory_allocation *table; /* sorted by base */
    size_t count, table_capacity;
    pthread_mutex_t lock;
} memory_arena;

bool memory_open(memory_arena *arena, size_t capacity);
void memory_close(memory_arena *arena);

CUresult memory_alloc(memory_arena *arena, CUdeviceptr *out, size_t bytes, const char *label);
CUresult memory_free(memory_arena *arena, uint64_t base);
/* Copies the entry that holds `address`; false when there is none. */
bool memory_find(memory_arena *arena, uint64_t address, memory_allocation *out);
/* The allocations next to an address that is in none; either may be missing (bytes 0). */
void memory_neighbours(memory_arena *arena, uint64_t address, memory_allocation *below,
                       memory_allocation *above);
void memory_mark(memory_arena *arena, uint64_t address, size_t bytes);
void memory_copy_marks(memory_arena *arena, uint64_t to, uint64_t from, size_t bytes);

/* Bits [first, first + count) of a map: all set?; set them; clear them. */
bool bits_all(const uint8_t *map, uint64_t first, uint64_t count);
void bits_set(uint8_t *map, uint64_t first, uint64_t count);
void bits_clear(uint8_t *map, uint64_t first, uint64_t count);

#endif
