/*
 * counted.h: the counters of a few lines of PTX, and what wraps them (kernel.h) subtracted.
 */
#ifndef MMLP_TESTS_COUNTED_H
#define MMLP_TESTS_COUNTED_H

#include <driver/cu_emulator.h>

enum { COUNTED_BYTES = 1 << 20 }; /* of %out; %in has the words that are given */
enum { COUNTED_WORDS = 64 };

/* Runs the body (kernel.h) counted. The parameters, addresses and thread that kernel.h reads and
 * its ret are not in the result. in: COUNTED_WORDS words, or NULL: zeros. */
emu_counters counted_run(const char *name, const char *body, unsigned blocks, unsigned threads,
                         const uint32_t *in);

/* For cuEmulatorCount: copies the counters of a kernel called "kernel" to *user. */
void counted_keep(void *user, const char *kernel, const emu_counters *counters);

/* Every counter that differs fails the test; name is that of the case. */
void counted_expect_classes(const char *name, const emu_counters *found,
                            const uint64_t warps[EMU_CLASS_COUNT],
                            const uint64_t lanes[EMU_CLASS_COUNT]);

#endif
