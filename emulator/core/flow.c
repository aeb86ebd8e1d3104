/*
 * flow.c: control flow graph, liveness and register slots. Every virtual register gets a slot of
 * the warp's register file; registers that are never live at once share one. Slots are shared only
 * among registers of one width: a lane owns the same bytes in all of them, so sharing stays legal
 * when lanes are at different places of the program.
 */
#include <stdlib.h>
#include <string.h>

#include "exec.h"

#define MOST_SET_WORDS ((size_t)1 << 27)

typedef struct flow_block {
    uint32_t first, last; /* instructions first..last */
    uint32_t successors[2];
    int successor_count;
    uint64_t *live_in, *live_out, *use, *def;
} flow_block;

typedef struct flow {
    decoder *d;
    flow_block *blocks;
    uint32_t block_count;
    uint32_t *block_of; /* of an instruction */
    size_t words;
    uint64_t *sets;
    uint32_t *first, *last; /* of each register: interval of instructions */
} flow;

static bool is_set(const uint64_t *set, uint32_t i)
{
    return set[i / 64] >> (i % 64) & 1;
}

static void put(uint64_t *set, uint32_t i)
{
    set[i / 64] |= UINT64_C(1) << (i % 64);
}

/* ---- blocks ---- */

static void mark_leaders(const decoder *d, uint8_t *leader)
{
    leader[0] = 1;
    for (uint32_t i = 0; i < d->count; i++) {
        const decode_instr *in = &d->code[i];
        if (in->op == IR_branch) {
            leader[in->in.target] = 1;
        }
        for (uint32_t j = 0; j < in->jump_count; j++) {
            leader[d->jumps[in->in.target + j].at] = 1;
        }
        if (in->ends_block && i + 1 < d->count) {
            leader[i + 1] = 1;
        }
    }
}

static void build_blocks(flow *f)
{
    decoder *d = f->d;
    uint8_t *leader = pool_require(calloc((size_t)d->count + 1, 1));
    mark_leaders(d, leader);
    for (uint32_t i = 0; i < d->count; i++) {
        f->block_count += leader[i];
    }
    f->blocks = pool_require(calloc(f->block_count, sizeof *f->blocks));
    f->block_of = pool_require(calloc(d->count, sizeof *f->block_of));
    uint32_t block = 0;
    for (uint32_t i = 0; i < d->count; i++) {
        if (leader[i]) {
            f->blocks[block++].first = i;
        }
        f->block_of[i] = block - 1;
        f->blocks[block - 1].last = i;
    }
    free(leader);
    for (uint32_t b = 0; b < f->block_count; b++) {
        flow_block *at = &f->blocks[b];
        const decode_instr *end = &d->code[at->last];
        if (end->falls_through && at->last + 1 < d->count) {
            at->successors[at->successor_count++] = b + 1;
        }
        if (end->op == IR_branch) {
            at->successors[at->successor_count++] = f->block_of[end->in.target];
        }
    }
}

/* ---- liveness ---- */

static void note_use(flow_block *b, uint32_t operand)
{
    if (!(operand & DECODE_CONSTANT) && !is_set(b->def, operand)) {
        put(b->use, operand);
    }
}

/* Further operands of an instruction: what it reads and writes, then what it only reads. */
static uint32_t *list_of(const decoder *d, const decode_instr *in)
{
    return in->list_defs ? d->lists + in->in.target : NULL;
}

static void local_sets(flow *f, flow_block *b)
{
    for (uint32_t i = b->first; i <= b->last; i++) {
        const decode_instr *in = &f->d->code[i];
        note_use(b, in->in.guard);
        for (int j = 0; j < in->uses; j++) {
            note_use(b, in->in.r[in->defs + j]);
        }
        const uint32_t *list = list_of(f->d, in);
        for (uint32_t j = 0; j < in->list_defs + in->list_uses; j++) {
            note_use(b, list[j]);
        }
        for (uint32_t j = 0; j < in->list_defs; j++) {
            put(b->def, list[j]);
        }
        for (int j = 0; j < in->defs; j++) {
            uint32_t reg = in->in.r[j];
            /* under a guard the old value of the other lanes lives on */
            if (in->has_guard && !f->d->registers[reg].is_temporary) {
                note_use(b, reg);
            }
            put(b->def, reg);
        }
    }
}

static bool join_successor(flow *f, flow_block *b, uint32_t successor)
{
    bool changed = false;
    const uint64_t *from = f->blocks[successor].live_in;
    for (size_t w = 0; w < f->words; w++) {
        uint64_t added = from[w] & ~b->live_out[w];
        b->live_out[w] |= added;
        changed |= added != 0;
    }
    return changed;
}

static void solve_liveness(flow *f)
{
    f->words = (f->d->register_count + 63) / 64;
    if (f->words * f->block_count > MOST_SET_WORDS) {
        free(f->blocks);
        free(f->block_of);
        decode_fail(f->d, "the kernel is too large: %u registers in %u blocks",
                    f->d->register_count, f->block_count);
    }
    f->sets = pool_require(calloc(4 * f->words * f->block_count + 1, sizeof *f->sets));
    for (uint32_t b = 0; b < f->block_count; b++) {
        flow_block *at = &f->blocks[b];
        at->live_in = f->sets + 4 * f->words * b;
        at->live_out = at->live_in + f->words;
        at->use = at->live_out + f->words;
        at->def = at->use + f->words;
        local_sets(f, at);
        memcpy(at->live_in, at->use, f->words * sizeof *at->use);
    }
    for (bool changed = true; changed;) {
        changed = false;
        for (uint32_t b = f->block_count; b-- > 0;) {
            flow_block *at = &f->blocks[b];
            bool grew = false;
            for (int s = 0; s < at->successor_count; s++) {
                grew |= join_successor(f, at, at->successors[s]);
            }
            const decode_instr *end = &f->d->code[at->last];
            for (uint32_t j = 0; j < end->jump_count; j++) {
                grew |= join_successor(f, at, f->block_of[f->d->jumps[end->in.target + j].at]);
            }
            for (size_t w = 0; grew && w < f->words; w++) {
                at->live_in[w] |= at->live_out[w] & ~at->def[w];
            }
            changed |= grew;
        }
    }
}

/* ---- intervals and slots ---- */

static void extend(flow *f, uint32_t operand, uint32_t at)
{
    if (operand & DECODE_CONSTANT) {
        return;
    }
    if (at < f->first[operand]) {
        f->first[operand] = at;
    }
    if (at > f->last[operand] || f->last[operand] == UINT32_MAX) {
        f->last[operand] = at;
    }
}

static void extend_set(flow *f, const uint64_t *set, uint32_t at)
{
    for (size_t w = 0; w < f->words; w++) {
        for (uint64_t bits = set[w]; bits; bits &= bits - 1) {
            extend(f, (uint32_t)(w * 64) + (uint32_t)__builtin_ctzll(bits), at);
        }
    }
}

static void find_intervals(flow *f)
{
    size_t count = f->d->register_count;
    f->first = pool_require(malloc((count + 1) * sizeof *f->first));
    f->last = pool_require(malloc((count + 1) * sizeof *f->last));
    memset(f->first, 0xff, (count + 1) * sizeof *f->first);
    memset(f->last, 0xff, (count + 1) * sizeof *f->last);
    for (uint32_t b = 0; b < f->block_count; b++) {
        extend_set(f, f->blocks[b].live_in, f->blocks[b].first);
        extend_set(f, f->blocks[b].live_out, f->blocks[b].last);
    }
    for (uint32_t i = 0; i < f->d->count; i++) {
        const decode_instr *in = &f->d->code[i];
        extend(f, in->in.guard, i);
        for (int j = 0; j < in->defs + in->uses; j++) {
            extend(f, in->in.r[j], i);
        }
        for (uint32_t j = 0; j < in->list_defs + in->list_uses; j++) {
            extend(f, list_of(f->d, in)[j], i);
        }
    }
}

typedef struct free_list {
    uint32_t *offsets;
    size_t count, capacity;
} free_list;

typedef struct active_slot {
    uint32_t last, offset;
    uint8_t width;
    bool is_async;
} active_slot;

/* Slots in use, as a heap: the one whose register ends first is at the top. */
typedef struct active_heap {
    active_slot *slots;
    size_t count, capacity;
} active_heap;

static void heap_push(active_heap *heap, active_slot slot)
{
    POOL_GROW(heap->slots, heap->count, heap->capacity);
    size_t at = heap->count++;
    for (; at > 0 && heap->slots[(at - 1) / 2].last > slot.last; at = (at - 1) / 2) {
        heap->slots[at] = heap->slots[(at - 1) / 2];
    }
    heap->slots[at] = slot;
}

static active_slot heap_pop(active_heap *heap)
{
    active_slot top = heap->slots[0], moved = heap->slots[--heap->count];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < heap->count) {
        child += child + 1 < heap->count && heap->slots[child + 1].last < heap->slots[child].last;
        if (heap->slots[child].last >= moved.last) {
            break;
        }
        heap->slots[at] = heap->slots[child];
        at = child;
    }
    heap->slots[at] = moved;
    return top;
}

static size_t slot_bytes(uint8_t width)
{
    return width ? (size_t)width * IR_LANES : 4;
}

/* Registers in the order their intervals begin: a counting sort over instructions. */
static uint32_t *sort_by_first(const flow *f, uint32_t *count)
{
    uint32_t instructions = f->d->count, registers = f->d->register_count;
    uint32_t *start = pool_require(calloc((size_t)instructions + 2, sizeof *start));
    uint32_t *order = pool_require(calloc((size_t)registers + 1, sizeof *order));
    for (uint32_t r = 0; r < registers; r++) {
        if (f->first[r] != UINT32_MAX) {
            start[f->first[r] + 1]++;
        }
    }
    for (uint32_t i = 0; i <= instructions; i++) {
        start[i + 1] += start[i];
    }
    *count = start[instructions];
    for (uint32_t r = 0; r < registers; r++) {
        if (f->first[r] != UINT32_MAX) {
            order[start[f->first[r]]++] = r;
        }
    }
    free(start);
    return order;
}

static uint32_t take_slot(free_list *list, uint8_t width, size_t *top)
{
    if (list->count) {
        return list->offsets[--list->count];
    }
    size_t bytes = slot_bytes(width);
    size_t align = bytes < 64 ? bytes : 64;
    *top = (*top + align - 1) / align * align;
    uint32_t offset = (uint32_t)*top;
    *top += bytes;
    return offset;
}

static void assign(flow *f, size_t *top)
{
    free_list lists[17] = {{0}};
    active_heap active = {0};
    size_t live_words = 0, most = 0;
    uint32_t count;
    uint32_t *order = sort_by_first(f, &count);
    for (uint32_t k = 0; k < count; k++) {
        uint32_t reg = order[k];
        while (active.count > 0 && active.slots[0].last < f->first[reg]) {
            active_slot ended = heap_pop(&active);
            free_list *list = &lists[ended.width];
            if (!ended.is_async) {
                POOL_GROW(list->offsets, list->count, list->capacity);
                list->offsets[list->count++] = ended.offset;
            }
            live_words -= ended.width > 4 ? ended.width / 4u : 1;
        }
        decode_register *r = &f->d->registers[reg];
        if (!r->is_async) {
            r->offset = take_slot(&lists[r->bytes], r->bytes, top);
        }
        heap_push(&active, (active_slot){f->last[reg], r->offset, r->bytes, r->is_async});
        live_words += r->bytes > 4 ? r->bytes / 4u : 1;
        most = live_words > most ? live_words : most;
    }
    f->d->kernel->registers = most < 8 ? 8 : most > 255 ? 255 : (int)most;
    for (int i = 0; i < 17; i++) {
        free(lists[i].offsets);
    }
    free(active.slots);
    free(order);
}

/* Constants come first in the register file; constant 0, "all lanes", is at offset 0. */
static void place_constants(decoder *d, size_t *top)
{
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < d->constant_count; i++) {
            decode_constant *c = &d->constants[i];
            if ((c->bytes == 0) == (pass == 0)) {
                c->offset = (uint32_t)*top;
                *top += slot_bytes(c->bytes);
            }
        }
        *top = (*top + 63) / 64 * 64;
    }
}

/* What wgmma uses lies side by side and is not shared. */
static void place_async(decoder *d, size_t *top)
{
    ir_kernel *kernel = d->kernel;
    int capacity = 0, count = 0;
    kernel->async_first = (uint32_t)*top;
    for (uint32_t i = 0; i < d->register_count; i++) {
        decode_register *r = &d->registers[i];
        if (r->is_async) {
            r->offset = (uint32_t)*top;
            *top += slot_bytes(r->bytes);
            POOL_GROW(kernel->async_registers, count, capacity);
            kernel->async_registers[count++] = (ir_async_register){r->name, r->number};
        }
    }
    kernel->async_count = (uint32_t)count;
}

static uint32_t offset_of(const decoder *d, uint32_t operand)
{
    return operand & DECODE_CONSTANT ? d->constants[operand & ~DECODE_CONSTANT].offset
                                     : d->registers[operand].offset;
}

void flow_assign_slots(decoder *d)
{
    flow f = {.d = d};
    build_blocks(&f);
    solve_liveness(&f);
    find_intervals(&f);
    size_t top = 0;
    place_constants(d, &top);
    d->kernel->constant_bytes = top;
    place_async(d, &top);
    assign(&f, &top);
    d->kernel->register_bytes = (top + 63) / 64 * 64;
    for (uint32_t i = 0; i < d->count; i++) {
        emu_instr *in = &d->code[i].in;
        in->guard = offset_of(d, in->guard);
        for (int j = 0; j < d->code[i].defs + d->code[i].uses; j++) {
            in->r[j] = offset_of(d, in->r[j]);
        }
    }
    for (uint32_t i = 0; i < d->list_count; i++) {
        d->lists[i] = offset_of(d, d->lists[i]);
    }
    free(f.blocks);
    free(f.block_of);
    free(f.sets);
    free(f.first);
    free(f.last);
}
