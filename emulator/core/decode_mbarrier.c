/*
 * decode_mbarrier.c: mbarrier.* (PTX ISA 9.7.13.15.9 and on).
 */
#include "exec.h"

/* The forms: the word, what it is, the least and the most operands behind [addr], default order. */
typedef struct form {
    int mode;
    uint32_t kind;
    bool has_result;
    int least, most;
    uint32_t order;
} form;

#define RELEASES (ORDER_STRONG | ORDER_RELEASE)
#define ACQUIRES (ORDER_STRONG | ORDER_ACQUIRE)

static const form forms[] = {
    {MODE_INIT, MBARRIER_INIT, false, 1, 1, 0},
    {MODE_INVAL, MBARRIER_INVAL, false, 0, 0, 0},
    {MODE_ARRIVE, MBARRIER_ARRIVE, true, 0, 1, RELEASES},
    {MODE_ARRIVE_DROP, MBARRIER_ARRIVE | MBARRIER_DROP, true, 0, 1, RELEASES},
    {-1, MBARRIER_EXPECT_TX, false, 1, 1, ORDER_STRONG}, /* expect_tx is a flag */
    {MODE_COMPLETE_TX, MBARRIER_COMPLETE_TX, false, 1, 1, ORDER_STRONG},
    {MODE_TEST_WAIT, MBARRIER_TEST_WAIT, true, 1, 1, ACQUIRES},
    {MODE_TRY_WAIT, MBARRIER_TRY_WAIT, true, 1, 2, ACQUIRES},
};

static const form *find_form(decoder *d)
{
    const decode_words *w = &d->words;
    const form *found = NULL;
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        found = forms[i].mode == w->mode ? &forms[i] : found;
    }
    uint64_t allowed = !found                              ? 0
                       : found->kind == MBARRIER_EXPECT_TX ? F(EXPECT_TX)
                       : (found->kind & MBARRIER_KIND) == MBARRIER_ARRIVE
                           ? F(EXPECT_TX) | F(NO_COMPLETE)
                       : found->mode == MODE_TEST_WAIT || found->mode == MODE_TRY_WAIT ? F(PARITY)
                                                                                       : 0;
    bool both = (w->flags & F(EXPECT_TX)) && (w->flags & F(NO_COMPLETE));
    if (!found || (w->flags & ~allowed) || both || w->type_count != 1 || w->types[0] != TYPE_B64 ||
        (w->mode < 0 && !(w->flags & F(EXPECT_TX))) || (w->has_space && w->space != SPACE_SHARED)) {
        decode_unknown(d);
    }
    return found;
}

/* mbarrier.pending_count count, state: the low half of a state */
static void decode_pending_count(decoder *d)
{
    const ptx_operand *o = d->statement->operands;
    const decode_words *w = &d->words;
    if (w->flags || w->has_space || w->order || w->types[0] != TYPE_B64 || w->type_count != 1) {
        decode_unknown(d);
    }
    decode_operand_count(d, 2, 2);
    uint32_t state = decode_use(d, &o[1], 8), aux, count = decode_def(d, &o[0], 4, false);
    decode_instr *in = decode_emit(d, decode_convert_op(TYPE_U32, TYPE_U64, 0, &aux));
    in->in.aux = aux;
    decode_add_def(in, count);
    decode_add_use(in, state);
}

void decode_mbarrier(decoder *d)
{
    const decode_words *w = &d->words;
    const ptx_operand *o = d->statement->operands;
    if (w->mode == MODE_PENDING_COUNT) {
        decode_pending_count(d);
        return;
    }
    const form *f = find_form(d);
    int first = f->has_result ? 1 : 0;
    bool waits = f->mode == MODE_TEST_WAIT || f->mode == MODE_TRY_WAIT;
    bool by_state = waits && !(w->flags & F(PARITY));
    bool expects = f->has_result && (w->flags & F(EXPECT_TX));
    bool needs_value = expects || (w->flags & F(NO_COMPLETE));
    decode_operand_count(d, first + 1 + (needs_value ? 1 : f->least), first + 1 + f->most);
    bool may_be_remote = !waits && f->kind != MBARRIER_INIT && f->kind != MBARRIER_INVAL &&
                         !(w->flags & F(NO_COMPLETE)) &&
                         (!f->has_result || o[0].kind == OPERAND_SINK);
    if (w->is_cluster && !may_be_remote) {
        decode_unknown(d);
    }
    decode_address at =
        decode_address_in(d, &o[first], w->has_space ? SPACE_SHARED : SPACE_GENERIC);
    bool has_value = d->statement->operand_count > first + 1;
    uint32_t given =
        has_value ? decode_use(d, &o[first + 1], by_state ? 8 : 4) : decode_const(d, 1, 4);
    uint32_t result = !f->has_result ? decode_register_new(d, 8)
                      : waits        ? decode_def(d, &o[0], 0, false)
                                     : decode_def(d, &o[0], 8, false);
    decode_instr *in = decode_emit(d, IR_mbarrier);
    in->in.order = f->order;
    if (w->order) {
        uint32_t scope = w->order & (ORDER_WIDE | ORDER_NARROW | ORDER_CLUSTER);
        in->in.order = (w->order & ~scope ? w->order : f->order | scope);
    }
    in->in.imm = at.offset;
    in->in.aux = f->kind | (at.wide ? AUX_WIDE : 0) | (expects ? MBARRIER_EXPECT : 0) |
                 (w->flags & F(NO_COMPLETE) ? MBARRIER_NO_COMPLETE : 0) |
                 (w->flags & F(PARITY) ? MBARRIER_PARITY : 0) | (by_state ? MBARRIER_STATE : 0) |
                 (at.space == SPACE_GENERIC ? MBARRIER_GENERIC : 0) |
                 (w->is_cluster || (!w->has_space && may_be_remote) ? MBARRIER_CLUSTER : 0);
    decode_add_def(in, result);
    decode_add_use(in, at.base);
    decode_add_use(in, expects ? decode_const(d, 1, 4) : given);
    decode_add_use(in, expects ? given : decode_const(d, 0, 4));
}

/* cp.async.mbarrier.arrive{.noinc}{.shared{::cta}}.b64 [address] */
void decode_cp_async_arrive(decoder *d)
{
    const decode_words *w = &d->words;
    if (w->mode != MODE_ARRIVE || (w->flags & ~(F(MBARRIER) | F(NOINC))) || w->is_cluster ||
        (w->has_space && (w->space != SPACE_SHARED || w->second_space)) || w->action >= 0 ||
        w->type_count != 1 || w->types[0] != TYPE_B64 || w->cache_hint) {
        decode_unknown(d);
    }
    decode_operand_count(d, 1, 1);
    decode_address at = decode_address_in(d, &d->statement->operands[0],
                                          w->has_space ? SPACE_SHARED : SPACE_GENERIC);
    uint32_t result = decode_register_new(d, 8);
    decode_instr *in = decode_emit(d, IR_cp_async_arrive);
    in->in.imm = at.offset;
    in->in.aux = MBARRIER_COPIED | (at.wide ? AUX_WIDE : 0) |
                 (w->flags & F(NOINC) ? MBARRIER_NOINC : 0) |
                 (at.space == SPACE_GENERIC ? MBARRIER_GENERIC : 0);
    decode_add_def(in, result);
    decode_add_use(in, at.base);
    decode_add_use(in, decode_const(d, 1, 4));
    decode_add_use(in, decode_const(d, 0, 4));
}
