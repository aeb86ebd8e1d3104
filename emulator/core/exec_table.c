/*
 * exec_table.c: the handlers of one host instruction set, by number.
 */
#include "exec_lanes.h"

#define TABLE_PASTE2(isa) exec_table_##isa
#define TABLE_PASTE(isa)  TABLE_PASTE2(isa)

emu_handler *const TABLE_PASTE(EMU_ISA)[IR_OP_COUNT] = {
#define HANDLER(name, class) ISA(name),
#include "handlers.def"
#undef HANDLER
};
