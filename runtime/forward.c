/*
 * forward.c: the passes of a loaded mlp. A call checks its tensors, fills a table of values, and
 * launches the kernels, whose parameters point into that table: no allocation, no synchronisation,
 * no lock.
 */
#include <math.h>
#include <string.h>

#include "mlp.h"
#include "tensor.h"

/* ---- the caller's tensors ------------------------------------------------------------------- */

typedef enum presence { ALWAYS, WITH_FC1_BIAS, WITH_FC2_BIAS, WITH_SCALE } presence;
typedef enum dimension { DIM_NONE, DIM_TOKENS, DIM_HIDDEN, DIM_FFN, DIM_FC1 } dimension;
enum { DTYPE_PARAMS = -1, DTYPE_FP32 = BUNDLE_FP32 };

static const struct {
    const char *name;
    size_t member;
    presence when;
    int dtype;
    int rank;
    dimension dims[2];
} tensors[] = {
#define TENSOR_ARGUMENT(id, name, member, when, dtype, rank, dim0, dim1)                           \
    [SLOT_##id] = {name, offsetof(mmlp_forward_args, member),                                      \
                   when, DTYPE_##dtype,                                                            \
                   rank, {DIM_##dim0, DIM_##dim1}},
#define SCALAR_ARGUMENT(id, name, bytes, pass)
#include "arguments.def"
#undef TENSOR_ARGUMENT
#undef SCALAR_ARGUMENT
};
enum { TENSOR_COUNT = sizeof tensors / sizeof tensors[0] };

static bool is_present(const mmlp_bundle *bundle, presence when)
{
    switch (when) {
    case ALWAYS:
        return true;
    case WITH_FC1_BIAS:
        return bundle->add_bias_linear;
    case WITH_FC2_BIAS:
        return bundle->fc2_bias == MMLP_FC2_BIAS_FOLDED || bundle->fc2_bias == MMLP_FC2_BIAS_ADDED;
    case WITH_SCALE:
        return bundle->per_token_scale;
    }
    return false;
}

static int64_t dimension_size(const mmlp_bundle *bundle, dimension dim, int64_t tokens)
{
    switch (dim) {
    case DIM_TOKENS:
        return tokens;
    case DIM_HIDDEN:
        return bundle->hidden_size;
    case DIM_FFN:
        return bundle->ffn_hidden_size;
    case DIM_FC1:
        return bundle->fc1_output_size;
    case DIM_NONE:
        break;
    }
    return 0;
}

/* One value per slot. A pointer, an integer or a float begins where its slot begins. */
typedef union slot_value {
    CUdeviceptr pointer;
    int64_t integer;
    uint64_t bits;
    float real;
    int32_t word;
} slot_value;

static const mmlp_tensor *given(const mmlp_forward_args *args, int slot)
{
    const mmlp_tensor *tensor;
    memcpy(&tensor, (const char *)args + tensors[slot].member, sizeof tensor);
    return tensor;
}

static mmlp_status take_tensors(slot_value *values, int64_t *tokens, const mmlp_mlp *mlp,
                                const mmlp_forward_args *args)
{
    const mmlp_bundle *bundle = mlp->bundle;
    *tokens = -1; /* the first tensor of the table, hidden_states, may have any number */
    for (int i = 0; i < TENSOR_COUNT; i++) {
        const mmlp_tensor *tensor = given(args, i);
        if (!is_present(bundle, tensors[i].when)) {
            if (tensor)
                return mmlp_fail(MMLP_ERROR_ARGUMENT,
                                 "%s: a tensor was given, but %s takes none: pass NULL",
                                 tensors[i].name, bundle->name);
            continue;
        }
        tensor_wanted wanted = {
            .name = tensors[i].name,
            .dtype = tensors[i].dtype == DTYPE_PARAMS ? bundle->params_dtype
                                                      : (bundle_dtype)tensors[i].dtype,
            .rank = tensors[i].rank,
            .dims = {dimension_size(bundle, tensors[i].dims[0], *tokens),
                     dimension_size(bundle, tensors[i].dims[1], *tokens)},
            .device_type = MMLP_DEVICE_CUDA,
            .device_id = mlp->context->device,
        };
        MMLP_TRY(tensor_check(tensor, &wanted));
        if (i == SLOT_HIDDEN_STATES) {
            *tokens = tensor->shape[0];
            MMLP_TRY(check_tokens(mlp, *tokens));
        }
        values[i].pointer = (CUdeviceptr)(uintptr_t)tensor_address(tensor);
    }
    return MMLP_OK;
}

/* Whether one forward kernel hands this buffer to another: then it cannot be left out. */
static bool is_handed_on(const mmlp_mlp *mlp, int slot)
{
    int kernels = 0;
    for (int i = 0; i < mlp->kernel_count; i++) {
        const loaded_kernel *loaded = &mlp->kernels[i];
        bool uses = false;
        for (int k = 0; k < loaded->kernel->argument_count; k++)
            uses |= loaded->slots[k] == slot;
        kernels += uses && loaded->kernel->pass == BUNDLE_FORWARD;
    }
    return kernels > 1;
}

/* The buffers in the memory that the caller gave. Without `saved` its buffers are null pointers,
 * which the kernels do not write. */
static mmlp_status take_buffers(slot_value *values, int64_t tokens, const mmlp_mlp *mlp,
                                const mmlp_forward_args *args)
{
    const mmlp_bundle *bundle = mlp->bundle;
    size_t scratch = lifetime_bytes(bundle, MMLP_LIFETIME_SCRATCH, tokens);
    if (scratch > 0 && !args->scratch)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "scratch: NULL was given, wanted %zu bytes of device memory for %lld "
                         "tokens",
                         scratch, (long long)tokens);
    if ((uintptr_t)args->scratch % 16 != 0 || (uintptr_t)args->saved % 16 != 0)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "%s: found it at address %p, wanted a multiple of 16 "
                         "bytes",
                         (uintptr_t)args->scratch % 16 ? "scratch" : "saved",
                         (uintptr_t)args->scratch % 16 ? args->scratch : args->saved);
    for (int i = 0; i < bundle->buffer_count; i++) {
        size_t saved = lifetime_bytes(bundle, MMLP_LIFETIME_SAVED, tokens);
        if (bundle->buffers[i].lifetime == MMLP_LIFETIME_SAVED && saved > 0 && !args->saved &&
            is_handed_on(mlp, SLOT_BUFFER + i))
            return mmlp_fail(MMLP_ERROR_ARGUMENT,
                             "saved: NULL was given, wanted %zu bytes of device memory for %lld "
                             "tokens: %s is kept there (save_activation)",
                             saved, (long long)tokens, bundle->buffers[i].name);
        void *memory =
            bundle->buffers[i].lifetime == MMLP_LIFETIME_SAVED ? args->saved : args->scratch;
        values[SLOT_BUFFER + i].pointer =
            memory ? (CUdeviceptr)(uintptr_t)memory + buffer_offset(bundle, i, tokens) : 0;
    }
    return MMLP_OK;
}

mmlp_status check_tokens(const mmlp_mlp *mlp, int64_t tokens)
{
    if (tokens < 0 || tokens > mlp->max_tokens)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "tokens: found %lld, this mlp was loaded for 0 to %lld (max_tokens)",
                         (long long)tokens, (long long)mlp->max_tokens);
    return MMLP_OK;
}

/* ---- launches ------------------------------------------------------------------------------- */

static mmlp_status launch(const loaded_kernel *loaded, const mmlp_mlp *mlp, slot_value *values,
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

/* Checks everything a forward pass is given, and fills the table. */
static mmlp_status prepare(slot_value *values, int64_t *tokens, const mmlp_mlp *mlp,
                           const mmlp_forward_args *callers)
{
    if (!mlp)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_mlp_forward: mlp is NULL");
    mmlp_forward_args args = MMLP_FORWARD_ARGS_INIT;
    MMLP_TRY(struct_read(&args, callers, sizeof args, "mmlp_forward_args"));
    MMLP_TRY(take_tensors(values, tokens, mlp, &args));
    MMLP_TRY(take_buffers(values, *tokens, mlp, &args));
    values[SLOT_TOKENS].integer = *tokens;
    return MMLP_OK;
}

mmlp_status mmlp_mlp_forward(mmlp_mlp *mlp, const mmlp_forward_args *args, void *stream)
{
    slot_value values[SLOT_COUNT] = {{0}};
    int64_t tokens;
    MMLP_TRY(prepare(values, &tokens, mlp, args));
    if (tokens == 0)
        return MMLP_OK;
    mmlp_status status = MMLP_OK;
    MMLP_TRY(context_enter(mlp->context));
    for (int i = 0; i < mlp->kernel_count; i++) {
        if (mlp->kernels[i].kernel->pass == BUNDLE_FORWARD)
            MMLP_TRY_CLEANUP(launch(&mlp->kernels[i], mlp, values, tokens, stream));
    }

cleanup:
    context_leave(mlp->context);
    return status;
}

/* Runs one kernel between two events, from an empty stream to an empty stream. */
static mmlp_status launch_timed(double *ms, const loaded_kernel *loaded, const mmlp_mlp *mlp,
                                slot_value *values, int64_t tokens, void *stream, CUevent *events)
{
    const driver *d = &mlp->context->cuda;
    const char *entry = loaded->kernel->entry;
    float elapsed = 0;
    MMLP_TRY(driver_check(d, d->cuStreamSynchronize((CUstream)stream), "before kernel %s", entry));
    MMLP_TRY(driver_check(d, d->cuEventRecord(events[0], (CUstream)stream), "cuEventRecord"));
    MMLP_TRY(launch(loaded, mlp, values, tokens, stream));
    MMLP_TRY(driver_check(d, d->cuEventRecord(events[1], (CUstream)stream), "cuEventRecord"));
    MMLP_TRY(driver_check(d, d->cuEventSynchronize(events[1]), "kernel %s", entry));
    MMLP_TRY(driver_check(d, d->cuEventElapsedTime(&elapsed, events[0], events[1]),
                          "cuEventElapsedTime"));
    *ms = (double)elapsed;
    return MMLP_OK;
}

mmlp_status mmlp_mlp_forward_timed(mmlp_mlp *mlp, const mmlp_forward_args *args, void *stream,
                                   double *ms, int count)
{
    slot_value values[SLOT_COUNT] = {{0}};
    int64_t tokens;
    MMLP_TRY(prepare(values, &tokens, mlp, args));
    int kernels = 0;
    for (int i = 0; i < mlp->kernel_count; i++)
        kernels += mlp->kernels[i].kernel->pass == BUNDLE_FORWARD;
    if (!ms || count != kernels)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "mmlp_mlp_forward_timed: room for %d times was given, wanted %d",
                         ms ? count : 0, kernels);
    memset(ms, 0, (size_t)count * sizeof *ms);
    if (tokens == 0)
        return MMLP_OK;

    const driver *d = &mlp->context->cuda;
    mmlp_status status = MMLP_OK;
    CUevent events[2] = {NULL, NULL};
    MMLP_TRY(context_enter(mlp->context));
    for (int i = 0; i < 2; i++)
        MMLP_TRY_CLEANUP(
            driver_check(d, d->cuEventCreate(&events[i], CU_EVENT_DEFAULT), "cuEventCreate"));
    for (int i = 0, next = 0; i < mlp->kernel_count; i++) {
        if (mlp->kernels[i].kernel->pass == BUNDLE_FORWARD)
            MMLP_TRY_CLEANUP(
                launch_timed(&ms[next++], &mlp->kernels[i], mlp, values, tokens, stream, events));
    }

cleanup:
    for (int i = 0; i < 2; i++) {
        if (events[i])
            d->cuEventDestroy(events[i]);
    }
    context_leave(mlp->context);
    return status;
}

/* ---- fill_normal ---------------------------------------------------------------------------- */

static const loaded_kernel *find_init(const mmlp_mlp *mlp)
{
    for (int i = 0; i < mlp->kernel_count; i++) {
        if (mlp->kernels[i].kernel->pass == BUNDLE_INIT &&
            strcmp(mlp->kernels[i].kernel->step, "fill_normal") == 0)
            return &mlp->kernels[i];
    }
    return NULL;
}

mmlp_status mmlp_mlp_fill_normal(mmlp_mlp *mlp, const mmlp_tensor *tensor, double std,
                                 uint64_t seed, void *stream)
{
    if (!mlp)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_mlp_fill_normal: mlp is NULL");
    const loaded_kernel *loaded = find_init(mlp);
    if (!loaded)
        return mmlp_fail(MMLP_ERROR_UNSUPPORTED, "%s: it has no kernel fill_normal",
                         mlp->bundle->path);
    if (!(std >= 0) || isinf(std))
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "std: found %g, wanted a finite number of at least 0",
                         std);
    tensor_wanted wanted = {
        .name = "destination", .device_type = MMLP_DEVICE_CUDA, .device_id = mlp->context->device};
    int64_t elements;
    MMLP_TRY(tensor_check_any(&elements, tensor, &wanted));
    bundle_dtype dtype = tensor_is(tensor, BUNDLE_FP32) ? BUNDLE_FP32 : mlp->bundle->params_dtype;
    if (!tensor_is(tensor, dtype))
        return mmlp_fail(MMLP_ERROR_SHAPE, "destination: its type is neither %s nor fp32",
                         bundle_dtype_name(mlp->bundle->params_dtype));
    if (elements == 0)
        return MMLP_OK;
    if (kernel_blocks(loaded->kernel, elements) > INT32_MAX)
        return mmlp_fail(MMLP_ERROR_SHAPE,
                         "destination: %lld elements are more than one launch "
                         "can fill",
                         (long long)elements);

    slot_value values[SLOT_COUNT] = {{0}};
    values[SLOT_DESTINATION].pointer = (CUdeviceptr)(uintptr_t)tensor_address(tensor);
    values[SLOT_ELEMENTS].integer = elements;
    values[SLOT_STD].real = (float)std;
    values[SLOT_SEED].bits = seed;
    values[SLOT_DTYPE].word = (int32_t)dtype;
    MMLP_TRY(context_enter(mlp->context));
    mmlp_status status = launch(loaded, mlp, values, elements, stream);
    context_leave(mlp->context);
    return status;
}

/* ---- memory --------------------------------------------------------------------------------- */

mmlp_status mmlp_mlp_forward_memory(const mmlp_mlp *mlp, int64_t tokens, mmlp_memory *memory)
{
    if (!mlp)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_mlp_forward_memory: mlp is NULL");
    MMLP_TRY(check_tokens(mlp, tokens));
    mmlp_memory filled = MMLP_MEMORY_INIT;
    filled.saved_bytes = lifetime_bytes(mlp->bundle, MMLP_LIFETIME_SAVED, tokens);
    filled.scratch_bytes = lifetime_bytes(mlp->bundle, MMLP_LIFETIME_SCRATCH, tokens);
    return struct_fill(memory, &filled, sizeof filled, "mmlp_memory");
}

mmlp_status mmlp_mlp_buffer(const mmlp_mlp *mlp, const char *name, int64_t tokens,
                            mmlp_buffer_view *view)
{
    if (!mlp || !name)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_mlp_buffer: %s is NULL", mlp ? "name" : "mlp");
    MMLP_TRY(check_tokens(mlp, tokens));
    const mmlp_bundle *bundle = mlp->bundle;
    for (int i = 0; i < bundle->buffer_count; i++) {
        const bundle_buffer *buffer = &bundle->buffers[i];
        if (strcmp(buffer->name, name) != 0)
            continue;
        mmlp_buffer_view filled = MMLP_BUFFER_VIEW_INIT;
        filled.lifetime = buffer->lifetime;
        filled.offset = buffer_offset(bundle, i, tokens);
        filled.bytes = buffer_bytes(buffer, tokens);
        filled.shape[0] = tokens;
        filled.shape[1] = buffer->columns;
        filled.dtype = bundle_dtype_name(buffer->dtype);
        return struct_fill(view, &filled, sizeof filled, "mmlp_buffer_view");
    }
    return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_mlp_buffer: %s has no buffer \"%.64s\"",
                     bundle->name, name);
}
