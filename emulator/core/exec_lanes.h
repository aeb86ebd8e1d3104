/*
 * exec_lanes.h: how a handler is written. Every exec_*.c is compiled once for each host instruction
 * set with EMU_ISA as its suffix; a handler is a loop over 32 lanes that vectorises when all lanes
 * run, and visits single lanes otherwise.
 */
#ifndef EMU_EXEC_LANES_H
#define EMU_EXEC_LANES_H

#include "exec.h"
#include "smallfloat.h"

#define ISA_PASTE2(name, isa) exec_##name##_##isa
#define ISA_PASTE(name, isa)  ISA_PASTE2(name, isa)
#define ISA(name)             ISA_PASTE(name, EMU_ISA)

#define HANDLER(name, class) emu_handler ISA(name);
#include "handlers.def"
#undef HANDLER

#define DEFINE_HANDLER(name) void ISA(name)(emu_warp * w, const emu_instr *in, u32 mask)

/* Operand k as an array of 32 lanes. */
#define REG(type, k) ((type *)(void *)(w->registers + in->r[k]))

#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

/* Runs a statement for every lane `i` of `mask`. A lane reads all of its operands before it writes.
 */
#define LANES(...)                                                                                 \
    do {                                                                                           \
        if (mask == FULL_MASK) {                                                                   \
            INDEPENDENT                                                                            \
            for (int i = 0; i < IR_LANES; i++) {                                                   \
                __VA_ARGS__                                                                        \
            }                                                                                      \
        } else {                                                                                   \
            for (u32 left_ = mask; left_; left_ &= left_ - 1) {                                    \
                int i = __builtin_ctz(left_);                                                      \
                __VA_ARGS__                                                                        \
            }                                                                                      \
        }                                                                                          \
    } while (0)

static inline u32 read_predicate(const emu_warp *w, u32 offset)
{
    u32 value;
    memcpy(&value, w->registers + offset, sizeof value);
    return value;
}

static inline void write_predicate(emu_warp *w, u32 offset, u32 value, u32 mask)
{
    u32 merged = (read_predicate(w, offset) & ~mask) | (value & mask);
    memcpy(w->registers + offset, &merged, sizeof merged);
}

static inline f32 ftz(f32 a)
{
    u32 bits = bits_of_f32(a);
    return f32_of_bits(bits & 0x7f800000u ? bits : bits & 0x80000000u);
}

#endif
