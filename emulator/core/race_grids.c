/*
 * race_grids.c: a grid of a programmatic dependent launch may begin while those before it on the
 * stream still run. Here they are over by then, so what is looked for is the wait that a GPU needs:
 * no warp touches global memory before griddepcontrol.wait, its own or one that it lies behind.
 */
#include "race.h"

void race_grids_waited(emu_warp *w)
{
    w->block->race->grid_waits[w->index] = race_step(w);
    w->block->race->warps[w->index].grids_over = true;
    race_next_step(w);
}

/* Whether a wait of the cluster's warps lies before the warp's next instruction. */
static bool is_behind_wait(const emu_warp *w)
{
    const race_clock *known = &w->block->race->warps[w->index].clock;
    const exec_cluster *cluster = w->block->cluster;
    for (int i = 0; i < cluster->count; i++) {
        const exec_block *block = &cluster->blocks[i];
        const race_part *part = clock_find(known, block->linear);
        for (int k = 0; part && k < block->warp_count; k++) {
            uint32_t step = block->race->grid_waits[k];
            if (step && part->steps[k] >= step) {
                return true;
            }
        }
    }
    return false;
}

bool race_grids_over(emu_warp *w, const emu_instr *in, uint32_t access, uint64_t address,
                     uint32_t bytes, uint32_t lanes)
{
    race_warp *warp = &w->block->race->warps[w->index];
    warp->grids_over = warp->grids_over || is_behind_wait(w);
    if (!warp->grids_over) {
        fault_raise_address(w, in, CUDA_ERROR_LAUNCH_FAILED, lanes, SPACE_GLOBAL, address, bytes,
                            access & ACCESS_WRITE
                                ? "writes what the grid before it may still use: no "
                                  "griddepcontrol.wait before it"
                                : "reads what the grid before it may still write: no "
                                  "griddepcontrol.wait before it");
    }
    return warp->grids_over;
}
