/*
 * collectives.h: what ranks do together inside of a pass: from the bundle's list to NCCL.
 */
#ifndef MMLP_COLLECTIVES_H
#define MMLP_COLLECTIVES_H

#include "mlp.h"

/* Binds the bundle's collectives to places in the passes, with the stream and events they need; the
 * kernels are chosen. The context is current. */
mmlp_status collectives_load(mmlp_mlp *mlp, bool regather_input);
void collectives_unload(mmlp_mlp *mlp);

/* Whether a pass may run: a communicator is bound if one is needed, and has not failed. */
mmlp_status collectives_check(const mmlp_mlp *mlp);
/* Enqueues those that come before kernel `position` of the pass; -1: those at its end. */
mmlp_status collectives_begin(mmlp_mlp *mlp, bundle_pass pass, int position, const pass_call *call,
                              void *stream);
/* The stream waits for those whose output the kernel takes; NULL: for all that are under way. */
mmlp_status collectives_join(bool *joined, mmlp_mlp *mlp, const loaded_kernel *reader,
                             void *stream);
/* After a failure: the stream waits for all that are under way, if it can. Keeps the error. */
void collectives_abandon(mmlp_mlp *mlp, void *stream);

#endif
