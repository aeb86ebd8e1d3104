/*
 * tensor_map.h: what the 128 opaque bytes of a CUtensorMap hold here. The Driver API front writes
 * them (cuTensorMapEncodeTiled), kernels' tensor copies read them.
 */
#ifndef EMU_TENSOR_MAP_H
#define EMU_TENSOR_MAP_H

#include <stdbool.h>
#include <stdint.h>

enum { TENSOR_RANK = 5, TENSOR_MAP_BYTES = 128 };

/* Dimension 0 is the innermost one, whose elements are neighbours. */
typedef struct emu_tensor_map {
    uint64_t address;
    uint64_t strides[TENSOR_RANK]; /* bytes between elements; the first is element_bytes */
    uint64_t sizes[TENSOR_RANK];   /* in elements */
    uint16_t box[TENSOR_RANK];     /* elements that a copy moves */
    uint8_t steps[TENSOR_RANK];    /* from one of them to the next */
    uint8_t type;                  /* CUtensorMapDataType */
    uint8_t rank, element_bytes;
    uint8_t swizzled_bits; /* 0 to 3: of the 16-byte chunk's number in a span of 128 bytes */
    uint32_t check;        /* tensor_map_check of the rest */
} emu_tensor_map;

_Static_assert(sizeof(emu_tensor_map) <= TENSOR_MAP_BYTES, "a CUtensorMap has room for it");

/* A number that bytes which no encode function wrote are unlikely to have. */
static inline uint32_t tensor_map_check(const emu_tensor_map *map)
{
    const uint8_t *bytes = (const uint8_t *)map;
    uint32_t sum = 0x7e4504a9;
    for (unsigned i = 0; i < sizeof *map - sizeof map->check; i++) {
        sum = (sum ^ bytes[i]) * 16777619u;
    }
    return sum;
}

#endif
