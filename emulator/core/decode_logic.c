/*
 * decode_logic.c: moves, comparisons, selections, predicates, carries and address conversions: the
 * arithmetic that does not fit a row of ops_*.def.
 */
#include <string.h>

#include "exec.h"

/* What registers hold, without the packed and the short floating-point types. */
#define PLAIN_TYPES                                                                                \
    (M(B16) | M(B32) | M(B64) | M(U16) | M(U32) | M(U64) | M(S16) | M(S32) | M(S64) | M(F32) |     \
     M(F64))

static void emit1(decoder *d, ir_op op, uint32_t result, uint32_t a, uint32_t aux)
{
    decode_instr *in = decode_emit(d, op);
    in->in.aux = aux;
    decode_add_def(in, result);
    decode_add_use(in, a);
}

/* ---- mov ---- */

static void move_pack(decoder *d, int bytes)
{
    const ptx_operand *list = &d->statement->operands[1];
    int part = list->item_count ? bytes / list->item_count : 0;
    uint32_t parts[16];
    if (part * list->item_count != bytes || part == 0) {
        decode_unknown(d);
    }
    for (int i = 0; i < list->item_count; i++) {
        parts[i] = decode_use(d, &list->items[i], part);
    }
    uint32_t result = decode_def(d, &d->statement->operands[0], bytes, false);
    decode_instr *in = decode_emit(d, IR_pack);
    in->in.aux = (uint32_t)part << 8 | (uint32_t)list->item_count;
    decode_add_def(in, result);
    for (int i = 0; i < list->item_count; i++) {
        decode_add_use(in, parts[i]);
    }
}

static void move_unpack(decoder *d, int bytes)
{
    const ptx_operand *list = &d->statement->operands[0];
    int part = list->item_count ? bytes / list->item_count : 0;
    uint32_t parts[16];
    if (part * list->item_count != bytes || part == 0) {
        decode_unknown(d);
    }
    uint32_t source = decode_use(d, &d->statement->operands[1], bytes);
    for (int i = 0; i < list->item_count; i++) {
        parts[i] = decode_def(d, &list->items[i], part, false);
    }
    decode_instr *in = decode_emit(d, IR_unpack);
    in->in.aux = (uint32_t)part << 8 | (uint32_t)list->item_count;
    for (int i = 0; i < list->item_count; i++) {
        decode_add_def(in, parts[i]);
    }
    decode_add_use(in, source);
}

void decode_mov(decoder *d)
{
    decode_operand_count(d, 2, 2);
    if (d->words.type_count != 1 || !((PLAIN_TYPES | M(PRED) | M(B128)) >> d->words.types[0] & 1)) {
        decode_unknown(d);
    }
    const ptx_operand *to = &d->statement->operands[0], *from = &d->statement->operands[1];
    ptx_type type = d->words.types[0];
    int bytes = ptx_type_bits(type) / 8;
    if (from->kind == OPERAND_VECTOR || to->kind == OPERAND_VECTOR) {
        if ((from->kind == to->kind) || from->item_count > 16 || to->item_count > 16 ||
            from->item_count + to->item_count == 0) {
            decode_unknown(d);
        }
        (from->kind == OPERAND_VECTOR ? move_pack : move_unpack)(d, bytes);
        return;
    }
    if (type == TYPE_PRED) {
        uint32_t value = decode_use_predicate(d, from);
        emit1(d, IR_mov_pred, decode_def(d, to, 0, false), value, 0);
        return;
    }
    if (from->kind == OPERAND_NAME && ptx_find_function(d->module, from->name)) {
        decode_fail(d, "the address of function '%.200s' is not implemented", from->name->chars);
    }
    uint32_t value = decode_use(d, from, bytes);
    ir_op op = bytes == 2   ? IR_mov_b16
               : bytes == 4 ? IR_mov_b32
               : bytes == 8 ? IR_mov_b64
                            : IR_mov_b128;
    emit1(d, op, decode_def(d, to, bytes, false), value, 0);
}

/* ---- comparisons ---- */

/* The handler that compares `type`; ordered integer names lo, ls, hi, hs are unsigned. */
static ir_op compare_op(decoder *d, int compare, ptx_type type)
{
    static const struct {
        uint64_t types;
        ir_op first;
        bool is_float;
    } groups[] = {
        {M(U16) | M(B16), IR_setp_eq_u16, false}, {M(S16), IR_setp_eq_s16, false},
        {M(U32) | M(B32), IR_setp_eq_u32, false}, {M(S32), IR_setp_eq_s32, false},
        {M(U64) | M(B64), IR_setp_eq_u64, false}, {M(S64), IR_setp_eq_s64, false},
        {M(F32), IR_setp_eq_f32, true},           {M(F64), IR_setp_eq_f64, true},
        {M(F16), IR_setp_eq_f16, true},           {M(BF16), IR_setp_eq_bf16, true},
        {M(F16X2), IR_setp_eq_f16x2, true},       {M(BF16X2), IR_setp_eq_bf16x2, true},
    };
    static const int unsigned_names[][2] = {{COMPARE_LO, COMPARE_LT},
                                            {COMPARE_LS, COMPARE_LE},
                                            {COMPARE_HI, COMPARE_GT},
                                            {COMPARE_HS, COMPARE_GE}};
    bool is_untyped = ptx_type_class(type) == 'b', is_unsigned = ptx_type_class(type) == 'u';
    for (int i = 0; i < 4; i++) {
        if (compare == unsigned_names[i][0] && is_unsigned) {
            compare = unsigned_names[i][1];
        }
    }
    if (compare < 0 || (is_untyped && compare > COMPARE_NE)) {
        decode_unknown(d);
    }
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        if (groups[i].types >> type & 1) {
            int step = compare <= COMPARE_GE ? compare : compare - COMPARE_EQU + COMPARE_GE + 1;
            if ((compare > COMPARE_GE && compare < COMPARE_EQU) ||
                (!groups[i].is_float && compare > COMPARE_GE)) {
                decode_unknown(d);
            }
            return (ir_op)((int)groups[i].first + step);
        }
    }
    decode_unknown(d);
}

/* p|q, a, b {, c}: result registers are given */
static void emit_compare(decoder *d, ptx_type type, uint32_t p, uint32_t q)
{
    const ptx_statement *s = d->statement;
    int bytes = ptx_type_bits(type) / 8;
    bool combined = d->words.action >= 0;
    uint64_t flushed = M(F32) | M(F16) | M(F16X2);
    if (d->words.action > ACTION_XOR || (d->words.flags & F(FTZ) && !(flushed >> type & 1))) {
        decode_unknown(d);
    }
    decode_operand_count(d, combined ? 4 : 3, combined ? 4 : 3);
    ir_op op = compare_op(d, d->words.compare, type);
    uint32_t a = decode_use(d, &s->operands[1], bytes);
    uint32_t b = decode_use(d, &s->operands[2], bytes);
    uint32_t c = combined ? decode_use_predicate(d, &s->operands[3]) : DECODE_ALL;
    decode_instr *in = decode_emit(d, op);
    in->in.aux = combined ? (uint32_t)d->words.action : ACTION_AND;
    in->in.imm = d->words.flags & F(FTZ) ? 1 : 0;
    decode_add_def(in, p);
    decode_add_def(in, q);
    decode_add_use(in, a);
    decode_add_use(in, b);
    decode_add_use(in, c);
}

void decode_setp(decoder *d)
{
    if (d->words.type_count != 1) {
        decode_unknown(d);
    }
    const ptx_operand *result = &d->statement->operands[0];
    ptx_type type = d->words.types[0];
    uint32_t p = decode_def(d, result, 0, false);
    uint32_t q = result->pair >= 0 ? decode_def_register(d, result->pair, 0, false)
                                   : decode_register_new(d, 0);
    emit_compare(d, type, p, q);
}

/* result = p ? one : 0 */
static void select_constant(decoder *d, uint32_t result, uint64_t one, int bytes, uint32_t p)
{
    decode_instr *in = decode_emit(d, bytes == 2 ? IR_selp_b16 : IR_selp_b32);
    decode_add_def(in, result);
    decode_add_use(in, decode_const(d, one, bytes));
    decode_add_use(in, decode_const(d, 0, bytes));
    decode_add_use(in, p);
}

/* set.CmpOp.dtype.stype d, a, b: all ones or zero; 1.0 or 0.0 for a float destination; each half on
 * its own for pairs */
void decode_set(decoder *d)
{
    const decode_words *w = &d->words;
    ptx_type to = w->types[0], type = w->types[1];
    if (w->type_count != 2) {
        decode_unknown(d);
    }
    int bytes = ptx_type_bits(to) / 8;
    uint32_t p = decode_register_new(d, 0), q = decode_register_new(d, 0);
    emit_compare(d, type, p, q);
    uint64_t one = to == TYPE_F32                         ? 0x3f800000u
                   : to == TYPE_F16 || to == TYPE_F16X2   ? 0x3c00u
                   : to == TYPE_BF16 || to == TYPE_BF16X2 ? 0x3f80u
                                                          : ~UINT64_C(0);
    bool is_pair = type == TYPE_F16X2 || type == TYPE_BF16X2;
    uint64_t allowed = is_pair             ? M(U32) | M(S32) | UINT64_C(1) << type
                       : type == TYPE_F16  ? M(U32) | M(S32) | M(U16) | M(S16) | M(F16) | M(BF16)
                       : type == TYPE_BF16 ? M(U32) | M(S32) | M(U16) | M(S16) | M(BF16)
                                           : M(U32) | M(S32) | M(F32) | M(F16) | M(BF16);
    if (!(allowed >> to & 1) || (w->flags & F(FTZ) && to == TYPE_BF16)) {
        decode_unknown(d);
    }
    uint32_t result = decode_def(d, &d->statement->operands[0], bytes, false);
    if (!is_pair) {
        select_constant(d, result, one, bytes, p);
        return;
    }
    uint32_t low = decode_register_new(d, 2), high = decode_register_new(d, 2);
    select_constant(d, low, one, 2, p);
    select_constant(d, high, one, 2, q);
    decode_instr *in = decode_emit(d, IR_pack);
    in->in.aux = 2 << 8 | 2;
    decode_add_def(in, result);
    decode_add_use(in, low);
    decode_add_use(in, high);
}

void decode_selp(decoder *d)
{
    decode_operand_count(d, 4, 4);
    const ptx_operand *o = d->statement->operands;
    int bytes = ptx_type_bits(d->words.types[0]) / 8;
    if (d->words.type_count != 1 || !(PLAIN_TYPES >> d->words.types[0] & 1)) {
        decode_unknown(d);
    }
    uint32_t a = decode_use(d, &o[1], bytes), b = decode_use(d, &o[2], bytes);
    uint32_t c = decode_use_predicate(d, &o[3]);
    uint32_t result = decode_def(d, &o[0], bytes, ptx_type_class(d->words.types[0]) == 's');
    decode_instr *in = decode_emit(d, bytes == 2   ? IR_selp_b16
                                      : bytes == 4 ? IR_selp_b32
                                                   : IR_selp_b64);
    decode_add_def(in, result);
    decode_add_use(in, a);
    decode_add_use(in, b);
    decode_add_use(in, c);
}

void decode_predicate_logic(decoder *d)
{
    const ptx_operand *o = d->statement->operands;
    const char *opcode = d->statement->opcode;
    bool is_not = strcmp(opcode, "not") == 0;
    ir_op op = is_not                       ? IR_not_pred
               : strcmp(opcode, "and") == 0 ? IR_and_pred
               : strcmp(opcode, "or") == 0  ? IR_or_pred
                                            : IR_xor_pred;
    if ((op == IR_xor_pred && strcmp(opcode, "xor") != 0) || d->words.flags) {
        decode_unknown(d);
    }
    decode_operand_count(d, is_not ? 2 : 3, is_not ? 2 : 3);
    uint32_t a = decode_use_predicate(d, &o[1]);
    uint32_t b = is_not ? DECODE_ALL : decode_use_predicate(d, &o[2]);
    decode_instr *in = decode_emit(d, op);
    decode_add_def(in, decode_def(d, &o[0], 0, false));
    decode_add_use(in, a);
    decode_add_use(in, b);
}

void decode_testp(decoder *d)
{
    static const uint64_t tests[] = {F(FINITE),     F(INFINITE), F(NUMBER),
                                     F(NOTANUMBER), F(NORMAL),   F(SUBNORMAL)};
    ptx_type type = d->words.types[0];
    uint32_t test = 0;
    while (test < 6 && d->words.flags != tests[test]) {
        test++;
    }
    if (test == 6 || (type != TYPE_F32 && type != TYPE_F64)) {
        decode_unknown(d);
    }
    decode_operand_count(d, 2, 2);
    uint32_t value = decode_use(d, &d->statement->operands[1], ptx_type_bits(type) / 8);
    emit1(d, type == TYPE_F32 ? IR_testp_f32 : IR_testp_f64,
          decode_def(d, &d->statement->operands[0], 0, false), value, test);
}

/* ---- bits ---- */

void decode_logic(decoder *d)
{
    const ptx_operand *o = d->statement->operands;
    decode_operand_count(d, 5, 5);
    if (d->words.types[0] != TYPE_B32) {
        decode_unknown(d);
    }
    uint32_t a = decode_use(d, &o[1], 4), b = decode_use(d, &o[2], 4), c = decode_use(d, &o[3], 4);
    uint32_t table = (uint32_t)decode_immediate(d, &o[4]) & 0xff;
    uint32_t result = decode_def(d, &o[0], 4, false);
    decode_instr *in = decode_emit(d, IR_lop3);
    in->in.aux = table;
    decode_add_def(in, result);
    decode_add_use(in, a);
    decode_add_use(in, b);
    decode_add_use(in, c);
}

static void emit3(decoder *d, ir_op op, uint32_t aux)
{
    const ptx_operand *o = d->statement->operands;
    decode_operand_count(d, 4, 4);
    uint32_t a = decode_use(d, &o[1], 4), b = decode_use(d, &o[2], 4), c = decode_use(d, &o[3], 4);
    uint32_t result = decode_def(d, &o[0], 4, false);
    decode_instr *in = decode_emit(d, op);
    in->in.aux = aux;
    decode_add_def(in, result);
    decode_add_use(in, a);
    decode_add_use(in, b);
    decode_add_use(in, c);
}

void decode_prmt(decoder *d)
{
    static const int modes[] = {-1, MODE_F4E, MODE_B4E, MODE_RC8, MODE_ECL, MODE_ECR, MODE_RC16};
    uint32_t mode = 0;
    while (mode < 7 && modes[mode] != d->words.mode) {
        mode++;
    }
    if (mode == 7 || d->words.types[0] != TYPE_B32) {
        decode_unknown(d);
    }
    emit3(d, IR_prmt, mode);
}

void decode_fns(decoder *d)
{
    if (d->words.types[0] != TYPE_B32) {
        decode_unknown(d);
    }
    emit3(d, IR_fns, 0);
}

/* ---- carries: the condition code is a predicate register of the function ---- */

static uint32_t carry_register(decoder *d)
{
    if (d->instance->carry == DECODE_NONE) {
        d->instance->carry = decode_register_new(d, 0);
        d->registers[d->instance->carry].is_temporary = false;
    }
    return d->instance->carry;
}

void decode_carry(decoder *d)
{
    const char *opcode = d->statement->opcode;
    const decode_words *w = &d->words;
    bool reads = opcode[strlen(opcode) - 1] == 'c', is_mad = opcode[0] == 'm';
    int bytes = ptx_type_bits(w->types[0]) / 8;
    uint64_t parts = w->flags & (F(LO) | F(HI));
    uint64_t integers = M(U32) | M(S32) | M(U64) | M(S64);
    size_t stem = strlen(opcode) - reads;
    if (w->type_count != 1 || !(integers >> w->types[0] & 1) ||
        (w->flags & ~(F(CC) | F(LO) | F(HI))) ||
        (is_mad ? parts != F(LO) && parts != F(HI) : parts != 0) || stem != 3 ||
        (strncmp(opcode, "add", 3) && strncmp(opcode, "sub", 3) && strncmp(opcode, "mad", 3))) {
        decode_unknown(d);
    }
    ir_op op = is_mad ? IR_mad_carry_b32 : opcode[0] == 'a' ? IR_add_carry_b32 : IR_sub_carry_b32;
    if (bytes == 8) {
        op = (ir_op)(op + 1);
    }
    const ptx_operand *o = d->statement->operands;
    int sources = is_mad ? 3 : 2;
    decode_operand_count(d, sources + 1, sources + 1);
    uint32_t values[3];
    for (int i = 0; i < sources; i++) {
        values[i] = decode_use(d, &o[i + 1], bytes);
    }
    uint32_t result = decode_def(d, &o[0], bytes, false);
    uint32_t out = w->flags & F(CC) ? carry_register(d) : decode_register_new(d, 0);
    decode_instr *in = decode_emit(d, op);
    in->in.aux = (parts == F(HI) ? 1u : 0) | (ptx_type_class(w->types[0]) == 's' ? 2u : 0);
    decode_add_def(in, result);
    decode_add_def(in, out);
    for (int i = 0; i < sources; i++) {
        decode_add_use(in, values[i]);
    }
    decode_add_use(in, reads ? carry_register(d) : DECODE_NONE);
}

/* ---- address spaces ---- */

void decode_cvta(decoder *d)
{
    const ptx_operand *o = d->statement->operands;
    bool to_space = d->words.flags & F(TO);
    ptx_space space = d->words.space;
    decode_operand_count(d, 2, 2);
    if (!d->words.has_space || d->words.types[0] != TYPE_U64) {
        decode_unknown(d);
    }
    ir_op op = space == SPACE_SHARED  ? (to_space ? IR_to_shared : IR_from_shared)
               : space == SPACE_LOCAL ? (to_space ? IR_to_local : IR_from_local)
                                      : IR_mov_b64;
    uint32_t value = decode_use(d, &o[1], 8);
    emit1(d, op, decode_def(d, &o[0], 8, false), value, 0);
}

void decode_isspacep(decoder *d)
{
    decode_operand_count(d, 2, 2);
    if (!d->words.has_space) {
        decode_unknown(d);
    }
    uint32_t value = decode_use(d, &d->statement->operands[1], 8);
    emit1(d, IR_isspacep, decode_def(d, &d->statement->operands[0], 0, false), value,
          (uint32_t)d->words.space | (d->words.is_cluster ? ISSPACEP_CLUSTER : 0));
}
