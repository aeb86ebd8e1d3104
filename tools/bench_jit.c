/* bench_jit.c: from a spec to a training step's loaded kernels, each run in a fresh process. */
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "tool.h"

/* What one fresh process does; returns milliseconds, or a negative exit code. */
typedef double measurement(const char *argument, const char *arch, const char *cache_dir);

static double spec_to_cubins(const char *spec, const char *arch, const char *folder)
{
    (void)folder; /* nothing is cached */
    char *target = tool_temporary_folder();
    char *bundle = NULL;
    double start = tool_milliseconds();
    int code = target ? tool_generate(&bundle, spec, arch, target) : EXIT_DEVICE;
    double elapsed = tool_milliseconds() - start;
    free(bundle);
    tool_remove_folder(target);
    return code == 0 ? elapsed : -code;
}

static double load(const char *bundle_path, const char *arch, const char *cache_dir)
{
    setenv("MMLP_CACHE_DIR", cache_dir, 1);
    mmlp_bundle *bundle = NULL;
    mmlp_context *context = NULL;
    mmlp_mlp *mlp = NULL;
    int code = tool_open_device(&context, "emulator", arch);
    double start = tool_milliseconds();
    if (code == 0)
        code = tool_open_bundle(&bundle, bundle_path);
    if (code == 0) {
        mmlp_status status = mmlp_mlp_load(&mlp, context, bundle, NULL);
        if (status != MMLP_OK)
            code = tool_fail_status(status);
    }
    double elapsed = tool_milliseconds() - start;
    mmlp_mlp_unload(mlp);
    mmlp_bundle_close(bundle);
    mmlp_context_destroy(context);
    return code == 0 ? elapsed : -code;
}

static double in_fresh_process(measurement *measure, const char *argument, const char *arch,
                               const char *cache_dir)
{
    int pipe_ends[2];
    double result = -EXIT_DEVICE;
    if (pipe(pipe_ends) != 0)
        return result;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        result = measure(argument, arch, cache_dir);
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
static int row(const char *name, measurement *measure, const char *argument, const char *arch,
               const char *folder, int warm)
{
    double runs[BENCH_RUNS];
    for (int i = 0; i < BENCH_RUNS; ++i) {
        char *cache_dir = NULL;
        if (asprintf(&cache_dir, "%s/%s%d", folder, name, warm ? 0 : i) < 0)
            return tool_fail(EXIT_DEVICE, "out of memory");
        if (warm && i == 0) /* fills the cache */
            in_fresh_process(measure, argument, arch, cache_dir);
        runs[i] = in_fresh_process(measure, argument, arch, cache_dir);
        free(cache_dir);
        if (runs[i] < 0)
            return (int)-runs[i];
    }
    double median = bench_median(runs);
    printf("%-46s %10.1f %10.1f %10.1f\n", name, median, runs[0], runs[BENCH_RUNS - 1]);
    return 0;
}

/* A bundle has one file per kernel. */
static size_t count_kernels(const char *bundle)
{
    glob_t files = {0};
    char *pattern = NULL;
    size_t count = 0;
    if (asprintf(&pattern, "%s/*.cu", bundle) > 0 && glob(pattern, 0, NULL, &files) == 0)
        count = files.gl_pathc;
    globfree(&files);
    free(pattern);
    return count;
}

int bench_jit(const char *spec, const char *arch)
{
    char *folder = tool_temporary_folder();
    if (!folder)
        return EXIT_DEVICE;
    char *bundle = NULL;
    int code = tool_generate(&bundle, spec, NULL, folder);
    if (code == 0) {
        printf("%zu kernels: those of a training step, and fill\n\n", count_kernels(bundle));
        printf("%-46s %10s %10s %10s\n", "fresh process", "median ms", "least", "most");
        code = row("spec to cubins, all kernels of a training step", spec_to_cubins, spec, arch,
                   folder, 0);
    }
    if (code == 0)
        code = row("bundle to all kernels loaded, empty cache", load, bundle, arch, folder, 0);
    if (code == 0)
        code = row("bundle to all kernels loaded, disk cache", load, bundle, arch, folder, 1);
    free(bundle);
    tool_remove_folder(folder);
    return code;
}
