/*
 * coverage_forms.h: the forms of instructions, opcode with types and modifiers, as the coverage
 * test counts them.
 *
 * A form is "opcode.modifiers.types", modifiers in the order of modifiers.def. What changes no
 * value is not multiplied with the rest: cache hints, memory orders and scopes are forms of their
 * own ("ld .acquire").
 */
#ifndef MMLP_TESTS_COVERAGE_FORMS_H
#define MMLP_TESTS_COVERAGE_FORMS_H

#include <stdint.h>

#include "decode.h"

enum { FORM_BYTES = 112, FORM_MAX_WORDS = 16 };

typedef struct form {
    char text[FORM_BYTES];
    ptx_type type; /* the first one, or TYPE_NONE */
    uint32_t seen; /* bit i: by the set of handlers i */
} form;

typedef struct form_list {
    form *items; /* after forms_sort: by text, each once */
    size_t count, capacity;
} form_list;

/* Adds the form of an opcode with its words, and those of its hints and orders, as seen by `seen`.
 */
void forms_add(form_list *list, const char *opcode, const char *const *words, int count,
               uint32_t seen);
/* The form of a hint or an order beside an opcode. */
void forms_add_hint(form_list *list, const char *opcode, const char *word, uint32_t seen);
/* A special register: "%tid.x". */
void forms_add_special(form_list *list, const char *name, char component, uint32_t seen);
void forms_sort(form_list *list);
form *forms_find(const form_list *list, const char *name);

/* The words of modifiers.def and ptx_types.def, by class. */
typedef struct form_word {
    int class;
    const char *spelling;
    int value;
    const char *opcodes; /* that take it, of hints and orders */
} form_word;
bool form_names(const char *list, const char *name); /* names separated by blanks */
extern const form_word form_words[];
extern const int form_word_count;

/* A row of opcodes.def; what is only in ops_*.def has none. */
typedef struct form_opcode {
    const char *name;
    int classes;
    uint64_t flags;
} form_opcode;
extern const form_opcode form_opcodes[];
extern const int form_opcode_count;

/* coverage_accepted.c: every form that the decoder accepts. It is asked about all combinations of
 * words that its tables name. */
void forms_accepted(form_list *out);

#endif
