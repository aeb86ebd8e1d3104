/*
 * passes.c: the passes of a loaded mlp. What a call is given is checked against itself
 * (arguments.c) and against the calls before it; then its kernels are enqueued, and what later
 * calls need to know is remembered: nothing of that when a launch failed.
 */
#include "collectives.h"

/* What earlier forward passes have saved there is gone. */
static void forget_written(mmlp_mlp *mlp, const pass_call *call)
{
    for (int i = 0; i < RANGE_COUNT; i++) {
        const memory_range *range = &call->ranges[i];
        if (range->written && range->bytes > 0)
            saved_passes_drop(&mlp->saved, range->begin, range->bytes);
    }
}

/* The kernels of one pass, or of dgrad and the weight gradients, and the end of what ranks do
 * together in them. */
static mmlp_status run(mmlp_mlp *mlp, bundle_pass first, bundle_pass last, pass_call *call,
                       void *stream)
{
    mmlp_status status = MMLP_OK;
    bool joined;
    for (int pass = (int)first; pass <= (int)last && status == MMLP_OK; pass++)
        status = launch_pass(mlp, (bundle_pass)pass, call, stream);
    if (status == MMLP_OK)
        status = collectives_join(&joined, mlp, NULL, stream);
    if (status != MMLP_OK)
        collectives_abandon(mlp, stream);
    return status;
}

mmlp_status mmlp_mlp_forward(mmlp_mlp *mlp, const mmlp_forward_args *args, void *stream)
{
    MMLP_TRY(mlp_enter(mlp, "mmlp_mlp_forward"));
    mmlp_status status = MMLP_OK;
    pass_call call;
    MMLP_TRY_CLEANUP(collectives_check(mlp));
    MMLP_TRY_CLEANUP(arguments_take_forward(&call, mlp, args));
    MMLP_TRY_CLEANUP(wgrad_ring_check_writes(&mlp->ring, &call));
    if (call.tokens == 0)
        goto cleanup;
    const memory_range *saved = &call.ranges[RANGE_BUFFER + MMLP_LIFETIME_SAVED];
    forget_written(mlp, &call);
    MMLP_TRY_CLEANUP(run(mlp, BUNDLE_FORWARD, BUNDLE_FORWARD, &call, stream));
    if (saved->bytes > 0)
        saved_passes_add(&mlp->saved, saved->begin, saved->bytes, call.tokens);

cleanup:
    mlp_leave(mlp);
    return status;
}

/* What earlier calls make wrong with a dgrad. */
static mmlp_status check_order(const mmlp_mlp *mlp, const pass_call *call)
{
    const memory_range *saved = &call->ranges[RANGE_BUFFER + MMLP_LIFETIME_SAVED];
    if (saved->bytes > 0)
        MMLP_TRY(saved_passes_check(&mlp->saved, saved->begin, call->tokens));
    if (mlp->bundle->delay_wgrad_compute)
        MMLP_TRY(wgrad_ring_check_room(&mlp->ring));
    return wgrad_ring_check_writes(&mlp->ring, call);
}

mmlp_status mmlp_mlp_dgrad(mmlp_mlp *mlp, const mmlp_dgrad_args *args, void *stream)
{
    MMLP_TRY(mlp_enter(mlp, "mmlp_mlp_dgrad"));
    mmlp_status status = MMLP_OK;
    pass_call call;
    if (!mlp->has_dgrad) {
        status = mmlp_fail(MMLP_ERROR_UNSUPPORTED,
                           "%s: it has no dgrad kernels for %s: only its forward pass can run",
                           mlp->bundle->name, mlp->context->arch);
        goto cleanup;
    }
    MMLP_TRY_CLEANUP(collectives_check(mlp));
    MMLP_TRY_CLEANUP(arguments_take_dgrad(&call, mlp, args));
    MMLP_TRY_CLEANUP(check_order(mlp, &call));
    forget_written(mlp, &call);
    bool delays = mlp->bundle->delay_wgrad_compute;
    MMLP_TRY_CLEANUP(
        run(mlp, BUNDLE_DGRAD, delays ? BUNDLE_DGRAD : BUNDLE_BACKWARD_DW, &call, stream));
    if (delays)
        wgrad_ring_push(&mlp->ring, &call);

cleanup:
    mlp_leave(mlp);
    return status;
}

mmlp_status mmlp_mlp_backward_dw(mmlp_mlp *mlp, void *stream)
{
    if (mlp && !mlp->bundle->delay_wgrad_compute)
        return MMLP_OK;
    MMLP_TRY(mlp_enter(mlp, "mmlp_mlp_backward_dw"));
    mmlp_status status = MMLP_OK;
    pass_call *call;
    MMLP_TRY_CLEANUP(collectives_check(mlp));
    MMLP_TRY_CLEANUP(wgrad_ring_pop(&call, &mlp->ring));
    MMLP_TRY_CLEANUP(run(mlp, BUNDLE_BACKWARD_DW, BUNDLE_BACKWARD_DW, call, stream));

cleanup:
    mlp_leave(mlp);
    return status;
}
