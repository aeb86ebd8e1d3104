/* suggest.h: the nearest word, for messages that end in "did you mean". */
#ifndef MMLP_GENERATOR_SUGGEST_H
#define MMLP_GENERATOR_SUGGEST_H

#include <stddef.h>

typedef struct suggestion {
    const char *wanted;
    const char *best; /* NULL: nothing is near */
    size_t distance;
} suggestion;

/* Considers one candidate; call for each word, then read `best`. Ties go to the first. */
void suggest_consider(suggestion *s, const char *candidate);

#endif
