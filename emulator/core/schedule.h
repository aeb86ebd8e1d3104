/*
 * schedule.h: what of a schedule (emu.h) is asked for while a grid runs, and the mixing of numbers
 * that every choice is drawn with.
 */
#ifndef EMU_SCHEDULE_H
#define EMU_SCHEDULE_H

#include "emu.h"

/* The block that runs in turn `turn` of a grid of `blocks`: a permutation, the identity for seed
 * 0. */
uint64_t schedule_block(const emu_schedule *schedule, uint64_t turn, uint64_t blocks);

static inline uint64_t schedule_mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

#endif
