/*
 * numerics.c: how mma.sync and wgmma round, chosen by a word. Read by machine.c, which then replaces
 * the mma handlers, and through emu.h by the driver front.
 */
#include "numerics.h"

#include <string.h>

typedef struct numerics_row {
    const char *word;
    mma_device device;
    int cc[2]; /* compute capabilities, 10 major + minor, whose "exact" this is */
} numerics_row;

static const numerics_row rows[] = {
    {"fast", MMA_NO_DEVICE, {0}},
    {"exact", MMA_NO_DEVICE, {0}},
    {"exact:a100", MMA_DEVICE_A100, {80, 86}}, /* 8.6: the A2 gives the same bits */
    {"exact:ada", MMA_DEVICE_ADA, {89}},
    {"exact:h100", MMA_DEVICE_H100, {90}},
    {"exact:b200", MMA_DEVICE_B200, {100}},
};
enum { ROWS = sizeof rows / sizeof rows[0] };

const char *emu_numerics_at(int index)
{
    return index >= 0 && index < ROWS ? rows[index].word : NULL;
}

static bool find_own(mma_device *out, const emu_arch *arch)
{
    int cc = 10 * arch->cc_major + arch->cc_minor;
    for (int i = 0; i < ROWS; i++) {
        if (rows[i].cc[0] == cc || rows[i].cc[1] == cc) {
            *out = rows[i].device;
            return true;
        }
    }
    return false;
}

bool numerics_find(mma_device *out, const char *word, const emu_arch *arch)
{
    *out = MMA_NO_DEVICE;
    if (!word) {
        return true;
    }
    if (strcmp(word, "exact") == 0) {
        return find_own(out, arch);
    }
    for (int i = 0; i < ROWS; i++) {
        if (strcmp(word, rows[i].word) == 0) {
            *out = rows[i].device;
            return true;
        }
    }
    return false;
}

bool emu_numerics_known(const char *word, const emu_arch *arch)
{
    mma_device device;
    return numerics_find(&device, word, arch);
}
