/*
 * saved_passes.h: which memory the last forward passes have saved to, so that dgrad can tell a
 * caller who gives it another.
 */
#ifndef MMLP_SAVED_PASSES_H
#define MMLP_SAVED_PASSES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { SAVED_PASSES = 1024 };

typedef struct saved_pass {
    uintptr_t begin;
    size_t bytes;
    int64_t tokens;
} saved_pass;

typedef struct saved_passes {
    saved_pass passes[SAVED_PASSES]; /* the oldest first; their memory does not overlap */
    int count;
    bool forgot; /* there were more: an address that is not here may be right */
} saved_passes;

/* The bytes are about to be written: what they held is gone. */
void saved_passes_drop(saved_passes *saved, uintptr_t begin, size_t bytes);
/* A forward pass has saved there; saved_passes_drop was called for these bytes. */
void saved_passes_add(saved_passes *saved, uintptr_t begin, size_t bytes, int64_t tokens);
/* Whether dgrad may read there. ERROR_ORDER: no forward pass has written it; ERROR_SHAPE: one of
 * another number of tokens has. */
mmlp_status saved_passes_check(const saved_passes *saved, uintptr_t begin, int64_t tokens);

#endif
