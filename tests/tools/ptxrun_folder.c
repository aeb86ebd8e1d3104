/* ptxrun_folder.c: see ptxrun_folder.h. Definition: PTXRUN (the program). */
#include "ptxrun_folder.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "temporary_folder.h"

#define MAP_WORD(i) "  ld.param.b32 %r, [map+" #i "]; st.global.b32 [%out+" #i "], %r;\n"

/* put: out[i] = value; map: out = the first 16 words of a tensor map. */
static const char kernels[] =
    ".version 8.0\n.target sm_80\n.address_size 64\n"
    ".visible .entry put(.param .u64 out, .param .u32 value)\n{\n"
    "  .reg .b64 %out, %at; .reg .b32 %value, %thread;\n"
    "  ld.param.u64 %out, [out]; ld.param.u32 %value, [value];\n"
    "  mov.u32 %thread, %tid.x; mul.wide.u32 %at, %thread, 4; add.s64 %out, %out, %at;\n"
    "  st.global.b32 [%out], %value;\n  ret;\n}\n"
    ".visible .entry take(.param .u8 byte, .param .align 4 .b8 fields[12])\n{\n  ret;\n}\n"
    ".visible .entry map(.param .align 64 .b8 map[128], .param .u64 out)\n{\n"
    "  .reg .b64 %out; .reg .b32 %r;\n  ld.param.u64 %out, [out];\n" MAP_WORD(0) MAP_WORD(4)
        MAP_WORD(8) MAP_WORD(12) MAP_WORD(16) MAP_WORD(20) MAP_WORD(24) MAP_WORD(28) MAP_WORD(32)
            MAP_WORD(36) MAP_WORD(40) MAP_WORD(44) MAP_WORD(48) MAP_WORD(52) MAP_WORD(56)
                MAP_WORD(60) "  ret;\n}\n"
                             ".visible .entry nothing()\n{\n  ret;\n}\n";

char *ptxrun_folder_make(void)
{
    char *folder = temporary_folder_make();
    ptxrun_folder_write(folder, "kernel.ptx", kernels, sizeof kernels - 1);
    return folder;
}

void ptxrun_folder_write(const char *folder, const char *name, const char *bytes, size_t count)
{
    char *path = NULL;
    cr_assert_gt(asprintf(&path, "%s/%s", folder, name), 0);
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, count, file), count);
    fclose(file);
    free(path);
}

program_result ptxrun_folder_run(const char *folder, const char *manifest)
{
    char *path = NULL;
    ptxrun_folder_write(folder, "manifest.json", manifest, strlen(manifest));
    cr_assert_gt(asprintf(&path, "%s/manifest.json", folder), 0);
    program_result result = program_run((const char *const[]){PTXRUN, path, NULL});
    free(path);
    return result;
}
