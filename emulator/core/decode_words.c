/*
 * decode_words.c: the opcodes, and the words behind their dots (modifiers.def, opcodes.def).
 */
#include <stdio.h>
#include <string.h>

#include "exec.h"

typedef struct word_row {
    int class;
    const char *spelling;
    int value;
    const char *opcodes; /* that take the word; NULL: those that take its class */
} word_row;

static const word_row words[] = {
#define FLAG(id, spelling)            {CLASS_FLAG, spelling, FLAG_BIT_##id, NULL},
#define SPACE_WORD(spelling, space)   {CLASS_SPACE, spelling, space, NULL},
#define ENTRY_SPACE(spelling)         {CLASS_ENTRY_SPACE, spelling, SPACE_PARAM, NULL},
#define CLUSTER_SPACE(spelling)       {CLASS_CLUSTER_SPACE, spelling, SPACE_SHARED, NULL},
#define FUNC_SPACE(spelling)          {CLASS_FUNC_SPACE, spelling, SPACE_PARAM, NULL},
#define VECTOR_WORD(spelling, n)      {CLASS_VECTOR, spelling, n, NULL},
#define COMPARE(id, spelling)         {CLASS_COMPARE, spelling, COMPARE_##id, NULL},
#define ACTION(id, spelling)          {CLASS_ACTION, spelling, ACTION_##id, NULL},
#define MODE(id, spelling)            {CLASS_MODE, spelling, MODE_##id, NULL},
#define SHAPE(id, spelling)           {CLASS_SHAPE, spelling, SHAPE_##id, NULL},
#define WGMMA_SHAPE(spelling, n, k)   {CLASS_WGMMA_SHAPE, spelling, (n) << 8 | (k), "wgmma"},
#define COUNT_WORD(spelling, n)       {CLASS_COUNT, spelling, n, NULL},
#define LAYOUT(spelling)              {CLASS_LAYOUT, spelling, 0, NULL},
#define HINT(spelling, opcodes)       {CLASS_HINT, spelling, 0, opcodes},
#define ORDER(spelling, opcodes, ord) {CLASS_ORDER, spelling, ord, opcodes},
#define TYPE(id, spelling, bits, cls) {CLASS_TYPE, spelling, TYPE_##id, NULL},
#include "modifiers.def"
#include "ptx_types.def"
#undef TYPE
};

typedef struct opcode_row {
    const char *name;
    int classes;
    uint64_t flags;
    decode_function *decode;
} opcode_row;

static const opcode_row opcodes[] = {
#define OPCODE(name, classes, flags, decode) {name, classes, flags, decode},
#include "opcodes.def"
#undef OPCODE
};

static const opcode_row alu_opcode = {"", CLASS_TYPE, ~UINT64_C(0), decode_alu};

static void take_word(decoder *d, const word_row *row)
{
    decode_words *w = &d->words;
    switch (row->class) {
    case CLASS_FLAG:
        w->flags |= UINT64_C(1) << row->value;
        break;
    case CLASS_TYPE:
        if (w->type_count == 4) {
            decode_unknown(d);
        }
        w->types[w->type_count++] = (ptx_type)row->value;
        break;
    case CLASS_SPACE:
    case CLASS_ENTRY_SPACE:
    case CLASS_CLUSTER_SPACE:
    case CLASS_FUNC_SPACE:
        if (w->has_space && (w->mode != MODE_ASYNC || w->second_space)) {
            decode_unknown(d);
        }
        w->is_cluster |= row->class == CLASS_CLUSTER_SPACE && !w->has_space;
        *(w->has_space ? &w->second_space : &w->space) = (ptx_space)row->value;
        w->has_space = true;
        break;
    case CLASS_VECTOR:
        w->vector = row->value;
        break;
    case CLASS_COMPARE:
        w->compare = row->value;
        break;
    case CLASS_ACTION:
        w->action = row->value;
        break;
    case CLASS_MODE:
        if (w->mode < 0 || w->mode == MODE_ASYNC) {
            w->mode = row->value;
        } else if (w->mode != MODE_WARP || row->value != MODE_SYNC) {
            decode_unknown(d);
        }
        break;
    case CLASS_SHAPE:
        w->shape = row->value;
        break;
    case CLASS_WGMMA_SHAPE:
        w->wgmma_n = row->value >> 8;
        w->wgmma_k = row->value & 0xff;
        break;
    case CLASS_COUNT:
        w->matrices = row->value;
        break;
    case CLASS_LAYOUT:
        if (w->layout_count < 2) {
            w->layouts[w->layout_count] = row->spelling;
        }
        w->layout_count++;
        break;
    case CLASS_ORDER:
        w->order |= (uint32_t)row->value;
        break;
    default:
        w->cache_hint |= strcmp(row->spelling, "L2::cache_hint") == 0;
        break;
    }
}

static bool takes_word(const opcode_row *opcode, const word_row *word)
{
    if (word->class == CLASS_FLAG) {
        return opcode->flags >> word->value & 1;
    }
    if (!word->opcodes) {
        return opcode->classes & word->class;
    }
    size_t length = strlen(opcode->name);
    for (const char *at = word->opcodes; length && (at = strstr(at, opcode->name)); at += length) {
        if ((at == word->opcodes || at[-1] == ' ') && (at[length] == ' ' || at[length] == 0)) {
            return true;
        }
    }
    return false;
}

static void read_words(decoder *d, const opcode_row *opcode)
{
    d->words = (decode_words){
        .vector = 1, .compare = -1, .action = -1, .mode = -1, .shape = -1, .matrices = 0};
    for (int i = 0; i < d->statement->modifier_count; i++) {
        const char *spelling = d->statement->modifiers[i];
        const word_row *found = NULL;
        for (size_t j = 0; j < sizeof words / sizeof words[0] && !found; j++) {
            const word_row *row = &words[j];
            if (strcmp(row->spelling, spelling) == 0 && takes_word(opcode, row)) {
                found = row;
            }
        }
        if (!found) {
            decode_fail(d, "modifier '.%s' of '%s' is not implemented", spelling,
                        d->statement->opcode);
        }
        take_word(d, found);
    }
}

decode_function *decode_read_words(decoder *d)
{
    const char *name = d->statement->opcode;
    const opcode_row *row = NULL;
    for (size_t i = 0; i < sizeof opcodes / sizeof opcodes[0] && !row; i++) {
        row = strcmp(opcodes[i].name, name) == 0 ? &opcodes[i] : NULL;
    }
    if (!row && decode_is_alu(name)) {
        row = &alu_opcode;
    }
    if (!row) {
        decode_fail(d, "opcode '%s' is not implemented", name);
    }
    read_words(d, row);
    return row->decode;
}
