/*
 * lane_types.h: short names for the C types of one lane, as the rows of ops_*.def use them.
 */
#ifndef EMU_LANE_TYPES_H
#define EMU_LANE_TYPES_H

#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;
typedef float f32;
typedef double f64;
typedef struct f32x2 {
    float v[2];
} f32x2;
typedef struct b128 {
    uint64_t v[2];
} b128;

#endif
