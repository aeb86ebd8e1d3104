/* error.c: statuses, their names, and the thread's last error line. */
#include "base/error.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_key_t last_error_key;
static pthread_once_t last_error_once = PTHREAD_ONCE_INIT;

static void make_last_error_key(void)
{
    if (pthread_key_create(&last_error_key, free) != 0)
        abort(); /* only when the process has used up its keys */
}

/* Replaces this thread's line; takes ownership of `line`, which may be NULL. */
static void set_last_error(char *line)
{
    pthread_once(&last_error_once, make_last_error_key);
    free(pthread_getspecific(last_error_key));
    pthread_setspecific(last_error_key, line);
}

const char *mmlp_status_name(mmlp_status status)
{
    switch (status) {
#define NAME(name, value, text)                                                                    \
    case MMLP_##name:                                                                              \
        return "MMLP_" #name;
        MMLP_STATUS_TABLE(NAME)
#undef NAME
    }
    return "MMLP_ERROR_UNKNOWN";
}

const char *mmlp_status_text(mmlp_status status)
{
    switch (status) {
#define TEXT(name, value, text)                                                                    \
    case MMLP_##name:                                                                              \
        return text;
        MMLP_STATUS_TABLE(TEXT)
#undef TEXT
    }
    return "unknown status";
}

const char *mmlp_last_error(void)
{
    pthread_once(&last_error_once, make_last_error_key);
    const char *line = pthread_getspecific(last_error_key);
    return line ? line : "";
}

void mmlp_clear_error(void)
{
    set_last_error(NULL);
}

mmlp_status mmlp_failv(mmlp_status status, const char *format, va_list args)
{
    /* Formatted before the old line is freed: an argument may be the old line itself. */
    char *line = NULL;
    if (vasprintf(&line, format, args) < 0)
        line = NULL;
    set_last_error(line);
    return status;
}

mmlp_status mmlp_fail(mmlp_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    mmlp_failv(status, format, args);
    va_end(args);
    return status;
}

mmlp_status mmlp_fail_memory(size_t bytes, const char *what)
{
    return mmlp_fail(MMLP_ERROR_MEMORY, "out of memory: %zu bytes for %s", bytes, what);
}
