/* documentation.c: what the README says of the environment is the library's own table. Definition:
 * README. */
#include <criterion/criterion.h>
#include <megamlp/megamlp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Test(documentation, the_readme_lists_every_environment_variable_as_the_library_does)
{
    FILE *file = fopen(README, "rb");
    cr_assert_not_null(file);
    fseek(file, 0, SEEK_END);
    long bytes = ftell(file);
    rewind(file);
    char *readme = calloc((size_t)bytes + 1, 1);
    cr_assert_not_null(readme);
    cr_assert_eq(fread(readme, 1, (size_t)bytes, file), (size_t)bytes);
    fclose(file);
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
