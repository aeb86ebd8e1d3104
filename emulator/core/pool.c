/*
 * pool.c: the pool allocator and the string builder that the parser, the decoder and the reports
 * use.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"

enum { CHUNK_BYTES = 1 << 16 };

struct pool_chunk {
    pool_chunk *next;
    size_t capacity;
    _Alignas(16) unsigned char bytes[];
};

void *pool_require(void *memory)
{
    if (!memory) {
        fputs("emulator: out of host memory\n", stderr);
        abort();
    }
    return memory;
}

void *pool_alloc(pool *p, size_t bytes)
{
    bytes = (bytes + 15) & ~(size_t)15;
    if (!p->first || p->used + bytes > p->first->capacity) {
        size_t capacity = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
        pool_chunk *chunk = pool_require(calloc(1, sizeof *chunk + capacity));
        chunk->next = p->first;
        chunk->capacity = capacity;
        p->first = chunk;
        p->used = 0;
    }
    void *result = p->first->bytes + p->used;
    p->used += bytes;
    return result;
}

char *pool_string(pool *p, const char *source, size_t length)
{
    char *copy = pool_alloc(p, length + 1);
    memcpy(copy, source, length);
    return copy;
}

void pool_free(pool *p)
{
    while (p->first) {
        pool_chunk *next = p->first->next;
        free(p->first);
        p->first = next;
    }
    p->used = 0;
}

void text_add_bytes(text *t, const char *bytes, size_t length)
{
    if (t->length + length + 1 > t->capacity) {
        t->capacity = 2 * (t->length + length + 1);
        t->chars = pool_require(realloc(t->chars, t->capacity));
    }
    memcpy(t->chars + t->length, bytes, length);
    t->length += length;
    t->chars[t->length] = 0;
}

void text_add(text *t, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *line = pool_require(malloc((size_t)length + 1));
    vsnprintf(line, (size_t)length + 1, format, again);
    va_end(again);
    text_add_bytes(t, line, (size_t)length);
    free(line);
}

void text_free(text *t)
{
    free(t->chars);
    *t = (text){0};
}
