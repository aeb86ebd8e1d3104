/*
 * decode_bulk.c: cp.async.bulk.* (PTX ISA 9.7.9.25.4), and st.async, which ends like them.
 */
#include "exec.h"

static uint32_t small_offset(decoder *d, int64_t offset)
{
    if (offset < 0 || offset >= BULK_OFFSETS) {
        decode_fail(d, "the offset of an mbarrier must be in shared memory");
    }
    return (uint32_t)offset;
}

static uint32_t global_offset(decoder *d, int64_t offset)
{
    if ((int32_t)offset != offset) {
        decode_fail(d, "the global offset of 'cp.async.bulk' needs more than 32 bits");
    }
    return (uint32_t)(int32_t)offset;
}

static void decode_bulk_group(decoder *d)
{
    const decode_words *w = &d->words;
    bool waits = w->mode == MODE_WAIT_GROUP;
    if ((w->flags & ~(F(BULK) | (waits ? F(READ) : 0))) || w->type_count) {
        decode_unknown(d);
    }
    decode_operand_count(d, waits ? 1 : 0, waits ? 1 : 0);
    int64_t pending = waits ? decode_immediate(d, &d->statement->operands[0]) : 0;
    decode_instr *in = decode_emit(d, waits ? IR_bulk_wait : IR_bulk_commit);
    in->in.imm = pending;
    in->in.aux = w->flags & F(READ) ? BULK_READ : 0;
}

/* The dimensions of a tensor copy; 0: it is none. */
static int rank_of(const decode_words *w)
{
    static const uint64_t ranks[] = {F(DIM1), F(DIM2), F(DIM3), F(DIM4), F(DIM5)};
    int rank = 0;
    for (int i = 0; i < 5; i++) {
        rank = w->flags & ranks[i] ? i + 1 : rank;
    }
    return w->flags & F(TENSOR) ? rank : 0;
}

/* [map, {coordinates}] */
static void decode_box(decoder *d, const ptx_operand *operand, int rank, uint32_t *map,
                       int64_t *offset, uint32_t coordinates[5])
{
    bool two = operand->kind == OPERAND_ADDRESS && operand->item_count == 2;
    const ptx_operand *list = two ? &operand->items[1] : operand;
    if (!two || list->kind != OPERAND_VECTOR || list->item_count != rank) {
        decode_fail(d, "'cp.async.bulk.tensor.%dd' wants [map, {%d coordinates}]", rank, rank);
    }
    ptx_operand base = *operand;
    base.item_count = 1;
    decode_address at = decode_address_in(d, &base, SPACE_GENERIC);
    *map = at.base;
    *offset = at.offset;
    for (int i = 0; i < rank; i++) {
        coordinates[i] = decode_use(d, &list->items[i], 4);
    }
}

static uint32_t widened(decoder *d, uint32_t address)
{
    uint32_t aux, result = decode_register_new(d, 8);
    decode_instr *in = decode_emit_part(d, decode_convert_op(TYPE_U64, TYPE_U32, 0, &aux));
    in->in.aux = aux;
    decode_add_def(in, result);
    decode_add_use(in, address);
    return result;
}

/* first: shared address, global address or map, bytes, mbarrier */
static void add_uses(decode_instr *in, const uint32_t first[4], const uint32_t *coordinates,
                     int rank)
{
    for (int i = 0; i < 4; i++) {
        decode_add_use(in, first[i]);
    }
    for (int i = 0; i < rank; i++) {
        decode_add_use(in, coordinates[i]);
    }
}

/* peer: from the block's own shared memory */
static void check_words(decoder *d, bool stores, bool peer, int rank)
{
    const decode_words *w = &d->words;
    uint64_t always = F(BULK) | (stores ? F(BULK_GROUP) : F(COMPLETE_BYTES)),
             dims = F(DIM1) | F(DIM2) | F(DIM3) | F(DIM4) | F(DIM5),
             allowed = always | (rank ? F(TENSOR) | F(TILE) | dims : 0) |
                       (rank && stores ? F(REDUCE) : 0) |
                       (w->is_cluster && !peer ? F(MULTICAST) : 0);
    bool reduces = w->flags & F(REDUCE);
    if (w->mode != MODE_ASYNC || (w->flags & always) != always || (w->flags & ~allowed) ||
        (rank && __builtin_popcountll(w->flags & dims) != 1) || w->type_count ||
        reduces != (w->action == ACTION_ADD) || (!reduces && w->action >= 0) ||
        w->space != (stores ? SPACE_GLOBAL : SPACE_SHARED) ||
        w->second_space != (stores || peer ? SPACE_SHARED : SPACE_GLOBAL) ||
        (peer && (rank || !w->is_cluster || w->cache_hint))) {
        decode_unknown(d);
    }
}

/* cp.async.bulk.prefetch{.tensor}.L2: there are no caches, but the operands must be right, and the
 * coordinates of a box. */
void decode_bulk_prefetch(decoder *d)
{
    const decode_words *w = &d->words;
    const ptx_operand *o = d->statement->operands;
    int rank = rank_of(w);
    uint64_t dims = F(DIM1) | F(DIM2) | F(DIM3) | F(DIM4) | F(DIM5),
             allowed = F(BULK) | (rank ? F(TENSOR) | F(TILE) | dims : 0);
    if ((w->flags & ~allowed) || w->action >= 0 || w->type_count ||
        (rank && __builtin_popcountll(w->flags & dims) != 1) || w->space != SPACE_GLOBAL ||
        w->second_space) {
        decode_unknown(d);
    }
    int operands = (rank ? 1 : 2) + w->cache_hint;
    decode_operand_count(d, operands, operands);
    if (!rank) {
        decode_address_in(d, &o[0], SPACE_GLOBAL);
        decode_use(d, &o[1], 4);
        decode_nop(d);
        return;
    }
    uint32_t map, coordinates[5], none = decode_const(d, 0, 4);
    int64_t offset;
    decode_box(d, &o[0], rank, &map, &offset, coordinates);
    decode_instr *in = decode_emit(d, IR_bulk);
    in->in.target = global_offset(d, offset);
    in->in.aux = BULK_PREFETCHES | BULK_TENSOR | (uint32_t)rank << TENSOR_RANK_SHIFT;
    add_uses(in, (const uint32_t[]){none, map, none, none}, coordinates, rank);
}

/* Loads: to shared, from global, bytes, mbarrier; stores: to global, from shared, bytes. The form
 * with a tensor has no bytes. */
void decode_bulk(decoder *d)
{
    const decode_words *w = &d->words;
    const ptx_operand *o = d->statement->operands;
    if (w->mode == MODE_COMMIT_GROUP || w->mode == MODE_WAIT_GROUP) {
        decode_bulk_group(d);
        return;
    }
    if (w->mode == MODE_PREFETCH) {
        decode_bulk_prefetch(d);
        return;
    }
    bool stores = w->space == SPACE_GLOBAL;
    bool peer = !stores && w->second_space == SPACE_SHARED;
    bool multicasts = w->flags & F(MULTICAST);
    int rank = rank_of(w), sized = rank ? 0 : 1;
    check_words(d, stores, peer, rank);
    int told = 2 + sized, operands = told + (stores ? 0 : 1) + multicasts + w->cache_hint;
    decode_operand_count(d, operands, operands);
    const ptx_operand *outside = &o[stores ? 0 : 1], *inside = &o[stores ? 1 : 0];
    decode_address shared = decode_address_in(d, inside, SPACE_SHARED), barrier = {0};
    uint32_t global, coordinates[5] = {0}, bytes = decode_const(d, 0, 4);
    int64_t offset;
    if (rank) {
        decode_box(d, outside, rank, &global, &offset, coordinates);
    } else {
        decode_address at = decode_address_in(d, outside, peer ? SPACE_SHARED : SPACE_GLOBAL);
        global = at.base;
        if (!at.wide) {
            global = widened(d, global);
        }
        offset = at.offset;
        bytes = decode_use(d, &o[2], 4);
    }
    if (stores) {
        barrier.base = decode_const(d, 0, 4);
    } else {
        barrier = decode_address_in(d, &o[told], SPACE_SHARED);
    }
    uint32_t blocks = multicasts ? decode_use(d, &o[told + 1], 2) : 0;
    decode_instr *in = decode_emit(d, IR_bulk);
    in->in.imm = shared.offset;
    in->in.order = w->flags & F(REDUCE) ? ORDER_STRONG | ORDER_WIDE : 0;
    in->in.target = global_offset(d, offset);
    in->in.aux = (stores ? BULK_STORES : 0) | (shared.wide ? BULK_WIDE : 0) |
                 (barrier.wide ? BULK_MBARRIER_WIDE : 0) | (rank ? BULK_TENSOR : 0) |
                 (w->flags & F(REDUCE) ? BULK_REDUCES : 0) | (peer ? BULK_PEER : 0) |
                 (multicasts ? BULK_MULTICAST : 0) | (w->is_cluster ? BULK_CLUSTER : 0) |
                 small_offset(d, barrier.offset) << BULK_OFFSET_SHIFT |
                 (uint32_t)rank << TENSOR_RANK_SHIFT;
    add_uses(in, (const uint32_t[]){shared.base, global, bytes, barrier.base}, coordinates, rank);
    if (multicasts) {
        decode_add_use(in, blocks);
    }
}

/* st.async{.weak}.shared::cluster.mbarrier::complete_tx::bytes{.v2, .v4}.type [a], b, [mbarrier] */
void decode_st_async(decoder *d)
{
    const decode_words *w = &d->words;
    const ptx_operand *o = d->statement->operands;
    uint64_t types = M(B32) | M(B64) | M(U32) | M(U64) | M(S32) | M(S64) | M(F32) | M(F64);
    if (w->flags != (F(ASYNC) | F(COMPLETE_BYTES)) || !w->is_cluster || w->order ||
        w->type_count != 1 || !(types >> w->types[0] & 1) || w->cache_hint) {
        decode_unknown(d);
    }
    int bytes = ptx_type_bits(w->types[0]) / 8, count = w->vector;
    decode_operand_count(d, 3, 3);
    bool is_list = o[1].kind == OPERAND_VECTOR;
    if (bytes * count > 16 || (is_list ? o[1].item_count : 1) != count) {
        decode_unknown(d);
    }
    decode_address to = decode_address_in(d, &o[0], SPACE_SHARED),
                   barrier = decode_address_in(d, &o[2], SPACE_SHARED);
    uint32_t values[4];
    for (int i = 0; i < count; i++) {
        values[i] = decode_use(d, is_list ? &o[1].items[i] : &o[1], bytes);
    }
    decode_instr *in = decode_emit(d, IR_st_async);
    in->in.imm = to.offset;
    in->in.target = small_offset(d, barrier.offset);
    in->in.aux = (uint32_t)count | (to.wide ? AUX_WIDE : 0) | BULK_CLUSTER |
                 (barrier.wide ? STORE_ASYNC_MBARRIER_WIDE : 0) | (bytes == 8 ? STORE_ASYNC_8 : 0);
    decode_add_use(in, to.base);
    decode_add_use(in, barrier.base);
    for (int i = 0; i < count; i++) {
        decode_add_use(in, values[i]);
    }
}
