/*
 * compiled.c: NVRTC as an ordinary program uses it, with the toolkit's headers. The library is the
 * one that base/nvrtc.h finds; kernels of the project itself have no include folder.
 */
#include "compiled.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <nvrtc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/nvrtc.h"
#include "device.h"

static char load_log[4096];

static char *read_program(const char *file)
{
    char *path = NULL;
    cr_assert(asprintf(&path, MMLP_TEST_PROGRAMS "/%s", file) > 0);
    FILE *stream = fopen(path, "r");
    cr_assert(stream != NULL, "%s cannot be opened", path);
    char *text = NULL;
    size_t capacity = 0;
    cr_assert(getdelim(&text, &capacity, '\0', stream) > 0, "%s is empty", path);
    fclose(stream);
    free(path);
    return text;
}

/* A function of the library, into a pointer of its type. */
#define LOOK_UP(library, name)                                                                     \
    __typeof__(name) *name##_;                                                                     \
    *(void **)(&name##_) = dlsym(library, #name);                                                  \
    cr_assert(name##_ != NULL, "NVRTC has no " #name)

char *compiled_ptx(const char *file, const char *target)
{
    nvrtc *found = NULL;
    cr_assert_eq(nvrtc_open(&found, NULL), MMLP_OK, "%s", mmlp_last_error());
    void *library = dlopen(nvrtc_path(found), RTLD_NOW | RTLD_NODELETE);
    cr_assert(library != NULL);
    LOOK_UP(library, nvrtcCreateProgram);
    LOOK_UP(library, nvrtcCompileProgram);
    LOOK_UP(library, nvrtcGetProgramLogSize);
    LOOK_UP(library, nvrtcGetProgramLog);
    LOOK_UP(library, nvrtcGetPTXSize);
    LOOK_UP(library, nvrtcGetPTX);
    LOOK_UP(library, nvrtcDestroyProgram);

    char *text = read_program(file), *log = NULL, *ptx = NULL, architecture[64];
    size_t bytes = 0;
    nvrtcProgram program = NULL;
    snprintf(architecture, sizeof architecture, "--gpu-architecture=%s", target);
    const char *options[] = {architecture, "-I" MMLP_TEST_CUDA_INCLUDE,
                             "-I" MMLP_TEST_CUDA_INCLUDE "/cccl", "-std=c++17", "-no-cache"};
    cr_assert_eq(nvrtcCreateProgram_(&program, text, file, 0, NULL, NULL), NVRTC_SUCCESS);
    nvrtcResult result = nvrtcCompileProgram_(program, sizeof options / sizeof options[0], options);
    nvrtcGetProgramLogSize_(program, &bytes);
    log = calloc(1, bytes + 1);
    nvrtcGetProgramLog_(program, log);
    cr_assert(result == NVRTC_SUCCESS, "%s for %s: %s", file, target, log);
    cr_assert_eq(nvrtcGetPTXSize_(program, &bytes), NVRTC_SUCCESS);
    ptx = calloc(1, bytes + 1);
    cr_assert_eq(nvrtcGetPTX_(program, ptx), NVRTC_SUCCESS);
    nvrtcDestroyProgram_(&program);
    free(log);
    free(text);
    dlclose(library);
    nvrtc_close(found);
    return ptx;
}

void compiled_for_targets(const char *file, void (*check)(CUmodule module))
{
    static const int targets[] = {80, 90, 100};
    device_open();
    int major = 0, minor = 0, ran = 0;
    cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0);
    cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0);
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        if (targets[i] > 10 * major + minor)
            continue;
        char target[32], what[128];
        snprintf(target, sizeof target, "compute_%d", targets[i]);
        snprintf(what, sizeof what, "%s for %s", file, target);
        char *ptx = compiled_ptx(file, target);
        CUmodule module = device_load(ptx, what);
        free(ptx);
        check(module);
        cr_assert_eq(cuModuleUnload(module), CUDA_SUCCESS, "%s", what);
        ran++;
    }
    cr_assert(ran > 0, "no target of %s runs on this device", file);
    device_close();
}

CUresult compiled_try_load(const char **log, const char *file)
{
    char *ptx = compiled_ptx(file, "compute_80");
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {load_log, (void *)(size_t)sizeof load_log};
    CUmodule module = NULL;
    load_log[0] = '\0';
    CUresult result = cuModuleLoadDataEx(&module, ptx, 2, options, values);
    free(ptx);
    *log = load_log;
    return result;
}
