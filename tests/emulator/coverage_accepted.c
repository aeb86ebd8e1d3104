/*
 * coverage_accepted.c: asks the decoder which forms of instructions it accepts: every combination
 * of words that opcodes.def and ops_*.def allow an opcode is put into a statement and decoded.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coverage_forms.h"

enum { MAX_OPERAND_LISTS = 8, MAX_STATEMENTS = 8, MAX_SLOTS = 48 };

/* ---- what is asked about ---- */

typedef struct probe {
    const char *opcode;
    int types, not_varied;
    const char *always; /* words, separated by blanks */
    const char *operands[MAX_OPERAND_LISTS];
} probe;

static const probe probes[] = {
#define PROBE(opcode, types, not_varied, always, ...)                                              \
    {opcode, types, not_varied, always, {__VA_ARGS__}},
#include "coverage_probe.def"
#undef PROBE
};
enum { PROBES = sizeof probes / sizeof probes[0] };

/* Arithmetic: opcode, flags that must and may be there, types, second types. */
typedef struct arithmetic {
    const char *opcode;
    uint64_t required, optional, types, types2;
} arithmetic;

static const arithmetic rows[] = {
#define OP1(name, opcode, req, opt, t, t2, ...) {opcode, req, opt, t, t2},
#define OP2(...)                                OP1(__VA_ARGS__)
#define OP3(...)                                OP1(__VA_ARGS__)
#define OP4(...)                                OP1(__VA_ARGS__)
#define ROUND1(name, opcode, opt, t, ...)       {opcode, 0, opt, t, 0},
#define ROUND2(...)                             ROUND1(__VA_ARGS__)
#define ROUND3(...)                             ROUND1(__VA_ARGS__)
#define HALF1(name, opcode, req, opt, req_bf, opt_bf, ...)                                         \
    {opcode, req, opt, M(F16) | M(F16X2), 0}, {opcode, req_bf, opt_bf, M(BF16) | M(BF16X2), 0},
#define HALF2(...) HALF1(__VA_ARGS__)
#define HALF3(...) HALF1(__VA_ARGS__)
#include "ops_float.def"
#include "ops_half.def"
#include "ops_int.def"
};
enum { ROWS = sizeof rows / sizeof rows[0] };

static const probe arithmetic_probe = {.operands = {"%w0, %w1", "%w0, %w1, %w2",
                                                    "%w0, %w1, %w2, %w3", "%w0, %w1, %w2, %w3, %w4",
                                                    "%p0, %p1", "%p0, %p1, %p1"}};

/* ---- one question ---- */

typedef struct inquiry {
    form_list *accepted;
    ptx_module module;
    ptx_function *entry;
    ptx_statement *parsed;              /* its own body */
    ptx_statement body[MAX_STATEMENTS]; /* labels and lists, then the one in question */
    int fixed;
    ptx_statement lists[MAX_OPERAND_LISTS]; /* the statement with each list of operands */
    int list_count;
    bool is_mma; /* of its four types the last is the first again; its words are checked before
                    operands */
    const char *opcode;
    const char *words[FORM_MAX_WORDS];
    int word_count;
} inquiry;

/* Parses a kernel that has the opcode with every list of operands. */
static void inquiry_open(inquiry *q, form_list *accepted, const probe *p, const char *opcode)
{
    text source = {0};
    const char *target = strcmp(opcode, "wgmma") == 0 ? "sm_90a" : "sm_100a";
    text_add(&source,
             ".version 9.0\n.target %s\n.address_size 64\n"
             ".func callee() { ret; }\n.visible .entry one()\n{\n"
             ".reg .pred %%p<2>; .reg .b64 %%w<8>; .reg .b128 %%q<3>; .reg .b32 %%s<8>;\n"
             "HERE:\nTARGETS: .branchtargets HERE;\n",
             target);
    for (int i = 0; i < MAX_OPERAND_LISTS && p->operands[i]; i++)
        text_add(&source, "question %s;\n", p->operands[i]);
    text_add(&source, "}\n");
    *q = (inquiry){.accepted = accepted, .opcode = opcode};
    q->module.source = source.chars;
    q->module.source_bytes = source.length;
    if (!ptx_parse(&q->module)) {
        fprintf(stderr, "%s: %s\n", opcode, q->module.error);
        exit(1);
    }
    for (q->entry = q->module.functions; !q->entry->is_entry;)
        q->entry = q->entry->next;
    for (int i = 0; i < q->entry->body_count; i++) {
        ptx_statement *s = &q->entry->body[i];
        if (s->opcode && strcmp(s->opcode, "question") == 0)
            q->lists[q->list_count++] = *s;
        else
            q->body[q->fixed++] = *s;
    }
    q->parsed = q->entry->body;
    q->entry->body = q->body;
    q->entry->body_count = q->fixed + 1;
}

static void inquiry_close(inquiry *q)
{
    free((char *)(uintptr_t)q->module.source);
    q->entry->body = q->parsed;
    ptx_free(&q->module);
}

static bool decodes(inquiry *q)
{
    for (int i = 0; i < q->list_count; i++) {
        ptx_statement *s = &q->body[q->fixed];
        *s = q->lists[i];
        s->opcode = q->opcode;
        s->modifiers = q->words;
        s->modifier_count = q->word_count;
        ir_kernel *kernel = decode_kernel(&q->module, q->entry, exec_table_plain);
        ir_kernel_free(kernel);
        if (kernel)
            return true;
        if (q->is_mma && strstr(q->module.error, "is not supported"))
            break;
    }
    return false;
}

/* ---- all questions ---- */

/* What may stand at one place: one of the words, or nothing where `optional`. */
typedef struct slot {
    bool optional;
    int count;
    const char *words[64];
} slot;

typedef struct slot_list {
    slot items[MAX_SLOTS];
    int count;
} slot_list;

static slot *new_slot(slot_list *slots, bool optional)
{
    slot *s = &slots->items[slots->count++];
    *s = (slot){.optional = optional};
    return s;
}

/* The words of a class, or of those flags or types. */
static void add_words(slot *s, int class, uint64_t set)
{
    for (int i = 0; i < form_word_count; i++) {
        const form_word *word = &form_words[i];
        bool is_set = class == CLASS_FLAG || class == CLASS_TYPE;
        if (word->class & class && (!is_set || set >> word->value & 1))
            s->words[s->count++] = word->spelling;
    }
}

/* At most one rounding, and any of the other flags. */
static void add_flags(slot_list *slots, uint64_t flags)
{
    static const uint64_t roundings = F(RN) | F(RZ) | F(RM) | F(RP) | F(RNA) | F(RNI) | F(RZI) |
                                      F(RMI) | F(RPI) | F(APPROX) | F(FULL);
    if (flags & roundings)
        add_words(new_slot(slots, true), CLASS_FLAG, flags & roundings);
    for (uint64_t rest = flags & ~roundings; rest; rest &= rest - 1)
        add_words(new_slot(slots, true), CLASS_FLAG, rest & -rest);
}

static void ask_all(inquiry *q, const slot_list *slots, int at)
{
    if (at == slots->count) {
        if (q->is_mma)
            q->words[q->word_count] = q->words[q->word_count - 3];
        q->word_count += q->is_mma;
        if (decodes(q))
            forms_add(q->accepted, q->opcode, q->words, q->word_count, 0);
        q->word_count -= q->is_mma;
        return;
    }
    const slot *s = &slots->items[at];
    if (s->optional)
        ask_all(q, slots, at + 1);
    for (int i = 0; i < s->count; i++) {
        q->words[q->word_count++] = s->words[i];
        ask_all(q, slots, at + 1);
        q->word_count--;
    }
}

/* Sorted into one slot each. */
static uint64_t add_always(slot_list *slots, char *always)
{
    uint64_t flags = 0;
    for (char *word = strtok(always, " "); word; word = strtok(NULL, " ")) {
        slot *s = new_slot(slots, false);
        s->words[s->count++] = word;
        for (int i = 0; i < form_word_count; i++) {
            if (form_words[i].class == CLASS_FLAG && strcmp(form_words[i].spelling, word) == 0)
                flags |= UINT64_C(1) << form_words[i].value;
        }
    }
    return flags;
}

static void ask_probe(form_list *out, const probe *p, const form_opcode *row)
{
    static const int classes[] = {CLASS_SPACE | CLASS_ENTRY_SPACE | CLASS_FUNC_SPACE |
                                      CLASS_CLUSTER_SPACE,
                                  CLASS_VECTOR,
                                  CLASS_COMPARE,
                                  CLASS_ACTION,
                                  CLASS_MODE,
                                  CLASS_SHAPE,
                                  CLASS_COUNT};
    inquiry q;
    slot_list slots = {0};
    char always[128];
    snprintf(always, sizeof always, "%s", p->always);
    inquiry_open(&q, out, p, p->opcode);
    uint64_t given = add_always(&slots, always);
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        if (row->classes & classes[i] & ~p->not_varied)
            add_words(new_slot(&slots, true), classes[i] & row->classes, 0);
    }
    if (!(p->not_varied & CLASS_FLAG))
        add_flags(&slots, row->flags & ~given);
    q.is_mma = strcmp(p->opcode, "mma") == 0;
    for (int i = 0; i < p->types; i++)
        add_words(new_slot(&slots, false), CLASS_TYPE, ~UINT64_C(0));
    ask_all(&q, &slots, 0);
    inquiry_close(&q);
}

static void ask_arithmetic(form_list *out, const arithmetic *a)
{
    inquiry q;
    slot_list slots = {0};
    inquiry_open(&q, out, &arithmetic_probe, a->opcode);
    for (uint64_t rest = a->required; rest; rest &= rest - 1)
        add_words(new_slot(&slots, false), CLASS_FLAG, rest & -rest);
    add_flags(&slots, a->optional & ~a->required);
    add_words(new_slot(&slots, false), CLASS_TYPE, a->types);
    if (a->types2)
        add_words(new_slot(&slots, false), CLASS_TYPE, a->types2);
    ask_all(&q, &slots, 0);
    inquiry_close(&q);
}

/* Beside the rows: carries, and logic of predicates. */
static void ask_carry_and_predicates(form_list *out, const char *opcode)
{
    inquiry q;
    slot_list slots = {0};
    inquiry_open(&q, out, &arithmetic_probe, opcode);
    add_flags(&slots, F(CC) | F(LO) | F(HI));
    add_words(new_slot(&slots, false), CLASS_TYPE, ~UINT64_C(0));
    ask_all(&q, &slots, 0);
    inquiry_close(&q);
}

/* Hints and orders: beside each other word of the opcode, they are only asked about one by one. */
static void add_hints(form_list *out, const form_opcode *row)
{
    for (int i = 0; i < form_word_count; i++) {
        const char *word = form_words[i].spelling;
        if (form_words[i].opcodes && form_names(form_words[i].opcodes, row->name))
            forms_add_hint(out, row->name, word, 0);
    }
}

static void add_specials(form_list *out)
{
    static const char *const changing[] = {"%clock",          "%clock_hi",       "%clock64",
                                           "%globaltimer_lo", "%globaltimer_hi", "%globaltimer"};
#define SPECIAL(id, spelling, component, bytes, value)                                             \
    forms_add_special(out, spelling, component, 0);
#include "specials.def"
#undef SPECIAL
    for (size_t i = 0; i < sizeof changing / sizeof *changing; i++)
        forms_add_special(out, changing[i], 0, 0);
}

void forms_accepted(form_list *out)
{
    add_specials(out);
    for (int i = 0; i < form_opcode_count; i++) {
        const form_opcode *row = &form_opcodes[i];
        size_t before = out->count;
        for (int k = 0; k < PROBES; k++) {
            if (strcmp(probes[k].opcode, row->name) == 0)
                ask_probe(out, &probes[k], row);
        }
        if (out->count == before) {
            fprintf(stderr, "coverage_probe.def has nothing that the decoder accepts for '%s'\n",
                    row->name);
            exit(1);
        }
        add_hints(out, row);
    }
    for (int i = 0; i < ROWS; i++) {
        ask_arithmetic(out, &rows[i]);
        if (i == 0 || strcmp(rows[i].opcode, rows[i - 1].opcode) != 0)
            ask_carry_and_predicates(out, rows[i].opcode);
    }
    forms_sort(out);
}
