/* toolchain_identity.c: build-ids read from files, and the search for NVRTC. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "made_bundle.h"
#include "temporary_folder.h"
#include "toolchain.h"

Test(build_id, a_file_without_one_is_known_by_its_hash)
{
    char *folder = temporary_folder_make();
    char path[4200], *first = NULL, *second = NULL;
    snprintf(path, sizeof path, "%s/library", folder);
    write_file(folder, "library", "some bytes", 10);
    cr_assert_eq(build_id_read(&first, path), MMLP_OK);
    write_file(folder, "library", "same bytes", 10);
    cr_assert_eq(build_id_read(&second, path), MMLP_OK);
    cr_expect_eq(strlen(first), 32);
    cr_expect_str_neq(first, second);
    free(first);
    free(second);
    temporary_folder_remove(folder);
}

Test(build_id, a_broken_elf_file_is_known_by_its_hash)
{
    char *folder = temporary_folder_make();
    char path[4200], head[64] = "\177ELF\2\1\1";
    snprintf(path, sizeof path, "%s/library", folder);
    for (int i = 16; i < 64; i++) {
        memset(head + 16, 0xff, (size_t)i - 16);
        write_file(folder, "library", head, sizeof head);
        char *id = NULL;
        cr_expect_eq(build_id_read(&id, path), MMLP_OK);
        cr_expect_eq(strlen(id), 32);
        free(id);
    }
    temporary_folder_remove(folder);
}

Test(toolchain, nvrtc_is_found_and_identified_by_two_build_ids)
{
    toolchain tools;
    cr_assert_eq(toolchain_find(&tools, NULL), MMLP_OK, "%s", mmlp_last_error());
    cr_expect(strstr(tools.nvrtc_path, "libnvrtc.so.13"));
    char id[128], builtins[128];
    cr_expect_eq(sscanf(tools.identity, "nvrtc %127s builtins %127s", id, builtins), 2, "%s",
                 tools.identity);
    toolchain_free(&tools);
}

Test(toolchain, a_path_that_does_not_exist_is_named)
{
    toolchain tools;
    cr_assert_eq(toolchain_find(&tools, "/nowhere/libnvrtc.so.13"), MMLP_ERROR_DRIVER);
    cr_expect_str_eq(mmlp_last_error(), "NVRTC: /nowhere/libnvrtc.so.13 not found");
}
