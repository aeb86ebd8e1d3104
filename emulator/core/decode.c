/*
 * decode.c: the frame of decoding: words of an opcode, operands, constants, statements, labels, and
 * the kernel that comes out. What single opcodes mean is in decode_alu.c, decode_logic.c,
 * decode_memory.c, decode_control.c and decode_collective.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exec.h"

enum { MOST_SHARED = 1 << 20, MOST_PARAMS = 32764 };

/* ---- words ---- */

typedef struct word_row {
    int class;
    const char *spelling;
    int value;
    const char *opcodes; /* that take the word; NULL: those that take its class */
} word_row;

static const word_row words[] = {
#define FLAG(id, spelling)            {CLASS_FLAG, spelling, FLAG_BIT_##id, NULL},
#define SPACE_WORD(spelling, space)   {CLASS_SPACE, spelling, space, NULL},
#define ENTRY_SPACE(spelling)         {CLASS_ENTRY_SPACE, spelling, SPACE_PARAM, NULL},
#define CLUSTER_SPACE(spelling)       {CLASS_CLUSTER_SPACE, spelling, SPACE_SHARED, NULL},
#define FUNC_SPACE(spelling)          {CLASS_FUNC_SPACE, spelling, SPACE_PARAM, NULL},
#define VECTOR_WORD(spelling, n)      {CLASS_VECTOR, spelling, n, NULL},
#define COMPARE(id, spelling)         {CLASS_COMPARE, spelling, COMPARE_##id, NULL},
#define ACTION(id, spelling)          {CLASS_ACTION, spelling, ACTION_##id, NULL},
#define MODE(id, spelling)            {CLASS_MODE, spelling, MODE_##id, NULL},
#define SHAPE(id, spelling)           {CLASS_SHAPE, spelling, SHAPE_##id, NULL},
#define COUNT_WORD(spelling, n)       {CLASS_COUNT, spelling, n, NULL},
#define LAYOUT(spelling)              {CLASS_LAYOUT, spelling, 0, NULL},
#define HINT(spelling, opcodes)       {CLASS_HINT, spelling, 0, opcodes},
#define ORDER(spelling, opcodes, ord) {CLASS_ORDER, spelling, ord, opcodes},
#define TYPE(id, spelling, bits, cls) {CLASS_TYPE, spelling, TYPE_##id, NULL},
#include "modifiers.def"
#include "ptx_types.def"
#undef TYPE
};

typedef struct opcode_row {
    const char *name;
    int classes;
    uint64_t flags;
    decode_function *decode;
} opcode_row;

static const opcode_row opcodes[] = {
#define OPCODE(name, classes, flags, decode) {name, classes, flags, decode},
#include "opcodes.def"
#undef OPCODE
};

static const opcode_row alu_opcode = {"", CLASS_TYPE, ~UINT64_C(0), decode_alu};

_Noreturn void decode_fail(decoder *d, const char *format, ...)
{
    char reason[512];
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    ptx_fail(d->module, d->statement ? d->statement->line : 1, "%s", reason);
}

_Noreturn void decode_unknown(decoder *d)
{
    char opcode[256];
    int used = snprintf(opcode, sizeof opcode, "%s", d->statement->opcode);
    for (int i = 0; i < d->statement->modifier_count && used < (int)sizeof opcode; i++) {
        used += snprintf(opcode + used, sizeof opcode - (size_t)used, ".%s",
                         d->statement->modifiers[i]);
    }
    decode_fail(d, "instruction '%s' is not implemented", opcode);
}

static void take_word(decoder *d, const word_row *row)
{
    decode_words *w = &d->words;
    switch (row->class) {
    case CLASS_FLAG:
        w->flags |= UINT64_C(1) << row->value;
        break;
    case CLASS_TYPE:
        if (w->type_count == 4) {
            decode_unknown(d);
        }
        w->types[w->type_count++] = (ptx_type)row->value;
        break;
    case CLASS_SPACE:
    case CLASS_ENTRY_SPACE:
    case CLASS_CLUSTER_SPACE:
    case CLASS_FUNC_SPACE:
        if (w->has_space && (w->mode != MODE_ASYNC || w->second_space)) {
            decode_unknown(d);
        }
        *(w->has_space ? &w->second_space : &w->space) = (ptx_space)row->value;
        w->has_space = true;
        break;
    case CLASS_VECTOR:
        w->vector = row->value;
        break;
    case CLASS_COMPARE:
        w->compare = row->value;
        break;
    case CLASS_ACTION:
        w->action = row->value;
        break;
    case CLASS_MODE:
        if (w->mode < 0 || w->mode == MODE_ASYNC) {
            w->mode = row->value;
        } else if (w->mode != MODE_WARP || row->value != MODE_SYNC) {
            decode_unknown(d);
        }
        break;
    case CLASS_SHAPE:
        w->shape = row->value;
        break;
    case CLASS_COUNT:
        w->matrices = row->value;
        break;
    case CLASS_LAYOUT:
        if (w->layout_count < 2) {
            w->layouts[w->layout_count] = row->spelling;
        }
        w->layout_count++;
        break;
    case CLASS_ORDER:
        w->order |= (uint32_t)row->value;
        break;
    default:
        w->cache_hint |= strcmp(row->spelling, "L2::cache_hint") == 0;
        break;
    }
}

static bool takes_word(const opcode_row *opcode, const word_row *word)
{
    if (word->class == CLASS_FLAG) {
        return opcode->flags >> word->value & 1;
    }
    if (!word->opcodes) {
        return opcode->classes & word->class;
    }
    size_t length = strlen(opcode->name);
    for (const char *at = word->opcodes; length && (at = strstr(at, opcode->name)); at += length) {
        if ((at == word->opcodes || at[-1] == ' ') && (at[length] == ' ' || at[length] == 0)) {
            return true;
        }
    }
    return false;
}

static void read_words(decoder *d, const opcode_row *opcode)
{
    d->words = (decode_words){
        .vector = 1, .compare = -1, .action = -1, .mode = -1, .shape = -1, .matrices = 0};
    for (int i = 0; i < d->statement->modifier_count; i++) {
        const char *spelling = d->statement->modifiers[i];
        const word_row *found = NULL;
        for (size_t j = 0; j < sizeof words / sizeof words[0] && !found; j++) {
            const word_row *row = &words[j];
            if (strcmp(row->spelling, spelling) == 0 && takes_word(opcode, row)) {
                found = row;
            }
        }
        if (!found) {
            decode_fail(d, "modifier '.%s' of '%s' is not implemented", spelling,
                        d->statement->opcode);
        }
        take_word(d, found);
    }
}

/* ---- appending instructions ---- */

/* One that prepares or finishes what the statement's own instruction does. */
static decode_instr *emit_part(decoder *d, ir_op op)
{
    if (d->count >= 4u << 20) {
        decode_fail(d,
                    "the kernel has more than 4 million instructions once its calls are inlined");
    }
    POOL_GROW(d->code, d->count, d->capacity);
    decode_instr *in = &d->code[d->count++];
    *in = (decode_instr){.op = op, .falls_through = true};
    in->in.line = d->statement ? d->statement->line : 0;
    in->in.guard = d->guard;
    in->in.guard_flip = d->guard_negated ? FULL_MASK : 0;
    in->has_guard = d->guard != DECODE_ALL;
    in->is_part = true;
    return in;
}

/* ---- registers and constants ---- */

uint32_t decode_register_new(decoder *d, int bytes)
{
    POOL_GROW(d->registers, d->register_count, d->register_capacity);
    d->registers[d->register_count] =
        (decode_register){.bytes = (uint8_t)bytes, .is_temporary = true};
    return d->register_count++;
}

static uint32_t add_constant(decoder *d, decode_constant wanted)
{
    for (uint32_t i = 0; i < d->constant_count; i++) {
        const decode_constant *c = &d->constants[i];
        if (c->bits[0] == wanted.bits[0] && c->bits[1] == wanted.bits[1] &&
            c->bytes == wanted.bytes && c->special == wanted.special) {
            return i | DECODE_CONSTANT;
        }
    }
    POOL_GROW(d->constants, d->constant_count, d->constant_capacity);
    d->constants[d->constant_count] = wanted;
    return d->constant_count++ | DECODE_CONSTANT;
}

uint32_t decode_const(decoder *d, uint64_t bits, int bytes)
{
    if (bytes < 8) {
        bits &= (UINT64_C(1) << 8 * bytes) - 1;
    }
    return add_constant(
        d, (decode_constant){.bits = {bits, 0}, .special = -1, .bytes = (uint8_t)bytes});
}

static int register_bytes(ptx_type type)
{
    return type == TYPE_PRED ? 0 : ptx_type_bits(type) / 8;
}

static uint32_t register_number(const decoder *d, int reg)
{
    return d->instance->first_register + (uint32_t)reg;
}

int decode_register_bytes(decoder *d, const ptx_operand *operand)
{
    if (operand->kind != OPERAND_REG) {
        decode_fail(d, "a register is wanted as operand of '%s'", d->statement->opcode);
    }
    return register_bytes(d->instance->function->regs[operand->reg]);
}

static uint32_t dynamic_special(decoder *d, const char *name)
{
    static const char *const narrow[] = {"%clock", "%clock_hi", "%globaltimer_lo",
                                         "%globaltimer_hi"};
    static const char *const wide[] = {"%clock64", "%globaltimer"};
    for (unsigned i = 0; i < 6; i++) {
        if (strcmp(name, i < 4 ? narrow[i] : wide[i - 4]) == 0) {
            decode_instr *in = emit_part(d, IR_clock);
            uint32_t result = decode_register_new(d, i < 4 ? 4 : 8);
            decode_add_def(in, result);
            in->in.aux = i;
            return result;
        }
    }
    decode_fail(d, "special register or undeclared register '%.100s'", name);
}

static uint32_t use_special(decoder *d, const ptx_operand *operand, int *bytes)
{
    static const struct {
        const char *name;
        char component;
        uint8_t bytes;
    } rows[] = {
#define SPECIAL(id, spelling, component, bytes, value) {spelling, component, bytes},
#include "specials.def"
#undef SPECIAL
    };
    for (int i = 0; i < IR_SPECIAL_COUNT; i++) {
        if (rows[i].component == operand->component &&
            strcmp(rows[i].name, operand->name->chars) == 0) {
            *bytes = rows[i].bytes;
            return add_constant(d, (decode_constant){.special = i, .bytes = rows[i].bytes});
        }
    }
    if (strncmp(operand->name->chars, "%envreg", 7) == 0) {
        *bytes = 4;
        return decode_const(d, 0, 4);
    }
    uint32_t result = dynamic_special(d, operand->name->chars);
    *bytes = d->registers[result].bytes;
    return result;
}

bool decode_symbol_address(decoder *d, const ptx_operand *operand, ptx_space *space, uint64_t *out)
{
    const ptx_variable *v = operand->variable;
    if (operand->kind == OPERAND_NAME) {
        v = ptx_find_variable(d->module, operand->name);
    }
    if (!v) {
        return false;
    }
    *space = v->space;
    *out = v->address + (uint64_t)operand->imm;
    return true;
}

/* The bits of an immediate as an operand of `bytes`. */
static uint64_t immediate_bits(decoder *d, const ptx_operand *operand, int bytes)
{
    uint64_t bits = (uint64_t)operand->imm;
    uint32_t low = (uint32_t)bits;
    float narrow;
    double wide;
    if (operand->kind == OPERAND_F32 && bytes == 8) {
        memcpy(&narrow, &low, sizeof narrow);
        wide = narrow;
        memcpy(&bits, &wide, sizeof bits);
    } else if (operand->kind == OPERAND_F64 && bytes == 4) {
        memcpy(&wide, &bits, sizeof wide);
        narrow = (float)wide;
        memcpy(&low, &narrow, sizeof low);
        bits = low;
    } else if (operand->kind != OPERAND_INT && bytes < 4) {
        decode_fail(d, "a floating point constant cannot be an operand of %d bytes", bytes);
    }
    return bits;
}

static ptx_type unsigned_type(int bytes)
{
    return bytes == 1 ? TYPE_U8 : bytes == 2 ? TYPE_U16 : bytes == 4 ? TYPE_U32 : TYPE_U64;
}

static uint32_t convert(decoder *d, uint32_t from, ptx_type from_type, uint32_t to,
                        ptx_type to_type)
{
    uint32_t aux;
    decode_instr *in = emit_part(d, decode_convert_op(to_type, from_type, 0, &aux));
    in->in.aux = aux;
    decode_add_def(in, to);
    decode_add_use(in, from);
    return to;
}

static uint32_t fit_source(decoder *d, uint32_t value, int have, int want)
{
    if (have == want) {
        return value;
    }
    if (have < want || want == 0 || have == 16) {
        decode_fail(d, "an operand of '%s' has %d bits, %d are wanted", d->statement->opcode,
                    have ? 8 * have : 1, want ? 8 * want : 1);
    }
    return convert(d, value, unsigned_type(have), decode_register_new(d, want),
                   unsigned_type(want));
}

uint32_t decode_use(decoder *d, const ptx_operand *operand, int bytes)
{
    ptx_space space;
    uint64_t address;
    int have = bytes;
    uint32_t value;
    switch (operand->kind) {
    case OPERAND_REG:
        value = register_number(d, operand->reg);
        have = decode_register_bytes(d, operand);
        break;
    case OPERAND_SPECIAL:
        value = use_special(d, operand, &have);
        break;
    case OPERAND_INT:
    case OPERAND_F32:
    case OPERAND_F64:
        if (bytes == 0) {
            return operand->imm ? DECODE_ALL : DECODE_NONE;
        }
        return decode_const(d, immediate_bits(d, operand, bytes), bytes);
    default:
        if (!decode_symbol_address(d, operand, &space, &address)) {
            decode_fail(d, "'%.200s' is not declared", operand->name ? operand->name->chars : "?");
        }
        if (space == SPACE_PARAM) {
            address |= IR_PARAM_WINDOW;
        } else if (space == SPACE_LOCAL && operand->variable && operand->variable->is_param) {
            address |= IR_LOCAL_WINDOW;
        }
        if (bytes < 4 || (bytes == 4 && address >> 32)) {
            decode_fail(d, "an address of 64 bits in an operand of %d", 8 * bytes);
        }
        return decode_const(d, address, bytes);
    }
    return fit_source(d, value, have, bytes);
}

uint32_t decode_use_predicate(decoder *d, const ptx_operand *operand)
{
    uint32_t value = decode_use(d, operand, 0);
    if (!operand->negated) {
        return value;
    }
    decode_instr *in = emit_part(d, IR_not_pred);
    uint32_t inverted = decode_register_new(d, 0);
    decode_add_def(in, inverted);
    decode_add_use(in, value);
    return inverted;
}

uint32_t decode_def_register(decoder *d, int reg, int bytes, bool is_signed)
{
    int have = register_bytes(d->instance->function->regs[reg]);
    uint32_t number = register_number(d, reg);
    if (have == bytes) {
        return number;
    }
    if (have < bytes || bytes == 0 || have == 16) {
        decode_fail(d, "the destination of '%s' has %d bits, %d are wanted", d->statement->opcode,
                    have ? 8 * have : 1, bytes ? 8 * bytes : 1);
    }
    uint32_t narrow = decode_register_new(d, bytes);
    d->widen[d->widen_count].from = narrow;
    d->widen[d->widen_count].to = number;
    d->widen[d->widen_count].is_signed = is_signed;
    d->widen_count++;
    return narrow;
}

uint32_t decode_def(decoder *d, const ptx_operand *operand, int bytes, bool is_signed)
{
    if (operand->kind == OPERAND_SINK) {
        return decode_register_new(d, bytes);
    }
    if (operand->kind != OPERAND_REG) {
        decode_fail(d, "the destination of '%s' must be a register", d->statement->opcode);
    }
    return decode_def_register(d, operand->reg, bytes, is_signed);
}

static void widen_destinations(decoder *d)
{
    for (int i = 0; i < d->widen_count; i++) {
        int from = d->registers[d->widen[i].from].bytes, to = d->registers[d->widen[i].to].bytes;
        ptx_type from_type = unsigned_type(from), to_type = unsigned_type(to);
        if (d->widen[i].is_signed) {
            from_type = (ptx_type)(from_type - TYPE_U8 + TYPE_S8);
            to_type = (ptx_type)(to_type - TYPE_U8 + TYPE_S8);
        }
        convert(d, d->widen[i].from, from_type, d->widen[i].to, to_type);
    }
    d->widen_count = 0;
}

int64_t decode_immediate(decoder *d, const ptx_operand *operand)
{
    if (operand->kind != OPERAND_INT) {
        decode_fail(d, "an operand of '%s' must be an integer constant", d->statement->opcode);
    }
    return operand->imm;
}

void decode_operand_count(decoder *d, int least, int most)
{
    int count = d->statement->operand_count;
    if (count < least || count > most) {
        decode_fail(d, "'%s' has %d operands, %d are wanted", d->statement->opcode, count,
                    count < least ? least : most);
    }
}

/* ---- instructions ---- */

decode_instr *decode_emit(decoder *d, ir_op op)
{
    decode_instr *in = emit_part(d, op);
    in->is_part = d->has_instr;
    d->has_instr = true;
    return in;
}

void decode_add_def(decode_instr *i, uint32_t reg)
{
    i->in.r[i->defs++] = reg;
}

void decode_add_use(decode_instr *i, uint32_t operand)
{
    i->in.r[i->defs + i->uses++] = operand;
}

static void decode_statement(decoder *d, const ptx_statement *s)
{
    d->statement = s;
    d->has_instr = false;
    d->guard = s->guard < 0 ? DECODE_ALL : register_number(d, s->guard);
    d->guard_negated = s->guard_negated;
    if (s->guard >= 0 && d->instance->function->regs[s->guard] != TYPE_PRED) {
        decode_fail(d, "the guard of '%s' is not a predicate", s->opcode);
    }
    const opcode_row *row = NULL;
    for (size_t i = 0; i < sizeof opcodes / sizeof opcodes[0] && !row; i++) {
        row = strcmp(opcodes[i].name, s->opcode) == 0 ? &opcodes[i] : NULL;
    }
    if (!row && decode_is_alu(s->opcode)) {
        row = &alu_opcode;
    }
    if (!row) {
        decode_fail(d, "opcode '%s' is not implemented", s->opcode);
    }
    read_words(d, row);
    row->decode(d);
    d->statement = s;
    widen_destinations(d);
    d->guard = DECODE_ALL;
    d->guard_negated = false;
}

static int compare_labels(const void *left, const void *right)
{
    const decode_label *a = left, *b = right;
    uintptr_t first = (uintptr_t)a->name, second = (uintptr_t)b->name;
    return first != second ? (first < second ? -1 : 1) : a->scope - b->scope;
}

/* From here on find_label finds those of the current instance. */
static void sort_labels(decoder *d)
{
    decode_label *labels = d->labels + d->first_label;
    uint32_t count = d->label_count - d->first_label;
    if (count > 0) {
        qsort(labels, count, sizeof *labels, compare_labels);
    }
    for (uint32_t i = 1; i < count; i++) {
        if (compare_labels(&labels[i - 1], &labels[i]) == 0) {
            int line = labels[i].line > labels[i - 1].line ? labels[i].line : labels[i - 1].line;
            ptx_fail(d->module, line, "label '%.200s' is declared twice", labels[i].name->chars);
        }
    }
}

static uint32_t find_label(decoder *d, ptx_name *name, int scope, int line)
{
    for (; scope >= 0 && d->label_count > d->first_label;
         scope = d->instance->function->scope_parent[scope]) {
        decode_label wanted = {.name = name, .scope = scope};
        const decode_label *found =
            bsearch(&wanted, d->labels + d->first_label, d->label_count - d->first_label,
                    sizeof wanted, compare_labels);
        if (found) {
            return found->at;
        }
    }
    ptx_fail(d->module, line, "label '%.200s' is not declared", name->chars);
}

static void resolve_branches(decoder *d, uint32_t first_jump)
{
    for (uint32_t i = d->instance->first_instr; i < d->count; i++) {
        decode_instr *in = &d->code[i];
        if (in->label) {
            in->in.target = find_label(d, in->label, in->scope, in->in.line);
            in->label = NULL;
        }
    }
    for (uint32_t i = first_jump; i < d->jump_count; i++) {
        if (d->jumps[i].name) {
            d->jumps[i].at =
                find_label(d, d->jumps[i].name, d->jumps[i].scope, d->instance->function->line);
            d->jumps[i].name = NULL;
        }
    }
}

bool decode_inlined(const decoder *d)
{
    return !d->instance->is_entry;
}

void decode_statements(decoder *d)
{
    ptx_function *f = d->instance->function;
    uint32_t outer_first = d->first_label, first_jump = d->jump_count;
    d->first_label = d->label_count;
    d->instance->first_instr = d->count;
    d->instance->first_register = d->register_count;
    for (int i = 0; i < f->reg_count; i++) {
        uint32_t number = decode_register_new(d, register_bytes(f->regs[i]));
        d->registers[number].is_temporary = false;
    }
    f->active = true;
    for (int i = 0; i < f->body_count; i++) {
        const ptx_statement *s = &f->body[i];
        if (s->label) {
            POOL_GROW(d->labels, d->label_count, d->label_capacity);
            d->labels[d->label_count++] = (decode_label){s->label, s->scope, d->count, s->line};
        }
        if (s->opcode) {
            decode_statement(d, s);
        }
    }
    for (uint32_t i = d->instance->first_instr; i < d->count; i++) {
        if (d->code[i].returns) {
            d->code[i].in.target = d->count;
            d->code[i].returns = false;
        }
    }
    sort_labels(d);
    resolve_branches(d, first_jump);
    f->active = false;
    d->label_count = d->first_label;
    d->first_label = outer_first;
}

/* ---- the kernel ---- */

static size_t round_up(size_t value, size_t to)
{
    return (value + to - 1) / to * to;
}

static size_t place_params(ptx_function *entry)
{
    size_t at = 0;
    for (ptx_variable *v = entry->params; v; v = v->next) {
        at = round_up(at, v->align);
        v->address = at;
        at += v->bytes;
    }
    return at;
}

typedef struct shared_layout {
    decoder *d;
    uint32_t visit;
    size_t top, dynamic_align;
    ptx_variable *dynamic[64];
    int dynamic_count;
} shared_layout;

static void place_shared(shared_layout *layout, ptx_variable *v)
{
    if (v->space != SPACE_SHARED || v->visit == layout->visit) {
        return;
    }
    v->visit = layout->visit;
    if (v->is_unsized || v->is_extern) {
        if (layout->dynamic_count == 64) {
            decode_fail(layout->d, "more than 64 dynamic shared variables");
        }
        layout->dynamic[layout->dynamic_count++] = v;
        if (v->align > layout->dynamic_align) {
            layout->dynamic_align = v->align;
        }
        return;
    }
    layout->top = round_up(layout->top, v->align);
    v->address = layout->top;
    layout->top += v->bytes;
    if (v->bytes > MOST_SHARED || layout->top > MOST_SHARED) {
        decode_fail(layout->d, "the kernel has more than 1 MiB of static shared variables");
    }
}

static void place_function_shared(shared_layout *layout, ptx_function *f);

static void place_operand_shared(shared_layout *layout, const ptx_operand *operand)
{
    if (operand->kind == OPERAND_VARIABLE) {
        place_shared(layout, operand->variable);
    } else if (operand->kind == OPERAND_NAME) {
        ptx_variable *v = ptx_find_variable(layout->d->module, operand->name);
        ptx_function *called = ptx_find_function(layout->d->module, operand->name);
        if (v) {
            place_shared(layout, v);
        }
        if (called) {
            place_function_shared(layout, called);
        }
    }
    for (int i = 0; i < operand->item_count; i++) {
        place_operand_shared(layout, &operand->items[i]);
    }
}

static void place_function_shared(shared_layout *layout, ptx_function *f)
{
    if (f->visit == layout->visit) {
        return;
    }
    f->visit = layout->visit;
    for (int i = 0; i < f->body_count; i++) {
        for (int j = 0; j < f->body[i].operand_count; j++) {
            place_operand_shared(layout, &f->body[i].operands[j]);
        }
    }
}

/* Gives every shared variable the kernel can reach its offset; dynamic ones all start at one. */
static void layout_shared(decoder *d, ptx_function *entry)
{
    shared_layout layout = {.d = d, .visit = ++d->module->visits, .dynamic_align = 16};
    place_function_shared(&layout, entry);
    d->kernel->shared_static = layout.top;
    d->kernel->shared_dynamic = round_up(layout.top, layout.dynamic_align);
    for (int i = 0; i < layout.dynamic_count; i++) {
        layout.dynamic[i]->address = d->kernel->shared_dynamic;
    }
}

static void finish_kernel(decoder *d)
{
    ir_kernel *kernel = d->kernel;
    kernel->code = pool_require(calloc(d->count, sizeof *kernel->code));
    kernel->ops = pool_require(calloc(d->count, sizeof *kernel->ops));
    kernel->code_count = d->count;
    for (uint32_t i = 0; i < d->count; i++) {
        kernel->code[i] = d->code[i].in;
        kernel->code[i].run = d->handlers[d->code[i].op];
        kernel->ops[i] = (uint16_t)(d->code[i].is_part ? IR_OP_COUNT : d->code[i].op);
    }
    kernel->jumps = pool_require(calloc((size_t)d->jump_count + 1, sizeof *kernel->jumps));
    for (uint32_t i = 0; i < d->jump_count; i++) {
        kernel->jumps[i] = d->jumps[i].at;
    }
    kernel->constants = pool_require(calloc(kernel->constant_bytes, 1));
    kernel->specials = pool_require(calloc(d->constant_count, sizeof *kernel->specials));
    for (uint32_t i = 0; i < d->constant_count; i++) {
        const decode_constant *c = &d->constants[i];
        if (c->special >= 0) {
            kernel->knows_reserved_shared |= c->special >= IR_SPECIAL_RESERVED_SMEM_BEGIN &&
                                             c->special <= IR_SPECIAL_RESERVED_SMEM_1;
            kernel->specials[kernel->special_count++] =
                (ir_special_use){(ir_special)c->special, c->offset};
        } else if (c->bytes == 0) {
            uint32_t mask = c->bits[0] ? FULL_MASK : 0;
            memcpy(kernel->constants + c->offset, &mask, sizeof mask);
        } else {
            for (size_t lane = 0; lane < IR_LANES; lane++) {
                memcpy(kernel->constants + c->offset + lane * c->bytes, c->bits, c->bytes);
            }
        }
    }
}

static void decode_entry(decoder *d, ptx_function *entry)
{
    decode_instance instance = {.function = entry, .is_entry = true, .carry = DECODE_NONE};
    d->instance = &instance;
    d->guard = DECODE_ALL;
    add_constant(d, (decode_constant){.bits = {1, 0}, .special = -1});
    add_constant(d, (decode_constant){.bits = {0, 0}, .special = -1});
    d->kernel->param_bytes = place_params(entry);
    if (d->kernel->param_bytes > MOST_PARAMS) {
        decode_fail(d, "%zu bytes of parameters, at most %d are possible", d->kernel->param_bytes,
                    MOST_PARAMS);
    }
    layout_shared(d, entry);
    decode_place_locals(d, entry);
    decode_statements(d);
    d->statement = NULL;
    emit_part(d, IR_exit)->falls_through = false;
    d->kernel->local_bytes = round_up(d->kernel->local_bytes, 16);
    decode_mark_cas_loops(d);
    flow_assign_slots(d);
    finish_kernel(d);
}

ir_kernel *decode_kernel(ptx_module *module, ptx_function *entry, emu_handler *const *handlers)
{
    decoder *d = pool_require(calloc(1, sizeof *d));
    jmp_buf *outer = module->on_error;
    d->module = module;
    d->handlers = handlers;
    d->kernel = pool_require(calloc(1, sizeof *d->kernel));
    d->kernel->name = entry->name->chars;
    d->kernel->module = module;
    d->kernel->function = entry;
    module->on_error = &d->on_error;
    bool failed = setjmp(d->on_error) != 0;
    if (!failed) {
        decode_entry(d, entry);
    }
    module->on_error = outer;
    ir_kernel *kernel = d->kernel;
    free(d->code);
    free(d->registers);
    free(d->constants);
    free(d->labels);
    free(d->jumps);
    free(d);
    if (failed) {
        ir_kernel_free(kernel);
        return NULL;
    }
    return kernel;
}

void ir_kernel_free(ir_kernel *kernel)
{
    if (kernel) {
        free(kernel->code);
        free(kernel->ops);
        free(kernel->jumps);
        free(kernel->constants);
        free(kernel->specials);
        free(kernel);
    }
}
