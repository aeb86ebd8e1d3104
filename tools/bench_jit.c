/* bench_jit.c: from a spec to a training step's loaded kernels, each run in a fresh process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/nvrtc.h"
#include "bench.h"
#include "tool.h"

typedef struct subject {
    const char *spec, *bundle, *arch, *tile;
} subject;

/* What one fresh process does; returns milliseconds, or a negative exit code. */
typedef double measurement(const subject *of, const char *cache_dir);

static double spec_to_cubins(const subject *of, const char *cache_dir)
{
    (void)cache_dir; /* nothing is cached */
    char *target = tool_temporary_folder();
    char *bundle = NULL;
    double start = tool_milliseconds();
    int code = target ? tool_generate(&bundle, of->spec, of->arch, of->tile, target) : EXIT_DEVICE;
    double elapsed = tool_milliseconds() - start;
    free(bundle);
    tool_remove_folder(target);
    return code == 0 ? elapsed : -code;
}

/* ---- each kernel by itself ------------------------------------------------------------------ */

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = NULL;
    size_t room = 0;
    if (!file || getdelim(&text, &room, '\0', file) < 0) {
        free(text);
        text = NULL;
    }
    if (file)
        fclose(file);
    return text;
}

/* Source to PTX and cubin, alone on the machine, without the first one's opening of the compiler.
 */
static int compile_kernel(double *median, const nvrtc *compiler, const char *path,
                          const char *target)
{
    double runs[BENCH_RUNS];
    char *text = read_text(path);
    if (!text)
        return tool_fail(EXIT_INPUT, "%s: cannot be read", path);
    mmlp_status status = MMLP_OK;
    for (int i = -1; i < BENCH_RUNS && status == MMLP_OK; ++i) {
        nvrtc_image image;
        const nvrtc_source source = {.name = path, .text = text, .target = target};
        double start = tool_milliseconds();
        status = nvrtc_compile(&image, compiler, &source);
        if (i >= 0)
            runs[i] = tool_milliseconds() - start;
        nvrtc_image_free(&image);
    }
    free(text);
    if (status != MMLP_OK)
        return tool_fail_status(status);
    *median = bench_median(runs);
    return 0;
}

/* The kernels that are loaded on the device, from their files in the bundle. */
static int time_kernels(const mmlp_mlp *mlp, const mmlp_bundle *bundle, const subject *of,
                        const nvrtc *compiler)
{
    mmlp_bundle_properties p = MMLP_BUNDLE_PROPERTIES_INIT;
    mmlp_status status = mmlp_bundle_get(bundle, &p);
    if (status != MMLP_OK)
        return tool_fail_status(status);
    printf("\n%-58s %10s\n", "kernel to PTX and cubin, alone", "median ms");
    int code = 0;
    for (int i = 0; code == 0 && i < mmlp_mlp_kernel_count(mlp); ++i) {
        mmlp_kernel_properties kernel = MMLP_KERNEL_PROPERTIES_INIT;
        char *path = NULL;
        double median = 0;
        status = mmlp_mlp_kernel(mlp, i, &kernel);
        if (status != MMLP_OK)
            return tool_fail_status(status);
        if (asprintf(&path, "%s/%s.cu", of->bundle, kernel.name + strlen(p.name) + 1) < 0)
            return tool_fail(EXIT_DEVICE, "out of memory");
        code = compile_kernel(&median, compiler, path, of->arch ? of->arch : "sm_80");
        free(path);
        if (code == 0)
            printf("%-58s %10.1f\n", kernel.name, median);
    }
    fflush(stdout);
    return code;
}

/* ---- all kernels ---------------------------------------------------------------------------- */

/* Into *elapsed; with a compiler each kernel is timed too. Returns 0 or an exit code. */
static int load(double *elapsed, const subject *of, const char *cache_dir, const nvrtc *compiler)
{
    setenv("MMLP_CACHE_DIR", cache_dir, 1);
    mmlp_bundle *bundle = NULL;
    mmlp_context *context = NULL;
    mmlp_mlp *mlp = NULL;
    int code = tool_open_device(&context, "emulator", 0, of->arch);
    double start = tool_milliseconds();
    if (code == 0)
        code = tool_open_bundle(&bundle, of->bundle, NULL);
    if (code == 0) {
        mmlp_status status = mmlp_mlp_load(&mlp, context, bundle, NULL);
        if (status != MMLP_OK)
            code = tool_fail_status(status);
    }
    *elapsed = tool_milliseconds() - start;
    if (code == 0 && compiler)
        code = time_kernels(mlp, bundle, of, compiler);
    mmlp_mlp_unload(mlp);
    mmlp_bundle_close(bundle);
    mmlp_context_destroy(context);
    return code;
}

static double load_all(const subject *of, const char *cache_dir)
{
    double elapsed;
    int code = load(&elapsed, of, cache_dir, NULL);
    return code == 0 ? elapsed : -code;
}

static double load_and_time(const subject *of, const char *cache_dir)
{
    double elapsed = 0;
    nvrtc *compiler;
    mmlp_status status = nvrtc_open(&compiler, NULL);
    int code =
        status == MMLP_OK ? load(&elapsed, of, cache_dir, compiler) : tool_fail_status(status);
    if (status == MMLP_OK)
        nvrtc_close(compiler);
    return code == 0 ? elapsed : -code;
}

static double in_fresh_process(measurement *measure, const subject *of, const char *cache_dir)
{
    int pipe_ends[2];
    double result = -EXIT_DEVICE;
    if (pipe(pipe_ends) != 0)
        return result;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        result = measure(of, cache_dir);
        ssize_t written = write(pipe_ends[1], &result, sizeof result);
        _exit(written == (ssize_t)sizeof result ? 0 : 1);
    }
    close(pipe_ends[1]);
    if (child > 0) {
        if (read(pipe_ends[0], &result, sizeof result) != (ssize_t)sizeof result)
            result = -EXIT_DEVICE;
        waitpid(child, NULL, 0);
    }
    close(pipe_ends[0]);
    return result;
}

/* BENCH_RUNS runs, each with a cache folder of its own unless `warm`. Returns 0 or an exit code. */
static int row(const char *name, measurement *measure, const subject *of, const char *folder,
               int warm)
{
    double runs[BENCH_RUNS];
    for (int i = 0; i < BENCH_RUNS; ++i) {
        char *cache_dir = NULL;
        if (asprintf(&cache_dir, "%s/%s%d", folder, name, warm ? 0 : i) < 0)
            return tool_fail(EXIT_DEVICE, "out of memory");
        if (warm && i == 0) /* fills the cache */
            in_fresh_process(measure, of, cache_dir);
        runs[i] = in_fresh_process(measure, of, cache_dir);
        free(cache_dir);
        if (runs[i] < 0)
            return (int)-runs[i];
    }
    double median = bench_median(runs);
    printf("%-46s %10.1f %10.1f %10.1f\n", name, median, runs[0], runs[BENCH_RUNS - 1]);
    return 0;
}

int bench_jit(const char *spec, const char *arch, const char *tile)
{
    char *folder = tool_temporary_folder();
    if (!folder)
        return EXIT_DEVICE;
    char *bundle = NULL, *cache_dir = NULL;
    int code = tool_generate(&bundle, spec, NULL, tile, folder);
    subject of = {spec, bundle, arch, tile};
    if (code == 0) {
        printf("%-46s %10s %10s %10s\n", "fresh process", "median ms", "least", "most");
        code =
            row("spec to cubins, all kernels of a training step", spec_to_cubins, &of, folder, 0);
    }
    if (code == 0)
        code = row("bundle to PTX on the emulator, empty cache", load_all, &of, folder, 0);
    if (code == 0)
        code = row("bundle to PTX on the emulator, disk cache", load_all, &of, folder, 1);
    if (code == 0 && asprintf(&cache_dir, "%s/kernels", folder) < 0)
        code = tool_fail(EXIT_DEVICE, "out of memory");
    if (code == 0) {
        double elapsed = in_fresh_process(load_and_time, &of, cache_dir);
        code = elapsed < 0 ? (int)-elapsed : 0;
    }
    free(cache_dir);
    free(bundle);
    tool_remove_folder(folder);
    return code;
}
