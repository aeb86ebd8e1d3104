/* spec_text.c: specs from text, for tests. */
#include "spec_text.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "temporary_folder.h"

static char *folder;

static void remove_folder(void)
{
    temporary_folder_remove(folder);
}

void spec_text_file(const char *name, const char *content)
{
    static bool made;
    if (!made) {
        folder = temporary_folder_make();
        cr_assert_eq(chdir(folder), 0);
        atexit(remove_folder);
        made = true;
    }
    /* A new file, and not file_write_atomic: hundreds of flushes would take seconds. */
    unlink(name);
    FILE *file = fopen(name, "w");
    cr_assert(file && fputs(content, file) >= 0 && fclose(file) == 0);
}

mmlp_status spec_text_load(module_spec *out, const char *content)
{
    spec_text_file("bad.lua", content);
    return spec_load(out, "bad.lua", NULL);
}

void spec_text_fails(const char *content, const char *message)
{
    module_spec spec;
    mmlp_status status = spec_text_load(&spec, content);
    spec_free(&spec);
    cr_assert_eq(status, MMLP_ERROR_SPEC, "status %s", mmlp_status_name(status));
    cr_assert_str_eq(mmlp_last_error(), message);
}

char *spec_text_config(const char *fields, const char *params)
{
    char *whole = NULL;
    int length = asprintf(&whole,
                          "local config = TransformerConfig {\n%s\n}\n"
                          "return ModuleSpec { module = MLP, params = { config = config%s%s },\n"
                          "  submodules = MLPSubmodules { linear_fc1 = ColumnParallelLinear,\n"
                          "    linear_fc2 = RowParallelLinear } }\n",
                          fields, *params ? ", " : "", params);
    cr_assert(length > 0);
    return whole;
}
