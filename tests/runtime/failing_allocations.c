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

#include "made_bundle.h"

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
    char *cache = make_temporary_folder();
    cr_expect_gt(fail_until_it_succeeds(open_a_context, cache), 2);
    remove_folder(cache);
    free(cache);
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
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    char *cache = make_temporary_folder();
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
    remove_folder(cache);
    free(cache);
}

static mmlp_status run_reference(void *user)
{
    loading *l = user;
    double x[MADE_HIDDEN] = {1}, w1[2 * MADE_FFN * MADE_HIDDEN] = {1}, b[2 * MADE_FFN] = {1};
    double w2[MADE_HIDDEN * MADE_FFN] = {1}, scale[1] = {1}, output[MADE_HIDDEN];
    int64_t shapes[5][2] = {{1, MADE_HIDDEN},
                            {2 * MADE_FFN, MADE_HIDDEN},
                            {2 * MADE_FFN, 0},
                            {MADE_HIDDEN, MADE_FFN},
                            {1, 0}};
    double *elements[5] = {x, w1, b, w2, scale};
    mmlp_tensor tensors[5];
    for (int i = 0; i < 5; i++)
        tensors[i] = (mmlp_tensor){.data = elements[i],
                                   .device = {MMLP_DEVICE_CPU, 0},
                                   .ndim = shapes[i][1] ? 2 : 1,
                                   .dtype = {MMLP_TYPE_FLOAT, 64, 1},
                                   .shape = shapes[i]};
    mmlp_reference_forward_args args = MMLP_REFERENCE_FORWARD_ARGS_INIT;
    args.hidden_states = &tensors[0];
    args.linear_fc1_weight = &tensors[1];
    args.linear_fc1_bias = &tensors[2];
    args.linear_fc2_weight = &tensors[3];
    args.per_token_scale = &tensors[4];
    args.output = output;
    return mmlp_bundle_reference_forward(l->bundle, &args);
}

Test(allocations, the_reference_survives_each_failure)
{
    made_bundle made;
    loading l = {NULL, made_open(&made)};
    cr_expect_eq(fail_until_it_succeeds(run_reference, &l), 10);
    mmlp_bundle_close(l.bundle);
    made_free(&made);
}
