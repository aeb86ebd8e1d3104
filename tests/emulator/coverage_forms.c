/* coverage_forms.c: the words of an instruction, sorted into its form; lists of forms. */
#include "coverage_forms.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const form_word form_words[] = {
#define FLAG(id, spelling)            {CLASS_FLAG, spelling, FLAG_BIT_##id, NULL},
#define SPACE_WORD(spelling, space)   {CLASS_SPACE, spelling, space, NULL},
#define VECTOR_WORD(spelling, n)      {CLASS_VECTOR, spelling, n, NULL},
#define COMPARE(id, spelling)         {CLASS_COMPARE, spelling, 0, NULL},
#define ACTION(id, spelling)          {CLASS_ACTION, spelling, 0, NULL},
#define MODE(id, spelling)            {CLASS_MODE, spelling, 0, NULL},
#define SHAPE(id, spelling)           {CLASS_SHAPE, spelling, 0, NULL},
#define WGMMA_SHAPE(spelling, n, k)   {CLASS_WGMMA_SHAPE, spelling, 0, "wgmma"},
#define COUNT_WORD(spelling, n)       {CLASS_COUNT, spelling, n, NULL},
#define LAYOUT(spelling)              {CLASS_LAYOUT, spelling, 0, NULL},
#define ENTRY_SPACE(spelling)         {CLASS_ENTRY_SPACE, spelling, SPACE_PARAM, NULL},
#define CLUSTER_SPACE(spelling)       {CLASS_CLUSTER_SPACE, spelling, SPACE_SHARED, NULL},
#define FUNC_SPACE(spelling)          {CLASS_FUNC_SPACE, spelling, SPACE_PARAM, NULL},
#define HINT(spelling, opcodes)       {CLASS_HINT, spelling, 0, opcodes},
#define ORDER(spelling, opcodes, ord) {CLASS_ORDER, spelling, ord, opcodes},
#define TYPE(id, spelling, bits, cls) {CLASS_TYPE, spelling, TYPE_##id, NULL},
#include "modifiers.def"
#include "ptx_types.def"
#undef TYPE
};
const int form_word_count = sizeof form_words / sizeof form_words[0];

const form_opcode form_opcodes[] = {
#define OPCODE(name, classes, flags, decode) {name, classes, flags},
#include "opcodes.def"
#undef OPCODE
};
const int form_opcode_count = sizeof form_opcodes / sizeof form_opcodes[0];

bool form_names(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; *at; at += strcspn(at, " "), at += *at == ' ') {
        if (strcspn(at, " ") == length && memcmp(at, name, length) == 0)
            return true;
    }
    return false;
}

/* The row of the word for this opcode, as the decoder finds it: the same word may be in several
 * classes. */
static int find_word(const char *opcode, const char *spelling)
{
    static const form_opcode arithmetic = {"", CLASS_TYPE, ~UINT64_C(0)};
    const form_opcode *row = &arithmetic;
    for (int i = 0; i < form_opcode_count; i++) {
        if (strcmp(form_opcodes[i].name, opcode) == 0)
            row = &form_opcodes[i];
    }
    for (int i = 0; i < form_word_count; i++) {
        const form_word *word = &form_words[i];
        bool allowed = word->class == CLASS_FLAG ? row->flags >> word->value & 1
                       : word->opcodes           ? form_names(word->opcodes, opcode)
                                                 : (row->classes & word->class) != 0;
        if (allowed && strcmp(word->spelling, spelling) == 0)
            return i;
    }
    return -1;
}

static form *new_form(form_list *list, uint32_t seen)
{
    if (list->count == list->capacity) {
        list->capacity = list->capacity ? 2 * list->capacity : 1024;
        list->items = realloc(list->items, list->capacity * sizeof *list->items);
        if (!list->items)
            abort();
    }
    form *f = &list->items[list->count++];
    *f = (form){.seen = seen};
    return f;
}

static void append(form *f, const char *separator, const char *word)
{
    size_t used = strlen(f->text);
    snprintf(f->text + used, sizeof f->text - used, "%s%s", separator, word);
}

void forms_add_hint(form_list *list, const char *opcode, const char *word, uint32_t seen)
{
    form *f = new_form(list, seen);
    append(f, "", opcode);
    append(f, " .", word);
}

void forms_add_special(form_list *list, const char *name, char component, uint32_t seen)
{
    const char suffix[] = {component ? '.' : 0, component, 0};
    form *f = new_form(list, seen);
    append(f, name, suffix);
}

void forms_add(form_list *list, const char *opcode, const char *const *words, int count,
               uint32_t seen)
{
    int rows[FORM_MAX_WORDS], types[FORM_MAX_WORDS], row_count = 0, type_count = 0;
    for (int i = 0; i < count && i < FORM_MAX_WORDS; i++) {
        int row = find_word(opcode, words[i]);
        if (row < 0)
            continue;
        int class = form_words[row].class;
        if (class == CLASS_TYPE) {
            types[type_count++] = row;
        } else if (class == CLASS_HINT || class == CLASS_ORDER || class == CLASS_WGMMA_SHAPE) {
            forms_add_hint(list, opcode, words[i], seen);
        } else { /* insertion sort */
            int at = row_count++;
            for (; at > 0 && rows[at - 1] > row; at--)
                rows[at] = rows[at - 1];
            rows[at] = row;
        }
    }
    form *f = new_form(list, seen);
    append(f, "", opcode);
    for (int i = 0; i < row_count; i++)
        append(f, ".", form_words[rows[i]].spelling);
    for (int i = 0; i < type_count; i++)
        append(f, ".", form_words[types[i]].spelling);
    f->type = type_count ? (ptx_type)form_words[types[0]].value : TYPE_NONE;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(((const form *)a)->text, ((const form *)b)->text);
}

void forms_sort(form_list *list)
{
    if (list->count == 0)
        return;
    qsort(list->items, list->count, sizeof *list->items, by_text);
    size_t kept = 1;
    for (size_t i = 1; i < list->count; i++) {
        form *last = &list->items[kept - 1];
        if (by_text(last, &list->items[i]) == 0)
            last->seen |= list->items[i].seen;
        else
            list->items[kept++] = list->items[i];
    }
    list->count = kept;
}

form *forms_find(const form_list *list, const char *name)
{
    form key;
    snprintf(key.text, sizeof key.text, "%s", name);
    return bsearch(&key, list->items, list->count, sizeof *list->items, by_text);
}
