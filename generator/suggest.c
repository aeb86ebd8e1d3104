/* suggest.c: edit distance (optimal string alignment) between a misspelt word and the known ones.
 */
#include "suggest.h"

#include <string.h>

enum { LONGEST_WORD = 63 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t edit_distance(const char *a, size_t a_length, const char *b, size_t b_length)
{
    size_t rows[3][LONGEST_WORD + 1]; /* row i of the table is rows[(i + 1) % 3] */
    for (size_t j = 0; j <= b_length; j++)
        rows[1][j] = j;
    for (size_t i = 1; i <= a_length; i++) {
        const size_t *older = rows[(i + 2) % 3], *last = rows[i % 3];
        size_t *current = rows[(i + 1) % 3];
        current[0] = i;
        for (size_t j = 1; j <= b_length; j++) {
            size_t replace = last[j - 1] + (a[i - 1] != b[j - 1]);
            current[j] = least(replace, least(last[j], current[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                current[j] = least(current[j], older[j - 2] + 1);
        }
    }
    return rows[(a_length + 1) % 3][b_length];
}

void suggest_consider(suggestion *s, const char *candidate)
{
    size_t wanted_length = strlen(s->wanted), length = strlen(candidate);
    if (wanted_length > LONGEST_WORD || length > LONGEST_WORD)
        return;
    size_t distance = edit_distance(s->wanted, wanted_length, candidate, length);
    size_t limit = wanted_length / 3 + 1;
    if (distance <= limit && (!s->best || distance < s->distance)) {
        s->best = candidate;
        s->distance = distance;
    }
}
