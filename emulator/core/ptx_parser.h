/*
 * ptx_parser.h: what the two halves of the parser share: ptx_parser.c (names, variables, module
 * scope) and ptx_body.c (the inside of functions).
 */
#ifndef EMU_PTX_PARSER_H
#define EMU_PTX_PARSER_H

#include "ptx_lexer.h"

typedef enum binding_kind { BIND_REG, BIND_REG_RANGE, BIND_VARIABLE } binding_kind;

/* A declaration that is in force: %r<9> binds the prefix %r as a range. */
struct ptx_binding {
    binding_kind kind;
    int first, count;
    ptx_variable *variable;
    ptx_name *name;
    ptx_binding *outer;    /* what this one hides */
    ptx_binding *previous; /* declared before it, any scope */
    int depth;
};

typedef struct ptx_parser {
    ptx_lexer lexer;
    ptx_module *module;
    ptx_function *function;
    ptx_binding *last;
    int depth;  /* brace depth */
    int scope;  /* index of the innermost scope of the function */
    int nested; /* lists and addresses around the operand being read */
} ptx_parser;

/* Tokens. `expect` fails with "expected ..., found ...". */
bool parser_at_mark(const ptx_parser *p, char mark);
bool parser_at_directive(const ptx_parser *p, const char *name);
bool parser_accept_mark(ptx_parser *p, char mark);
void parser_expect_mark(ptx_parser *p, char mark);
bool parser_accept_directive(ptx_parser *p, const char *name);
ptx_name *parser_expect_name(ptx_parser *p);
int64_t parser_expect_int(ptx_parser *p); /* a signed constant */
_Noreturn void parser_unexpected(ptx_parser *p, const char *wanted);

void parser_bind(ptx_parser *p, ptx_name *name, binding_kind kind, int first, int count,
                 ptx_variable *variable);
void parser_unbind(ptx_parser *p, int depth); /* drops what is deeper than `depth` */

/* From the token after `.global` (or another space) to the ';' or, for a parameter, the name. */
ptx_variable *parser_variable(ptx_parser *p, ptx_space space, bool is_extern,
                              ptx_variable ***list_end, int *count, bool is_parameter);
bool parser_skip_debug(ptx_parser *p); /* .loc, .file, .section, .pragma: true when skipped */

void parser_function_body(ptx_parser *p);

#endif
