/*
 * exec_mma.h: what the handlers of mma.sync have in common, the fast and the exact ones.
 */
#ifndef EMU_EXEC_MMA_H
#define EMU_EXEC_MMA_H

#include "exec_lanes.h"

/* True when the whole warp is here. */
static inline bool enter_mma(emu_warp *w, const emu_instr *in, u32 mask)
{
    if (mask == FULL_MASK) {
        return true;
    }
    if (warp_meet(w, in, mask, w->existing, "mma")) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, mask, "mma in a warp of %d lanes",
                    __builtin_popcount(mask));
    }
    return false;
}

#endif
