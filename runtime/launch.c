/*
 * launch.c: kernels of a loaded mlp into a stream: no allocation, no synchronisation, no lock,
 * except while a tool has them timed.
 */
#include "mlp.h"

int64_t kernel_blocks(const bundle_kernel *kernel, int64_t tokens_or_elements)
{
    if (kernel->elements_per_block)
        return tokens_or_elements / kernel->elements_per_block +
               (tokens_or_elements % kernel->elements_per_block != 0);
    int64_t rows = kernel->rows ? kernel->rows : tokens_or_elements;
    return ((rows + kernel->tile_m - 1) / kernel->tile_m) *
           ((kernel->columns + kernel->tile_n - 1) / kernel->tile_n);
}

static mmlp_status enqueue(const loaded_kernel *loaded, const mmlp_mlp *mlp, slot_value *values,
                           int64_t tokens_or_elements, void *stream)
{
    const driver *d = &mlp->context->cuda;
    const bundle_kernel *kernel = loaded->kernel;
    void *parameters[BUNDLE_MAX_ARGUMENTS];
    for (int i = 0; i < kernel->argument_count; i++)
        parameters[i] = &values[loaded->slots[i]];
    unsigned blocks = (unsigned)kernel_blocks(kernel, tokens_or_elements);
    return driver_check(d,
                        d->cuLaunchKernel(loaded->function, blocks, 1, 1, (unsigned)kernel->threads,
                                          1, 1, (unsigned)kernel->dynamic_shared_bytes,
                                          (CUstream)stream, parameters, NULL),
                        "kernel %s", kernel->entry);
}

/* Runs one kernel between two events, from an empty stream to an empty stream. */
static mmlp_status enqueue_timed(const loaded_kernel *loaded, mmlp_mlp *mlp, slot_value *values,
                                 int64_t tokens_or_elements, void *stream)
{
    const driver *d = &mlp->context->cuda;
    const char *entry = loaded->kernel->entry;
    float elapsed = 0;
    MMLP_TRY(driver_check(d, d->cuStreamSynchronize((CUstream)stream), "before kernel %s", entry));
    MMLP_TRY(driver_check(d, d->cuEventRecord(mlp->events[0], (CUstream)stream), "cuEventRecord"));
    MMLP_TRY(enqueue(loaded, mlp, values, tokens_or_elements, stream));
    MMLP_TRY(driver_check(d, d->cuEventRecord(mlp->events[1], (CUstream)stream), "cuEventRecord"));
    MMLP_TRY(driver_check(d, d->cuEventSynchronize(mlp->events[1]), "kernel %s", entry));
    MMLP_TRY(driver_check(d, d->cuEventElapsedTime(&elapsed, mlp->events[0], mlp->events[1]),
                          "cuEventElapsedTime"));
    mlp->kernel_ms[loaded - mlp->kernels] += (double)elapsed;
    return MMLP_OK;
}

mmlp_status launch_kernel(mmlp_mlp *mlp, const loaded_kernel *loaded, slot_value *values,
                          int64_t tokens_or_elements, void *stream)
{
    if (mlp->kernel_ms)
        return enqueue_timed(loaded, mlp, values, tokens_or_elements, stream);
    return enqueue(loaded, mlp, values, tokens_or_elements, stream);
}

/* Whether a kernel has something to do: without tokens, only to write the zeros of beta 0. */
static bool has_work(const loaded_kernel *loaded, const pass_call *call)
{
    if (loaded->when >= 0 && !call->given[loaded->when])
        return false;
    return call->tokens > 0 || (loaded->kernel->rows > 0 && call->values[SLOT_BETA].word == 0);
}

mmlp_status launch_pass(mmlp_mlp *mlp, bundle_pass pass, pass_call *call, void *stream)
{
    for (int i = 0; i < mlp->kernel_count; i++) {
        const loaded_kernel *loaded = &mlp->kernels[i];
        if (loaded->kernel->pass == pass && has_work(loaded, call))
            MMLP_TRY(launch_kernel(mlp, loaded, call->values, call->tokens, stream));
    }
    return MMLP_OK;
}

/* ---- timing --------------------------------------------------------------------------------- */

void launch_end_timing(mmlp_mlp *mlp)
{
    for (int i = 0; i < 2; i++) {
        if (mlp->events[i])
            mlp->context->cuda.cuEventDestroy(mlp->events[i]);
        mlp->events[i] = NULL;
    }
    mlp->kernel_ms = NULL;
}

mmlp_status mmlp_mlp_time_kernels(mmlp_mlp *mlp, double *ms, int count)
{
    MMLP_TRY(mlp_enter(mlp, "mmlp_mlp_time_kernels"));
    const driver *d = &mlp->context->cuda;
    mmlp_status status = MMLP_OK;
    if (ms && count != mlp->kernel_count) {
        status = mmlp_fail(MMLP_ERROR_ARGUMENT,
                           "mmlp_mlp_time_kernels: room for %d times was given, wanted %d", count,
                           mlp->kernel_count);
        goto cleanup;
    }
    launch_end_timing(mlp);
    for (int i = 0; ms && i < 2; i++)
        MMLP_TRY_CLEANUP(
            driver_check(d, d->cuEventCreate(&mlp->events[i], CU_EVENT_DEFAULT), "cuEventCreate"));
    mlp->kernel_ms = ms;

cleanup:
    if (!mlp->kernel_ms)
        launch_end_timing(mlp);
    mlp_leave(mlp);
    return status;
}
