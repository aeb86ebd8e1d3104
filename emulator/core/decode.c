/*
 * decode.c: the frame of decoding: statements, labels, and the kernel that comes out. The words of
 * an opcode are read in decode_words.c, operands in decode_operand.c; what single opcodes mean is
 * in the other decode_*.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exec.h"

enum { MOST_SHARED = 1 << 20, MOST_PARAMS = 32764 };

_Noreturn void decode_fail(decoder *d, const char *format, ...)
{
    char reason[512];
    va_list args;
    va_start(args, format);
    vsnprintf(reason, sizeof reason, format, args);
    va_end(args);
    ptx_fail(d->module, d->statement ? d->statement->line : 1, "%s", reason);
}

_Noreturn void decode_unknown(decoder *d)
{
    char opcode[256];
    int used = snprintf(opcode, sizeof opcode, "%s", d->statement->opcode);
    for (int i = 0; i < d->statement->modifier_count && used < (int)sizeof opcode; i++) {
        used += snprintf(opcode + used, sizeof opcode - (size_t)used, ".%s",
                         d->statement->modifiers[i]);
    }
    decode_fail(d, "instruction '%s' is not supported", opcode);
}

static void decode_statement(decoder *d, const ptx_statement *s)
{
    d->statement = s;
    d->has_instr = false;
    d->guard = s->guard < 0 ? DECODE_ALL : decode_register_number(d, s->guard);
    d->guard_negated = s->guard_negated;
    if (s->guard >= 0 && d->instance->function->regs[s->guard] != TYPE_PRED) {
        decode_fail(d, "the guard of '%s' is not a predicate", s->opcode);
    }
    decode_read_words(d)(d);
    d->statement = s;
    decode_widen(d);
    d->guard = DECODE_ALL;
    d->guard_negated = false;
}

static int compare_labels(const void *left, const void *right)
{
    const decode_label *a = left, *b = right;
    uintptr_t first = (uintptr_t)a->name, second = (uintptr_t)b->name;
    return first != second ? (first < second ? -1 : 1) : a->scope - b->scope;
}

/* From here on find_label finds those of the current instance. */
static void sort_labels(decoder *d)
{
    uint32_t count = d->label_count - d->first_label;
    if (count == 0) {
        return;
    }
    decode_label *labels = d->labels + d->first_label;
    qsort(labels, count, sizeof *labels, compare_labels);
    for (uint32_t i = 1; i < count; i++) {
        if (compare_labels(&labels[i - 1], &labels[i]) == 0) {
            int line = labels[i].line > labels[i - 1].line ? labels[i].line : labels[i - 1].line;
            ptx_fail(d->module, line, "label '%.200s' is declared twice", labels[i].name->chars);
        }
    }
}

static uint32_t find_label(decoder *d, ptx_name *name, int scope, int line)
{
    for (; scope >= 0 && d->label_count > d->first_label;
         scope = d->instance->function->scope_parent[scope]) {
        decode_label wanted = {.name = name, .scope = scope};
        const decode_label *found =
            bsearch(&wanted, d->labels + d->first_label, d->label_count - d->first_label,
                    sizeof wanted, compare_labels);
        if (found) {
            return found->at;
        }
    }
    ptx_fail(d->module, line, "label '%.200s' is not declared", name->chars);
}

static void resolve_branches(decoder *d, uint32_t first_jump)
{
    for (uint32_t i = d->instance->first_instr; i < d->count; i++) {
        decode_instr *in = &d->code[i];
        if (in->label) {
            in->in.target = find_label(d, in->label, in->scope, in->in.line);
            in->label = NULL;
        }
    }
    for (uint32_t i = first_jump; i < d->jump_count; i++) {
        if (d->jumps[i].name) {
            d->jumps[i].at =
                find_label(d, d->jumps[i].name, d->jumps[i].scope, d->instance->function->line);
            d->jumps[i].name = NULL;
        }
    }
}

bool decode_inlined(const decoder *d)
{
    return !d->instance->is_entry;
}

void decode_statements(decoder *d)
{
    ptx_function *f = d->instance->function;
    uint32_t outer_first = d->first_label, first_jump = d->jump_count;
    d->first_label = d->label_count;
    d->instance->first_instr = d->count;
    d->instance->first_register = d->register_count;
    for (int i = 0; i < f->reg_count; i++) {
        uint32_t number = decode_register_new(d, decode_type_bytes(f->regs[i]));
        d->registers[number].is_temporary = false;
    }
    f->active = true;
    for (int i = 0; i < f->body_count; i++) {
        const ptx_statement *s = &f->body[i];
        if (s->label) {
            POOL_GROW(d->labels, d->label_count, d->label_capacity);
            d->labels[d->label_count++] = (decode_label){s->label, s->scope, d->count, s->line};
        }
        if (s->opcode) {
            decode_statement(d, s);
        }
    }
    for (uint32_t i = d->instance->first_instr; i < d->count; i++) {
        if (d->code[i].returns) {
            d->code[i].in.target = d->count;
            d->code[i].returns = false;
        }
    }
    sort_labels(d);
    resolve_branches(d, first_jump);
    f->active = false;
    d->label_count = d->first_label;
    d->first_label = outer_first;
}

/* ---- the kernel ---- */

static size_t round_up(size_t value, size_t to)
{
    return (value + to - 1) / to * to;
}

static size_t place_params(ptx_function *entry)
{
    size_t at = 0;
    for (ptx_variable *v = entry->params; v; v = v->next) {
        at = round_up(at, v->align);
        v->address = at;
        at += v->bytes;
    }
    return at;
}

typedef struct shared_layout {
    decoder *d;
    uint32_t visit;
    size_t top, dynamic_align;
    ptx_variable *dynamic[64];
    int dynamic_count;
} shared_layout;

static void place_shared(shared_layout *layout, ptx_variable *v)
{
    if (v->space != SPACE_SHARED || v->visit == layout->visit) {
        return;
    }
    v->visit = layout->visit;
    if (v->is_unsized || v->is_extern) {
        if (layout->dynamic_count == 64) {
            decode_fail(layout->d, "more than 64 dynamic shared variables");
        }
        layout->dynamic[layout->dynamic_count++] = v;
        if (v->align > layout->dynamic_align) {
            layout->dynamic_align = v->align;
        }
        return;
    }
    layout->top = round_up(layout->top, v->align);
    v->address = layout->top;
    layout->top += v->bytes;
    if (v->bytes > MOST_SHARED || layout->top > MOST_SHARED) {
        decode_fail(layout->d, "the kernel has more than 1 MiB of static shared variables");
    }
}

static void place_function_shared(shared_layout *layout, ptx_function *f);

static void place_operand_shared(shared_layout *layout, const ptx_operand *operand)
{
    if (operand->kind == OPERAND_VARIABLE) {
        place_shared(layout, operand->variable);
    } else if (operand->kind == OPERAND_NAME) {
        ptx_variable *v = ptx_find_variable(layout->d->module, operand->name);
        ptx_function *called = ptx_find_function(layout->d->module, operand->name);
        if (v) {
            place_shared(layout, v);
        }
        if (called) {
            place_function_shared(layout, called);
        }
    }
    for (int i = 0; i < operand->item_count; i++) {
        place_operand_shared(layout, &operand->items[i]);
    }
}

static void place_function_shared(shared_layout *layout, ptx_function *f)
{
    if (f->visit == layout->visit) {
        return;
    }
    f->visit = layout->visit;
    for (int i = 0; i < f->body_count; i++) {
        for (int j = 0; j < f->body[i].operand_count; j++) {
            place_operand_shared(layout, &f->body[i].operands[j]);
        }
    }
}

/* Gives every shared variable the kernel can reach its offset; dynamic ones all start at one. */
static void layout_shared(decoder *d, ptx_function *entry)
{
    shared_layout layout = {.d = d, .visit = ++d->module->visits, .dynamic_align = 16};
    place_function_shared(&layout, entry);
    d->kernel->shared_static = layout.top;
    d->kernel->shared_dynamic = round_up(layout.top, layout.dynamic_align);
    for (int i = 0; i < layout.dynamic_count; i++) {
        layout.dynamic[i]->address = d->kernel->shared_dynamic;
    }
}

static void finish_kernel(decoder *d)
{
    ir_kernel *kernel = d->kernel;
    kernel->code = pool_require(calloc(d->count, sizeof *kernel->code));
    kernel->ops = pool_require(calloc(d->count, sizeof *kernel->ops));
    kernel->code_count = d->count;
    for (uint32_t i = 0; i < d->count; i++) {
        kernel->code[i] = d->code[i].in;
        kernel->code[i].run = d->handlers[d->code[i].op];
        kernel->ops[i] = (uint16_t)(d->code[i].is_part ? IR_OP_COUNT : d->code[i].op);
    }
    kernel->jumps = pool_require(calloc((size_t)d->jump_count + 1, sizeof *kernel->jumps));
    for (uint32_t i = 0; i < d->jump_count; i++) {
        kernel->jumps[i] = d->jumps[i].at;
    }
    kernel->lists = d->lists;
    d->lists = NULL;
    wgmma_watch(kernel);
    kernel->constants = pool_require(calloc(kernel->constant_bytes, 1));
    kernel->specials = pool_require(calloc(d->constant_count, sizeof *kernel->specials));
    for (uint32_t i = 0; i < d->constant_count; i++) {
        const decode_constant *c = &d->constants[i];
        if (c->special >= 0) {
            kernel->knows_reserved_shared |= c->special >= IR_SPECIAL_RESERVED_SMEM_BEGIN &&
                                             c->special <= IR_SPECIAL_RESERVED_SMEM_1;
            kernel->specials[kernel->special_count++] =
                (ir_special_use){(ir_special)c->special, c->offset};
        } else if (c->bytes == 0) {
            uint32_t mask = c->bits[0] ? FULL_MASK : 0;
            memcpy(kernel->constants + c->offset, &mask, sizeof mask);
        } else {
            for (size_t lane = 0; lane < IR_LANES; lane++) {
                memcpy(kernel->constants + c->offset + lane * c->bytes, c->bits, c->bytes);
            }
        }
    }
}

static void decode_entry(decoder *d, ptx_function *entry)
{
    decode_instance instance = {.function = entry, .is_entry = true, .carry = DECODE_NONE};
    d->instance = &instance;
    d->guard = DECODE_ALL;
    decode_add_constant(d, (decode_constant){.bits = {1, 0}, .special = -1});
    decode_add_constant(d, (decode_constant){.bits = {0, 0}, .special = -1});
    d->kernel->param_bytes = place_params(entry);
    if (d->kernel->param_bytes > MOST_PARAMS) {
        decode_fail(d, "%zu bytes of parameters, at most %d are possible", d->kernel->param_bytes,
                    MOST_PARAMS);
    }
    layout_shared(d, entry);
    decode_place_locals(d, entry);
    decode_statements(d);
    d->statement = NULL;
    decode_emit_part(d, IR_exit)->falls_through = false;
    d->kernel->local_bytes = round_up(d->kernel->local_bytes, 16);
    decode_mark_cas_loops(d);
    flow_assign_slots(d);
    finish_kernel(d);
}

ir_kernel *decode_kernel(ptx_module *module, ptx_function *entry, emu_handler *const *handlers)
{
    decoder *d = pool_require(calloc(1, sizeof *d));
    jmp_buf *outer = module->on_error;
    d->module = module;
    d->handlers = handlers;
    d->kernel = pool_require(calloc(1, sizeof *d->kernel));
    d->kernel->name = entry->name->chars;
    d->kernel->module = module;
    d->kernel->function = entry;
    module->on_error = &d->on_error;
    bool failed = setjmp(d->on_error) != 0;
    if (!failed) {
        decode_entry(d, entry);
    }
    module->on_error = outer;
    ir_kernel *kernel = d->kernel;
    free(d->code);
    free(d->registers);
    free(d->constants);
    free(d->labels);
    free(d->jumps);
    free(d->lists);
    free(d);
    if (failed) {
        ir_kernel_free(kernel);
        return NULL;
    }
    return kernel;
}

void ir_kernel_free(ir_kernel *kernel)
{
    if (kernel) {
        free(kernel->code);
        free(kernel->ops);
        free(kernel->jumps);
        free(kernel->lists);
        free(kernel->async_registers);
        free(kernel->watched);
        free(kernel->constants);
        free(kernel->specials);
        free(kernel);
    }
}
