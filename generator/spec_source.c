/*
 * spec_source.c: a scan of Lua text that knows just enough of the language (comments, strings,
 * braces) to find a key inside a call's braces. Called when a message needs a column, which Lua
 * does not keep.
 */
#include "spec_source.h"

#include <ctype.h>
#include <string.h>

typedef enum token_kind { TOKEN_END, TOKEN_NAME, TOKEN_STRING, TOKEN_OTHER } token_kind;

typedef struct token {
    token_kind kind;
    const char *start;
    int length, line, column;
} token;

typedef struct scanner {
    const char *at, *line_start;
    int line;
} scanner;

static void step(scanner *s)
{
    if (*s->at == '\n') {
        s->line++;
        s->line_start = s->at + 1;
    }
    s->at++;
}

/* [[ or [=[ at the scanner: the number of '=', else -1. */
static int long_bracket_level(const char *at)
{
    int level = 0;
    if (*at != '[')
        return -1;
    while (at[1 + level] == '=')
        level++;
    return at[1 + level] == '[' ? level : -1;
}

static void skip_long_bracket(scanner *s, int level)
{
    for (int i = 0; i < level + 2; i++)
        step(s);
    while (*s->at) {
        if (*s->at == ']') {
            int found = 0;
            while (s->at[1 + found] == '=')
                found++;
            if (found == level && s->at[1 + found] == ']') {
                for (int i = 0; i < level + 2; i++)
                    step(s);
                return;
            }
        }
        step(s);
    }
}

static void skip_space_and_comments(scanner *s)
{
    for (;;) {
        while (isspace((unsigned char)*s->at))
            step(s);
        if (s->at[0] != '-' || s->at[1] != '-')
            return;
        s->at += 2;
        int level = long_bracket_level(s->at);
        if (level >= 0)
            skip_long_bracket(s, level);
        else
            while (*s->at && *s->at != '\n')
                step(s);
    }
}

static token next_token(scanner *s)
{
    skip_space_and_comments(s);
    token t = {TOKEN_OTHER, s->at, 0, s->line, (int)(s->at - s->line_start) + 1};
    int level = long_bracket_level(s->at);
    if (!*s->at) {
        t.kind = TOKEN_END;
    } else if (isalpha((unsigned char)*s->at) || *s->at == '_') {
        t.kind = TOKEN_NAME;
        while (isalnum((unsigned char)*s->at) || *s->at == '_')
            step(s);
    } else if (*s->at == '"' || *s->at == '\'') {
        t.kind = TOKEN_STRING;
        char quote = *s->at;
        step(s);
        while (*s->at && *s->at != quote && *s->at != '\n') {
            if (*s->at == '\\' && s->at[1])
                step(s);
            step(s);
        }
        if (*s->at == quote)
            step(s);
    } else if (level >= 0) {
        t.kind = TOKEN_STRING;
        skip_long_bracket(s, level);
    } else {
        bool two =
            (*s->at == '=' || *s->at == '~' || *s->at == '<' || *s->at == '>') && s->at[1] == '=';
        step(s);
        if (two)
            step(s);
    }
    t.length = (int)(s->at - t.start);
    return t;
}

static bool is_text(const token *t, const char *wanted)
{
    return strlen(wanted) == (size_t)t->length && memcmp(t->start, wanted, strlen(wanted)) == 0;
}

/* A name, or a quoted string in brackets, that spells the key. */
static bool spells(const token *t, const char *key)
{
    if (t->kind == TOKEN_NAME)
        return is_text(t, key);
    size_t length = strlen(key);
    return t->kind == TOKEN_STRING && (size_t)t->length == length + 2 &&
           memcmp(t->start + 1, key, length) == 0;
}

/* From just behind a '{': the token of the key, with the scanner behind its '='. */
static bool find_in_braces(token *found, scanner *s, const char *key)
{
    int depth = 1;
    bool at_key = true; /* the last token was '{' or a separator of this table */
    while (depth > 0) {
        token t = next_token(s);
        if (t.kind == TOKEN_END)
            return false;
        if (depth == 1 && at_key) {
            token name = t;
            scanner ahead = *s;
            if (is_text(&t, "[")) {
                name = next_token(&ahead);
                next_token(&ahead); /* ] */
            }
            token equals = next_token(&ahead);
            if (is_text(&equals, "=") && spells(&name, key)) {
                *s = ahead;
                *found = t;
                return true;
            }
        }
        at_key = depth == 1 && (is_text(&t, ",") || is_text(&t, ";"));
        if (t.kind != TOKEN_OTHER)
            continue;
        if (*t.start == '{' || *t.start == '(' || *t.start == '[')
            depth++;
        else if (*t.start == '}' || *t.start == ')' || *t.start == ']')
            depth--;
    }
    return false;
}

/* The scanner behind the '{' of the only `callee {` or `callee ({` that begins on the line. */
static bool find_call(scanner *call, const char *text, int call_line, const char *callee)
{
    scanner s = {text, text, 1};
    int found = 0;
    for (token t = next_token(&s); t.kind != TOKEN_END && t.line <= call_line; t = next_token(&s)) {
        if (t.line != call_line || t.kind != TOKEN_NAME || !is_text(&t, callee))
            continue;
        scanner ahead = s;
        token opening = next_token(&ahead);
        if (is_text(&opening, "("))
            opening = next_token(&ahead);
        if (is_text(&opening, "{")) {
            *call = ahead;
            found++;
        }
    }
    return found == 1;
}

bool source_find_key(int *line, int *column, const char *text, int call_line, const char *callee,
                     const char *inside, const char *key)
{
    scanner s;
    token found;
    if (!find_call(&s, text, call_line, callee))
        return false;
    if (inside) {
        if (!find_in_braces(&found, &s, inside))
            return false;
        token opening = next_token(&s);
        if (!is_text(&opening, "{"))
            return false;
    }
    if (!find_in_braces(&found, &s, key))
        return false;
    *line = found.line;
    *column = found.column;
    return true;
}
