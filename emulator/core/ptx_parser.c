/*
 * ptx_parser.c: the module scope of PTX: directives, variables with initialisers, function headers;
 * and the tables of names and types that all of the parser uses.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ptx_parser.h"

enum { MOST_ALIGN = 4096, MOST_NESTED = 16, MOST_INITIALISED = 1 << 30 };
#define MOST_BYTES (UINT64_C(256) << 30)

/* ---- types ---- */

static const struct {
    const char *text;
    int bits;
    char class;
} type_rows[TYPE_COUNT] = {
    {"", 0, 0},
#define TYPE(id, text, bits, class) {text, bits, class},
#include "ptx_types.def"
#undef TYPE
};

const char *ptx_type_text(ptx_type type)
{
    return type_rows[type].text;
}

int ptx_type_bits(ptx_type type)
{
    return type_rows[type].bits;
}

char ptx_type_class(ptx_type type)
{
    return type_rows[type].class;
}

ptx_type ptx_type_find(const char *spelling)
{
    for (int i = 1; i < TYPE_COUNT; i++) {
        if (strcmp(type_rows[i].text, spelling) == 0) {
            return (ptx_type)i;
        }
    }
    return TYPE_NONE;
}

/* ---- names and errors ---- */

ptx_name *ptx_intern(ptx_module *module, const char *chars, size_t length)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ (unsigned char)chars[i]) * 1099511628211u;
    }
    if (!module->names) {
        module->name_slots = 4096;
        module->names = pool_alloc(&module->memory, module->name_slots * sizeof *module->names);
    }
    ptx_name **slot = &module->names[hash & (module->name_slots - 1)];
    for (ptx_name *name = *slot; name; name = name->next) {
        if (name->hash == hash && name->length == length &&
            memcmp(name->chars, chars, length) == 0) {
            return name;
        }
    }
    ptx_name *name = pool_alloc(&module->memory, sizeof *name);
    name->chars = pool_string(&module->memory, chars, length);
    name->length = length;
    name->hash = hash;
    name->next = *slot;
    *slot = name;
    return name;
}

ptx_variable *ptx_find_variable(const ptx_module *module, const ptx_name *name)
{
    ptx_variable *found = NULL;
    for (ptx_variable *v = module->variables; v; v = v->next) {
        if (v->name == name && (!found || found->is_extern)) {
            found = v;
        }
    }
    return found;
}

ptx_function *ptx_find_function(const ptx_module *module, const ptx_name *name)
{
    ptx_function *found = NULL;
    for (ptx_function *f = module->functions; f; f = f->next) {
        if (f->name == name && (!found || !found->has_body)) {
            found = f;
        }
    }
    return found;
}

const char *ptx_line_text(const ptx_module *module, int line, size_t *length)
{
    const char *at = module->source;
    for (int i = 1; i < line && at; i++) {
        at = strchr(at, '\n');
        at = at ? at + 1 : NULL;
    }
    if (!at) {
        *length = 0;
        return "";
    }
    at += strspn(at, " \t");
    *length = strcspn(at, "\r\n");
    return at;
}

_Noreturn void ptx_fail(ptx_module *module, int line, const char *format, ...)
{
    int used = snprintf(module->error, sizeof module->error, "PTX line %d: ", line);
    va_list args;
    va_start(args, format);
    vsnprintf(module->error + used, sizeof module->error - (size_t)used, format, args);
    va_end(args);
    longjmp(*module->on_error, 1);
}

_Noreturn void parser_unexpected(ptx_parser *p, const char *wanted)
{
    const ptx_token *token = &p->lexer.token;
    int shown = token->length > 60 ? 60 : (int)token->length;
    ptx_fail(p->module, token->line, "expected %s, found '%s%.*s'", wanted,
             token->kind == TOKEN_DIRECTIVE ? "." : "", shown, token->chars);
}

/* ---- tokens ---- */

bool parser_at_mark(const ptx_parser *p, char mark)
{
    return p->lexer.token.kind == TOKEN_MARK && p->lexer.token.mark == mark;
}

bool parser_at_directive(const ptx_parser *p, const char *name)
{
    const ptx_token *token = &p->lexer.token;
    return token->kind == TOKEN_DIRECTIVE && token->length == strlen(name) &&
           memcmp(token->chars, name, token->length) == 0;
}

bool parser_accept_mark(ptx_parser *p, char mark)
{
    bool found = parser_at_mark(p, mark);
    if (found) {
        lexer_next(&p->lexer);
    }
    return found;
}

void parser_expect_mark(ptx_parser *p, char mark)
{
    if (!parser_accept_mark(p, mark)) {
        char wanted[4] = {'\'', mark, '\'', 0};
        parser_unexpected(p, wanted);
    }
}

bool parser_accept_directive(ptx_parser *p, const char *name)
{
    bool found = parser_at_directive(p, name);
    if (found) {
        lexer_next(&p->lexer);
    }
    return found;
}

ptx_name *parser_expect_name(ptx_parser *p)
{
    if (p->lexer.token.kind != TOKEN_NAME) {
        parser_unexpected(p, "a name");
    }
    ptx_name *name = ptx_intern(p->module, p->lexer.token.chars, p->lexer.token.length);
    lexer_next(&p->lexer);
    return name;
}

int64_t parser_expect_int(ptx_parser *p)
{
    bool negative = parser_accept_mark(p, '-');
    if (p->lexer.token.kind != TOKEN_INT) {
        parser_unexpected(p, "an integer");
    }
    uint64_t bits = p->lexer.token.bits;
    lexer_next(&p->lexer);
    return (int64_t)(negative ? 0 - bits : bits);
}

/* ---- bindings ---- */

void parser_bind(ptx_parser *p, ptx_name *name, binding_kind kind, int first, int count,
                 ptx_variable *variable)
{
    /* a module's variables may be declared before they are defined */
    if (p->depth > 0 && name->binding && name->binding->depth == p->depth) {
        ptx_fail(p->module, p->lexer.token.line, "'%.200s' is declared twice", name->chars);
    }
    ptx_binding *binding = pool_alloc(&p->module->memory, sizeof *binding);
    *binding = (ptx_binding){.kind = kind,
                             .first = first,
                             .count = count,
                             .variable = variable,
                             .name = name,
                             .outer = name->binding,
                             .previous = p->last,
                             .depth = p->depth};
    name->binding = binding;
    p->last = binding;
}

void parser_unbind(ptx_parser *p, int depth)
{
    while (p->last && p->last->depth > depth) {
        p->last->name->binding = p->last->outer;
        p->last = p->last->previous;
    }
}

/* ---- variables ---- */

static void store_element(ptx_parser *p, ptx_variable *v, size_t at, uint64_t bits)
{
    size_t size = (size_t)ptx_type_bits(v->type) / 8;
    if (at + size > v->bytes) {
        ptx_fail(p->module, p->lexer.token.line,
                 "initialiser of %.80s is longer than its %zu bytes", v->name->chars, v->bytes);
    }
    memcpy(v->initial + at, &bits, size < sizeof bits ? size : sizeof bits);
}

static uint64_t element_bits(ptx_parser *p, const ptx_variable *v)
{
    bool negative = parser_accept_mark(p, '-');
    const ptx_token token = p->lexer.token;
    if (token.kind != TOKEN_INT && token.kind != TOKEN_F32 && token.kind != TOKEN_F64) {
        parser_unexpected(p, "a constant or a symbol");
    }
    lexer_next(&p->lexer);
    if (token.kind == TOKEN_INT && ptx_type_class(v->type) != 'f') {
        return negative ? 0 - token.bits : token.bits;
    }
    double value;
    float narrow;
    uint32_t narrow_bits = (uint32_t)token.bits;
    if (token.kind == TOKEN_INT) {
        value = (double)token.bits;
    } else if (token.kind == TOKEN_F32) {
        memcpy(&narrow, &narrow_bits, sizeof narrow);
        value = narrow;
    } else {
        memcpy(&value, &token.bits, sizeof value);
    }
    value = negative ? -value : value;
    uint64_t bits;
    if (v->type == TYPE_F32 || (token.kind == TOKEN_F32 && ptx_type_bits(v->type) == 32)) {
        narrow = (float)value;
        memcpy(&narrow_bits, &narrow, sizeof narrow_bits);
        return narrow_bits;
    }
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* symbol, symbol+4, generic(symbol)+4 */
static void parse_fixup(ptx_parser *p, ptx_variable *v, size_t at)
{
    ptx_fixup *fixup = pool_alloc(&p->module->memory, sizeof *fixup);
    fixup->offset = at;
    fixup->bytes = ptx_type_bits(v->type) / 8;
    fixup->symbol = parser_expect_name(p);
    if (strcmp(fixup->symbol->chars, "generic") == 0 && parser_accept_mark(p, '(')) {
        fixup->generic = true;
        fixup->symbol = parser_expect_name(p);
        parser_expect_mark(p, ')');
    }
    if (parser_accept_mark(p, '+')) {
        fixup->addend = parser_expect_int(p);
    } else if (parser_at_mark(p, '-')) {
        fixup->addend = parser_expect_int(p);
    }
    fixup->next = v->fixups;
    v->fixups = fixup;
    if (fixup->bytes < 4 || fixup->bytes > 8) {
        ptx_fail(p->module, p->lexer.token.line,
                 "address of %.80s in a %d-byte element is not "
                 "implemented",
                 fixup->symbol->chars, fixup->bytes);
    }
}

static size_t parse_initialiser(ptx_parser *p, ptx_variable *v, size_t at, int depth)
{
    if (depth == MOST_NESTED) {
        parser_unexpected(p, "a constant");
    }
    if (parser_accept_mark(p, '{')) {
        while (!parser_accept_mark(p, '}')) {
            at = parse_initialiser(p, v, at, depth + 1);
            if (!parser_at_mark(p, '}')) {
                parser_expect_mark(p, ',');
            }
        }
        return at;
    }
    if (p->lexer.token.kind == TOKEN_NAME) {
        parse_fixup(p, v, at);
        store_element(p, v, at, 0);
    } else {
        store_element(p, v, at, element_bits(p, v));
    }
    return at + (size_t)ptx_type_bits(v->type) / 8;
}

/* The directives before the name; returns the number of vector elements. */
static size_t parse_variable_type(ptx_parser *p, ptx_variable *v)
{
    size_t vector = 1;
    while (p->lexer.token.kind == TOKEN_DIRECTIVE) {
        char spelling[16];
        snprintf(spelling, sizeof spelling, "%.*s", (int)p->lexer.token.length,
                 p->lexer.token.chars);
        if (parser_accept_directive(p, "align")) {
            size_t align = (size_t)parser_expect_int(p);
            if (align == 0 || align > MOST_ALIGN || (align & (align - 1))) {
                parser_unexpected(p, "an alignment that is a power of two up to 4096 before it");
            }
            if (!v->align) {
                v->align = align;
            }
        } else if (parser_accept_directive(p, "v2")) {
            vector = 2;
        } else if (parser_accept_directive(p, "v4")) {
            vector = 4;
        } else if (parser_accept_directive(p, "attribute")) {
            while (!parser_accept_mark(p, ')')) {
                if (p->lexer.token.kind == TOKEN_END) {
                    parser_unexpected(p, "')'");
                }
                lexer_next(&p->lexer);
            }
        } else if (parser_accept_directive(p, "ptr")) {
            while (parser_accept_directive(p, "global") || parser_accept_directive(p, "const") ||
                   parser_accept_directive(p, "shared") || parser_accept_directive(p, "local") ||
                   (parser_accept_directive(p, "align") && parser_expect_int(p))) {
            }
        } else if (ptx_type_find(spelling) && !v->type) {
            v->type = ptx_type_find(spelling);
            lexer_next(&p->lexer);
        } else {
            parser_unexpected(p, "the type of a variable");
        }
    }
    if (!v->type || ptx_type_bits(v->type) < 8) {
        parser_unexpected(p, "the type of a variable");
    }
    return vector;
}

static void parse_dimensions(ptx_parser *p, ptx_variable *v)
{
    while (parser_accept_mark(p, '[')) {
        if (parser_accept_mark(p, ']')) {
            v->is_unsized = true;
            v->bytes = 0;
            continue;
        }
        int64_t extent = parser_expect_int(p);
        if (extent < 0 || (extent && v->bytes > MOST_BYTES / (uint64_t)extent)) {
            ptx_fail(p->module, p->lexer.token.line, "%.80s is larger than 256 GiB",
                     v->name->chars);
        }
        v->bytes *= (size_t)extent;
        parser_expect_mark(p, ']');
    }
}

ptx_variable *parser_variable(ptx_parser *p, ptx_space space, bool is_extern,
                              ptx_variable ***list_end, int *count, bool is_parameter)
{
    ptx_variable prototype = {
        .space = space, .is_extern = is_extern, .is_param = space == SPACE_PARAM};
    size_t vector = parse_variable_type(p, &prototype);
    ptx_variable *v;
    do {
        v = pool_alloc(&p->module->memory, sizeof *v);
        *v = prototype;
        v->name = parser_expect_name(p);
        v->index = (*count)++;
        v->bytes = vector * (size_t)ptx_type_bits(v->type) / 8;
        if (!v->align) {
            v->align = v->bytes;
        }
        parse_dimensions(p, v);
        **list_end = v;
        *list_end = &v->next;
        parser_bind(p, v->name, BIND_VARIABLE, 0, 0, v);
        if (parser_accept_mark(p, '=')) {
            if (v->is_unsized) {
                ptx_fail(p->module, p->lexer.token.line, "initialiser of an unsized array");
            }
            if (v->bytes > MOST_INITIALISED) {
                ptx_fail(p->module, p->lexer.token.line, "the initialiser of %.80s has %zu bytes",
                         v->name->chars, v->bytes);
            }
            v->initial = pool_alloc(&p->module->memory, v->bytes);
            parse_initialiser(p, v, 0, 0);
        }
    } while (!is_parameter && parser_accept_mark(p, ','));
    if (!is_parameter) {
        parser_expect_mark(p, ';');
    }
    return v;
}

bool parser_skip_debug(ptx_parser *p)
{
    if (parser_at_directive(p, "loc") || parser_at_directive(p, "file")) {
        lexer_skip_line(&p->lexer);
    } else if (parser_accept_directive(p, "section")) {
        while (!parser_at_mark(p, '{')) {
            if (p->lexer.token.kind == TOKEN_END) {
                parser_unexpected(p, "'{'");
            }
            lexer_next(&p->lexer);
        }
        lexer_skip_braces(&p->lexer);
    } else if (parser_accept_directive(p, "pragma")) {
        while (!parser_accept_mark(p, ';')) {
            if (p->lexer.token.kind == TOKEN_END) {
                parser_unexpected(p, "';'");
            }
            lexer_next(&p->lexer);
        }
    } else {
        return false;
    }
    return true;
}

/* ---- functions ---- */

static ptx_variable *parse_parameters(ptx_parser *p, int *count)
{
    ptx_variable *first = NULL, **end = &first;
    while (!parser_accept_mark(p, ')')) {
        if (!parser_accept_directive(p, "param")) {
            parser_unexpected(p, "'.param'");
        }
        parser_variable(p, SPACE_PARAM, false, &end, count, true);
        if (!parser_at_mark(p, ')')) {
            parser_expect_mark(p, ',');
        }
    }
    return first;
}

static void parse_three(ptx_parser *p, int out[3])
{
    out[0] = (int)parser_expect_int(p);
    out[1] = out[2] = 1;
    for (int i = 1; i < 3 && parser_accept_mark(p, ','); i++) {
        out[i] = (int)parser_expect_int(p);
    }
    for (int i = 0; i < 3; i++) {
        if (out[i] < 1 || out[i] > 1 << 20) {
            parser_unexpected(p, "extents of at least 1 before it");
        }
    }
}

/* .maxntid and its like, up to the body or the ';' of a declaration. */
static void parse_function_directives(ptx_parser *p, ptx_function *f)
{
    int ignored, *const none = &ignored;
    const struct {
        const char *name;
        int *value;
    } with_number[] = {
        {"minnctapersm", &f->minnctapersm}, {"maxnctapersm", none}, {"maxnreg", &f->maxnreg},
        {"maxclusterrank", &f->maxclusterrank},           {"abi_preserve", none}, {"abi_preserve_control", none}};
    while (p->lexer.token.kind == TOKEN_DIRECTIVE) {
        bool known = false;
        for (size_t i = 0; i < sizeof with_number / sizeof with_number[0] && !known; i++) {
            known = parser_accept_directive(p, with_number[i].name);
            if (known) {
                *with_number[i].value = (int)parser_expect_int(p);
            }
        }
        if (known || parser_accept_directive(p, "noreturn") ||
            parser_accept_directive(p, "blocksareclusters")) {
            continue;
        }
        if (parser_accept_directive(p, "explicitcluster")) {
            f->is_explicit_cluster = true;
        } else if (parser_accept_directive(p, "maxntid")) {
            parse_three(p, f->maxntid);
        } else if (parser_accept_directive(p, "reqntid")) {
            parse_three(p, f->reqntid);
        } else if (parser_accept_directive(p, "reqnctapercluster")) {
            parse_three(p, f->reqnctapercluster);
        } else if (!parser_skip_debug(p)) {
            parser_unexpected(p, "a function directive");
        }
    }
}

static void parse_function(ptx_parser *p, bool is_entry, bool is_extern, ptx_function ***end)
{
    ptx_function *f = pool_alloc(&p->module->memory, sizeof *f);
    f->is_entry = is_entry;
    f->is_extern = is_extern;
    f->line = p->lexer.token.line;
    **end = f;
    *end = &f->next;
    p->function = f;
    p->depth = 1;
    if (!is_entry && parser_accept_mark(p, '(')) {
        f->returns = parse_parameters(p, &f->return_count);
    }
    f->name = parser_expect_name(p);
    if (parser_accept_mark(p, '(')) {
        f->params = parse_parameters(p, &f->param_count);
    }
    parse_function_directives(p, f);
    if (parser_at_mark(p, '{')) {
        f->has_body = true;
        parser_function_body(p);
    } else {
        parser_expect_mark(p, ';');
    }
    p->depth = 0;
    parser_unbind(p, 0);
    p->function = NULL;
}

static void parse_target(ptx_parser *p)
{
    do {
        ptx_name *name = parser_expect_name(p);
        if (strncmp(name->chars, "sm_", 3) == 0) {
            char *end;
            p->module->target = (int)strtol(name->chars + 3, &end, 10);
            p->module->target_suffix = *end;
        }
    } while (parser_accept_mark(p, ','));
}

static void parse_version(ptx_parser *p)
{
    double value;
    memcpy(&value, &p->lexer.token.bits, sizeof value);
    if (p->lexer.token.kind != TOKEN_F64 || !(value > 0 && value < 1000)) {
        parser_unexpected(p, "a version like 9.0");
    }
    p->module->version = (int)(value * 10 + 0.5);
    lexer_next(&p->lexer);
}

static void parse_module(ptx_parser *p)
{
    ptx_variable **variables = &p->module->variables;
    ptx_function **functions = &p->module->functions;
    int count = 0;
    bool is_extern = false, is_linked = false;
    while (p->lexer.token.kind != TOKEN_END || is_linked) {
        is_linked = true;
        if (parser_accept_directive(p, "extern")) {
            is_extern = true;
            continue;
        }
        if (parser_accept_directive(p, "visible") || parser_accept_directive(p, "weak") ||
            parser_accept_directive(p, "common")) {
            continue;
        }
        if (parser_accept_directive(p, "version")) {
            parse_version(p);
        } else if (parser_accept_directive(p, "target")) {
            parse_target(p);
        } else if (parser_accept_directive(p, "address_size")) {
            if (parser_expect_int(p) != 64) {
                parser_unexpected(p, "64 before it: addresses of 32 bits are not implemented");
            }
        } else if (parser_accept_directive(p, "global")) {
            parser_variable(p, SPACE_GLOBAL, is_extern, &variables, &count, false);
        } else if (parser_accept_directive(p, "const")) {
            parser_variable(p, SPACE_CONST, is_extern, &variables, &count, false);
        } else if (parser_accept_directive(p, "shared")) {
            parser_variable(p, SPACE_SHARED, is_extern, &variables, &count, false);
        } else if (parser_accept_directive(p, "entry")) {
            parse_function(p, true, is_extern, &functions);
        } else if (parser_accept_directive(p, "func")) {
            parse_function(p, false, is_extern, &functions);
        } else if (!parser_accept_mark(p, ';') && !parser_skip_debug(p)) {
            parser_unexpected(p, "a directive of the module");
        }
        is_extern = false;
        is_linked = false;
    }
    if (!p->module->version || !p->module->target) {
        ptx_fail(p->module, 1, ".version or .target is missing");
    }
}

bool ptx_parse(ptx_module *module)
{
    jmp_buf on_error;
    ptx_parser parser = {.module = module};
    module->on_error = &on_error;
    if (setjmp(on_error)) {
        return false;
    }
    lexer_start(&parser.lexer, module);
    parse_module(&parser);
    return true;
}

void ptx_free(ptx_module *module)
{
    for (ptx_function *f = module->functions; f; f = f->next) {
        free(f->body);
        free(f->regs);
        free(f->scope_parent);
    }
    pool_free(&module->memory);
}
