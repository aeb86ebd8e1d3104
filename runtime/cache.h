/*
 * cache.h: compiled kernels on disk. An entry is one file that holds the key's whole text, PTX and
 * cubin, under a checksum. Any number of processes may share a folder.
 *
 * A key is text: what the kernel was made of and with. It names no path, no time, no environment,
 * so that a folder can be moved, copied into an image, or shared.
 */
#ifndef MMLP_CACHE_H
#define MMLP_CACHE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

typedef struct cache_roots {
    char *writable; /* or NULL: nothing is written */
    char *readonly; /* or NULL: looked at when the first has no entry */
} cache_roots;
void cache_roots_free(cache_roots *roots);

typedef struct cache_key {
    char *material; /* the whole text */
    size_t bytes;
    char name[33]; /* XXH3-128 of it, the name of the file */
} cache_key;

/* toolchain, target and options are single lines; source is the generated CUDA text. */
mmlp_status cache_key_make(cache_key *out, const char *toolchain, const char *target,
                           const char *options, const char *source, size_t source_bytes);
void cache_key_free(cache_key *key);

typedef struct cache_entry {
    char *ptx; /* NUL-terminated */
    size_t ptx_bytes;
    char *cubin;
    size_t cubin_bytes;
} cache_entry;
void cache_entry_free(cache_entry *entry);

/*
 * True on a hit: the entry is the caller's. On a miss `why` (WHY_BYTES) says the reason: no entry,
 * or what was wrong with one; a bad entry of the writable root is removed.
 */
enum { CACHE_WHY_BYTES = 256 };
bool cache_lookup(cache_entry *out, char *why, const cache_roots *roots, const cache_key *key);

/* Writes an entry (temporary file, fsync, rename). ERROR_IO when the folder cannot be written: the
 * caller tells it once and goes on. Nothing and OK without a writable root. */
mmlp_status cache_store(const cache_roots *roots, const cache_key *key, const cache_entry *entry);

/*
 * A lock that saves work and is not needed for correctness: while one process compiles a kernel,
 * others that miss the same key wait. Gives a descriptor for cache_unlock, or -1 when there is
 * nothing to lock, locks do not work on that file system, or the wait took too long.
 */
int cache_lock(const cache_roots *roots, const cache_key *key, double seconds);
void cache_unlock(int lock);

#endif
