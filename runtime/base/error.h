/*
 * error.h: the one way errors travel. A function that fails sets the thread's line with mmlp_fail
 * and returns its status; MMLP_TRY hands a status upwards; MMLP_TRY_CLEANUP goes to the cleanup
 * label.
 */
#ifndef MMLP_BASE_ERROR_H
#define MMLP_BASE_ERROR_H

#include <megamlp/megamlp.h>
#include <stdarg.h>

/* Records the formatted line as the thread's last error and returns status. */
mmlp_status mmlp_fail(mmlp_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
mmlp_status mmlp_failv(mmlp_status status, const char *format, va_list args);
/* mmlp_fail(MMLP_ERROR_MEMORY, "out of memory (N bytes for WHAT)") */
mmlp_status mmlp_fail_memory(size_t bytes, const char *what);
void mmlp_clear_error(void);

#define MMLP_TRY(call)                                                                             \
    do {                                                                                           \
        mmlp_status try_status_ = (call);                                                          \
        if (try_status_ != MMLP_OK)                                                                \
            return try_status_;                                                                    \
    } while (0)

/* Needs a local `mmlp_status status` and a label `cleanup`. */
#define MMLP_TRY_CLEANUP(call)                                                                     \
    do {                                                                                           \
        status = (call);                                                                           \
        if (status != MMLP_OK)                                                                     \
            goto cleanup;                                                                          \
    } while (0)

#endif
