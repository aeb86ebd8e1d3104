/*
 * generated.h: kernels that the generator made, changed as a person might by mistake, and run on
 * the emulator with integers as inputs. Definitions: BUNDLE, a bundle of a spec that is
 * gated, without bias, bf16, of HIDDEN and FFN; DGRAD_BUNDLE, another of the same spec, for the
 * tiles of fc2's dgrad; BIAS_BUNDLE, one of specs/swiglu_bias.lua; FAMILY, the kernels' family;
 * CLUSTER, the blocks of their clusters (0: those of sm_80); TOKENS.
 */
#ifndef GENERATED_H
#define GENERATED_H

#include <cuda.h>
#include <driver/cu_emulator.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

/* One of each kind of operand, and those that do more than a product. */
typedef enum victim {
    FC1_FORWARD,
    FC2_FORWARD,
    FC2_DGRAD,
    FC1_DGRAD,
    FC1_WGRAD,
    BIAS_FC2_DGRAD, /* sums the columns of its output, too */
    BIAS_SUMS,
    VICTIMS
} victim;

typedef struct generated {
    victim which;
    json_t *manifest, *entry; /* entry: borrowed from the manifest */
    char *source;
} generated;

generated generated_read(victim which);
void generated_free(generated *kernel);
/* A value of the kernel's entry in the manifest. */
const char *generated_string(const generated *kernel, const char *key);
/* Replaces the last `from` of the source; the test fails if there is none. */
void generated_replace(generated *kernel, const char *from, const char *to);

/* Runs it for TOKENS tokens and beta 0; blocks that take tiles in turn have several. short_tensor:
 * has a row too few, or NULL. output_name, or NULL: a result that is copied to `output` (TOKENS *
 * HIDDEN * ... elements of bf16). */
CUresult generated_run(const generated *kernel, const char *short_tensor, const char *output_name,
                       unsigned short *output);

/* Runs it with a block for each cluster's tiles, and counts. */
void generated_count(const generated *kernel, emu_counters *counters);

/* A tensor's shape, and element (row, column) of an input: an integer between -2 and 2. */
void generated_shape(const char *name, size_t *rows, size_t *columns);
int generated_value(const char *name, size_t row, size_t column);

#endif
