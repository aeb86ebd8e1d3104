/*
 * load.c: a bundle onto a device. Every kernel is in the driver's hands when mmlp_mlp_load returns;
 * nothing compiles or loads later.
 */
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "collectives.h"
#include "compile.h"

enum { DEFAULT_MAX_TOKENS = 65536, DEFAULT_WGRAD_DEPTH = 1, MAX_WGRAD_DEPTH = 4096 };

static double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

/* ---- which kernels, and what they are given ------------------------------------------------- */

/* Of two families that both run somewhere: whether the first was made for it rather than the other.
 */
static bool is_closer(const bundle_arch *a, const bundle_arch *b)
{
    return a->number > b->number || (a->number == b->number && a->is_exact && !b->is_exact);
}

/* Whether this device runs the kernel: it has its family, and no later family has the same step. */
static bool is_for(const bundle_kernel *kernel, const mmlp_bundle *bundle, int compute_capability)
{
    if (!bundle_arch_runs_on(&kernel->family, compute_capability))
        return false;
    for (int i = 0; i < bundle->kernel_count; i++) {
        const bundle_kernel *other = &bundle->kernels[i];
        if (other->pass == kernel->pass && strcmp(other->step, kernel->step) == 0 &&
            bundle_arch_runs_on(&other->family, compute_capability) &&
            is_closer(&other->family, &kernel->family))
            return false;
    }
    return true;
}

static mmlp_status bind_arguments(loaded_kernel *loaded, const mmlp_bundle *bundle)
{
    const bundle_kernel *kernel = loaded->kernel;
    for (int i = 0; i < kernel->argument_count; i++) {
        loaded->slots[i] = slot_find(bundle, kernel->arguments[i], kernel->pass);
        if (loaded->slots[i] < 0)
            return mmlp_fail(MMLP_ERROR_FORMAT,
                             "%s: kernel %s: found the argument \"%.64s\", wanted a tensor, "
                             "number or buffer of a %s pass",
                             bundle->path, kernel->entry, kernel->arguments[i], kernel->pass_name);
    }
    for (int i = 0; i < kernel->map_count; i++) {
        loaded->map_slots[i] = slot_find(bundle, kernel->maps[i].tensor, kernel->pass);
        bool number = loaded->map_slots[i] >= TENSOR_COUNT && loaded->map_slots[i] < SLOT_BUFFER;
        if (loaded->map_slots[i] < 0 || number)
            return mmlp_fail(MMLP_ERROR_FORMAT,
                             "%s: kernel %s: found a map of \"%.64s\", wanted a tensor or buffer "
                             "of a %s pass",
                             bundle->path, kernel->entry, kernel->maps[i].tensor,
                             kernel->pass_name);
    }
    loaded->when = -1;
    if (strcmp(kernel->when, "always") == 0)
        return MMLP_OK;
    loaded->when = slot_find(bundle, kernel->when, kernel->pass);
    if (loaded->when < 0)
        return mmlp_fail(MMLP_ERROR_FORMAT,
                         "%s: kernel %s: found when \"%s\", wanted \"always\" or a tensor of a %s "
                         "pass",
                         bundle->path, kernel->entry, kernel->when, kernel->pass_name);
    return MMLP_OK;
}

/* Kernels of one step that follow each other share the tokens between them. */
static mmlp_status bind_tokens(const mmlp_mlp *mlp)
{
    for (int i = 0; i < mlp->kernel_count; i++) {
        loaded_kernel *loaded = &mlp->kernels[i];
        const bundle_kernel *kernel = loaded->kernel;
        const bundle_kernel *before = i > 0 ? mlp->kernels[i - 1].kernel : NULL;
        bool first =
            !before || before->pass != kernel->pass || strcmp(before->step, kernel->step) != 0;
        bool last = i + 1 == mlp->kernel_count ||
                    mlp->kernels[i + 1].kernel->pass != kernel->pass ||
                    strcmp(mlp->kernels[i + 1].kernel->step, kernel->step) != 0;
        loaded->least_tokens = first ? 0 : before->most_tokens + 1;
        loaded->most_tokens = kernel->most_tokens ? kernel->most_tokens : INT64_MAX;
        if (last != (kernel->most_tokens == 0) || loaded->most_tokens < loaded->least_tokens)
            return mmlp_fail(MMLP_ERROR_FORMAT, "%s: kernel %s: found most_tokens %lld, wanted %s",
                             mlp->bundle->path, kernel->entry, (long long)kernel->most_tokens,
                             last ? "0 for the last of its step"
                                  : "more than the one before it of its step has");
    }
    return MMLP_OK;
}

/* The manifest's arguments are the parameters that the compiled kernel has: a launch reads through
 * an array of pointers whose length nobody else checks. */
static mmlp_status check_parameters(const loaded_kernel *loaded, const mmlp_mlp *mlp)
{
    const driver *d = &mlp->context->cuda;
    const bundle_kernel *kernel = loaded->kernel;
    int count = kernel->map_count + kernel->argument_count;
    size_t offset, bytes;
    for (int i = 0; i < count; i++) {
        int argument = i - kernel->map_count;
        const char *name = argument < 0 ? kernel->maps[i].tensor : kernel->arguments[argument];
        size_t wanted = argument < 0 ? sizeof(CUtensorMap) : slot_bytes(loaded->slots[argument]);
        if (d->cuFuncGetParamInfo(loaded->function, (size_t)i, &offset, &bytes) != CUDA_SUCCESS)
            return mmlp_fail(MMLP_ERROR_FORMAT,
                             "%s: kernel %s has %d parameters, the manifest gives it %d",
                             mlp->bundle->path, kernel->entry, i, count);
        if (bytes != wanted)
            return mmlp_fail(MMLP_ERROR_FORMAT,
                             "%s: kernel %s: parameter %d has %zu bytes, \"%s\" has %zu",
                             mlp->bundle->path, kernel->entry, i, bytes, name, wanted);
    }
    if (d->cuFuncGetParamInfo(loaded->function, (size_t)count, &offset, &bytes) == CUDA_SUCCESS)
        return mmlp_fail(MMLP_ERROR_FORMAT,
                         "%s: kernel %s has more parameters than the %d the manifest gives it",
                         mlp->bundle->path, kernel->entry, count);
    return MMLP_OK;
}

static mmlp_status choose_kernels(mmlp_mlp *mlp)
{
    const mmlp_bundle *bundle = mlp->bundle;
    const mmlp_context *context = mlp->context;
    mlp->kernels = calloc((size_t)bundle->kernel_count, sizeof *mlp->kernels);
    if (!mlp->kernels)
        return mmlp_fail_memory((size_t)bundle->kernel_count * sizeof *mlp->kernels, "kernels");
    int counts[BUNDLE_INIT + 1] = {0};
    for (int i = 0; i < bundle->kernel_count; i++) {
        const bundle_kernel *kernel = &bundle->kernels[i];
        if (!is_for(kernel, bundle, context->compute_capability))
            continue;
        if (kernel->threads > context->max_threads_per_block ||
            kernel->dynamic_shared_bytes > context->shared_per_block_optin)
            return mmlp_fail(MMLP_ERROR_UNSUPPORTED,
                             "kernel %s: a block of %lld threads and %lld bytes of shared memory; "
                             "this device (%s) has %d and %d",
                             kernel->entry, (long long)kernel->threads,
                             (long long)kernel->dynamic_shared_bytes, context->arch,
                             context->max_threads_per_block, context->shared_per_block_optin);
        if (kernel->pass != BUNDLE_INIT && kernel_tiles(kernel, mlp->max_tokens) > INT32_MAX)
            return mmlp_fail(MMLP_ERROR_ARGUMENT,
                             "max_tokens: %lld gives kernel %s a grid of %lld blocks, at most %d "
                             "are possible",
                             (long long)mlp->max_tokens, kernel->entry,
                             (long long)kernel_tiles(kernel, mlp->max_tokens), INT32_MAX);
        loaded_kernel *loaded = &mlp->kernels[mlp->kernel_count++];
        loaded->kernel = kernel;
        MMLP_TRY(bind_arguments(loaded, bundle));
        loaded->gradient = gradient_of(loaded);
        counts[kernel->pass]++;
    }
    if (counts[BUNDLE_FORWARD] == 0)
        return mmlp_fail(MMLP_ERROR_UNSUPPORTED, "%s: it has no forward kernels for %s",
                         bundle->path, context->arch);
    mlp->has_dgrad = counts[BUNDLE_DGRAD] > 0;
    if (mlp->has_dgrad != (counts[BUNDLE_BACKWARD_DW] > 0))
        return mmlp_fail(
            MMLP_ERROR_FORMAT,
            "%s: found %d dgrad and %d backward_dw kernels for %s, wanted both or none",
            bundle->path, counts[BUNDLE_DGRAD], counts[BUNDLE_BACKWARD_DW], context->arch);
    memory_examine(mlp);
    return bind_tokens(mlp);
}

/* ---- into the driver ------------------------------------------------------------------------ */

/* Hands one image to the driver. *loaded_it is false, with OK, when the device cannot take it. */
static mmlp_status load_image(bool *loaded_it, loaded_kernel *loaded, const mmlp_context *context,
                              const char *image)
{
    const driver *d = &context->cuda;
    char log[1024] = "";
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(uintptr_t)sizeof log};
    double start = now_ms();
    CUresult result = d->cuModuleLoadDataEx(&loaded->module, image, 2, options, values);
    loaded->load_ms += now_ms() - start;
    *loaded_it = result == CUDA_SUCCESS;
    if (result == CUDA_SUCCESS || result == CUDA_ERROR_NO_BINARY_FOR_GPU) {
        if (result != CUDA_SUCCESS)
            loaded->module = NULL;
        return MMLP_OK;
    }
    loaded->module = NULL;
    log[strcspn(log, "\n")] = '\0';
    return driver_check(d, result, "kernel %s: loading it%s%s", loaded->kernel->entry,
                        log[0] ? ": " : "", log);
}

/* The cubin, then the PTX. Either may be NULL. */
static mmlp_status load_pair(bool *loaded_it, loaded_kernel *loaded, const mmlp_context *context,
                             const char *cubin, const char *ptx)
{
    *loaded_it = false;
    if (cubin)
        MMLP_TRY(load_image(loaded_it, loaded, context, cubin));
    if (!*loaded_it && ptx) {
        if (cubin)
            context_verbose(context, "%s: the device takes no cubin of %s, its PTX is loaded",
                            loaded->kernel->entry, context->arch);
        MMLP_TRY(load_image(loaded_it, loaded, context, ptx));
    }
    return MMLP_OK;
}

/* The image of that kind with the highest target that may run here: a cubin runs on its own major
 * version from its minor version on, PTX on everything later. */
static const char *best_image(const bundle_kernel *kernel, bool cubin, int compute_capability)
{
    const bundle_image *best = NULL;
    for (int i = 0; i < kernel->image_count; i++) {
        const bundle_image *image = &kernel->images[i];
        if (image->is_cubin == cubin && bundle_arch_runs_on(&image->target, compute_capability) &&
            (!cubin || image->target.number / 10 == compute_capability / 10) &&
            (!best || is_closer(&image->target, &best->target)))
            best = image;
    }
    return best ? best->file->bytes : NULL;
}

static mmlp_status finish_kernel(loaded_kernel *loaded, const mmlp_mlp *mlp)
{
    const driver *d = &mlp->context->cuda;
    const bundle_kernel *kernel = loaded->kernel;
    MMLP_TRY(driver_check(d,
                          d->cuModuleGetFunction(&loaded->function, loaded->module, kernel->entry),
                          "kernel %s", kernel->entry));
    MMLP_TRY(check_parameters(loaded, mlp));
    if (kernel->dynamic_shared_bytes > 0)
        MMLP_TRY(driver_check(d,
                              d->cuFuncSetAttribute(loaded->function,
                                                    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                                                    (int)kernel->dynamic_shared_bytes),
                              "kernel %s: %lld bytes of shared memory", kernel->entry,
                              (long long)kernel->dynamic_shared_bytes));
    int threads = 0;
    MMLP_TRY(driver_check(
        d,
        d->cuFuncGetAttribute(&threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, loaded->function),
        "kernel %s: its largest block", kernel->entry));
    if (threads < kernel->threads)
        return mmlp_fail(MMLP_ERROR_UNSUPPORTED,
                         "kernel %s: a block of %lld threads, it can have %d on this device",
                         kernel->entry, (long long)kernel->threads, threads);
    return MMLP_OK;
}

/* Kernels that the bundle has images for are loaded from there. */
static mmlp_status load_from_bundle(mmlp_mlp *mlp)
{
    int cc = mlp->context->compute_capability;
    for (int i = 0; i < mlp->kernel_count; i++) {
        loaded_kernel *loaded = &mlp->kernels[i];
        bool loaded_it;
        MMLP_TRY(load_pair(&loaded_it, loaded, mlp->context, best_image(loaded->kernel, true, cc),
                           best_image(loaded->kernel, false, cc)));
        if (loaded_it) {
            loaded->origin = "bundle";
            context_verbose(mlp->context, "%s: image of the bundle", loaded->kernel->entry);
        }
    }
    return MMLP_OK;
}

/* The others come from the cache or the compiler. */
static mmlp_status load_the_rest(mmlp_mlp *mlp)
{
    mmlp_status status = MMLP_OK;
    int count = 0;
    compile_job *jobs = calloc((unsigned)mlp->kernel_count, sizeof *jobs);
    if (!jobs)
        return mmlp_fail_memory((size_t)mlp->kernel_count * sizeof *jobs, "compilations");
    for (int i = 0; i < mlp->kernel_count; i++) {
        if (!mlp->kernels[i].module)
            jobs[count++].kernel = mlp->kernels[i].kernel;
    }
    MMLP_TRY_CLEANUP(compile_kernels(jobs, count, mlp->context));
    for (int i = 0, next = 0; i < mlp->kernel_count; i++) {
        loaded_kernel *loaded = &mlp->kernels[i];
        if (loaded->module)
            continue;
        const compile_job *job = &jobs[next++];
        bool loaded_it;
        loaded->origin = job->origin;
        loaded->compile_ms = job->compile_ms;
        MMLP_TRY_CLEANUP(load_pair(&loaded_it, loaded, mlp->context,
                                   job->image.cubin_bytes ? job->image.cubin : NULL,
                                   job->image.ptx));
        if (!loaded_it) {
            status = mmlp_fail(MMLP_ERROR_DEVICE,
                               "kernel %s: the driver takes neither its cubin "
                               "nor its PTX for %s",
                               loaded->kernel->entry, mlp->context->arch);
            goto cleanup;
        }
    }

cleanup:
    for (int i = 0; i < count; i++)
        cache_entry_free(&jobs[i].image);
    free(jobs);
    return status;
}

/* ---- public --------------------------------------------------------------------------------- */

mmlp_status mmlp_mlp_load(mmlp_mlp **out, mmlp_context *context, const mmlp_bundle *bundle,
                          const mmlp_mlp_options *options)
{
    if (!out)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_mlp_load: out is NULL");
    *out = NULL;
    if (!context || !bundle)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_mlp_load: %s is NULL",
                         context ? "bundle" : "context");
    mmlp_mlp_options taken = MMLP_MLP_OPTIONS_INIT;
    if (options)
        MMLP_TRY(struct_read(&taken, options, sizeof taken, "mmlp_mlp_options"));
    if (taken.max_tokens < 0 || taken.max_tokens > INT32_MAX)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "max_tokens: %lld was given, wanted 0 to %d",
                         (long long)taken.max_tokens, INT32_MAX);
    if (taken.wgrad_depth < 0 || taken.wgrad_depth > MAX_WGRAD_DEPTH)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "wgrad_depth: %d was given, wanted 0 to %d",
                         taken.wgrad_depth, MAX_WGRAD_DEPTH);

    mmlp_status status = MMLP_OK;
    bool entered = false;
    mmlp_mlp *mlp = calloc(1, sizeof *mlp);
    if (!mlp)
        return mmlp_fail_memory(sizeof *mlp, "an mlp");
    mlp->context = context;
    mlp->bundle = bundle;
    mlp->max_tokens = taken.max_tokens ? taken.max_tokens : DEFAULT_MAX_TOKENS;
    if (bundle->delay_wgrad_compute)
        MMLP_TRY_CLEANUP(wgrad_ring_create(&mlp->ring, taken.wgrad_depth ? taken.wgrad_depth
                                                                         : DEFAULT_WGRAD_DEPTH));
    MMLP_TRY_CLEANUP(choose_kernels(mlp));
    MMLP_TRY_CLEANUP(context_enter(context));
    entered = true;
    MMLP_TRY_CLEANUP(load_from_bundle(mlp));
    MMLP_TRY_CLEANUP(load_the_rest(mlp));
    for (int i = 0; i < mlp->kernel_count; i++)
        MMLP_TRY_CLEANUP(finish_kernel(&mlp->kernels[i], mlp));
    MMLP_TRY_CLEANUP(collectives_load(mlp, taken.regather_input != 0));
    *out = mlp;
    mlp = NULL;

cleanup:
    if (entered)
        context_leave(context);
    mmlp_mlp_unload(mlp);
    return status;
}

void mmlp_mlp_unload(mmlp_mlp *mlp)
{
    if (!mlp)
        return;
    char *kept =
        strdup(mmlp_last_error()); /* unloading after a failure must not replace its line */
    bool entered = context_enter(mlp->context) == MMLP_OK;
    if (entered) {
        launch_end_timing(mlp);
        collectives_unload(mlp);
        gradients_release(mlp);
    }
    for (int i = 0; entered && i < mlp->kernel_count; i++) {
        if (mlp->kernels[i].module)
            mlp->context->cuda.cuModuleUnload(mlp->kernels[i].module);
    }
    if (entered)
        context_leave(mlp->context);
    else if (kept)
        mmlp_fail(MMLP_ERROR_DEVICE, "%s", kept);
    free(kept);
    wgrad_ring_free(&mlp->ring);
    free(mlp->kernels);
    free(mlp);
}

int mmlp_mlp_kernel_count(const mmlp_mlp *mlp)
{
    return mlp ? mlp->kernel_count : 0;
}

mmlp_status mmlp_mlp_kernel(const mmlp_mlp *mlp, int index, mmlp_kernel_properties *properties)
{
    if (!mlp)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_mlp_kernel: mlp is NULL");
    if (index < 0 || index >= mlp->kernel_count)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_mlp_kernel: index: found %d, wanted 0 to %d",
                         index, mlp->kernel_count - 1);
    const loaded_kernel *loaded = &mlp->kernels[index];
    const bundle_kernel *kernel = loaded->kernel;
    mmlp_kernel_properties filled = MMLP_KERNEL_PROPERTIES_INIT;
    filled.name = kernel->entry;
    filled.pass = kernel->pass_name;
    filled.step = kernel->step;
    filled.origin = loaded->origin;
    filled.compile_ms = loaded->compile_ms;
    filled.load_ms = loaded->load_ms;
    filled.tile_m = kernel->tile_m;
    filled.tile_n = kernel->tile_n;
    filled.columns = kernel->columns;
    filled.reduction = kernel->reduction;
    filled.threads = (int)kernel->threads;
    filled.shared_bytes = (int)kernel->dynamic_shared_bytes;
    filled.flops_per_token = kernel->flops_per_token;
    filled.rows = kernel->rows;
    filled.bytes = kernel->bytes;
    filled.bytes_per_token = kernel->bytes_per_token;
    filled.least_tokens = loaded->least_tokens;
    filled.most_tokens = loaded->most_tokens;
    return struct_fill(properties, &filled, sizeof filled, "mmlp_kernel_properties");
}
