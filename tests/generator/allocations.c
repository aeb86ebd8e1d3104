/*
 * allocations.c: the 1st, 2nd, ... allocation fails, and all after it, until a spec becomes a
 * bundle. The linker turns the project's calls of malloc and its kin into the functions below.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "bundle_write.h"
#include "spec_text.h"

static long allocations_left = -1; /* negative: no limit */

static bool must_fail(void)
{
    if (allocations_left > 0)
        allocations_left--;
    else if (allocations_left == 0)
        return true;
    return false;
}

#define WRAP(result, name, parameters, arguments)                                                  \
    result __real_##name parameters;                                                               \
    result __wrap_##name parameters;                                                               \
    result __wrap_##name parameters                                                                \
    {                                                                                              \
        return must_fail() ? NULL : __real_##name arguments;                                       \
    }
WRAP(void *, malloc, (size_t bytes), (bytes))
WRAP(void *, calloc, (size_t count, size_t bytes), (count, bytes))
WRAP(void *, realloc, (void *block, size_t bytes), (block, bytes))
WRAP(char *, strdup, (const char *string), (string))
WRAP(char *, strndup, (const char *string, size_t length), (string, length))

static mmlp_status plan_and_print(const module_spec *spec)
{
    plan p = {0};
    text printed = TEXT_INIT;
    mmlp_status status = plan_build(&p, spec, NULL, NULL);
    if (status == MMLP_OK)
        status = plan_print(&printed, &p);
    text_free(&printed);
    plan_free(&p);
    return status;
}

static mmlp_status make_bundle(const module_spec *spec)
{
    bundle_options options = {.force = true};
    return bundle_write(spec, "a.mlp", &options);
}

/* Runs with n allocations for n = 0, step, ... until it succeeds; every failure must be out of
 * memory. */
static void survives(mmlp_status (*run)(const module_spec *spec), long step)
{
    mmlp_status status = MMLP_ERROR_MEMORY;
    long n = 0;
    spec_text_file("bad.lua", "");
    for (; status == MMLP_ERROR_MEMORY && n < 100000; n += step) {
        module_spec spec;
        allocations_left = n;
        status = spec_load(&spec, MMLP_SOURCE_DIR "/specs/gpt3_175b.lua", NULL);
        if (status == MMLP_OK)
            status = run(&spec);
        allocations_left = -1;
        spec_free(&spec);
    }
    cr_assert_eq(status, MMLP_OK, "after %ld allocations: %s: %s", n, mmlp_status_name(status),
                 mmlp_last_error());
    cr_assert_gt(n, 500);
}

Test(allocations, a_plan_fails_cleanly_wherever_memory_ends)
{
    survives(plan_and_print, 1);
}

Test(allocations, a_bundle_fails_cleanly_wherever_memory_ends)
{
    survives(make_bundle, 7); /* kernel after kernel makes the same ones */
}
