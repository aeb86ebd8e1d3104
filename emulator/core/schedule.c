/*
 * schedule.c: the words of MMLP_EMULATOR_SCHEDULE, read and printed, and the order of blocks. The
 * front reads a word, reports print it; nothing here looks at a kernel.
 */
#include "schedule.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_QUANTUM = 1000000 };

static const struct {
    size_t field;
    const char *word, *usual, *other;
} choices[] = {
#define CHOICE(field, word, usual, other) {offsetof(emu_schedule, field), word, usual, other},
#include "schedule.def"
#undef CHOICE
};

enum { CHOICES = sizeof choices / sizeof choices[0] };

const char *emu_schedule_legal(void)
{
    return "SEED[,quantum=N|block]"
#define CHOICE(field, word, usual, other) "[," word "=" usual "|" other "]"
#include "schedule.def"
#undef CHOICE
           ": SEED an integer from 0 to 18446744073709551615, N from 1 to 1000000";
}

/* ---- reading ---- */

/* The digits of [from, end) as a number up to `limit`. */
static bool read_number(uint64_t *out, const char *from, const char *end, uint64_t limit)
{
    if (*from < '0' || *from > '9') {
        return false;
    }
    char *stop = NULL;
    errno = 0;
    *out = strtoull(from, &stop, 10);
    return errno == 0 && stop == end && *out <= limit;
}

static bool is_text(const char *from, const char *end, const char *text)
{
    size_t length = (size_t)(end - from);
    return strlen(text) == length && memcmp(from, text, length) == 0;
}

static bool read_quantum(emu_schedule *out, const char *from, const char *end)
{
    uint64_t number;
    if (is_text(from, end, "block")) {
        out->quantum = EMU_QUANTUM_BLOCK;
        return true;
    }
    if (!read_number(&number, from, end, MOST_QUANTUM) || number == 0) {
        return false;
    }
    out->quantum = (int32_t)number;
    return true;
}

/* One word=value; `given` has a bit for each word that was there before. */
static bool read_word(emu_schedule *out, const char *from, const char *end, unsigned *given)
{
    const char *value = memchr(from, '=', (size_t)(end - from));
    if (!value) {
        return false;
    }
    unsigned bit = 1;
    bool ok = false;
    if (is_text(from, value, "quantum")) {
        ok = read_quantum(out, value + 1, end);
    } else {
        for (int i = 0; i < CHOICES; i++) {
            if (is_text(from, value, choices[i].word)) {
                bool other = is_text(value + 1, end, choices[i].other);
                bit = 2u << i;
                *(bool *)((char *)out + choices[i].field) = other;
                ok = other || is_text(value + 1, end, choices[i].usual);
            }
        }
    }
    ok = ok && !(*given & bit);
    *given |= bit;
    return ok;
}

bool emu_schedule_read(emu_schedule *out, const char *text)
{
    unsigned given = 0;
    const char *end = text + strcspn(text, ",");
    *out = (emu_schedule){0};
    bool ok = read_number(&out->seed, text, end, UINT64_MAX);
    while (ok && *end) {
        const char *from = end + 1;
        end = from + strcspn(from, ",");
        ok = read_word(out, from, end, &given);
    }
    return ok;
}

/* ---- printing ---- */

void emu_schedule_print(char out[EMU_SCHEDULE_BYTES], const emu_schedule *schedule)
{
    int used = snprintf(out, EMU_SCHEDULE_BYTES, "%llu", (unsigned long long)schedule->seed);
    if (schedule->quantum == EMU_QUANTUM_BLOCK) {
        used += snprintf(out + used, (size_t)(EMU_SCHEDULE_BYTES - used), ",quantum=block");
    } else if (schedule->quantum) {
        used += snprintf(out + used, (size_t)(EMU_SCHEDULE_BYTES - used), ",quantum=%d",
                         schedule->quantum);
    }
    for (int i = 0; i < CHOICES; i++) {
        if (*(const bool *)((const char *)schedule + choices[i].field)) {
            used += snprintf(out + used, (size_t)(EMU_SCHEDULE_BYTES - used), ",%s=%s",
                             choices[i].word, choices[i].other);
        }
    }
}

/* ---- the order of blocks ---- */

/* A Feistel network on the smallest even number of bits that holds every block; numbers beyond the
 * grid go through it again. */
uint64_t schedule_block(const emu_schedule *schedule, uint64_t turn, uint64_t blocks)
{
    int half = 1;
    if (schedule->seed == 0) {
        return turn;
    }
    while (half < 32 && UINT64_C(1) << 2 * half < blocks) {
        half++;
    }
    uint64_t low = (UINT64_C(1) << half) - 1, at = turn;
    do {
        for (uint64_t round = 0; round < 4; round++) {
            uint64_t right = at & low;
            uint64_t left = at >> half ^ (schedule_mix(schedule->seed ^ round << 60 ^ right) & low);
            at = right << half | left;
        }
    } while (at >= blocks);
    return at;
}
