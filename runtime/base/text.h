/*
 * text.h: a growing string. A text that ran out of memory stays valid and remembers it: check
 * text_failed once at the end instead of every call.
 */
#ifndef MMLP_BASE_TEXT_H
#define MMLP_BASE_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct text {
    char *chars; /* NUL-terminated; NULL while empty */
    size_t length, capacity;
    bool failed;
} text;
#define TEXT_INIT                                                                                  \
    {                                                                                              \
        NULL, 0, 0, false                                                                          \
    }

void text_append(text *t, const char *chars, size_t length);
void text_puts(text *t, const char *string);
void text_printf(text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_vprintf(text *t, const char *format, va_list args);
void text_clear(text *t); /* length 0, memory kept */
void text_free(text *t);
/* The string, "" while empty; owned by the text. */
const char *text_string(const text *t);
/* Gives the string away (malloc), or NULL if the text failed; the text is empty afterwards. */
char *text_take(text *t);

#endif
