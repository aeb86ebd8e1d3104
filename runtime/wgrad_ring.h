/*
 * wgrad_ring.h: the dgrad calls that wait for their backward_dw, first in first out. All places are
 * allocated when an mlp is loaded.
 */
#ifndef MMLP_WGRAD_RING_H
#define MMLP_WGRAD_RING_H

#include "arguments.h"

typedef struct wgrad_ring {
    pass_call *calls; /* `depth` places */
    int depth, first, count;
} wgrad_ring;

mmlp_status wgrad_ring_create(wgrad_ring *out, int depth);
void wgrad_ring_free(wgrad_ring *ring); /* of a zeroed ring: nothing */

/* ERROR_RING_FULL unless a call can be pushed. */
mmlp_status wgrad_ring_check_room(const wgrad_ring *ring);
/* ERROR_ARGUMENT when the call writes to memory that a waiting call still needs. */
mmlp_status wgrad_ring_check_writes(const wgrad_ring *ring, const pass_call *call);
/* A copy of the call waits from now on. There is room. */
void wgrad_ring_push(wgrad_ring *ring, const pass_call *call);
/* The oldest call, which no longer waits; valid until the next push. ERROR_RING_EMPTY. */
mmlp_status wgrad_ring_pop(pass_call **out, wgrad_ring *ring);

#endif
