/*
 * decode_alu.c: arithmetic whose meaning is one row of ops_*.def, and cvt. The row is found by
 * opcode, flags and types; the operands' sizes come with it.
 */
#include <string.h>

#include "exec.h"
#include "lane_types.h"

typedef struct alu_row {
    const char *opcode;
    uint64_t required, optional, types, types2;
    ir_op op;
    uint8_t sources;
    uint8_t bytes[5]; /* destination, sources */
} alu_row;

#define OP1(name, opcode, req, opt, t, t2, D, A, ...)                                              \
    {opcode, req, opt, t, t2, IR_##name, 1, {sizeof(D), sizeof(A)}},
#define OP2(name, opcode, req, opt, t, t2, D, A, B, ...)                                           \
    {opcode, req, opt, t, t2, IR_##name, 2, {sizeof(D), sizeof(A), sizeof(B)}},
#define OP3(name, opcode, req, opt, t, t2, D, A, B, C, ...)                                        \
    {opcode, req, opt, t, t2, IR_##name, 3, {sizeof(D), sizeof(A), sizeof(B), sizeof(C)}},
#define OP4(name, opcode, req, opt, t, t2, D, A, B, C, E, ...)                                     \
    {opcode, req,       opt, t,                                                                    \
     t2,     IR_##name, 4,   {sizeof(D), sizeof(A), sizeof(B), sizeof(C), sizeof(E)}},
#define ROUND1(name, opcode, opt, t, T, ...) OP1(name, opcode, 0, opt, t, 0, T, T, 0)
#define ROUND2(name, opcode, opt, t, T, ...) OP2(name, opcode, 0, opt, t, 0, T, T, T, 0)
#define ROUND3(name, opcode, opt, t, T, ...) OP3(name, opcode, 0, opt, t, 0, T, T, T, T, 0)
#define HALF1(name, opcode, req, opt, req_bf, opt_bf, f)                                           \
    OP1(name##_f16, opcode, req, opt, M(F16), 0, u16, u16, 0)                                      \
    OP1(name##_bf16, opcode, req_bf, opt_bf, M(BF16), 0, u16, u16, 0)                              \
    OP1(name##_f16x2, opcode, req, opt, M(F16X2), 0, u32, u32, 0)                                  \
    OP1(name##_bf16x2, opcode, req_bf, opt_bf, M(BF16X2), 0, u32, u32, 0)
#define HALF2(name, opcode, req, opt, req_bf, opt_bf, f)                                           \
    OP2(name##_f16, opcode, req, opt, M(F16), 0, u16, u16, u16, 0)                                 \
    OP2(name##_bf16, opcode, req_bf, opt_bf, M(BF16), 0, u16, u16, u16, 0)                         \
    OP2(name##_f16x2, opcode, req, opt, M(F16X2), 0, u32, u32, u32, 0)                             \
    OP2(name##_bf16x2, opcode, req_bf, opt_bf, M(BF16X2), 0, u32, u32, u32, 0)
#define HALF3(name, opcode, req, opt, req_bf, opt_bf, f)                                           \
    OP3(name##_f16, opcode, req, opt, M(F16), 0, u16, u16, u16, u16, 0)                            \
    OP3(name##_bf16, opcode, req_bf, opt_bf, M(BF16), 0, u16, u16, u16, u16, 0)                    \
    OP3(name##_f16x2, opcode, req, opt, M(F16X2), 0, u32, u32, u32, u32, 0)                        \
    OP3(name##_bf16x2, opcode, req_bf, opt_bf, M(BF16X2), 0, u32, u32, u32, u32, 0)

static const alu_row rows[] = {
#include "ops_cvt.def"
#include "ops_float.def"
#include "ops_half.def"
#include "ops_int.def"
};

enum { ROW_COUNT = sizeof rows / sizeof rows[0] };

bool decode_is_alu(const char *opcode)
{
    for (int i = 0; i < ROW_COUNT; i++) {
        if (strcmp(rows[i].opcode, opcode) == 0) {
            return true;
        }
    }
    return false;
}

uint32_t decode_flags_aux(uint64_t flags)
{
    uint32_t aux = 0;
    aux |= flags & (F(RZ) | F(RZI)) ? 1 : 0;
    aux |= flags & (F(RM) | F(RMI)) ? 2 : 0;
    aux |= flags & (F(RP) | F(RPI)) ? 3 : 0;
    aux |= flags & F(FTZ) ? AUX_FTZ : 0;
    aux |= flags & F(SAT) ? AUX_SAT : 0;
    aux |= flags & F(RELU) ? AUX_RELU : 0;
    aux |= flags & F(NAN) ? AUX_NAN : 0;
    aux |= flags & F(XORSIGN) ? AUX_XORSIGN : 0;
    aux |= flags & F(SATFINITE) ? AUX_SATFINITE : 0;
    aux |= flags & (F(RNI) | F(RZI) | F(RMI) | F(RPI)) ? AUX_TO_INTEGER : 0;
    aux |= flags & F(RNA) ? AUX_AWAY : 0;
    return aux;
}

static const alu_row *find_row(const char *opcode, uint64_t flags, ptx_type type, ptx_type type2)
{
    uint64_t set = UINT64_C(1) << type, set2 = type2 ? UINT64_C(1) << type2 : 0;
    for (int i = 0; i < ROW_COUNT; i++) {
        const alu_row *row = &rows[i];
        if ((flags & ~row->optional) == row->required && (row->types & set) &&
            (row->types2 ? (row->types2 & set2) != 0 : set2 == 0) &&
            strcmp(row->opcode, opcode) == 0) {
            return row;
        }
    }
    return NULL;
}

static bool one_rounding(uint64_t flags)
{
    return __builtin_popcountll(flags & (F(RN) | F(RZ) | F(RM) | F(RP) | F(RNA) | F(RNI) | F(RZI) |
                                         F(RMI) | F(RPI) | F(APPROX) | F(FULL))) <= 1;
}

/* xorsign and abs only come together; the types of dot products are those of a and b. */
static bool plausible(const decode_words *w)
{
    return one_rounding(w->flags) && !(w->flags & F(XORSIGN)) == !(w->flags & F(ABS)) &&
           !((w->flags & F(SAT)) && (w->flags & F(RELU)));
}

/* Operations that have no meaning without a written rounding or quality. */
static bool lacks_rounding(const decode_words *w, const char *opcode)
{
    static const char *const strict[] = {"fma", "mad", "div", "rcp", "sqrt"};
    bool is_float = ptx_type_class(w->types[0]) == 'f';
    bool written = w->flags & (F(RN) | F(RZ) | F(RM) | F(RP) | F(APPROX) | F(FULL));
    for (int i = 0; i < 5; i++) {
        if (is_float && !written && strcmp(opcode, strict[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void emit_row(decoder *d, const alu_row *row)
{
    const ptx_statement *s = d->statement;
    decode_operand_count(d, row->sources + 1, row->sources + 1);
    uint32_t sources[4];
    for (int i = 0; i < row->sources; i++) {
        sources[i] = decode_use(d, &s->operands[i + 1], row->bytes[i + 1]);
    }
    bool is_signed = ptx_type_class(d->words.types[0]) == 's';
    uint32_t result = decode_def(d, &s->operands[0], row->bytes[0], is_signed);
    decode_instr *in = decode_emit(d, row->op);
    in->in.aux = decode_flags_aux(d->words.flags);
    decode_add_def(in, result);
    for (int i = 0; i < row->sources; i++) {
        decode_add_use(in, sources[i]);
    }
}

void decode_alu(decoder *d)
{
    const char *opcode = d->statement->opcode;
    if (d->words.flags & F(CC)) {
        decode_carry(d);
        return;
    }
    if (d->words.types[0] == TYPE_PRED) {
        decode_predicate_logic(d);
        return;
    }
    const alu_row *row = find_row(opcode, d->words.flags, d->words.types[0], d->words.types[1]);
    if (!row || !plausible(&d->words) || lacks_rounding(&d->words, opcode) ||
        d->words.type_count > 2) {
        decode_unknown(d);
    }
    emit_row(d, row);
}

/* ---- cvt ---- */

ir_op decode_convert_op(ptx_type to, ptx_type from, uint64_t flags, uint32_t *aux)
{
    const alu_row *row = find_row("cvt", flags, to, from);
    *aux = decode_flags_aux(flags) | (uint32_t)to << AUX_TYPE_SHIFT |
           (uint32_t)from << (AUX_TYPE_SHIFT + 8);
    return row && row->sources == 1 ? row->op : IR_convert_any;
}

static bool is_pair(ptx_type type)
{
    return type == TYPE_F16X2 || type == TYPE_BF16X2 || type == TYPE_E4M3X2 || type == TYPE_E5M2X2;
}

static bool is_byte_pair(ptx_type type)
{
    return type == TYPE_E4M3X2 || type == TYPE_E5M2X2;
}

/* The rounding: of integers where a float ends as one or keeps its type, of floats where bits may
 * get lost, none elsewhere. */
static bool fits_rounding(ptx_type to, ptx_type from, uint64_t flags)
{
    uint64_t to_whole = flags & (F(RNI) | F(RZI) | F(RMI) | F(RPI));
    uint64_t to_float = flags & (F(RN) | F(RZ) | F(RM) | F(RP));
    int bits = ptx_type_bits(to), from_bits = ptx_type_bits(from);
    if (flags & F(RNA)) {
        return to == TYPE_TF32;
    }
    if (ptx_type_class(from) != 'f') {
        return !to_whole && (ptx_type_class(to) == 'f') == (to_float != 0);
    }
    if (ptx_type_class(to) != 'f') {
        return to_whole && !to_float;
    }
    if (to == from) {
        return !to_float;
    }
    bool narrows = to == TYPE_TF32 || bits <= from_bits;
    return !to_whole && (narrows ? to_float != 0 : !to_float || from == TYPE_BF16);
}

/* Integers saturate where a value can be out of range, floats to [0, 1]; bf16 and tf32 do not. */
static bool fits_sat(ptx_type to, ptx_type from)
{
    char class = ptx_type_class(to), from_class = ptx_type_class(from);
    if (class == 'f' || from_class == 'f') {
        return to != TYPE_BF16 && from != TYPE_BF16 && to != TYPE_TF32;
    }
    int spare = ptx_type_bits(to) - ptx_type_bits(from);
    return class == from_class ? spare < 0 : class == 'u' || spare <= 0;
}

/* .relu and .satfinite: only from f32, rounded to nearest or to zero, to the short types. */
static bool fits_relu(ptx_type to, ptx_type from, uint64_t flags)
{
    return from == TYPE_F32 && (to == TYPE_F16 || to == TYPE_BF16 || to == TYPE_TF32) &&
           !(flags & (F(FTZ) | F(SAT) | F(RM) | F(RP))) && !(flags & F(RNA) && flags & F(RELU));
}

static void check_convertible(decoder *d, ptx_type to, ptx_type from, uint64_t flags)
{
    uint64_t numbers = M(U8) | M(S8) | M(U16) | M(S16) | M(U32) | M(S32) | M(U64) | M(S64) |
                       M(F16) | M(BF16) | M(F32) | M(F64);
    uint64_t bytes = M(U8) | M(S8), pair = UINT64_C(1) << to | UINT64_C(1) << from;
    if (!((numbers | M(TF32)) >> to & 1) || !(numbers >> from & 1) || !one_rounding(flags) ||
        (to == TYPE_TF32 && (from != TYPE_F32 || flags & (F(RM) | F(RP) | F(FTZ)))) ||
        (pair & M(BF16) && pair & bytes) || (flags & F(FTZ) && !(pair & M(F32))) ||
        (flags & F(SAT) && !fits_sat(to, from)) ||
        (flags & (F(RELU) | F(SATFINITE)) && !fits_relu(to, from, flags))) {
        decode_unknown(d);
    }
    if (!fits_rounding(to, from, flags)) {
        decode_fail(d, "'cvt' from %s to %s lacks its rounding modifier, or has a wrong one",
                    ptx_type_text(from), ptx_type_text(to));
    }
}

static void convert_numbers(decoder *d, ptx_type to, ptx_type from)
{
    check_convertible(d, to, from, d->words.flags);
    decode_operand_count(d, 2, 2);
    uint32_t aux;
    ir_op op = decode_convert_op(to, from, d->words.flags, &aux);
    uint32_t source = decode_use(d, &d->statement->operands[1], ptx_type_bits(from) / 8);
    uint32_t result =
        decode_def(d, &d->statement->operands[0], ptx_type_bits(to) / 8, ptx_type_class(to) == 's');
    decode_instr *in = decode_emit(d, op);
    in->in.aux = aux;
    decode_add_def(in, result);
    decode_add_use(in, source);
}

/* d, a, b to a pair (a in the high half); or between pairs with one source. */
static void convert_pairs(decoder *d, ptx_type to, ptx_type from)
{
    uint64_t flags = d->words.flags;
    bool from_f32 = from == TYPE_F32 && is_pair(to);
    bool between = is_pair(to) && is_pair(from) && is_byte_pair(to) != is_byte_pair(from);
    uint64_t allowed = F(RN) | F(RELU) | F(SATFINITE) | (from_f32 && !is_byte_pair(to) ? F(RZ) : 0);
    if ((!from_f32 && !between) || (flags & ~allowed) || !one_rounding(flags) ||
        !(flags & (F(RN) | F(RZ))) || (is_byte_pair(to) && !(flags & F(SATFINITE))) ||
        (is_byte_pair(from) && (to == TYPE_BF16X2 || flags & F(SATFINITE))) ||
        (is_byte_pair(to) && from == TYPE_BF16X2)) {
        decode_unknown(d);
    }
    int sources = from_f32 ? 2 : 1;
    decode_operand_count(d, 1 + sources, 1 + sources);
    uint32_t a = decode_use(d, &d->statement->operands[1], ptx_type_bits(from) / 8);
    uint32_t b = from_f32 ? decode_use(d, &d->statement->operands[2], 4) : a;
    uint32_t result = decode_def(d, &d->statement->operands[0], ptx_type_bits(to) / 8, false);
    const alu_row *row = find_row("cvt", flags, to, from);
    decode_instr *in = decode_emit(d, row        ? row->op
                                      : from_f32 ? IR_convert_pair
                                                 : IR_convert_from_pair);
    in->in.aux = decode_flags_aux(flags) | (uint32_t)to << AUX_TYPE_SHIFT |
                 (uint32_t)from << (AUX_TYPE_SHIFT + 8);
    decode_add_def(in, result);
    decode_add_use(in, a);
    decode_add_use(in, b);
}

/* cvt.pack.sat.convertType.abType d, a, b; or with .b32 and c: the packed upper part */
static void convert_pack(decoder *d)
{
    const decode_words *w = &d->words;
    ptx_type to = w->types[0];
    bool chained = w->type_count == 3;
    bool is_short = to == TYPE_U16 || to == TYPE_S16;
    if (w->flags != F(SAT) || w->types[1] != TYPE_S32 || (chained && w->types[2] != TYPE_B32) ||
        (!is_short && (!chained || (to != TYPE_U8 && to != TYPE_S8))) || (is_short && chained)) {
        decode_unknown(d);
    }
    decode_operand_count(d, chained ? 4 : 3, chained ? 4 : 3);
    uint32_t a = decode_use(d, &d->statement->operands[1], 4);
    uint32_t b = decode_use(d, &d->statement->operands[2], 4);
    uint32_t c = chained ? decode_use(d, &d->statement->operands[3], 4) : decode_const(d, 0, 4);
    uint32_t result = decode_def(d, &d->statement->operands[0], 4, false);
    decode_instr *in = decode_emit(d, IR_convert_pack);
    in->in.aux = (uint32_t)to << AUX_TYPE_SHIFT;
    decode_add_def(in, result);
    decode_add_use(in, a);
    decode_add_use(in, b);
    decode_add_use(in, c);
}

void decode_cvt(decoder *d)
{
    const decode_words *w = &d->words;
    if (w->mode == MODE_PACK) {
        convert_pack(d);
    } else if (w->mode >= 0 || w->type_count != 2) {
        decode_unknown(d);
    } else if (is_pair(w->types[0]) || is_pair(w->types[1])) {
        convert_pairs(d, w->types[0], w->types[1]);
    } else {
        convert_numbers(d, w->types[0], w->types[1]);
    }
}
