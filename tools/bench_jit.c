/* bench_jit.c: from a spec to a training step's loaded kernels, each run in a fresh process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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

static int print_kernels(const mmlp_mlp *mlp)
{
    printf("\n%-58s %10s\n", "kernel", "compile ms");
    for (int i = 0; i < mmlp_mlp_kernel_count(mlp); ++i) {
        mmlp_kernel_properties kernel = MMLP_KERNEL_PROPERTIES_INIT;
        mmlp_status status = mmlp_mlp_kernel(mlp, i, &kernel);
        if (status != MMLP_OK)
            return tool_fail_status(status);
        printf("%-58s %10.1f\n", kernel.name, kernel.compile_ms);
    }
    fflush(stdout);
    return 0;
}

/* Into *elapsed; prints what each kernel took where `prints`. Returns 0 or an exit code. */
static int load(double *elapsed, const subject *of, const char *cache_dir, int prints)
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
    if (code == 0 && prints)
        code = print_kernels(mlp);
    mmlp_mlp_unload(mlp);
    mmlp_bundle_close(bundle);
    mmlp_context_destroy(context);
    return code;
}

static double load_all(const subject *of, const char *cache_dir)
{
    double elapsed;
    int code = load(&elapsed, of, cache_dir, 0);
    return code == 0 ? elapsed : -code;
}

static double load_and_print(const subject *of, const char *cache_dir)
{
    double elapsed;
    int code = load(&elapsed, of, cache_dir, 1);
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
        code = row("bundle to all kernels loaded, empty cache", load_all, &of, folder, 0);
    if (code == 0)
        code = row("bundle to all kernels loaded, disk cache", load_all, &of, folder, 1);
    if (code == 0 && asprintf(&cache_dir, "%s/kernels", folder) < 0)
        code = tool_fail(EXIT_DEVICE, "out of memory");
    if (code == 0) {
        double elapsed = in_fresh_process(load_and_print, &of, cache_dir);
        code = elapsed < 0 ? (int)-elapsed : 0;
    }
    free(cache_dir);
    free(bundle);
    tool_remove_folder(folder);
    return code;
}
