/*
 * decode_control.c: branches, calls (inlined), returns and the ends of a kernel.
 */
#include <stdlib.h>
#include <string.h>

#include "exec.h"

enum { DEEPEST_CALL = 256 }; /* each takes some of the host's stack while it is decoded */

enum { MOST_LOCAL = 512 * 1024 };

static void branch_to(decoder *d, const ptx_operand *target)
{
    if (target->kind != OPERAND_NAME) {
        decode_fail(d, "'%s' needs a label", d->statement->opcode);
    }
    decode_instr *in = decode_emit(d, IR_branch);
    in->label = target->name;
    in->scope = target->scope;
    in->ends_block = true;
    in->falls_through = in->has_guard;
}

void decode_bra(decoder *d)
{
    decode_operand_count(d, 1, 1);
    branch_to(d, &d->statement->operands[0]);
}

/* The list is a statement of its own, found by its label. */
void decode_branchtargets(decoder *d)
{
    (void)d;
}

static const ptx_statement *find_list(decoder *d, const ptx_operand *label)
{
    const ptx_function *f = d->instance->function;
    for (int scope = label->scope; scope >= 0; scope = f->scope_parent[scope]) {
        for (int i = 0; i < f->body_count; i++) {
            const ptx_statement *s = &f->body[i];
            if (s->label == label->name && s->scope == scope && s->opcode &&
                strcmp(s->opcode, ".branchtargets") == 0) {
                return s;
            }
        }
    }
    decode_fail(d, "'%.200s' is not a .branchtargets list", label->name->chars);
}

void decode_brx(decoder *d)
{
    const ptx_operand *o = d->statement->operands;
    decode_operand_count(d, 2, 2);
    if (!(d->words.flags & F(IDX)) || o[1].kind != OPERAND_NAME) {
        decode_unknown(d);
    }
    const ptx_statement *list = find_list(d, &o[1]);
    uint32_t index = decode_use(d, &o[0], 4);
    decode_instr *in = decode_emit(d, IR_branch_index);
    in->in.target = d->jump_count;
    in->in.imm = list->operand_count;
    in->jump_count = (uint32_t)list->operand_count;
    in->ends_block = true;
    in->falls_through = in->has_guard;
    decode_add_use(in, index);
    for (int i = 0; i < list->operand_count; i++) {
        POOL_GROW(d->jumps, d->jump_count, d->jump_capacity);
        d->jumps[d->jump_count++] =
            (decode_label){list->operands[i].name, list->operands[i].scope, 0, 0};
    }
}

static void emit_end(decoder *d, ir_op op)
{
    decode_instr *in = decode_emit(d, op);
    in->ends_block = true;
    in->falls_through = in->has_guard;
}

void decode_exit(decoder *d)
{
    emit_end(d, IR_exit);
}

void decode_trap(decoder *d)
{
    emit_end(d, IR_trap);
}

void decode_ret(decoder *d)
{
    if (!decode_inlined(d)) {
        emit_end(d, IR_exit);
        return;
    }
    decode_instr *in = decode_emit(d, IR_branch);
    in->returns = true;
    in->ends_block = true;
    in->falls_through = in->has_guard;
}

/* ---- calls ---- */

static size_t take_local(decoder *d, size_t align, size_t bytes)
{
    size_t at = (d->local_top + align - 1) / align * align;
    if (bytes > MOST_LOCAL) {
        decode_fail(d, "a local variable of %zu bytes", bytes);
    }
    d->local_top = at + bytes;
    if (d->local_top > d->kernel->local_bytes) {
        d->kernel->local_bytes = d->local_top;
    }
    if (d->local_top > MOST_LOCAL) {
        decode_fail(d, "the kernel needs more than 512 KiB of local memory per thread");
    }
    return at;
}

/* Local variables, and the .param variables through which a function talks to the ones it calls. */
void decode_place_locals(decoder *d, ptx_function *f)
{
    for (ptx_variable *v = f->locals; v; v = v->next) {
        if (v->space == SPACE_LOCAL || v->space == SPACE_PARAM) {
            v->space = SPACE_LOCAL;
            v->address = take_local(d, v->align, v->bytes);
        }
    }
}

/* Where the .param variable is that the call hands over; it has at least `bytes`. */
static uint64_t param_address(decoder *d, const ptx_operand *operand, size_t bytes)
{
    if (operand->kind != OPERAND_VARIABLE || operand->variable->space != SPACE_LOCAL) {
        decode_fail(d, "arguments and results of 'call' must be .param variables");
    }
    if (operand->variable->bytes < bytes) {
        decode_fail(d, "'%.200s' has %zu bytes, the called function wants %zu",
                    operand->variable->name->chars, operand->variable->bytes, bytes);
    }
    return operand->variable->address;
}

/* The formal parameters become other names of the caller's variables. */
static void bind_params(decoder *d, ptx_variable *formal, const ptx_operand *actual,
                        const char *what)
{
    int given = actual ? actual->item_count : 0;
    for (int i = 0; formal; formal = formal->next, i++) {
        if (i >= given) {
            decode_fail(d, "'call' gives %d %s, the function has more", given, what);
        }
        formal->space = SPACE_LOCAL;
        formal->address = param_address(d, &actual->items[i], formal->bytes);
    }
}

static void call_external(decoder *d, const ptx_function *f, const ptx_operand *results,
                          const ptx_operand *arguments)
{
    const char *name = f->name->chars;
    bool is_print = strcmp(name, "vprintf") == 0;
    if (!is_print && strcmp(name, "__assertfail") != 0) {
        decode_fail(d, "the external function '%.200s' is not supported", name);
    }
    if (!arguments || arguments->item_count < (is_print ? 2 : 4)) {
        decode_fail(d, "'%s' has too few arguments", name);
    }
    decode_instr *in = decode_emit(d, is_print ? IR_print : IR_assert_fail);
    for (int i = 0; i < arguments->item_count && i < 4; i++) {
        size_t bytes = !is_print && i == 2 ? 4 : 8; /* the line of an assertion, else pointers */
        in->in.r[i] = (uint32_t)param_address(d, &arguments->items[i], bytes);
    }
    if (is_print) {
        in->in.imm =
            results && results->item_count ? (int64_t)param_address(d, &results->items[0], 4) : -1;
        return;
    }
    in->ends_block = true;
    in->falls_through = in->has_guard;
}

/* A guarded call: lanes without the predicate branch around the inlined body. */
static uint32_t skip_body(decoder *d)
{
    if (d->guard == DECODE_ALL) {
        return UINT32_MAX;
    }
    decode_instr *in = decode_emit(d, IR_branch);
    in->in.guard_flip = ~in->in.guard_flip;
    in->ends_block = true;
    d->guard = DECODE_ALL;
    d->guard_negated = false;
    return d->count - 1;
}

static void inline_function(decoder *d, ptx_function *f, const ptx_operand *results,
                            const ptx_operand *arguments)
{
    if (f->active) {
        decode_fail(d, "recursive call of '%.200s': calls are inlined", f->name->chars);
    }
    if (++d->inlined > 1 << 20) {
        decode_fail(d, "the kernel makes more than a million calls, all of them inlined");
    }
    if (d->instance->depth == DEEPEST_CALL) {
        decode_fail(d, "calls nested deeper than %d: they are inlined", DEEPEST_CALL);
    }
    decode_instance instance = {.function = f,
                                .carry = DECODE_NONE,
                                .depth = d->instance->depth + 1,
                                .caller = d->instance};
    const ptx_statement *statement = d->statement;
    size_t local_top = d->local_top;
    bind_params(d, f->returns, results, "results");
    bind_params(d, f->params, arguments, "arguments");
    uint32_t skip = skip_body(d);
    decode_place_locals(d, f);
    d->instance = &instance;
    decode_statements(d);
    d->instance = instance.caller;
    d->local_top = local_top;
    d->statement = statement;
    if (skip != UINT32_MAX) {
        d->code[skip].in.target = d->count;
    }
}

void decode_call(decoder *d)
{
    const ptx_statement *s = d->statement;
    const ptx_operand *results = NULL, *arguments = NULL;
    int at = 0;
    if (at < s->operand_count && s->operands[at].kind == OPERAND_VECTOR) {
        results = &s->operands[at++];
    }
    if (at >= s->operand_count || s->operands[at].kind != OPERAND_NAME) {
        decode_fail(d, "calls through a register are not supported");
    }
    const ptx_operand *callee = &s->operands[at++];
    if (at < s->operand_count && s->operands[at].kind == OPERAND_VECTOR) {
        arguments = &s->operands[at++];
    }
    ptx_function *f = ptx_find_function(d->module, callee->name);
    if (!f) {
        decode_fail(d, "function '%.200s' is not declared", callee->name->chars);
    }
    if (f->has_body) {
        inline_function(d, f, results, arguments);
    } else {
        call_external(d, f, results, arguments);
    }
}
