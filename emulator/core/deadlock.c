/*
 * deadlock.c: the report when no warp of a cluster can go on: why, as far as its barriers tell, and
 * where every warp is and what it waits for.
 */
#include "wgmma.h"

/* Who is at a barrier, in threads: warps count whole. */
typedef struct attendance {
    uint32_t expected, arrived;
    uint32_t possible; /* arrived, or in a warp that still runs */
    uint32_t warps;    /* that have arrived */
} attendance;

static attendance count_threads(const exec_block *block, const block_barrier *b)
{
    attendance a = {.expected = b->expected};
    for (int i = 0; i < block->warp_count; i++) {
        const emu_warp *w = &block->warps[i];
        bool here = b->lanes[i] && (w->live & ~b->lanes[i]) == 0;
        a.arrived += here ? 32 : 0;
        a.warps |= (uint32_t)here << i;
        a.possible += here || w->live ? 32 : 0;
    }
    a.expected = a.expected ? a.expected : a.possible;
    return a;
}

/* A warp that barrier `id` still wants and that waits at another one; NULL: there is none. */
static const warp_split *waits_elsewhere(const exec_block *block, uint32_t id, int *warp)
{
    for (int i = 0; i < block->warp_count; i++) {
        const emu_warp *w = &block->warps[i];
        for (int k = 0; k < w->split_count; k++) {
            const warp_split *s = &w->splits[k];
            if (s->state == SPLIT_AT_BARRIER && s->waits_for != id &&
                (s->mask & ~block->barriers[id].lanes[i])) {
                *warp = i;
                return s;
            }
        }
    }
    return NULL;
}

static void add_barrier(text *t, const exec_block *block, uint32_t id)
{
    const block_barrier *b = &block->barriers[id];
    attendance a = count_threads(block, b);
    int warp;
    const warp_split *elsewhere = waits_elsewhere(block, id, &warp);
    text_add(t, "  barrier %-2u  %u of %u threads have arrived: warps 0x%08x", id, a.arrived,
             a.expected, a.warps);
    if (b->completed) {
        text_add(t, "; it was complete before, %u times", b->completed);
    }
    text_add(t, "\n");
    if (a.possible < a.expected && b->completed) {
        text_add(
            t,
            "  cause       %u threads can come to barrier %u, which counts %u: more use it than "
            "it counts, or some have exited too early\n",
            a.possible, id, a.expected);
    } else if (a.possible < a.expected) {
        text_add(t,
                 "  cause       barrier %u counts %u threads that have exited: it wants %u, and %u "
                 "can come\n",
                 id, a.expected - a.possible, a.expected, a.possible);
    } else if (elsewhere) {
        text_add(
            t,
            "  cause       the warps disagree: barrier %u wants lanes 0x%08x of warp %d, which "
            "wait at barrier %u\n",
            id, elsewhere->mask, warp, elsewhere->waits_for);
    }
}

static void add_mbarrier(text *t, const exec_block *block, uint32_t address)
{
    text_add(t, "at the mbarrier at 0x%x", address);
    for (int i = 0; i < block->mbarrier_count; i++) {
        const mbarrier *b = &block->mbarriers[i];
        if (b->address == address) {
            text_add(t, " (phase %u lacks %d of %d arrivals and %d bytes)", b->phase, b->pending,
                     b->expected, b->bytes);
        }
    }
}

/* Who of the warpgroup has not issued what the warp waits for. */
static void add_wgmma(text *t, const emu_warp *w, uint32_t number)
{
    int first = w->index / WARPGROUP * WARPGROUP;
    text_add(t, "for %u wgmma of its warpgroup, of which have issued:", number);
    for (int i = first; i < first + WARPGROUP; i++) {
        text_add(t, " warp %d %u", i, wgmma_issued(w->block, i));
    }
}

/* One line for each group of lanes: where it is and what it waits for. */
static void add_split(text *t, const exec_block *block, const emu_warp *w, const warp_split *s)
{
    const ir_kernel *kernel = block->grid->kernel;
    uint32_t at = s->state == SPLIT_AT_MEETING ? s->pc : s->pc ? s->pc - 1 : 0;
    int line = kernel->code[at].line;
    size_t length;
    const char *source = ptx_line_text(kernel->module, line, &length);
    text_add(t, "  warp %-2d lanes 0x%08x waits ", w->index, s->mask);
    if (s->state == SPLIT_AT_BARRIER) {
        attendance a = count_threads(block, &block->barriers[s->waits_for]);
        text_add(t, "at barrier %u (%u of %u threads)", s->waits_for, a.arrived, a.expected);
    } else if (s->state == SPLIT_AT_CLUSTER) {
        text_add(t, "at barrier.cluster (%u were complete before)", block->cluster->barriers);
    } else if (s->state == SPLIT_AT_MBARRIER) {
        add_mbarrier(t, block, s->waits_for);
    } else if (s->state == SPLIT_AT_REGISTERS) {
        text_add(t, "for %u registers a thread: it has %d, and the block has %d to spare",
                 s->waits_for, block->registers.owned[w->index], block->registers.spare);
    } else if (s->state == SPLIT_AT_WGMMA) {
        add_wgmma(t, w, s->waits_for);
    } else if (s->state == SPLIT_AT_WARP_SYNC) {
        text_add(t, "for lanes 0x%08x at bar.warp.sync", s->waits_for);
    } else {
        text_add(t, "for lanes 0x%08x, of which 0x%08x are elsewhere", s->waits_for,
                 s->waits_for & w->live & ~s->mask);
    }
    text_add(t, ", line %d: %.*s\n", line, length > 120 ? 120 : (int)length, source);
}

static void add_warp(text *t, const exec_block *block, const emu_warp *w)
{
    if (!w->live) {
        text_add(t, "  warp %-2d has exited\n", w->index);
        return;
    }
    for (int k = 0; k < w->split_count; k++) {
        add_split(t, block, w, &w->splits[k]);
    }
    if (w->live != w->existing) {
        text_add(t, "  warp %-2d lanes 0x%08x have exited\n", w->index, w->existing & ~w->live);
    }
    if (w->copy_count) {
        text_add(t, "  warp %-2d has not waited for %d cp.async, the oldest of group %u\n",
                 w->index, w->copy_count, w->copies[0].group);
    }
}

static void add_block(text *t, const exec_block *block)
{
    if (block->cluster->count > 1) {
        text_add(t, "  block       (%u,%u,%u), number %d of the cluster\n", block->index[0],
                 block->index[1], block->index[2], cluster_rank(block));
    }
    for (uint32_t id = 0; id < EXEC_BARRIERS; id++) {
        if (block->barriers[id].in_progress) {
            add_barrier(t, block, id);
        }
    }
    for (int i = 0; i < block->warp_count; i++) {
        add_warp(t, block, &block->warps[i]);
    }
}

/* The report is that of the first block with a warp that waits. */
void fault_deadlock(exec_cluster *cluster)
{
    text t = {0};
    exec_block *first = cluster->blocks;
    while (block_has_ended(first)) {
        first++;
    }
    fault_begin(first, CUDA_ERROR_LAUNCH_FAILED,
                cluster->count > 1 ? "deadlock: no warp of the cluster can go on"
                                   : "deadlock: no warp of the block can go on",
                &t);
    for (int i = 0; i < cluster->count; i++) {
        add_block(&t, &cluster->blocks[i]);
    }
    first->fault.text = t.chars;
}
