/*
 * checkpoint.c: saving, loading and checking checkpoints. A save is a row of steps after each of
 * which the ranks agree: who fails takes part with its failure, and all leave at the same place.
 */
#include "checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "context.h"

static mmlp_status take_args(mmlp_checkpoint_args *taken, const char *path,
                             const mmlp_checkpoint_args *args)
{
    *taken = (mmlp_checkpoint_args)MMLP_CHECKPOINT_ARGS_INIT;
    if (!path || !path[0])
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_checkpoint: path is %s",
                         path ? "empty" : "NULL");
    MMLP_TRY(struct_read(taken, args, sizeof *taken, "mmlp_checkpoint_args"));
    if (taken->comm && !taken->context)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "mmlp_checkpoint_args: comm needs a context");
    return MMLP_OK;
}

/* ---- save ------------------------------------------------------------------------------------ */

typedef struct save {
    mmlp_checkpoint_args args;
    const char *path;
    char *temporary; /* PATH.saving */
    checkpoint_layout layout;
    checkpoint_ranks ranks;
    checkpoint_file file;
    bool is_made; /* by this rank, and not renamed yet */
} save;

/* What would only fail at the end is found before anything is written. */
static mmlp_status check_target(const char *path)
{
    struct stat properties;
    if (stat(path, &properties) == 0 && !S_ISREG(properties.st_mode))
        return mmlp_fail(MMLP_ERROR_IO, "%s: exists and is not a regular file; it is not replaced",
                         path);
    return MMLP_OK;
}

static mmlp_status prepare(save *s)
{
    MMLP_TRY(checkpoint_layout_build(&s->layout, &s->args, true));
    if (asprintf(&s->temporary, "%s.saving", s->path) < 0) {
        s->temporary = NULL;
        return mmlp_fail_memory(strlen(s->path), "a path");
    }
    s->file.temporary = s->temporary;
    return check_target(s->path);
}

/* Disk space is taken now, where the file system can say so. */
static mmlp_status reserve(const save *s, uint64_t bytes)
{
    if (fallocate(s->file.descriptor, 0, 0, (off_t)bytes) == 0)
        return MMLP_OK;
    if (errno != EOPNOTSUPP || ftruncate(s->file.descriptor, (off_t)bytes) != 0)
        return checkpoint_fail_io(s->temporary, "make room in it");
    return MMLP_OK;
}

static mmlp_status write_header(save *s)
{
    size_t bytes;
    char *header = safetensors_header_make(&bytes, &s->layout.header);
    if (!header)
        return mmlp_fail(MMLP_ERROR_MEMORY, "out of memory: the header of %s", s->path);
    const safetensors_header *h = &s->layout.header;
    s->file.data_start = bytes;
    mmlp_status status = reserve(s, bytes + h->entries[h->count - 1].end);
    if (status == MMLP_OK)
        status = checkpoint_write_at(&s->file, header, bytes, 0);
    free(header);
    return status;
}

/* Rank 0 makes the file; what an earlier save has left is a file of its own, whoever has it open.
 */
static mmlp_status make_file(save *s)
{
    if (unlink(s->temporary) != 0 && errno != ENOENT)
        return checkpoint_fail_io(s->temporary, "remove what an earlier save has left");
    s->file.descriptor = open(s->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (s->file.descriptor < 0)
        return checkpoint_fail_io(s->temporary, "create");
    s->is_made = true;
    return write_header(s);
}

/* The other ranks must see that very file. */
static mmlp_status open_file(save *s, uint64_t inode)
{
    struct stat properties;
    s->file.data_start = checkpoint_word(&s->ranks, 0, 1);
    s->file.descriptor = open(s->temporary, O_WRONLY | O_CLOEXEC);
    if (s->file.descriptor < 0 || fstat(s->file.descriptor, &properties) != 0)
        return checkpoint_fail_io(s->temporary, "open what rank 0 has made");
    if (properties.st_ino != inode)
        return mmlp_fail(MMLP_ERROR_IO,
                         "%s: is not the file that rank 0 has made: wanted one folder to all ranks",
                         s->temporary);
    return MMLP_OK;
}

static mmlp_status open_everywhere(save *s)
{
    struct stat properties = {0};
    mmlp_status status = MMLP_OK;
    if (s->ranks.rank == 0) {
        status = make_file(s);
        if (status == MMLP_OK && fstat(s->file.descriptor, &properties) != 0)
            status = checkpoint_fail_io(s->temporary, "look at");
    }
    const uint64_t words[CHECKPOINT_WORDS] = {properties.st_ino, s->file.data_start};
    MMLP_TRY(checkpoint_agree(&s->ranks, status, words));
    if (s->ranks.rank != 0)
        status = open_file(s, checkpoint_word(&s->ranks, 0, 0));
    return checkpoint_agree(&s->ranks, status, NULL);
}

static mmlp_status close_file(save *s)
{
    int descriptor = s->file.descriptor;
    s->file.descriptor = -1;
    if (descriptor >= 0 && close(descriptor) != 0)
        return checkpoint_fail_io(s->temporary, "close");
    return MMLP_OK;
}

static mmlp_status write_all(save *s)
{
    MMLP_TRY(checkpoint_write_pieces(&s->file, &s->layout, &s->ranks));
    if (fsync(s->file.descriptor) != 0)
        return checkpoint_fail_io(s->temporary, "flush");
    return close_file(s);
}

/* A rename is on the disk when the folder is. */
static mmlp_status flush_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    if (!folder)
        return mmlp_fail_memory(strlen(path), "a path");
    mmlp_status status = MMLP_OK;
    int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0 || fsync(descriptor) != 0)
        status = checkpoint_fail_io(folder, "flush the folder");
    if (descriptor >= 0)
        close(descriptor);
    free(folder);
    return status;
}

static mmlp_status publish(save *s)
{
    if (s->ranks.rank != 0)
        return MMLP_OK;
    if (rename(s->temporary, s->path) != 0)
        return checkpoint_fail_io(s->path, "replace");
    s->is_made = false;
    return flush_folder(s->path);
}

static mmlp_status save_steps(save *s)
{
    MMLP_TRY(checkpoint_agree(&s->ranks, prepare(s), NULL));
    MMLP_TRY(checkpoint_check_pieces(&s->ranks, &s->layout));
    MMLP_TRY(open_everywhere(s));
    MMLP_TRY(checkpoint_agree(&s->ranks, write_all(s), NULL));
    return checkpoint_agree(&s->ranks, publish(s), NULL);
}

mmlp_status mmlp_checkpoint_save(const char *path, const mmlp_checkpoint_args *args)
{
    save s = {.path = path, .file = {.descriptor = -1, .path = path}};
    MMLP_TRY(take_args(&s.args, path, args));
    mmlp_status status = checkpoint_ranks_open(&s.ranks, path, &s.args);
    if (status == MMLP_OK)
        status = save_steps(&s);
    close_file(&s);
    if (s.is_made)
        unlink(s.temporary);
    checkpoint_ranks_close(&s.ranks);
    checkpoint_layout_free(&s.layout);
    free(s.temporary);
    return status;
}

/* ---- load ------------------------------------------------------------------------------------ */

typedef struct load {
    mmlp_checkpoint_args args;
    checkpoint_layout layout;
    safetensors_header found;
    checkpoint_file file;
} load;

/* Opens the file and compares it with what is wanted. */
static mmlp_status examine(load *l, const char *path, bool needs_data,
                           void (*report)(void *user, const char *line), void *user)
{
    MMLP_TRY(checkpoint_layout_build(&l->layout, &l->args, needs_data));
    l->file.path = path;
    l->file.descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (l->file.descriptor < 0)
        return checkpoint_fail_io(path, "open");
    MMLP_TRY(checkpoint_read_header(&l->found, &l->file.data_start, l->file.descriptor, path));
    return checkpoint_compare(&l->found, &l->layout.header, path, report, user);
}

/* Tensors may lie in another order than this library gives them. */
static void take_places(load *l)
{
    for (size_t i = 0; i < l->layout.piece_count; i++) {
        checkpoint_piece *piece = &l->layout.pieces[i];
        piece->entry = safetensors_header_find(&l->found, piece->tensor.key);
    }
}

static void load_free(load *l)
{
    if (l->file.descriptor >= 0)
        close(l->file.descriptor);
    safetensors_header_free(&l->found);
    checkpoint_layout_free(&l->layout);
}

mmlp_status mmlp_checkpoint_load(const char *path, const mmlp_checkpoint_args *args)
{
    load l = {.file.descriptor = -1};
    checkpoint_ranks ranks;
    MMLP_TRY(take_args(&l.args, path, args));
    mmlp_status status = checkpoint_ranks_open(&ranks, path, &l.args);
    if (status == MMLP_OK)
        status = checkpoint_agree(&ranks, examine(&l, path, true, NULL, NULL), NULL);
    if (status == MMLP_OK) {
        take_places(&l);
        status = checkpoint_agree(&ranks, checkpoint_read_pieces(&l.file, &l.layout, &ranks), NULL);
    }
    checkpoint_ranks_close(&ranks);
    load_free(&l);
    return status;
}

mmlp_status mmlp_checkpoint_verify(const char *path, const mmlp_checkpoint_args *args,
                                   void (*report)(void *user, const char *line), void *user)
{
    load l = {.file.descriptor = -1};
    MMLP_TRY(take_args(&l.args, path, args));
    mmlp_status status = examine(&l, path, false, report, user);
    load_free(&l);
    return status;
}
