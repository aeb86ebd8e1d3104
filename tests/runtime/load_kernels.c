/* load_kernels.c: where kernels come from: bundle, cache, compiler; and what load refuses. */
#include <criterion/criterion.h>
#include <cuda.h>
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "made_bundle.h"
#include "temporary_folder.h"

static void expect_origin(const mmlp_mlp *mlp, const char *origin)
{
    cr_assert_eq(mmlp_mlp_kernel_count(mlp), 3);
    for (int i = 0; i < 3; i++) {
        mmlp_kernel_properties kernel = MMLP_KERNEL_PROPERTIES_INIT;
        cr_assert_eq(mmlp_mlp_kernel(mlp, i, &kernel), MMLP_OK);
        cr_expect_str_eq(kernel.origin, origin, "%s", kernel.name);
        cr_expect(strcmp(origin, "compiled") == 0 ? kernel.compile_ms > 0 : kernel.compile_ms == 0);
    }
}

static void load_and_expect(const mmlp_bundle *bundle, const char *cache, const char *readonly,
                            const char *origin)
{
    mmlp_context *context = open_context(NULL, cache, readonly);
    mmlp_mlp *mlp = NULL;
    cr_assert_eq(mmlp_mlp_load(&mlp, context, bundle, NULL), MMLP_OK, "%s", mmlp_last_error());
    expect_origin(mlp, origin);
    mmlp_mlp_unload(mlp);
    mmlp_context_destroy(context);
}

static int count_files(const char *folder, const char *suffix)
{
    DIR *entries = opendir(folder);
    int count = 0;
    for (struct dirent *entry; entries && (entry = readdir(entries)) != NULL;) {
        size_t length = strlen(entry->d_name), wanted = strlen(suffix);
        count += length > wanted && strcmp(entry->d_name + length - wanted, suffix) == 0;
    }
    if (entries)
        closedir(entries);
    return count;
}

static int count_text(const char *text, const char *what)
{
    int count = 0;
    for (const char *at = text; at && (at = strstr(at, what)) != NULL; at++)
        count++;
    return count;
}

Test(load, kernels_are_compiled_once_and_then_come_from_the_cache)
{
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    char *cache = temporary_folder_make();
    load_and_expect(bundle, cache, NULL, "compiled");
    cr_expect_eq(count_files(cache, ".kernel"), 3);
    load_and_expect(bundle, cache, NULL, "cache");
    load_and_expect(bundle, "", cache, "cache");
    load_and_expect(bundle, "", NULL, "compiled");
    mmlp_bundle_close(bundle);
    made_free(&made);
    temporary_folder_remove(cache);
}

Test(load, a_bad_cache_entry_is_told_and_replaced)
{
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    char *cache = temporary_folder_make();
    load_and_expect(bundle, cache, NULL, "compiled");
    DIR *entries = opendir(cache);
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        if (strstr(entry->d_name, ".kernel"))
            write_file(cache, entry->d_name, "spoiled", 7);
    }
    closedir(entries);
    log_lines lines;
    mmlp_context *context = open_context(&lines, cache, NULL);
    mmlp_mlp *mlp = NULL;
    cr_assert_eq(mmlp_mlp_load(&mlp, context, bundle, NULL), MMLP_OK, "%s", mmlp_last_error());
    expect_origin(mlp, "compiled");
    cr_expect_eq(count_text(lines.text, ": the entry is too short\n"), 3, "%s", lines.text);
    mmlp_mlp_unload(mlp);
    mmlp_context_destroy(context);
    free_lines(&lines);
    load_and_expect(bundle, cache, NULL, "cache");
    mmlp_bundle_close(bundle);
    made_free(&made);
    temporary_folder_remove(cache);
}

Test(load, a_cache_that_cannot_be_written_is_one_warning)
{
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    char *folder = temporary_folder_make();
    write_file(folder, "file", "x", 1);
    char cache[4200];
    snprintf(cache, sizeof cache, "%s/file", folder);
    log_lines lines;
    mmlp_context *context = open_context(&lines, cache, NULL);
    mmlp_mlp *mlp = NULL;
    cr_assert_eq(mmlp_mlp_load(&mlp, context, bundle, NULL), MMLP_OK, "%s", mmlp_last_error());
    expect_origin(mlp, "compiled");
    cr_expect_eq(count_text(lines.text, "warning: kernels are not cached: "), 1, "%s", lines.text);
    mmlp_mlp_unload(mlp);
    mmlp_context_destroy(context);
    free_lines(&lines);
    mmlp_bundle_close(bundle);
    made_free(&made);
    temporary_folder_remove(folder);
}

/* A limit on the size of files ends a write half-way, as a full disk does. */
Test(load, a_cache_on_a_full_disk_is_one_warning_and_keeps_nothing_half_written)
{
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    char *cache = temporary_folder_make();
    log_lines lines;
    mmlp_context *context = open_context(&lines, cache, NULL);
    mmlp_mlp *mlp = NULL;
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit before, full;
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    full = before;
    full.rlim_cur = 1024;
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &full), 0);
    mmlp_status status = mmlp_mlp_load(&mlp, context, bundle, NULL);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    cr_assert_eq(status, MMLP_OK, "%s", mmlp_last_error());
    expect_origin(mlp, "compiled");
    cr_expect_eq(count_text(lines.text, "warning: kernels are not cached: "), 1, "%s", lines.text);
    cr_expect_eq(count_files(cache, ""), 3, "more than '.', '..' and 'lock' is left");
    mmlp_mlp_unload(mlp);
    mmlp_context_destroy(context);
    free_lines(&lines);
    mmlp_bundle_close(bundle);
    made_free(&made);
    temporary_folder_remove(cache);
}

/* Each process writes one byte for each kernel that it compiled itself. */
Test(load, of_eight_processes_on_one_cold_cache_one_compiles_each_kernel)
{
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    char *cache = temporary_folder_make();
    int counts[2];
    cr_assert_eq(pipe(counts), 0);
    for (int i = 0; i < 8; i++) {
        if (fork() != 0)
            continue;
        /* An assertion would go on with the test in this process too: only the status tells. */
        mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
        options.cache_dir = cache;
        mmlp_context *context = NULL;
        mmlp_mlp *mlp = NULL;
        bool ok = mmlp_context_create(&context, &options) == MMLP_OK &&
                  mmlp_mlp_load(&mlp, context, bundle, NULL) == MMLP_OK;
        for (int k = 0; ok && k < 3; k++) {
            mmlp_kernel_properties kernel = MMLP_KERNEL_PROPERTIES_INIT;
            mmlp_mlp_kernel(mlp, k, &kernel);
            if (strcmp(kernel.origin, "compiled") == 0)
                ok = ok && write(counts[1], "x", 1) == 1;
        }
        mmlp_mlp_unload(mlp);
        mmlp_context_destroy(context);
        _exit(ok ? 0 : 1);
    }
    close(counts[1]);
    int compiled = 0, failed = 0, status;
    for (char byte; read(counts[0], &byte, 1) == 1;)
        compiled++;
    close(counts[0]);
    while (wait(&status) > 0)
        failed += status != 0;
    cr_expect_eq(failed, 0);
    cr_expect_eq(compiled, 3);
    cr_expect_eq(count_files(cache, ".kernel"), 3);
    mmlp_bundle_close(bundle);
    made_free(&made);
    temporary_folder_remove(cache);
}

Test(load, verbose_says_why_each_kernel_missed)
{
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    char *cache = temporary_folder_make();
    log_lines lines;
    mmlp_context *context = open_context(&lines, cache, NULL);
    mmlp_mlp *mlp = NULL;
    cr_assert_eq(mmlp_mlp_load(&mlp, context, bundle, NULL), MMLP_OK, "%s", mmlp_last_error());
    const char *miss = strstr(lines.text, "made_fc1: cache miss, ");
    cr_assert(miss, "%s", lines.text);
    cr_expect_null(strstr(miss + 1, "made_fc1: cache miss, "), "it is told twice");
    cr_expect(strstr(lines.text, ".kernel: no entry\n"), "%s", lines.text);
    cr_expect(strstr(lines.text, "made_fc1: compiled for compute_"), "%s", lines.text);
    mmlp_mlp_unload(mlp);
    mmlp_context_destroy(context);
    free_lines(&lines);
    mmlp_bundle_close(bundle);
    made_free(&made);
    temporary_folder_remove(cache);
}

static mmlp_status load_made(made_bundle *made, const char *cache)
{
    made_write(made);
    mmlp_bundle *bundle = NULL;
    cr_assert_eq(mmlp_bundle_open(&bundle, made->folder), MMLP_OK, "%s", mmlp_last_error());
    mmlp_context *context = open_context(NULL, cache, NULL);
    mmlp_mlp *mlp = NULL;
    mmlp_status status = mmlp_mlp_load(&mlp, context, bundle, NULL);
    cr_expect((mlp != NULL) == (status == MMLP_OK));
    mmlp_mlp_unload(mlp);
    mmlp_context_destroy(context);
    mmlp_bundle_close(bundle);
    return status;
}

Test(load, a_compile_error_names_the_line_of_the_template)
{
    made_bundle made = made_start();
    made_set_source(&made, "made_fc1.cu",
                    "constexpr int hidden = 24;\n\nint f() { return oops; }\n");
    cr_expect_eq(load_made(&made, ""), MMLP_ERROR_COMPILE);
    cr_expect(strstr(mmlp_last_error(), "kernels/made.cu:21 (made_fc1.cu:3)"), "%s",
              mmlp_last_error());
    cr_expect(strstr(mmlp_last_error(), "identifier \"oops\" is undefined"), "%s",
              mmlp_last_error());
    made_free(&made);
}

Test(load, an_image_of_the_bundle_is_taken_first_and_a_cubin_gives_way_to_ptx)
{
    static const char ptx[] = ".version 9.0\n.target sm_80\n.address_size 64\n"
                              ".visible .entry made_fill(.param .u64 a, .param .u64 b, "
                              ".param .u64 c, .param .u64 d, .param .u64 e, .param .u64 f, "
                              ".param .u64 g, .param .u64 h, .param .f32 i, .param .f32 j, "
                              ".param .u64 k, .param .u32 l, .param .u32 m)\n{\nret;\n}\n";
    made_bundle made = made_start();
    made_set_source(&made, "f.ptx", ptx);
    made_set_source(&made, "f.cubin", "\177ELF, a cubin for a GPU");
    json_t *images =
        json_pack("[{s:s,s:s,s:s},{s:s,s:s,s:s}]", "target", "sm_80", "kind", "cubin", "file",
                  "f.cubin", "target", "sm_80", "kind", "ptx", "file", "f.ptx");
    json_object_set_new(json_array_get(json_object_get(made.manifest, "kernels"), 2), "images",
                        images);
    made_write(&made);
    mmlp_bundle *bundle = NULL;
    cr_assert_eq(mmlp_bundle_open(&bundle, made.folder), MMLP_OK, "%s", mmlp_last_error());
    mmlp_context *context = open_context(NULL, "", NULL);
    mmlp_mlp *mlp = NULL;
    cr_assert_eq(mmlp_mlp_load(&mlp, context, bundle, NULL), MMLP_OK, "%s", mmlp_last_error());
    mmlp_kernel_properties kernel = MMLP_KERNEL_PROPERTIES_INIT;
    mmlp_mlp_kernel(mlp, 2, &kernel);
    cr_expect_str_eq(kernel.origin, "bundle");
    mmlp_mlp_kernel(mlp, 0, &kernel);
    cr_expect_str_eq(kernel.origin, "compiled");
    mmlp_mlp_unload(mlp);
    mmlp_context_destroy(context);
    mmlp_bundle_close(bundle);
    made_free(&made);
}

Test(load, arguments_that_are_not_the_kernels_parameters_are_refused)
{
    char *cache = temporary_folder_make();
    made_bundle made = made_start();
    json_t *kernel = json_array_get(json_object_get(made.manifest, "kernels"), 1);
    json_object_set_new(kernel, "arguments",
                        json_pack("[s,s,s]", "activation_output", "linear_fc2.weight", "output"));
    cr_expect_eq(load_made(&made, cache), MMLP_ERROR_FORMAT);
    cr_expect(strstr(mmlp_last_error(), "kernel made_fc2 has more parameters than the 3 the "
                                        "manifest gives it"),
              "%s", mmlp_last_error());
    json_object_set_new(kernel, "arguments",
                        json_pack("[s,s,s,s,s]", "activation_output", "linear_fc2.weight", "output",
                                  "tokens", "tokens"));
    cr_expect_eq(load_made(&made, cache), MMLP_ERROR_FORMAT);
    cr_expect(strstr(mmlp_last_error(), "kernel made_fc2 has 4 parameters, the manifest gives it "
                                        "5"),
              "%s", mmlp_last_error());
    json_object_set_new(kernel, "arguments", json_pack("[s]", "linear_fc3.weight"));
    cr_expect_eq(load_made(&made, cache), MMLP_ERROR_FORMAT);
    cr_expect(
        strstr(mmlp_last_error(), "kernel made_fc2: found the argument \"linear_fc3.weight\""),
        "%s", mmlp_last_error());
    made_free(&made);
    temporary_folder_remove(cache);
}

Test(load, a_kernel_without_its_entry_is_refused)
{
    made_bundle made = made_start();
    json_t *kernel = json_array_get(json_object_get(made.manifest, "kernels"), 1);
    json_object_set_new(kernel, "entry", json_string("made_fc9"));
    cr_expect_eq(load_made(&made, ""), MMLP_ERROR_DEVICE);
    cr_expect_str_eq(mmlp_last_error(),
                     "kernel made_fc9: CUDA_ERROR_NOT_FOUND: named symbol not found");
    made_free(&made);
}

Test(load, a_device_without_a_kernel_family_is_refused)
{
    made_bundle made = made_start();
    for (int i = 0; i < 3; i++)
        json_object_set_new(json_array_get(json_object_get(made.manifest, "kernels"), (size_t)i),
                            "family", json_string("sm_130"));
    cr_expect_eq(load_made(&made, ""), MMLP_ERROR_UNSUPPORTED);
    cr_expect(strstr(mmlp_last_error(), "made.mlp: it has no forward kernels for sm_"), "%s",
              mmlp_last_error());
    made_free(&made);
}

Test(load, the_last_kernel_of_a_step_takes_all_tokens)
{
    made_bundle made = made_start();
    json_t *kernel = json_array_get(json_object_get(made.manifest, "kernels"), 0);
    json_object_set_new(kernel, "most_tokens", json_integer(64));
    cr_expect_eq(load_made(&made, ""), MMLP_ERROR_FORMAT);
    cr_expect(strstr(mmlp_last_error(), "made.mlp: kernel made_fc1: found most_tokens 64, wanted 0 "
                                        "for the last of its step"),
              "%s", mmlp_last_error());
    made_free(&made);
}

Test(load, kernels_of_a_step_have_rising_tokens)
{
    static const int wrong[][2] = {{0, 0}, {64, 64}, {8, 64}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        made_bundle made = made_start();
        json_t *kernels = json_object_get(made.manifest, "kernels");
        for (size_t k = 0; k < 2; k++) {
            json_t *kernel = json_deep_copy(json_array_get(kernels, 0));
            json_object_set_new(kernel, "most_tokens", json_integer(wrong[i][k]));
            json_array_insert_new(kernels, 0, kernel);
        }
        cr_expect_eq(load_made(&made, ""), MMLP_ERROR_FORMAT);
        cr_expect(strstr(mmlp_last_error(), "wanted more than the one before it of its step has"),
                  "%s", mmlp_last_error());
        made_free(&made);
    }
}

Test(load, more_shared_memory_than_the_device_has_is_refused)
{
    made_bundle made = made_start();
    json_object_set_new(json_array_get(json_object_get(made.manifest, "kernels"), 0),
                        "dynamic_shared_bytes", json_integer(1 << 20));
    cr_expect_eq(load_made(&made, ""), MMLP_ERROR_UNSUPPORTED);
    cr_expect(strstr(mmlp_last_error(), "kernel made_fc1: a block of 64 threads and 1048576 bytes "
                                        "of shared memory; this device (sm_"),
              "%s", mmlp_last_error());
    made_free(&made);
}

Test(load, max_tokens_is_bounded_by_the_grid)
{
    made_bundle made = made_start();
    json_t *grid =
        json_object_get(json_array_get(json_object_get(made.manifest, "kernels"), 0), "grid");
    json_object_set_new(grid, "columns", json_integer(1 << 24));
    json_object_set_new(grid, "tile_n", json_integer(1));
    made_write(&made);
    mmlp_bundle *bundle = NULL;
    cr_assert_eq(mmlp_bundle_open(&bundle, made.folder), MMLP_OK);
    mmlp_context *context = open_context(NULL, "", NULL);
    mmlp_mlp *mlp = NULL;
    mmlp_mlp_options options = MMLP_MLP_OPTIONS_INIT;
    options.max_tokens = 128;
    cr_expect_eq(mmlp_mlp_load(&mlp, context, bundle, &options), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(),
                     "max_tokens: 128 gives kernel made_fc1 a grid of 2147483648 blocks, at most "
                     "2147483647 are possible");
    options.max_tokens = -1;
    cr_expect_eq(mmlp_mlp_load(&mlp, context, bundle, &options), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(), "max_tokens: -1 was given, wanted 0 to 2147483647");
    mmlp_context_destroy(context);
    mmlp_bundle_close(bundle);
    made_free(&made);
}

Test(load, wgrad_depth_is_bounded)
{
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    mmlp_context *context = open_context(NULL, "", NULL);
    mmlp_mlp *mlp = NULL;
    mmlp_mlp_options options = MMLP_MLP_OPTIONS_INIT;
    options.wgrad_depth = -1;
    cr_expect_eq(mmlp_mlp_load(&mlp, context, bundle, &options), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(), "wgrad_depth: -1 was given, wanted 0 to 4096");
    options.wgrad_depth = 4097;
    cr_expect_eq(mmlp_mlp_load(&mlp, context, bundle, &options), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(), "wgrad_depth: 4097 was given, wanted 0 to 4096");
    mmlp_context_destroy(context);
    mmlp_bundle_close(bundle);
    made_free(&made);
}

/* What the kernels of a backward pass cannot be given, as changes of one manifest. */
Test(load, a_backward_pass_that_cannot_work_is_refused)
{
    static const struct {
        int kernel, argument; /* the argument, or -1 for `when` */
        const char *name, *message;
    } cases[] = {
        {3, 0, "output",
         "kernel made_fc2_dgrad: found the argument \"output\", wanted a tensor, number or buffer "
         "of a dgrad pass"},
        {3, 0, "activation_output",
         "kernel made_fc2_dgrad: found the argument \"activation_output\""},
        {0, 0, "grad_output", "kernel made_fc1: found the argument \"grad_output\""},
        {0, 0, "beta", "kernel made_fc1: found the argument \"beta\""},
        {9, 0, "per_token_scale",
         "kernel made_fc2_wgrad: found the argument \"per_token_scale\", wanted a tensor, number "
         "or buffer of a backward_dw pass"},
        {9, 1, "scale_terms", "kernel made_fc2_wgrad: found the argument \"scale_terms\""},
        {3, -1, "output",
         "kernel made_fc2_dgrad: found when \"output\", wanted \"always\" or a tensor of a dgrad "
         "pass"},
        {2, -1, "output", "kernel made_fill: found when \"output\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        made_bundle made = made_start();
        made_add_backward(&made, true);
        json_t *kernel =
            json_array_get(json_object_get(made.manifest, "kernels"), (size_t)cases[i].kernel);
        if (cases[i].argument >= 0)
            json_array_set_new(json_object_get(kernel, "arguments"), (size_t)cases[i].argument,
                               json_string(cases[i].name));
        else
            json_object_set_new(kernel, "when", json_string(cases[i].name));
        cr_expect_eq(load_made(&made, ""), MMLP_ERROR_FORMAT, "case %zu", i);
        cr_expect(strstr(mmlp_last_error(), cases[i].message), "case %zu: %s", i,
                  mmlp_last_error());
        made_free(&made);
    }
}

Test(load, dgrad_and_backward_dw_come_together)
{
    made_bundle made = made_start();
    made_add_backward(&made, true);
    json_t *kernels = json_object_get(made.manifest, "kernels");
    json_array_remove(kernels, 10);
    json_array_remove(kernels, 9);
    cr_expect_eq(load_made(&made, ""), MMLP_ERROR_FORMAT);
    cr_expect(strstr(mmlp_last_error(), "made.mlp: found 6 dgrad and 0 backward_dw kernels for "
                                        "sm_"),
              "%s", mmlp_last_error());
    made_free(&made);
}

Test(load, without_nvrtc_the_line_says_where_it_was_looked_for)
{
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
    options.cache_dir = "";
    options.nvrtc = "/nowhere/libnvrtc.so.13";
    mmlp_context *context = NULL;
    cr_assert_eq(mmlp_context_create(&context, &options), MMLP_OK, "%s", mmlp_last_error());
    mmlp_mlp *mlp = NULL;
    cr_expect_eq(mmlp_mlp_load(&mlp, context, bundle, NULL), MMLP_ERROR_DRIVER);
    cr_expect(strstr(mmlp_last_error(), "NVRTC: /nowhere/libnvrtc.so.13 not found"), "%s",
              mmlp_last_error());
    mmlp_context_destroy(context);
    mmlp_bundle_close(bundle);
    made_free(&made);
}

/* Whether a library of that name is in this process. */
static bool is_in_memory(const char *name)
{
    char line[8192];
    bool found = false;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof line, maps))
        found = found || strstr(line, name);
    fclose(maps);
    return found;
}

Test(load, a_warm_start_never_opens_nvrtc)
{
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    char *cache = temporary_folder_make();
    pid_t child = fork();
    if (child == 0) { /* the cold start, elsewhere */
        mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
        options.cache_dir = cache;
        mmlp_context *context = NULL;
        mmlp_mlp *mlp = NULL;
        bool ok = mmlp_context_create(&context, &options) == MMLP_OK &&
                  mmlp_mlp_load(&mlp, context, bundle, NULL) == MMLP_OK &&
                  is_in_memory("libnvrtc.so");
        mmlp_mlp_unload(mlp);
        mmlp_context_destroy(context);
        _exit(ok ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    cr_assert_eq(status, 0);
    load_and_expect(bundle, cache, NULL, "cache");
    cr_expect_not(is_in_memory("libnvrtc"));
    mmlp_bundle_close(bundle);
    made_free(&made);
    temporary_folder_remove(cache);
}

typedef struct loader {
    mmlp_context *context;
    const mmlp_bundle *bundle;
    bool ok;
} loader;

static void *load_in_a_thread(void *user)
{
    loader *l = user;
    l->ok = true;
    for (int i = 0; i < 3; i++) {
        mmlp_mlp *mlp = NULL;
        l->ok = l->ok && mmlp_mlp_load(&mlp, l->context, l->bundle, NULL) == MMLP_OK;
        mmlp_mlp_unload(mlp);
    }
    return NULL;
}

Test(load, threads_may_share_a_context)
{
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    char *cache = temporary_folder_make();
    log_lines lines;
    mmlp_context *context = open_context(&lines, cache, NULL);
    pthread_t threads[4];
    loader loaders[4];
    for (int i = 0; i < 4; i++) {
        loaders[i] = (loader){context, bundle, false};
        cr_assert_eq(pthread_create(&threads[i], NULL, load_in_a_thread, &loaders[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        cr_expect(loaders[i].ok);
    }
    cr_expect_eq(count_text(lines.text, ": compiled for "), 3, "%s", lines.text);
    mmlp_context_destroy(context);
    free_lines(&lines);
    mmlp_bundle_close(bundle);
    made_free(&made);
    temporary_folder_remove(cache);
}

Test(load, the_threads_current_context_is_left_as_it_was)
{
    void *library = dlopen(MMLP_TEST_LIBCUDA, RTLD_NOW | RTLD_LOCAL);
    cr_assert_not_null(library, "%s", dlerror());
    CUresult (*get_current)(CUcontext *), (*create)(CUcontext *, unsigned, CUdevice);
    CUresult (*init)(unsigned), (*destroy)(CUcontext);
    void *found[] = {dlsym(library, "cuCtxGetCurrent"), dlsym(library, "cuCtxCreate_v2"),
                     dlsym(library, "cuInit"), dlsym(library, "cuCtxDestroy_v2")};
    memcpy(&get_current, &found[0], sizeof get_current);
    memcpy(&create, &found[1], sizeof create);
    memcpy(&init, &found[2], sizeof init);
    memcpy(&destroy, &found[3], sizeof destroy);
    CUcontext mine = NULL, current = NULL;
    cr_assert_eq(init(0), CUDA_SUCCESS);
    cr_assert_eq(create(&mine, 0, 0), CUDA_SUCCESS);

    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    char *cache = temporary_folder_make();
    load_and_expect(bundle, cache, NULL, "compiled");
    get_current(&current);
    cr_expect_eq(current, mine);
    made_set_source(&made, "made_fc2.cu", "oops");
    cr_expect_eq(load_made(&made, cache), MMLP_ERROR_COMPILE);
    get_current(&current);
    cr_expect_eq(current, mine);
    destroy(mine);
    dlclose(library);
    mmlp_bundle_close(bundle);
    made_free(&made);
    temporary_folder_remove(cache);
}
