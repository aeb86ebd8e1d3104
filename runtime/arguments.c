/*
 * arguments.c: takes what a caller gives to a pass: tensors and buffers into the table of values
 * that kernels read, and the memory they lie in into ranges. All that is wrong with them is told
 * here, before anything is enqueued; what earlier calls make wrong is told by passes.c.
 */
#include "arguments.h"

#include <string.h>

#include "mlp.h"
#include "tensor.h"

/* ---- tensors -------------------------------------------------------------------------------- */

typedef enum presence { ABSENT, OPTIONAL, REQUIRED } presence;

static presence presence_of(const mmlp_bundle *bundle, slot_presence when)
{
    mmlp_fc2_bias bias = bundle->fc2_bias;
    switch (when) {
    case PRESENT_ALWAYS:
        return REQUIRED;
    case PRESENT_WITH_BIAS:
        return bundle->add_bias_linear ? REQUIRED : ABSENT;
    case PRESENT_WITH_FC2_BIAS_IN_OUTPUT:
        return bias == MMLP_FC2_BIAS_FOLDED || bias == MMLP_FC2_BIAS_ADDED ? REQUIRED : ABSENT;
    case PRESENT_WITH_FC2_BIAS_FOLDED:
        return bias == MMLP_FC2_BIAS_FOLDED ? REQUIRED : ABSENT;
    case PRESENT_WITH_FC2_BIAS_GRADIENT:
        if (bias == MMLP_FC2_BIAS_RETURNED)
            return OPTIONAL;
        return bias == MMLP_FC2_BIAS_NONE ? ABSENT : REQUIRED;
    case PRESENT_WITH_SCALE:
        return bundle->per_token_scale ? REQUIRED : ABSENT;
    }
    return ABSENT;
}

static int64_t dimension_size(const mmlp_bundle *bundle, slot_dim dim, const pass_call *call)
{
    switch (dim) {
    case DIM_TOKENS:
        return call->tokens;
    case DIM_LOCAL_TOKENS:
        return call->local_tokens;
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

static tensor_wanted wanted_of(const mmlp_mlp *mlp, const slot_tensor *slot, const pass_call *call)
{
    const mmlp_bundle *bundle = mlp->bundle;
    bool fp32 = slot->dtype == DTYPE_FP32 ||
                (slot->dtype == DTYPE_WGRAD && bundle->gradient_accumulation_fusion);
    return (tensor_wanted){
        .name = slot->name,
        .dtype = fp32 ? BUNDLE_FP32 : bundle->params_dtype,
        .or_fp32 = slot->dtype == DTYPE_EITHER,
        .rank = slot->rank,
        .dims = {dimension_size(bundle, slot->dims[0], call),
                 dimension_size(bundle, slot->dims[1], call)},
        .device_type = MMLP_DEVICE_CUDA,
        .device_id = mlp->context->device,
    };
}

static mmlp_status take_tensor(pass_call *out, const mmlp_mlp *mlp, int slot, slot_access access,
                               const mmlp_tensor *tensor)
{
    tensor_wanted wanted = wanted_of(mlp, &slot_tensors[slot], out);
    MMLP_TRY(tensor_check(tensor, &wanted));
    if (slot == SLOT_HIDDEN_STATES) {
        /* More than max_tokens are refused as they are: the product could overflow. */
        int64_t rows = tensor->shape[0];
        out->local_tokens = rows;
        out->tokens = rows > mlp->max_tokens ? rows : rows * memory_split(mlp->bundle);
        MMLP_TRY(memory_check_tokens(mlp, out->tokens));
    }
    size_t bytes = tensor->dtype.bits / 8u;
    for (int i = 0; i < tensor->ndim; i++)
        bytes *= (size_t)tensor->shape[i];
    void *address = tensor_address(tensor);
    out->values[slot].pointer = (uintptr_t)address;
    out->given[slot] = true;
    out->ranges[slot] = (memory_range){
        .name = wanted.name,
        .begin = (uintptr_t)address,
        .bytes = bytes,
        .written = access == ACCESS_WRITE,
        .kept = access == ACCESS_KEEP,
    };
    return MMLP_OK;
}

/* The tensors of a pass; `args` is the struct that its slot_parts speak of. */
static mmlp_status take_tensors(pass_call *out, const mmlp_mlp *mlp, bundle_pass pass,
                                const void *args)
{
    /* The first tensor of the table, hidden_states, may have any number. */
    out->tokens = out->local_tokens = -1;
    for (int i = 0; i < TENSOR_COUNT; i++) {
        const slot_part *part = &slot_tensors[i].parts[pass];
        if (part->access == ACCESS_NONE)
            continue;
        const mmlp_tensor *tensor;
        memcpy(&tensor, (const char *)args + part->member, sizeof tensor);
        presence there = presence_of(mlp->bundle, part->when);
        if (there == ABSENT && tensor)
            return mmlp_fail(MMLP_ERROR_ARGUMENT,
                             "%s: a tensor was given, but %s takes none: pass NULL",
                             slot_tensors[i].name, mlp->bundle->name);
        if (there == REQUIRED || tensor)
            MMLP_TRY(take_tensor(out, mlp, i, part->access, tensor));
    }
    out->values[SLOT_TOKENS].integer = out->tokens;
    out->values[SLOT_LOCAL_TOKENS].integer = out->local_tokens;
    return MMLP_OK;
}

/* ---- buffers -------------------------------------------------------------------------------- */

/* Memory of one lifetime, as the caller gives it. */
typedef struct given_buffer {
    void *address;
    size_t bytes;
} given_buffer;

static const char *const lifetime_names[LIFETIME_COUNT] = {
    [MMLP_LIFETIME_SAVED] = "saved",
    [MMLP_LIFETIME_SCRATCH] = "scratch",
    [MMLP_LIFETIME_PENDING] = "pending",
};

static mmlp_status fail_no_buffer(const char *name, size_t wanted, int64_t tokens,
                                  const char *handed_on)
{
    return mmlp_fail(MMLP_ERROR_ARGUMENT,
                     "%s: NULL was given, wanted %zu bytes of device memory for %lld tokens%s%s%s",
                     name, wanted, (long long)tokens, handed_on ? ": " : "",
                     handed_on ? handed_on : "",
                     handed_on ? " is kept there (save_activation)" : "");
}

/* The driver knows whose memory an address is. */
static mmlp_status check_place(const mmlp_mlp *mlp, const char *name, const void *address)
{
    const driver *d = &mlp->context->cuda;
    int device = -1;
    CUresult result = d->cuPointerGetAttribute(&device, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
                                               (CUdeviceptr)(uintptr_t)address);
    if (result == CUDA_ERROR_INVALID_VALUE || (result == CUDA_SUCCESS && device < 0))
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "%s: found address %p, which the device does not know, wanted memory of "
                         "CUDA device %d",
                         name, address, mlp->context->device);
    MMLP_TRY(driver_check(d, result, "%s: cuPointerGetAttribute", name));
    if (device != mlp->context->device)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "%s: found memory of CUDA device %d, wanted memory of CUDA device %d",
                         name, device, mlp->context->device);
    return MMLP_OK;
}

static mmlp_status take_buffer(pass_call *out, const mmlp_mlp *mlp, mmlp_pass pass,
                               mmlp_lifetime lifetime, const given_buffer *given)
{
    const char *name = lifetime_names[lifetime];
    size_t wanted = memory_bytes(mlp, pass, lifetime, out->tokens);
    if (wanted == 0)
        return MMLP_OK;
    bool may_miss = pass == MMLP_PASS_FORWARD && lifetime == MMLP_LIFETIME_SAVED;
    if (!given->address && may_miss && !mlp->handed_on)
        return MMLP_OK; /* inference: null pointers, which the kernels do not write */
    if (!given->address)
        return fail_no_buffer(name, wanted, out->tokens, may_miss ? mlp->handed_on : NULL);
    if (given->bytes < wanted)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "%s: %zu bytes were given, wanted %zu for %lld tokens", name, given->bytes,
                         wanted, (long long)out->tokens);
    if ((uintptr_t)given->address % 16 != 0)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "%s: found it at address %p, wanted a multiple of 16 bytes", name,
                         given->address);
    MMLP_TRY(check_place(mlp, name, given->address));
    out->ranges[RANGE_BUFFER + (int)lifetime] = (memory_range){
        .name = name,
        .begin = (uintptr_t)given->address,
        .bytes = wanted,
        .written = lifetime != MMLP_LIFETIME_SAVED || pass == MMLP_PASS_FORWARD,
        .kept = mlp->touches[MMLP_PASS_BACKWARD_DW][lifetime],
    };
    return MMLP_OK;
}

static mmlp_status take_buffers(pass_call *out, const mmlp_mlp *mlp, mmlp_pass pass,
                                const given_buffer given[LIFETIME_COUNT])
{
    const mmlp_bundle *bundle = mlp->bundle;
    for (int i = 0; i < LIFETIME_COUNT; i++)
        MMLP_TRY(take_buffer(out, mlp, pass, (mmlp_lifetime)i, &given[i]));
    for (int i = 0; i < bundle->buffer_count; i++) {
        const bundle_buffer *buffer = &bundle->buffers[i];
        void *address = given[buffer->lifetime].address;
        bool used = (int)buffer->pass == (int)pass || buffer->lifetime == MMLP_LIFETIME_SAVED;
        if (used && i == mlp->regathered_buffer)
            out->values[SLOT_BUFFER + i].pointer = mlp->regathered;
        else if (used && address)
            out->values[SLOT_BUFFER + i].pointer =
                (uintptr_t)address + memory_offset(mlp, i, out->tokens);
    }
    return MMLP_OK;
}

/* ---- overlaps ------------------------------------------------------------------------------- */

bool ranges_overlap(const memory_range *a, const memory_range *b)
{
    return a->bytes > 0 && b->bytes > 0 && a->begin < b->begin + b->bytes &&
           b->begin < a->begin + a->bytes;
}

/* What a pass writes overlaps nothing else that it is given. */
static mmlp_status check_overlaps(const pass_call *call)
{
    for (int i = 0; i < RANGE_COUNT; i++) {
        for (int j = 0; call->ranges[i].written && j < RANGE_COUNT; j++) {
            if (i != j && ranges_overlap(&call->ranges[i], &call->ranges[j]))
                return mmlp_fail(MMLP_ERROR_ARGUMENT,
                                 "%s: found it overlapping %s, wanted memory of its own",
                                 call->ranges[i].name, call->ranges[j].name);
        }
    }
    return MMLP_OK;
}

/* ---- calls ---------------------------------------------------------------------------------- */

mmlp_status arguments_take_forward(pass_call *out, const mmlp_mlp *mlp,
                                   const mmlp_forward_args *callers)
{
    *out = (pass_call){0};
    mmlp_forward_args args = MMLP_FORWARD_ARGS_INIT;
    MMLP_TRY(struct_read(&args, callers, sizeof args, "mmlp_forward_args"));
    MMLP_TRY(take_tensors(out, mlp, BUNDLE_FORWARD, &args));
    const given_buffer given[LIFETIME_COUNT] = {
        [MMLP_LIFETIME_SAVED] = {args.saved, args.saved_bytes},
        [MMLP_LIFETIME_SCRATCH] = {args.scratch, args.scratch_bytes},
    };
    MMLP_TRY(take_buffers(out, mlp, MMLP_PASS_FORWARD, given));
    return check_overlaps(out);
}

mmlp_status arguments_take_gradient(pass_call *out, const mmlp_mlp *mlp, int slot,
                                    const mmlp_tensor *tensor)
{
    if (presence_of(mlp->bundle, slot_tensors[slot].parts[BUNDLE_DGRAD].when) == ABSENT)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "%s: a tensor was given, but %s takes none: pass NULL",
                         slot_tensors[slot].name, mlp->bundle->name);
    return take_tensor(out, mlp, slot, ACCESS_WRITE, tensor);
}

/* The type of a bias gradient, as its kernel is told. */
static int32_t dtype_of(const mmlp_tensor *tensor, const mmlp_mlp *mlp)
{
    return (int32_t)(tensor && tensor_is(tensor, BUNDLE_FP32) ? BUNDLE_FP32
                                                              : mlp->bundle->params_dtype);
}

mmlp_status arguments_take_dgrad(pass_call *out, const mmlp_mlp *mlp,
                                 const mmlp_dgrad_args *callers)
{
    *out = (pass_call){0};
    mmlp_dgrad_args args = MMLP_DGRAD_ARGS_INIT;
    MMLP_TRY(struct_read(&args, callers, sizeof args, "mmlp_dgrad_args"));
    MMLP_TRY(take_tensors(out, mlp, BUNDLE_DGRAD, &args));
    if (args.beta != 0 && args.beta != 1)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "beta: found %d, wanted 0 or 1", args.beta);
    const given_buffer given[LIFETIME_COUNT] = {
        [MMLP_LIFETIME_SAVED] = {args.saved, args.saved_bytes},
        [MMLP_LIFETIME_SCRATCH] = {args.scratch, args.scratch_bytes},
        [MMLP_LIFETIME_PENDING] = {args.pending, args.pending_bytes},
    };
    MMLP_TRY(take_buffers(out, mlp, MMLP_PASS_DGRAD, given));
    out->values[SLOT_BETA].word = args.beta;
    out->values[SLOT_GRAD_FC1_BIAS_DTYPE].word = dtype_of(args.grad_linear_fc1_bias, mlp);
    out->values[SLOT_GRAD_FC2_BIAS_DTYPE].word = dtype_of(args.grad_linear_fc2_bias, mlp);
    return check_overlaps(out);
}
