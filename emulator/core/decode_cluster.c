/*
 * decode_cluster.c: barrier.cluster (PTX ISA 9.7.13.3), mapa and getctarank (9.7.9.23 and on).
 */
#include "exec.h"

/* barrier.cluster.arrive{.release, .relaxed}{.aligned}, .wait{.acquire}{.aligned} */
void decode_cluster_barrier(decoder *d)
{
    const decode_words *w = &d->words;
    bool arrives = w->mode == MODE_ARRIVE;
    uint32_t usual = ORDER_STRONG | (arrives ? ORDER_RELEASE : ORDER_ACQUIRE),
             given = w->order & ~(uint32_t)ORDER_CLUSTER, order = given ? given : usual;
    if ((!arrives && w->mode != MODE_WAIT) || w->action >= 0 || w->type_count ||
        (w->flags & ~F(ALIGNED)) || (order != usual && (!arrives || order != ORDER_STRONG))) {
        decode_unknown(d);
    }
    decode_operand_count(d, 0, 0);
    decode_instr *in = decode_emit(d, arrives ? IR_cluster_arrive : IR_cluster_wait);
    in->in.order = order;
    in->in.aux = w->flags & F(ALIGNED) ? CLUSTER_ALIGNED : 0;
}

/* Generic addresses have 64 bits. */
static int address_bytes(decoder *d)
{
    const decode_words *w = &d->words;
    bool is_cluster = w->space == SPACE_SHARED && w->is_cluster;
    if ((w->has_space && !is_cluster) || w->type_count != 1 ||
        (w->types[0] != TYPE_U64 && (w->types[0] != TYPE_U32 || !is_cluster))) {
        decode_unknown(d);
    }
    return w->types[0] == TYPE_U64 ? 8 : 4;
}

/* mapa{.shared::cluster} address in the block's memory, rank: without a space both are generic. A
 * sum of a variable and a number is one operand. */
void decode_mapa(decoder *d)
{
    const ptx_operand *o = d->statement->operands;
    int bytes = address_bytes(d);
    decode_operand_count(d, 3, 3);
    uint32_t address = decode_use(d, &o[1], bytes), rank = decode_use(d, &o[2], 4),
             result = decode_def(d, &o[0], bytes, false);
    decode_instr *in = decode_emit(d, IR_mapa);
    in->in.aux = (bytes == 8 ? AUX_WIDE : 0) | (d->words.has_space ? 0 : AUX_GENERIC);
    decode_add_def(in, result);
    decode_add_use(in, address);
    decode_add_use(in, rank);
}

void decode_getctarank(decoder *d)
{
    const ptx_operand *o = d->statement->operands;
    int bytes = address_bytes(d);
    decode_operand_count(d, 2, 2);
    uint32_t address = decode_use(d, &o[1], bytes), result = decode_def(d, &o[0], 4, false);
    decode_instr *in = decode_emit(d, IR_getctarank);
    in->in.aux = (bytes == 8 ? AUX_WIDE : 0) | (d->words.has_space ? 0 : AUX_GENERIC);
    decode_add_def(in, result);
    decode_add_use(in, address);
}

/* Grids run one after another: those before are over, and those behind cannot begin. */
void decode_griddepcontrol(decoder *d)
{
    if (d->words.mode != MODE_WAIT && d->words.mode != MODE_LAUNCH_DEPENDENTS) {
        decode_unknown(d);
    }
    decode_operand_count(d, 0, 0);
    if (d->words.mode == MODE_WAIT) {
        decode_emit(d, IR_grid_wait);
    } else {
        decode_nop(d);
    }
}
