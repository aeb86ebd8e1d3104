/*
 * build_id.c: reads the build-id note of an ELF file. The file is only read, never loaded: a start
 * with a warm cache must not pay for opening NVRTC.
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/text.h"
#include "toolchain.h"

enum { MAX_SEGMENTS = 256, MAX_NOTES = 1 << 20, MAX_ID = 64 };

static bool read_at(int file, void *out, size_t bytes, uint64_t offset)
{
    return offset <= INT64_MAX && pread(file, out, bytes, (off_t)offset) == (ssize_t)bytes;
}

/* Appends the build-id among the notes to `hex`; false when there is none. */
static bool id_in_notes(text *hex, const unsigned char *notes, size_t bytes)
{
    size_t at = 0;
    while (bytes - at >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        memcpy(&note, notes + at, sizeof note);
        at += sizeof note;
        size_t name = ((size_t)note.n_namesz + 3) / 4 * 4;
        size_t content = ((size_t)note.n_descsz + 3) / 4 * 4;
        if (name > bytes - at || content > bytes - at - name)
            return false;
        if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof ELF_NOTE_GNU &&
            memcmp(notes + at, ELF_NOTE_GNU, sizeof ELF_NOTE_GNU) == 0 && note.n_descsz > 0 &&
            note.n_descsz <= MAX_ID) {
            for (size_t i = 0; i < note.n_descsz; i++)
                text_printf(hex, "%02x", notes[at + name + i]);
            return true;
        }
        at += name + content;
    }
    return false;
}

static bool id_of_elf(text *hex, int file)
{
    Elf64_Ehdr header;
    if (!read_at(file, &header, sizeof header, 0) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
        header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
        header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum > MAX_SEGMENTS)
        return false;
    for (unsigned i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;
        if (!read_at(file, &segment, sizeof segment, header.e_phoff + i * sizeof segment))
            return false;
        if (segment.p_type != PT_NOTE || segment.p_filesz > MAX_NOTES || segment.p_filesz == 0)
            continue;
        unsigned char *notes = malloc(segment.p_filesz);
        bool found = notes && read_at(file, notes, segment.p_filesz, segment.p_offset) &&
                     id_in_notes(hex, notes, segment.p_filesz);
        free(notes);
        if (found)
            return true;
    }
    return false;
}

static mmlp_status hash_of_file(text *hex, const char *path)
{
    char *bytes;
    size_t count;
    MMLP_TRY(file_read(&bytes, &count, path));
    XXH128_hash_t hash = XXH3_128bits(bytes, count);
    text_printf(hex, "%016llx%016llx", (unsigned long long)hash.high64,
                (unsigned long long)hash.low64);
    free(bytes);
    return MMLP_OK;
}

mmlp_status build_id_read(char **out, const char *path)
{
    *out = NULL;
    mmlp_status status = MMLP_OK;
    text hex = TEXT_INIT;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return mmlp_fail(MMLP_ERROR_IO, "%s: cannot open: %s", path, strerror(errno));
    if (!id_of_elf(&hex, file))
        status = hash_of_file(&hex, path);
    close(file);
    *out = text_take(&hex);
    if (status == MMLP_OK && !*out)
        status = mmlp_fail_memory(2 * MAX_ID, "a build-id");
    if (status != MMLP_OK) {
        free(*out);
        *out = NULL;
    }
    return status;
}
