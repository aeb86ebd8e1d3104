/*
 * wgrad_ring.c: the dgrad calls that wait for their backward_dw. passes.c pushes and pops; nothing
 * here knows of kernels or of the device.
 */
#include "wgrad_ring.h"

#include <stdlib.h>

#include "base/error.h"

mmlp_status wgrad_ring_create(wgrad_ring *out, int depth)
{
    *out = (wgrad_ring){0};
    out->calls = calloc((size_t)depth, sizeof *out->calls);
    if (!out->calls)
        return mmlp_fail_memory((size_t)depth * sizeof *out->calls, "delayed weight gradients");
    out->depth = depth;
    return MMLP_OK;
}

void wgrad_ring_free(wgrad_ring *ring)
{
    free(ring->calls);
    *ring = (wgrad_ring){0};
}

static pass_call *waiting(const wgrad_ring *ring, int index)
{
    return &ring->calls[(ring->first + index) % ring->depth];
}

mmlp_status wgrad_ring_check_room(const wgrad_ring *ring)
{
    if (ring->count < ring->depth)
        return MMLP_OK;
    return mmlp_fail(MMLP_ERROR_RING_FULL,
                     "mmlp_mlp_dgrad: %d dgrad calls wait for their weight gradients, and there is "
                     "room for %d (wgrad_depth): call mmlp_mlp_backward_dw first, or load with a "
                     "larger wgrad_depth",
                     ring->count, ring->depth);
}

mmlp_status wgrad_ring_check_writes(const wgrad_ring *ring, const pass_call *call)
{
    for (int w = 0; w < ring->count; w++) {
        const pass_call *older = waiting(ring, w);
        for (int i = 0; i < RANGE_COUNT; i++) {
            for (int j = 0; older->ranges[i].kept && j < RANGE_COUNT; j++) {
                if (call->ranges[j].written && ranges_overlap(&older->ranges[i], &call->ranges[j]))
                    return mmlp_fail(MMLP_ERROR_ARGUMENT,
                                     "%s: found it overlapping %s of a dgrad call that waits for "
                                     "mmlp_mlp_backward_dw (%d of %d), wanted memory of its own",
                                     call->ranges[j].name, older->ranges[i].name, w + 1,
                                     ring->count);
            }
        }
    }
    return MMLP_OK;
}

void wgrad_ring_push(wgrad_ring *ring, const pass_call *call)
{
    *waiting(ring, ring->count) = *call;
    ring->count++;
}

mmlp_status wgrad_ring_pop(pass_call **out, wgrad_ring *ring)
{
    *out = NULL;
    if (ring->count == 0)
        return mmlp_fail(MMLP_ERROR_RING_EMPTY,
                         "mmlp_mlp_backward_dw: no dgrad call waits for its weight gradients (of "
                         "wgrad_depth %d): call mmlp_mlp_dgrad first",
                         ring->depth);
    *out = waiting(ring, 0);
    ring->first = (ring->first + 1) % ring->depth;
    ring->count--;
    return MMLP_OK;
}
