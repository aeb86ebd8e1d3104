/* ptx_text.c: PTX that a test writes piece by piece. */
#include "ptx_text.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>

void emit(ptx_text *t, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(t->at + t->length, sizeof t->at - t->length, format, arguments);
    va_end(arguments);
    cr_assert(length >= 0 && (size_t)length < sizeof t->at - t->length);
    t->length += (size_t)length;
}
