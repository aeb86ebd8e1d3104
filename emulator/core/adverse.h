/*
 * adverse.h: handlers of approximate instructions with errors as large as PTX allows.
 */
#ifndef EMU_ADVERSE_H
#define EMU_ADVERSE_H

#include "ir.h"

/* Puts them in a copy of a table of handlers. */
void adverse_replace(emu_handler *handlers[IR_OP_COUNT]);

#endif
