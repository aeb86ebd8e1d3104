/*
 * emit_compile.c: emitted kernels to images, all at once. Called for bundles that are built ahead
 * of time and by `check`.
 */
#include "emit_compile.h"

#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"

typedef struct compilation {
    const nvrtc *compiler;
    const emit_kernels *kernels;
    const char *const *archs;
    int arch_count;
    nvrtc_image *images;
    mmlp_status *statuses;
    char **errors; /* the error line belongs to a thread: kept per image */
} compilation;

static void locate_line(const char **file, int *file_line, int line, const void *user)
{
    template_locate(file, file_line, user, line);
}

static void compile_range(void *user, int worker, int64_t first, int64_t last)
{
    (void)worker;
    compilation *c = user;
    for (int64_t i = first; i < last; i++) {
        const emit_kernel *kernel = &c->kernels->kernels[i / c->arch_count];
        if (!emit_runs_on(c->kernels, (int)(i / c->arch_count), c->archs[i % c->arch_count]))
            continue;
        nvrtc_source source = {.name = kernel->file,
                               .text = text_string(&kernel->source.text),
                               .target = c->archs[i % c->arch_count],
                               .line_map = locate_line,
                               .user = &kernel->source};
        c->statuses[i] = nvrtc_compile(&c->images[i], c->compiler, &source);
        if (c->statuses[i] != MMLP_OK)
            c->errors[i] = strdup(mmlp_last_error());
    }
}

static mmlp_status first_failure(const compilation *c, int count)
{
    for (int i = 0; i < count; i++)
        if (c->statuses[i] != MMLP_OK)
            return mmlp_fail(c->statuses[i], "%s", c->errors[i] ? c->errors[i] : "out of memory");
    return MMLP_OK;
}

mmlp_status emit_compile(nvrtc_image **out, const emit_kernels *kernels, const char *const *archs,
                         int arch_count)
{
    *out = NULL;
    nvrtc *compiler;
    MMLP_TRY(nvrtc_open(&compiler, NULL));
    int count = kernels->count * arch_count;
    size_t slots = (size_t)count + 1;
    compilation c = {compiler,
                     kernels,
                     archs,
                     arch_count,
                     calloc(slots, sizeof *c.images),
                     calloc(slots, sizeof *c.statuses),
                     calloc(slots, sizeof *c.errors)};
    mmlp_status status;
    if (c.images && c.statuses && c.errors) {
        parallel_for(count, 1, compile_range, &c);
        status = first_failure(&c, count);
    } else {
        status = mmlp_fail_memory(slots * sizeof *c.images, "compiled kernels");
    }
    for (int i = 0; c.errors && i < count; i++)
        free(c.errors[i]);
    free(c.errors);
    free(c.statuses);
    if (status == MMLP_OK)
        *out = c.images;
    else
        emit_images_free(c.images, count);
    nvrtc_close(compiler);
    return status;
}

void emit_images_free(nvrtc_image *images, int count)
{
    for (int i = 0; images && i < count; i++)
        nvrtc_image_free(&images[i]);
    free(images);
}
