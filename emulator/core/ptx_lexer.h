/*
 * ptx_lexer.h: tokens of PTX text.
 */
#ifndef EMU_PTX_LEXER_H
#define EMU_PTX_LEXER_H

#include "ptx.h"

typedef enum ptx_token_kind {
    TOKEN_END,
    TOKEN_NAME,      /* foo, %r1, $L__BB0_1 */
    TOKEN_DIRECTIVE, /* .global, .shared::cta: chars are without the first dot */
    TOKEN_INT,       /* bits */
    TOKEN_F32,       /* bits */
    TOKEN_F64,       /* bits */
    TOKEN_STRING,
    TOKEN_MARK, /* one character */
} ptx_token_kind;

typedef struct ptx_token {
    ptx_token_kind kind;
    int line;
    char mark;
    const char *chars;
    size_t length;
    uint64_t bits;
} ptx_token;

typedef struct ptx_lexer {
    ptx_module *module;
    const char *at;
    int line;
    ptx_token token; /* the current one */
} ptx_lexer;

void lexer_start(ptx_lexer *lexer, ptx_module *module);
void lexer_next(ptx_lexer *lexer);
void lexer_skip_line(ptx_lexer *lexer);   /* to the first token of the next line */
void lexer_skip_braces(ptx_lexer *lexer); /* from '{' past its '}' without looking at tokens */

#endif
