/*
 * memory.c: how much memory a caller must provide for a pass, and where each buffer lies in it. The
 * bundle's buffers say how large they are, the arguments of its kernels who touches them.
 */
#include <string.h>

#include "mlp.h"

int64_t memory_split(const mmlp_bundle *bundle)
{
    return bundle->sequence_parallel ? bundle->tensor_model_parallel_size : 1;
}

/* Of what the caller provides: the mlp itself has the buffer that backward_dw gathers into. */
static size_t buffer_bytes(const mmlp_mlp *mlp, int index, int64_t tokens)
{
    const bundle_buffer *buffer = &mlp->bundle->buffers[index];
    if (index == mlp->regathered_buffer)
        return 0;
    int64_t rows = (tokens + buffer->tokens_per_row - 1) / buffer->tokens_per_row;
    return (size_t)rows * (size_t)buffer->columns * bundle_dtype_bytes(buffer->dtype);
}

static bool lie_together(const bundle_buffer *a, const bundle_buffer *b)
{
    return a->lifetime == b->lifetime && a->pass == b->pass;
}

size_t memory_offset(const mmlp_mlp *mlp, int index, int64_t tokens)
{
    const mmlp_bundle *bundle = mlp->bundle;
    size_t offset = 0;
    for (int i = 0; i < index; i++) {
        if (lie_together(&bundle->buffers[i], &bundle->buffers[index]))
            offset = (offset + buffer_bytes(mlp, i, tokens) + 255) / 256 * 256;
    }
    return offset;
}

size_t memory_bytes(const mmlp_mlp *mlp, mmlp_pass pass, mmlp_lifetime lifetime, int64_t tokens)
{
    static const bundle_pass writers[LIFETIME_COUNT][PASS_COUNT] = {
        [MMLP_LIFETIME_SAVED] = {BUNDLE_FORWARD, BUNDLE_FORWARD, BUNDLE_FORWARD},
        [MMLP_LIFETIME_SCRATCH] = {BUNDLE_FORWARD, BUNDLE_DGRAD, BUNDLE_DGRAD},
        [MMLP_LIFETIME_PENDING] = {BUNDLE_DGRAD, BUNDLE_DGRAD, BUNDLE_DGRAD},
    };
    const mmlp_bundle *bundle = mlp->bundle;
    size_t bytes = 0;
    for (int i = 0; mlp->touches[pass][lifetime] && i < bundle->buffer_count; i++) {
        const bundle_buffer *buffer = &bundle->buffers[i];
        if (buffer->lifetime == lifetime && buffer->pass == writers[lifetime][pass])
            bytes = memory_offset(mlp, i, tokens) + buffer_bytes(mlp, i, tokens);
    }
    return bytes;
}

bool kernel_takes(const loaded_kernel *loaded, int slot)
{
    bool takes = false;
    for (int i = 0; i < loaded->kernel->argument_count; i++)
        takes |= loaded->slots[i] == slot;
    for (int i = 0; i < loaded->kernel->map_count; i++)
        takes |= loaded->map_slots[i] == slot;
    return takes;
}

/* How many steps of the pass are given the buffer: each has one kernel that takes all tokens that
 * are left. */
static int count_users(const mmlp_mlp *mlp, int buffer, bundle_pass pass)
{
    int users = 0;
    for (int i = 0; i < mlp->kernel_count; i++) {
        const loaded_kernel *loaded = &mlp->kernels[i];
        users += kernel_takes(loaded, SLOT_BUFFER + buffer) && loaded->kernel->pass == pass &&
                 loaded->kernel->most_tokens == 0;
    }
    return users;
}

void memory_examine(mmlp_mlp *mlp)
{
    const mmlp_bundle *bundle = mlp->bundle;
    for (int i = 0; i < bundle->buffer_count; i++) {
        const bundle_buffer *buffer = &bundle->buffers[i];
        int forward = count_users(mlp, i, BUNDLE_FORWARD);
        int dgrad = count_users(mlp, i, BUNDLE_DGRAD);
        int backward_dw = count_users(mlp, i, BUNDLE_BACKWARD_DW);
        if (!bundle->delay_wgrad_compute) { /* dgrad launches these kernels too */
            dgrad += backward_dw;
            backward_dw = 0;
        }
        mlp->touches[MMLP_PASS_FORWARD][buffer->lifetime] |= forward > 0;
        mlp->touches[MMLP_PASS_DGRAD][buffer->lifetime] |= dgrad > 0;
        mlp->touches[MMLP_PASS_BACKWARD_DW][buffer->lifetime] |= backward_dw > 0;
        if (buffer->lifetime == MMLP_LIFETIME_SAVED && forward > 1 && !mlp->handed_on)
            mlp->handed_on = buffer->name;
    }
}

mmlp_status memory_check_tokens(const mmlp_mlp *mlp, int64_t tokens)
{
    if (tokens < 0 || tokens > mlp->max_tokens)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "tokens: found %lld, this mlp was loaded for 0 to %lld (max_tokens)",
                         (long long)tokens, (long long)mlp->max_tokens);
    if (tokens % memory_split(mlp->bundle) != 0)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "tokens: found %lld, wanted a multiple of the %lld ranks that split them "
                         "(sequence_parallel)",
                         (long long)tokens, (long long)memory_split(mlp->bundle));
    return MMLP_OK;
}

mmlp_status mmlp_mlp_memory(const mmlp_mlp *mlp, mmlp_pass pass, int64_t max_tokens,
                            mmlp_memory *memory)
{
    if (!mlp)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_mlp_memory: mlp is NULL");
    if ((int)pass < 0 || (int)pass >= PASS_COUNT)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_mlp_memory: pass: found %d, wanted 0 to %d",
                         (int)pass, PASS_COUNT - 1);
    MMLP_TRY(memory_check_tokens(mlp, max_tokens));
    mmlp_memory filled = MMLP_MEMORY_INIT;
    filled.saved_bytes = memory_bytes(mlp, pass, MMLP_LIFETIME_SAVED, max_tokens);
    filled.scratch_bytes = memory_bytes(mlp, pass, MMLP_LIFETIME_SCRATCH, max_tokens);
    filled.pending_bytes = memory_bytes(mlp, pass, MMLP_LIFETIME_PENDING, max_tokens);
    return struct_fill(memory, &filled, sizeof filled, "mmlp_memory");
}

mmlp_status mmlp_mlp_buffer(const mmlp_mlp *mlp, const char *name, int64_t tokens,
                            mmlp_buffer_view *view)
{
    if (!mlp || !name)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_mlp_buffer: %s is NULL", mlp ? "name" : "mlp");
    MMLP_TRY(memory_check_tokens(mlp, tokens));
    const mmlp_bundle *bundle = mlp->bundle;
    for (int i = 0; i < bundle->buffer_count; i++) {
        const bundle_buffer *buffer = &bundle->buffers[i];
        if (strcmp(buffer->name, name) != 0)
            continue;
        mmlp_buffer_view filled = MMLP_BUFFER_VIEW_INIT;
        filled.lifetime = buffer->lifetime;
        filled.offset = memory_offset(mlp, i, tokens);
        filled.bytes = buffer_bytes(mlp, i, tokens);
        filled.shape[0] = (tokens + buffer->tokens_per_row - 1) / buffer->tokens_per_row;
        filled.shape[1] = buffer->columns;
        filled.dtype = bundle_dtype_name(buffer->dtype);
        return struct_fill(view, &filled, sizeof filled, "mmlp_buffer_view");
    }
    return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_mlp_buffer: %s has no buffer \"%.64s\"",
                     bundle->name, name);
}
