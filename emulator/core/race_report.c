/*
 * race_report.c: the words of a race: which two accesses, and which order is missing.
 */
#include <stdio.h>

#include "race.h"

static const char *kind_name(const race_record *record)
{
    bool reads = (record->kind & RACE_READ) != 0, writes = (record->kind & RACE_WRITE) != 0;
    if (record->kind & RACE_ASYNC) {
        return "cp.async's write";
    }
    if (record->kind & RACE_WGMMA) {
        return "wgmma's read";
    }
    if (record->kind & RACE_GENERIC) {
        return "st.async's write";
    }
    if (record->kind & RACE_BULK) {
        return writes ? "a bulk copy's write" : "a bulk copy's read";
    }
    if (record->kind & RACE_STRONG) {
        return reads && writes ? "atomic" : writes ? "strong write" : "strong read";
    }
    return writes ? "write" : "read";
}

/* A cp.async of this block that `now` does not lie behind. */
static const char *missing_wait(const emu_warp *w, const race_visit *visit)
{
    const race_record *copy = &visit->earlier;
    int index = __builtin_ctz(copy->warps);
    const race_warp *issuer = &w->block->race->warps[index];
    const race_part *known = clock_find(&issuer->clock, w->block->linear);
    return known->copies[index] <= copy->clock
               ? "cp.async not waited for: its warp has run no cp.async.wait_group or wait_all "
                 "that "
                 "covers it"
               : "no barrier between them: the cp.async was waited for by its own warp alone";
}

static const char *missing_order(const emu_warp *w, const race_visit *visit)
{
    const race_record *now = &visit->record, *old = &visit->earlier;
    bool same_block = now->block == old->block;
    bool is_cluster = w->block->cluster->count > 1;
    if ((now->kind & old->kind & RACE_STRONG) && is_cluster) {
        return now->kind & (RACE_WIDE | RACE_CLUSTER)
                   ? "the earlier access has scope .cta, the other block needs .cluster or .gpu"
                   : "this access has scope .cta, the other block needs .cluster or .gpu";
    }
    if (now->kind & old->kind & RACE_STRONG) {
        return now->kind & RACE_WIDE
                   ? "the earlier access has scope .cta, the other block needs .gpu"
                   : "this access has scope .cta, the other block needs .gpu";
    }
    if ((old->kind & RACE_ASYNC) && same_block) {
        return missing_wait(w, visit);
    }
    if (old->kind & RACE_WGMMA) {
        return "wgmma.wait_group that covers it, and a barrier where another warp writes";
    }
    if (old->kind & RACE_BULK) {
        return old->kind & RACE_WRITE
                   ? "nothing that follows the end of the bulk copy: a wait for its mbarrier or "
                     "its group"
                   : "cp.async.bulk.wait_group.read, and a barrier where another warp writes";
    }
    if ((now->kind & RACE_BULK) && same_block && (old->kind & RACE_WRITE) &&
        race_knows(w, w->block, __builtin_ctz(old->warps), old->clock)) {
        return now->kind & RACE_WGMMA ? "fence.proxy.async between the write and the wgmma"
                                      : "fence.proxy.async between the write and the bulk copy";
    }
    if (same_block) {
        return (now->kind | old->kind) & RACE_STRONG
                   ? "no barrier between them, and only one of the two is atomic or volatile"
                   : "no barrier between them, nor a release and an acquire (fence and flag)";
    }
    if (is_cluster) {
        return "nothing orders the blocks: wanted is barrier.cluster, or a release and an acquire "
               "of scope .cluster or wider";
    }
    return (now->kind | old->kind) & RACE_STRONG
               ? "nothing orders the blocks, and only one of the two is atomic or volatile"
               : "nothing orders the blocks: wanted are a fence before an atomic or flag is "
                 "written "
                 "and one after it is read, all of scope .gpu";
}

void race_report(emu_warp *w, const emu_instr *in, ptx_space space, const race_visit *visit)
{
    const race_record *now = &visit->record, *old = &visit->earlier;
    const exec_grid *g = w->block->grid;
    uint64_t block = old->block;
    int warp = __builtin_ctz(old->warps);
    char what[160], other[200];
    snprintf(what, sizeof what, "race: %s after %s, by %s", kind_name(now), kind_name(old),
             old->block != now->block ? "another block"
             : warp == w->index       ? "the same warp"
                                      : "another warp of the block");
    snprintf(other, sizeof other, "%s by warp %d, lanes 0x%08x, of block (%u,%u,%u)",
             kind_name(old), warp, old->lanes, (unsigned)(block % g->grid[0]),
             (unsigned)(block / g->grid[0] % g->grid[1]),
             (unsigned)(block / g->grid[0] / g->grid[1]));
    fault_raise_race(w, in, now->lanes, space, visit->address, what, other,
                     g->kernel->code[old->instr].line, missing_order(w, visit));
}
