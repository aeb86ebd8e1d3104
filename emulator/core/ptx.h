/*
 * ptx.h: what the parser makes of PTX text: variables, functions and their statements, with every
 * register resolved and every other name left as a symbol or a (name, scope) pair for the decoder.
 */
#ifndef EMU_PTX_H
#define EMU_PTX_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

#include "pool.h"

typedef enum ptx_type {
    TYPE_NONE,
#define TYPE(id, spelling, bits, class) TYPE_##id,
#include "ptx_types.def"
#undef TYPE
    TYPE_COUNT
} ptx_type;

const char *ptx_type_text(ptx_type type);
int ptx_type_bits(ptx_type type);
char ptx_type_class(ptx_type type);
ptx_type ptx_type_find(const char *spelling); /* TYPE_NONE when unknown */

typedef enum ptx_space {
    SPACE_GENERIC,
    SPACE_GLOBAL,
    SPACE_CONST,
    SPACE_SHARED,
    SPACE_LOCAL,
    SPACE_PARAM,
} ptx_space;

typedef struct ptx_binding ptx_binding;
typedef struct ptx_variable ptx_variable;
typedef struct ptx_function ptx_function;

/* An interned identifier: two equal names are one pointer. */
typedef struct ptx_name {
    const char *chars;
    size_t length;
    uint64_t hash;
    struct ptx_name *next;
    ptx_binding *binding; /* the innermost declaration while parsing */
} ptx_name;

/* A place in an initialiser that holds the address of a symbol. */
typedef struct ptx_fixup {
    size_t offset;
    int bytes;
    bool generic; /* generic(symbol) */
    ptx_name *symbol;
    int64_t addend;
    struct ptx_fixup *next;
} ptx_fixup;

struct ptx_variable {
    ptx_name *name;
    ptx_space space;
    ptx_type type;
    size_t align, bytes;
    bool is_extern;
    bool is_unsized; /* `x[]`: dynamic shared memory */
    bool is_param;   /* declared .param; in an inlined function it lives in local memory */
    uint8_t *initial;
    ptx_fixup *fixups;
    uint64_t address; /* global and const: device address; shared and param: offset in the kernel */
    int index;        /* locals and parameters: position in the function */
    uint32_t visit;   /* shared: the kernel it was placed for last */
    ptx_variable *next;
};

typedef enum ptx_operand_kind {
    OPERAND_REG,      /* reg */
    OPERAND_SPECIAL,  /* name, component */
    OPERAND_INT,      /* imm */
    OPERAND_F32,      /* imm: the bits */
    OPERAND_F64,      /* imm: the bits */
    OPERAND_VARIABLE, /* variable, imm = byte offset */
    OPERAND_FUNCTION, /* function */
    OPERAND_NAME,     /* name, scope: a label, or something declared later */
    OPERAND_ADDRESS,  /* [items[0] + imm] (+ further items: coordinates) */
    OPERAND_VECTOR,   /* {items...} or (items...) */
    OPERAND_SINK,     /* _ */
} ptx_operand_kind;

typedef struct ptx_operand {
    ptx_operand_kind kind;
    bool negated; /* !p */
    int reg;
    int pair;       /* second register of p|q, -1 none */
    char component; /* 'x'.. of a special register */
    int64_t imm;
    ptx_name *name;
    int scope;
    ptx_variable *variable;
    ptx_function *function;
    struct ptx_operand *items;
    int item_count;
} ptx_operand;

enum { PTX_MAX_MODIFIERS = 24 };

typedef struct ptx_statement {
    int line;
    ptx_name *label; /* a label definition (scope); no opcode then */
    int scope;
    int guard; /* register, -1 none */
    bool guard_negated;
    const char *opcode;
    const char **modifiers;
    int modifier_count;
    ptx_operand *operands;
    int operand_count;
} ptx_statement;

/* Registers declared together: %f<9>, or one by itself. */
typedef struct ptx_reg_names {
    ptx_name *name;
    int first, count;
    bool numbered;
    struct ptx_reg_names *next;
} ptx_reg_names;

struct ptx_function {
    ptx_name *name;
    int line;
    bool is_entry, is_extern, has_body;
    ptx_variable *params, *returns; /* linked by next, in order */
    int param_count, return_count;
    int maxntid[3], reqntid[3];
    int reqnctapercluster[3], maxclusterrank; /* 0: not given */
    bool is_explicit_cluster;                 /* it may only be launched with clusters */
    int maxnreg, minnctapersm; /* 0: not given */
    ptx_statement *body;
    int body_count, body_capacity;
    ptx_type *regs; /* type of register i */
    int reg_count, reg_capacity;
    ptx_reg_names *reg_names;
    int *scope_parent; /* scope 0 is the function */
    int scope_count, scope_capacity;
    ptx_variable *locals; /* .local, .shared and .param variables of the body */
    ptx_function *next;
    uint32_t visit; /* the kernel that looked at it last */
    bool active;    /* being inlined: a call of it now is a recursion */
};

typedef struct ptx_module {
    pool memory;
    const char *source; /* NUL-terminated copy */
    size_t source_bytes;
    int version;        /* 90 */
    int target;         /* 80 */
    char target_suffix; /* 'a', 'f' or 0 */
    ptx_name **names;
    size_t name_slots;
    ptx_variable *variables; /* module scope */
    ptx_function *functions; /* definitions and declarations, in order */
    uint32_t visits;         /* passes over functions and variables: see `visit` */
    jmp_buf *on_error;
    char error[1024];
} ptx_module;

/* Parses module->source. False: module->error says what is wrong where. */
bool ptx_parse(ptx_module *module);
void ptx_free(ptx_module *module);

ptx_name *ptx_intern(ptx_module *module, const char *chars, size_t length);
ptx_variable *ptx_find_variable(const ptx_module *module, const ptx_name *name);
ptx_function *ptx_find_function(const ptx_module *module, const ptx_name *name);

/* The text of a source line without its margins; length in *length. */
const char *ptx_line_text(const ptx_module *module, int line, size_t *length);

/* Leaves parsing or decoding: module->error becomes "PTX line N: ...". */
_Noreturn void ptx_fail(ptx_module *module, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
