/*
 * emu.h: the joint between the CUDA Driver API front (emulator/driver) and the machine that
 * executes PTX (emulator/core). The front owns contexts, streams, events and the API's argument
 * checks; the machine owns device memory, PTX modules and launches, and the checks made while a
 * kernel runs.
 *
 * Threads: every function may be called from any thread; a machine serialises what it must.
 * Results are CUresult values, the ones a real driver would return.
 */
#ifndef EMU_H
#define EMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cuda.h>

#include "counters.h"

/* What one emulated GPU is: one row of arch.def. */
typedef struct emu_arch {
    const char *id;   /* "a100", "h100", ...: the word used in MMLP_EMULATOR_DEVICE */
    const char *name; /* "Emulated A100": what cuDeviceGetName answers */
    int cc_major, cc_minor;
    int sm_count;
    int shared_per_block;       /* bytes without opt-in: 49152 */
    int shared_per_block_optin; /* bytes with CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES */
    int shared_per_sm;
    int regs_per_sm;
    int max_threads_per_sm;
    int max_blocks_per_sm;
    int l2_bytes;
    int clock_khz;
    size_t memory_bytes;
} emu_arch;

/* The row called `id`, or NULL; emu_arch_at(i) walks the table until NULL. */
const emu_arch *emu_arch_find(const char *id);
const emu_arch *emu_arch_at(int index);

/* The choices that CUDA leaves open: a run is a function of them and of the block alone, whatever
 * the number of host threads. All zero: as MMLP_EMULATOR_SCHEDULE=0. */
typedef struct emu_schedule {
    uint64_t seed;    /* of the orders of warps and of blocks, and of errors */
    int32_t quantum;  /* instructions a warp runs before another may; 0: drawn each time */
    bool late_copies; /* cp.async moves its bytes in the wait that covers it, not at issue */
    bool elect_high;  /* elect.sync chooses the highest lane, not the lowest */
    bool brief_waits; /* every other mbarrier.try_wait that would wait says so instead */
    bool adverse;     /* .approx results are as wrong as they may be */
} emu_schedule;

/* A warp runs until it waits; the limit is for those that spin. */
#define EMU_QUANTUM_BLOCK (1 << 20)
enum { EMU_SCHEDULE_BYTES = 96 };

/* From "SEED,word=value,..."; false: not such a text, emu_schedule_legal says what is. */
bool emu_schedule_read(emu_schedule *out, const char *text);
const char *emu_schedule_legal(void);
void emu_schedule_print(char out[EMU_SCHEDULE_BYTES], const emu_schedule *schedule);

/* How a machine behaves; the front fills it from the environment (see driver/options.c). */
typedef struct emu_config {
    const emu_arch *arch;
    emu_schedule schedule;
    int threads;          /* host threads that run blocks; 0: all cores of this process */
    const char *isa;      /* "avx512", "avx2", "plain", or NULL: the best this CPU has */
    bool check_races;     /* report races too (race.h); launches then use one host thread */
    const char *numerics; /* how mma.sync rounds: one of emu_numerics_at, or NULL: "fast" */
} emu_config;

/* "fast", "exact" (that of the device), "exact:a100", ...; walks the words until NULL. */
const char *emu_numerics_at(int index);
/* Whether a machine of this device can be made with the word. */
bool emu_numerics_known(const char *word, const emu_arch *arch);

typedef struct emu_machine emu_machine;
typedef struct emu_module emu_module;
typedef struct emu_function emu_function;

/* isa not available on this CPU or an unknown word, numerics that are not known:
 * CUDA_ERROR_INVALID_VALUE. */
CUresult emu_machine_create(emu_machine **out, const emu_config *config);
void emu_machine_destroy(emu_machine *machine); /* NULL allowed; frees its memory and modules */

/* ---- device memory -------------------------------------------------------------------------
 * A CUdeviceptr is the address inside one reserved arena, so pointer arithmetic works as on a GPU.
 * Every allocation starts on 512 bytes and is followed by a guard gap. All bytes start
 * "uninitialised"; copies, memsets and kernel stores initialise them. */

/* bytes == 0: INVALID_VALUE; more than the device has left: OUT_OF_MEMORY. `label` (may be NULL)
 * names the allocation in reports, e.g. a module variable. */
CUresult emu_memory_alloc(emu_machine *machine, CUdeviceptr *out, size_t bytes, const char *label);
/* Not a base, or the variable of a module: INVALID_VALUE. */
CUresult emu_memory_free(emu_machine *machine, CUdeviceptr ptr);
/* The allocation that holds ptr, or INVALID_VALUE. Either out pointer may be NULL. */
CUresult emu_memory_range(emu_machine *machine, CUdeviceptr ptr, CUdeviceptr *base, size_t *bytes);
void emu_memory_usage(emu_machine *machine, size_t *free_bytes, size_t *total_bytes);
/* Copies. A range that leaves its allocation is INVALID_VALUE and copies nothing. from_device
 * copies uninitialised bytes as they are; device_to_device carries the "initialised" marks along.
 */
CUresult emu_memory_to_device(emu_machine *machine, CUdeviceptr dst, const void *src, size_t bytes);
CUresult emu_memory_from_device(emu_machine *machine, void *dst, CUdeviceptr src, size_t bytes);
CUresult emu_memory_device_to_device(emu_machine *machine, CUdeviceptr dst, CUdeviceptr src,
                                     size_t bytes);
/* Writes `count` elements of `width` (1, 2 or 4) bytes. */
CUresult emu_memory_set(emu_machine *machine, CUdeviceptr dst, uint32_t value, int width,
                        size_t count);

/* ---- modules -------------------------------------------------------------------------------- */

/*
 * Parses and decodes PTX text (`bytes` long, a terminating NUL not needed). A cubin or fatbin image
 * is CUDA_ERROR_NO_BINARY_FOR_GPU, text that does not parse or uses an unknown instruction is
 * CUDA_ERROR_INVALID_PTX, a .target above the device's compute capability
 * CUDA_ERROR_NO_BINARY_FOR_GPU, a target with the suffix `a` on another architecture too. On
 * failure `log` (capacity log_bytes, may be NULL) holds one line: the PTX line, what was found,
 * what was wanted.
 */
CUresult emu_module_load(emu_machine *machine, emu_module **out, const void *image, size_t bytes,
                         char *log, size_t log_bytes);
void emu_module_unload(emu_machine *machine, emu_module *module);
CUresult emu_module_function(emu_module *module, const char *name, emu_function **out);
int emu_module_function_count(const emu_module *module);
emu_function *emu_module_function_at(emu_module *module, int index);
CUresult emu_module_global(emu_module *module, const char *name, CUdeviceptr *ptr, size_t *bytes);

typedef struct emu_function_attributes {
    const char *name; /* lives as long as the module */
    size_t static_shared_bytes;
    size_t const_bytes;
    size_t local_bytes;
    int max_threads; /* from .maxntid, else 1024 */
    int reqntid[3];  /* from .reqntid, else zeros */
    int cluster[3];  /* from .reqnctapercluster, else zeros */
    int max_cluster; /* blocks, from .maxclusterrank, else 0 */
    bool is_explicit_cluster;
    int registers;   /* of emu_set_registers, else an estimate from liveness: PTX has none */
    int ptx_version; /* 90 for 9.0 */
    int target;      /* 80 for sm_80 */
    int param_count;
    size_t param_bytes; /* whole parameter block */
} emu_function_attributes;

void emu_function_get(const emu_function *function, emu_function_attributes *out);
/* Offset and size of parameter `index` in the block; index out of range: INVALID_VALUE. */
CUresult emu_function_param(const emu_function *function, int index, size_t *offset, size_t *bytes);

/* ---- launch --------------------------------------------------------------------------------- */

typedef struct emu_launch {
    unsigned grid[3], block[3], cluster[3]; /* cluster 0 or 1 each: none */
    size_t dynamic_shared_bytes;
    bool is_dependent; /* programmatically: it may begin before the launches before it are over */
} emu_launch;

/*
 * Runs the kernel to its end on this thread and the machine's workers. params: the packed parameter
 * block of emu_function_attributes.param_bytes bytes. A violation stops the kernel and returns
 * ILLEGAL_ADDRESS (bounds), MISALIGNED_ADDRESS, ILLEGAL_INSTRUCTION, ASSERT, or LAUNCH_FAILED
 * (trap, and what only a checker finds: uninitialised reads, barrier misuse, divergence at an
 * aligned instruction, deadlock, and races where the machine checks them). `report` (capacity
 * report_bytes, may be NULL) then holds the text: what, kernel, PTX line with its text, block,
 * warp, lanes, address, allocation (base, size, label, distance), and the schedule. A launch that
 * the device cannot make (extents, threads, shared memory, clusters) runs nothing and is
 * INVALID_VALUE.
 */
CUresult emu_run(emu_machine *machine, emu_function *function, const emu_launch *launch,
                 const void *params, char *report, size_t report_bytes);

/* Ends later launches that run more instructions of warps than this, about, with LAUNCH_TIMEOUT; 0:
 * they may run for ever. */
void emu_limit_instructions(emu_machine *machine, uint64_t most);

/* Later launches are counted and handed to `counted` (counters.h), or not counted any more: NULL.
 * OUT_OF_MEMORY: no address space for the maps. */
CUresult emu_count(emu_machine *machine, emu_counted *counted, void *user);

/* ---- occupancy ------------------------------------------------------------------------------ */

/* Blocks of `threads` threads (at least 1) that fit on one multiprocessor; 0: not even one. */
int emu_blocks_per_sm(const emu_function *function, unsigned threads, size_t dynamic_shared_bytes);
/* Kernels of this name in modules that are loaded later have so many registers a thread, in place
 * of the estimate. */
void emu_set_registers(emu_machine *machine, const char *kernel, int registers);

#endif
