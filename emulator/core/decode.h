/*
 * decode.h: the state of decoding one kernel and what the decode_*.c files share. Between decode
 * and flow.c an operand is a virtual register number, or a constant number with DECODE_CONSTANT
 * set.
 */
#ifndef EMU_DECODE_H
#define EMU_DECODE_H

#include "ir.h"

#define DECODE_CONSTANT 0x80000000u
#define DECODE_ALL      DECODE_CONSTANT /* constant 0: the predicate that is true in all lanes */
#define DECODE_NONE     (DECODE_CONSTANT + 1) /* constant 1: the predicate that is false */

typedef enum decode_flag_bit {
#define FLAG(id, spelling) FLAG_BIT_##id,
#include "modifiers.def"
    FLAG_BIT_COUNT
} decode_flag_bit;

_Static_assert(FLAG_BIT_COUNT <= 64, "flags are a set of bits");

#define F(id) (UINT64_C(1) << FLAG_BIT_##id)
#define M(id) (UINT64_C(1) << TYPE_##id) /* a set of types */

/* Classes of modifiers: which words an opcode takes. */
enum {
    CLASS_FLAG = 1 << 0,
    CLASS_TYPE = 1 << 1,
    CLASS_SPACE = 1 << 2,
    CLASS_VECTOR = 1 << 3,
    CLASS_COMPARE = 1 << 4,
    CLASS_ACTION = 1 << 5,
    CLASS_MODE = 1 << 6,
    CLASS_SHAPE = 1 << 7,
    CLASS_COUNT = 1 << 8,
    CLASS_LAYOUT = 1 << 9,
    CLASS_ENTRY_SPACE = 1 << 10,
    CLASS_FUNC_SPACE = 1 << 11,
    CLASS_HINT = 1 << 12, /* hints and orders name their opcodes */
    CLASS_ORDER = 1 << 13,
    CLASS_CLUSTER_SPACE = 1 << 14,
    CLASS_WGMMA_SHAPE = 1 << 15, /* names its opcode, too */
};

/* The words after the opcode, sorted by class. Empty classes are 0 (-1 where 0 is a value). */
typedef struct decode_words {
    uint64_t flags;
    ptx_type types[4];
    int type_count;
    ptx_space space, second_space;    /* of copies: to, from */
    bool has_space, is_cluster;       /* is_cluster: the first space is .shared::cluster */
    int vector;                       /* 1 when not written */
    int compare, action, mode, shape; /* exec.h: COMPARE_*, ACTION_*, MODE_*, SHAPE_*; -1 none */
    int matrices;
    int wgmma_n, wgmma_k;
    const char *layouts[2];
    int layout_count;
    uint32_t order;  /* ir.h: ORDER_* */
    bool cache_hint; /* .L2::cache_hint: one more operand */
} decode_words;

typedef struct decode_constant {
    uint64_t bits[2];
    int special;   /* ir_special, -1 none */
    uint8_t bytes; /* 0: predicate */
    uint32_t offset;
} decode_constant;

typedef struct decode_register {
    uint8_t bytes;     /* 0: predicate */
    bool is_temporary; /* written and read within one PTX statement */
    bool is_async;     /* an operand of wgmma: it shares its place with no other */
    uint32_t offset;
    ptx_name *name; /* of those: with its number, or without */
    int number;
} decode_register;

typedef struct decode_instr {
    emu_instr in;
    ir_op op;
    uint8_t defs, uses;
    bool has_guard, ends_block, falls_through; /* control flow */
    bool returns;                              /* a branch to the end of the inlined function */
    bool is_part;    /* of a PTX statement that another instruction stands for */
    ptx_name *label; /* branch target, resolved in the instance's labels */
    int scope;
    uint32_t jump_count;
    uint32_t list_defs, list_uses; /* in decoder.lists, from in.target on */
} decode_instr;

/* One inlined copy of a function body. */
typedef struct decode_instance {
    ptx_function *function;
    uint32_t first_register;
    uint32_t first_instr;
    uint32_t carry; /* the condition code register, made on first use */
    bool is_entry;
    int depth; /* calls around it */
    struct decode_instance *caller;
} decode_instance;

typedef struct decode_label {
    ptx_name *name;
    int scope;
    uint32_t at;
    int line; /* where it is declared */
} decode_label;

typedef struct decoder {
    ptx_module *module;
    ir_kernel *kernel;
    decode_instr *code;
    uint32_t count, capacity;
    decode_register *registers;
    uint32_t register_count, register_capacity;
    decode_constant *constants;
    uint32_t constant_count, constant_capacity;
    decode_label *labels; /* of the current instance: from first_label */
    uint32_t label_count, label_capacity, first_label;
    decode_label *jumps; /* entries of jump lists, resolved like branches */
    uint32_t jump_count, jump_capacity;
    uint32_t *lists; /* operands beyond those of an instruction: what they read and write first */
    uint32_t list_count, list_capacity, latest_list;
    decode_instance *instance;
    const ptx_statement *statement;
    bool has_instr; /* the statement has the instruction that stands for it */
    decode_words words;
    uint32_t guard;
    bool guard_negated;
    /* destinations narrower than their registers, widened after the statement */
    struct {
        uint32_t from, to;
        bool is_signed;
    } widen[IR_OPERANDS];
    int widen_count;
    int inlined;      /* calls so far */
    size_t local_top; /* bytes of local memory in use by the instances on the stack */
    emu_handler *const *handlers;
    jmp_buf on_error;
} decoder;

/* ---- decode.c ---- */
_Noreturn void decode_fail(decoder *d, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
_Noreturn void decode_unknown(decoder *d); /* this combination of words is not supported */
void decode_statements(decoder *d);        /* the body of d->instance */
void decode_place_locals(decoder *d, ptx_function *f); /* decode_control.c: its .local, .param */
void decode_operand_count(decoder *d, int least, int most);

/* ---- decode_operand.c ---- */
int decode_type_bytes(ptx_type type); /* of a register; 0: predicate */
uint32_t decode_register_number(const decoder *d, int reg);
void decode_widen(decoder *d); /* what the statement has left in narrower registers */
uint32_t decode_register_new(decoder *d, int bytes);
uint32_t decode_add_constant(decoder *d, decode_constant wanted);
uint32_t decode_const(decoder *d, uint64_t bits, int bytes);
/* A source of `bytes` (0: predicate); a wider register is truncated into a temporary. */
uint32_t decode_use(decoder *d, const ptx_operand *operand, int bytes);
/* A predicate source with its '!': a negated one is inverted into a temporary. */
uint32_t decode_use_predicate(decoder *d, const ptx_operand *operand);
/* A destination of `bytes`; a wider register is extended after the statement. */
uint32_t decode_def(decoder *d, const ptx_operand *operand, int bytes, bool is_signed);
uint32_t decode_def_register(decoder *d, int reg, int bytes, bool is_signed);
/* The register an operand names, with its own width. */
int decode_register_bytes(decoder *d, const ptx_operand *operand);
int64_t decode_immediate(decoder *d, const ptx_operand *operand); /* an integer constant */
bool decode_symbol_address(decoder *d, const ptx_operand *operand, ptx_space *space, uint64_t *out);

/* [register or symbol + offset] */
typedef struct decode_address {
    uint32_t base;
    int64_t offset;
    bool wide;
    ptx_space space; /* after .param of inlined functions became local memory */
} decode_address;
decode_address decode_address_in(decoder *d, const ptx_operand *operand, ptx_space space);

/* Appends an instruction; its r[] is filled with defs then uses by decode_add. The first one stands
 * for its statement. */
decode_instr *decode_emit(decoder *d, ir_op op);
/* One that prepares or finishes what the statement's own instruction does. */
decode_instr *decode_emit_part(decoder *d, ir_op op);
void decode_add_def(decode_instr *i, uint32_t reg);
void decode_add_use(decode_instr *i, uint32_t operand); /* after the last def */

/* aux of IR_bar */
enum { BAR_ALIGNED = 1 << 8, BAR_COUNTED = 1 << 9, BAR_ACTION_SHIFT = 16 };

enum { ISSPACEP_CLUSTER = 1 << 8 }; /* aux of IR_isspacep, beside the space */

enum { CLUSTER_ALIGNED = 1 }; /* aux of IR_cluster_arrive and IR_cluster_wait */

/* aux of IR_mbarrier, beside AUX_WIDE */
enum {
    MBARRIER_KIND = 15,
    MBARRIER_INIT = 0,
    MBARRIER_INVAL,
    MBARRIER_ARRIVE,
    MBARRIER_EXPECT_TX,
    MBARRIER_COMPLETE_TX,
    MBARRIER_TEST_WAIT,
    MBARRIER_TRY_WAIT,
    MBARRIER_COPIED,          /* cp.async.mbarrier.arrive, which counts with MBARRIER_NOINC alone */
    MBARRIER_EXPECT = 1 << 8, /* arrive.expect_tx */
    MBARRIER_DROP = 1 << 9,
    MBARRIER_NO_COMPLETE = 1 << 10,
    MBARRIER_PARITY = 1 << 11,
    MBARRIER_STATE = 1 << 12, /* the value has 64 bits */
    MBARRIER_GENERIC = 1 << 13,
    MBARRIER_CLUSTER = 1 << 14, /* it may be another block's */
    MBARRIER_NOINC = 1 << 15,
};

/* aux of IR_wgmma: N / 8, K / 8 and ptx_types; imm: flags. r: descriptors (of A: 0 where it is in
 * registers), scale-d; the list has D, then A. */
enum {
    WGMMA_N8 = 0x3f,
    WGMMA_K8_SHIFT = 6,
    WGMMA_D_SHIFT = 9,
    WGMMA_A_SHIFT = 15,
    WGMMA_B_SHIFT = 21,
    WGMMA_TYPE = 0x3f,
    WGMMA_SHAPE_BITS = (1 << WGMMA_A_SHIFT) - 1, /* with the type of D */
    WGMMA_A_REGISTERS = 1 << 0,
    WGMMA_A_TRANSPOSED = 1 << 1,
    WGMMA_B_TRANSPOSED = 1 << 2,
    WGMMA_A_NEGATED = 1 << 3,
    WGMMA_B_NEGATED = 1 << 4,
    WGMMA_SATURATES = 1 << 5,
    WGMMA_MOST_LIST = 128 + 4,
};

/* aux of IR_bulk: also the offset of the mbarrier and the dimensions of a tensor copy */
enum {
    BULK_STORES = 1 << 0,
    BULK_WIDE = 1 << 1,
    BULK_MBARRIER_WIDE = 1 << 2,
    BULK_PREFETCHES = 1 << 3, /* a box, and only its coordinates matter */
    BULK_TENSOR = 1 << 4,
    BULK_REDUCES = 1 << 5,
    BULK_MULTICAST = 1 << 6,
    BULK_PEER = 1 << 7, /* from the shared memory of the block itself */
    BULK_OFFSET_SHIFT = 8,
    BULK_OFFSETS = 1 << 20,
    TENSOR_RANK_SHIFT = 28,
};

enum { BULK_READ = 1 << 0 }; /* aux of IR_bulk_wait */

/* aux of IR_st_async, beside AUX_VECTOR, AUX_WIDE and BULK_CLUSTER */
enum { STORE_ASYNC_MBARRIER_WIDE = 1 << 8, STORE_ASYNC_8 = 1 << 9 /* bytes of an element */ };

#define BULK_CLUSTER (1u << 31) /* to any block of the cluster */

#define MBARRIER_GAVE_UP UINT32_MAX /* waits_for of a try_wait that returns false now */

/* ---- the opcodes ---- */
typedef void decode_function(decoder *d);
/* decode_words.c: reads the words of the statement; the opcode's decoder. */
decode_function *decode_read_words(decoder *d);
bool decode_is_alu(const char *opcode); /* decode_alu.c: has rows in ops_*.def */
/* The handler that converts, by row or convert_any with its aux. */
ir_op decode_convert_op(ptx_type to, ptx_type from, uint64_t flags, uint32_t *aux);
uint32_t decode_flags_aux(uint64_t flags);
bool decode_inlined(const decoder *d); /* inside a .func, not the kernel itself */
decode_function decode_alu, decode_cvt, decode_mov, decode_setp, decode_set, decode_selp,
    decode_carry, decode_cvta, decode_isspacep, decode_predicate_logic, decode_logic, decode_testp,
    decode_fns, decode_prmt;
decode_function decode_ld, decode_st, decode_atom, decode_red, decode_cp_async, decode_ldmatrix,
    decode_stmatrix, decode_movmatrix, decode_fence, decode_nop, decode_createpolicy,
    decode_prefetch, decode_nanosleep;
/* The plain load that begins a compare-and-swap loop races with nothing: the swap checks it. */
void decode_mark_cas_loops(decoder *d);
decode_function decode_bra, decode_brx, decode_call, decode_ret, decode_exit, decode_trap,
    decode_branchtargets;
decode_function decode_wgmma, decode_setmaxnreg;
decode_function decode_st_async, decode_cp_async_arrive, decode_bulk_prefetch,
    decode_griddepcontrol;
decode_function decode_cluster_barrier, decode_mapa, decode_getctarank;
decode_function decode_bar, decode_shfl, decode_vote, decode_match, decode_redux, decode_activemask,
    decode_elect, decode_mma, decode_mbarrier, decode_bulk;

/* ---- flow.c: control flow, liveness, slots; turns numbers into offsets ---- */
void flow_assign_slots(decoder *d);

#endif
