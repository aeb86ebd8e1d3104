/*
 * nccl_library.c: opens libnccl. The emulator's devices need the emulator's NCCL, a GPU the real
 * one: nothing here takes one for the other.
 */
#include "nccl_library.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

static const char library_name[] = "libnccl.so.2";

/* The emulator's own symbol: what tells it from NVIDIA's. */
static const char emulator_symbol[] = "ncclEmulator";

static char *default_path(const driver *d)
{
    const char *slash = strrchr(d->path, '/');
    char *path = NULL;
    if (!d->is_emulator || !slash)
        return strdup(library_name);
    if (asprintf(&path, "%.*s%s", (int)(slash + 1 - d->path), d->path, library_name) < 0)
        return NULL;
    return path;
}

static mmlp_status look_up(nccl_library *out, void *opened)
{
    void *address;
#define NCCL_FUNCTION(name)                                                                        \
    address = dlsym(opened, #name);                                                                \
    if (!address)                                                                                  \
        return mmlp_fail(MMLP_ERROR_DRIVER,                                                        \
                         "NCCL %s has no function %s: NCCL %d.%d or newer is needed", out->path,   \
                         #name, NCCL_VERSION_NEEDED / 10000, NCCL_VERSION_NEEDED / 100 % 100);     \
    memcpy(&out->name, &address, sizeof out->name);
#include "nccl_library.def"
#undef NCCL_FUNCTION
    return MMLP_OK;
}

static mmlp_status check_kind(const nccl_library *library, void *opened, const driver *d)
{
    bool of_emulator = dlsym(opened, emulator_symbol) != NULL;
    if (of_emulator == d->is_emulator)
        return MMLP_OK;
    return mmlp_fail(MMLP_ERROR_DRIVER, "NCCL %s is %s, but the driver %s is %s", library->path,
                     of_emulator ? "the emulator's" : "NVIDIA's", d->path,
                     d->is_emulator ? "the emulator" : "of a GPU");
}

mmlp_status nccl_library_open(nccl_library *out, const driver *d, const char *wanted)
{
    *out = (nccl_library){0};
    mmlp_status status = MMLP_OK;
    void *opened = NULL;
    nccl_library library = {.path = wanted ? strdup(wanted) : default_path(d)};
    if (!library.path)
        return mmlp_fail_memory(sizeof library_name, "the path of NCCL");
    opened = dlopen(library.path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!opened) {
        const char *reason = dlerror();
        status =
            mmlp_fail(MMLP_ERROR_DRIVER, "NCCL: %s; install NCCL %d.%d or newer, or give its path",
                      reason ? reason : library.path, NCCL_VERSION_NEEDED / 10000,
                      NCCL_VERSION_NEEDED / 100 % 100);
        goto cleanup;
    }
    /* The version first: its age is the better reason for what an old one lacks. */
    __typeof__(ncclGetVersion) *get_version = NULL;
    void *address = dlsym(opened, "ncclGetVersion");
    memcpy(&get_version, &address, sizeof get_version);
    if (get_version && get_version(&library.version) == ncclSuccess &&
        library.version < NCCL_VERSION_NEEDED) {
        status = mmlp_fail(MMLP_ERROR_DRIVER,
                           "NCCL %s has version code %d; %d.%d or newer (%d) is "
                           "needed: update it",
                           library.path, library.version, NCCL_VERSION_NEEDED / 10000,
                           NCCL_VERSION_NEEDED / 100 % 100, NCCL_VERSION_NEEDED);
        goto cleanup;
    }
    MMLP_TRY_CLEANUP(look_up(&library, opened));
    MMLP_TRY_CLEANUP(check_kind(&library, opened, d));
    *out = library;
    library.path = NULL;

cleanup:
    free(library.path);
    if (opened)
        dlclose(opened); /* it stays in memory: RTLD_NODELETE */
    return status;
}

void nccl_library_close(nccl_library *library)
{
    free(library->path);
    *library = (nccl_library){0};
}

mmlp_status nccl_check(const nccl_library *library, ncclComm_t comm, ncclResult_t result,
                       const char *what, ...)
{
    if (result == ncclSuccess)
        return MMLP_OK;
    const char *reason = library->ncclGetErrorString(result);
    const char *line = library->ncclGetLastError(comm);
    text begin = TEXT_INIT;
    va_list args;
    va_start(args, what);
    text_vprintf(&begin, what, args);
    va_end(args);
    mmlp_status status =
        mmlp_fail(MMLP_ERROR_COMM, "%s: NCCL: %s%s%s", text_string(&begin),
                  reason ? reason : "unknown error", line && line[0] ? ": " : "", line ? line : "");
    text_free(&begin);
    return status;
}
