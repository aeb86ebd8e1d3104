/* file.c: whole files in and out. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"

static mmlp_status fail_io(const char *what, const char *path)
{
    return mmlp_fail(MMLP_ERROR_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

mmlp_status file_read(char **out, size_t *bytes, const char *path)
{
    *out = NULL;
    *bytes = 0;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return fail_io("open", path);

    mmlp_status status = MMLP_OK;
    text content = TEXT_INIT;
    struct stat properties;
    if (fstat(descriptor, &properties) != 0) {
        status = fail_io("read", path);
        goto cleanup;
    }
    if (S_ISDIR(properties.st_mode)) {
        errno = EISDIR;
        status = fail_io("read", path);
        goto cleanup;
    }
    for (;;) {
        char block[65536];
        ssize_t count = read(descriptor, block, sizeof block);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0) {
            status = fail_io("read", path);
            goto cleanup;
        }
        if (count == 0)
            break;
        text_append(&content, block, (size_t)count);
    }
    size_t length = content.length;
    *out = text_take(&content);
    if (!*out)
        status = mmlp_fail_memory(length, path);
    else
        *bytes = length;

cleanup:
    text_free(&content);
    close(descriptor);
    return status;
}

static mmlp_status write_all(int descriptor, const char *bytes, size_t count, const char *path)
{
    while (count > 0) {
        ssize_t written = write(descriptor, bytes, count);
        if (written < 0 && errno == EINTR)
            continue;
        if (written < 0)
            return fail_io("write", path);
        bytes += written;
        count -= (size_t)written;
    }
    return MMLP_OK;
}

/* Creates a file of a name that nobody else has, beside `path`; its mode follows the umask. */
static int create_beside(char **temporary, const char *path)
{
    static atomic_uint last_number;
    for (int attempt = 0; attempt < 100; attempt++) {
        if (asprintf(temporary, "%s.%ld-%u.tmp", path, (long)getpid(),
                     atomic_fetch_add(&last_number, 1)) < 0) {
            *temporary = NULL;
            errno = ENOMEM;
            return -1;
        }
        int descriptor = open(*temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (descriptor >= 0 || errno != EEXIST)
            return descriptor;
        free(*temporary);
        *temporary = NULL;
    }
    return -1;
}

mmlp_status file_write_atomic(const char *path, const void *bytes, size_t count)
{
    mmlp_status status = MMLP_OK;
    char *temporary = NULL;
    int descriptor = create_beside(&temporary, path);
    if (descriptor < 0) {
        status = fail_io("create a file beside", path);
        free(temporary);
        return status;
    }
    status = write_all(descriptor, bytes, count, path);
    if (status == MMLP_OK && fsync(descriptor) != 0)
        status = fail_io("flush", path);
    if (close(descriptor) != 0 && status == MMLP_OK)
        status = fail_io("close", path);
    if (status == MMLP_OK && rename(temporary, path) != 0)
        status = fail_io("replace", path);
    if (status != MMLP_OK)
        unlink(temporary);
    free(temporary);
    return status;
}
