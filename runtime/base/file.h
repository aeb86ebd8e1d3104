/* file.h: whole files in and out. */
#ifndef MMLP_BASE_FILE_H
#define MMLP_BASE_FILE_H

#include <stddef.h>

#include "base/error.h"

/* The file's bytes (malloc), followed by a NUL that is not counted. ERROR_IO names path and reason.
 */
mmlp_status file_read(char **out, size_t *bytes, const char *path);
/* Writes a temporary file beside `path`, fsyncs it and renames it: readers see the old file or the
 * whole new one. ERROR_IO names path and reason; nothing is left behind. */
mmlp_status file_write_atomic(const char *path, const void *bytes, size_t count);

#endif
