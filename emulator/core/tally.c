/*
 * tally.c: see tally.h. The maps are reserved when counting begins; a page of them costs nothing
 * before a lane touches the 32 KB that it stands for.
 */
#include <string.h>
#include <sys/mman.h>

#include "machine.h"

bool tally_open(memory_tally *tally, const memory_arena *arena)
{
    tally->map_bytes = arena->reserved / 8;
    void *maps = mmap(NULL, 2 * tally->map_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (maps == MAP_FAILED) {
        return false;
    }
    tally->read = maps;
    tally->written = tally->read + tally->map_bytes;
    return true;
}

void tally_close(memory_tally *tally)
{
    if (tally->read) {
        munmap(tally->read, 2 * tally->map_bytes);
    }
    *tally = (memory_tally){0};
}

void tally_clear(memory_tally *tally)
{
    madvise(tally->read, 2 * tally->map_bytes, MADV_DONTNEED);
}

/* Allocations begin on whole words of the maps, and bits behind their end are never set. */
void tally_count(const memory_tally *tally, memory_arena *arena, emu_byte_counts *out)
{
    *out = (emu_byte_counts){0};
    pthread_mutex_lock(&arena->lock);
    for (size_t i = 0; i < arena->count; i++) {
        uint64_t first = arena->table[i].base - (uint64_t)(uintptr_t)arena->base;
        for (uint64_t at = first / 8; at < (first + arena->table[i].bytes + 7) / 8; at += 8) {
            uint64_t read, written;
            memcpy(&read, tally->read + at, sizeof read);
            memcpy(&written, tally->written + at, sizeof written);
            out->read += (uint64_t)__builtin_popcountll(read);
            out->written += (uint64_t)__builtin_popcountll(written);
            out->touched += (uint64_t)__builtin_popcountll(read | written);
        }
    }
    pthread_mutex_unlock(&arena->lock);
}

/* ---- the API ---- */

CUresult emu_count_bytes(emu_machine *machine, bool on)
{
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&machine->launching);
    if (!on) {
        tally_close(&machine->tally);
    } else if (!machine->tally.read && !tally_open(&machine->tally, &machine->memory)) {
        result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_mutex_unlock(&machine->launching);
    return result;
}

CUresult emu_distinct_bytes(emu_machine *machine, emu_byte_counts *out)
{
    pthread_mutex_lock(&machine->launching);
    *out = machine->byte_counts;
    CUresult result = machine->has_byte_counts ? CUDA_SUCCESS : CUDA_ERROR_ILLEGAL_STATE;
    pthread_mutex_unlock(&machine->launching);
    return result;
}
