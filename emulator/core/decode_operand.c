/*
 * decode_operand.c: operands become registers and constants of the kernel, and instructions are
 * appended to it.
 */
#include <stdlib.h>
#include <string.h>

#include "exec.h"

/* ---- appending instructions ---- */

decode_instr *decode_emit_part(decoder *d, ir_op op)
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

uint32_t decode_add_constant(decoder *d, decode_constant wanted)
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
    return decode_add_constant(
        d, (decode_constant){.bits = {bits, 0}, .special = -1, .bytes = (uint8_t)bytes});
}

int decode_type_bytes(ptx_type type)
{
    return type == TYPE_PRED ? 0 : ptx_type_bits(type) / 8;
}

uint32_t decode_register_number(const decoder *d, int reg)
{
    return d->instance->first_register + (uint32_t)reg;
}

int decode_register_bytes(decoder *d, const ptx_operand *operand)
{
    if (operand->kind != OPERAND_REG) {
        decode_fail(d, "a register is wanted as operand of '%s'", d->statement->opcode);
    }
    return decode_type_bytes(d->instance->function->regs[operand->reg]);
}

static uint32_t dynamic_special(decoder *d, const char *name)
{
    static const char *const narrow[] = {"%clock", "%clock_hi", "%globaltimer_lo",
                                         "%globaltimer_hi"};
    static const char *const wide[] = {"%clock64", "%globaltimer"};
    for (unsigned i = 0; i < 6; i++) {
        if (strcmp(name, i < 4 ? narrow[i] : wide[i - 4]) == 0) {
            decode_instr *in = decode_emit_part(d, IR_clock);
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
            return decode_add_constant(d, (decode_constant){.special = i, .bytes = rows[i].bytes});
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
    decode_instr *in = decode_emit_part(d, decode_convert_op(to_type, from_type, 0, &aux));
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
        value = decode_register_number(d, operand->reg);
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
    decode_instr *in = decode_emit_part(d, IR_not_pred);
    uint32_t inverted = decode_register_new(d, 0);
    decode_add_def(in, inverted);
    decode_add_use(in, value);
    return inverted;
}

uint32_t decode_def_register(decoder *d, int reg, int bytes, bool is_signed)
{
    int have = decode_type_bytes(d->instance->function->regs[reg]);
    uint32_t number = decode_register_number(d, reg);
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

void decode_widen(decoder *d)
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
    decode_instr *in = decode_emit_part(d, op);
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
