/* compiled.c: PTX of the tests' programs: of NVRTC with the toolkit's headers, or, where
 * MMLP_TEST_COMPILER is nvcc, what the build has made with it. */
#include "compiled.h"

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/error.h"
#include "base/file.h"
#include "base/nvrtc.h"
#include "device.h"

static char load_log[4096];

static char *read_text(const char *folder, const char *file, const char *ending)
{
    char *path = NULL;
    cr_assert(asprintf(&path, "%s/%s%s", folder, file, ending) > 0);
    FILE *stream = fopen(path, "r");
    cr_assert(stream != NULL, "%s cannot be opened", path);
    char *text = NULL;
    size_t capacity = 0;
    cr_assert(getdelim(&text, &capacity, '\0', stream) > 0, "%s is empty", path);
    fclose(stream);
    free(path);
    return text;
}

/* Where the PTX is kept for the next test, build and schedule: all that it depends on is in the
 * name.
 */
static char *place_of(const nvrtc_source *source, int version)
{
    char *path = NULL;
    unsigned long long hash = XXH3_64bits(source->text, strlen(source->text));
    for (int i = 0; source->options[i]; i++)
        hash = XXH3_64bits_withSeed(source->options[i], strlen(source->options[i]), hash);
    cr_assert(asprintf(&path, MMLP_TEST_KEPT "/%s.%s.%d.%016llx.ptx", source->name, source->target,
                       version, hash) > 0);
    return path;
}

static char *compile(nvrtc *compiler, const nvrtc_source *source)
{
    nvrtc_image image;
    cr_assert_eq(nvrtc_compile(&image, compiler, source), MMLP_OK, "%s\n%s", mmlp_last_error(),
                 image.log);
    char *ptx = image.ptx;
    image.ptx = NULL;
    nvrtc_image_free(&image);
    return ptx;
}

static char *compile_with_nvrtc(const char *file, const char *target)
{
    static const char *const options[] = {"-std=c++17", "--device-int128", NULL};
    char *text = read_text(MMLP_TEST_PROGRAMS, file, ""), *ptx = NULL;
    size_t bytes;
    nvrtc *compiler = NULL;
    nvrtc_source source = {.name = file, .text = text, .target = target, .options = options};
    cr_assert_eq(nvrtc_open(&compiler, NULL), MMLP_OK, "%s", mmlp_last_error());
    char *kept = place_of(&source, nvrtc_version(compiler));
    if (file_read(&ptx, &bytes, kept) != MMLP_OK) {
        ptx = compile(compiler, &source);
        cr_assert_eq(file_write_atomic(kept, ptx, strlen(ptx)), MMLP_OK, "%s", mmlp_last_error());
    }
    nvrtc_close(compiler);
    free(kept);
    free(text);
    return ptx;
}

/* What nvcc made before the tests is for one target, which all their devices run. */
static bool is_by_nvcc(void)
{
    const char *compiler = getenv("MMLP_TEST_COMPILER");
    return compiler && strcmp(compiler, "nvcc") == 0;
}

char *compiled_ptx(const char *file, const char *target)
{
    return is_by_nvcc() ? read_text(MMLP_TEST_NVCC_PROGRAMS, file, ".ptx")
                        : compile_with_nvrtc(file, target);
}

void compiled_for_targets(const char *file, void (*check)(CUmodule module))
{
    static const int targets[] = {80, 90, 100};
    device_open();
    int major = 0, minor = 0, ran = 0;
    cuDeviceGetAttribute(&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 0);
    cuDeviceGetAttribute(&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 0);
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        if (targets[i] > 10 * major + minor || (is_by_nvcc() && ran > 0))
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
