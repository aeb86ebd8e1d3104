/*
 * cubins.c: what megamlp-gen check reads from machine code, and that no damaged image makes it read
 * beside the image.
 */
#include <base/file.h>
#include <base/nvrtc.h>
#include <check.h>
#include <criterion/criterion.h>
#include <cubin.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* warpgroups.cu with these kernels (malloc). */
static char *source_with(const char *definitions)
{
    char *kernels, *whole;
    size_t bytes;
    cr_assert_eq(file_read(&kernels, &bytes, MMLP_SOURCE_DIR "/tests/generator/warpgroups.cu"),
                 MMLP_OK, "%s", mmlp_last_error());
    cr_assert_gt(asprintf(&whole, "%s\n%s", definitions, kernels), 0);
    free(kernels);
    return whole;
}

/* Two kernels, every_type and none. */
static nvrtc_image compile(void)
{
    nvrtc *compiler;
    nvrtc_image image = {0};
    char *code = source_with("#define HAS_every_type\n#define HAS_none");
    cr_assert_eq(nvrtc_open(&compiler, NULL), MMLP_OK, "%s", mmlp_last_error());
    nvrtc_source source = {.name = "warpgroups.cu", .text = code, .target = "sm_90a"};
    cr_assert_eq(nvrtc_compile(&image, compiler, &source), MMLP_OK, "%s", mmlp_last_error());
    nvrtc_close(compiler);
    free(code);
    return image;
}

Test(cubins, warpgroup_instructions_are_counted)
{
    nvrtc_image image = compile();
    cubin_counts counts;
    cr_assert_eq(cubin_count(&counts, image.cubin, image.cubin_bytes, "every_type"), MMLP_OK, "%s",
                 mmlp_last_error());
    cr_expect_eq(counts.wgmma, 6);
    cr_expect_eq(counts.setmaxnreg, 1);
    cr_expect_gt(counts.instructions, 20);
    cr_assert_eq(cubin_count(&counts, image.cubin, image.cubin_bytes, "none"), MMLP_OK, "%s",
                 mmlp_last_error());
    cr_expect_eq(counts.wgmma, 0);
    cr_expect_eq(counts.setmaxnreg, 0);
    cr_expect_gt(counts.instructions, 0);
    nvrtc_image_free(&image);
}

/* ---- damaged images -------------------------------------------------------------------------- */

/* Counts in a copy that ends where memory ends: a byte read behind it ends the process. */
static mmlp_status count_at_end(const char *image, size_t bytes, const char *entry)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (bytes + page - 1) / page * page;
    char *memory =
        mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(memory, MAP_FAILED);
    cr_assert_eq(mprotect(memory + room, page, PROT_NONE), 0);
    char *copy = memory + room - bytes;
    memcpy(copy, image, bytes);
    cubin_counts counts;
    mmlp_status status = cubin_count(&counts, copy, bytes, entry);
    munmap(memory, room + page);
    return status;
}

Test(cubins, a_cubin_that_ends_too_early_is_refused)
{
    nvrtc_image image = compile();
    Elf64_Ehdr header;
    memcpy(&header, image.cubin, sizeof header);
    size_t sections_end = header.e_shoff + header.e_shnum * sizeof(Elf64_Shdr);
    for (size_t bytes = 0; bytes < sections_end; bytes += bytes < 256 ? 1 : 7)
        cr_assert_eq(count_at_end(image.cubin, bytes, "none"), MMLP_ERROR_COMPILE,
                     "%zu of %zu bytes", bytes, image.cubin_bytes);
    cr_expect_eq(count_at_end(image.cubin, image.cubin_bytes, "none"), MMLP_OK);
    nvrtc_image_free(&image);
}

Test(cubins, a_cubin_with_wrong_numbers_is_never_read_beside_it)
{
    static const unsigned char wrong[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    nvrtc_image image = compile();
    Elf64_Ehdr header;
    memcpy(&header, image.cubin, sizeof header);
    size_t table = header.e_shoff, end = table + header.e_shnum * sizeof(Elf64_Shdr);
    int refused = 0;
    for (size_t at = 0; at < end; at = at + 1 == sizeof header ? table : at + 1) {
        char right = image.cubin[at];
        for (size_t i = 0; i < sizeof wrong; i++) {
            image.cubin[at] = (char)wrong[i];
            refused += count_at_end(image.cubin, image.cubin_bytes, "every_type") != MMLP_OK;
        }
        image.cubin[at] = right;
    }
    cr_expect_gt(refused, 0);
    nvrtc_image_free(&image);
}

/* Changes one field of a header at `offset` of the image and expects the words. */
static void expect_refusal(const nvrtc_image *image, size_t offset, const void *value, size_t bytes,
                           const char *entry, const char *words)
{
    char *copy = malloc(image->cubin_bytes);
    cubin_counts counts;
    cr_assert_not_null(copy);
    memcpy(copy, image->cubin, image->cubin_bytes);
    memcpy(copy + offset, value, bytes);
    cr_expect_eq(cubin_count(&counts, copy, image->cubin_bytes, entry), MMLP_ERROR_COMPILE, "%s",
                 words);
    cr_expect(strstr(mmlp_last_error(), words), "'%s' is not in '%s'", words, mmlp_last_error());
    cr_expect(strstr(mmlp_last_error(), entry), "'%s' is not in '%s'", entry, mmlp_last_error());
    free(copy);
}

Test(cubins, the_message_says_what_is_wrong)
{
    nvrtc_image image = compile();
    Elf64_Ehdr header;
    memcpy(&header, image.cubin, sizeof header);
    const uint64_t far = UINT64_MAX - 63;
    const uint16_t many = UINT16_MAX;
    size_t first = header.e_shoff + sizeof(Elf64_Shdr);
    expect_refusal(&image, 0, "\177EL\177", 4, "none", "not an ELF file");
    expect_refusal(&image, EI_CLASS, "\1", 1, "none", "not an ELF file of 64 bits");
    expect_refusal(&image, offsetof(Elf64_Ehdr, e_shoff), &far, 8, "none",
                   "its table of sections lies behind its end");
    expect_refusal(&image, offsetof(Elf64_Ehdr, e_shnum), &many, 2, "none",
                   "its table of sections lies behind its end");
    expect_refusal(&image, offsetof(Elf64_Ehdr, e_shstrndx), &many, 2, "none",
                   "the names of its sections are missing");
    expect_refusal(&image, first + offsetof(Elf64_Shdr, sh_offset), &far, 8, "none",
                   "a section lies behind its end");
    expect_refusal(&image, first + offsetof(Elf64_Shdr, sh_size), &far, 8, "none",
                   "a section lies behind its end");
    expect_refusal(&image, 0, image.cubin, 4, "non", "it has no code of this kernel");
    expect_refusal(&image, 0, image.cubin, 4, "none.", "it has no code of this kernel");
    nvrtc_image_free(&image);
}

/* ---- the check ------------------------------------------------------------------------------- */

/* The line that check prints of a kernel of warpgroups.cu for sm_90a (malloc). */
static char *line_of(const char *entry, const char *definition, int wanted_failures)
{
    char *code = source_with(definition), *line = NULL;
    size_t bytes;
    int failures;
    plan p = {.family = plan_family_of("sm_90a")};
    emit_kernel kernel = {.plan = &p, .entry = (char *)entry, .file = "warpgroups.cu"};
    text_puts(&kernel.source.text, code);
    emit_kernels kernels = {.kernels = &kernel, .count = 1};
    static const char *const archs[] = {"sm_90a"};
    FILE *out = open_memstream(&line, &bytes);
    cr_assert_eq(check_kernels(&failures, out, &kernels, archs, 1), MMLP_OK, "%s",
                 mmlp_last_error());
    fclose(out);
    cr_expect_eq(failures, wanted_failures, "%s", line);
    text_free(&kernel.source.text);
    free(code);
    return line;
}

static void expect_line(const char *entry, const char *definition, int failures, const char *words)
{
    char *line = line_of(entry, definition, failures);
    cr_expect(strstr(line, words), "'%s' is not in '%s'", words, line);
    free(line);
}

Test(cubins, check_compares_machine_code_with_ptx)
{
    expect_line("none", "#define HAS_none", 0, "PTX instructions\n");
    expect_line("unbounded", "#define HAS_unbounded", 1,
                "FAILED: no setmaxnreg in the machine code\n");
    expect_line("overwritten", "#define HAS_overwritten", 1,
                ",  1 wgmma, FAILED: 2 wgmma in the PTX, 1 in the machine code\n");
    expect_line("other", "#define HAS_overwritten", 1, "it has no code of this kernel\n");
}
