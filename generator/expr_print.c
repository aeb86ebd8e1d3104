/*
 * expr_print.c: a program as CUDA C statements. A node becomes a variable when it is read more than
 * once, when the plan named it, or when its line would grow long; the rest is written where it is
 * used.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "expr.h"

enum { LONGEST_OPERAND = 56 };

/* How tightly an expression binds, as in C. */
typedef enum binding {
    BINDING_CONDITIONAL,
    BINDING_COMPARISON,
    BINDING_SUM,
    BINDING_PRODUCT,
    BINDING_UNARY,
    BINDING_ATOM
} binding;

typedef struct printed {
    char *text; /* owned */
    binding binding;
    int uses;
    const char *name; /* from the plan, or NULL */
} printed;

typedef struct printer {
    const program *program;
    printed *nodes;
    text *statements;
    int temporaries;
    bool shares_sigmoid; /* it is needed for several arguments, mostly u and -u */
} printer;

/* The shortest decimal that reads back as the same fp32 number, with an f. */
static void print_constant(text *out, double value)
{
    char digits[40];
    for (int precision = 1; precision <= 9; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtof(digits, NULL) == (float)value)
            break;
    }
    bool fraction = strpbrk(digits, ".e") != NULL;
    text_printf(out, "%s%sf", digits, fraction ? "" : ".0");
}

static void print_operand(text *out, const printer *p, int node, binding least)
{
    bool wrapped = p->nodes[node].binding < least;
    text_printf(out, "%s%s%s", wrapped ? "(" : "", p->nodes[node].text, wrapped ? ")" : "");
}

static binding print_infix(text *out, const printer *p, const program_node *node, const char *sign,
                           binding level)
{
    print_operand(out, p, node->args[0], level);
    text_printf(out, " %s ", sign);
    /* a - (b - c), a / (b / c): the right operand binds tighter. */
    print_operand(out, p, node->args[1], level + 1);
    return level;
}

static binding print_call(text *out, const printer *p, const program_node *node, const char *name)
{
    text_printf(out, "%s(", name);
    for (int k = 0; k < program_op_arity(node->op); k++)
        text_printf(out, "%s%s", k ? ", " : "", p->nodes[node->args[k]].text);
    text_puts(out, ")");
    return BINDING_ATOM;
}

static binding print_comparison(text *out, const printer *p, int condition)
{
    const program_node *node = &p->program->nodes[condition];
    const char *sign = node->op == PROGRAM_greater ? ">" : "<";
    if (node->op != PROGRAM_greater && node->op != PROGRAM_less) {
        print_operand(out, p, condition, BINDING_SUM);
        text_puts(out, " != 0.0f");
        return BINDING_COMPARISON;
    }
    return print_infix(out, p, node, sign, BINDING_COMPARISON);
}

/* where(condition, yes, no) */
static binding print_where(text *out, const printer *p, const program_node *node)
{
    print_comparison(out, p, node->args[0]);
    text_puts(out, " ? ");
    print_operand(out, p, node->args[1], BINDING_SUM);
    text_puts(out, " : ");
    print_operand(out, p, node->args[2], BINDING_SUM);
    return BINDING_CONDITIONAL;
}

static binding print_node(text *out, const printer *p, int index)
{
    const program_node *node = &p->program->nodes[index];
    switch (node->op) {
    case PROGRAM_constant:
        print_constant(out, node->value);
        return node->value < 0 ? BINDING_UNARY : BINDING_ATOM;
    case PROGRAM_input:
        text_puts(out, p->program->inputs[node->input]);
        return BINDING_ATOM;
    case PROGRAM_add:
        return print_infix(out, p, node, "+", BINDING_SUM);
    case PROGRAM_sub:
        return print_infix(out, p, node, "-", BINDING_SUM);
    case PROGRAM_mul:
        return print_infix(out, p, node, "*", BINDING_PRODUCT);
    case PROGRAM_div:
        return print_infix(out, p, node, "/", BINDING_PRODUCT);
    case PROGRAM_neg:
        text_puts(out, "-");
        print_operand(out, p, node->args[0], BINDING_ATOM);
        return BINDING_UNARY;
    case PROGRAM_abs:
        return print_call(out, p, node, "fabsf");
    case PROGRAM_greater:
    case PROGRAM_less:
        print_comparison(out, p, index);
        text_puts(out, " ? 1.0f : 0.0f");
        return BINDING_CONDITIONAL;
    case PROGRAM_where:
        return print_where(out, p, node);
    default:
        break;
    }
    char name[32];
    bool shared = node->op == PROGRAM_sigmoid && p->shares_sigmoid;
    snprintf(name, sizeof name, "mlp_%s%s", program_op_name(node->op), shared ? "_shared" : "");
    return print_call(out, p, node, name);
}

/* A comparison that is only ever asked by where needs no number of its own. */
static bool is_condition_only(const program *p, int index)
{
    if (p->nodes[index].op != PROGRAM_greater && p->nodes[index].op != PROGRAM_less)
        return false;
    for (int i = index + 1; i < p->count; i++)
        for (int k = 0; k < program_op_arity(p->nodes[i].op); k++)
            if (p->nodes[i].args[k] == index && (p->nodes[i].op != PROGRAM_where || k != 0))
                return false;
    return true;
}

/* Gives the node a variable, unless it is a leaf or short and read once. */
static void maybe_name(printer *p, int index, const text *expression)
{
    printed *n = &p->nodes[index];
    const program_op op = p->program->nodes[index].op;
    if (op == PROGRAM_constant || op == PROGRAM_input || is_condition_only(p->program, index))
        return;
    if (!n->name && n->uses < 2 && expression->length <= LONGEST_OPERAND)
        return;
    text name = TEXT_INIT;
    if (n->name)
        text_puts(&name, n->name);
    else
        text_printf(&name, "t%d", p->temporaries++);
    text_printf(p->statements, "const float %s = %s;\n", text_string(&name),
                text_string(expression));
    free(n->text);
    n->text = text_take(&name);
    n->binding = BINDING_ATOM;
}

static bool shares_sigmoid(const printer *p)
{
    int count = 0;
    for (int i = 0; i < p->program->count; i++) {
        program_op op = p->program->nodes[i].op;
        count += p->nodes[i].uses > 0 && (op == PROGRAM_sigmoid || op == PROGRAM_tanh);
    }
    return count > 1;
}

static mmlp_status print_all(printer *p)
{
    p->shares_sigmoid = shares_sigmoid(p);
    for (int i = 0; i < p->program->count; i++) {
        printed *n = &p->nodes[i];
        if (n->uses == 0)
            continue;
        text expression = TEXT_INIT;
        n->binding = print_node(&expression, p, i);
        n->text = strdup(text_string(&expression));
        if (n->text)
            maybe_name(p, i, &expression);
        bool failed = expression.failed || !n->text;
        text_free(&expression);
        if (failed)
            return mmlp_fail_memory(256, "the text of an expression");
    }
    return MMLP_OK;
}

mmlp_status expr_print(text *statements, text *values, const program *graph, const int *results,
                       int result_count, const expr_name *names, int name_count)
{
    mmlp_status status = MMLP_OK;
    printer p = {graph, calloc((size_t)graph->count + 1, sizeof(printed)), statements, 0, false};
    if (!p.nodes)
        return mmlp_fail_memory((size_t)graph->count * sizeof(printed), "an expression");
    for (int r = 0; r < result_count; r++)
        p.nodes[results[r]].uses++;
    for (int i = graph->count - 1; i >= 0; i--)
        for (int k = 0; p.nodes[i].uses > 0 && k < program_op_arity(graph->nodes[i].op); k++)
            p.nodes[graph->nodes[i].args[k]].uses++;
    for (int i = 0; i < name_count; i++)
        if (names[i].node >= 0 && !p.nodes[names[i].node].name)
            p.nodes[names[i].node].name = names[i].name;
    MMLP_TRY_CLEANUP(print_all(&p));
    size_t length = statements->length;
    if (length > 0 && statements->chars[length - 1] == '\n') /* the template ends the line */
        statements->chars[--statements->length] = '\0';
    for (int r = 0; r < result_count; r++)
        text_puts(&values[r], p.nodes[results[r]].text);
    if (statements->failed)
        status = mmlp_fail_memory(statements->length, "the text of an expression");

cleanup:
    for (int i = 0; i < graph->count; i++)
        free(p.nodes[i].text);
    free(p.nodes);
    return status;
}
