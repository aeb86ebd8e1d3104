/*
 * launch.c: kernels of a loaded mlp into a stream: no allocation, no synchronisation, no lock,
 * except while a tool has them timed.
 */
#include "collectives.h"

int64_t kernel_tiles(const bundle_kernel *kernel, int64_t tokens_or_elements)
{
    if (kernel->elements_per_block)
        return tokens_or_elements / kernel->elements_per_block +
               (tokens_or_elements % kernel->elements_per_block != 0);
    int64_t rows = kernel->rows ? kernel->rows : tokens_or_elements;
    int64_t height = kernel->tile_m * (kernel->cluster ? kernel->cluster : 1);
    return ((rows + height - 1) / height) *
           ((kernel->columns + kernel->tile_n - 1) / kernel->tile_n);
}

/* Clusters take tiles in turn: as many as the device holds at once, one block on a multiprocessor.
 */
static int64_t blocks_of(const bundle_kernel *kernel, int64_t tiles, int sm_count)
{
    if (kernel->cluster == 0)
        return tiles;
    int64_t clusters = sm_count / kernel->cluster;
    return (tiles < clusters ? tiles : clusters) * kernel->cluster;
}

/* A null tensor, or one without rows, has a map of zeros: the kernel does not use it. */
static mmlp_status make_map(CUtensorMap *out, const driver *d, const bundle_kernel *kernel,
                            const bundle_map *map, uint64_t address, int64_t tokens)
{
    static const CUtensorMapDataType types[BUNDLE_DTYPES] = {
        [BUNDLE_BF16] = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        [BUNDLE_FP16] = CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        [BUNDLE_FP32] = CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
    };
    enum { BOX_ROW_BYTES = 128 };
    uint64_t element = bundle_dtype_bytes(map->dtype);
    uint64_t rows = (uint64_t)(map->rows ? map->rows : tokens);
    uint64_t row_bytes = (uint64_t)map->stride * element;
    *out = (CUtensorMap){0};
    if (address == 0 || rows == 0)
        return MMLP_OK;
    const cuuint64_t sizes[] = {(uint64_t)map->columns, rows, (uint64_t)map->planes};
    const cuuint64_t strides[] = {row_bytes, rows * row_bytes};
    const cuuint32_t box[] = {(cuuint32_t)(BOX_ROW_BYTES / element), (cuuint32_t)map->box_rows, 1};
    const cuuint32_t steps[] = {1, 1, 1};
    address += (uint64_t)map->first_column * element;
    return driver_check(d,
                        d->cuTensorMapEncodeTiled(
                            out, types[map->dtype], map->planes > 1 ? 3 : 2,
                            (void *)(uintptr_t)address, sizes, strides, box, steps,
                            CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                            CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
                        "kernel %s: the tensor map of %s", kernel->entry, map->tensor);
}

/* A programmatic dependent launch: its blocks may begin while the kernel before it still runs. */
static CUresult launch_dependent(const driver *d, const loaded_kernel *loaded, unsigned blocks,
                                 void **parameters, void *stream)
{
    CUlaunchAttribute attribute = {.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
                                   .value.programmaticStreamSerializationAllowed = 1};
    CUlaunchConfig config = {.gridDimX = blocks,
                             .gridDimY = 1,
                             .gridDimZ = 1,
                             .blockDimX = (unsigned)loaded->kernel->threads,
                             .blockDimY = 1,
                             .blockDimZ = 1,
                             .sharedMemBytes = (unsigned)loaded->kernel->dynamic_shared_bytes,
                             .hStream = (CUstream)stream,
                             .attrs = &attribute,
                             .numAttrs = 1};
    return d->cuLaunchKernelEx(&config, loaded->function, parameters, NULL);
}

static mmlp_status enqueue(const loaded_kernel *loaded, const mmlp_mlp *mlp, slot_value *values,
                           int64_t tokens_or_elements, bool follows, void *stream)
{
    const driver *d = &mlp->context->cuda;
    const bundle_kernel *kernel = loaded->kernel;
    void *parameters[BUNDLE_MAX_MAPS + BUNDLE_MAX_ARGUMENTS];
    CUtensorMap maps[BUNDLE_MAX_MAPS];
    int count = 0;
    for (int i = 0; i < kernel->map_count; i++) {
        MMLP_TRY(make_map(&maps[i], d, kernel, &kernel->maps[i],
                          values[loaded->map_slots[i]].pointer, tokens_or_elements));
        parameters[count++] = &maps[i];
    }
    for (int i = 0; i < kernel->argument_count; i++)
        parameters[count++] = &values[loaded->slots[i]];
    int64_t tiles = kernel_tiles(kernel, tokens_or_elements);
    unsigned blocks = (unsigned)blocks_of(kernel, tiles, mlp->context->sm_count);
    if (follows && kernel->waits_for_previous)
        return driver_check(d, launch_dependent(d, loaded, blocks, parameters, stream), "kernel %s",
                            kernel->entry);
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
    MMLP_TRY(enqueue(loaded, mlp, values, tokens_or_elements, false, stream));
    MMLP_TRY(driver_check(d, d->cuEventRecord(mlp->events[1], (CUstream)stream), "cuEventRecord"));
    MMLP_TRY(driver_check(d, d->cuEventSynchronize(mlp->events[1]), "kernel %s", entry));
    MMLP_TRY(driver_check(d, d->cuEventElapsedTime(&elapsed, mlp->events[0], mlp->events[1]),
                          "cuEventElapsedTime"));
    mlp->kernel_ms[loaded - mlp->kernels] += (double)elapsed;
    return MMLP_OK;
}

mmlp_status launch_kernel(mmlp_mlp *mlp, const loaded_kernel *loaded, slot_value *values,
                          int64_t tokens_or_elements, bool follows, void *stream)
{
    if (mlp->kernel_ms)
        return enqueue_timed(loaded, mlp, values, tokens_or_elements, stream);
    return enqueue(loaded, mlp, values, tokens_or_elements, follows, stream);
}

/* Whether a kernel has something to do: without tokens, only to write the zeros of beta 0. */
static bool has_work(const loaded_kernel *loaded, const pass_call *call)
{
    if (loaded->when >= 0 && !call->given[loaded->when])
        return false;
    if (call->tokens < loaded->least_tokens || call->tokens > loaded->most_tokens)
        return false;
    return call->tokens > 0 || (loaded->kernel->rows > 0 && call->values[SLOT_BETA].word == 0);
}

mmlp_status launch_pass(mmlp_mlp *mlp, bundle_pass pass, pass_call *call, void *stream)
{
    bool follows = false;
    for (int i = 0; i < mlp->kernel_count; i++) {
        const loaded_kernel *loaded = &mlp->kernels[i];
        if (loaded->kernel->pass != pass)
            continue;
        bool joined;
        MMLP_TRY(collectives_begin(mlp, pass, i, call, stream));
        if (!has_work(loaded, call))
            continue;
        MMLP_TRY(collectives_join(&joined, mlp, loaded, stream));
        int64_t tokens =
            kernel_takes(loaded, SLOT_LOCAL_TOKENS) ? call->local_tokens : call->tokens;
        MMLP_TRY(launch_kernel(mlp, loaded, call->values, tokens, follows && !joined, stream));
        MMLP_TRY(gradients_mark(mlp, loaded, stream));
        follows = true;
    }
    return collectives_begin(mlp, pass, -1, call, stream);
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
