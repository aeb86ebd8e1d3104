/*
 * driver.c: opens libcuda. The driver that is named is the one that is used: nothing here falls
 * back from a GPU to the emulator or the other way round.
 */
#include "driver.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

static const char cuda_library[] = "libcuda.so.1";

/* The emulator's own function: what tells it from a GPU's driver. */
static const char report_symbol[] = "cuEmulatorLastReport";

static void *open_library(const char *path)
{
    return dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
}

/* The folder that holds this library, or the program it is linked into; with a final slash. */
static char *own_folder(void)
{
    Dl_info place;
    void *address = NULL;
    mmlp_status (*self)(driver *, const char *) = driver_open;
    memcpy(&address, &self, sizeof address);
    /* For a program the loader knows only what it was called as. */
    bool known = dladdr(address, &place) && place.dli_fname && strchr(place.dli_fname, '/');
    char *path = realpath(known ? place.dli_fname : "/proc/self/exe", NULL);
    if (path)
        strrchr(path, '/')[1] = '\0';
    return path;
}

/* Opens the emulator from where it is built or installed; `*path` names it. */
static mmlp_status open_emulator(void **library, char **path)
{
    /* Beside the library, installed and built; beside a program that holds the library. */
    static const char *const places[] = {"megamlp/", "../emulator/", MMLP_INSTALLED_EMULATOR, ""};
    mmlp_status status = MMLP_OK;
    char *folder = own_folder();
    text candidate = TEXT_INIT, tried = TEXT_INIT;
    *library = NULL;
    for (size_t i = 0; folder && !*library && i < sizeof places / sizeof places[0]; i++) {
        text_clear(&candidate);
        text_printf(&candidate, "%s%s%s", folder, places[i], cuda_library);
        text_printf(&tried, "%s%s", i ? ", " : "", text_string(&candidate));
        void *opened = open_library(text_string(&candidate));
        /* Beside an installed library may lie the driver of a GPU: that is not what was asked. */
        if (opened && dlsym(opened, report_symbol))
            *library = opened;
        else if (opened)
            dlclose(opened);
    }
    if (*library)
        *path = text_take(&candidate);
    if (!folder || candidate.failed || tried.failed || (*library && !*path))
        status = mmlp_fail_memory(strlen(cuda_library), "the path of the emulator");
    else if (!*library)
        status = mmlp_fail(MMLP_ERROR_DRIVER,
                           "driver \"emulator\": no emulator found (looked for %s); give its path",
                           text_string(&tried));
    text_free(&candidate);
    text_free(&tried);
    free(folder);
    return status;
}

static mmlp_status open_path(void **library, char **path, const char *name)
{
    *library = open_library(name);
    if (!*library) {
        const char *reason = dlerror();
        return mmlp_fail(MMLP_ERROR_DRIVER,
                         "driver \"%s\": %s; install a driver, or choose \"emulator\"", name,
                         reason ? reason : "cannot be opened");
    }
    *path = strdup(name);
    return *path ? MMLP_OK : mmlp_fail_memory(strlen(name), "the path of the driver");
}

static mmlp_status open_cuda(void **library, char **path)
{
    *library = open_library(cuda_library);
    if (!*library) {
        const char *reason = dlerror();
        return mmlp_fail(MMLP_ERROR_DRIVER,
                         "driver \"cuda\": %s; install an NVIDIA driver, or choose \"emulator\"",
                         reason ? reason : "libcuda.so.1 cannot be opened");
    }
    if (dlsym(*library, report_symbol))
        return mmlp_fail(MMLP_ERROR_DRIVER,
                         "driver \"cuda\": the libcuda.so.1 found is the emulator; choose "
                         "\"emulator\" to use it");
    *path = strdup(cuda_library);
    return *path ? MMLP_OK : mmlp_fail_memory(sizeof cuda_library, "the path of the driver");
}

static mmlp_status look_up(driver *d, void *library)
{
    void *address;
#define DRIVER_FUNCTION(name, symbol)                                                              \
    address = dlsym(library, symbol);                                                              \
    if (!address)                                                                                  \
        return mmlp_fail(MMLP_ERROR_DRIVER,                                                        \
                         "driver %s has no function %s: CUDA %d.%d or newer is needed", d->path,   \
                         symbol, DRIVER_VERSION_NEEDED / 1000, DRIVER_VERSION_NEEDED % 1000 / 10); \
    memcpy(&d->name, &address, sizeof d->name);
#include "driver.def"
#undef DRIVER_FUNCTION
    address = dlsym(library, report_symbol);
    d->is_emulator = address != NULL;
    memcpy(&d->last_report, &address, sizeof d->last_report);
    return MMLP_OK;
}

mmlp_status driver_open(driver *out, const char *name)
{
    *out = (driver){0};
    mmlp_status status = MMLP_OK;
    driver d = {0};
    void *library = NULL;
    if (strcmp(name, "cuda") == 0)
        MMLP_TRY_CLEANUP(open_cuda(&library, &d.path));
    else if (strcmp(name, "emulator") == 0)
        MMLP_TRY_CLEANUP(open_emulator(&library, &d.path));
    else if (strchr(name, '/'))
        MMLP_TRY_CLEANUP(open_path(&library, &d.path, name));
    else {
        status =
            mmlp_fail(MMLP_ERROR_ARGUMENT,
                      "driver \"%s\": wanted \"cuda\", \"emulator\", or a path with a '/'", name);
        goto cleanup;
    }

    /* The version first: an old driver lacks functions, and its age is the better reason. */
    CUresult (*get_version)(int *) = NULL;
    void *address = dlsym(library, "cuDriverGetVersion");
    memcpy(&get_version, &address, sizeof get_version);
    if (get_version)
        get_version(&d.version);
    if (get_version && d.version < DRIVER_VERSION_NEEDED) {
        status = mmlp_fail(MMLP_ERROR_DRIVER,
                           "driver %s is of CUDA %d.%d; %d.%d or newer is needed: update it",
                           d.path, d.version / 1000, d.version % 1000 / 10,
                           DRIVER_VERSION_NEEDED / 1000, DRIVER_VERSION_NEEDED % 1000 / 10);
        goto cleanup;
    }
    MMLP_TRY_CLEANUP(look_up(&d, library));
    CUresult result = d.cuInit(0);
    if (result != CUDA_SUCCESS) {
        const char *code = NULL, *reason = NULL;
        d.cuGetErrorName(result, &code);
        d.cuGetErrorString(result, &reason);
        status = mmlp_fail(MMLP_ERROR_DRIVER, "driver %s: cuInit: %s: %s", d.path,
                           code ? code : "unknown error", reason ? reason : "no text");
        goto cleanup;
    }
    *out = d;
    d.path = NULL;

cleanup:
    free(d.path);
    if (library)
        dlclose(library); /* it stays in memory: RTLD_NODELETE */
    return status;
}

void driver_close(driver *d)
{
    free(d->path);
    *d = (driver){0};
}

/* What only a kernel that ran can cause. */
static bool is_fault(CUresult result)
{
    return result == CUDA_ERROR_ILLEGAL_ADDRESS || result == CUDA_ERROR_MISALIGNED_ADDRESS ||
           result == CUDA_ERROR_ILLEGAL_INSTRUCTION || result == CUDA_ERROR_LAUNCH_FAILED ||
           result == CUDA_ERROR_ASSERT;
}

mmlp_status driver_check(const driver *d, CUresult result, const char *what, ...)
{
    if (result == CUDA_SUCCESS)
        return MMLP_OK;
    const char *code = NULL, *reason = NULL;
    d->cuGetErrorName(result, &code);
    d->cuGetErrorString(result, &reason);
    const char *report = is_fault(result) && d->last_report ? d->last_report() : "";

    text line = TEXT_INIT;
    va_list args;
    va_start(args, what);
    text_vprintf(&line, what, args);
    va_end(args);
    mmlp_status status =
        mmlp_fail(result == CUDA_ERROR_OUT_OF_MEMORY ? MMLP_ERROR_MEMORY : MMLP_ERROR_DEVICE,
                  "%s: %s: %s%s%s", text_string(&line), code ? code : "unknown error",
                  reason ? reason : "no text", report[0] ? "\n" : "", report);
    text_free(&line);
    return status;
}
