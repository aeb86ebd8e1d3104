/*
 * wgmma.c: wgmma.mma_async, fence, commit_group and wait_group (PTX ISA 9.7.15.5 to 9.7.15.7): who
 * has issued what, when it is executed, who waits for it, and which registers it may still touch.
 * Registers of fragments have places of their own (flow.c); an ordinary instruction that touches
 * one of them runs through wgmma_touch, so that all others cost nothing.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine.h"
#include "wgmma.h"

/* A register of a fragment, in one warp. */
typedef struct wgmma_register {
    uint32_t number;     /* of the product that used it last; 0: none */
    uint32_t shape;      /* as D of this shape; 0: as A */
    uint32_t fenced;     /* the warp's fences before that product */
    uint32_t touched;    /* the warp's fences before another instruction touched it, plus one */
    const emu_instr *in; /* the product */
} wgmma_register;

typedef struct wgmma_warp {
    uint32_t issued;  /* products */
    uint32_t done;    /* those of them that it has waited for */
    uint32_t fences;  /* so far */
    uint32_t *groups; /* committed and not waited for: `issued` at their commit */
    int group_count, group_capacity;
    wgmma_register *registers; /* async_count of the kernel */
    /* Products of one D in a row change its registers in the same way: `latest` stands for all of
     * them until something else uses one. */
    const uint32_t *latest_list; /* D's registers; NULL: `registers` holds everything */
    uint32_t latest_count;
    wgmma_register latest;
} wgmma_warp;

/* Four warps. Products are numbered from 1. */
typedef struct wgmma_group {
    uint32_t begun, executed; /* by all warps issued; of these, executed */
    wgmma_op *ops;            /* from executed + 1 on */
    int count, capacity;
    wgmma_execute *execute;
} wgmma_group;

struct wgmma_block {
    wgmma_warp warps[EXEC_MAX_WARPS];
    wgmma_group groups[EXEC_WARPGROUPS];
    wgmma_register *registers; /* of all warps */
    size_t capacity;
};

/* ---- blocks ---------------------------------------------------------------------------------- */

void wgmma_block_start(exec_block *block)
{
    size_t count = block->grid->kernel->async_count;
    if (!block->wgmma) {
        block->wgmma = pool_require(calloc(1, sizeof *block->wgmma));
    }
    wgmma_block *b = block->wgmma;
    if (count * EXEC_MAX_WARPS > b->capacity) {
        free(b->registers);
        b->capacity = count * EXEC_MAX_WARPS;
        b->registers = pool_require(malloc(b->capacity * sizeof *b->registers));
    }
    if (count) {
        memset(b->registers, 0, count * (size_t)block->warp_count * sizeof *b->registers);
    }
    for (int i = 0; i < EXEC_MAX_WARPS; i++) {
        wgmma_warp *s = &b->warps[i];
        *s = (wgmma_warp){.groups = s->groups,
                          .group_capacity = s->group_capacity,
                          .registers = b->registers + count * (size_t)i};
    }
    for (int i = 0; i < EXEC_WARPGROUPS; i++) {
        wgmma_group *g = &b->groups[i];
        *g = (wgmma_group){.ops = g->ops, .capacity = g->capacity};
    }
}

void wgmma_block_free(wgmma_block *b)
{
    if (!b) {
        return;
    }
    for (int i = 0; i < EXEC_MAX_WARPS; i++) {
        free(b->warps[i].groups);
    }
    for (int i = 0; i < EXEC_WARPGROUPS; i++) {
        free(b->groups[i].ops);
    }
    free(b->registers);
    free(b);
}

static wgmma_warp *state_of(const emu_warp *w)
{
    return &w->block->wgmma->warps[w->index];
}

static wgmma_group *group_of(const emu_warp *w)
{
    return &w->block->wgmma->groups[w->index / WARPGROUP];
}

uint32_t wgmma_issued(const exec_block *block, int warp)
{
    return block->wgmma->warps[warp].issued;
}

/* ---- the warpgroup --------------------------------------------------------------------------- */

bool warpgroup_enter(emu_warp *w, const emu_instr *in, uint32_t mask, const char *what)
{
    const exec_block *block = w->block;
    int first = w->index / WARPGROUP * WARPGROUP, last = first + WARPGROUP - 1;
    if (mask != FULL_MASK) {
        if (warp_meet(w, in, mask, w->existing, what)) {
            fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, mask, "%s in a warp of %d lanes", what,
                        __builtin_popcount(mask));
        }
        return false;
    }
    if (last >= block->warp_count || block->warps[last].existing != FULL_MASK) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, mask,
                    "%s in a warpgroup that is not whole: the block has %u threads, warps %d to %d "
                    "are wanted",
                    what, block->grid->threads_per_block, first, last);
        return false;
    }
    return true;
}

/* Whether the others of the warpgroup have issued, or can issue, the product that `w` is at. */
static bool others_can_issue(emu_warp *w, const emu_instr *in)
{
    int first = w->index / WARPGROUP * WARPGROUP;
    for (int i = first; i < first + WARPGROUP; i++) {
        const emu_warp *other = &w->block->warps[i];
        if (!other->live && state_of(other)->issued <= state_of(w)->issued) {
            fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, FULL_MASK,
                        "wgmma.mma_async after warp %d of the warpgroup has exited", i);
            return false;
        }
    }
    return true;
}

/* ---- registers ------------------------------------------------------------------------------- */

/* Index of an async register; `async_count` or more: it is none. */
static uint32_t register_index(const ir_kernel *kernel, uint32_t offset)
{
    return (offset - kernel->async_first) / (4 * IR_LANES);
}

static void fail_register(emu_warp *w, const emu_instr *in, uint32_t index, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void fail_register(emu_warp *w, const emu_instr *in, uint32_t index, const char *format, ...)
{
    const ir_async_register *r = &w->block->grid->kernel->async_registers[index];
    char what[256], number[16] = "";
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (r->number >= 0) {
        snprintf(number, sizeof number, "%d", r->number);
    }
    fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, FULL_MASK, "%.64s%s %s", r->name->chars, number,
                what);
}

/* From now on `registers` holds everything. */
static void settle(wgmma_warp *s, const ir_kernel *kernel)
{
    for (uint32_t i = 0; s->latest_list && i < s->latest_count; i++) {
        uint32_t index = register_index(kernel, s->latest_list[i]);
        if (index < kernel->async_count) {
            s->registers[index] = s->latest;
        }
    }
    s->latest_list = NULL;
}

void wgmma_watch(ir_kernel *kernel)
{
    if (kernel->async_count == 0) {
        return;
    }
    kernel->watched = pool_require(calloc(kernel->code_count, sizeof(emu_handler *)));
    for (uint32_t i = 0; i < kernel->code_count; i++) {
        emu_instr *in = &kernel->code[i];
        for (int k = 0; k < IR_OPERANDS; k++) {
            if (register_index(kernel, in->r[k]) < kernel->async_count) {
                kernel->watched[i] = in->run;
            }
        }
        if (kernel->watched[i]) {
            in->run = wgmma_touch;
        }
    }
}

/* What other instructions that touch a register of a fragment run through. */
void wgmma_touch(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    const ir_kernel *kernel = w->block->grid->kernel;
    wgmma_warp *s = state_of(w);
    settle(s, kernel);
    for (int k = 0; k < IR_OPERANDS; k++) {
        uint32_t index = register_index(kernel, in->r[k]);
        if (index >= kernel->async_count) {
            continue;
        }
        wgmma_register *r = &s->registers[index];
        if (r->number > s->done) {
            fail_register(w, in, index,
                          "is touched while the wgmma at line %d uses it: no wgmma.wait_group "
                          "covers that yet",
                          r->in->line);
            return;
        }
        r->touched = s->fences + 1;
    }
    kernel->watched[in - kernel->code](w, in, mask);
}

/* A wgmma is about to use the register, as D of a shape or (0) as A. False: a fault was raised. */
static bool use_register(emu_warp *w, const emu_instr *in, uint32_t index, uint32_t shape)
{
    const wgmma_warp *s = state_of(w);
    wgmma_register *r = &s->registers[index];
    bool same = r->number == 0 || r->shape == shape;
    if (!same && r->number > s->done) {
        fail_register(w, in, index,
                      "is used by the wgmma at line %d, %s: no wgmma.wait_group covers that yet",
                      r->in->line, r->shape ? "as D of another shape" : "as A");
        return false;
    }
    if (!same && r->fenced == s->fences) {
        fail_register(w, in, index, "was used by the wgmma at line %d, %s: wgmma.fence is missing",
                      r->in->line, r->shape ? "as D of another shape" : "as A");
        return false;
    }
    if (r->touched > s->fences) {
        fail_register(
            w, in, index,
            "was touched by another instruction after the warp's last wgmma.fence: one is "
            "missing before this wgmma");
        return false;
    }
    *r = (wgmma_register){.number = s->issued + 1, .shape = shape, .fenced = s->fences, .in = in};
    return true;
}

static bool use_registers(emu_warp *w, const emu_instr *in)
{
    const ir_kernel *kernel = w->block->grid->kernel;
    const uint32_t *list = wgmma_list(w, in);
    wgmma_warp *s = state_of(w);
    uint32_t d = wgmma_d_registers(in), a = in->imm & WGMMA_A_REGISTERS ? 4 : 0;
    uint32_t shape = in->aux & WGMMA_SHAPE_BITS;
    if (s->fences == 0) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, FULL_MASK,
                    "no wgmma.fence before the warp's first wgmma");
        return false;
    }
    bool repeats = s->latest_list == list && s->latest.shape == shape && a == 0;
    if (!repeats) {
        settle(s, kernel);
    }
    for (uint32_t i = 0; i < d + a && !repeats; i++) {
        uint32_t index = register_index(kernel, list[i]);
        if (index < kernel->async_count && !use_register(w, in, index, i < d ? shape : 0)) {
            return false;
        }
    }
    if (a == 0) {
        s->latest_list = list;
        s->latest_count = d;
        s->latest = (wgmma_register){
            .number = s->issued + 1, .shape = shape, .fenced = s->fences, .in = in};
    }
    return true;
}

/* ---- issue ----------------------------------------------------------------------------------- */

/* The operand, the same in all lanes. */
static bool read_descriptor(uint64_t *out, emu_warp *w, const emu_instr *in, int k)
{
    *out = warp_lane_value(w, in->r[k], 0, true);
    for (int lane = 1; lane < IR_LANES; lane++) {
        uint64_t other = warp_lane_value(w, in->r[k], lane, true);
        if (other != *out) {
            fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, 1u << lane | 1,
                        "the descriptor of %s differs among lanes: 0x%llx in lane 0, 0x%llx in "
                        "lane %d",
                        k ? "B" : "A", (unsigned long long)*out, (unsigned long long)other, lane);
            return false;
        }
    }
    return true;
}

static bool read_op(wgmma_op *op, emu_warp *w, const emu_instr *in)
{
    uint32_t adds = (uint32_t)warp_lane_value(w, in->r[2], 0, false);
    if (adds != 0 && adds != FULL_MASK) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, FULL_MASK,
                    "scale-d of wgmma differs among lanes: it is true in 0x%08x", adds);
        return false;
    }
    *op = (wgmma_op){.in = in, .adds = adds != 0, .warps = 1u << w->index % WARPGROUP};
    return read_descriptor(&op->descriptors[0], w, in, 0) &&
           read_descriptor(&op->descriptors[1], w, in, 1);
}

/* Whether the warp issues what the others of its warpgroup have issued. */
static bool is_same(emu_warp *w, const wgmma_op *mine, const wgmma_op *theirs)
{
    int other = w->index / WARPGROUP * WARPGROUP + __builtin_ctz(theirs->warps);
    const uint64_t *a = mine->descriptors, *b = theirs->descriptors;
    const char *what = mine->in != theirs->in       ? "another wgmma"
                       : a[0] != b[0]               ? "another descriptor of A"
                       : a[1] != b[1]               ? "another descriptor of B"
                       : mine->adds != theirs->adds ? "another scale-d"
                                                    : NULL;
    if (what) {
        fault_raise(w, mine->in, CUDA_ERROR_LAUNCH_FAILED, FULL_MASK,
                    "the warps of a warpgroup issue different products: warp %d has %s (line %d)",
                    other, what, theirs->in->line);
    }
    return !what;
}

/* Executes up to product `number`. */
static void execute(emu_warp *w, wgmma_group *g, uint32_t number)
{
    int count = (int)(number - g->executed);
    if (count <= 0) {
        return;
    }
    for (int i = 0; i < count; i++) {
        g->execute(w->block->warps + w->index / WARPGROUP * WARPGROUP, &g->ops[i]);
    }
    g->count -= count;
    g->executed = number;
    memmove(g->ops, g->ops + count, (size_t)g->count * sizeof *g->ops);
}

/* What the first warp to issue a product looks at, all, and the last one. */
static bool check_tiles(emu_warp *w, wgmma_op *op, bool is_first, bool is_last)
{
    bool ok = true;
    for (int i = op->in->imm & WGMMA_A_REGISTERS ? 1 : 0; i < 2 && ok; i++) {
        wgmma_tile *t = &op->tiles[i];
        ok = (!is_first || wgmma_tile_read(t, w, op->in, op->descriptors[i], i)) &&
             (!w->block->race || wgmma_tile_race(w, op->in, t)) &&
             (!is_last || wgmma_tile_known(w, op->in, t, i));
    }
    return ok;
}

/* Warps that wait for products which have begun go on. */
static void wake(emu_warp *w, wgmma_group *g)
{
    emu_warp *warps = w->block->warps + w->index / WARPGROUP * WARPGROUP;
    for (int i = 0; i < WARPGROUP; i++) {
        for (int k = 0; k < warps[i].split_count; k++) {
            warp_split *split = &warps[i].splits[k];
            if (split->state == SPLIT_AT_WGMMA && split->waits_for <= g->begun) {
                split->state = SPLIT_READY;
                execute(w, g, split->waits_for);
            }
        }
    }
}

/* Whether it is known how the product rounds. */
static bool has_numerics(emu_warp *w, const emu_instr *in)
{
    mma_device cores = w->block->grid->machine->tensor_cores;
    bool known = cores == MMA_NO_DEVICE || cores == MMA_DEVICE_H100;
    if (!known) {
        fault_raise(w, in, CUDA_ERROR_ILLEGAL_INSTRUCTION, FULL_MASK,
                    "wgmma: the tensor cores that MMLP_EMULATOR_NUMERICS names have none "
                    "(exact:h100 has)");
    }
    return known;
}

void wgmma_issue(emu_warp *w, const emu_instr *in, uint32_t mask, wgmma_execute *how)
{
    wgmma_op op;
    if (!warpgroup_enter(w, in, mask, "wgmma.mma_async") || !has_numerics(w, in) ||
        !others_can_issue(w, in) || !read_op(&op, w, in)) {
        return;
    }
    wgmma_group *g = group_of(w);
    wgmma_warp *s = state_of(w);
    int place = (int)(s->issued - g->executed);
    bool is_first = place == g->count;
    if (is_first) {
        POOL_GROW(g->ops, g->count, g->capacity);
        g->ops[g->count++] = op;
    } else if (!is_same(w, &op, &g->ops[place])) {
        return;
    }
    wgmma_op *shared = &g->ops[place];
    shared->warps |= op.warps;
    bool is_last = shared->warps == (1u << WARPGROUP) - 1;
    if (!use_registers(w, in) || !check_tiles(w, shared, is_first, is_last)) {
        return;
    }
    s->issued++;
    g->execute = how;
    if (is_last) {
        g->begun = s->issued;
        if (!w->block->grid->schedule.late_copies) {
            execute(w, g, g->begun);
        }
        wake(w, g);
    }
}

/* ---- fence, groups --------------------------------------------------------------------------- */

void wgmma_fence(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    if (warpgroup_enter(w, in, mask, "wgmma.fence")) {
        state_of(w)->fences++;
    }
}

bool wgmma_is_between(const emu_warp *w)
{
    const wgmma_warp *s = state_of(w);
    return s->issued > 0 && s->done == s->issued;
}

void wgmma_commit(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    wgmma_warp *s = state_of(w);
    if (warpgroup_enter(w, in, mask, "wgmma.commit_group")) {
        POOL_GROW(s->groups, s->group_count, s->group_capacity);
        s->groups[s->group_count++] = s->issued;
    }
}

/* imm: how many of the latest groups may stay unfinished */
void wgmma_wait(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    wgmma_warp *s = state_of(w);
    wgmma_group *g = group_of(w);
    if (!warpgroup_enter(w, in, mask, "wgmma.wait_group") || s->group_count <= in->imm) {
        return;
    }
    int kept = (int)in->imm, gone = s->group_count - kept;
    s->done = s->groups[gone - 1];
    memmove(s->groups, s->groups + gone, (size_t)kept * sizeof *s->groups);
    s->group_count = kept;
    if (w->block->race) {
        race_wgmma_waited(w, s->done);
    }
    if (s->done > g->begun) {
        warp_block(w, SPLIT_AT_WGMMA, s->done, true);
    } else {
        execute(w, g, s->done);
    }
}

/* Products that some warps of a warpgroup never issued. */
void wgmma_block_end(exec_block *block)
{
    for (int i = 0; i < block->warp_count / WARPGROUP && !block->fault.result; i++) {
        const wgmma_group *g = &block->wgmma->groups[i];
        const wgmma_op *op = &g->ops[g->begun - g->executed];
        if (g->executed + (uint32_t)g->count > g->begun) {
            text t = {0};
            fault_begin(block, CUDA_ERROR_LAUNCH_FAILED,
                        "the block has ended, and not all warps of a warpgroup have issued a wgmma",
                        &t);
            text_add(&t, "  missing     warps 0x%08x, for the wgmma at line %d\n",
                     (~op->warps & 15) << i * WARPGROUP, op->in->line);
            block->fault.text = t.chars;
        }
    }
}
