/* temporary_folder.c: see temporary_folder.h. */
#include "temporary_folder.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

char *temporary_folder_make(void)
{
    const char *parent = getenv("TMPDIR");
    char *folder = NULL;
    cr_assert_gt(asprintf(&folder, "%s/megamlp-test-XXXXXX", parent && *parent ? parent : P_tmpdir),
                 0);
    cr_assert_not_null(mkdtemp(folder), "%s", folder);
    return folder;
}

static int remove_entry(const char *path, const struct stat *properties, int type, struct FTW *ftw)
{
    (void)properties, (void)type, (void)ftw;
    return remove(path);
}

void temporary_folder_remove(char *folder)
{
    nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    free(folder);
}
