/*
 * init.c: numbers for weights, by the kernel `fill` of the bundle: as the spec says, or normal ones
 * for any tensor.
 */
#include "init.h"

#include <float.h>
#include <string.h>

#include "mlp.h"
#include "tensor.h"

/* ---- parts ---------------------------------------------------------------------------------- */

init_part init_split_rows(int64_t rows, int64_t columns, bool gated, int64_t rank, int64_t size)
{
    int64_t half_rows = gated ? rows / 2 : rows;
    return (init_part){.elements = rows * columns,
                       .columns = columns,
                       .whole_columns = columns,
                       .half_rows = half_rows,
                       .first_row = rank * half_rows,
                       .whole_half_rows = size * half_rows};
}

init_part init_split_columns(int64_t rows, int64_t columns, int64_t rank, int64_t size)
{
    return (init_part){.elements = rows * columns,
                       .columns = columns,
                       .first_column = rank * columns,
                       .whole_columns = size * columns,
                       .half_rows = rows,
                       .whole_half_rows = rows};
}

init_part init_whole(int64_t elements)
{
    return (init_part){.elements = elements,
                       .columns = elements,
                       .whole_columns = elements,
                       .half_rows = 1,
                       .whole_half_rows = 1};
}

/* ---- one tensor ----------------------------------------------------------------------------- */

/* A tensor that was checked, and what it is filled with. */
typedef struct filling {
    const mmlp_tensor *tensor;
    init_part part;
    bundle_init init; /* of a kind that is known */
    uint64_t seed;
} filling;

static mmlp_status find_fill(const loaded_kernel **out, const mmlp_mlp *mlp)
{
    for (int i = 0; i < mlp->kernel_count; i++) {
        *out = &mlp->kernels[i];
        if ((*out)->kernel->pass == BUNDLE_INIT && strcmp((*out)->kernel->step, "fill") == 0)
            return MMLP_OK;
    }
    *out = NULL;
    return mmlp_fail(MMLP_ERROR_UNSUPPORTED, "%s: it has no kernel fill", mlp->bundle->path);
}

static mmlp_status check_blocks(const loaded_kernel *fill, const char *name, int64_t elements)
{
    if (kernel_tiles(fill->kernel, elements) <= INT32_MAX)
        return MMLP_OK;
    return mmlp_fail(MMLP_ERROR_SHAPE, "%s: found %lld elements, one launch fills at most %lld",
                     name, (long long)elements,
                     (long long)INT32_MAX * (long long)fill->kernel->elements_per_block);
}

static mmlp_status fill_tensor(mmlp_mlp *mlp, const loaded_kernel *fill, const filling *f,
                               void *stream)
{
    if (f->part.elements == 0)
        return MMLP_OK;
    bundle_dtype dtype =
        tensor_is(f->tensor, BUNDLE_FP32) ? BUNDLE_FP32 : mlp->bundle->params_dtype;
    slot_value values[SLOT_COUNT] = {{0}};
    values[SLOT_DESTINATION].pointer = (uintptr_t)tensor_address(f->tensor);
    values[SLOT_ELEMENTS].integer = f->part.elements;
    values[SLOT_COLUMNS].integer = f->part.columns;
    values[SLOT_FIRST_COLUMN].integer = f->part.first_column;
    values[SLOT_WHOLE_COLUMNS].integer = f->part.whole_columns;
    values[SLOT_HALF_ROWS].integer = f->part.half_rows;
    values[SLOT_FIRST_ROW].integer = f->part.first_row;
    values[SLOT_WHOLE_HALF_ROWS].integer = f->part.whole_half_rows;
    values[SLOT_A].real = (float)f->init.a;
    values[SLOT_B].real = (float)f->init.b;
    values[SLOT_SEED].bits = f->seed;
    values[SLOT_DISTRIBUTION].word = (int32_t)f->init.kind;
    values[SLOT_DTYPE].word = (int32_t)dtype;
    return launch_kernel(mlp, fill, values, f->part.elements, false, stream);
}

mmlp_status mmlp_mlp_fill_normal(mmlp_mlp *mlp, const mmlp_tensor *tensor, double std,
                                 uint64_t seed, void *stream)
{
    MMLP_TRY(mlp_enter(mlp, "mmlp_mlp_fill_normal"));
    mmlp_status status = MMLP_OK;
    const loaded_kernel *fill;
    int64_t elements;
    MMLP_TRY_CLEANUP(find_fill(&fill, mlp));
    if (!(std >= 0 && std <= (double)FLT_MAX)) {
        status = mmlp_fail(MMLP_ERROR_ARGUMENT, "std: found %g, wanted a number from 0 to %g", std,
                           (double)FLT_MAX);
        goto cleanup;
    }
    tensor_wanted wanted = {.name = "destination",
                            .dtype = mlp->bundle->params_dtype,
                            .or_fp32 = true,
                            .device_type = MMLP_DEVICE_CUDA,
                            .device_id = mlp->context->device};
    MMLP_TRY_CLEANUP(tensor_check_any(&elements, tensor, &wanted));
    MMLP_TRY_CLEANUP(check_blocks(fill, wanted.name, elements));
    filling f = {tensor, init_whole(elements), {BUNDLE_INIT_NORMAL, std, 0}, seed};
    MMLP_TRY_CLEANUP(fill_tensor(mlp, fill, &f, stream));

cleanup:
    mlp_leave(mlp);
    return status;
}

/* ---- weights -------------------------------------------------------------------------------- */

/* linear_fc2 draws from numbers of its own: the two weights must not begin alike. */
static const uint64_t fc2_seed = 0x9E3779B97F4A7C15u;

typedef struct weight {
    const char *name;
    bool there;
    int rank;
    int64_t dims[2];
    filling filling;
} weight;

static mmlp_status check_weight(const weight *w, const mmlp_mlp *mlp, const loaded_kernel *fill)
{
    const mmlp_tensor *tensor = w->filling.tensor;
    if (!w->there && tensor)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "%s: a tensor was given, but %s takes none: pass NULL", w->name,
                         mlp->bundle->name);
    if (!w->there)
        return MMLP_OK;
    tensor_wanted wanted = {.name = w->name,
                            .dtype = mlp->bundle->params_dtype,
                            .or_fp32 = true,
                            .rank = w->rank,
                            .dims = {w->dims[0], w->dims[1]},
                            .device_type = MMLP_DEVICE_CUDA,
                            .device_id = mlp->context->device};
    MMLP_TRY(tensor_check(tensor, &wanted));
    if (w->filling.init.kind == BUNDLE_INIT_UNKNOWN)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "%s: TransformerConfig.num_layers is not given, and its initial deviation "
                         "is init_method_std / sqrt(2 * num_layers): give num_layers, or an "
                         "init_method to linear_fc2",
                         w->name);
    return check_blocks(fill, w->name, w->filling.part.elements);
}

mmlp_status mmlp_mlp_init_weights(mmlp_mlp *mlp, const mmlp_init_args *callers, void *stream)
{
    MMLP_TRY(mlp_enter(mlp, "mmlp_mlp_init_weights"));
    mmlp_status status = MMLP_OK;
    const mmlp_bundle *b = mlp->bundle;
    const bundle_init zeros = {BUNDLE_INIT_ZEROS, 0, 0};
    const int64_t hidden = b->hidden_size, ffn = b->ffn_hidden_size, fc1 = b->fc1_output_size;
    const int64_t size = b->tensor_model_parallel_size;
    const comm *ranks = mlp->groups[MMLP_GROUP_TP];
    mmlp_init_args args = MMLP_INIT_ARGS_INIT;
    const loaded_kernel *fill;
    MMLP_TRY_CLEANUP(struct_read(&args, callers, sizeof args, "mmlp_init_args"));
    MMLP_TRY_CLEANUP(find_fill(&fill, mlp));
    if (size > 1 && !ranks) {
        status = mmlp_fail(MMLP_ERROR_ORDER,
                           "%s: the weights of which of %lld tensor-parallel ranks is not known: "
                           "call mmlp_mlp_bind_comm first",
                           b->name, (long long)size);
        goto cleanup;
    }
    const int64_t rank = ranks ? ranks->rank : 0;
    const weight weights[] = {
        {"linear_fc1.weight",
         true,
         2,
         {fc1, hidden},
         {args.linear_fc1_weight, init_split_rows(fc1, hidden, b->gated_linear_unit, rank, size),
          b->fc1_init, args.seed}},
        {"linear_fc1.bias",
         b->add_bias_linear,
         1,
         {fc1, 0},
         {args.linear_fc1_bias, init_whole(fc1), zeros, 0}},
        {"linear_fc2.weight",
         true,
         2,
         {hidden, ffn},
         {args.linear_fc2_weight, init_split_columns(hidden, ffn, rank, size), b->fc2_init,
          args.seed ^ fc2_seed}},
        {"linear_fc2.bias",
         b->add_bias_linear,
         1,
         {hidden, 0},
         {args.linear_fc2_bias, init_whole(hidden), zeros, 0}},
    };
    enum { WEIGHTS = sizeof weights / sizeof weights[0] };
    for (int i = 0; i < WEIGHTS; i++)
        MMLP_TRY_CLEANUP(check_weight(&weights[i], mlp, fill));
    for (int i = 0; i < WEIGHTS; i++) {
        if (weights[i].there)
            MMLP_TRY_CLEANUP(fill_tensor(mlp, fill, &weights[i].filling, stream));
    }

cleanup:
    mlp_leave(mlp);
    return status;
}
