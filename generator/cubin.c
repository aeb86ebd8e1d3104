/*
 * cubin.c: an ELF file whose section .text.ENTRY is the machine code of a kernel. There need not be
 * a disassembler where kernels are checked, so the few instructions that matter are known here. The
 * image is not trusted: whatever it says of its own sizes is compared with what there is.
 *
 * An instruction has 16 bytes on every architecture since sm_70. The low 12 bits are the opcode: in
 * nine of them lies what it does, in the others the form of its operands (HGMMA is 0x9f0 with both
 * matrices in shared memory, 0xdf0 with A in registers). The numbers are undocumented. They come
 * from kernels with one wgmma of each type, assembled by ptxas 13.0 and read beside the listing of
 * nvdisasm 13.5, where no other instruction had them.
 */
#include "cubin.h"

#include <elf.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    INSTRUCTION_BYTES = 16,
    OPCODE_MASK = 0x1ff,
    OPCODE_USETMAXREG = 0x1c8,
    OPCODE_HGMMA = 0x1f0, /* then IGMMA, BGMMA, */
    OPCODE_QGMMA = 0x1f3
};

typedef struct cubin {
    const unsigned char *image;
    size_t bytes;
    const char *entry;
    Elf64_Ehdr header;
} cubin;

static mmlp_status damaged(const cubin *c, const char *what)
{
    return mmlp_fail(MMLP_ERROR_COMPILE, "cubin of %s, %zu bytes: %s", c->entry, c->bytes, what);
}

static bool is_inside(const cubin *c, uint64_t offset, uint64_t bytes)
{
    return offset <= c->bytes && bytes <= c->bytes - offset;
}

static mmlp_status read_header(cubin *c)
{
    Elf64_Ehdr *h = &c->header;
    if (!is_inside(c, 0, sizeof *h))
        return damaged(c, "too short for the header of an ELF file");
    memcpy(h, c->image, sizeof *h);
    if (memcmp(h->e_ident, ELFMAG, SELFMAG) != 0 || h->e_ident[EI_CLASS] != ELFCLASS64 ||
        h->e_ident[EI_DATA] != ELFDATA2LSB || h->e_shentsize != sizeof(Elf64_Shdr))
        return damaged(c, "not an ELF file of 64 bits, low byte first");
    if (!is_inside(c, h->e_shoff, (uint64_t)h->e_shnum * sizeof(Elf64_Shdr)))
        return damaged(c, "its table of sections lies behind its end");
    if (h->e_shstrndx >= h->e_shnum)
        return damaged(c, "the names of its sections are missing");
    return MMLP_OK;
}

/* A section's header, and that its contents are there. */
static mmlp_status read_section(Elf64_Shdr *out, const cubin *c, size_t index)
{
    memcpy(out, c->image + c->header.e_shoff + index * sizeof *out, sizeof *out);
    if (out->sh_type != SHT_NOBITS && !is_inside(c, out->sh_offset, out->sh_size))
        return damaged(c, "a section lies behind its end");
    return MMLP_OK;
}

/* Whether the name at an offset of the section `names` is .text.ENTRY. */
static bool is_code(const cubin *c, const Elf64_Shdr *names, uint64_t offset)
{
    static const char prefix[] = ".text.";
    size_t length = strlen(prefix), whole = length + strlen(c->entry) + 1; /* with its end */
    if (offset > names->sh_size || whole > names->sh_size - offset)
        return false;
    const unsigned char *name = c->image + names->sh_offset + offset;
    return memcmp(name, prefix, length) == 0 &&
           memcmp(name + length, c->entry, whole - length) == 0;
}

static mmlp_status find_code(Elf64_Shdr *out, const cubin *c)
{
    Elf64_Shdr names;
    MMLP_TRY(read_section(&names, c, c->header.e_shstrndx));
    if (names.sh_type != SHT_STRTAB)
        return damaged(c, "the names of its sections are missing");
    for (size_t i = 0; i < c->header.e_shnum; i++) {
        MMLP_TRY(read_section(out, c, i));
        if (out->sh_type == SHT_PROGBITS && is_code(c, &names, out->sh_name))
            return out->sh_size % INSTRUCTION_BYTES == 0
                       ? MMLP_OK
                       : damaged(c, "its code is no whole number of instructions");
    }
    return damaged(c, "it has no code of this kernel");
}

mmlp_status cubin_count(cubin_counts *out, const void *image, size_t bytes, const char *entry)
{
    cubin c = {.image = image, .bytes = bytes, .entry = entry};
    Elf64_Shdr code;
    *out = (cubin_counts){0};
    MMLP_TRY(read_header(&c));
    MMLP_TRY(find_code(&code, &c));
    for (uint64_t at = 0; at < code.sh_size; at += INSTRUCTION_BYTES) {
        const unsigned char *low = c.image + code.sh_offset + at;
        unsigned opcode = (low[0] | (unsigned)low[1] << 8) & OPCODE_MASK;
        out->instructions++;
        out->wgmma += opcode >= OPCODE_HGMMA && opcode <= OPCODE_QGMMA;
        out->setmaxnreg += opcode == OPCODE_USETMAXREG;
    }
    return MMLP_OK;
}
