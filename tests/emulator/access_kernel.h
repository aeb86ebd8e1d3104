/*
 * access_kernel.h: kernels that load and store every type in every state space, for isa_access.c
 * and isa_atomic.c. One warp; every lane has 64 bytes of its own in the space under test.
 */
#ifndef MMLP_TESTS_ACCESS_KERNEL_H
#define MMLP_TESTS_ACCESS_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#include "ptx_text.h"

enum { ACCESS_LANES = 32, ACCESS_BYTES = 64 };

typedef struct access_type {
    const char *name;
    int bytes;
    char class; /* untyped, unsigned, signed, float */
} access_type;
extern const access_type access_types[];
extern const int access_type_count;

/* Where the 64 bytes of a lane are: how they are called in an address, and what makes that an
 * address. */
typedef struct access_place {
    const char *space;   /* of the instruction, with its dot: ".global.nc" */
    const char *address; /* "%rd1", "parameter" */
    const char *setup;   /* PTX before; the lane's bytes in global memory are at %rd0, in shared
                            memory at %rd2 */
    int is_wide;         /* global memory: vectors of 32 bytes */
    int is_uniform;      /* the same bytes for every lane, those of lane 0 */
} access_place;

/* The elements' registers in braces, or the one: of `bytes` and class, %rd4 and on (b128: %q4, f32:
 * %f4, f64: %g4). */
void access_registers(ptx_text *t, const access_type *type, int count);
/* Register `index` of those as 64 bits (128: two words) to %out + offset. */
void access_store_register(ptx_text *t, const access_type *type, int index, int offset);
/* Registers from the 64-bit words at the lane's bytes of `in`. */
void access_load_registers(ptx_text *t, const access_type *type, int count);

/* Vectors that the type has in the place. */
int access_fits(const access_place *place, const access_type *type, int count);

/*
 * Runs the body with `in` (in_bytes for each lane, at %rd0) and returns what lanes wrote behind
 * %out (out_bytes for each lane, at %out). The module has a constant and a parameter with the bytes
 * of lane 0, and a function that hands its 64 bytes back.
 */
void access_run(const char *what, const ptx_text *body, const uint8_t *in, size_t in_bytes,
                uint8_t *out, size_t out_bytes);

#endif
