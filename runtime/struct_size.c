/*
 * struct_size.c: public structs begin with their size and only grow at the end, so that a program
 * compiled against an older header works with a newer library, and the other way round.
 */
#include <string.h>

#include "context.h"

/* No struct of this interface will ever be larger: a greater size is uninitialised memory. */
enum { MAX_STRUCT_BYTES = 4096 };

static mmlp_status check_size(size_t *out, const void *callers, const char *what)
{
    *out = sizeof(size_t);
    if (!callers)
        return mmlp_fail(MMLP_ERROR_ARGUMENT, "%s: NULL was given", what);
    size_t size;
    memcpy(&size, callers, sizeof size);
    if (size < sizeof(size_t) || size > MAX_STRUCT_BYTES)
        return mmlp_fail(MMLP_ERROR_ARGUMENT,
                         "%s: struct_size is %zu; start from the struct's _INIT macro", what, size);
    *out = size;
    return MMLP_OK;
}

/* Copies what lies behind struct_size and in both structs. */
static void copy_members(void *to, const void *from, size_t size, size_t other_size)
{
    size_t end = size < other_size ? size : other_size;
    for (size_t i = sizeof(size_t); i < end; i++)
        ((unsigned char *)to)[i] = ((const unsigned char *)from)[i];
}

mmlp_status struct_fill(void *callers, const void *filled, size_t size, const char *what)
{
    size_t callers_size;
    MMLP_TRY(check_size(&callers_size, callers, what));
    copy_members(callers, filled, size, callers_size);
    return MMLP_OK;
}

mmlp_status struct_read(void *own, const void *callers, size_t size, const char *what)
{
    size_t callers_size;
    MMLP_TRY(check_size(&callers_size, callers, what));
    copy_members(own, callers, size, callers_size);
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
