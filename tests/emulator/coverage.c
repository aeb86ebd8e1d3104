/*
 * coverage.c: which instructions the tests have run and compared, out of all that the emulator
 * accepts.
 *
 *     coverage FOLDER SET...
 *
 * FOLDER has a file for every set of handlers (plain, avx2, ...): the kernels that tests ran
 * (device.c). Of a kernel counts what lies between the labels CASE and CASE_END (isa.c: one
 * instruction on all its edge values), or BODY and BODY_END (kernel.c), there without arithmetic,
 * which is only scaffolding. Prints a table and what is missing; exit status 1 when something is.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coverage_forms.h"

enum { MAX_SETS = 8, NAME_BYTES = 16 };

typedef struct coverage {
    form_list accepted, ran;
    char **sets;
    int set_count;
    uint32_t handlers[IR_OP_COUNT]; /* bit i: ran in set i */
} coverage;

static const char *const handler_names[IR_OP_COUNT] = {
#define HANDLER(name, class) #name,
#include "handlers.def"
#undef HANDLER
};

/* ---- kernels that ran ---- */

static char *read_file(const char *folder, const char *name, size_t *bytes)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    text content = {0};
    char chunk[65536];
    size_t count;
    while ((count = fread(chunk, 1, sizeof chunk, file)) > 0)
        text_add_bytes(&content, chunk, count);
    fclose(file);
    *bytes = content.length;
    return content.chars;
}

static void add_specials(form_list *list, const ptx_statement *s, uint32_t set)
{
    for (int i = 0; i < s->operand_count; i++) {
        const ptx_operand *o = &s->operands[i];
        if (o->kind == OPERAND_SPECIAL)
            forms_add_special(list, o->name->chars, o->component, set);
    }
}

/* Handlers made from the rows of ops_*.def, with those of cvt. */
static bool is_arithmetic_handler(ir_op op)
{
    return op < IR_mov_pred;
}

/* Counts the statements between the labels; marks their lines. */
static bool take_statements(coverage *c, const ptx_function *f, bool *lines, uint32_t set)
{
    bool inside = false, is_case = false;
    for (int i = 0; i < f->body_count; i++) {
        const ptx_statement *s = &f->body[i];
        const char *label = s->label ? s->label->chars : "";
        if (strcmp(label, "CASE") == 0 || strcmp(label, "BODY") == 0) {
            inside = true;
            is_case = label[0] == 'C';
        } else if (strcmp(label, "CASE_END") == 0 || strcmp(label, "BODY_END") == 0) {
            inside = false;
        }
        if (!inside || !s->opcode || (!is_case && decode_is_alu(s->opcode)))
            continue;
        forms_add(&c->ran, s->opcode, s->modifiers, s->modifier_count, set);
        add_specials(&c->ran, s, set);
        lines[s->line] = true;
    }
    return is_case;
}

static void take_handlers(coverage *c, const ir_kernel *kernel, const bool *lines, bool is_case,
                          bool is_exact, uint32_t set)
{
    for (uint32_t i = 0; i < kernel->code_count; i++) {
        for (int op = 0; op < IR_OP_COUNT; op++) {
            if (!lines[kernel->code[i].line] || kernel->code[i].run != exec_table_plain[op] ||
                (!is_case && is_arithmetic_handler((ir_op)op)))
                continue;
            bool is_mma = op >= IR_mma_m16n8k16_bf16 && op <= IR_mma_byte;
            int shift = is_exact && is_mma ? IR_mma_exact_byte - IR_mma_byte : 0;
            c->handlers[op + shift] |= set;
        }
    }
}

static void take_module(coverage *c, const char *source, bool is_exact, uint32_t set)
{
    ptx_module module = {.source = source, .source_bytes = strlen(source)};
    if (!ptx_parse(&module)) {
        fprintf(stderr, "%s\n%s\n", module.error, source);
        exit(1);
    }
    int line_count = 2;
    for (const char *at = source; *at; at++)
        line_count += *at == '\n';
    for (ptx_function *f = module.functions; f; f = f->next) {
        bool *lines = calloc((size_t)line_count, sizeof *lines);
        bool is_case = take_statements(c, f, lines, set);
        ir_kernel *kernel = f->is_entry ? decode_kernel(&module, f, exec_table_plain) : NULL;
        if (kernel)
            take_handlers(c, kernel, lines, is_case, is_exact, set);
        ir_kernel_free(kernel);
        free(lines);
    }
    ptx_free(&module);
}

static int by_string(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Most kernels are in the file many times. */
static void take_file(coverage *c, const char *folder, const char *name, bool is_exact,
                      uint32_t set)
{
    size_t bytes = 0, count = 0, most = 0;
    char *content = read_file(folder, name, &bytes), **modules = NULL;
    for (size_t at = 0; at < bytes; at += strlen(content + at) + 1) {
        if (count == most) {
            most = most ? 2 * most : 256;
            modules = pool_require(realloc(modules, most * sizeof *modules));
        }
        modules[count++] = content + at;
    }
    if (count)
        qsort(modules, count, sizeof *modules, by_string);
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || strcmp(modules[i], modules[i - 1]) != 0)
            take_module(c, modules[i], is_exact, set);
    }
    free(modules);
    free(content);
    forms_sort(&c->ran);
}

static void take_sets(coverage *c, const char *folder)
{
    for (int i = 0; i < c->set_count; i++) {
        char exact[NAME_BYTES];
        snprintf(exact, sizeof exact, "%.8s-exact", c->sets[i]);
        take_file(c, folder, c->sets[i], false, 1u << i);
        take_file(c, folder, exact, true, 1u << i);
    }
    for (size_t i = 0; i < c->accepted.count; i++) {
        const form *f = forms_find(&c->ran, c->accepted.items[i].text);
        c->accepted.items[i].seen = f ? f->seen : 0;
    }
}

/* ---- the table ---- */

enum { COLUMN_HINT = TYPE_COUNT, COLUMNS };

typedef struct tally {
    int all, done;
} tally;

static bool is_complete(const coverage *c, uint32_t seen)
{
    return seen == (1u << c->set_count) - 1;
}

static size_t opcode_length(const char *name)
{
    return name[0] == '%' ? 1 : strcspn(name + 1, ". ") + 1;
}

static int column_of(const form *f)
{
    return strchr(f->text, ' ') ? COLUMN_HINT : (int)f->type;
}

static void column_name(char upper[8], char lower[8], int column)
{
    const char *name = column == COLUMN_HINT ? "hint"
                       : column              ? ptx_type_text((ptx_type)column)
                                             : "-";
    size_t length = strlen(name);
    bool is_pair = length > 2 && strcmp(name + length - 2, "x2") == 0;
    snprintf(upper, 8, "%.*s", (int)(length - (is_pair ? 2 : 0)), name);
    snprintf(lower, 8, "%s", is_pair ? "x2" : "");
}

static void print_header(const bool used[COLUMNS])
{
    char upper[8], lower[8];
    for (int row = 0; row < 2; row++) {
        printf("%-14s%9s", row ? "" : "opcode", row ? "" : "forms");
        for (int i = 0; i < COLUMNS; i++) {
            column_name(upper, lower, i);
            if (used[i])
                printf("%5s", row ? lower : upper);
        }
        putchar('\n');
    }
}

/* A cell is the number of forms; with an asterisk it is how many are missing. */
static void print_row(const char *name, size_t length, const tally cells[COLUMNS],
                      const bool used[COLUMNS])
{
    tally sum = {0, 0};
    char count[16];
    for (int i = 0; i < COLUMNS; i++) {
        sum.all += cells[i].all;
        sum.done += cells[i].done;
    }
    snprintf(count, sizeof count, "%d/%d", sum.done, sum.all);
    printf("%-14.*s%9s", (int)length, name, count);
    for (int i = 0; i < COLUMNS; i++) {
        int missing = cells[i].all - cells[i].done;
        snprintf(count, sizeof count, missing ? "*%d" : "%d", missing ? missing : cells[i].all);
        if (used[i])
            printf("%5s", cells[i].all ? count : "");
    }
    putchar('\n');
}

static void print_table(const coverage *c)
{
    bool used[COLUMNS] = {false};
    tally cells[COLUMNS] = {{0, 0}};
    const form_list *forms = &c->accepted;
    for (size_t i = 0; i < forms->count; i++)
        used[column_of(&forms->items[i])] = true;
    print_header(used);
    for (size_t i = 0; i < forms->count; i++) {
        const form *f = &forms->items[i], *next = i + 1 < forms->count ? f + 1 : NULL;
        size_t length = opcode_length(f->text);
        cells[column_of(f)].all++;
        cells[column_of(f)].done += is_complete(c, f->seen);
        if (!next || opcode_length(next->text) != length || memcmp(f->text, next->text, length)) {
            print_row(f->text[0] == '%' ? "%special" : f->text, f->text[0] == '%' ? 8 : length,
                      cells, used);
            memset(cells, 0, sizeof cells);
        }
    }
}

static void print_missing(const coverage *c, const char *what, uint32_t seen)
{
    printf("missing: %s", what);
    for (int i = 0; i < c->set_count; i++) {
        if (seen && !(seen >> i & 1))
            printf(" (%s)", c->sets[i]);
    }
    putchar('\n');
}

static bool print_summary(const coverage *c)
{
    size_t forms = 0;
    int handlers = 0;
    for (size_t i = 0; i < c->accepted.count; i++)
        forms += is_complete(c, c->accepted.items[i].seen);
    for (int i = 0; i < IR_OP_COUNT; i++)
        handlers += is_complete(c, c->handlers[i]);
    printf("%zu of %zu forms and %d of %d handlers were compared with an oracle, in each set:",
           forms, c->accepted.count, handlers, IR_OP_COUNT);
    for (int i = 0; i < c->set_count; i++)
        printf(" %s", c->sets[i]);
    putchar('\n');
    return forms == c->accepted.count && handlers == IR_OP_COUNT;
}

int main(int argc, char **argv)
{
    coverage c = {.sets = argv + 2, .set_count = argc - 2};
    if (argc < 3 || c.set_count > MAX_SETS) {
        fprintf(stderr, "usage: coverage FOLDER SET...\n");
        return 2;
    }
    forms_accepted(&c.accepted);
    take_sets(&c, argv[1]);
    for (int i = 0; i < IR_OP_COUNT; i++) {
        if (!is_complete(&c, c.handlers[i]))
            print_missing(&c, handler_names[i], c.handlers[i]);
    }
    for (size_t i = 0; i < c.accepted.count; i++) {
        if (!is_complete(&c, c.accepted.items[i].seen))
            print_missing(&c, c.accepted.items[i].text, c.accepted.items[i].seen);
    }
    print_table(&c);
    bool is_full = print_summary(&c);
    free(c.accepted.items);
    free(c.ran.items);
    return is_full ? 0 : 1;
}
