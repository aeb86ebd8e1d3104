/*
 * compiled.h: CUDA C programs of tests/emulator/programs, compiled by NVRTC or nvcc and loaded on
 * the emulated device.
 */
#ifndef MMLP_TESTS_COMPILED_H
#define MMLP_TESTS_COMPILED_H

#include <cuda.h>
#include <stddef.h>

/* PTX (malloc) of programs/`file` for "compute_80" and its like; a compile error fails the test. */
char *compiled_ptx(const char *file, const char *target);

/* Calls `check` once for each target this device runs, with the program loaded for it. Targets up
 * to sm_90 and those above come from different compilers. */
void compiled_for_targets(const char *file, void (*check)(CUmodule module));

/* Loads a program that is expected to be refused; the log of the driver, valid until the next call.
 */
CUresult compiled_try_load(const char **log, const char *file);

/* A test of one program: the body has `module`. */
#define PROGRAM(suite, sentence, file)                                                             \
    static void check_##sentence(CUmodule module);                                                 \
    Test(suite, sentence)                                                                          \
    {                                                                                              \
        compiled_for_targets(file, check_##sentence);                                              \
    }                                                                                              \
    static void check_##sentence(CUmodule module)

/* Launches `entry` on a grid of blocks and waits; arguments are addresses of variables. */
#define LAUNCH(module, entry, blocks, threads, ...)                                                \
    device_run(module, entry, blocks, threads, 0, (void *[]){__VA_ARGS__}, entry)

#endif
