/*
 * ir.h: decoded PTX. One instruction is a handler with its operands; every operand, constants and
 * special registers too, is a byte offset in the warp's register file, so a handler never asks what
 * kind of operand it has. Made by decode*.c and flow.c, executed by warp.c.
 */
#ifndef EMU_IR_H
#define EMU_IR_H

#include "ptx.h"

typedef struct emu_warp emu_warp;
typedef struct emu_instr emu_instr;
typedef void emu_handler(emu_warp *warp, const emu_instr *in, uint32_t mask);

enum { IR_OPERANDS = 18, IR_LANES = 32 };

struct emu_instr {
    emu_handler *run;
    uint32_t guard;          /* offset of a predicate; 0: the constant "all lanes" */
    uint32_t guard_flip;     /* ~0 for @!p */
    int64_t imm;             /* address offset and the like */
    uint32_t aux;            /* modifiers, as the handler defines them */
    uint32_t target;         /* instruction index of a branch; first entry of a list */
    int32_t line;            /* PTX line */
    uint32_t order;          /* of memory instructions and fences: ORDER_* */
    uint32_t r[IR_OPERANDS]; /* destinations, then sources */
};

/* Memory order and scope. A strong access does not race with another whose scope covers it. */
enum {
    ORDER_STRONG = 1 << 0,
    ORDER_ACQUIRE = 1 << 1,
    ORDER_RELEASE = 1 << 2,
    ORDER_NARROW = 1 << 3, /* a written scope of one block */
    ORDER_WIDE = 1 << 4,   /* the scope covers other blocks */
    ORDER_CLUSTER = 1 << 5, /* the scope covers the cluster and no more */
};

/* Handlers, as numbers that are the same for every instruction set; exec_table.c has the pointers.
 */
typedef enum ir_op {
#define HANDLER(name, class) IR_##name,
#include "handlers.def"
#undef HANDLER
    IR_OP_COUNT
} ir_op;

/* The handlers compiled for one host instruction set. */
extern emu_handler *const exec_table_plain[IR_OP_COUNT];
#ifdef EMU_HAVE_X86
extern emu_handler *const exec_table_avx2[IR_OP_COUNT];
extern emu_handler *const exec_table_avx512[IR_OP_COUNT];
#endif

typedef enum ir_special {
#define SPECIAL(id, spelling, component, bytes, value) IR_SPECIAL_##id,
#include "specials.def"
#undef SPECIAL
    IR_SPECIAL_COUNT
} ir_special;

typedef struct ir_special_use {
    ir_special special;
    uint32_t offset;
} ir_special_use;

/* Behind a block's own shared memory: what the system keeps to itself, and how much of that
 * cooperative groups use. Figures: what GPUs of compute capability 8.6 report. */
enum { IR_RESERVED_SHARED = 1024, IR_RESERVED_SHARED_USED = 288, IR_RESERVED_SHARED_ALIGN = 128 };

/* Generic addresses of spaces that are not the global arena: beyond any host address. */
#define IR_SHARED_WINDOW (UINT64_C(1) << 48)
/* Addresses of .shared::cluster: those of the block itself begin at 0, those of the block with rank
 * r at (r + 1) * IR_RANK_BYTES. */
#define IR_RANK_BYTES    (UINT64_C(1) << 24)
#define IR_LOCAL_WINDOW  (UINT64_C(2) << 48)
#define IR_PARAM_WINDOW  (UINT64_C(3) << 48)
#define IR_WINDOW_BYTES  (UINT64_C(1) << 32)

/* The name of a register that wgmma uses: %f and 12 (-1: no number). */
typedef struct ir_async_register {
    ptx_name *name;
    int number;
} ir_async_register;

/* A kernel, ready to run. */
typedef struct ir_kernel {
    const char *name;
    ptx_module *module;
    const ptx_function *function;
    emu_instr *code;
    uint32_t code_count;
    uint16_t *ops; /* of the code: what PTX says, an ir_op; IR_OP_COUNT: no statement of its own */
    uint32_t *jumps; /* targets of brx.idx */
    uint32_t *lists; /* registers of wgmma */
    /* Registers that wgmma uses while other instructions run: from this offset on, 128 bytes each.
     * What else touches them runs through wgmma.c. */
    bool has_wgmma, has_setmaxnreg;
    uint32_t async_first, async_count;
    ir_async_register *async_registers;
    emu_handler **watched; /* the handler of instruction i, where code[i].run is that of wgmma.c */
    uint8_t *constants;    /* the first constant_bytes of every warp's registers */
    size_t constant_bytes, register_bytes;
    ir_special_use *specials;
    int special_count;
    size_t local_bytes, param_bytes;
    size_t shared_static, shared_dynamic; /* bytes of static variables; offset of dynamic ones */
    bool knows_reserved_shared;           /* it reads where the memory of the system begins */
    int registers;                        /* estimate of 32-bit registers a thread */
} ir_kernel;

/* Decodes an entry function; NULL: module->error says why. handlers: one of the tables above. */
ir_kernel *decode_kernel(ptx_module *module, ptx_function *entry, emu_handler *const *handlers);
void ir_kernel_free(ir_kernel *kernel);

#endif
