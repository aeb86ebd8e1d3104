/*
 * struct_size.c: public structs begin with their size and only grow at the end, so that a program
 * compiled against an older header works with a newer library, and the other way round.
 */
#include <string.h>

#include "context.h"

static mmlp_status check_size(size_t *out, const void *callers, const char *what)
{
    if (!callers)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "%s: NULL was given", what);
    memcpy(out, callers, sizeof *out);
    if (*out < sizeof(size_t))
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "%s: struct_size is %zu; start from the struct's _INIT macro", what, *out);
    return MMLP_OK;
}

mmlp_status struct_fill(void *callers, const void *filled, size_t size, const char *what)
{
    size_t callers_size = 0;
    MMLP_TRY(check_size(&callers_size, callers, what));
    size_t count = callers_size < size ? callers_size : size;
    memcpy((char *)callers + sizeof(size_t), (const char *)filled + sizeof(size_t),
           count - sizeof(size_t));
    return MMLP_OK;
}

mmlp_status struct_read(void *own, const void *callers, size_t size, const char *what)
{
    size_t callers_size = 0;
    MMLP_TRY(check_size(&callers_size, callers, what));
    size_t count = callers_size < size ? callers_size : size;
    memcpy((char *)own + sizeof(size_t), (const char *)callers + sizeof(size_t),
           count - sizeof(size_t));
    /* What this library does not know must not have been asked for. */
    for (size_t i = size; i < callers_size; i++) {
        if (((const unsigned char *)callers)[i] != 0)
            return mmlp_fail(MMLP_ERROR_ARGUMENT,
                             "%s: byte %zu is set, but this library knows %zu bytes of the struct: "
                             "the header is newer than the library",
                             what, i, size);
    }
    return MMLP_OK;
}
