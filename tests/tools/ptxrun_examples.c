/* ptxrun_examples.c: the manifests that --help and docs/ptxrun.md show do what they say.
 * Definitions: PTXRUN (the program), PTXRUN_GUIDE (docs/ptxrun.md), AXPY (the PTX file that they
 * run). */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "temporary_folder.h"

#include "ptxrun_folder.h"

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "r");
    cr_assert(file, "%s cannot be opened", path);
    char *text = NULL;
    size_t capacity = 0;
    cr_assert_gt(getdelim(&text, &capacity, '\0', file), 0);
    fclose(file);
    return text;
}

/* Runs the first block of lines from `begin` to `end` that a text has. */
static program_result run_example(char *text, const char *begin, const char *end)
{
    char *first = strstr(text, begin), *last = first ? strstr(first, end) : NULL;
    cr_assert(last, "no example in:\n%s", text);
    last[strlen(end)] = '\0';
    char *folder = ptxrun_folder_make(), *axpy = read_text(AXPY);
    ptxrun_folder_write(folder, "axpy.ptx", axpy, strlen(axpy));
    program_result result = ptxrun_folder_run(folder, first);
    free(axpy);
    temporary_folder_remove(folder);
    return result;
}

Test(ptxrun_examples, the_manifest_of_the_guide_runs)
{
    char *guide = read_text(PTXRUN_GUIDE);
    program_result result = run_example(guide, "    {\n", "\n    }\n");
    program_expect(&result, 0, "runs[0]   axpy  ok\nruns[1]   axpy  ok\n");
    program_result_free(&result);
    free(guide);
}

Test(ptxrun_examples, the_manifest_of_the_help_runs)
{
    program_result help = program_run((const char *const[]){PTXRUN, "--help", NULL});
    program_result result = run_example(help.output, "  {\n", "\n  }\n");
    program_expect(&result, 0, "runs[0]   axpy  ok\n");
    program_result_free(&result);
    program_result_free(&help);
}
