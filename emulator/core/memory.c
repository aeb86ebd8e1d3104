/*
 * memory.c: device memory. An allocation goes behind the one made before it, inside one PROT_NONE
 * reservation, and to the first gap when the end is reached: what was freed stays unused for long,
 * so that its use is found. The pages of an allocation become accessible when it is made and are
 * given back when it is freed, so that size costs nothing until it is touched.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "emu.h"
#include "exec.h"
#include "machine.h"

enum { ALIGNMENT = 512, GUARD = 4096, PAGE = 4096 };

static size_t round_up(size_t value, size_t to)
{
    return (value + to - 1) / to * to;
}

static void *reserve(size_t bytes, int protection)
{
    void *memory =
        mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

bool memory_open(memory_arena *arena, size_t capacity)
{
    *arena = (memory_arena){.capacity = capacity};
    arena->reserved = round_up(2 * capacity, PAGE);
    arena->base = reserve(arena->reserved, PROT_NONE);
    arena->known = reserve(arena->reserved / 8, PROT_READ | PROT_WRITE);
    arena->next = (uint64_t)(uintptr_t)arena->base + GUARD;
    pthread_mutex_init(&arena->lock, NULL);
    if (!arena->base || !arena->known) {
        memory_close(arena);
        return false;
    }
    return true;
}

void memory_close(memory_arena *arena)
{
    if (arena->base) {
        munmap(arena->base, arena->reserved);
    }
    if (arena->known) {
        munmap(arena->known, arena->reserved / 8);
    }
    for (size_t i = 0; i < arena->count; i++) {
        free(arena->table[i].label);
    }
    free(arena->table);
    pthread_mutex_destroy(&arena->lock);
    *arena = (memory_arena){0};
}

/* ---- the map of initialised bytes ---- */

bool bits_all(const uint8_t *map, uint64_t first, uint64_t count)
{
    uint64_t end = first + count;
    while (first < end && (first & 63)) {
        if (!(map[first >> 3] >> (first & 7) & 1)) {
            return false;
        }
        first++;
    }
    for (; first + 64 <= end; first += 64) {
        uint64_t word;
        memcpy(&word, map + (first >> 3), sizeof word);
        if (word != ~UINT64_C(0)) {
            return false;
        }
    }
    for (; first < end; first++) {
        if (!(map[first >> 3] >> (first & 7) & 1)) {
            return false;
        }
    }
    return true;
}

/* Other threads may write neighbouring bits: partial bytes are changed atomically. */
static void change_byte(uint8_t *byte, unsigned mask, bool set)
{
    if (set) {
        __atomic_fetch_or(byte, (uint8_t)mask, __ATOMIC_RELAXED);
    } else {
        __atomic_fetch_and(byte, (uint8_t)~mask, __ATOMIC_RELAXED);
    }
}

static void change_bits(uint8_t *map, uint64_t first, uint64_t count, bool set)
{
    uint64_t end = first + count;
    if (count == 0) {
        return;
    }
    uint64_t first_byte = first >> 3, last_byte = (end - 1) >> 3;
    unsigned head = 0xffu << (first & 7) & 0xff, tail = 0xffu >> (7 - ((end - 1) & 7));
    if (first_byte == last_byte) {
        change_byte(map + first_byte, head & tail, set);
        return;
    }
    change_byte(map + first_byte, head, set);
    memset(map + first_byte + 1, set ? 0xff : 0, last_byte - first_byte - 1);
    change_byte(map + last_byte, tail, set);
}

void bits_set(uint8_t *map, uint64_t first, uint64_t count)
{
    change_bits(map, first, count, true);
}

void bits_clear(uint8_t *map, uint64_t first, uint64_t count)
{
    change_bits(map, first, count, false);
}

/* ---- the table of allocations ---- */

/* Index of the first allocation above `address`; arena->lock is held. */
static size_t first_above(const memory_arena *arena, uint64_t address)
{
    size_t low = 0, high = arena->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (arena->table[middle].base <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static memory_allocation *holder(memory_arena *arena, uint64_t address)
{
    size_t i = first_above(arena, address);
    if (i == 0 || address - arena->table[i - 1].base >= arena->table[i - 1].bytes) {
        return NULL;
    }
    return &arena->table[i - 1];
}

/* The bytes an allocation takes of the arena: whole pages and a guard page. */
static uint64_t footprint(uint64_t bytes)
{
    return round_up(bytes, PAGE) + GUARD;
}

static uint64_t find_gap(const memory_arena *arena, uint64_t from, size_t bytes, size_t *position)
{
    uint64_t at = from;
    for (size_t i = first_above(arena, from - 1); i < arena->count; i++) {
        if (arena->table[i].base >= at + footprint(bytes)) {
            *position = i;
            return at;
        }
        at = arena->table[i].base + footprint(arena->table[i].bytes);
    }
    *position = arena->count;
    uint64_t end = (uint64_t)(uintptr_t)arena->base + arena->reserved;
    return at + footprint(bytes) <= end ? at : 0;
}

CUresult memory_alloc(memory_arena *arena, CUdeviceptr *out, size_t bytes, const char *label)
{
    *out = 0;
    if (bytes == 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&arena->lock);
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    size_t position;
    uint64_t base = 0;
    if (bytes <= arena->capacity && round_up(bytes, ALIGNMENT) <= arena->capacity - arena->used) {
        base = find_gap(arena, arena->next, bytes, &position);
        if (!base) {
            base = find_gap(arena, (uint64_t)(uintptr_t)arena->base + GUARD, bytes, &position);
        }
    }
    if (base &&
        mprotect((void *)(uintptr_t)base, round_up(bytes, PAGE), PROT_READ | PROT_WRITE) == 0) {
        POOL_GROW(arena->table, arena->count, arena->table_capacity);
        memmove(arena->table + position + 1, arena->table + position,
                (arena->count - position) * sizeof *arena->table);
        arena->table[position] = (memory_allocation){
            .base = base, .bytes = bytes, .label = label ? pool_require(strdup(label)) : NULL};
        arena->count++;
        arena->used += round_up(bytes, ALIGNMENT);
        arena->next = base + footprint(bytes);
        *out = base;
        result = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&arena->lock);
    return result;
}

/* Clears the marks of an allocation; whole pages of the map go back to the system. */
static void forget_marks(memory_arena *arena, uint64_t offset, uint64_t bytes)
{
    uint64_t first = round_up(offset / 8, PAGE), last = (offset + bytes) / 8 / PAGE * PAGE;
    if (last <= first) {
        bits_clear(arena->known, offset, bytes);
        return;
    }
    bits_clear(arena->known, offset, first * 8 - offset);
    madvise(arena->known + first, last - first, MADV_DONTNEED);
    bits_clear(arena->known, last * 8, offset + bytes - last * 8);
}

CUresult memory_free(memory_arena *arena, uint64_t base)
{
    pthread_mutex_lock(&arena->lock);
    memory_allocation *found = holder(arena, base);
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    if (found && found->base == base) {
        size_t pages = round_up(found->bytes, PAGE);
        uint64_t offset = base - (uint64_t)(uintptr_t)arena->base;
        madvise((void *)(uintptr_t)base, pages, MADV_DONTNEED);
        mprotect((void *)(uintptr_t)base, pages, PROT_NONE);
        forget_marks(arena, offset, found->bytes);
        arena->used -= round_up(found->bytes, ALIGNMENT);
        free(found->label);
        size_t index = (size_t)(found - arena->table);
        memmove(found, found + 1, (arena->count - index - 1) * sizeof *found);
        arena->count--;
        result = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&arena->lock);
    return result;
}

bool memory_find(memory_arena *arena, uint64_t address, memory_allocation *out)
{
    pthread_mutex_lock(&arena->lock);
    const memory_allocation *found = holder(arena, address);
    if (found) {
        *out = *found;
    }
    pthread_mutex_unlock(&arena->lock);
    return found != NULL;
}

void memory_neighbours(memory_arena *arena, uint64_t address, memory_allocation *below,
                       memory_allocation *above)
{
    pthread_mutex_lock(&arena->lock);
    size_t i = first_above(arena, address);
    *below = i > 0 ? arena->table[i - 1] : (memory_allocation){0};
    *above = i < arena->count ? arena->table[i] : (memory_allocation){0};
    pthread_mutex_unlock(&arena->lock);
}

void memory_mark(memory_arena *arena, uint64_t address, size_t bytes)
{
    pthread_mutex_lock(&arena->lock);
    memory_allocation *found = holder(arena, address);
    if (found && address == found->base && bytes == found->bytes) {
        found->whole = true;
    } else if (found && !found->whole) {
        bits_set(arena->known, address - (uint64_t)(uintptr_t)arena->base, bytes);
    }
    pthread_mutex_unlock(&arena->lock);
}

void memory_copy_marks(memory_arena *arena, uint64_t to, uint64_t from, size_t bytes)
{
    pthread_mutex_lock(&arena->lock);
    memory_allocation *source = holder(arena, from), *target = holder(arena, to);
    uint64_t start = (uint64_t)(uintptr_t)arena->base;
    if (!source->whole && target->whole) {
        bits_set(arena->known, target->base - start, target->bytes);
        target->whole = false;
    }
    if (source->whole) {
        if (!target->whole) {
            bits_set(arena->known, to - start, bytes);
        }
    } else if (bits_all(arena->known, from - start, bytes)) {
        bits_set(arena->known, to - start, bytes);
    } else {
        for (size_t step = 0; step < bytes; step++) {
            size_t i = to > from ? bytes - 1 - step : step;
            bool is_known = bits_all(arena->known, from - start + i, 1);
            change_byte(arena->known + ((to - start + i) >> 3), 1u << ((to - start + i) & 7),
                        is_known);
        }
    }
    pthread_mutex_unlock(&arena->lock);
}

/* ---- the API ---- */

CUresult emu_memory_alloc(emu_machine *machine, CUdeviceptr *out, size_t bytes, const char *label)
{
    return memory_alloc(&machine->memory, out, bytes, label);
}

CUresult emu_memory_free(emu_machine *machine, CUdeviceptr ptr)
{
    memory_allocation found;
    pthread_mutex_lock(&machine->launching);
    /* only variables have a label, and they go with their module */
    bool is_variable = memory_find(&machine->memory, ptr, &found) && found.label;
    CUresult result = is_variable ? CUDA_ERROR_INVALID_VALUE : memory_free(&machine->memory, ptr);
    pthread_mutex_unlock(&machine->launching);
    return result;
}

CUresult emu_memory_range(emu_machine *machine, CUdeviceptr ptr, CUdeviceptr *base, size_t *bytes)
{
    memory_allocation found;
    if (!memory_find(&machine->memory, ptr, &found)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (base) {
        *base = found.base;
    }
    if (bytes) {
        *bytes = found.bytes;
    }
    return CUDA_SUCCESS;
}

void emu_memory_usage(emu_machine *machine, size_t *free_bytes, size_t *total_bytes)
{
    pthread_mutex_lock(&machine->memory.lock);
    *free_bytes = machine->memory.capacity - machine->memory.used;
    *total_bytes = machine->memory.capacity;
    pthread_mutex_unlock(&machine->memory.lock);
}

static bool inside_one(emu_machine *machine, uint64_t address, size_t bytes)
{
    memory_allocation found;
    return memory_find(&machine->memory, address, &found) &&
           bytes <= found.bytes - (address - found.base);
}

CUresult emu_memory_to_device(emu_machine *machine, CUdeviceptr dst, const void *src, size_t bytes)
{
    if (bytes == 0) {
        return CUDA_SUCCESS;
    }
    if (!inside_one(machine, dst, bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    memmove((void *)(uintptr_t)dst, src, bytes);
    memory_mark(&machine->memory, dst, bytes);
    return CUDA_SUCCESS;
}

CUresult emu_memory_from_device(emu_machine *machine, void *dst, CUdeviceptr src, size_t bytes)
{
    if (bytes == 0) {
        return CUDA_SUCCESS;
    }
    if (!inside_one(machine, src, bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    memmove(dst, (const void *)(uintptr_t)src, bytes);
    return CUDA_SUCCESS;
}

CUresult emu_memory_device_to_device(emu_machine *machine, CUdeviceptr dst, CUdeviceptr src,
                                     size_t bytes)
{
    if (bytes == 0) {
        return CUDA_SUCCESS;
    }
    if (!inside_one(machine, dst, bytes) || !inside_one(machine, src, bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    memmove((void *)(uintptr_t)dst, (const void *)(uintptr_t)src, bytes);
    memory_copy_marks(&machine->memory, dst, src, bytes);
    return CUDA_SUCCESS;
}

CUresult emu_memory_set(emu_machine *machine, CUdeviceptr dst, uint32_t value, int width,
                        size_t count)
{
    if (count == 0) {
        return CUDA_SUCCESS;
    }
    if ((width != 1 && width != 2 && width != 4) || dst % (unsigned)width ||
        count > SIZE_MAX / (unsigned)width || !inside_one(machine, dst, count * (unsigned)width)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    uint8_t *at = (uint8_t *)(uintptr_t)dst;
    if (width == 1) {
        memset(at, (int)(value & 0xff), count);
    } else {
        for (size_t i = 0; i < count; i++) {
            memcpy(at + i * (size_t)width, &value, (size_t)width);
        }
    }
    memory_mark(&machine->memory, dst, count * (unsigned)width);
    return CUDA_SUCCESS;
}
