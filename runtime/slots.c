/*
 * slots.c: the table of what kernels can be given, and names looked up in it. mmlp_mlp_load binds
 * the parameters of kernels by it, arguments.c fills the values of a call.
 */
#include "slots.h"

#include <string.h>

#define FORWARD(access, member, when)                                                              \
    {                                                                                              \
        ACCESS_##access, offsetof(mmlp_forward_args, member), PRESENT_##when                       \
    }
#define DGRAD(access, member, when)                                                                \
    {                                                                                              \
        ACCESS_##access, offsetof(mmlp_dgrad_args, member), PRESENT_##when                         \
    }
#define NOTHING                                                                                    \
    {                                                                                              \
        ACCESS_NONE, 0, PRESENT_ALWAYS                                                             \
    }
const slot_tensor slot_tensors[TENSOR_COUNT] = {
#define TENSOR_ARGUMENT(id, name, dtype, rank, dim0, dim1, forward, dgrad)                         \
    {name, DTYPE_##dtype, rank, {DIM_##dim0, DIM_##dim1}, {forward, dgrad}},
#define SCALAR_ARGUMENT(id, name, bytes, passes)
#include "arguments.def"
#undef TENSOR_ARGUMENT
#undef SCALAR_ARGUMENT
};

enum {
    IN_FORWARD = 1 << BUNDLE_FORWARD,
    IN_DGRAD = 1 << BUNDLE_DGRAD,
    IN_BACKWARD_DW = 1 << BUNDLE_BACKWARD_DW,
    IN_INIT = 1 << BUNDLE_INIT
};
static const struct {
    const char *name;
    size_t bytes;
    unsigned passes;
} numbers[] = {
#define TENSOR_ARGUMENT(id, name, dtype, rank, dim0, dim1, forward, dgrad)
#define SCALAR_ARGUMENT(id, name, bytes, passes) {name, bytes, passes},
#include "arguments.def"
#undef TENSOR_ARGUMENT
#undef SCALAR_ARGUMENT
};

/* What backward_dw reads may have to wait for it: the caller keeps no other tensor for so long. */
static bool has_tensor(const slot_tensor *tensor, bundle_pass pass)
{
    switch (pass) {
    case BUNDLE_FORWARD:
    case BUNDLE_DGRAD:
        return tensor->parts[pass].access != ACCESS_NONE;
    case BUNDLE_BACKWARD_DW:
        return tensor->parts[BUNDLE_DGRAD].access == ACCESS_KEEP ||
               tensor->parts[BUNDLE_DGRAD].access == ACCESS_WRITE;
    case BUNDLE_INIT:
        break;
    }
    return false;
}

static bool has_buffer(const mmlp_bundle *bundle, const bundle_buffer *buffer, bundle_pass pass)
{
    switch (pass) {
    case BUNDLE_FORWARD:
        return buffer->pass == BUNDLE_FORWARD;
    case BUNDLE_DGRAD:
        return buffer->pass == BUNDLE_DGRAD || buffer->lifetime == MMLP_LIFETIME_SAVED;
    case BUNDLE_BACKWARD_DW:
        return buffer->lifetime != MMLP_LIFETIME_SCRATCH ||
               (buffer->pass == BUNDLE_DGRAD && !bundle->delay_wgrad_compute);
    case BUNDLE_INIT:
        break;
    }
    return false;
}

int slot_find(const mmlp_bundle *bundle, const char *name, bundle_pass pass)
{
    for (int i = 0; i < TENSOR_COUNT; i++) {
        if (strcmp(slot_tensors[i].name, name) == 0)
            return has_tensor(&slot_tensors[i], pass) ? i : -1;
    }
    for (int i = TENSOR_COUNT; i < SLOT_BUFFER; i++) {
        if (strcmp(numbers[i - TENSOR_COUNT].name, name) == 0)
            return numbers[i - TENSOR_COUNT].passes & 1u << pass ? i : -1;
    }
    for (int i = 0; i < bundle->buffer_count; i++) {
        if (strcmp(bundle->buffers[i].name, name) == 0)
            return has_buffer(bundle, &bundle->buffers[i], pass) ? SLOT_BUFFER + i : -1;
    }
    return -1;
}

size_t slot_bytes(int slot)
{
    if (slot >= TENSOR_COUNT && slot < SLOT_BUFFER)
        return numbers[slot - TENSOR_COUNT].bytes;
    return sizeof(uint64_t);
}
