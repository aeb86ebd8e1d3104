/*
 * enter.c: one thread at a time. Every function that uses what changes in an mlp lies between
 * mlp_enter and mlp_leave.
 */
#include "mlp.h"

mmlp_status mlp_enter(mmlp_mlp *mlp, const char *function)
{
    if (!mlp)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "%s: mlp is NULL", function);
    const char *inside = NULL;
    if (!atomic_compare_exchange_strong(&mlp->inside, &inside, function))
        return mmlp_fail(MMLP_ERROR_BUSY,
                         "%s: another thread is inside %s with this mlp, which is used by one "
                         "thread at a time",
                         function, inside);
    mmlp_status status = context_enter(mlp->context);
    if (status != MMLP_OK)
        atomic_store(&mlp->inside, NULL);
    return status;
}

void mlp_leave(mmlp_mlp *mlp)
{
    context_leave(mlp->context);
    atomic_store(&mlp->inside, NULL);
}
