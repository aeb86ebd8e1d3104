/*
 * decode_bulk.c: cp.async.bulk.* (PTX ISA 9.7.9.25.4).
 */
#include "exec.h"

static uint32_t small_offset(decoder *d, int64_t offset)
{
    if (offset < 0 || offset >= 1 << (32 - BULK_OFFSET_SHIFT)) {
        decode_fail(d, "the offset of an mbarrier must be in shared memory");
    }
    return (uint32_t)offset;
}

static void decode_bulk_group(decoder *d)
{
    const decode_words *w = &d->words;
    bool waits = w->mode == MODE_WAIT_GROUP;
    if (w->flags & ~(F(BULK) | (waits ? F(READ) : 0))) {
        decode_unknown(d);
    }
    decode_operand_count(d, waits ? 1 : 0, waits ? 1 : 0);
    int64_t pending = waits ? decode_immediate(d, &d->statement->operands[0]) : 0;
    decode_instr *in = decode_emit(d, waits ? IR_bulk_wait : IR_bulk_commit);
    in->in.imm = pending;
    in->in.aux = w->flags & F(READ) ? BULK_READ : 0;
}

/* Loads: to shared, from global, bytes, mbarrier; stores: to global, from shared, bytes. */
void decode_bulk(decoder *d)
{
    const decode_words *w = &d->words;
    const ptx_operand *o = d->statement->operands;
    if (w->mode == MODE_COMMIT_GROUP || w->mode == MODE_WAIT_GROUP) {
        decode_bulk_group(d);
        return;
    }
    bool stores = w->space == SPACE_GLOBAL;
    uint64_t end = stores ? F(BULK_GROUP) : F(COMPLETE_BYTES);
    if (w->mode != MODE_ASYNC || w->flags != (F(BULK) | end) ||
        w->space != (stores ? SPACE_GLOBAL : SPACE_SHARED) ||
        w->second_space != (stores ? SPACE_SHARED : SPACE_GLOBAL)) {
        decode_unknown(d);
    }
    int operands = (stores ? 3 : 4) + (w->cache_hint ? 1 : 0);
    decode_operand_count(d, operands, operands);
    decode_address shared = decode_address_in(d, &o[stores ? 1 : 0], SPACE_SHARED),
                   global = decode_address_in(d, &o[stores ? 0 : 1], SPACE_GLOBAL), barrier = {0};
    uint32_t bytes = decode_use(d, &o[2], 4);
    if (stores) {
        barrier.base = decode_const(d, 0, 4);
    } else {
        barrier = decode_address_in(d, &o[3], SPACE_SHARED);
    }
    if ((int32_t)global.offset != global.offset) {
        decode_fail(d, "the global offset of 'cp.async.bulk' needs more than 32 bits");
    }
    decode_instr *in = decode_emit(d, IR_bulk);
    in->in.imm = shared.offset;
    in->in.target = (uint32_t)(int32_t)global.offset;
    in->in.aux = (stores ? BULK_STORES : 0) | (shared.wide ? BULK_WIDE : 0) |
                 (barrier.wide ? BULK_MBARRIER_WIDE : 0) |
                 small_offset(d, barrier.offset) << BULK_OFFSET_SHIFT;
    decode_add_use(in, shared.base);
    decode_add_use(in, global.base);
    decode_add_use(in, bytes);
    decode_add_use(in, barrier.base);
}
