/*
 * decode_memory.c: loads, stores, atomics, asynchronous copies and matrix loads.
 */
#include <string.h>

#include "exec.h"

decode_address decode_address_in(decoder *d, const ptx_operand *operand, ptx_space space)
{
    if (operand->kind != OPERAND_ADDRESS || operand->item_count != 1) {
        decode_fail(d, "an operand of '%s' must be an address in brackets", d->statement->opcode);
    }
    const ptx_operand *base = &operand->items[0];
    decode_address result = {.offset = operand->imm, .space = space, .wide = true};
    uint64_t symbol;
    ptx_space symbol_space;
    if (base->kind == OPERAND_REG) {
        int bytes = decode_register_bytes(d, base);
        if (bytes != 4 && bytes != 8) {
            decode_fail(d, "an address must be a register of 32 or 64 bits");
        }
        result.wide = bytes == 8;
        result.base = decode_use(d, base, bytes);
        if (space == SPACE_PARAM) {
            result.space = SPACE_GENERIC;
        }
    } else if (base->kind == OPERAND_INT) {
        result.base = decode_const(d, (uint64_t)base->imm, 8);
    } else if (decode_symbol_address(d, base, &symbol_space, &symbol)) {
        result.base = decode_const(d, symbol, 8);
        if (space == SPACE_PARAM) {
            result.space = symbol_space;
        } else if (space == SPACE_GENERIC) {
            if (symbol_space != SPACE_GLOBAL && symbol_space != SPACE_CONST) {
                result.space = symbol_space;
            }
        } else if (space != symbol_space &&
                   !(space == SPACE_GLOBAL && symbol_space == SPACE_CONST)) {
            decode_fail(d, "'%.200s' is not in the state space of '%s'", base->name->chars,
                        d->statement->opcode);
        }
    } else {
        decode_fail(d, "'%.200s' is not declared", base->name ? base->name->chars : "?");
    }
    if (result.space == SPACE_CONST) {
        result.space = SPACE_GLOBAL;
    }
    return result;
}

static ir_op access_op(decoder *d, bool load, ptx_space space, int bytes)
{
    int step = bytes == 1 ? 0 : bytes == 2 ? 1 : bytes == 4 ? 2 : bytes == 8 ? 3 : 4;
    ir_op first;
    switch (space) {
    case SPACE_GLOBAL:
        first = load ? IR_ld_global_1 : IR_st_global_1;
        break;
    case SPACE_SHARED:
        first = load ? IR_ld_shared_1 : IR_st_shared_1;
        break;
    case SPACE_LOCAL:
        first = load ? IR_ld_local_1 : IR_st_local_1;
        break;
    case SPACE_GENERIC:
        first = load ? IR_ld_generic_1 : IR_st_generic_1;
        break;
    default:
        if (!load) {
            decode_fail(d, "a kernel parameter cannot be written");
        }
        first = IR_ld_param_1;
        break;
    }
    return (ir_op)((int)first + step);
}

/* Checks types and the vector; returns the elements of the register operand. More than 16 bytes are
 * for elements of 4 or 8 in global memory. */
static const ptx_operand *access_elements(decoder *d, const ptx_operand *operand, int *bytes)
{
    const decode_words *w = &d->words;
    uint64_t types = M(B8) | M(B16) | M(B32) | M(B64) | M(B128) | M(U8) | M(U16) | M(U32) | M(U64) |
                     M(S8) | M(S16) | M(S32) | M(S64) | M(F32) | M(F64);
    *bytes = ptx_type_bits(w->types[0]) / 8;
    bool is_global = !w->has_space || w->space == SPACE_GLOBAL;
    int most = is_global && (*bytes == 4 || *bytes == 8) ? 32 : 16;
    if (w->type_count != 1 || !(types >> w->types[0] & 1) || *bytes * w->vector > most) {
        decode_unknown(d);
    }
    bool is_list = operand->kind == OPERAND_VECTOR;
    int count = is_list ? operand->item_count : 1;
    if (count != w->vector) {
        decode_fail(d, "'%s' moves %d elements, %d operands are given", d->statement->opcode,
                    w->vector, count);
    }
    return is_list ? operand->items : operand;
}

void decode_ld(decoder *d)
{
    const ptx_statement *s = d->statement;
    decode_operand_count(d, d->words.cache_hint ? 3 : 2, d->words.cache_hint ? 3 : 2);
    int bytes;
    const ptx_operand *elements = access_elements(d, &s->operands[0], &bytes);
    ptx_space space = d->words.has_space ? d->words.space : SPACE_GENERIC;
    bool is_uniform = strcmp(s->opcode, "ldu") == 0;
    if ((d->words.flags & F(NC) && space != SPACE_GLOBAL) ||
        (is_uniform && ((space != SPACE_GLOBAL && space != SPACE_GENERIC) || d->words.vector == 8 ||
                        bytes * d->words.vector > 16))) {
        decode_unknown(d);
    }
    decode_address from = decode_address_in(d, &s->operands[1], space);
    bool is_signed = ptx_type_class(d->words.types[0]) == 's';
    uint32_t targets[8];
    for (int i = 0; i < d->words.vector; i++) {
        targets[i] = decode_def(d, &elements[i], bytes, is_signed);
    }
    decode_instr *in = decode_emit(d, access_op(d, true, from.space, bytes));
    in->in.order = d->words.order;
    in->in.aux = (uint32_t)d->words.vector | (from.wide ? AUX_WIDE : 0) |
                 (from.space == SPACE_GENERIC || d->words.is_cluster ? AUX_CLUSTER : 0);
    in->in.imm = from.offset;
    for (int i = 0; i < d->words.vector; i++) {
        decode_add_def(in, targets[i]);
    }
    decode_add_use(in, from.base);
}

void decode_st(decoder *d)
{
    const ptx_statement *s = d->statement;
    if (d->words.flags) {
        decode_st_async(d);
        return;
    }
    decode_operand_count(d, d->words.cache_hint ? 3 : 2, d->words.cache_hint ? 3 : 2);
    int bytes;
    const ptx_operand *elements = access_elements(d, &s->operands[1], &bytes);
    ptx_space space = d->words.has_space ? d->words.space : SPACE_GENERIC;
    decode_address to = decode_address_in(d, &s->operands[0], space);
    if (space == SPACE_CONST) {
        decode_fail(d, "constant memory cannot be written");
    }
    uint32_t values[8];
    for (int i = 0; i < d->words.vector; i++) {
        values[i] = decode_use(d, &elements[i], bytes);
    }
    decode_instr *in = decode_emit(d, access_op(d, false, to.space, bytes));
    in->in.order = d->words.order;
    in->in.aux = (uint32_t)d->words.vector | (to.wide ? AUX_WIDE : 0) |
                 (to.space == SPACE_GENERIC || d->words.is_cluster ? AUX_CLUSTER : 0);
    in->in.imm = to.offset;
    decode_add_use(in, to.base);
    for (int i = 0; i < d->words.vector; i++) {
        decode_add_use(in, values[i]);
    }
}

/* ---- atomics ---- */

/* The short floats have one rounding mode, without .ftz, and a minimum only in vectors. */
static bool atomic_exists(const decode_words *w)
{
    uint64_t integers = M(U32) | M(S32) | M(U64) | M(S64);
    uint64_t shorts = M(F16) | M(BF16) | M(F16X2) | M(BF16X2);
    uint64_t allowed = 0;
    switch (w->action) {
    case ACTION_AND:
    case ACTION_OR:
    case ACTION_XOR:
        allowed = M(B32) | M(B64);
        break;
    case ACTION_EXCH:
        allowed = M(B32) | M(B64) | M(B128);
        break;
    case ACTION_CAS:
        allowed = M(B16) | M(B32) | M(B64) | M(B128);
        break;
    case ACTION_ADD:
        allowed = w->vector > 1 ? shorts | M(F32) : (integers & ~M(S64)) | shorts | M(F32) | M(F64);
        break;
    case ACTION_MIN:
    case ACTION_MAX:
        allowed = w->vector > 1 ? shorts : integers;
        break;
    case ACTION_INC:
    case ACTION_DEC:
        allowed = M(U32);
        break;
    default:
        break;
    }
    bool fits = w->vector == 1 ||
                ((w->action == ACTION_ADD || w->action == ACTION_MIN || w->action == ACTION_MAX) &&
                 ptx_type_bits(w->types[0]) * w->vector <= 128);
    return w->type_count == 1 && fits && allowed >> w->types[0] & 1 &&
           !(shorts >> w->types[0] & 1) == !(w->flags & F(NOFTZ));
}

/* operands: where the address, the (vector of) values and the second value of cas are */
static void decode_atomic(decoder *d, bool returns)
{
    const ptx_statement *s = d->statement;
    const decode_words *w = &d->words;
    int first = returns ? 1 : 0;
    ptx_type type = w->types[0];
    bool is_cas = w->action == ACTION_CAS;
    ptx_space space = w->has_space ? w->space : SPACE_GENERIC;
    bool is_global = space == SPACE_GENERIC || space == SPACE_GLOBAL;
    if (!atomic_exists(w) || (!returns && (is_cas || w->action == ACTION_EXCH)) ||
        (!is_global && (space != SPACE_SHARED || w->vector > 1))) {
        decode_unknown(d);
    }
    int wanted = first + 2 + (is_cas ? 1 : 0) + (w->cache_hint ? 1 : 0);
    decode_operand_count(d, wanted, wanted);
    int bytes = ptx_type_bits(type) / 8;
    decode_address at = decode_address_in(d, &s->operands[first], space);
    if (at.space != SPACE_GENERIC && at.space != SPACE_GLOBAL && at.space != SPACE_SHARED) {
        decode_unknown(d);
    }
    const ptx_operand *values = &s->operands[first + 1], *results = &s->operands[0];
    if (w->vector > 1) {
        if (values->item_count != w->vector || (returns && results->item_count != w->vector)) {
            decode_unknown(d);
        }
        values = values->items;
        results = results->items;
    }
    uint32_t operands[8], second = 0, targets[8];
    for (int i = 0; i < w->vector; i++) {
        operands[i] = decode_use(d, &values[i], bytes);
        targets[i] = returns ? decode_def(d, &results[i], bytes, ptx_type_class(type) == 's') : 0;
    }
    if (is_cas) {
        second = decode_use(d, &s->operands[first + 2], bytes);
    }
    decode_instr *in = decode_emit(d, bytes == 2   ? IR_atom_2
                                      : bytes == 4 ? IR_atom_4
                                      : bytes == 8 ? IR_atom_8
                                                   : IR_atom_16);
    in->in.aux = (uint32_t)w->vector | (at.wide ? AUX_WIDE : 0) |
                 (at.space == SPACE_GENERIC || w->is_cluster ? AUX_CLUSTER : 0) |
                 (uint32_t)w->action << AUX_ACTION_SHIFT | (uint32_t)type << AUX_ATOM_TYPE_SHIFT |
                 (uint32_t)at.space << AUX_SPACE_SHIFT | (returns ? AUX_RETURNS : 0);
    in->in.order =
        ORDER_STRONG | w->order | (w->order & (ORDER_NARROW | ORDER_CLUSTER) ? 0 : ORDER_WIDE);
    in->in.imm = at.offset;
    for (int i = 0; i < w->vector && returns; i++) {
        decode_add_def(in, targets[i]);
    }
    decode_add_use(in, at.base);
    for (int i = 0; i < w->vector; i++) {
        decode_add_use(in, operands[i]);
    }
    if (is_cas) {
        decode_add_use(in, second);
    }
}

/* How far before its atom.cas a plain load may begin a compare-and-swap loop. */
enum { CAS_WINDOW = 64 };

void decode_mark_cas_loops(decoder *d)
{
    for (uint32_t i = 0; i < d->count; i++) {
        const decode_instr *cas = &d->code[i];
        if (cas->op < IR_atom_2 || cas->op > IR_atom_16 ||
            (cas->in.aux >> AUX_ACTION_SHIFT & 0xff) != ACTION_CAS) {
            continue;
        }
        for (uint32_t k = i > CAS_WINDOW ? i - CAS_WINDOW : 0; k < i; k++) {
            decode_instr *load = &d->code[k];
            if (load->op >= IR_ld_global_1 && load->op <= IR_ld_generic_16 && load->defs == 1 &&
                load->in.imm == cas->in.imm && load->in.r[1] == cas->in.r[cas->defs]) {
                load->in.order |= cas->in.order & (ORDER_STRONG | ORDER_WIDE | ORDER_CLUSTER);
            }
        }
    }
}

void decode_atom(decoder *d)
{
    decode_atomic(d, true);
}

void decode_red(decoder *d)
{
    decode_atomic(d, false);
}

/* ---- cp.async ---- */

void decode_cp_async(decoder *d)
{
    const ptx_statement *s = d->statement;
    const ptx_operand *o = s->operands;
    if (d->words.flags & F(BULK)) {
        decode_bulk(d);
        return;
    }
    if (d->words.flags & F(MBARRIER)) {
        decode_cp_async_arrive(d);
        return;
    }
    if (d->words.flags || d->words.type_count || d->words.action >= 0 ||
        (d->words.mode != MODE_ASYNC && d->words.has_space)) {
        decode_unknown(d);
    }
    if (d->words.mode == MODE_COMMIT_GROUP) {
        decode_operand_count(d, 0, 0);
        decode_emit(d, IR_cp_async_commit);
        return;
    }
    if (d->words.mode == MODE_WAIT_GROUP || d->words.mode == MODE_WAIT_ALL) {
        bool all = d->words.mode == MODE_WAIT_ALL;
        decode_operand_count(d, all ? 0 : 1, all ? 0 : 1);
        int64_t pending = all ? -1 : decode_immediate(d, &o[0]);
        decode_emit(d, IR_cp_async_wait)->in.imm = pending;
        return;
    }
    if (d->words.mode != MODE_ASYNC || d->words.space != SPACE_SHARED || d->words.is_cluster ||
        d->words.second_space != SPACE_GLOBAL) {
        decode_unknown(d);
    }
    int optional = d->words.cache_hint ? 1 : 0;
    decode_operand_count(d, 3 + optional, 4 + optional);
    decode_address to = decode_address_in(d, &o[0], SPACE_SHARED);
    decode_address from = decode_address_in(d, &o[1], SPACE_GLOBAL);
    int64_t bytes = decode_immediate(d, &o[2]);
    bool only_16 = false;
    for (int i = 0; i < s->modifier_count; i++) {
        only_16 |= strcmp(s->modifiers[i], "cg") == 0;
    }
    if ((bytes != 4 && bytes != 8 && bytes != 16) || (only_16 && bytes != 16)) {
        decode_fail(d, "'cp.async' cannot copy %lld bytes", (long long)bytes);
    }
    uint32_t size = decode_const(d, (uint64_t)bytes, 4), ignore = DECODE_NONE;
    if (s->operand_count > 3 + optional) {
        bool is_predicate = o[3].kind == OPERAND_REG && decode_register_bytes(d, &o[3]) == 0;
        if (is_predicate) {
            ignore = decode_use_predicate(d, &o[3]);
        } else {
            size = decode_use(d, &o[3], 4);
        }
    }
    decode_instr *in = decode_emit(d, IR_cp_async);
    in->in.aux = (to.wide ? AUX_WIDE : 0) | (uint32_t)bytes << AUX_ACTION_SHIFT;
    in->in.imm = to.offset;
    in->in.target = (uint32_t)(int32_t)from.offset;
    if ((int32_t)from.offset != from.offset) {
        decode_fail(d, "the offset of the source of 'cp.async' needs more than 32 bits");
    }
    decode_add_use(in, to.base);
    decode_add_use(in, from.base);
    decode_add_use(in, size);
    decode_add_use(in, ignore);
}

/* ---- matrices ---- */

static void check_matrix(decoder *d, bool needs_count)
{
    const decode_words *w = &d->words;
    uint64_t always = F(SYNC) | F(ALIGNED);
    if ((w->flags & ~F(TRANS)) != always || w->shape != SHAPE_M8N8 || w->types[0] != TYPE_B16 ||
        w->type_count != 1 || needs_count != (w->matrices > 0)) {
        decode_unknown(d);
    }
}

static void decode_matrix_access(decoder *d, bool load)
{
    const ptx_operand *o = d->statement->operands;
    int matrices = d->words.matrices;
    check_matrix(d, true);
    decode_operand_count(d, 2, 2);
    const ptx_operand *list = &o[load ? 0 : 1];
    bool is_list = list->kind == OPERAND_VECTOR;
    if ((is_list ? list->item_count : 1) != matrices) {
        decode_unknown(d);
    }
    ptx_space space = d->words.has_space ? d->words.space : SPACE_GENERIC;
    decode_address at = decode_address_in(d, &o[load ? 1 : 0], space);
    if ((space != SPACE_SHARED && space != SPACE_GENERIC) ||
        (at.space != SPACE_SHARED && at.space != SPACE_GENERIC)) {
        decode_unknown(d);
    }
    uint32_t fragments[4];
    for (int i = 0; i < matrices; i++) {
        const ptx_operand *item = is_list ? &list->items[i] : list;
        fragments[i] = load ? decode_def(d, item, 4, false) : decode_use(d, item, 4);
    }
    decode_instr *in = decode_emit(d, load ? IR_ldmatrix : IR_stmatrix);
    in->in.aux = (uint32_t)matrices | (at.wide ? AUX_WIDE : 0) |
                 (d->words.flags & F(TRANS) ? 1u << AUX_ACTION_SHIFT : 0) |
                 (uint32_t)at.space << AUX_SPACE_SHIFT;
    in->in.imm = at.offset;
    for (int i = 0; i < matrices && load; i++) {
        decode_add_def(in, fragments[i]);
    }
    decode_add_use(in, at.base);
    for (int i = 0; i < matrices && !load; i++) {
        decode_add_use(in, fragments[i]);
    }
}

void decode_ldmatrix(decoder *d)
{
    decode_matrix_access(d, true);
}

void decode_stmatrix(decoder *d)
{
    decode_matrix_access(d, false);
}

void decode_movmatrix(decoder *d)
{
    check_matrix(d, false);
    if (!(d->words.flags & F(TRANS))) {
        decode_unknown(d);
    }
    decode_operand_count(d, 2, 2);
    uint32_t value = decode_use(d, &d->statement->operands[1], 4);
    uint32_t result = decode_def(d, &d->statement->operands[0], 4, false);
    decode_instr *in = decode_emit(d, IR_movmatrix);
    decode_add_def(in, result);
    decode_add_use(in, value);
}

/* A cache policy has no effect: any value will do. */
void decode_createpolicy(decoder *d)
{
    decode_operand_count(d, 1, 4);
    if (d->words.types[0] != TYPE_B64) {
        decode_unknown(d);
    }
    uint32_t result = decode_def(d, &d->statement->operands[0], 8, false);
    decode_instr *in = decode_emit(d, IR_mov_b64);
    decode_add_def(in, result);
    decode_add_use(in, decode_const(d, 0, 8));
}

/* Memory is one and in order, so that a fence is only of interest to the race detector. */
void decode_fence(decoder *d)
{
    const decode_words *w = &d->words;
    bool is_proxy = w->flags == (F(PROXY) | F(ASYNC)) && !w->order,
         is_init = w->flags == F(MBARRIER_INIT) &&
                   w->order == (ORDER_STRONG | ORDER_RELEASE | ORDER_CLUSTER);
    bool takes_space = is_proxy && (w->space == SPACE_GLOBAL || w->space == SPACE_SHARED);
    for (int i = 0; i < d->statement->modifier_count; i++) {
        takes_space &= strcmp(d->statement->modifiers[i], "shared") != 0; /* but .shared::cta */
    }
    if ((w->flags && !is_proxy && !is_init) || (w->has_space && !takes_space)) {
        decode_unknown(d);
    }
    decode_operand_count(d, 0, 0);
    decode_emit(d, is_proxy  ? IR_fence_proxy
                   : is_init ? IR_fence_init
                             : IR_fence)
        ->in.order = w->order;
}

void decode_nop(decoder *d)
{
    decode_emit(d, IR_nop);
}

/* Prefetches and their like: there are no caches. */
void decode_prefetch(decoder *d)
{
    ptx_space space = d->words.space;
    bool takes_local = strcmp(d->statement->opcode, "prefetch") == 0;
    bool is_map = d->words.flags & F(TENSORMAP);
    bool known = is_map ? space == SPACE_GENERIC || space == SPACE_CONST || space == SPACE_PARAM
                        : space == SPACE_GENERIC || space == SPACE_GLOBAL ||
                              (space == SPACE_LOCAL && takes_local);
    if (!known) {
        decode_unknown(d);
    }
    decode_nop(d);
}

/* Time does not exist. */
void decode_nanosleep(decoder *d)
{
    if (d->words.types[0] != TYPE_U32) {
        decode_unknown(d);
    }
    decode_nop(d);
}
