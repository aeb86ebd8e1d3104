/*
 * bundle_write.c: a bundle is made whole in a temporary folder beside its place and then renamed
 * there; an existing one is exchanged in the same way and deleted afterwards.
 */
#include "bundle_write.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "emit_compile.h"

/* ---- contents -------------------------------------------------------------------------------- */

typedef struct contents {
    bundle_content *files;
    int count;
} contents;

static void free_contents(contents *c)
{
    for (int i = 0; i < c->count; i++) {
        free(c->files[i].name);
        free(c->files[i].bytes);
    }
    free(c->files);
    *c = (contents){0};
}

/* Takes ownership of name and bytes, also on failure. */
static mmlp_status add_file(contents *c, bundle_content file)
{
    bundle_content *grown = realloc(c->files, ((size_t)c->count + 1) * sizeof *grown);
    if (grown)
        c->files = grown;
    if (!grown || !file.name || !file.bytes) {
        free(file.name);
        free(file.bytes);
        return mmlp_fail_memory(file.count, "a file of a bundle");
    }
    c->files[c->count++] = file;
    return MMLP_OK;
}

static mmlp_status add_sources(contents *c, const emit_kernels *kernels)
{
    for (int i = 0; i < kernels->count; i++) {
        const text *source = &kernels->kernels[i].source.text;
        MMLP_TRY(add_file(c, (bundle_content){.name = strdup(kernels->kernels[i].file),
                                              .bytes = strdup(text_string(source)),
                                              .count = source->length,
                                              .kernel = -1}));
    }
    return MMLP_OK;
}

/* linear_fc1_forward.cu and sm_80: linear_fc1_forward.sm_80.cubin */
static char *image_name(const char *source, const char *target, const char *kind)
{
    char *name = NULL;
    int stem = (int)(strlen(source) - strlen(".cu"));
    if (asprintf(&name, "%.*s.%s.%s", stem, source, target, kind) < 0)
        return NULL;
    return name;
}

/* Moves the wanted parts of an image into the bundle. */
static mmlp_status add_image(contents *c, nvrtc_image *image, const emit_kernel *kernel, int index,
                             const char *target, const bundle_options *options)
{
    if (options->cubin) {
        char *cubin = image->cubin;
        image->cubin = NULL;
        MMLP_TRY(add_file(c, (bundle_content){image_name(kernel->file, target, "cubin"), cubin,
                                              image->cubin_bytes, index, target, "cubin"}));
    }
    if (options->ptx) {
        char *ptx = image->ptx;
        image->ptx = NULL;
        MMLP_TRY(add_file(c, (bundle_content){image_name(kernel->file, target, "ptx"), ptx,
                                              image->ptx_bytes, index, target, "ptx"}));
    }
    return MMLP_OK;
}

static mmlp_status add_images(contents *c, const emit_kernels *kernels,
                              const bundle_options *options)
{
    static const char *const default_archs[] = {"sm_80"};
    const char *const *archs = options->arch_count ? options->archs : default_archs;
    int arch_count = options->arch_count ? options->arch_count : 1;
    nvrtc_image *images;
    if (!options->ptx && !options->cubin)
        return MMLP_OK;
    MMLP_TRY(emit_compile(&images, kernels, archs, arch_count));
    mmlp_status status = MMLP_OK;
    for (int i = 0; i < kernels->count; i++)
        for (int a = 0; a < arch_count; a++)
            if (emit_runs_on(kernels, i, archs[a]))
                MMLP_TRY_CLEANUP(add_image(c, &images[i * arch_count + a], &kernels->kernels[i], i,
                                           archs[a], options));

cleanup:
    emit_images_free(images, kernels->count * arch_count);
    return status;
}

/* ---- the folder ------------------------------------------------------------------------------ */

static mmlp_status fail_io(const char *path, const char *what)
{
    return mmlp_fail(MMLP_ERROR_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

static mmlp_status write_into(const char *folder, const char *name, const void *bytes, size_t count)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", folder, name) < 0)
        return mmlp_fail_memory(strlen(folder) + strlen(name), "a path");
    mmlp_status status = file_write_atomic(path, bytes, count);
    free(path);
    return status;
}

/* Deletes a folder of plain files; what cannot be deleted stays. */
static void remove_folder(const char *folder)
{
    DIR *directory = opendir(folder);
    if (!directory)
        return;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(directory), entry->d_name, 0);
    closedir(directory);
    rmdir(folder);
}

/* Whether `path` is something that a bundle may replace: a folder with a manifest. */
static bool is_bundle(const char *path)
{
    struct stat properties;
    char *manifest = NULL;
    if (lstat(path, &properties) != 0 || !S_ISDIR(properties.st_mode) ||
        asprintf(&manifest, "%s/manifest.json", path) < 0)
        return false;
    bool exists = access(manifest, F_OK) == 0;
    free(manifest);
    return exists;
}

/* Whether the file system has no renameat2 flags, as NFS. */
static bool has_no_flags(void)
{
    return errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP;
}

/* Moves `made` to `path` where nothing stands. 0, or -1 with errno. */
static int move_to_free_place(const char *made, const char *path)
{
    struct stat properties;
    if (renameat2(AT_FDCWD, made, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
        return 0;
    if (!has_no_flags())
        return -1;
    if (lstat(path, &properties) == 0) {
        errno = EEXIST;
        return -1;
    }
    return rename(made, path);
}

/* Exchanges two folders; without the flag, by way of a third name, where for a moment nothing
 * stands at `path`. 0, or -1 with errno. */
static int exchange(const char *made, const char *path)
{
    if (renameat2(AT_FDCWD, made, AT_FDCWD, path, RENAME_EXCHANGE) == 0)
        return 0;
    char *aside = NULL;
    if (!has_no_flags() || asprintf(&aside, "%s.old", made) < 0)
        return -1;
    int result = rename(path, aside);
    if (result == 0 && (result = rename(made, path)) != 0)
        rename(aside, path);
    if (result == 0)
        result = rename(aside, made);
    free(aside);
    return result;
}

/* Moves the finished folder to its place. What stood there is in `made` afterwards, or nothing is.
 */
static mmlp_status publish(const char *made, const char *path, bool force)
{
    if (move_to_free_place(made, path) == 0)
        return MMLP_OK;
    if (errno != EEXIST)
        return fail_io(path, "create");
    if (!force)
        return mmlp_fail(MMLP_ERROR_IO, "%s exists; --force replaces it", path);
    if (!is_bundle(path))
        return mmlp_fail(MMLP_ERROR_IO,
                         "%s exists and is not a bundle (no manifest.json); it is not replaced",
                         path);
    if (exchange(made, path) != 0)
        return fail_io(path, "replace");
    return MMLP_OK;
}

static mmlp_status write_folder(const char *path, const contents *c, const char *manifest,
                                size_t manifest_bytes, bool force)
{
    mmlp_status status = MMLP_OK;
    char *made = NULL;
    if (asprintf(&made, "%s.XXXXXX", path) < 0)
        return mmlp_fail_memory(strlen(path), "a path");
    if (!mkdtemp(made)) {
        status = fail_io(path, "create a folder beside");
        free(made);
        return status;
    }
    mode_t mask = umask(0);
    umask(mask);
    if (chmod(made, 0777 & ~mask) != 0) {
        status = fail_io(made, "set the mode of");
        goto cleanup;
    }
    for (int i = 0; i < c->count; i++)
        MMLP_TRY_CLEANUP(write_into(made, c->files[i].name, c->files[i].bytes, c->files[i].count));
    MMLP_TRY_CLEANUP(write_into(made, "manifest.json", manifest, manifest_bytes));
    MMLP_TRY_CLEANUP(publish(made, path, force));

cleanup:
    remove_folder(made); /* gone after a plain rename; the old bundle after an exchange */
    free(made);
    return status;
}

/* path without slashes at its end (malloc). */
static char *trimmed(const char *path)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    return strndup(path, length);
}

mmlp_status bundle_write(const module_spec *spec, const char *path, const bundle_options *options)
{
    mmlp_status status = MMLP_OK;
    emit_kernels kernels = {0};
    contents c = {0};
    char *manifest = NULL;
    size_t manifest_bytes = 0;
    char *place = trimmed(path);
    if (!place)
        return mmlp_fail_memory(strlen(path), "a path");
    struct stat properties;
    if (!options->force && lstat(place, &properties) == 0) {
        status = mmlp_fail(MMLP_ERROR_IO, "%s exists; --force replaces it", place);
        goto cleanup;
    }
    MMLP_TRY_CLEANUP(emit_spec(&kernels, spec, options->tile));
    MMLP_TRY_CLEANUP(add_sources(&c, &kernels));
    MMLP_TRY_CLEANUP(add_images(&c, &kernels, options));
    MMLP_TRY_CLEANUP(manifest_print(&manifest, &manifest_bytes, &kernels, c.files, c.count));
    MMLP_TRY_CLEANUP(write_folder(place, &c, manifest, manifest_bytes, options->force));

cleanup:
    free(manifest);
    free_contents(&c);
    emit_free(&kernels);
    free(place);
    return status;
}
