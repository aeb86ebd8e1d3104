/* text.c: a growing string. */
#include "base/text.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(text *t, size_t more)
{
    if (t->failed)
        return false;
    if (more >= SIZE_MAX / 2 - t->length) {
        t->failed = true;
        return false;
    }
    size_t needed = t->length + more + 1;
    if (needed <= t->capacity)
        return true;
    size_t capacity = t->capacity ? t->capacity : 64;
    while (capacity < needed)
        capacity *= 2;
    char *grown = realloc(t->chars, capacity);
    if (!grown) {
        t->failed = true;
        return false;
    }
    t->chars = grown;
    t->capacity = capacity;
    return true;
}

void text_append(text *t, const char *chars, size_t length)
{
    if (!reserve(t, length))
        return;
    if (length > 0)
        memcpy(t->chars + t->length, chars, length);
    t->length += length;
    t->chars[t->length] = '\0';
}

void text_puts(text *t, const char *string)
{
    text_append(t, string, strlen(string));
}

void text_vprintf(text *t, const char *format, va_list args)
{
    va_list measured;
    va_copy(measured, args);
    int length = vsnprintf(NULL, 0, format, measured);
    va_end(measured);
    if (length < 0) {
        t->failed = true;
        return;
    }
    if (!reserve(t, (size_t)length))
        return;
    vsnprintf(t->chars + t->length, (size_t)length + 1, format, args);
    t->length += (size_t)length;
}

void text_printf(text *t, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    text_vprintf(t, format, args);
    va_end(args);
}

void text_clear(text *t)
{
    t->length = 0;
    if (t->chars)
        t->chars[0] = '\0';
}

void text_free(text *t)
{
    free(t->chars);
    *t = (text)TEXT_INIT;
}

const char *text_string(const text *t)
{
    return t->chars ? t->chars : "";
}

char *text_take(text *t)
{
    char *taken = NULL;
    if (!t->failed)
        taken = t->chars ? t->chars : calloc(1, 1);
    if (t->failed)
        free(t->chars);
    *t = (text)TEXT_INIT;
    return taken;
}
