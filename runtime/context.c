/*
 * context.c: a device: its driver, its primary context, what it can do, and where its log lines go.
 */
#include "context.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "comm.h"

enum { COMPUTE_CAPABILITY_NEEDED = 80 };

/* ---- log ------------------------------------------------------------------------------------ */

static void log_line(const mmlp_context *context, const char *format, va_list args)
{
    text line = TEXT_INIT;
    text_vprintf(&line, format, args);
    context->log(context->log_user, text_string(&line));
    text_free(&line);
}

void context_notice(const mmlp_context *context, const char *format, ...)
{
    if (!context->log)
        return;
    va_list args;
    va_start(args, format);
    log_line(context, format, args);
    va_end(args);
}

void context_verbose(const mmlp_context *context, const char *format, ...)
{
    if (!context->log || !context->verbose)
        return;
    va_list args;
    va_start(args, format);
    log_line(context, format, args);
    va_end(args);
}

/* ---- current -------------------------------------------------------------------------------- */

mmlp_status context_enter(const mmlp_context *context)
{
    const driver *d = &context->cuda;
    return driver_check(d, d->cuCtxPushCurrent(context->primary), "cuCtxPushCurrent");
}

void context_leave(const mmlp_context *context)
{
    CUcontext popped;
    context->cuda.cuCtxPopCurrent(&popped);
}

/* ---- options -------------------------------------------------------------------------------- */

/* A path below an environment variable, if that is set and not empty. */
static char *below(const char *variable, const char *rest)
{
    const char *folder = getenv(variable);
    char *path = NULL;
    if (!folder || !folder[0] || asprintf(&path, "%s%s", folder, rest) < 0)
        return NULL;
    return path;
}

static mmlp_status choose_cache(cache_roots *out, const mmlp_context_options *options)
{
    const char *named = options->cache_dir ? options->cache_dir : getenv("MMLP_CACHE_DIR");
    if (named && named[0]) {
        out->writable = strdup(named);
        if (!out->writable)
            return mmlp_fail_memory(strlen(named), "the path of the cache");
    } else if (!named) {
        out->writable = below("XDG_CACHE_HOME", "/megamlp");
        if (!out->writable)
            out->writable = below("HOME", "/.cache/megamlp");
    }
    if (options->cache_readonly_dir && options->cache_readonly_dir[0]) {
        out->readonly = strdup(options->cache_readonly_dir);
        if (!out->readonly)
            return mmlp_fail_memory(strlen(options->cache_readonly_dir), "the path of the cache");
    }
    return MMLP_OK;
}

static mmlp_status copy_path(char **out, const char *path, const char *what)
{
    *out = path ? strdup(path) : NULL;
    return path && !*out ? mmlp_fail_memory(strlen(path), what) : MMLP_OK;
}

static mmlp_status take_options(mmlp_context *context, const mmlp_context_options *options)
{
    const char *verbose = getenv("MMLP_VERBOSE");
    context->log = options->log;
    context->log_user = options->log_user;
    context->verbose =
        options->verbose || (verbose && verbose[0] != '\0' && strcmp(verbose, "0") != 0);
    if (options->compile_threads < 0)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "compile_threads: %d was given, wanted 0 or more",
                         options->compile_threads);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    context->compile_threads =
        options->compile_threads ? options->compile_threads : (cores > 0 ? (int)cores : 1);
    MMLP_TRY(copy_path(&context->nvrtc_wanted, options->nvrtc, "the path of NVRTC"));
    MMLP_TRY(copy_path(&context->nccl_wanted, options->nccl, "the path of NCCL"));
    return choose_cache(&context->cache, options);
}

/* ---- device --------------------------------------------------------------------------------- */

static mmlp_status get_attribute(int *out, const mmlp_context *context, CUdevice_attribute which)
{
    const driver *d = &context->cuda;
    return driver_check(d, d->cuDeviceGetAttribute(out, which, context->device),
                        "cuDeviceGetAttribute %d", (int)which);
}

static mmlp_status examine_device(mmlp_context *context, int ordinal)
{
    const driver *d = &context->cuda;
    int count = 0, major = 0, minor = 0;
    MMLP_TRY(driver_check(d, d->cuDeviceGetCount(&count), "cuDeviceGetCount"));
    if (count == 0)
        return mmlp_fail(MMLP_ERROR_DRIVER, "driver %s: it has no device", d->path);
    if (ordinal < 0 || ordinal >= count)
        return mmlp_fail(MMLP_ERROR_DRIVER, "device %d: driver %s has %d device%s, 0 to %d",
                         ordinal, d->path, count, count == 1 ? "" : "s", count - 1);
    MMLP_TRY(driver_check(d, d->cuDeviceGet(&context->device, ordinal), "device %d", ordinal));
    MMLP_TRY(get_attribute(&major, context, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR));
    MMLP_TRY(get_attribute(&minor, context, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
    MMLP_TRY(get_attribute(&context->sm_count, context, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT));
    MMLP_TRY(get_attribute(&context->shared_per_block_optin, context,
                           CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN));
    MMLP_TRY(get_attribute(&context->max_threads_per_block, context,
                           CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK));
    context->compute_capability = 10 * major + minor;
    snprintf(context->arch, sizeof context->arch, "sm_%d%d", major, minor);
    if (context->compute_capability < COMPUTE_CAPABILITY_NEEDED) {
        char name[128] = "";
        d->cuDeviceGetName(name, sizeof name, context->device);
        return mmlp_fail(MMLP_ERROR_UNSUPPORTED,
                         "device %d (%s) has compute capability %d.%d; 8.0 or higher is needed",
                         ordinal, name, major, minor);
    }
    return MMLP_OK;
}

/* ---- public --------------------------------------------------------------------------------- */

mmlp_status mmlp_context_create(mmlp_context **out, const mmlp_context_options *options)
{
    if (!out)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_context_create: out is NULL");
    *out = NULL;
    mmlp_context_options taken = MMLP_CONTEXT_OPTIONS_INIT;
    if (options)
        MMLP_TRY(struct_read(&taken, options, sizeof taken, "mmlp_context_options"));

    mmlp_status status = MMLP_OK;
    mmlp_context *context = calloc(1, sizeof *context);
    if (!context)
        return mmlp_fail_memory(sizeof *context, "a context");
    pthread_mutex_init(&context->lock, NULL);
    MMLP_TRY_CLEANUP(take_options(context, &taken));

    const char *name = taken.driver ? taken.driver : getenv("MMLP_DRIVER");
    MMLP_TRY_CLEANUP(driver_open(&context->cuda, name && name[0] ? name : "cuda"));
    MMLP_TRY_CLEANUP(examine_device(context, taken.device));
    const driver *d = &context->cuda;
    MMLP_TRY_CLEANUP(driver_check(d,
                                  d->cuDevicePrimaryCtxRetain(&context->primary, context->device),
                                  "device %d: cuDevicePrimaryCtxRetain", taken.device));
    context_verbose(context, "driver %s, CUDA %d.%d, device %d, %s", d->path, d->version / 1000,
                    d->version % 1000 / 10, taken.device, context->arch);
    *out = context;
    context = NULL;

cleanup:
    mmlp_context_destroy(context);
    return status;
}

void mmlp_context_destroy(mmlp_context *context)
{
    if (!context)
        return;
    comm_free_all(context);
    nccl_library_close(&context->nccl);
    if (context->primary)
        context->cuda.cuDevicePrimaryCtxRelease(context->device);
    driver_close(&context->cuda);
    nvrtc_close(context->compiler);
    toolchain_free(&context->tools);
    cache_roots_free(&context->cache);
    free(context->nvrtc_wanted);
    free(context->nccl_wanted);
    pthread_mutex_destroy(&context->lock);
    free(context);
}

mmlp_status mmlp_context_properties(const mmlp_context *context, mmlp_device_properties *properties)
{
    if (!context)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_context_properties: context is NULL");
    const driver *d = &context->cuda;
    mmlp_device_properties filled = MMLP_DEVICE_PROPERTIES_INIT;
    size_t memory = 0;
    MMLP_TRY(driver_check(d, d->cuDeviceGetName(filled.name, sizeof filled.name, context->device),
                          "cuDeviceGetName"));
    MMLP_TRY(driver_check(d, d->cuDeviceTotalMem(&memory, context->device), "cuDeviceTotalMem"));
    memcpy(filled.arch, context->arch, sizeof filled.arch);
    filled.is_emulator = d->is_emulator;
    filled.sm_count = context->sm_count;
    filled.shared_per_block = context->shared_per_block_optin;
    filled.memory_bytes = memory;
    filled.driver_version = d->version;
    filled.driver_path = d->path;
    return struct_fill(properties, &filled, sizeof filled, "mmlp_device_properties");
}

const char *mmlp_version(void)
{
#define TEXT_OF(x)    TEXT_OF_IT(x)
#define TEXT_OF_IT(x) #x
    return TEXT_OF(MMLP_VERSION_MAJOR) "." TEXT_OF(MMLP_VERSION_MINOR) "." TEXT_OF(
        MMLP_VERSION_PATCH);
#undef TEXT_OF_IT
#undef TEXT_OF
}

static const mmlp_environment_variable environment[] = {
#define ENVIRONMENT(variable, fallback, meaning) {variable, fallback, meaning},
#include "environment.def"
#undef ENVIRONMENT
};

const mmlp_environment_variable *mmlp_environment(int index)
{
    int count = (int)(sizeof environment / sizeof environment[0]);
    return index >= 0 && index < count ? &environment[index] : NULL;
}
