/*
 * failing_allocations.c: the first, second, ... allocation of a call fails, until the call
 * succeeds: it never crashes, never leaks (AddressSanitizer watches), and says ERROR_MEMORY.
 *
 * The linker's --wrap puts the functions below between the library and malloc.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "made_step.h"
#include "temporary_folder.h"

static atomic_long allocations_left = -1; /* below zero: none fails */

static int must_fail(void)
{
    if (atomic_load(&allocations_left) < 0)
        return 0;
    if (atomic_fetch_sub(&allocations_left, 1) > 0)
        return 0;
    atomic_store(&allocations_left, 0); /* all that follow fail too */
    errno = ENOMEM;
    return 1;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

void *__wrap_malloc(size_t size)
{
    return must_fail() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return must_fail() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return must_fail() ? NULL : __real_realloc(old, size);
}

/* Calls `attempt` with ever more successful allocations; returns how many times it failed. */
static int fail_until_it_succeeds(mmlp_status (*attempt)(void *), void *user)
{
    for (int allocations = 0; allocations < 100000; allocations++) {
        atomic_store(&allocations_left, allocations);
        mmlp_status status = attempt(user);
        atomic_store(&allocations_left, -1);
        if (status == MMLP_OK)
            return allocations;
        cr_assert(status == MMLP_ERROR_MEMORY || status == MMLP_ERROR_FORMAT ||
                      status == MMLP_ERROR_DRIVER,
                  "allocation %d gave status %d: %s", allocations, status, mmlp_last_error());
    }
    cr_assert_fail("the call never succeeded");
    return -1;
}

static mmlp_status open_bundle(void *user)
{
    mmlp_bundle *bundle;
    mmlp_status status = mmlp_bundle_open(&bundle, user);
    cr_assert((bundle != NULL) == (status == MMLP_OK));
    mmlp_bundle_close(bundle);
    return status;
}

Test(allocations, opening_a_bundle_survives_each_failure)
{
    made_bundle made = made_start();
    made_write(&made);
    json_set_alloc_funcs(__wrap_malloc, free);
    cr_expect_gt(fail_until_it_succeeds(open_bundle, made.folder), 20);
    json_set_alloc_funcs(malloc, free);
    made_free(&made);
}

static mmlp_status make_a_dict(void *user)
{
    mmlp_sharded_dict *dict;
    mmlp_status status = mmlp_sharded_state_dict(&dict, user, NULL);
    cr_assert((dict != NULL) == (status == MMLP_OK));
    mmlp_sharded_dict_free(dict);
    return status;
}

Test(allocations, describing_shards_survives_each_failure)
{
    mmlp_sharded_module module = MMLP_SHARDED_MODULE_INIT;
    module.hidden_size = module.ffn_hidden_size = 12;
    cr_expect_gt(fail_until_it_succeeds(make_a_dict, &module), 0);
}

static mmlp_checkpoint_args saved;

static mmlp_status save_and_load(void *user)
{
    mmlp_status status = mmlp_checkpoint_save(user, &saved);
    return status == MMLP_OK ? mmlp_checkpoint_load(user, &saved) : status;
}

Test(allocations, saving_and_loading_a_checkpoint_survives_each_failure)
{
    char *folder = temporary_folder_make(), path[4096];
    float weight[6] = {0};
    mmlp_sharded_tensor place = MMLP_SHARDED_TENSOR_INIT;
    mmlp_checkpoint_tensor tensor = MMLP_CHECKPOINT_TENSOR_INIT;
    snprintf(path, sizeof path, "%s/c.safetensors", folder);
    strcpy(place.key, "linear_fc1.weight");
    place.dtype = "fp32";
    place.ndim = 2;
    place.local_shape[0] = place.global_shape[0] = 2;
    place.local_shape[1] = place.global_shape[1] = 3;
    tensor.tensor = &place;
    tensor.data = weight;
    saved = (mmlp_checkpoint_args)MMLP_CHECKPOINT_ARGS_INIT;
    saved.tensors = &tensor;
    saved.count = 1;
    json_set_alloc_funcs(__wrap_malloc, free);
    cr_expect_gt(fail_until_it_succeeds(save_and_load, path), 30);
    json_set_alloc_funcs(malloc, free);
    temporary_folder_remove(folder);
}

static mmlp_status open_a_context(void *user)
{
    mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
    options.cache_dir = user;
    mmlp_context *context;
    mmlp_status status = mmlp_context_create(&context, &options);
    cr_assert((context != NULL) == (status == MMLP_OK));
    mmlp_context_destroy(context);
    return status;
}

Test(allocations, opening_a_context_survives_each_failure)
{
    char *cache = temporary_folder_make();
    cr_expect_gt(fail_until_it_succeeds(open_a_context, cache), 2);
    temporary_folder_remove(cache);
}

typedef struct loading {
    mmlp_context *context;
    mmlp_bundle *bundle;
} loading;

/* A cache or a log that has no memory is no error: the kernels are compiled. */
static mmlp_status load_it(void *user)
{
    loading *l = user;
    mmlp_mlp *mlp;
    mmlp_status status = mmlp_mlp_load(&mlp, l->context, l->bundle, NULL);
    cr_assert((mlp != NULL) == (status == MMLP_OK));
    mmlp_mlp_unload(mlp);
    return status;
}

Test(allocations, loading_an_mlp_from_the_cache_survives_each_failure)
{
    made_bundle made = made_start();
    made_add_backward(&made, true); /* the ring too is allocated */
    made_write(&made);
    mmlp_bundle *bundle = NULL;
    cr_assert_eq(mmlp_bundle_open(&bundle, made.folder), MMLP_OK, "%s", mmlp_last_error());
    char *cache = temporary_folder_make();
    mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
    options.cache_dir = cache;
    options.compile_threads = 1;
    loading l = {NULL, bundle};
    cr_assert_eq(mmlp_context_create(&l.context, &options), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(load_it(&l), MMLP_OK, "%s", mmlp_last_error());
    cr_expect_gt(fail_until_it_succeeds(load_it, &l), 3);
    mmlp_context_destroy(l.context);
    mmlp_bundle_close(bundle);
    made_free(&made);
    temporary_folder_remove(cache);
}

Test(allocations, a_training_step_makes_none)
{
    made_step *s = step_start_backward(true, 0);
    atomic_store(&allocations_left, 0);
    mmlp_status forward = mmlp_mlp_forward(s->mlp, &s->forward, NULL);
    mmlp_status dgrad = mmlp_mlp_dgrad(s->mlp, &s->dgrad, NULL);
    mmlp_status backward_dw = mmlp_mlp_backward_dw(s->mlp, NULL);
    atomic_store(&allocations_left, -1);
    cr_expect_eq(forward, MMLP_OK);
    cr_expect_eq(dgrad, MMLP_OK);
    cr_expect_eq(backward_dw, MMLP_OK);
    step_finish(s);
}

/* ---- the references ------------------------------------------------------------------------- */

/* The host tensors of one token, up to DY, in fp64. */
typedef struct reference_inputs {
    mmlp_bundle *bundle;
    double elements[2 * MADE_FFN * MADE_HIDDEN]; /* of every tensor */
    int64_t shapes[DY + 1][2];
    mmlp_tensor tensors[DY + 1];
} reference_inputs;

static void make_inputs(reference_inputs *in)
{
    static const int64_t shapes[DY + 1][2] = {
        [X] = {1, MADE_HIDDEN},   [W1] = {2 * MADE_FFN, MADE_HIDDEN},
        [B1] = {2 * MADE_FFN, 0}, [W2] = {MADE_HIDDEN, MADE_FFN},
        [SCALE] = {1, 0},         [DY] = {1, MADE_HIDDEN}};
    memcpy(in->shapes, shapes, sizeof shapes);
    for (int i = 0; i <= DY; i++)
        in->tensors[i] = (mmlp_tensor){.data = in->elements,
                                       .device = {MMLP_DEVICE_CPU, 0},
                                       .ndim = shapes[i][1] ? 2 : 1,
                                       .dtype = {MMLP_TYPE_FLOAT, 64, 1},
                                       .shape = in->shapes[i]};
}

static mmlp_status run_forward(void *user)
{
    const reference_inputs *in = user;
    double output[MADE_HIDDEN];
    mmlp_reference_forward_args args = MMLP_REFERENCE_FORWARD_ARGS_INIT;
    args.hidden_states = &in->tensors[X];
    args.linear_fc1_weight = &in->tensors[W1];
    args.linear_fc1_bias = &in->tensors[B1];
    args.linear_fc2_weight = &in->tensors[W2];
    args.per_token_scale = &in->tensors[SCALE];
    args.output = output;
    return mmlp_bundle_reference_forward(in->bundle, &args);
}

static mmlp_status run_backward(void *user)
{
    const reference_inputs *in = user;
    double grad_hidden_states[MADE_HIDDEN];
    mmlp_reference_backward_args args = MMLP_REFERENCE_BACKWARD_ARGS_INIT;
    args.grad_output = &in->tensors[DY];
    args.hidden_states = &in->tensors[X];
    args.linear_fc1_weight = &in->tensors[W1];
    args.linear_fc1_bias = &in->tensors[B1];
    args.linear_fc2_weight = &in->tensors[W2];
    args.per_token_scale = &in->tensors[SCALE];
    args.grad_hidden_states = grad_hidden_states;
    return mmlp_bundle_reference_backward(in->bundle, &args);
}

Test(allocations, the_references_survive_each_failure)
{
    made_bundle made = made_start();
    made_add_backward(&made, false);
    made_write(&made);
    reference_inputs in = {0};
    cr_assert_eq(mmlp_bundle_open(&in.bundle, made.folder), MMLP_OK, "%s", mmlp_last_error());
    make_inputs(&in);
    cr_expect_eq(fail_until_it_succeeds(run_forward, &in), 8);
    cr_expect_eq(fail_until_it_succeeds(run_backward, &in), 11);
    mmlp_bundle_close(in.bundle);
    made_free(&made);
}
