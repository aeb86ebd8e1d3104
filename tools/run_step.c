/* run_step.c: makes what a step needs on the device and runs its passes. */
#include "run_step.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "progress.h"
#include "tool.h"

/* ---- what there is -------------------------------------------------------------------------- */

int run_step_uses(const run_step *s, run_slot slot)
{
    switch (slot) {
    case RUN_GRAD_OUTPUT:
    case RUN_GRAD_FC1_OUTPUT:
    case RUN_GRAD_HIDDEN_STATES:
    case RUN_GRAD_FC1_WEIGHT:
    case RUN_GRAD_FC2_WEIGHT:
        return s->train;
    case RUN_RECOMPUTED_ACTIVATION:
        return s->train && !s->properties.save_activation;
    case RUN_PER_TOKEN_SCALE:
        return s->properties.per_token_scale;
    case RUN_GRAD_PER_TOKEN_SCALE:
        return s->train && s->properties.per_token_scale;
    case RUN_FC1_BIAS:
    case RUN_FC2_BIAS:
        return s->properties.add_bias_linear;
    case RUN_GRAD_FC1_BIAS:
    case RUN_GRAD_FC2_BIAS:
        return s->train && s->properties.add_bias_linear;
    default:
        return 1;
    }
}

static int is_shared(run_slot slot)
{
    return run_slot_role(slot) == RUN_PARAMETER || run_slot_role(slot) == RUN_GRADIENT;
}

run_tensor *run_step_host(run_step *s, int microbatch, run_slot slot)
{
    return &(is_shared(slot) ? &s->shared : &s->microbatches[microbatch].set)->host[slot];
}

run_tensor *run_step_device(run_step *s, int microbatch, run_slot slot)
{
    return &(is_shared(slot) ? &s->shared : &s->microbatches[microbatch].set)->device[slot];
}

int run_step_is_main_grad(const run_step *s, run_slot slot)
{
    return s->properties.gradient_accumulation_fusion &&
           (slot == RUN_GRAD_FC1_WEIGHT || slot == RUN_GRAD_FC2_WEIGHT);
}

void run_step_prefix(char prefix[16], const run_step *s, int microbatch)
{
    prefix[0] = '\0';
    if (s->prefixed)
        snprintf(prefix, 16, "mb%d.", microbatch);
}

void run_step_name(char name[RUN_NAME_SIZE], const run_step *s, int microbatch, run_slot slot)
{
    char prefix[16] = "";
    if (!is_shared(slot))
        run_step_prefix(prefix, s, microbatch);
    snprintf(name, RUN_NAME_SIZE, "%s%s%s", prefix, run_step_is_main_grad(s, slot) ? "main_" : "",
             run_slot_word(slot));
}

/* ---- making it ------------------------------------------------------------------------------ */

int run_step_start(run_step *s, int microbatches)
{
    s->count = microbatches;
    s->microbatches = calloc((size_t)microbatches, sizeof *s->microbatches);
    return s->microbatches ? 0 : tool_fail(EXIT_DEVICE, "out of memory");
}

static int64_t most_tokens(const run_step *s)
{
    int64_t most = 0;
    for (int i = 0; i < s->count; ++i)
        most = s->microbatches[i].tokens > most ? s->microbatches[i].tokens : most;
    return most;
}

int run_step_load(run_step *s, const mmlp_bundle *bundle)
{
    mmlp_mlp_options options = MMLP_MLP_OPTIONS_INIT;
    options.max_tokens = most_tokens(s) > 0 ? most_tokens(s) : 1;
    options.wgrad_depth = s->train && s->properties.delay_wgrad_compute ? s->count : 0;
    progress_begin("compiling and loading kernels");
    mmlp_status status = mmlp_mlp_load(&s->mlp, s->context, bundle, &options);
    progress_end();
    return status == MMLP_OK ? 0 : tool_fail_status(status);
}

int run_step_bind(run_step *s, const mmlp_comm_id *id)
{
    mmlp_status status = mmlp_comm_create(&s->comm, s->context, id, s->ranks, s->rank);
    if (status == MMLP_OK)
        status = mmlp_mlp_bind_comm(s->mlp, MMLP_GROUP_TP, s->comm);
    return status == MMLP_OK ? 0 : tool_fail_status(status);
}

static int random_input(run_step *s, int microbatch, run_slot slot, uint64_t seed)
{
    run_tensor *device = run_step_device(s, microbatch, slot);
    run_tensor_describe(device, &s->properties, slot, s->microbatches[microbatch].tokens);
    int code = run_tensor_alloc_device(device, s->context);
    if (code != 0)
        return code;
    /* Weights that keep the size of what they multiply. */
    double std =
        slot == RUN_FC1_WEIGHT || slot == RUN_FC2_WEIGHT ? 1 / sqrt((double)device->shape[1]) : 1;
    int halves, is_split = run_slot_split(&halves, &s->properties, slot) >= 0;
    uint64_t rank = is_split ? (uint64_t)s->rank : 0;
    uint64_t own = seed << 32 | rank << 24 | (uint64_t)microbatch << 8 | slot;
    mmlp_status status = mmlp_mlp_fill_normal(s->mlp, &device->view, std, own, NULL);
    return status == MMLP_OK ? 0 : tool_fail_status(status);
}

int run_step_random_inputs(run_step *s, uint64_t seed)
{
    progress_begin("making random inputs");
    int code = 0;
    for (run_slot slot = 0; slot < RUN_SLOT_COUNT; ++slot) {
        run_role role = run_slot_role(slot);
        if (!run_step_uses(s, slot) || (role != RUN_PARAMETER && role != RUN_INPUT))
            continue;
        int copies = role == RUN_PARAMETER ? 1 : s->count;
        for (int i = 0; code == 0 && i < copies; ++i)
            code = random_input(s, i, slot, seed);
    }
    progress_end();
    return code;
}

/* The bytes of each lifetime that the passes of this step need. */
static mmlp_status measure(run_step *s)
{
    s->memory = (mmlp_memory)MMLP_MEMORY_INIT;
    int last = s->train ? MMLP_PASS_BACKWARD_DW : MMLP_PASS_FORWARD;
    for (int pass = MMLP_PASS_FORWARD; pass <= last; ++pass) {
        mmlp_memory memory = MMLP_MEMORY_INIT;
        mmlp_status status = mmlp_mlp_memory(s->mlp, (mmlp_pass)pass, most_tokens(s), &memory);
        if (status != MMLP_OK)
            return status;
        if (memory.saved_bytes > s->memory.saved_bytes)
            s->memory.saved_bytes = memory.saved_bytes;
        if (memory.scratch_bytes > s->memory.scratch_bytes)
            s->memory.scratch_bytes = memory.scratch_bytes;
        if (memory.pending_bytes > s->memory.pending_bytes)
            s->memory.pending_bytes = memory.pending_bytes;
    }
    if (s->infer)
        s->memory.saved_bytes = 0;
    return MMLP_OK;
}

/* A gradient starts from a file's values, from zeros where another gradient does, or from nothing:
 * beta is 0 then. */
static int allocate_gradient(run_step *s, run_slot slot)
{
    run_tensor *device = run_step_device(s, 0, slot);
    run_tensor_describe(device, &s->properties, slot, 0);
    if (s->initial[slot].view.data)
        return run_tensor_upload(device, &s->initial[slot], s->context);
    if (!s->initial[RUN_GRAD_FC1_WEIGHT].view.data)
        return run_tensor_alloc_device(device, s->context);
    run_tensor zeros = *device;
    int code = run_tensor_alloc_host(&zeros);
    if (code == 0) {
        memset(zeros.view.data, 0, zeros.bytes);
        code = run_tensor_upload(device, &zeros, s->context);
    }
    run_tensor_free_host(&zeros);
    return code;
}

int run_step_allocate(run_step *s)
{
    mmlp_status status = measure(s);
    if (status == MMLP_OK)
        status = mmlp_buffer_alloc(&s->scratch, s->context, s->memory.scratch_bytes);
    for (int i = 0; status == MMLP_OK && i < s->count; ++i) {
        run_microbatch *m = &s->microbatches[i];
        status = mmlp_buffer_alloc(&m->saved, s->context, s->memory.saved_bytes);
        if (status == MMLP_OK)
            status = mmlp_buffer_alloc(&m->pending, s->context, s->memory.pending_bytes);
    }
    int code = status == MMLP_OK ? 0 : tool_fail_status(status);
    for (run_slot slot = 0; code == 0 && slot < RUN_SLOT_COUNT; ++slot) {
        if (!run_step_uses(s, slot))
            continue;
        if (run_slot_role(slot) == RUN_GRADIENT)
            code = allocate_gradient(s, slot);
        for (int i = 0; code == 0 && run_slot_role(slot) == RUN_RESULT && i < s->count; ++i) {
            run_tensor *device = run_step_device(s, i, slot);
            run_tensor_describe(device, &s->properties, slot, s->microbatches[i].tokens);
            code = run_tensor_alloc_device(device, s->context);
        }
    }
    return code;
}

/* ---- running it ----------------------------------------------------------------------------- */

/* What a pass is given for a slot: NULL for what the MLP does not have. */
static const mmlp_tensor *view(run_step *s, int microbatch, run_slot slot)
{
    return run_step_uses(s, slot) ? &run_step_device(s, microbatch, slot)->view : NULL;
}

static mmlp_status forward(run_step *s, int i)
{
    mmlp_forward_args args = MMLP_FORWARD_ARGS_INIT;
    args.hidden_states = view(s, i, RUN_HIDDEN_STATES);
    args.linear_fc1_weight = view(s, i, RUN_FC1_WEIGHT);
    args.linear_fc1_bias = view(s, i, RUN_FC1_BIAS);
    args.linear_fc2_weight = view(s, i, RUN_FC2_WEIGHT);
    args.linear_fc2_bias =
        s->properties.fc2_bias == MMLP_FC2_BIAS_RETURNED ? NULL : view(s, i, RUN_FC2_BIAS);
    args.per_token_scale = view(s, i, RUN_PER_TOKEN_SCALE);
    args.output = view(s, i, RUN_OUTPUT);
    args.saved = s->microbatches[i].saved;
    args.scratch = s->scratch;
    args.saved_bytes = s->memory.saved_bytes;
    args.scratch_bytes = s->memory.scratch_bytes;
    return mmlp_mlp_forward(s->mlp, &args, NULL);
}

static mmlp_status dgrad(run_step *s, int i)
{
    mmlp_dgrad_args args = MMLP_DGRAD_ARGS_INIT;
    args.grad_output = view(s, i, RUN_GRAD_OUTPUT);
    args.hidden_states = view(s, i, RUN_HIDDEN_STATES);
    args.linear_fc1_weight = view(s, i, RUN_FC1_WEIGHT);
    args.linear_fc1_bias = view(s, i, RUN_FC1_BIAS);
    args.linear_fc2_weight = view(s, i, RUN_FC2_WEIGHT);
    args.linear_fc2_bias =
        s->properties.fc2_bias == MMLP_FC2_BIAS_FOLDED ? view(s, i, RUN_FC2_BIAS) : NULL;
    args.per_token_scale = view(s, i, RUN_PER_TOKEN_SCALE);
    args.grad_hidden_states = view(s, i, RUN_GRAD_HIDDEN_STATES);
    args.grad_per_token_scale = view(s, i, RUN_GRAD_PER_TOKEN_SCALE);
    args.grad_linear_fc1_weight = view(s, i, RUN_GRAD_FC1_WEIGHT);
    args.grad_linear_fc1_bias = view(s, i, RUN_GRAD_FC1_BIAS);
    args.grad_linear_fc2_weight = view(s, i, RUN_GRAD_FC2_WEIGHT);
    args.grad_linear_fc2_bias = view(s, i, RUN_GRAD_FC2_BIAS);
    args.beta = i > 0 || s->initial[RUN_GRAD_FC1_WEIGHT].view.data != NULL;
    args.saved = s->microbatches[i].saved;
    args.pending = s->microbatches[i].pending;
    args.scratch = s->scratch;
    args.saved_bytes = s->memory.saved_bytes;
    args.pending_bytes = s->memory.pending_bytes;
    args.scratch_bytes = s->memory.scratch_bytes;
    return mmlp_mlp_dgrad(s->mlp, &args, NULL);
}

static int keep_buffer(run_step *s, int i, run_slot slot)
{
    run_microbatch *m = &s->microbatches[i];
    mmlp_buffer_view buffer = MMLP_BUFFER_VIEW_INIT;
    mmlp_status status = mmlp_mlp_buffer(s->mlp, run_slot_word(slot), m->tokens, &buffer);
    if (status != MMLP_OK)
        return tool_fail_status(status);
    run_tensor device;
    run_tensor_describe_matrix(&device, buffer.shape, buffer.dtype);
    char *start = buffer.lifetime == MMLP_LIFETIME_SAVED     ? m->saved
                  : buffer.lifetime == MMLP_LIFETIME_PENDING ? m->pending
                                                             : s->scratch;
    device.view.data = start ? start + buffer.offset : NULL;
    return run_tensor_download(run_step_host(s, i, slot), &device, s->context);
}

static int run_pass(run_step *s, int i, const char *word, mmlp_status pass(run_step *, int),
                    const run_slot *buffers, int buffer_count)
{
    char doing[64];
    snprintf(doing, sizeof doing, "%s, microbatch %d of %d", word, i + 1, s->count);
    progress_begin(s->count > 1 ? doing : word);
    mmlp_status status = pass(s, i);
    if (status == MMLP_OK)
        status = mmlp_stream_sync(s->context, NULL);
    int code = status == MMLP_OK ? 0 : tool_fail_status(status);
    for (int b = 0; code == 0 && s->keep && b < buffer_count; ++b) {
        if (run_step_uses(s, buffers[b]))
            code = keep_buffer(s, i, buffers[b]);
    }
    progress_end();
    return code;
}

static mmlp_status backward_dw(run_step *s, int i)
{
    (void)i; /* first in, first out */
    return mmlp_mlp_backward_dw(s->mlp, NULL);
}

int run_step_execute(run_step *s)
{
    static const run_slot forward_buffers[] = {RUN_FC1_OUTPUT, RUN_ACTIVATION_OUTPUT};
    static const run_slot dgrad_buffers[] = {RUN_GRAD_FC1_OUTPUT, RUN_RECOMPUTED_ACTIVATION};
    int kernels = mmlp_mlp_kernel_count(s->mlp);
    s->kernel_ms = calloc((size_t)kernels + 1, sizeof *s->kernel_ms);
    if (!s->kernel_ms)
        return tool_fail(EXIT_DEVICE, "out of memory");
    mmlp_status status = mmlp_stream_sync(s->context, NULL);
    if (status == MMLP_OK)
        status = mmlp_mlp_time_kernels(s->mlp, s->kernel_ms, kernels);
    int code = status == MMLP_OK ? 0 : tool_fail_status(status);
    for (int i = 0; code == 0 && i < s->count; ++i) {
        code = run_pass(s, i, "forward", forward, forward_buffers, 2);
        if (code == 0 && s->train)
            code = run_pass(s, i, "dgrad", dgrad, dgrad_buffers, 2);
    }
    int delayed = s->train && s->properties.delay_wgrad_compute;
    for (int i = 0; code == 0 && delayed && i < s->count; ++i)
        code = run_pass(s, i, "backward_dw", backward_dw, NULL, 0);
    mmlp_mlp_time_kernels(s->mlp, NULL, 0);
    return code;
}

int run_step_download(run_step *s, int microbatch, run_slot slot)
{
    run_tensor *host = run_step_host(s, microbatch, slot);
    if (!run_step_uses(s, slot) || host->view.data)
        return 0;
    return run_tensor_download(host, run_step_device(s, microbatch, slot), s->context);
}

static void free_set(run_set *set, mmlp_context *context)
{
    for (int slot = 0; slot < RUN_SLOT_COUNT; ++slot) {
        free(set->host[slot].view.data);
        if (set->device[slot].view.data)
            mmlp_buffer_free(context, set->device[slot].view.data);
    }
}

void run_step_free(run_step *s)
{
    if (!s->context)
        return;
    for (int i = 0; i < s->count && s->microbatches; ++i) {
        free_set(&s->microbatches[i].set, s->context);
        mmlp_buffer_free(s->context, s->microbatches[i].saved);
        mmlp_buffer_free(s->context, s->microbatches[i].pending);
    }
    free_set(&s->shared, s->context);
    for (int slot = 0; slot < RUN_SLOT_COUNT; ++slot)
        free(s->initial[slot].view.data);
    mmlp_buffer_free(s->context, s->scratch);
    free(s->microbatches);
    free(s->kernel_ms);
    mmlp_mlp_unload(s->mlp);
    mmlp_comm_destroy(s->context, s->comm);
    mmlp_context_destroy(s->context);
}
