/*
 * counters.h: what is counted of a launch while counting is on (cuEmulatorCount of
 * driver/cu_emulator.h). Names, units and meanings are these tables; docs/emulator.md has the same.
 */
#ifndef EMU_COUNTERS_H
#define EMU_COUNTERS_H

#include <stdint.h>

/* X(ID, name, what it has): the classes of PTX instructions. */
#define EMU_CLASSES(X)                                                                             \
    X(INTEGER, integer, "integer arithmetic, logic, shifts and bytes")                             \
    X(FP32, fp32, "fp32 arithmetic and approximations")                                            \
    X(FP16, fp16, "fp16 and bf16 arithmetic and approximations, of pairs too")                     \
    X(FP64, fp64, "fp64 arithmetic")                                                               \
    X(CONVERT, convert, "cvt")                                                                     \
    X(MOVE, move, "mov, selp, setp, predicates and conversions of addresses")                      \
    X(GLOBAL, global, "ld and st of global memory, ld of constants")                               \
    X(SHARED, shared, "ld and st of shared memory")                                                \
    X(LOCAL, local, "ld and st of local memory")                                                   \
    X(PARAM, param, "ld of kernel parameters")                                                     \
    X(GENERIC, generic, "ld and st with generic addresses")                                        \
    X(ATOMIC, atomic, "atom and red")                                                              \
    X(TENSOR, tensor, "mma, wgmma")                                                                \
    X(MATRIX, matrix, "ldmatrix, stmatrix and movmatrix")                                          \
    X(ASYNC, async, "cp.async, wgmma: groups and waits")                                           \
    X(WARP, warp, "shfl, vote, match, redux, activemask and elect")                                \
    X(SYNC, sync, "bar, barrier and fences")                                                       \
    X(CONTROL, control, "bra, brx, ret, exit and trap")                                            \
    X(OTHER, other, "the rest: clocks, prefetches, calls of printf")

typedef enum emu_class {
#define EMU_CLASS_ID(id, name, meaning) EMU_CLASS_##id,
    EMU_CLASSES(EMU_CLASS_ID)
#undef EMU_CLASS_ID
        EMU_CLASS_COUNT
} emu_class;

/* X(name, unit, what it is) */
#define EMU_COUNTERS(X)                                                                            \
    X(fma_flops, "FLOP", "fp32, fp16, bf16, fp64: 1 for add, sub, mul, 2 for fma, mad; of lanes")  \
    X(tensor_flops, "operations", "2 M N K for each mma and wgmma, of integers too")               \
    X(epilogue_lanes, "instructions",                                                              \
      "of lanes, in warps that have waited for all wgmma of a tile and not begun the next")        \
    X(global_requests, "requests", "instructions of a warp that accessed global memory")           \
    X(global_sectors, "sectors", "of 32 bytes, the distinct ones of each request")                 \
    X(bytes_read, "bytes", "distinct bytes of global memory that were read")                       \
    X(bytes_written, "bytes", "distinct bytes of global memory that were written")                 \
    X(bytes_touched, "bytes", "distinct bytes that were read, written or both")                    \
    X(wave_bytes, "bytes", "the same for each wave of resident blocks, summed over waves")         \
    X(shared_wavefronts, "wavefronts", "passes over the 32 banks of shared memory")                \
    X(shared_excess, "wavefronts", "those of them that bank conflicts cost")                       \
    X(barriers, "barriers", "times that a barrier of a block was completed")                       \
    X(blocks, "blocks", "of the launch")                                                           \
    X(waves, "waves", "blocks / (blocks_per_sm * multiprocessors), rounded up")                    \
    X(blocks_per_sm, "blocks", "resident on a multiprocessor, as cuOccupancy... answers")          \
    X(registers, "registers", "a thread: of cuEmulatorSetRegisters, else an estimate")

/*
 * A warp instruction is one PTX instruction, issued once for the lanes of a warp that are at it,
 * also when its guard is false; it counts once, however often it was tried before all lanes had
 * come that it waits for. A lane instruction is one lane whose guard was true.
 *
 * A request has one sector for all that its lanes access of the same 32 bytes. cp.async is a
 * request of what it reads, and shared wavefronts of what it writes. A bulk copy is one request for
 * each row of its box, and takes 128 bytes of shared memory in a wavefront.
 *
 * An access to shared memory is served in groups of lanes that can fill the 32 banks of 4 bytes: 32
 * lanes of at most 4 bytes, 16 of 8, 8 of 16, and 8 rows of one matrix. A group needs as many
 * wavefronts as its busiest bank has distinct words, and would need one without conflicts. Atomic
 * operations count as one access.
 *
 * Waves run one after the other, each with the next blocks of the grid that fill the device.
 */
typedef struct emu_counters {
    uint64_t warp_instructions[EMU_CLASS_COUNT];
    uint64_t lane_instructions[EMU_CLASS_COUNT];
#define EMU_COUNTER_FIELD(name, unit, meaning) uint64_t name;
    EMU_COUNTERS(EMU_COUNTER_FIELD)
#undef EMU_COUNTER_FIELD
} emu_counters;

/* Called on the thread of a launch when its kernel has run, or was ended by a fault. */
typedef void emu_counted(void *user, const char *kernel, const emu_counters *counters);

#endif
