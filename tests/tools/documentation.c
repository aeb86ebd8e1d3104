/* documentation.c: what the README, the manual of the emulator and --help list is what the tables
 * in the code have. Definitions: README, EMULATOR_MANUAL (files), MEGAMLP_RUN, MEGAMLP_BENCH,
 * MEGAMLP_CKPT and PTXRUN (the programs). */
#include <core/counters.h>
#include <criterion/criterion.h>
#include <megamlp/megamlp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "program.h"

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "rb");
    cr_assert_not_null(file, "%s", path);
    fseek(file, 0, SEEK_END);
    long bytes = ftell(file);
    rewind(file);
    char *text = calloc((size_t)bytes + 1, 1);
    cr_assert_not_null(text);
    cr_assert_eq(fread(text, 1, (size_t)bytes, file), (size_t)bytes);
    fclose(file);
    return text;
}

Test(documentation, the_readme_lists_every_environment_variable_as_the_library_does)
{
    char *readme = read_text(README);
    const mmlp_environment_variable *variable;
    for (int i = 0; (variable = mmlp_environment(i)); ++i) {
        char *row = NULL;
        cr_assert_gt(asprintf(&row, "| `%s` | %s | %s |\n", variable->name, variable->fallback,
                              variable->meaning),
                     0);
        cr_expect_not_null(strstr(readme, row), "the README has no row: %s", row);
        free(row);
    }
    free(readme);
}

Test(documentation, the_manual_of_the_emulator_names_every_counter_and_class)
{
    static const char *const names[] = {
#define COUNTER_WORD(name, unit, meaning) "`" #name "`",
#define CLASS_WORD(id, name, meaning)     "`" #name "`",
        EMU_COUNTERS(COUNTER_WORD) EMU_CLASSES(CLASS_WORD)
#undef COUNTER_WORD
#undef CLASS_WORD
    };
    char *manual = read_text(EMULATOR_MANUAL);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; ++i)
        cr_expect_not_null(strstr(manual, names[i]), "%s", names[i]);
    free(manual);
}

static void expect_help(const char *program)
{
    program_result result = program_run((const char *const[]){program, "--help", NULL});
    cr_assert_eq(result.exit_code, 0);
    char *table = strstr(result.output, "Environment:\n");
    cr_assert_not_null(table, "%s", result.output);
    const mmlp_environment_variable *variable;
    for (int i = 0; (variable = mmlp_environment(i)); ++i)
        cr_expect_not_null(strstr(table, variable->name), "%s", variable->name);
    char *rest = result.output;
    for (const char *line; (line = strsep(&rest, "\n"));) {
        cr_expect_lt(strlen(line), 80, "%s: %s", program, line);
        cr_expect(line <= table || line[0] == ' ' || line[0] == '\0', "begins at the left: %s",
                  line);
    }
    program_result_free(&result);
}

Test(documentation, help_fits_80_columns_and_lists_the_environment_in_one)
{
    expect_help(MEGAMLP_RUN);
    expect_help(MEGAMLP_BENCH);
    expect_help(MEGAMLP_CKPT);
    expect_help(PTXRUN);
}
