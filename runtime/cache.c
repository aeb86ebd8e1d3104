/*
 * cache.c: the disk cache of compiled kernels. Whatever goes wrong here is a miss, never an error
 * of the program that loads an MLP.
 */
#include "cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/file.h"
#include "base/text.h"

static const char entry_magic[8] = "MMLPKRN1";
static const char key_version[] = "megamlp kernel 1";

enum { MAX_ENTRY_BYTES = 1 << 28, LOCK_POLL_MS = 20 };

/* The head of an entry; key, PTX and cubin follow in this order. Little-endian, as the hosts are.
 */
typedef struct entry_head {
    char magic[8];
    uint64_t checksum[2]; /* XXH3-128 of all bytes behind it: low, high */
    uint64_t key_bytes, ptx_bytes, cubin_bytes;
} entry_head;

void cache_roots_free(cache_roots *roots)
{
    free(roots->writable);
    free(roots->readonly);
    *roots = (cache_roots){0};
}

void cache_key_free(cache_key *key)
{
    free(key->material);
    *key = (cache_key){0};
}

void cache_entry_free(cache_entry *entry)
{
    free(entry->ptx);
    free(entry->cubin);
    *entry = (cache_entry){0};
}

mmlp_status cache_key_make(cache_key *out, const char *toolchain, const char *target,
                           const char *options, const char *source, size_t source_bytes)
{
    *out = (cache_key){0};
    text material = TEXT_INIT;
    text_printf(&material, "%s\ntoolchain %s\ntarget %s\noptions %s\n", key_version, toolchain,
                target, options);
    text_append(&material, source, source_bytes);
    out->bytes = material.length;
    out->material = text_take(&material);
    if (!out->material)
        return mmlp_fail_memory(source_bytes, "a cache key");
    XXH128_hash_t hash = XXH3_128bits(out->material, out->bytes);
    snprintf(out->name, sizeof out->name, "%016llx%016llx", (unsigned long long)hash.high64,
             (unsigned long long)hash.low64);
    return MMLP_OK;
}

static char *entry_path(const char *root, const cache_key *key)
{
    char *path = NULL;
    return asprintf(&path, "%s/%s.kernel", root, key->name) < 0 ? NULL : path;
}

static bool checksum_matches(const char *file, size_t bytes, const entry_head *head)
{
    size_t start = offsetof(entry_head, key_bytes);
    XXH128_hash_t hash = XXH3_128bits(file + start, bytes - start);
    return hash.low64 == head->checksum[0] && hash.high64 == head->checksum[1];
}

/* What is wrong with the bytes of an entry, or NULL and its parts in `out`. */
static const char *open_entry(cache_entry *out, const char *file, size_t bytes,
                              const cache_key *key)
{
    entry_head head;
    if (bytes < sizeof head)
        return "the entry is too short";
    memcpy(&head, file, sizeof head);
    if (memcmp(head.magic, entry_magic, sizeof head.magic) != 0)
        return "the entry has another format";
    uint64_t body = bytes - sizeof head;
    if (head.key_bytes > body || head.ptx_bytes > body - head.key_bytes ||
        head.cubin_bytes != body - head.key_bytes - head.ptx_bytes)
        return "the entry's sizes do not add up";
    if (!checksum_matches(file, bytes, &head))
        return "the entry's checksum is wrong";
    const char *at = file + sizeof head;
    if (head.key_bytes != key->bytes || memcmp(at, key->material, key->bytes) != 0)
        return "the entry was made of something else";
    out->ptx = strndup(at + head.key_bytes, head.ptx_bytes);
    out->cubin = malloc(head.cubin_bytes + 1);
    if (!out->ptx || !out->cubin) {
        cache_entry_free(out);
        return "out of memory";
    }
    out->ptx_bytes = head.ptx_bytes;
    out->cubin_bytes = head.cubin_bytes;
    memcpy(out->cubin, at + head.key_bytes + head.ptx_bytes, head.cubin_bytes);
    return NULL;
}

/* A hit in one root. `keep_bad`: a bad entry is left where it is. */
static bool lookup_in(cache_entry *out, char *why, const char *root, const cache_key *key,
                      bool keep_bad)
{
    bool hit = false;
    char *path = entry_path(root, key);
    char *file = NULL;
    size_t bytes = 0;
    struct stat properties;
    if (!path || stat(path, &properties) != 0) {
        snprintf(why, CACHE_WHY_BYTES, "no entry");
    } else if (!S_ISREG(properties.st_mode) || properties.st_size > MAX_ENTRY_BYTES ||
               file_read(&file, &bytes, path) != MMLP_OK) {
        snprintf(why, CACHE_WHY_BYTES, "the entry cannot be read");
    } else {
        const char *wrong = open_entry(out, file, bytes, key);
        hit = wrong == NULL;
        if (wrong)
            snprintf(why, CACHE_WHY_BYTES, "%s", wrong);
        if (wrong && !keep_bad)
            unlink(path);
    }
    free(file);
    free(path);
    return hit;
}

bool cache_lookup(cache_entry *out, char *why, const cache_roots *roots, const cache_key *key)
{
    *out = (cache_entry){0};
    char why_readonly[CACHE_WHY_BYTES];
    snprintf(why, CACHE_WHY_BYTES, "there is no cache");
    if (roots->writable && lookup_in(out, why, roots->writable, key, false))
        return true;
    if (roots->readonly && lookup_in(out, why_readonly, roots->readonly, key, true))
        return true;
    if (roots->readonly && !roots->writable)
        memcpy(why, why_readonly, sizeof why_readonly);
    return false;
}

/* mkdir -p. */
static mmlp_status make_folder(const char *path)
{
    mmlp_status status = MMLP_OK;
    char *copy = strdup(path);
    if (!copy)
        return mmlp_fail_memory(strlen(path), "the path of the cache");
    for (char *slash = copy; slash && status == MMLP_OK;) {
        slash = strchr(slash + 1, '/');
        if (slash)
            *slash = '\0';
        if (copy[0] && mkdir(copy, 0777) != 0 && errno != EEXIST)
            status = mmlp_fail(MMLP_ERROR_IO, "%s: cannot create: %s", copy, strerror(errno));
        if (slash)
            *slash = '/';
    }
    free(copy);
    return status;
}

mmlp_status cache_store(const cache_roots *roots, const cache_key *key, const cache_entry *entry)
{
    if (!roots->writable)
        return MMLP_OK;
    mmlp_status status = MMLP_OK;
    text file = TEXT_INIT;
    char *path = entry_path(roots->writable, key);
    entry_head head = {
        .key_bytes = key->bytes, .ptx_bytes = entry->ptx_bytes, .cubin_bytes = entry->cubin_bytes};
    memcpy(head.magic, entry_magic, sizeof head.magic);
    text_append(&file, (const char *)&head, sizeof head);
    text_append(&file, key->material, key->bytes);
    text_append(&file, entry->ptx, entry->ptx_bytes);
    text_append(&file, entry->cubin, entry->cubin_bytes);
    if (!path || file.failed) {
        status = mmlp_fail_memory(key->bytes + entry->cubin_bytes, "a cache entry");
        goto cleanup;
    }
    size_t start = offsetof(entry_head, key_bytes);
    XXH128_hash_t hash = XXH3_128bits(file.chars + start, file.length - start);
    head.checksum[0] = hash.low64;
    head.checksum[1] = hash.high64;
    memcpy(file.chars, &head, sizeof head);
    MMLP_TRY_CLEANUP(make_folder(roots->writable));
    MMLP_TRY_CLEANUP(file_write_atomic(path, file.chars, file.length));

cleanup:
    text_free(&file);
    free(path);
    return status;
}

/* ---- the lock ------------------------------------------------------------------------------- */

/*
 * One file for all keys, of which each key locks one byte: nothing piles up in the folder, and a
 * process that dies gives its locks back. The locks belong to the open file, so that threads of one
 * process exclude each other too.
 */
int cache_lock(const cache_roots *roots, const cache_key *key, double seconds)
{
    if (!roots->writable || make_folder(roots->writable) != MMLP_OK)
        return -1;
    char *path = NULL;
    if (asprintf(&path, "%s/lock", roots->writable) < 0)
        return -1;
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    free(path);
    if (file < 0)
        return -1;
    unsigned long long hash = 0;
    sscanf(key->name, "%15llx", &hash); /* 60 bits: a file offset */
    struct flock byte = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)hash, .l_len = 1};
    long polls = (long)(seconds * 1000.0 / LOCK_POLL_MS);
    while (fcntl(file, F_OFD_SETLK, &byte) != 0) {
        if ((errno != EAGAIN && errno != EACCES && errno != EINTR) || polls-- <= 0) {
            close(file);
            return -1;
        }
        nanosleep(&(struct timespec){.tv_nsec = LOCK_POLL_MS * 1000000L}, NULL);
    }
    return file;
}

void cache_unlock(int lock)
{
    if (lock >= 0)
        close(lock);
}
