/*
 * numerics.h: the words of emu_config.numerics.
 */
#ifndef EMU_NUMERICS_H
#define EMU_NUMERICS_H

#include "emu.h"
#include "mma_model.h"

/* The tensor cores that a word names on a device; MMA_NO_DEVICE for "fast" and NULL. False: an
 * unknown word, or "exact" on a device whose tensor cores nobody has measured. */
bool numerics_find(mma_device *out, const char *word, const emu_arch *arch);

#endif
