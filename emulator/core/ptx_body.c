/*
 * ptx_body.c: the inside of a function: declarations, scopes, labels, statements and operands.
 * Registers are resolved here; labels and functions may come later and stay (name, scope) pairs.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "ptx_parser.h"

enum { MAX_LIST = 260, MOST_NESTED = 8 };

static ptx_operand parse_operand(ptx_parser *p);

static int add_registers(ptx_parser *p, ptx_name *name, ptx_type type, int count, bool numbered)
{
    ptx_function *f = p->function;
    ptx_reg_names *names = pool_alloc(&p->module->memory, sizeof *names);
    *names = (ptx_reg_names){name, f->reg_count, count, numbered, f->reg_names};
    f->reg_names = names;
    for (int i = 0; i < count; i++) {
        POOL_GROW(f->regs, f->reg_count, f->reg_capacity);
        f->regs[f->reg_count++] = type;
    }
    return names->first;
}

static void parse_registers(ptx_parser *p)
{
    char spelling[16] = "";
    if (p->lexer.token.kind == TOKEN_DIRECTIVE && p->lexer.token.length < sizeof spelling) {
        memcpy(spelling, p->lexer.token.chars, p->lexer.token.length);
    }
    ptx_type type = ptx_type_find(spelling);
    if (!type) {
        parser_unexpected(p, "a register type");
    }
    lexer_next(&p->lexer);
    do {
        ptx_name *name = parser_expect_name(p);
        if (parser_accept_mark(p, '<')) {
            int count = (int)parser_expect_int(p);
            parser_expect_mark(p, '>');
            if (count < 0 || count > 10000000) {
                ptx_fail(p->module, p->lexer.token.line, "%d registers %s", count, name->chars);
            }
            parser_bind(p, name, BIND_REG_RANGE, add_registers(p, name, type, count, true), count,
                        NULL);
        } else {
            parser_bind(p, name, BIND_REG, add_registers(p, name, type, 1, false), 1, NULL);
        }
    } while (parser_accept_mark(p, ','));
    parser_expect_mark(p, ';');
}

/* The register called `name`, or -1: an exact binding, or a prefix with a number in its range. */
static int find_register(ptx_parser *p, const ptx_name *name)
{
    if (name->binding) {
        return name->binding->kind == BIND_REG ? name->binding->first : -1;
    }
    size_t prefix = name->length;
    while (prefix > 0 && isdigit((unsigned char)name->chars[prefix - 1])) {
        prefix--;
    }
    size_t digits = name->length - prefix;
    for (; digits > 0 && digits < 10; prefix++, digits--) {
        if (name->chars[prefix] == '0' && digits > 1) {
            continue; /* %f01 is not element 1 of %f, but may be element 1 of %f0 */
        }
        const ptx_binding *range = ptx_intern(p->module, name->chars, prefix)->binding;
        long index = strtol(name->chars + prefix, NULL, 10);
        if (range && range->kind == BIND_REG_RANGE && index < range->count) {
            return range->first + (int)index;
        }
    }
    return -1;
}

/* [base + offset, ...]: the base is items[0], imm the offset, further items as they come. */
static ptx_operand parse_address(ptx_parser *p)
{
    ptx_operand result = {.kind = OPERAND_ADDRESS, .pair = -1, .reg = -1};
    ptx_operand items[8];
    int count = 0;
    parser_expect_mark(p, '[');
    do {
        if (count == 8) {
            parser_unexpected(p, "']'");
        }
        items[count++] = parse_operand(p);
        if (count == 1) {
            while (parser_at_mark(p, '+') || parser_at_mark(p, '-')) {
                parser_accept_mark(p, '+');
                result.imm = (int64_t)((uint64_t)result.imm + (uint64_t)parser_expect_int(p));
            }
        }
    } while (parser_accept_mark(p, ','));
    parser_expect_mark(p, ']');
    if (items[0].kind == OPERAND_VARIABLE) {
        result.imm = (int64_t)((uint64_t)result.imm + (uint64_t)items[0].imm);
        items[0].imm = 0;
    }
    result.items = pool_alloc(&p->module->memory, (size_t)count * sizeof *items);
    memcpy(result.items, items, (size_t)count * sizeof *items);
    result.item_count = count;
    return result;
}

static ptx_operand parse_list(ptx_parser *p, char end)
{
    ptx_operand result = {.kind = OPERAND_VECTOR, .pair = -1, .reg = -1};
    ptx_operand items[MAX_LIST];
    int count = 0;
    while (!parser_accept_mark(p, end)) {
        if (count == MAX_LIST) {
            parser_unexpected(p, "the end of the list");
        }
        items[count++] = parse_operand(p);
        if (!parser_at_mark(p, end) && !parser_accept_mark(p, ',')) {
            parser_unexpected(p, "',' or the end of the list");
        }
    }
    result.items = pool_alloc(&p->module->memory, (size_t)count * sizeof *items);
    memcpy(result.items, items, (size_t)count * sizeof *items);
    result.item_count = count;
    return result;
}

static ptx_operand parse_constant(ptx_parser *p, bool negative)
{
    const ptx_token *token = &p->lexer.token;
    ptx_operand result = {.pair = -1, .reg = -1, .imm = (int64_t)token->bits};
    if (token->kind == TOKEN_INT) {
        result.kind = OPERAND_INT;
        result.imm = (int64_t)(negative ? 0 - token->bits : token->bits);
    } else if (token->kind == TOKEN_F32) {
        result.kind = OPERAND_F32;
        result.imm ^= negative ? INT64_C(0x80000000) : 0;
    } else if (token->kind == TOKEN_F64) {
        result.kind = OPERAND_F64;
        result.imm ^= negative ? INT64_MIN : 0;
    } else {
        parser_unexpected(p, "an operand");
    }
    lexer_next(&p->lexer);
    return result;
}

static ptx_operand parse_named(ptx_parser *p)
{
    ptx_operand result = {.pair = -1, .reg = -1, .scope = p->scope};
    ptx_name *name = parser_expect_name(p);
    result.name = name;
    int reg = find_register(p, name);
    if (strcmp(name->chars, "_") == 0) {
        result.kind = OPERAND_SINK;
    } else if (reg >= 0) {
        result.kind = OPERAND_REG;
        result.reg = reg;
    } else if (name->binding && name->binding->kind == BIND_VARIABLE) {
        result.kind = OPERAND_VARIABLE;
        result.variable = name->binding->variable;
    } else if (name->chars[0] == '%') {
        result.kind = OPERAND_SPECIAL;
        if (p->lexer.token.kind == TOKEN_DIRECTIVE && p->lexer.token.length == 1) {
            result.component = p->lexer.token.chars[0];
            lexer_next(&p->lexer);
        }
    } else if (strcmp(name->chars, "WARP_SZ") == 0) {
        result.kind = OPERAND_INT;
        result.imm = 32;
    } else {
        result.kind = OPERAND_NAME;
    }
    if (result.kind == OPERAND_VARIABLE && (parser_at_mark(p, '+') || parser_at_mark(p, '-'))) {
        parser_accept_mark(p, '+');
        result.imm = parser_expect_int(p);
    }
    return result;
}

static ptx_operand parse_group(ptx_parser *p)
{
    if (p->nested++ == MOST_NESTED) {
        parser_unexpected(p, "fewer brackets");
    }
    ptx_operand result = parser_accept_mark(p, '{')   ? parse_list(p, '}')
                         : parser_accept_mark(p, '(') ? parse_list(p, ')')
                                                      : parse_address(p);
    p->nested--;
    return result;
}

static ptx_operand parse_operand(ptx_parser *p)
{
    if (parser_at_mark(p, '{') || parser_at_mark(p, '(') || parser_at_mark(p, '[')) {
        return parse_group(p);
    }
    if (parser_accept_mark(p, '-')) {
        return parse_constant(p, true);
    }
    bool negated = parser_accept_mark(p, '!');
    if (p->lexer.token.kind != TOKEN_NAME) {
        return parse_constant(p, false);
    }
    ptx_operand result = parse_named(p);
    result.negated = negated;
    if (parser_accept_mark(p, '|')) {
        ptx_operand second = parse_named(p);
        if (second.kind == OPERAND_REG) {
            result.pair = second.reg;
        } else if (second.kind != OPERAND_SINK) {
            parser_unexpected(p, "a predicate after '|'");
        }
    }
    return result;
}

static ptx_statement *add_statement(ptx_parser *p)
{
    ptx_function *f = p->function;
    POOL_GROW(f->body, f->body_count, f->body_capacity);
    ptx_statement *s = &f->body[f->body_count++];
    *s = (ptx_statement){.line = p->lexer.token.line, .scope = p->scope, .guard = -1};
    return s;
}

static void parse_modifiers(ptx_parser *p, ptx_statement *s)
{
    const char *found[PTX_MAX_MODIFIERS];
    while (p->lexer.token.kind == TOKEN_DIRECTIVE) {
        if (s->modifier_count == PTX_MAX_MODIFIERS) {
            parser_unexpected(p, "an operand");
        }
        found[s->modifier_count++] =
            ptx_intern(p->module, p->lexer.token.chars, p->lexer.token.length)->chars;
        lexer_next(&p->lexer);
    }
    size_t bytes = (size_t)s->modifier_count * sizeof *found;
    s->modifiers = pool_alloc(&p->module->memory, bytes);
    memcpy(s->modifiers, found, bytes);
}

/* The rest of an instruction, its opcode being read. */
static void parse_instruction(ptx_parser *p, ptx_statement *s, const ptx_name *opcode)
{
    ptx_operand operands[16];
    s->opcode = opcode->chars;
    parse_modifiers(p, s);
    while (!parser_accept_mark(p, ';')) {
        if (s->operand_count == 16) {
            parser_unexpected(p, "';'");
        }
        operands[s->operand_count++] = parse_operand(p);
        if (!parser_at_mark(p, ';')) {
            parser_expect_mark(p, ',');
        }
    }
    size_t bytes = (size_t)s->operand_count * sizeof operands[0];
    s->operands = pool_alloc(&p->module->memory, bytes);
    memcpy(s->operands, operands, bytes);
}

/* L: .branchtargets a, b, ...; as many as a switch has cases */
static void parse_targets(ptx_parser *p, ptx_statement *s)
{
    int capacity = 0;
    s->opcode = ptx_intern(p->module, ".branchtargets", 14)->chars;
    while (!parser_accept_mark(p, ';')) {
        if (s->operand_count == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            ptx_operand *grown =
                pool_alloc(&p->module->memory, (size_t)capacity * sizeof *s->operands);
            if (s->operand_count) {
                memcpy(grown, s->operands, (size_t)s->operand_count * sizeof *grown);
            }
            s->operands = grown;
        }
        s->operands[s->operand_count++] = parse_operand(p);
        if (!parser_at_mark(p, ';')) {
            parser_expect_mark(p, ',');
        }
    }
}

/* NAME: label, or the `L: .branchtargets a, b;` list, or an instruction. */
static void parse_labelled(ptx_parser *p, int guard, bool guard_negated)
{
    int line = p->lexer.token.line;
    ptx_name *name = parser_expect_name(p);
    ptx_statement *s = add_statement(p);
    s->line = line;
    s->guard = guard;
    s->guard_negated = guard_negated;
    if (!parser_accept_mark(p, ':')) {
        parse_instruction(p, s, name);
        return;
    }
    s->label = name;
    if (parser_accept_directive(p, "branchtargets")) {
        parse_targets(p, s);
    } else if (parser_at_directive(p, "callprototype") || parser_at_directive(p, "calltargets")) {
        ptx_fail(p->module, line, "calls through a register are not supported");
    }
}

static void open_scope(ptx_parser *p, int parent)
{
    ptx_function *f = p->function;
    POOL_GROW(f->scope_parent, f->scope_count, f->scope_capacity);
    f->scope_parent[f->scope_count] = parent;
    p->scope = f->scope_count++;
    p->depth++;
}

static bool parse_declaration(ptx_parser *p, ptx_variable ***end, int *count)
{
    if (parser_accept_directive(p, "reg")) {
        parse_registers(p);
    } else if (parser_accept_directive(p, "local")) {
        parser_variable(p, SPACE_LOCAL, false, end, count, false);
    } else if (parser_accept_directive(p, "shared")) {
        parser_variable(p, SPACE_SHARED, false, end, count, false);
    } else if (parser_accept_directive(p, "param")) {
        parser_variable(p, SPACE_PARAM, false, end, count, false);
    } else {
        return parser_skip_debug(p);
    }
    return true;
}

void parser_function_body(ptx_parser *p)
{
    ptx_variable **locals = &p->function->locals;
    int count = 0;
    lexer_next(&p->lexer);
    open_scope(p, -1);
    while (p->scope >= 0) {
        if (parser_accept_mark(p, '{')) {
            open_scope(p, p->scope);
        } else if (parser_accept_mark(p, '}')) {
            p->depth--;
            parser_unbind(p, p->depth);
            p->scope = p->function->scope_parent[p->scope];
        } else if (parser_accept_mark(p, '@')) {
            bool negated = parser_accept_mark(p, '!');
            int reg = find_register(p, parser_expect_name(p));
            if (reg < 0) {
                parser_unexpected(p, "a declared predicate before the instruction");
            }
            parse_labelled(p, reg, negated);
        } else if (p->lexer.token.kind == TOKEN_NAME) {
            parse_labelled(p, -1, false);
        } else if (!parser_accept_mark(p, ';') && !parse_declaration(p, &locals, &count)) {
            parser_unexpected(p, "an instruction");
        }
    }
}
