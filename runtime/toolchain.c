/*
 * toolchain.c: finds the files of NVRTC and says which build they are. The path found here is the
 * one that is opened later, so what the cache's key says is what compiles.
 */
#include "toolchain.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"

static const char library_name[] = "libnvrtc.so.13";

/* True when folder/name is a readable file; its path is then in `candidate`. */
static bool try_folder(text *candidate, text *tried, const char *folder, const char *inside,
                       const char *name)
{
    text_clear(candidate);
    text_printf(candidate, "%s%s/%s", folder, inside, name);
    text_printf(tried, "%s%s%s", tried->length ? ", " : "", folder, inside);
    return access(text_string(candidate), R_OK) == 0;
}

/* The folders in which the loader looks for libraries of this program. */
static bool try_loader_folders(text *candidate, text *tried, const char *name)
{
    bool found = false;
    void *program = dlopen(NULL, RTLD_LAZY);
    Dl_serinfo size, *folders = NULL;
    if (program && dlinfo(program, RTLD_DI_SERINFOSIZE, &size) == 0)
        folders = calloc(1, size.dls_size);
    if (folders && dlinfo(program, RTLD_DI_SERINFOSIZE, folders) == 0 &&
        dlinfo(program, RTLD_DI_SERINFO, folders) == 0) {
        for (unsigned i = 0; i < folders->dls_cnt && !found; i++)
            found = try_folder(candidate, tried, folders->dls_serpath[i].dls_name, "", name);
    }
    free(folders);
    if (program)
        dlclose(program);
    return found;
}

static bool find_nvrtc(text *candidate, text *tried, const char *name)
{
    const char *home = getenv("CUDA_HOME");
    if (home && home[0] &&
        (try_folder(candidate, tried, home, "/lib64", name) ||
         try_folder(candidate, tried, home, "/lib", name)))
        return true;
    return try_loader_folders(candidate, tried, name) ||
           try_folder(candidate, tried, "/usr/local/cuda", "/lib64", name) ||
           try_folder(candidate, tried, MMLP_CUDA_HOME, "/lib64", name) ||
           try_folder(candidate, tried, MMLP_CUDA_HOME, "/lib", name);
}

/* "nvrtc ID builtins ID": NVRTC opens the builtins from its own folder. */
static mmlp_status identify(text *identity, const char *path)
{
    mmlp_status status = MMLP_OK;
    text pattern = TEXT_INIT;
    glob_t builtins = {0};
    char *id = NULL;
    char *file = realpath(path, NULL);
    if (!file)
        return mmlp_fail(MMLP_ERROR_DRIVER, "NVRTC: %s cannot be read", path);
    MMLP_TRY_CLEANUP(build_id_read(&id, file));
    text_printf(identity, "nvrtc %s builtins", id);
    text_printf(&pattern, "%.*s/libnvrtc-builtins.so.*", (int)(strrchr(file, '/') - file), file);
    if (pattern.failed) {
        status = mmlp_fail_memory(strlen(file), "the path of NVRTC's builtins");
        goto cleanup;
    }
    if (glob(text_string(&pattern), 0, NULL, &builtins) == 0) {
        for (size_t i = 0; i < builtins.gl_pathc; i++) {
            free(id);
            id = NULL;
            MMLP_TRY_CLEANUP(build_id_read(&id, builtins.gl_pathv[i]));
            text_printf(identity, " %s", id);
        }
    }

cleanup:
    globfree(&builtins);
    text_free(&pattern);
    free(id);
    free(file);
    return status;
}

mmlp_status toolchain_find(toolchain *out, const char *wanted)
{
    *out = (toolchain){0};
    mmlp_status status = MMLP_OK;
    text candidate = TEXT_INIT, tried = TEXT_INIT, identity = TEXT_INIT;
    const char *name = wanted ? wanted : library_name;
    if (strchr(name, '/')) {
        text_puts(&candidate, name);
        if (access(name, R_OK) != 0)
            status = mmlp_fail(MMLP_ERROR_DRIVER, "NVRTC: %s not found", name);
    } else if (!find_nvrtc(&candidate, &tried, name)) {
        status = mmlp_fail(MMLP_ERROR_DRIVER,
                           "NVRTC: %s not found in %s; install CUDA 13.0 or newer, or set "
                           "CUDA_HOME",
                           name, text_string(&tried));
    }
    if (status != MMLP_OK)
        goto cleanup;
    MMLP_TRY_CLEANUP(identify(&identity, text_string(&candidate)));
    out->nvrtc_path = text_take(&candidate);
    out->identity = text_take(&identity);
    if (!out->nvrtc_path || !out->identity) {
        toolchain_free(out);
        status = mmlp_fail_memory(strlen(name), "the path of NVRTC");
    }

cleanup:
    text_free(&candidate);
    text_free(&tried);
    text_free(&identity);
    return status;
}

void toolchain_free(toolchain *tools)
{
    free(tools->nvrtc_path);
    free(tools->identity);
    *tools = (toolchain){0};
}
