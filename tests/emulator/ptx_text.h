/* ptx_text.h: PTX that a test writes piece by piece. */
#ifndef MMLP_TESTS_PTX_TEXT_H
#define MMLP_TESTS_PTX_TEXT_H

#include <stddef.h>

typedef struct ptx_text {
    size_t length;
    char at[24576];
} ptx_text;

/* The test fails where there is no room. */
__attribute__((format(printf, 2, 3))) void emit(ptx_text *t, const char *format, ...);

#endif
