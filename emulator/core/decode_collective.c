/*
 * decode_collective.c: instructions of several lanes or warps at once: barriers, shuffles, votes,
 * reductions and mma.
 */
#include <string.h>

#include "exec.h"

/* ---- barriers ---- */

static void decode_bar_warp(decoder *d)
{
    const ptx_statement *s = d->statement;
    if (strcmp(s->opcode, "bar") || d->words.action >= 0 ||
        strcmp(s->modifiers[s->modifier_count - 1], "sync")) {
        decode_unknown(d);
    }
    decode_operand_count(d, 1, 1);
    uint32_t mask = decode_use(d, &d->statement->operands[0], 4);
    decode_add_use(decode_emit(d, IR_bar_warp), mask);
}

/* aux: MODE_* | BAR_ALIGNED | BAR_COUNTED | action << 16; r: result, id, count, predicate */
void decode_bar(decoder *d)
{
    const ptx_statement *s = d->statement;
    const decode_words *w = &d->words;
    const ptx_operand *o = s->operands;
    if (w->mode == MODE_WARP) {
        decode_bar_warp(d);
        return;
    }
    if (w->order & ORDER_CLUSTER) {
        decode_cluster_barrier(d);
        return;
    }
    bool is_red = w->mode == MODE_RED, is_arrive = w->mode == MODE_ARRIVE;
    if ((!is_red && !is_arrive && w->mode != MODE_SYNC) || (w->order & ~(uint32_t)ORDER_NARROW)) {
        decode_unknown(d);
    }
    bool popc = w->action == ACTION_POPC;
    if (is_red != (w->action >= 0) ||
        (is_red && !popc && w->action != ACTION_AND && w->action != ACTION_OR) ||
        (is_red && w->types[0] != (popc ? TYPE_U32 : TYPE_PRED))) {
        decode_unknown(d);
    }
    int first = is_red ? 1 : 0, extra = is_red ? 1 : 0;
    decode_operand_count(d, first + 1 + extra + (is_arrive ? 1 : 0), first + 2 + extra);
    bool counted = s->operand_count == first + 2 + extra;
    uint32_t id = decode_use(d, &o[first], 4);
    uint32_t count = counted ? decode_use(d, &o[first + 1], 4) : decode_const(d, 0, 4);
    uint32_t value = is_red ? decode_use_predicate(d, &o[s->operand_count - 1]) : DECODE_ALL;
    uint32_t result =
        is_red ? decode_def(d, &o[0], popc ? 4 : 0, false) : decode_register_new(d, 4);
    bool aligned = s->opcode[3] == 0 || (w->flags & F(ALIGNED));
    decode_instr *in = decode_emit(d, IR_bar);
    in->in.aux = (uint32_t)w->mode | (aligned ? BAR_ALIGNED : 0) | (counted ? BAR_COUNTED : 0) |
                 (is_red ? (uint32_t)w->action << BAR_ACTION_SHIFT : 0);
    decode_add_def(in, result);
    decode_add_use(in, id);
    decode_add_use(in, count);
    decode_add_use(in, value);
}

/* ---- exchanges between lanes ---- */

static void require_sync(decoder *d)
{
    if (!(d->words.flags & F(SYNC))) {
        decode_fail(d, "'%s' without .sync does not exist on these targets", d->statement->opcode);
    }
}

void decode_shfl(decoder *d)
{
    const ptx_operand *o = d->statement->operands;
    require_sync(d);
    decode_operand_count(d, 5, 5);
    if (d->words.types[0] != TYPE_B32 || d->words.mode < MODE_UP || d->words.mode > MODE_IDX) {
        decode_unknown(d);
    }
    uint32_t a = decode_use(d, &o[1], 4), b = decode_use(d, &o[2], 4), c = decode_use(d, &o[3], 4);
    uint32_t members = decode_use(d, &o[4], 4);
    uint32_t result = decode_def(d, &o[0], 4, false);
    uint32_t in_range =
        o[0].pair >= 0 ? decode_def_register(d, o[0].pair, 0, false) : decode_register_new(d, 0);
    decode_instr *in = decode_emit(d, IR_shfl);
    in->in.aux = (uint32_t)d->words.mode;
    decode_add_def(in, result);
    decode_add_def(in, in_range);
    decode_add_use(in, a);
    decode_add_use(in, b);
    decode_add_use(in, c);
    decode_add_use(in, members);
}

void decode_vote(decoder *d)
{
    const ptx_operand *o = d->statement->operands;
    int mode = d->words.mode;
    require_sync(d);
    decode_operand_count(d, 3, 3);
    bool ballot = mode == MODE_BALLOT;
    if (mode < MODE_ALL || mode > MODE_BALLOT ||
        d->words.types[0] != (ballot ? TYPE_B32 : TYPE_PRED)) {
        decode_unknown(d);
    }
    uint32_t value = decode_use_predicate(d, &o[1]), members = decode_use(d, &o[2], 4);
    uint32_t result = decode_def(d, &o[0], ballot ? 4 : 0, false);
    decode_instr *in = decode_emit(d, IR_vote);
    in->in.aux = (uint32_t)mode;
    decode_add_def(in, result);
    decode_add_use(in, value);
    decode_add_use(in, members);
}

void decode_match(decoder *d)
{
    const ptx_operand *o = d->statement->operands;
    int bytes = ptx_type_bits(d->words.types[0]) / 8;
    bool all = d->words.mode == MODE_ALL;
    require_sync(d);
    decode_operand_count(d, 3, 3);
    if ((d->words.types[0] != TYPE_B32 && d->words.types[0] != TYPE_B64) ||
        (!all && d->words.mode != MODE_ANY) || (!all && o[0].pair >= 0)) {
        decode_unknown(d);
    }
    uint32_t value = decode_use(d, &o[1], bytes), members = decode_use(d, &o[2], 4);
    uint32_t result = decode_def(d, &o[0], 4, false);
    uint32_t same =
        o[0].pair >= 0 ? decode_def_register(d, o[0].pair, 0, false) : decode_register_new(d, 0);
    decode_instr *in = decode_emit(d, IR_match);
    in->in.aux = (all ? 1u : 0) | (uint32_t)bytes << 8;
    decode_add_def(in, result);
    decode_add_def(in, same);
    decode_add_use(in, value);
    decode_add_use(in, members);
}

void decode_redux(decoder *d)
{
    const ptx_operand *o = d->statement->operands;
    int action = d->words.action;
    ptx_type type = d->words.types[0];
    bool bitwise = action == ACTION_AND || action == ACTION_OR || action == ACTION_XOR;
    require_sync(d);
    decode_operand_count(d, 3, 3);
    if (bitwise ? type != TYPE_B32
                : (action != ACTION_ADD && action != ACTION_MIN && action != ACTION_MAX) ||
                      (type != TYPE_U32 && type != TYPE_S32)) {
        decode_unknown(d);
    }
    uint32_t value = decode_use(d, &o[1], 4), members = decode_use(d, &o[2], 4);
    uint32_t result = decode_def(d, &o[0], 4, type == TYPE_S32);
    decode_instr *in = decode_emit(d, IR_redux);
    in->in.aux = (uint32_t)action | (type == TYPE_S32 ? 1u << 8 : 0);
    decode_add_def(in, result);
    decode_add_use(in, value);
    decode_add_use(in, members);
}

void decode_activemask(decoder *d)
{
    decode_operand_count(d, 1, 1);
    if (d->words.types[0] != TYPE_B32) {
        decode_unknown(d);
    }
    uint32_t result = decode_def(d, &d->statement->operands[0], 4, false);
    decode_add_def(decode_emit(d, IR_activemask), result);
}

/* elect.sync d|p, mask */
void decode_elect(decoder *d)
{
    const ptx_operand *o = d->statement->operands;
    require_sync(d);
    decode_operand_count(d, 2, 2);
    uint32_t members = decode_use(d, &o[1], 4);
    uint32_t leader = decode_def(d, &o[0], 4, false);
    uint32_t elected =
        o[0].pair >= 0 ? decode_def_register(d, o[0].pair, 0, false) : decode_register_new(d, 0);
    decode_instr *in = decode_emit(d, IR_elect);
    decode_add_def(in, leader);
    decode_add_def(in, elected);
    decode_add_use(in, members);
}

/* ---- mma ---- */

typedef struct mma_row {
    int shape;
    ptx_type to, a, b; /* types of D and C, A, B */
    int registers_d, registers_a, registers_b;
    ir_op op;
    uint32_t aux;
} mma_row;

/* aux of mma: bit 0: C and D are f16 pairs; bytes (exec_mma.c): types of A and B */
static const mma_row mma_rows[] = {
    {SHAPE_M16N8K16, TYPE_F32, TYPE_BF16, TYPE_BF16, 4, 4, 2, IR_mma_m16n8k16_bf16, 0},
    {SHAPE_M16N8K8, TYPE_F32, TYPE_BF16, TYPE_BF16, 4, 2, 1, IR_mma_m16n8k8_bf16, 0},
    {SHAPE_M16N8K16, TYPE_F32, TYPE_F16, TYPE_F16, 4, 4, 2, IR_mma_m16n8k16_f16, 0},
    {SHAPE_M16N8K8, TYPE_F32, TYPE_F16, TYPE_F16, 4, 2, 1, IR_mma_m16n8k8_f16, 0},
    {SHAPE_M16N8K16, TYPE_F16, TYPE_F16, TYPE_F16, 2, 4, 2, IR_mma_m16n8k16_f16, 1},
    {SHAPE_M16N8K8, TYPE_F16, TYPE_F16, TYPE_F16, 2, 2, 1, IR_mma_m16n8k8_f16, 1},
    {SHAPE_M16N8K8, TYPE_F32, TYPE_TF32, TYPE_TF32, 4, 4, 2, IR_mma_m16n8k8_tf32, 0},
    {SHAPE_M16N8K4, TYPE_F32, TYPE_TF32, TYPE_TF32, 4, 2, 1, IR_mma_m16n8k4_tf32, 0},
};

static bool is_mma_byte(ptx_type type, bool integer)
{
    return integer ? type == TYPE_U8 || type == TYPE_S8 : type == TYPE_E4M3 || type == TYPE_E5M2;
}

/* The 8-bit shapes m16n8k16 and m16n8k32 are one handler with the types in aux. */
static bool find_byte_row(const decode_words *w, mma_row *row)
{
    bool integer = w->types[0] == TYPE_S32;
    bool deep = w->shape == SHAPE_M16N8K32;
    if ((!integer && w->types[0] != TYPE_F32) || (!deep && w->shape != SHAPE_M16N8K16) ||
        !is_mma_byte(w->types[1], integer) || !is_mma_byte(w->types[2], integer) ||
        ((w->flags & F(SATFINITE)) && !integer)) {
        return false;
    }
    *row = (mma_row){w->shape,     w->types[0], w->types[1],
                     w->types[2],  4,           deep ? 4 : 2,
                     deep ? 2 : 1, IR_mma_byte, 0};
    row->aux = (deep ? 1u : 0) | (integer ? 2u : 0) | (w->flags & F(SATFINITE) ? 4u : 0) |
               (uint32_t)w->types[1] << 8 | (uint32_t)w->types[2] << 16;
    return true;
}

static mma_row find_mma(decoder *d)
{
    const decode_words *w = &d->words;
    mma_row found;
    if ((w->flags & ~F(SATFINITE)) != (F(SYNC) | F(ALIGNED)) || w->type_count != 4 ||
        w->types[3] != w->types[0] || w->layout_count != 2 || strcmp(w->layouts[0], "row") ||
        strcmp(w->layouts[1], "col")) {
        decode_unknown(d);
    }
    for (size_t i = 0; i < sizeof mma_rows / sizeof mma_rows[0]; i++) {
        const mma_row *row = &mma_rows[i];
        if (row->shape == w->shape && row->to == w->types[0] && row->a == w->types[1] &&
            row->b == w->types[2] && !(w->flags & F(SATFINITE))) {
            return *row;
        }
    }
    if (!find_byte_row(w, &found)) {
        decode_unknown(d);
    }
    return found;
}

static void mma_operands(decoder *d, uint32_t *out, const ptx_operand *operand, int registers,
                         bool define)
{
    bool is_list = operand->kind == OPERAND_VECTOR;
    if ((is_list ? operand->item_count : 1) != registers) {
        decode_fail(d, "a fragment of 'mma' has %d registers, %d are wanted",
                    is_list ? operand->item_count : 1, registers);
    }
    for (int i = 0; i < registers; i++) {
        const ptx_operand *item = is_list ? &operand->items[i] : operand;
        out[i] = define ? decode_def(d, item, 4, false) : decode_use(d, item, 4);
    }
}

void decode_mma(decoder *d)
{
    const ptx_operand *o = d->statement->operands;
    mma_row row = find_mma(d);
    uint32_t to[4], a[4], b[2], c[4];
    decode_operand_count(d, 4, 4);
    mma_operands(d, a, &o[1], row.registers_a, false);
    mma_operands(d, b, &o[2], row.registers_b, false);
    mma_operands(d, c, &o[3], row.registers_d, false);
    mma_operands(d, to, &o[0], row.registers_d, true);
    decode_instr *in = decode_emit(d, row.op);
    in->in.aux = row.aux;
    for (int i = 0; i < row.registers_d; i++) {
        decode_add_def(in, to[i]);
    }
    for (int i = 0; i < row.registers_a; i++) {
        decode_add_use(in, a[i]);
    }
    for (int i = 0; i < row.registers_b; i++) {
        decode_add_use(in, b[i]);
    }
    for (int i = 0; i < row.registers_d; i++) {
        decode_add_use(in, c[i]);
    }
}
