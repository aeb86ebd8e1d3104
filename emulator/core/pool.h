/*
 * pool.h: memory that is freed as a whole (a PTX module and everything parsed from it), and a
 * string builder that never overruns. Running out of host memory ends the process: the emulator has
 * no way on.
 */
#ifndef EMU_POOL_H
#define EMU_POOL_H

#include <stdarg.h>
#include <stddef.h>

typedef struct pool_chunk pool_chunk;

typedef struct pool {
    pool_chunk *first;
    size_t used;
} pool;

void *pool_alloc(pool *p, size_t bytes); /* zeroed, aligned to 16 */
char *pool_string(pool *p, const char *text, size_t length);
void pool_free(pool *p);

void *pool_require(void *memory); /* memory, or abort() when it is NULL */

/* Grows *array (elements of `size` bytes) so that index `count` can be written. */
#define POOL_GROW(array, count, capacity)                                                          \
    ((count) < (capacity)                                                                          \
         ? (void)0                                                                                 \
         : (void)((capacity) = (capacity) ? 2 * (capacity) : 16,                                   \
                  (array) = pool_require(realloc((array), (size_t)(capacity) * sizeof *(array)))))

typedef struct text {
    char *chars;
    size_t length, capacity;
} text;

void text_add(text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_add_bytes(text *t, const char *bytes, size_t length);
void text_free(text *t);

#endif
