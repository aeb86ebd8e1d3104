/*
 * tally.c: see tally.h. The maps are reserved when counting begins; a page of them costs nothing
 * before a lane touches the 32 KB that it stands for.
 */
#include "tally.h"

#include <string.h>
#include <sys/mman.h>

bool tally_open(memory_tally *tally, const memory_arena *arena)
{
    size_t bytes = arena->reserved / 8;
    uint8_t *maps = mmap(NULL, 2 * TALLY_KINDS * bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (maps == MAP_FAILED) {
        return false;
    }
    *tally = (memory_tally){.map_bytes = bytes};
    for (size_t kind = 0; kind < TALLY_KINDS; kind++) {
        tally->wave[kind] = maps + kind * bytes;
        tally->launch[kind] = maps + (TALLY_KINDS + kind) * bytes;
    }
    pthread_mutex_init(&tally->lock, NULL);
    return true;
}

void tally_close(memory_tally *tally)
{
    if (tally->wave[0]) {
        munmap(tally->wave[0], 2 * TALLY_KINDS * tally->map_bytes);
        pthread_mutex_destroy(&tally->lock);
    }
    *tally = (memory_tally){0};
}

void tally_begin_launch(memory_tally *tally)
{
    madvise(tally->launch[0], TALLY_KINDS * tally->map_bytes, MADV_DONTNEED);
    memset(tally->bytes, 0, sizeof tally->bytes);
    tally->touched = 0;
    tally->wave_bytes = 0;
}

void tally_begin_wave(memory_tally *tally)
{
    madvise(tally->wave[0], TALLY_KINDS * tally->map_bytes, MADV_DONTNEED);
}

/* Sets bits in one map of a pair; those that were new, and those that are in neither. */
typedef struct tally_change {
    uint64_t fresh, untouched;
} tally_change;

static tally_change set_bits(uint8_t *const maps[TALLY_KINDS], int kind, uint64_t word,
                             uint64_t bits)
{
    uint64_t *own = (uint64_t *)(void *)maps[kind] + word;
    const uint64_t *other = (const uint64_t *)(const void *)maps[1 - kind] + word;
    uint64_t fresh = bits & ~*own;
    __atomic_store_n(own, *own | bits, __ATOMIC_RELAXED);
    return (tally_change){fresh, fresh & ~*other};
}

void tally_mark(memory_tally *tally, int kind, uint64_t offset, uint64_t bits)
{
    pthread_mutex_lock(&tally->lock);
    tally_change wave = set_bits(tally->wave, kind, offset / 64, bits);
    tally->wave_bytes += (uint64_t)__builtin_popcountll(wave.untouched);
    if (wave.fresh) {
        tally_change launch = set_bits(tally->launch, kind, offset / 64, wave.fresh);
        tally->bytes[kind] += (uint64_t)__builtin_popcountll(launch.fresh);
        tally->touched += (uint64_t)__builtin_popcountll(launch.untouched);
    }
    pthread_mutex_unlock(&tally->lock);
}
