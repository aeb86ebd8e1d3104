/*
 * ptx_lexer.c: cuts PTX text into tokens, one ahead of the parser. Comments and white space vanish;
 * a '.' starts a directive that may hold '::' parts. It never looks at what tokens mean.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "ptx_lexer.h"

static bool is_name_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || c == '%';
}

static void skip_blanks(ptx_lexer *lexer)
{
    for (;;) {
        char c = *lexer->at;
        if (c == '\n') {
            lexer->line++;
            lexer->at++;
        } else if (c && isspace((unsigned char)c)) {
            lexer->at++;
        } else if (c == '/' && lexer->at[1] == '/') {
            while (*lexer->at && *lexer->at != '\n') {
                lexer->at++;
            }
        } else if (c == '/' && lexer->at[1] == '*') {
            const char *end = strstr(lexer->at + 2, "*/");
            if (!end) {
                ptx_fail(lexer->module, lexer->line, "comment without an end");
            }
            for (; lexer->at < end + 2; lexer->at++) {
                lexer->line += *lexer->at == '\n';
            }
        } else {
            return;
        }
    }
}

static void lex_number(ptx_lexer *lexer)
{
    ptx_token *token = &lexer->token;
    const char *at = lexer->at;
    char *end;
    if (at[0] == '0' && (at[1] == 'f' || at[1] == 'F' || at[1] == 'd' || at[1] == 'D')) {
        token->kind = at[1] == 'f' || at[1] == 'F' ? TOKEN_F32 : TOKEN_F64;
        token->bits = strtoull(at + 2, &end, 16);
    } else if (at[0] == '0' && (at[1] == 'b' || at[1] == 'B')) {
        token->kind = TOKEN_INT;
        token->bits = strtoull(at + 2, &end, 2);
    } else {
        const char *scan = at;
        while (isdigit((unsigned char)*scan)) {
            scan++;
        }
        if (*scan == '.' || *scan == 'e' || *scan == 'E') {
            double value = strtod(at, &end);
            token->kind = TOKEN_F64;
            memcpy(&token->bits, &value, sizeof value);
        } else {
            token->kind = TOKEN_INT;
            token->bits = strtoull(at, &end, 0);
            if (*end == 'U') {
                end++;
            }
        }
    }
    if (end == at || is_name_char(*end)) {
        ptx_fail(lexer->module, lexer->line, "malformed number near '%.20s'", at);
    }
    token->length = (size_t)(end - at);
    lexer->at = end;
}

static void lex_directive(ptx_lexer *lexer)
{
    const char *start = ++lexer->at;
    while (is_name_char(*lexer->at) ||
           (lexer->at[0] == ':' && lexer->at[1] == ':' && is_name_char(lexer->at[2]))) {
        lexer->at += *lexer->at == ':' ? 2 : 1;
    }
    lexer->token.kind = TOKEN_DIRECTIVE;
    lexer->token.chars = start;
    lexer->token.length = (size_t)(lexer->at - start);
    if (lexer->token.length == 0) {
        ptx_fail(lexer->module, lexer->line, "a name is missing after '.'");
    }
}

static void lex_string(ptx_lexer *lexer)
{
    const char *start = ++lexer->at;
    while (*lexer->at && *lexer->at != '"') {
        lexer->at += lexer->at[0] == '\\' && lexer->at[1] ? 2 : 1;
    }
    if (!*lexer->at) {
        ptx_fail(lexer->module, lexer->token.line, "string without an end");
    }
    lexer->token.kind = TOKEN_STRING;
    lexer->token.chars = start;
    lexer->token.length = (size_t)(lexer->at - start);
    lexer->at++;
}

void lexer_next(ptx_lexer *lexer)
{
    skip_blanks(lexer);
    ptx_token *token = &lexer->token;
    *token = (ptx_token){.line = lexer->line, .chars = lexer->at, .length = 1};
    char c = *lexer->at;
    if (!c) {
        token->kind = TOKEN_END;
        token->length = 0;
    } else if (isdigit((unsigned char)c)) {
        lex_number(lexer);
    } else if (is_name_char(c)) {
        while (is_name_char(*lexer->at)) {
            lexer->at++;
        }
        token->kind = TOKEN_NAME;
        token->length = (size_t)(lexer->at - token->chars);
    } else if (c == '.') {
        lex_directive(lexer);
    } else if (c == '"') {
        lex_string(lexer);
    } else {
        token->kind = TOKEN_MARK;
        token->mark = c;
        lexer->at++;
    }
}

void lexer_start(ptx_lexer *lexer, ptx_module *module)
{
    *lexer = (ptx_lexer){.module = module, .at = module->source, .line = 1};
    lexer_next(lexer);
}

void lexer_skip_line(ptx_lexer *lexer)
{
    lexer->at = lexer->token.chars;
    lexer->line = lexer->token.line;
    while (*lexer->at && *lexer->at != '\n') {
        lexer->at++;
    }
    lexer_next(lexer);
}

void lexer_skip_braces(ptx_lexer *lexer)
{
    int depth = 0;
    lexer->at = lexer->token.chars;
    for (; *lexer->at; lexer->at++) {
        lexer->line += *lexer->at == '\n';
        depth += *lexer->at == '{';
        depth -= *lexer->at == '}';
        if (depth == 0) {
            lexer->at++;
            break;
        }
    }
    lexer_next(lexer);
}
